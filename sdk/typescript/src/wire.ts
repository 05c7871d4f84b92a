/** Generated messages about tasks into our own values. */

import type * as data from "./data.js";
import type * as agentPb from "./gen/quorate/v1/agent_pb.js";
import type * as contextPb from "./gen/quorate/v1/context_pb.js";
import * as memoryPb from "./gen/quorate/v1/memory_pb.js";
import * as taskPb from "./gen/quorate/v1/task_pb.js";

const CLASSES: Readonly<Record<data.TaskClass, taskPb.TaskClass>> = {
  system: taskPb.TaskClass.SYSTEM,
  interactive: taskPb.TaskClass.INTERACTIVE,
  batch: taskPb.TaskClass.BATCH,
  "best-effort": taskPb.TaskClass.BEST_EFFORT,
};
const BUSY: Readonly<Record<data.Busy, taskPb.SignalKind>> = {
  reject: taskPb.SignalKind.MESSAGE,
  enqueue: taskPb.SignalKind.ENQUEUE,
  interrupt: taskPb.SignalKind.INTERRUPT,
  rollback: taskPb.SignalKind.ROLLBACK,
};
const SEARCHES: Readonly<Record<data.SearchKind, memoryPb.SearchKind>> = {
  words: memoryPb.SearchKind.WORDS,
  vectors: memoryPb.SearchKind.VECTORS,
  both: memoryPb.SearchKind.BOTH,
};
const STATES: ReadonlySet<string> = new Set<data.TaskState>([
  "PENDING", "RUNNING", "WAITING_TOOL", "WAITING_CHILD", "WAITING_INPUT", "PAUSED",
  "CANCELLING", "SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED",
]);
const ASKS: ReadonlySet<string> = new Set<data.AskKind>([
  "APPROVAL", "QUESTION", "UNKNOWN", "UNKNOWN_MAY_REPEAT", "NEXT_MESSAGE",
]);

export const classToWire = (name: string) => ofWord(CLASSES, name);
export const busyToWire = (name: string) => ofWord(BUSY, name);
export const searchToWire = (name: string) => ofWord(SEARCHES, name);
export const CLASS_NAMES = Object.keys(CLASSES).join(", ");
export const BUSY_NAMES = Object.keys(BUSY).join(", ");
export const SEARCH_NAMES = Object.keys(SEARCHES).join(", ");

/** What a word stands for; programs without types may give any. */
export function ofWord<T>(words: Readonly<Record<string, T>>, word: string): T | undefined {
  return Object.hasOwn(words, word) ? words[word] : undefined;
}

/** The word that stands for a number of the wire. */
export function wordOf<W extends string, T>(words: Readonly<Record<W, T>>, value: T): W | undefined {
  return (Object.keys(words) as W[]).find((word) => words[word] === value);
}

export const set = (text: string) => text || undefined;
export const time = (ms: bigint) => new Date(Number(ms));
/** On the wire zero means "not set". */
export const timeSet = (ms: bigint) => (ms === 0n ? undefined : time(ms));
export const numberSet = (value: bigint | undefined) => (value === undefined ? undefined : Number(value));

function state(number: taskPb.TaskState): data.TaskState {
  const name = taskPb.TaskState[number];
  return name !== undefined && STATES.has(name) ? (name as data.TaskState) : "UNKNOWN";
}

function askKind(number: taskPb.AskKind): data.AskKind {
  const name = taskPb.AskKind[number];
  return name !== undefined && ASKS.has(name) ? (name as data.AskKind) : "OTHER";
}

export function usage(it: taskPb.Usage | undefined): data.Usage {
  return {
    promptTokens: Number(it?.promptTokens ?? 0),
    cachedTokens: Number(it?.cachedTokens ?? 0),
    generatedTokens: Number(it?.generatedTokens ?? 0),
    microUsd: Number(it?.microUsd ?? 0),
  };
}

function blocker(it: taskPb.Blocker): data.Blocker {
  return {
    reason: it.reason,
    resource: it.resource,
    requested: Number(it.requested),
    available: Number(it.available),
    limit: Number(it.limit),
    message: it.message,
    borrowedBy: it.borrowedBy.map(({ path, amount }) => ({ path, amount: Number(amount) })),
  };
}

function ask(it: taskPb.Ask): data.Ask {
  return { id: it.id, kind: askKind(it.kind), tool: set(it.tool), text: set(it.text), textHash: set(it.textHash) };
}

export function task(it: taskPb.Task): data.TaskData {
  const now = state(it.state);
  // An empty result without a hash is a real, empty result once the task has succeeded.
  const empty = now === "SUCCEEDED" && !it.resultHash ? "" : undefined;
  return {
    id: it.id,
    uid: it.uid,
    project: it.project,
    agent: it.agent,
    revision: it.revision,
    labels: it.labels,
    state: now,
    stateReason: it.stateReason,
    node: set(it.node),
    epoch: set(it.epoch),
    step: Number(it.step),
    sequence: Number(it.sequence),
    copies: it.copies,
    usage: usage(it.usage),
    resultText: it.result || empty,
    resultHash: set(it.resultHash),
    error: set(it.error),
    pending: it.pending.map(blocker),
    createTime: time(it.createTimeMs),
    endTime: timeSet(it.endTimeMs),
    deadlineTime: timeSet(it.deadlineMs),
    parent: set(it.parent),
    children: it.children,
    taskClass: wordOf(CLASSES, it.class) ?? "interactive",
    priority: it.priority,
    head: set(it.head),
    asks: it.asks.map(ask),
    forkedFrom: set(it.forkedFrom),
    forkedSteps: Number(it.forkedSteps),
  };
}

export function schedule(it: taskPb.Schedule): data.Schedule {
  return {
    name: it.name,
    project: it.project,
    cron: it.cron,
    agent: it.agent,
    inputs: it.inputs,
    taskClass: wordOf(CLASSES, it.class) ?? "batch",
    priority: it.priority,
    nextTime: timeSet(it.nextMs),
    lastTask: set(it.lastTask),
    lastError: set(it.lastError),
    fired: Number(it.fired),
  };
}

/** Undefined where the node explained no task. */
export function explanation(it: taskPb.ExplainTaskResponse): data.Explanation | undefined {
  return it.task && {
    task: task(it.task),
    blockers: it.blockers.map(blocker),
    tasksAhead: Number(it.tasksAhead),
    nodes: it.nodes.map(({ node, eligible, reason }) => ({ node, eligible, reason })),
    position: Number(it.position) || undefined,
    etaMs: numberSet(it.etaMs),
    etaErrorMs: numberSet(it.etaErrorMs),
  };
}

/** Undefined for a kind that only a newer cluster knows. */
export function event(it: taskPb.TaskEvent): data.TaskEvent | undefined {
  const base = { task: it.task, atMs: Number(it.atMs) };
  const sequence = Number(it.sequence);
  const { kind } = it;
  switch (kind.case) {
    case "state": {
      const { state: to, reason, node, epoch } = kind.value;
      return { kind: "state", ...base, sequence, state: state(to), reason, node: set(node), epoch: set(epoch) };
    }
    case "step": {
      const { step, head, usage: used, route: by } = kind.value;
      const route = by && { model: by.model, reason: by.reason };
      return { kind: "step", ...base, sequence, step: Number(step), head, usage: usage(used), route };
    }
    case "token": {
      const { step, attempt, offset, tokens, text } = kind.value;
      return { kind: "token", ...base, step: Number(step), attempt, offset: Number(offset), tokens, text };
    }
    case "retract":
      return { kind: "retract", ...base, step: Number(kind.value.step), attempt: kind.value.attempt };
    case "gap":
      return { kind: "gap", ...base, first: Number(kind.value.first), last: Number(kind.value.last) };
    case undefined:
      return undefined;
  }
}

export function agent(it: agentPb.Agent): data.Agent {
  const { name, project, kind, model, revision, etag, toml } = it;
  return { name, project, kind, model, revision, etag, updateTime: timeSet(it.updateTimeMs), toml };
}

export function context(it: contextPb.Context): data.Context {
  const segments = it.segments.map(({ hash, kind, author, visibility, bytes, text }) => {
    return { hash, kind, author, visibility, bytes: Number(bytes), text: set(text) };
  });
  return { task: it.task, head: it.head, segments, routes: it.routes.map(routed) };
}

function routed(it: contextPb.RoutedStep): data.RoutedStep {
  const candidates = it.candidates.map(({ model, expectedMicroUsd, expectedMs, verdict }) => {
    return { model, expectedMicroUsd: Number(expectedMicroUsd), expectedMs: Number(expectedMs), verdict };
  });
  return { step: Number(it.step), model: it.model, reason: it.reason, candidates };
}

export function evaluation(it: contextPb.EvaluateContextResponse): data.Evaluation {
  const { report, suggestions, table, suggested, model, node } = it;
  return { report, suggestions, table, suggested, model, node, page: set(it.page), tokensSpent: Number(it.tokensSpent) };
}

export function memory(it: memoryPb.MemoryItem): data.Memory {
  return {
    id: it.id,
    project: it.project,
    scope: it.scope,
    text: it.text,
    tags: it.tags,
    source: set(it.source),
    author: it.author,
    createTime: time(it.createTimeMs),
    replaces: it.replaces,
    summarised: it.summarised,
  };
}

export function found(it: memoryPb.SearchResponse): data.Found {
  const hits = it.hits.flatMap(({ item, score, wordsScore, cosine, words }) => {
    return item ? [{ item: memory(item), score, wordsScore, cosine, words }] : [];
  });
  const { items, itemsWithVectors } = it;
  return { hits, kind: wordOf(SEARCHES, it.kind), items: Number(items), itemsWithVectors: Number(itemsWithVectors) };
}
