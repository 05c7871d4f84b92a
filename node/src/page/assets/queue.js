// What waits for a place and why, and what stands still until somebody does something.

import { poll } from "/page/api.js";
import { card, h, redraw, table } from "/page/dom.js";
import { ago, count, short, span, state } from "/page/words.js";

export function open(root, at, context) {
  const { project } = context;
  const to = (row) => `#/task/${encodeURIComponent(project)}/${row.uid}`;
  return {
    async tick() {
      const seen = await poll("queue", "queue", { project });
      if (seen) redraw(root, waiting(seen, to), stuck(seen, to, context));
    },
  };
}

function waiting({ waiting: all, queue }, to) {
  if (all === 0) return card("Queue", null, h("div.empty", null, "Nothing waits: every task of this project has a place, or is over."));
  const columns = [
    ["#", "num", (row) => (row.why ? count(row.why.position) : "")],
    ["Class", "nowrap", (row) => h("span", null, row.class, h("span.faint", null, ` ${row.priority}`))],
    ["Task", "name", (row) => h("a.cut", { href: to(row), title: row.id }, row.id)],
    ["Agent", "nowrap", (row) => row.agent],
    ["Waits", "num", (row) => ago(row.created_ms)],
    ["Starts in", "num", (row) => (row.why?.eta_ms === undefined || row.why.eta_ms === null ? "–" : `≈ ${span(row.why.eta_ms)}`)],
    ["Why", "why", why],
  ];
  const more = `${count(all)} waiting${queue.length < all ? `, the first ${queue.length} shown` : ""}`;
  return card("Queue", more, table(columns, queue, to));
}

// All of them together hold it; each has the numbers that would have to change.
function why(row) {
  if (!row.why) return h("span.faint", null, "behind those above");
  const { blockers } = row.why;
  if (blockers.length === 0) return h("span.soft", null, "nothing: it starts with the next plan");
  return blockers.map((it) => h("div.blocker", { title: it.message }, h("code", null, it.reason), " ", h("span.soft", null, said(it))));
}

export function said(it) {
  if (!it.resource && !it.limit) return it.message;
  const wants = `wants ${short(it.requested)}, ${short(it.available)} free`;
  return `${it.resource || ""} ${wants}${it.limit ? ` of ${short(it.limit)}` : ""}`.trim();
}

function stuck({ stuck: rows, stuck_count: all }, to, context) {
  if (all === 0) return undefined;
  const columns = [
    ["State", "nowrap", (row) => state(row.state)],
    ["Task", "name", (row) => h("a.cut", { href: to(row), title: row.id }, row.id)],
    ["Agent", "nowrap", (row) => row.agent],
    ["Since its start", "num", (row) => ago(row.created_ms)],
    ["Why", "why", (row) => (row.why && row.why.blockers.length > 0 ? why(row) : h("span.soft", null, row.reason || (row.state === "WAITING_INPUT" ? "waits for a person" : "")))],
    ["", "num", (row) => context.me.may_act && row.state === "PAUSED" &&
      h("button", { type: "button", "data-key": `resume-${row.uid}`, onclick: () => context.act(context.project, row.uid, row.id, "resume") }, "Resume")],
  ];
  return card("Stands still", `${count(all)} until somebody does something`, table(columns, rows, to));
}
