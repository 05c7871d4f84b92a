// Numbers and states in words that are short and of one width.

import { h } from "/page/dom.js";

const KINDS = {
  RUNNING: "run", SUCCEEDED: "done", PENDING: "wait", WAITING_TOOL: "tool", WAITING_CHILD: "tool", WAITING_INPUT: "stop",
  PAUSED: "stop", CANCELLING: "bad", CANCELLED: "done", FAILED: "bad", EXPIRED: "bad",
};

export const FINAL = ["SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED"];

export const STATES = Object.keys(KINDS);

export function stateKind(name) {
  return KINDS[name] || "done";
}

export function stateWords(name) {
  return (name || "").toLowerCase().replaceAll("_", " ");
}

export function state(name) {
  return h("span.state", { class: stateKind(name) }, stateWords(name));
}

const whole = new Intl.NumberFormat("en-US");

export function count(number) {
  return whole.format(number ?? 0).replaceAll(",", "\u2009");
}

// 12 345 678 as 12.3 M.
export function short(number) {
  const value = number ?? 0;
  for (const [size, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (value >= size) {
      const scaled = value / (unit === "k" ? 1e3 : size);
      return `${scaled >= 100 ? Math.round(scaled) : scaled.toFixed(1)}\u2009${unit}`;
    }
  }
  return count(value);
}

export function bytes(number) {
  let value = number ?? 0;
  for (const unit of ["B", "KiB", "MiB", "GiB", "TiB"]) {
    if (value < 1024 || unit === "TiB") return `${unit === "B" || value >= 100 ? Math.round(value) : value.toFixed(1)}\u2009${unit}`;
    value /= 1024;
  }
  return "";
}

export function usd(micro) {
  if (!micro) return "–";
  const value = micro / 1e6;
  return `$\u2009${value >= 1 ? value.toFixed(2) : value.toPrecision(2)}`;
}

export function span(ms) {
  if (ms === undefined || ms === null) return "–";
  const value = Math.max(0, ms);
  if (value < 1000) return `${Math.round(value)} ms`;
  if (value < 10_000) return `${(value / 1000).toFixed(1)} s`;
  if (value < 120_000) return `${Math.round(value / 1000)} s`;
  if (value < 7_200_000) return `${Math.round(value / 60_000)} min`;
  if (value < 172_800_000) return `${Math.round(value / 3_600_000)} h`;
  return `${Math.round(value / 86_400_000)} d`;
}

export function ago(ms) {
  return ms ? span(Date.now() - ms) : "–";
}

export function clock(ms) {
  if (!ms) return "–";
  const at = new Date(ms);
  const time = at.toLocaleTimeString("en-GB");
  return new Date().toDateString() === at.toDateString() ? time : `${at.toISOString().slice(5, 10)} ${time}`;
}

export function percent(part, all) {
  return all > 0 ? `${Math.round((part / all) * 100)}\u2009%` : "–";
}

// An amount of a quota key, in the unit that its name ends with.
export function amount(key, number) {
  if (number === undefined || number === null) return "–";
  if (key.includes("usd")) return usd(number) === "–" ? "$\u20090" : usd(number);
  if (key.includes("bytes")) return bytes(number);
  return short(number);
}
