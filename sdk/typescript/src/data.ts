/**
 * What the SDK hands out about tasks: plain values. A text that the cluster leaves empty is undefined. Numbers are exact up
 * to 2^53 - 1.
 */

/** The life of a task. A state that only a newer cluster knows is `UNKNOWN`. */
export type TaskState =
  | "PENDING" | "RUNNING" | "WAITING_TOOL" | "WAITING_CHILD" | "WAITING_INPUT" | "PAUSED"
  | "CANCELLING" | "SUCCEEDED" | "FAILED" | "CANCELLED" | "EXPIRED" | "UNKNOWN";

/** Nothing more will ever happen to the task. */
export function isFinal(state: TaskState): boolean {
  return state === "SUCCEEDED" || state === "FAILED" || state === "CANCELLED" || state === "EXPIRED";
}

/** Which queue a task waits in, most urgent first. */
export type TaskClass = "system" | "interactive" | "batch" | "best-effort";

/** A text for a task, with a name for people, such as a file's. */
export interface Input {
  readonly text: string;
  readonly name?: string;
}

/** What model calls used. `cachedTokens` is part of `promptTokens`. */
export interface Usage {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly generatedTokens: number;
  readonly microUsd: number;
}

/** A place that holds more than it is guaranteed, and how much more. */
export interface Borrower {
  readonly path: string;
  readonly amount: number;
}

/** One reason why a task does not run; all of them together keep it waiting. */
export interface Blocker {
  readonly reason: string;
  /** The resource and whose limit it is, such as `projects/default running`. */
  readonly resource: string;
  readonly requested: number;
  readonly available: number;
  readonly limit: number;
  readonly message: string;
  /** Who holds what is missing beyond their guarantee, the greediest first. */
  readonly borrowedBy: readonly Borrower[];
}

/** A limit that is assumed to be set; `limit` null: to be none. */
export interface WhatIf {
  readonly path: string;
  readonly key: string;
  readonly limit: number | bigint | null;
}

/**
 * What a task asks. `APPROVAL`: may this call be made? `UNKNOWN`: the call was made and nobody knows how it ended; it is
 * never made again. `UNKNOWN_MAY_REPEAT`: the same, of a call that is made again if a person says so. `NEXT_MESSAGE`: the
 * task has answered and waits for the next message. `OTHER`: only a newer cluster knows it.
 */
export type AskKind = "APPROVAL" | "QUESTION" | "UNKNOWN" | "UNKNOWN_MAY_REPEAT" | "NEXT_MESSAGE" | "OTHER";

/** An open question of a task. */
export interface Ask {
  /** To be given back with the answer. */
  readonly id: string;
  readonly kind: AskKind;
  /** The tool that it is about. */
  readonly tool: string | undefined;
  /** The exact call as JSON, the question, or the answer that was given last. Lists of tasks leave it out. */
  readonly text: string | undefined;
  readonly textHash: string | undefined;
}

/**
 * What becomes of a message to a task that is at work. `reject`: refused (`TaskBusy`). `enqueue`: it waits for its turn.
 * `interrupt`: it stops what the task does now, and keeps it. `rollback`: it takes the place of what the task did since
 * the last message.
 */
export type Busy = "reject" | "enqueue" | "interrupt" | "rollback";

/** One run of an agent or a team, as the cluster answered. */
export interface TaskData {
  /** The user's task id where one was given, else the uid. */
  readonly id: string;
  readonly uid: string;
  readonly project: string;
  readonly agent: string;
  /** Hash of the definition the task was created with. */
  readonly revision: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly state: TaskState;
  readonly stateReason: string;
  /** The node that holds the lease. */
  readonly node: string | undefined;
  readonly epoch: string | undefined;
  /** Committed steps. */
  readonly step: number;
  /** Sequence of the newest committed event. */
  readonly sequence: number;
  /** Durable copies of its context. */
  readonly copies: number;
  readonly usage: Usage;
  /** Results up to 64 KiB of a task that SUCCEEDED; `result()` reads any. */
  readonly resultText: string | undefined;
  readonly resultHash: string | undefined;
  readonly error: string | undefined;
  readonly pending: readonly Blocker[];
  readonly createTime: Date;
  readonly endTime: Date | undefined;
  readonly deadlineTime: Date | undefined;
  readonly parent: string | undefined;
  readonly children: readonly string[];
  readonly taskClass: TaskClass;
  /** 0 to 9; higher runs earlier within its class. */
  readonly priority: number;
  /** Hash of the newest step record. */
  readonly head: string | undefined;
  /** What it waits for people to say. */
  readonly asks: readonly Ask[];
  /** The task that its first steps came from, and how many those are. */
  readonly forkedFrom: string | undefined;
  readonly forkedSteps: number;
}

/** Whether one node could run the task, and why not. */
export interface NodeVerdict {
  readonly node: string;
  readonly eligible: boolean;
  readonly reason: string;
}

/** Why a task waits, with numbers. */
export interface Explanation {
  readonly task: TaskData;
  readonly blockers: readonly Blocker[];
  readonly tasksAhead: number;
  readonly nodes: readonly NodeVerdict[];
  /** Its place in the queue, from 1; undefined: it is in no queue. */
  readonly position: number | undefined;
  /**
   * Milliseconds until it starts, if tasks go on starting as they did, and how far off that may be. Undefined: something
   * else than its turn holds it, or too few tasks started lately.
   */
  readonly etaMs: number | undefined;
  readonly etaErrorMs: number | undefined;
}

/** Committed: the task's new state. */
export interface StateEvent {
  readonly kind: "state";
  readonly task: string;
  readonly sequence: number;
  readonly atMs: number;
  readonly state: TaskState;
  readonly reason: string;
  readonly node: string | undefined;
  readonly epoch: string | undefined;
}

/** Which of an agent's several models was asked, and why: a stable word, such as `CHEAPER` or `OVER_BUDGET`. */
export interface StepRoute {
  readonly model: string;
  readonly reason: string;
}

/** Committed: step number `step`. Its text will not change any more. */
export interface StepEvent {
  readonly kind: "step";
  readonly task: string;
  readonly sequence: number;
  readonly atMs: number;
  readonly step: number;
  readonly head: string;
  readonly usage: Usage;
  /** Undefined where the agent names one model, or the step called none. */
  readonly route: StepRoute | undefined;
}

/** New text of a step that is not committed yet. `offset` counts the step's tokens before this text. */
export interface TokenEvent {
  readonly kind: "token";
  readonly task: string;
  readonly atMs: number;
  readonly step: number;
  readonly attempt: string;
  readonly offset: number;
  readonly tokens: number;
  readonly text: string;
}

/** The text shown for this step and attempt was not committed: forget it. */
export interface RetractEvent {
  readonly kind: "retract";
  readonly task: string;
  readonly atMs: number;
  readonly step: number;
  readonly attempt: string;
}

/** Events `first` to `last` are no longer kept. */
export interface GapEvent {
  readonly kind: "gap";
  readonly task: string;
  readonly atMs: number;
  readonly first: number;
  readonly last: number;
}

/** Committed events (state, step) carry a sequence and come exactly once; the others are live. */
export type TaskEvent = StateEvent | StepEvent | TokenEvent | RetractEvent | GapEvent;

/** A task that is created again and again. */
export interface Schedule {
  readonly name: string;
  readonly project: string;
  /** Minute, hour, day of the month, month, day of the week, in UTC: `0 6 * * MON-FRI`. */
  readonly cron: string;
  readonly agent: string;
  /** Names of its inputs. */
  readonly inputs: readonly string[];
  readonly taskClass: TaskClass;
  readonly priority: number;
  /** Undefined: never again. */
  readonly nextTime: Date | undefined;
  readonly lastTask: string | undefined;
  readonly lastError: string | undefined;
  /** How many tasks it has created. */
  readonly fired: number;
}

/** The revision of an agent or a team that new tasks get. Running tasks keep theirs. */
export interface Agent {
  readonly name: string;
  readonly project: string;
  /** `agent` or `team`. */
  readonly kind: string;
  readonly model: string;
  readonly revision: string;
  readonly etag: string;
  readonly updateTime: Date | undefined;
  /** The definition as it was applied. */
  readonly toml: string;
}

/** A piece of a task's committed chain. */
export interface Segment {
  readonly hash: string;
  readonly kind: string;
  readonly author: string;
  readonly visibility: string;
  readonly bytes: number;
  /** Only where texts were asked for. */
  readonly text: string | undefined;
}

/** The committed chain of a task. */
export interface Context {
  readonly task: string;
  readonly head: string;
  readonly segments: readonly Segment[];
  /** Which of several models was asked at each step, where the agent names several. */
  readonly routes: readonly RoutedStep[];
}

export interface RoutedStep extends StepRoute {
  readonly step: number;
  /** Every model of the agent, in the agent's order. */
  readonly candidates: readonly RouteCandidate[];
}

/** What a call was expected to cost and take. */
export interface RouteCandidate {
  readonly model: string;
  readonly expectedMicroUsd: number;
  readonly expectedMs: number;
  /** `FITS`, `LATE`, or why it could not be taken, such as `CLOSED`. */
  readonly verdict: string;
}

/** A piece of what an agent read. */
export interface RecordedSegment {
  /** Unique in its call; the same id with the same text in several calls is one segment. */
  readonly id: string;
  /** Who wrote it. */
  readonly owner: string;
  readonly text: string;
  /** `message` where nothing is said. */
  readonly kind?: string;
  /** Of a summary: ids of the withheld segments that it stands for. */
  readonly replaces?: readonly string[];
}

/** One model call: what an agent read, what it was asked last, what it did then. */
export interface RecordedCall {
  /** In the order in which they were read. */
  readonly segments: readonly RecordedSegment[];
  readonly reader: string;
  readonly probe: string;
  readonly action: string;
  /** For people; its place where nothing is said. */
  readonly name?: string;
  /** What others had and the reader did not get. */
  readonly withheld?: readonly RecordedSegment[];
}

/** What an evaluation found. */
export interface Evaluation {
  /** JSON, as docs/evaluation.md has it: the same bytes for the same calls and model. */
  readonly report: string;
  /** JSON, one object a call, where they were asked for. */
  readonly suggestions: readonly string[];
  /** The report and the suggestions as lines for people. */
  readonly table: string;
  readonly suggested: string;
  /** HTML, where it was asked for. It holds the texts. */
  readonly page: string | undefined;
  readonly model: string;
  readonly node: string;
  /** Everything that was computed, audit included. */
  readonly tokensSpent: number;
}

/** What an agent or a person wants to know again. */
export interface Memory {
  readonly id: string;
  readonly project: string;
  readonly scope: string;
  readonly text: string;
  readonly tags: readonly string[];
  /** Where it comes from: a task and step, a file, an address. */
  readonly source: string | undefined;
  readonly author: string;
  readonly createTime: Date;
  /** Ids of the items that it was made from, if it is a summary. */
  readonly replaces: readonly string[];
  /** A summary is found instead of it. */
  readonly summarised: boolean;
}

export type SearchKind = "words" | "vectors" | "both";

export interface MemoryHit {
  readonly item: Memory;
  /** What hits are ordered by. Comparable within one answer only. */
  readonly score: number;
  readonly wordsScore: number;
  /** Cosine of its nearest window, where vectors were compared. */
  readonly cosine: number | undefined;
  /** Words of the query that stand in it, as stems. */
  readonly words: readonly string[];
}

export interface Found {
  readonly hits: readonly MemoryHit[];
  /** What was compared: words alone where the node has no encoder. */
  readonly kind: SearchKind | undefined;
  readonly items: number;
  readonly itemsWithVectors: number;
}
