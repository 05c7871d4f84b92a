/** Everything about following a task or quotas except the stream: what is asked, what is shown, when to give up. */

import type { AuditEvent, QuotaEvent } from "./admin-data.js";
import { isDeepStrictEqual } from "node:util";
import { quotaEvent } from "./admin-wire.js";
import { Course, monotonic, type Clock } from "./course.js";
import { Cursor } from "./cursor.js";
import { isFinal, type TaskData, type TaskEvent } from "./data.js";
import type { Endpoints } from "./endpoints.js";
import { local, type QuorateError } from "./errors.js";
import { endedHere, type Failure } from "./failures.js";
import type { QuotaEvent as QuotaMessage } from "./gen/quorate/v1/quota_pb.js";
import type { TaskEvent as TaskMessage } from "./gen/quorate/v1/task_pb.js";
import type { Policy } from "./retry.js";
import { event as readEvent } from "./wire.js";

/** The shortest patience with a cluster that went away under a watch: an election and a lease fit into it. */
export const PATIENCE_MS = 30_000;

/** A watch that outlives its streams: whom to ask, for how long, when to give up. */
export abstract class Keeping {
  readonly #endpoints: Endpoints;
  readonly #policy: Policy;
  readonly #timeoutMs: number | undefined;
  readonly #clock: Clock;
  readonly #begun: number;
  /** The failures since a node was last heard. */
  #trouble: Course | undefined;
  #heardEver = false;

  constructor(endpoints: Endpoints, policy: Policy, timeoutMs: number | undefined, clock: Clock = monotonic) {
    this.#endpoints = endpoints;
    this.#policy = policy;
    this.#timeoutMs = timeoutMs;
    this.#clock = clock;
    this.#begun = clock();
  }

  node(): number {
    return this.#endpoints.pick();
  }

  /** How long a node may take to accept the watch. */
  openPatienceMs(): number {
    return Math.min(this.#policy.attemptMs, this.leftMs() ?? Infinity);
  }

  /** Milliseconds that are left of the time given; throws `WaitTimeout` when nothing is. */
  leftMs(): number | undefined {
    if (this.#timeoutMs === undefined) return undefined;
    const leftMs = this.#timeoutMs - (this.#clock() - this.#begun);
    if (leftMs <= 0) throw this.timedOut(this.#timeoutMs);
    return leftMs;
  }

  /** Milliseconds to wait before the next node is asked; throws when it is time to give up. */
  onFailure(node: number, failure: Failure): number {
    const leftMs = this.leftMs() ?? Infinity;
    this.#trouble ??= new Course(this.#endpoints, this.#troublePolicy(), undefined, this.#clock);
    try {
      return Math.min(this.#trouble.onFailure(node, failure), leftMs);
    } catch (error) {
      this.#trouble = undefined;
      throw error;
    }
  }

  protected heard(): void {
    this.#heardEver = true;
    this.#trouble = undefined;
  }

  protected abstract timedOut(timeoutMs: number): QuorateError;

  /** A cluster that was heard once deserves more patience than an address that never answered. */
  #troublePolicy(): Policy {
    const deadlineMs = Math.max(this.#policy.deadlineMs, PATIENCE_MS);
    const unreachableMs = this.#heardEver ? deadlineMs : this.#policy.unreachableMs;
    return { ...this.#policy, deadlineMs, unreachableMs, attemptsMax: Number.MAX_SAFE_INTEGER };
  }
}

/** A watch of a task between its streams. */
export class Following extends Keeping {
  readonly #id: string;
  readonly #cursor: Cursor;
  readonly #ready: TaskEvent[] = [];
  readonly #text = new StepText();
  #heardOnThisStream = false;

  constructor(
    endpoints: Endpoints,
    policy: Policy,
    watched: { id: string; fromSequence: number },
    timeoutMs: number | undefined,
    clock?: Clock,
  ) {
    super(endpoints, policy, timeoutMs, clock);
    this.#id = watched.id;
    this.#cursor = new Cursor(watched.fromSequence);
  }

  get nextSequence(): number {
    return this.#cursor.next;
  }

  get ended(): boolean {
    return this.#cursor.ended && this.#ready.length === 0;
  }

  /** The live text of the newest step as far as it was popped, without what was taken back. */
  get text(): string {
    return this.#text.text;
  }

  pop(): TaskEvent | undefined {
    const event = this.#ready.shift();
    if (event !== undefined) this.#text.add(event);
    return event;
  }

  /** The sequence to ask the next node from. */
  begin(): bigint {
    this.#heardOnThisStream = false;
    return BigInt(this.#cursor.askFrom);
  }

  /** Takes what a node sent. False: drop the stream and ask again. */
  take(message: TaskMessage): boolean {
    this.#heardOnThisStream = true;
    this.heard();
    const event = readEvent(message);
    if (event === undefined) return true;
    const shown = this.#cursor.take(event);
    this.#ready.push(...(shown ?? []));
    return shown !== undefined;
  }

  /** A stream that ended without a word: the task may have ended before the sequence asked for. */
  get mustLook(): boolean {
    return !this.#heardOnThisStream;
  }

  /** True when there is nothing more to come. */
  looked(task: TaskData): boolean {
    if (isFinal(task.state) && task.sequence < this.#cursor.next) this.#cursor.ended = true;
    return this.#cursor.ended;
  }

  protected override timedOut(timeoutMs: number): QuorateError {
    const what = `task ${this.#id} has not ended within ${timeoutMs} ms`;
    return local("DEADLINE_EXCEEDED", "WAIT_TIMEOUT", what, "wait again: the task goes on, and nothing of it is lost");
  }
}

/** Puts the live text of one step after the other together. */
export class StepText {
  text = "";
  #step = 0;

  add(event: TaskEvent): void {
    if (event.kind === "retract" && event.step === this.#step) this.text = "";
    if (event.kind !== "token") return;
    this.text = event.step === this.#step ? this.text + event.text : event.text;
    this.#step = event.step;
  }
}

/** A watch of quotas between its streams. Each of them begins with every place; what was shown is left out. */
export class QuotaFollowing extends Keeping {
  readonly #shown = new Map<string, QuotaEvent>();
  #lastAudit: number;

  constructor(endpoints: Endpoints, policy: Policy, afterAudit: number, timeoutMs: number | undefined, clock?: Clock) {
    super(endpoints, policy, timeoutMs, clock);
    this.#lastAudit = afterAudit;
  }

  get lastAudit(): number {
    return this.#lastAudit;
  }

  /** Takes what a node sent; undefined when it was shown already. */
  take(message: QuotaMessage): QuotaEvent | undefined {
    this.heard();
    const event = quotaEvent(message);
    if (event?.kind === "audit") return this.#isNew(event.audit) ? event : undefined;
    if (event === undefined || isDeepStrictEqual(this.#shown.get(event.quota.path), event)) return undefined;
    this.#shown.set(event.quota.path, event);
    return event;
  }

  #isNew(audit: AuditEvent): boolean {
    if (audit.number <= this.#lastAudit) return false;
    this.#lastAudit = audit.number;
    return true;
  }

  protected override timedOut(timeoutMs: number): QuorateError {
    const next = "watch again, from `lastAudit` on where no audit event may be missed";
    return local("DEADLINE_EXCEEDED", "WAIT_TIMEOUT", `the watch of quotas is over after ${timeoutMs} ms`, next);
  }
}

/** A node ended the stream before the watch was over. */
export function stopped(): Failure {
  return endedHere("busy", "the node stopped answering");
}
