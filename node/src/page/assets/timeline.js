// Where a task's time went: its states on one line, its steps below it, and the same steps as a table.

import { card, h, meter } from "/page/dom.js";
import { FINAL, clock, count, short, span, stateKind, stateWords, usd } from "/page/words.js";

const TICKS = 5;
const STEPS_SHOWN = 100;

export function timeline(task, events, steps) {
  if (!task) return undefined;
  const begin = task.created_ms;
  const end = Math.max(task.ended_ms || Date.now(), begin + 1);
  const place = (ms) => `${(Math.max(0, Math.min(1, (ms - begin) / (end - begin))) * 100).toFixed(3)}%`;
  const times = stepTimes(events);
  return card("Timeline", legend(events, task), h("div.pad.timeline", null,
    h("div.band", { role: "img", "aria-label": spoken(events, task) }, bands(events, begin, end, place)),
    h("div.bars", { "aria-hidden": "true" }, bars(steps, times, place)),
    h("div.axis.faint", null, Array.from({ length: TICKS }, (_, at) => {
      const ms = begin + ((end - begin) * at) / (TICKS - 1);
      return h("span", { size: { left: place(ms) } }, at === 0 ? clock(ms) : `+${span(ms - begin)}`);
    }))));
}

// States from one event to the next. What is no longer kept is hatched.
function spans(events, begin, end) {
  const states = events.filter((event) => event.kind.state);
  const found = states.map((event, at) => ({
    state: event.kind.state, node: event.kind.node, reason: event.kind.reason, from: event.at_ms, to: states[at + 1]?.at_ms ?? end,
  }));
  if (found.length > 0 && found[0].from > begin + 50) {
    const kept = events[0].sequence === 1;
    found.unshift({ state: kept ? "PENDING" : "", from: begin, to: found[0].from, node: "", reason: kept ? "" : "events that are no longer kept" });
  }
  return found.filter((it) => !FINAL.includes(it.state));
}

function bands(events, begin, end, place) {
  return spans(events, begin, end).map((it) => h("i", {
    class: it.state ? `fill-${stateKind(it.state)}` : "hatched", size: { left: place(it.from), width: `calc(${place(it.to)} - ${place(it.from)})` },
    title: [stateWords(it.state), it.node && `on ${it.node}`, it.reason, span(it.to - it.from)].filter(Boolean).join(" · "),
  }));
}

function legend(events, task) {
  const sums = new Map();
  for (const it of spans(events, task.created_ms, task.ended_ms || Date.now())) {
    const kind = stateWords(it.state) || "not kept";
    const sum = sums.get(kind) || { state: it.state, ms: 0 };
    sums.set(kind, { ...sum, ms: sum.ms + it.to - it.from });
  }
  return h("span.legend", null, [...sums].map(([words, { state, ms }]) =>
    h("span", null, h("i.dot", { class: state ? `fill-${stateKind(state)}` : "hatched" }), `${words} ${span(ms)}`)));
}

function spoken(events, task) {
  return `States over time: ${spans(events, task.created_ms, task.ended_ms || Date.now()).map((it) => `${stateWords(it.state)} ${span(it.to - it.from)}`).join(", ")}`;
}

function stepTimes(events) {
  return new Map(events.filter((event) => event.kind.usage).map((event) => [event.kind.step, event.at_ms]));
}

// One bar a step: what was read from cache, what was computed, what was generated.
function bars(steps, times, place) {
  const most = Math.max(1, ...steps.map((it) => it.prompt_tokens + it.generated_tokens));
  return steps.filter((it) => times.has(it.step) && it.prompt_tokens + it.generated_tokens > 0).map((it) => {
    const part = (tokens) => `${(tokens / most) * 100}%`;
    const computed = Math.max(0, it.prompt_tokens - it.cached_tokens);
    return h("b", {
      size: { left: place(times.get(it.step)) },
      title: `step ${it.step}: ${count(it.cached_tokens)} from cache, ${count(computed)} computed, ${count(it.generated_tokens)} generated`,
    }, h("i.c2", { size: { height: part(it.generated_tokens) } }), h("i.c1", { size: { height: part(computed) } }), h("i.c7", { size: { height: part(it.cached_tokens) } }));
  });
}

export function stepsTable(steps, events) {
  if (steps.length === 0) return undefined;
  const times = stepTimes(events);
  const costs = new Map(events.filter((event) => event.kind.usage).map((event) => [event.kind.step, event.kind.usage.micro_usd]));
  const most = Math.max(1, ...steps.map((it) => it.prompt_tokens));
  const shown = steps.slice(-STEPS_SHOWN).reverse();
  const key = h("span.legend", null, [["c7", "from cache"], ["c1", "computed"], ["c2", "generated"]].map(([colour, words]) => h("span", null, h("i.dot", { class: colour }), words)));
  const columns = [
    ["Step", "num", (it) => it.step],
    ["Committed", "num soft", (it) => clock(times.get(it.step))],
    ["What", "what", (it) => h("div.cut", { title: it.decision.about }, it.decision.word, it.decision.about && h("span.soft", null, ` ${it.decision.about}`))],
    ["Prompt", "num", (it) => count(it.prompt_tokens)],
    ["", "mini", (it) => it.prompt_tokens > 0 && meter([[it.cached_tokens / most, "c7", "from cache"], [Math.max(0, it.prompt_tokens - it.cached_tokens) / most, "c1", "computed"]])],
    ["Generated", "num", (it) => count(it.generated_tokens)],
    ["Cost", "num", (it) => usd(Math.max(it.micro_usd, costs.get(it.step) || 0))],
    ["Context after", "num", (it) => count(it.chain_tokens)],
    ["Added", "nowrap", (it) => it.added.map((piece) => h("i.dot", { class: `kind-${piece.kind}`, title: `${piece.kind}, ${count(piece.bytes)} bytes` }))],
  ];
  const rows = shown.map((it) => h("tr", null, columns.map(([, kind, cell]) => h("td", { class: kind }, cell(it)))));
  const head = h("tr", null, columns.map(([title, kind]) => h("th", { class: kind, scope: "col" }, title)));
  const more = steps.length > shown.length && `the last ${shown.length} of ${count(steps.length)}, ${short(steps.reduce((sum, it) => sum + it.generated_tokens, 0))} generated`;
  return card("Steps", [more, key], h("div.scroll", null, h("table", null, h("thead", null, head), h("tbody", null, rows))));
}
