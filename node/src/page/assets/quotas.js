// The tree of limits: each place with what is used and set aside of every key.

import { poll } from "/page/api.js";
import { buttons, card, h, meter, redraw } from "/page/dom.js";
import { ago, amount, percent, span } from "/page/words.js";

const NEAR = 0.8;

export function open(root) {
  const view = { only: sessionStorage.getItem("quorate.quotas") || "limits", seen: undefined };
  const choose = (only) => {
    view.only = only;
    sessionStorage.setItem("quorate.quotas", only);
    draw();
  };
  const draw = () => redraw(root, tree(view, choose));
  view.tick = async () => {
    const seen = await poll("quotas", "quotas", {});
    if (seen) { view.seen = seen; draw(); }
  };
  return view;
}

function tree({ seen, only }, choose) {
  const kept = (limit) => only === "all" || (limit.limit !== null && (only === "limits" || share(limit) >= NEAR));
  const places = seen.quotas.map((place) => ({ ...place, shown: place.limits.filter(kept) })).filter((place) => place.shown.length > 0);
  places.sort((one, other) => (one.path === "cluster" ? -1 : other.path === "cluster" ? 1 : one.path < other.path ? -1 : 1));
  const near = seen.quotas.flatMap((place) => place.limits).filter((limit) => share(limit) >= NEAR).length;
  const picks = buttons([["limits", "limits"], ["near", [`near the limit `, h("span.faint", null, near)]], ["all", "everything used"]], only, choose);
  if (places.length === 0) {
    const words = only === "near" ? "No limit is used to 80 %." : ["No limits are set. ", h("code", null, "quorate quota set projects/NAME running=4"), " sets one."];
    return card("Quotas", picks, h("div.empty", null, words));
  }
  const head = ["Place", "Key", "Used", "", "Limit", "Share", "Kind", "Window"];
  const kinds = ["", "", "num", "wide-meter", "num", "num", "soft", "num soft"];
  return card("Quotas", picks, h("div.scroll", null, h("table.quotas", null,
    h("thead", null, h("tr", null, head.map((words, at) => h("th", { class: kinds[at], scope: "col" }, words)))),
    places.map((place) => h("tbody", null, place.shown.map((limit, at) => row(place, limit, at)))))));
}

function row(place, limit, at) {
  const used = limit.used + limit.reserved;
  const part = share(limit);
  const kind = part > 1 ? "over" : part >= NEAR ? "warn" : "";
  const all = limit.limit || used || 1;
  const ends = limit.window_end_ms > 0 && limit.window_end_ms < Number.MAX_SAFE_INTEGER ? `${span(limit.window_end_ms - Date.now())} left` : "";
  return h("tr", null,
    h("td.nowrap", null, at === 0 && placeName(place)),
    h("td.nowrap", null, h("code", null, limit.key)),
    h("td.num", { title: limit.reserved > 0 ? `${amount(limit.key, limit.reserved)} of it set aside` : "" }, limit.kind === "weight" ? "" : amount(limit.key, used)),
    h("td.wide-meter", null, limit.limit !== null && limit.kind !== "weight" && meter([[limit.used / all, "", "used"], [limit.reserved / all, "thin", "set aside"]], kind)),
    h("td.num", null, limit.limit === null ? h("span.faint", null, "none") : amount(limit.key, limit.limit)),
    h("td.num", null, limit.limit === null || limit.kind === "weight" ? "" : percent(used, limit.limit)),
    h("td.soft", null, limit.kind),
    h("td.num.soft", null, ends));
}

function placeName(place) {
  const [project, agent] = place.path.replace(/^projects\//, "").split("/agents/");
  const depth = place.path === "cluster" ? 0 : agent ? 2 : 1;
  const by = place.author ? `set by ${place.author} ${ago(place.updated_ms)} ago${place.reason ? `: ${place.reason}` : ""}` : "";
  const kind = ["", "project", "agent"][depth];
  return h("span", { size: { "padding-left": `${depth * 14}px` }, title: `${place.path}${by ? `, ${by}` : ""}` },
    kind && h("span.faint", null, `${kind} `), h("b", null, agent || project));
}

function share(limit) {
  if (limit.limit === null || limit.kind === "weight") return 0;
  if (limit.limit === 0) return limit.used + limit.reserved > 0 ? 2 : 0;
  return (limit.used + limit.reserved) / limit.limit;
}
