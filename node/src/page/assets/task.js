// One task: what it is, where its time went, each step, its text as it is made, its tree and its context.

import { forget, get, poll, watch } from "/page/api.js";
import { card, fill, h, redraw } from "/page/dom.js";
import { contextCard } from "/page/context.js";
import { said } from "/page/queue.js";
import { stepsTable, timeline } from "/page/timeline.js";
import { FINAL, ago, clock, count, percent, short, span, state, stateKind, usd } from "/page/words.js";

const STREAM_AGAIN_MS = 1000;
const TREE_SHOWN = 200;

export function open(root, at, context) {
  const [project, id] = at.rest;
  const ends = new AbortController();
  const seen = { task: undefined, journal: { given: [], steps: [] }, events: [], next: 0, reading: false };
  const parts = Object.fromEntries(["head", "why", "time", "text", "steps", "tree", "context"].map((name) => [name, h("div")]));
  const live = liveText(parts.text);
  fill(root, parts.head, h("div.split", null,
    h("div.column", null, parts.why, parts.time, parts.text, parts.steps), h("div.column", null, parts.tree, parts.context)));

  // Steps never change, so that only those behind the last one are read.
  async function readJournal() {
    if (seen.reading) return;
    seen.reading = true;
    try {
      const after = seen.journal.steps.at(-1)?.step || 0;
      const more = await get("journal", { project, id, after }, ends.signal);
      if (after === 0) seen.journal.given = more.given;
      seen.journal.steps.push(...more.steps);
      drawSteps();
    } catch (error) {
      // A step whose node is gone is read again with the next one.
      if (error.name !== "AbortError" && error.status === 401) throw error;
    } finally {
      seen.reading = false;
    }
  }

  function drawSteps() {
    redraw(parts.time, timeline(seen.task, seen.events, seen.journal.steps));
    redraw(parts.steps, stepsTable(seen.journal.steps, seen.events));
    redraw(parts.context, contextCard(project, seen.journal, seen.task));
  }

  function heard(event) {
    if (event.error) return;
    if (event.sequence > 0) {
      seen.next = event.sequence + 1;
      seen.events.push(event);
    }
    const { kind } = event;
    if (kind.token !== undefined) live.add(kind.step, kind.attempt, kind.token);
    else if (kind.retract !== undefined) live.clear();
    else if (kind.usage) readJournal();
    if (event.sequence > 0) scheduleDraw();
  }

  let drawing = false;
  function scheduleDraw() {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => { drawing = false; drawSteps(); });
  }

  async function follow() {
    while (!ends.signal.aborted) {
      await watch(project, id, seen.next, heard, ends.signal).catch(() => undefined);
      if (seen.events.some((event) => FINAL.includes(event.kind.state))) return;
      await new Promise((on) => setTimeout(on, STREAM_AGAIN_MS));
    }
  }

  forget("task");
  forget("tree");
  follow();
  return {
    close: () => ends.abort(),
    async tick() {
      const task = await poll("task", "task", { project, id }, ends.signal);
      if (task) {
        seen.task = task;
        redraw(parts.head, head(task, context));
        redraw(parts.why, whyCard(task));
        live.result(task);
        if ((seen.journal.steps.at(-1)?.step || 0) < task.step || seen.journal.given.length === 0) await readJournal();
        drawSteps();
      } else if (seen.task && !FINAL.includes(seen.task.state)) {
        redraw(parts.time, timeline(seen.task, seen.events, seen.journal.steps));
      }
      const tree = await poll("tree", "tree", { project, id }, ends.signal);
      if (tree) redraw(parts.tree, treeCard(project, tree.tasks, seen.task));
    },
    failed(error) {
      if (error.status !== 404) return undefined;
      redraw(root, card("Task", null, h("div.empty", null, error.message, ". ", h("a", { href: "#/tasks" }, "All tasks"))));
      return true;
    },
  };
}

function head(task, context) {
  const { usage } = task;
  const over = FINAL.includes(task.state);
  const verb = (name, words, kind) => h(`button${kind}`, { type: "button", "data-key": name, onclick: () => context.act(task.project, task.uid, task.id, name) }, words);
  const labels = Object.entries(task.labels).map(([key, value]) => h("span.label", null, `${key}=${value}`));
  return h("section.card", null,
    h("header", null,
      h("h1.cut", { title: task.id }, task.id), state(task.state), h("span.soft.cut", { title: task.reason }, task.reason), labels,
      h("span.more", null, context.me.may_act && !over && [
        task.state === "PAUSED" ? verb("resume", "Resume", "") : task.state !== "CANCELLING" && verb("pause", "Pause", ""),
        task.state !== "CANCELLING" && verb("cancel", "Cancel", ".danger")])),
    h("div.facts", null,
      fact("Agent", task.agent, `revision ${task.revision.slice(0, 8)}`),
      fact("Node", task.node || "–", `${task.class}, priority ${task.priority}`),
      fact("Steps", count(task.step), `${count(task.copies)} durable ${task.copies === 1 ? "copy" : "copies"}`),
      fact("Tokens", short(usage.prompt_tokens + usage.generated_tokens), `${short(usage.generated_tokens)} generated`),
      fact("From cache", percent(usage.cached_tokens, usage.prompt_tokens), `${short(usage.cached_tokens)} of ${short(usage.prompt_tokens)}`),
      fact("Cost", usd(usage.micro_usd), usage.micro_usd > 0 ? "at the price book" : "no price, or local"),
      fact(over ? "Took" : "For", over ? span(task.ended_ms - task.created_ms) : ago(task.created_ms), `since ${clock(task.created_ms)}`)));
}

function fact(title, value, more) {
  return h("div.fact", null, h("div.faint", null, title), h("div.big.cut", { title: value }, value), h("div.soft.cut", { title: more }, more));
}

// What holds it, what it asks of people, and what went wrong.
function whyCard(task) {
  const blockers = task.blockers.map((it) => h("div.blocker", null, h("code", null, it.reason), " ", said(it), it.message && h("div.soft", null, it.message)));
  const asks = task.asks.map((it) => h("div.blocker", null, h("code", null, it.kind), " ", it.tool, it.text && h("pre.text", null, it.text)));
  const error = task.error && h("pre.text.problem", null, task.error);
  if (blockers.length + asks.length === 0 && !error) return undefined;
  const title = error ? "What went wrong" : asks.length > 0 ? "What it waits to hear" : "Why it waits";
  return card(title, asks.length > 0 && h("span", null, h("code", null, `quorate task signal ${task.id}`)), h("div.pad", null, error, asks, blockers));
}

function treeCard(project, rows, task) {
  if (rows.length < 2) return undefined;
  const own = rows.findIndex((row) => row.uid === task?.uid);
  const from = Math.max(0, Math.min(own - TREE_SHOWN / 2, rows.length - TREE_SHOWN));
  const leaf = (row) => h("a.leaf", {
    href: `#/task/${encodeURIComponent(project)}/${row.uid}`, "aria-current": row.uid === task?.uid && "true",
    size: { "padding-left": `${14 + row.depth * 16}px` }, title: `${row.agent}: ${row.state}`,
  }, h("i.dot", { class: `fill-${stateKind(row.state)}` }), h("span.cut.grow", null, row.id), h("span.soft", null, row.agent), h("span.num.faint", null, short(row.tokens)));
  const open = rows.filter((row) => !FINAL.includes(row.state)).length;
  return card("Tree", `${count(rows.length)} tasks, ${count(open)} open`, h("div.tree", { "data-scroll": "tree" }, rows.slice(from, from + TREE_SHOWN).map(leaf)));
}

// Text as it comes, in place: it is never drawn anew, so that what a person has marked stays marked.
function liveText(place) {
  const text = h("pre.text", { tabindex: "0", "aria-label": "Text of this task" });
  const title = h("span");
  const now = { attempt: "", shown: false, over: false };
  const show = () => {
    if (now.shown) return;
    now.shown = true;
    fill(place, h("section.card", null, h("header", null, h("h2", null, "Text"), h("span.more", null, title)), h("div.pad", null, text)));
  };
  return {
    add(step, attempt, more) {
      if (now.over) return;
      show();
      if (attempt !== now.attempt) text.textContent = "";
      now.attempt = attempt;
      title.textContent = `step ${step}, as it is made`;
      const follows = text.scrollHeight - text.scrollTop - text.clientHeight < 30;
      text.append(more);
      if (follows) text.scrollTop = text.scrollHeight;
    },
    clear() { text.textContent = ""; title.textContent = "not committed: it is made again"; },
    result(task) {
      if (now.over || !FINAL.includes(task.state)) return;
      now.over = true;
      if (!task.result) return;
      show();
      title.textContent = "the result";
      text.textContent = task.result;
    },
  };
}
