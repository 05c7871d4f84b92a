// A task's context: how much of each kind, and every segment with its text when it is asked for.

import { get } from "/page/api.js";
import { card, fill, h, meter } from "/page/dom.js";
import { bytes, count, percent } from "/page/words.js";

const SHOWN = 300;

export function contextCard(project, journal, task) {
  const pieces = all(journal);
  if (pieces.length === 0) return undefined;
  const size = pieces.reduce((sum, it) => sum + it.bytes, 0);
  const kinds = byKind(pieces);
  const tokens = journal.steps.at(-1)?.chain_tokens;
  const over = pieces.length - SHOWN;
  return card("Context", `${tokens ? `${count(tokens)} tokens · ` : ""}${count(pieces.length)} ${pieces.length === 1 ? "segment" : "segments"}`, h("div.pad", null,
    meter(kinds.map(([kind, sum]) => [sum.bytes / Math.max(1, size), `kind-${kind}`, `${kind}: ${bytes(sum.bytes)}`])),
    h("div.kinds", null, kinds.map(([kind, sum]) => [
      h("span", null, h("i.dot", { class: `kind-${kind}` }), kind), h("span.num.soft", null, count(sum.count)),
      h("span.num", null, bytes(sum.bytes)), h("span.num.soft", null, percent(sum.bytes, size))]))),
  h("div.segments", { "data-scroll": "segments" }, over > 0 && h("div.faint.pad", null, `${count(over)} older ones are not shown`),
    pieces.slice(-SHOWN).map((piece) => row(project, piece, task))));
}

function all({ given, steps }) {
  const found = new Map();
  const add = (piece, step) => found.has(piece.hash) || found.set(piece.hash, { ...piece, step });
  given.forEach((piece) => add(piece, 0));
  steps.forEach((step) => step.added.forEach((piece) => add(piece, step.step)));
  return [...found.values()];
}

function byKind(pieces) {
  const sums = new Map();
  for (const { kind, bytes: size } of pieces) {
    const sum = sums.get(kind) || { bytes: 0, count: 0 };
    sums.set(kind, { bytes: sum.bytes + size, count: sum.count + 1 });
  }
  return [...sums].sort((one, other) => other[1].bytes - one[1].bytes);
}

function row(project, piece) {
  return h("button.segment", {
    type: "button", "data-key": piece.hash, title: `${piece.hash}, by ${piece.author || "nobody"}`, disabled: piece.kind === "redacted",
    onclick: () => showText(project, piece),
  }, h("i.dot", { class: `kind-${piece.kind}` }), h("span", null, piece.kind), h("span.cut.grow.soft", null, piece.author),
  h("span.faint", null, piece.step > 0 ? `step ${piece.step}` : "given"), h("span.num", null, bytes(piece.bytes)));
}

async function showText(project, piece) {
  const text = h("pre.text", { tabindex: "0" }, "…");
  const note = h("span.soft");
  const dialog = h("dialog.wide", { "aria-label": `Segment of kind ${piece.kind}`, onclose: () => dialog.remove() },
    h("div.row", null, h("i.dot", { class: `kind-${piece.kind}` }), h("h1", null, piece.kind), h("span.soft", null, piece.author), h("span.faint.mono", null, piece.hash.slice(0, 16))),
    text, h("div.row.end", null, note, h("button", { type: "button", onclick: () => dialog.close() }, "Close")));
  document.body.append(dialog);
  dialog.showModal();
  try {
    const read = await get("segment", { project, hash: piece.hash });
    fill(text, read.text || "(empty)");
    if (read.cut) fill(note, `the first 64 KiB of ${bytes(read.total_bytes)}`);
  } catch (error) {
    fill(text, `${error.message}\n${error.next || ""}`);
  }
}
