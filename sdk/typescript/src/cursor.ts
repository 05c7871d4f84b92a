/**
 * What a watcher has seen, so that streams from several nodes read as one. Pure.
 *
 * Committed events are taken by sequence: each once, in order. Live tokens are taken by (step, attempt, offset): a node
 * asked anew sends the step's text from its beginning, and only what was not shown yet is let through.
 */

import {
  isFinal,
  type GapEvent,
  type RetractEvent,
  type StateEvent,
  type StepEvent,
  type TaskEvent,
  type TokenEvent,
} from "./data.js";
import { Live } from "./live.js";

/** Attempts are lease epochs, maybe with the number of the call under that lease: `1.42.0` or `1.42.0/1`. */
const ATTEMPT = /^([0-9]+)\.([0-9]+)\.([0-9]+)(?:\/([0-9]+))?$/;

export class Cursor {
  /** Sequence of the committed event that comes next. */
  next: number;
  /** The final state was seen, or the task ended before the sequence that was asked for. */
  ended = false;
  /** Where the lease began under which the task runs now. */
  #leaseFrom: number | undefined;
  #committedStep = 0;
  #live: Live | undefined;
  /** Text of this step and attempt was taken back; stragglers of it are dropped. */
  #retracted: Live | undefined;
  /** The sequence for which the stream was opened again after a hole. */
  #askedAgainFor = 0;

  constructor(fromSequence: number) {
    this.next = Math.max(fromSequence, 1);
  }

  /**
   * The sequence to ask another node for. A node begins live text with the event that gave the lease, so it is asked for
   * that one again; what was seen before is left out here.
   */
  get askFrom(): number {
    return this.#leaseFrom ?? this.next;
  }

  /** What to show of it. Undefined: events are missing without a word, so ask again from `next`. */
  take(event: TaskEvent): TaskEvent[] | undefined {
    switch (event.kind) {
      case "state":
      case "step":
        return this.#onCommitted(event);
      case "token":
        return this.#onToken(event);
      case "retract":
        return this.#onRetract(event);
      case "gap":
        return this.#onGap(event);
    }
  }

  #onCommitted(event: StateEvent | StepEvent): TaskEvent[] | undefined {
    if (event.sequence < this.next) return [];
    const shown: TaskEvent[] = [];
    if (event.sequence > this.next) {
      if (this.#askedAgainFor !== this.next) {
        this.#askedAgainFor = this.next;
        return undefined;
      }
      // The second time the same events are missing they are gone: say so rather than wait for ever.
      shown.push({ kind: "gap", task: event.task, atMs: event.atMs, first: this.next, last: event.sequence - 1 });
    }
    this.next = event.sequence + 1;
    if (event.kind === "state") this.#onState(event);
    else this.#committedStep = Math.max(this.#committedStep, event.step);
    return [...shown, event];
  }

  #onState(event: StateEvent): void {
    this.ended ||= isFinal(event.state);
    this.#leaseFrom = event.state === "RUNNING" ? event.sequence : undefined;
  }

  #onGap(event: GapEvent): TaskEvent[] {
    if (event.last < this.next) return [];
    const first = Math.max(event.first, this.next);
    this.next = event.last + 1;
    return [{ ...event, first }];
  }

  #onRetract(event: RetractEvent): TaskEvent[] {
    if (!this.#live?.is(event.step, event.attempt)) return [];
    this.#retracted = this.#live;
    this.#live = undefined;
    return [event];
  }

  #onToken(event: TokenEvent): TaskEvent[] {
    if (this.#retracted?.is(event.step, event.attempt) || this.#isPast(event)) return [];
    const shown: TaskEvent[] = [];
    let live = this.#live;
    if (live !== undefined && live.step === event.step && live.attempt !== event.attempt) {
      // Another attempt begins: what the last one showed is void, whether or not its node could say so.
      this.#retracted = live;
      shown.push(retract(event, live.attempt));
    }
    if (!live?.is(event.step, event.attempt)) live = this.#live = new Live(event.step, event.attempt);
    const added = live.add(event);
    if (added !== undefined) return [...shown, ...added];
    // The node's text is not the text that was shown.
    this.#live = new Live(event.step, event.attempt);
    this.#live.add(event);
    return [...shown, retract(event, event.attempt), event];
  }

  /** It belongs to text that was shown, committed or given up before. */
  #isPast(event: TokenEvent): boolean {
    const live = this.#live;
    if (live === undefined || event.step > live.step) return event.step <= this.#committedStep;
    return event.step < live.step || isEarlier(event.attempt, live.attempt);
  }
}

function retract(event: TokenEvent, attempt: string): RetractEvent {
  return { kind: "retract", task: event.task, atMs: event.atMs, step: event.step, attempt };
}

/** Later attempts compare greater; unreadable ones count as later. */
function isEarlier(attempt: string, than: string): boolean {
  const mine = order(attempt);
  const other = order(than);
  if (mine === undefined || other === undefined) return false;
  const differs = mine.findIndex((part, at) => part !== other[at]);
  return differs >= 0 && (mine[differs] ?? 0n) < (other[differs] ?? 0n);
}

function order(attempt: string): bigint[] | undefined {
  return ATTEMPT.exec(attempt)?.slice(1).map((part) => BigInt(part ?? 0));
}
