// What the node is asked, with the key in a header and nowhere else. An answer that has not changed is not read again.

const KEY = "quorate.key";
const tags = new Map();

export class Refused extends Error {
  constructor(status, error) {
    super(error.message || `the node answered ${status}`);
    this.status = status;
    this.reason = error.reason || "";
    this.next = error.next || "";
  }
}

// The tab's own store: it goes with the tab, and no other site's page can read it.
export const key = {
  get: () => sessionStorage.getItem(KEY) || "",
  set: (text) => { tags.clear(); sessionStorage.setItem(KEY, text); },
  drop: () => { tags.clear(); sessionStorage.removeItem(KEY); },
};

function headers(more = {}) {
  const shown = key.get();
  return shown ? { ...more, authorization: `Bearer ${shown}` } : more;
}

function address(name, query = {}) {
  const url = new URL(`/page/api/${name}`, location.origin);
  for (const [word, value] of Object.entries(query)) {
    if (value !== "" && value !== undefined && value !== false) url.searchParams.set(word, value);
  }
  return url;
}

async function failure(response) {
  const body = await response.json().catch(() => ({}));
  return new Refused(response.status, body.error || {});
}

// Answers the value, or `undefined` where it is as it was at the last call with the same slot.
export async function poll(slot, name, query, signal) {
  const url = address(name, query);
  const known = tags.get(slot);
  const same = known && known.url === url.href;
  const response = await fetch(url, {
    headers: headers(same ? { "if-none-match": known.tag } : {}), cache: "no-store", signal,
  });
  if (response.status === 304) return undefined;
  if (!response.ok) throw await failure(response);
  tags.set(slot, { url: url.href, tag: response.headers.get("etag") || "" });
  return response.json();
}

export async function get(name, query, signal) {
  const response = await fetch(address(name, query), { headers: headers(), cache: "no-store", signal });
  if (!response.ok) throw await failure(response);
  return response.json();
}

export function forget(slot) {
  tags.delete(slot);
}

export async function act(project, id, verb) {
  const order = { project, id, verb, request_id: `page-${crypto.getRandomValues(new Uint32Array(4)).join("")}` };
  const response = await fetch(address("act"), {
    method: "POST", headers: headers({ "content-type": "application/json" }), body: JSON.stringify(order),
  });
  if (!response.ok) throw await failure(response);
  return response.json();
}

// Calls `heard` with each event of a task until the stream ends.
export async function watch(project, id, from, heard, signal) {
  const response = await fetch(address("watch", { project, id, from }), {
    headers: headers({ accept: "text/event-stream" }), cache: "no-store", signal,
  });
  if (!response.ok) throw await failure(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
      if (data.length > 0) heard(JSON.parse(data.join("\n")));
    }
  }
}
