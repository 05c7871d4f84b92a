// All tasks of a project: counted by state, searched, ordered, a page at a time.

import { poll } from "/page/api.js";
import { buttons, fill, h, redraw, table } from "/page/dom.js";
import { FINAL, ago, clock, count, percent, short, span, state, usd } from "/page/words.js";

const SIZE = 100;
const ORDERS = { newest: "newest first", oldest: "oldest first", tokens: "most tokens", cost: "most cost", steps: "most steps" };
const FILTERS = [["", "all"], ["open", "open"], ["RUNNING", "running"], ["PENDING", "pending"], ["SUCCEEDED", "succeeded"], ["FAILED", "failed"]];

export function open(root, at, context) {
  const asked = {
    text: at.query.get("text") || "", state: at.query.get("state") || "", roots: at.query.get("roots") === "true",
    order: ORDERS[at.query.get("order")] ? at.query.get("order") : "newest", page: Number(at.query.get("page")) || 0,
  };
  const bar = h("div.bar");
  const list = h("div");
  const view = { seen: undefined };
  fill(root, h("section.card", null, bar, list));

  // The address says what is shown, so that it can be sent to somebody; going back goes back.
  const ask = (change) => {
    Object.assign(asked, { page: 0 }, change);
    const said = new URLSearchParams(Object.entries(asked).filter(([, value]) => value && value !== "newest"));
    history.replaceState(null, "", `#/tasks${said.size > 0 ? `?${said}` : ""}`);
    drawBar();
    view.tick();
  };

  const search = h("input", {
    type: "search", "data-key": "search", placeholder: "id, agent, label=value   ( / )", "aria-label": "Search tasks", value: asked.text,
    oninput: (event) => ask({ text: event.target.value }),
  });
  const order = h("select", { "data-key": "order", "aria-label": "Order", onchange: (event) => ask({ order: event.target.value }) },
    Object.entries(ORDERS).map(([name, words]) => h("option", { value: name }, words)));
  const roots = h("input", { type: "checkbox", id: "roots", "data-key": "roots", onchange: (event) => ask({ roots: event.target.checked }) });

  function drawBar() {
    const counts = view.seen?.counts;
    const number = (name) => (name === "" ? counts.all : name === "open" ? counts.all - FINAL.reduce((sum, it) => sum + (counts.by_state[it] || 0), 0) : counts.by_state[name] || 0);
    const others = asked.state && !FILTERS.some(([name]) => name === asked.state) ? [[asked.state, asked.state.toLowerCase().replaceAll("_", " ")]] : [];
    const choices = [...FILTERS, ...others].map(([name, words]) => [name, [words, counts && h("span.faint", null, ` ${short(number(name))}`)]]);
    order.value = asked.order;
    roots.checked = asked.roots;
    const held = document.activeElement;
    fill(bar, search, buttons(choices, asked.state, (name) => ask({ state: name })), h("label.row", { for: "roots" }, roots, "only top level"), h("span.more", null, order));
    if (held === search || held === order || held === roots) held.focus();
  }

  view.tick = async () => {
    const before = JSON.stringify(asked);
    const seen = await poll("tasks", "tasks", { ...asked, project: context.project, size: SIZE });
    if (!seen || before !== JSON.stringify(asked)) return;
    view.seen = seen;
    drawBar();
    redraw(list, rows(seen, context.project), paging(seen, asked, ask));
  };
  drawBar();
  return view;
}

function rows({ tasks, counts }, project) {
  const to = (row) => `#/task/${encodeURIComponent(project)}/${row.uid}`;
  if (tasks.length === 0) {
    return h("div.empty", null, counts.all === 0 ? ["This project has no tasks yet. ", h("code", null, "quorate run --agent NAME --input …"), " makes one."] : "No task is like that.");
  }
  return table([
    ["State", "nowrap", (row) => state(row.state)],
    ["Task", "name", (row) => h("div.cut", { title: row.id }, row.parent && h("span.faint", null, "↳ "), h("a", { href: to(row) }, row.id), row.children > 0 && h("span.badge", { title: "tasks that it started" }, row.children))],
    ["Agent", "agent", (row) => h("div.cut", { title: row.agent }, row.agent)],
    ["Node or reason", "agent", (row) => h("div.cut.soft", { title: row.reason }, row.node || row.reason || "")],
    ["Class", "nowrap soft", (row) => row.class],
    ["Steps", "num", (row) => count(row.step)],
    ["Tokens", "num", (row) => short(row.tokens)],
    ["Cached", "num soft", (row) => (row.cached_tokens > 0 ? percent(row.cached_tokens, row.tokens) : "–")],
    ["Cost", "num", (row) => usd(row.micro_usd)],
    ["Started", "num soft", (row) => clock(row.created_ms)],
    ["Took", "num", (row) => (row.ended_ms ? span(row.ended_ms - row.created_ms) : ago(row.created_ms))],
  ], tasks, to);
}

function paging({ matched, tasks }, asked, ask) {
  const first = asked.page * SIZE;
  const step = (by, words, off) => h("button", { type: "button", "data-key": words, disabled: off, onclick: () => ask({ page: asked.page + by }) }, words);
  if (matched <= SIZE && asked.page === 0) return h("div.foot.soft", null, `${count(matched)} tasks`);
  return h("div.foot.row", null,
    h("span.soft", null, `${count(first + 1)} to ${count(first + tasks.length)} of ${count(matched)}`),
    step(-1, "Previous", asked.page === 0), step(1, "Next", first + tasks.length >= matched));
}

