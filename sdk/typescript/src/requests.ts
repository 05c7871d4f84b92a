/** Parts of requests, checked here against the bounds that the cluster would refuse. */

import { freshRequestId } from "./course.js";
import type { Ask, Input, TaskData } from "./data.js";
import { local, refused, type QuorateError } from "./errors.js";
import { BUSY_NAMES, busyToWire, CLASS_NAMES, classToWire } from "./wire.js";

export const NAME_BYTES = 128;
export const REQUEST_BYTES = 8 << 20;
export const SEGMENT_BYTES = 4 << 20;
export const TASK_INPUTS = 256;
export const TASK_LABELS = 16;

/** A time to come: `30m` (also `500ms`, `20s`, `2h`) from now, or a moment. */
export type Moment = string | Date;

/** A text, or one with a name. */
export type Given = string | Input;

const TIME = /^([0-9]+)(ms|s|m|h)$/;
const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };
const U64_MAX = (1n << 64n) - 1n;

export function givenOrFresh(requestId: string | undefined): string {
  return requestId || freshRequestId();
}

export function projectName(text: string): string {
  const name = text.trim();
  if (name.length <= NAME_BYTES && name.split("/").every((part) => /^[a-z0-9_-]+$/.test(part))) return name;
  const next = "use lower-case letters, digits, - and _, such as `research`";
  throw refused("BAD_PROJECT", `${JSON.stringify(text)} is not a project name`, next);
}

/** The inputs of a task: one text, several, or both. */
export function inputsOf(input: string | undefined, inputs: readonly Given[]): { name: string; text: string }[] {
  const given: Given[] = input === undefined ? [...inputs] : [input, ...inputs];
  const texts = given.map((it) => (typeof it === "string" ? { text: it } : it));
  const told = texts.map(({ name = "", text }) => ({ name, text }));
  if (told.length > TASK_INPUTS) {
    const what = `the task has ${told.length} inputs; at most ${TASK_INPUTS} are taken`;
    throw refused("TOO_MANY_INPUTS", what, "send fewer, or several tasks");
  }
  for (const { name, text } of told) checkSize(`the input ${JSON.stringify(name)}`, text, "cut it into several inputs");
  const bytes = told.reduce((sum, { name, text }) => sum + Buffer.byteLength(name) + Buffer.byteLength(text), 0);
  if (bytes > REQUEST_BYTES) {
    const next = "send smaller inputs, or several tasks";
    throw refused("REQUEST_TOO_LARGE", tooLarge("the request", bytes, REQUEST_BYTES), next);
  }
  return told;
}

export function checkSize(what: string, text: string, next: string): string {
  const bytes = Buffer.byteLength(text);
  if (bytes > SEGMENT_BYTES) throw refused("REQUEST_TOO_LARGE", tooLarge(what, bytes, SEGMENT_BYTES), next);
  return text;
}

function tooLarge(what: string, bytes: number, limit: number): string {
  return `${what} is ${bytes} bytes; the limit is ${limit} bytes (${limit >> 20} MiB)`;
}

export function labelsOf(labels: Readonly<Record<string, string>> = {}): Record<string, string> {
  const count = Object.keys(labels).length;
  if (count <= TASK_LABELS) return { ...labels };
  const what = `the task has ${count} labels; at most ${TASK_LABELS} are taken`;
  throw refused("TOO_MANY_LABELS", what, "send fewer labels");
}

/** The message's part for a class and a priority that may not be given. */
export function queueOf(
  taskClass: string | undefined,
  priority: number | undefined,
): { class?: number; priority?: number } {
  const told: { class?: number; priority?: number } = {};
  if (priority !== undefined) told.priority = checkPriority(priority);
  if (taskClass === undefined) return told;
  const number = classToWire(taskClass);
  if (number !== undefined) return { ...told, class: number };
  throw refused("BAD_CLASS", `there is no class ${JSON.stringify(taskClass)}`, `use one of ${CLASS_NAMES}`);
}

function checkPriority(priority: number): number {
  if (Number.isInteger(priority) && priority >= 0 && priority <= 9) return priority;
  const next = "give 0 (last) to 9 (first within the class)";
  throw refused("BAD_PRIORITY", `priority is ${priority}, outside 0 to 9`, next);
}

/** Unix milliseconds; 0 where it is not given. `what` is the argument's name, for errors. */
export function momentMs(moment: Moment | undefined, nowMs: number, what: string): bigint {
  if (moment === undefined) return 0n;
  const bad = (next: string) => refused(`BAD_${what.toUpperCase()}`, `${what}: ${String(moment)} is not a time`, next);
  if (moment instanceof Date) {
    if (Number.isNaN(moment.getTime())) throw bad("give a valid Date");
    return BigInt(Math.max(1, moment.getTime()));
  }
  const [, count, unit] = TIME.exec(moment.trim()) ?? [];
  const unitMs = UNIT_MS[unit ?? ""];
  if (count === undefined || unitMs === undefined) throw bad("write it like 500ms, 30s, 20m or 2h");
  return BigInt(Math.trunc(nowMs)) + BigInt(count) * BigInt(unitMs);
}

export function idOf(given: string | TaskData): string {
  return typeof given === "string" ? given : given.uid || given.id;
}

export function askOf(given: string | Ask | undefined): string {
  return typeof given === "string" ? given : (given?.id ?? "");
}

export function busyKind(busy: string): number {
  const kind = busyToWire(busy);
  if (kind !== undefined) return kind;
  throw refused("BAD_BUSY", `busy is ${JSON.stringify(busy)}`, `use one of ${BUSY_NAMES}`);
}

/** A whole number of 64 bits. */
export function u64(what: string, reason: string, value: number | bigint, next: string): bigint {
  const whole = typeof value === "bigint" || Number.isInteger(value);
  if (whole && value >= 0 && value <= U64_MAX) return BigInt(value);
  throw refused(reason, `${what} is ${value}, outside 0 to 2^64 - 1`, next);
}

export function limitOf(key: string, limit: number | bigint): bigint {
  const next = "give null to take a limit away, 0 to hold everything back";
  return u64(`the limit ${key}`, "BAD_LIMIT", limit, next);
}

/** The message's part for a limit; null is none. */
export function limitChange(key: string, limit: number | bigint | null): { key: string; limit?: bigint } {
  return limit === null ? { key } : { key, limit: limitOf(key, limit) };
}

export function noResult(task: TaskData): QuorateError {
  const ended = task.state === "FAILED" || task.state === "CANCELLED" || task.state === "EXPIRED";
  const what = `task ${task.id} has no result: it is ${task.state}`;
  const next = ended
    ? "read its error, then create it again"
    : "wait until it has SUCCEEDED, or ask with `explain` why it waits";
  return local("FAILED_PRECONDITION", "NO_RESULT", what, next, task.error);
}
