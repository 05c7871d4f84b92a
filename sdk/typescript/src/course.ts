/** The way of one call through the nodes: which one is asked, for how long, and what a failure leads to. */

import { randomBytes } from "node:crypto";
import type { Endpoints } from "./endpoints.js";
import { errorOf, local, UnknownOutcome, type QuorateError } from "./errors.js";
import type { Failure } from "./failures.js";
import { Attempts, type Policy } from "./retry.js";

/** Milliseconds that only go forward. */
export type Clock = () => number;

export const monotonic: Clock = () => performance.now();

/** 128 random bits, so that two clients never share one. */
export function freshRequestId(): string {
  return `r_${randomBytes(16).toString("hex")}`;
}

/** One call. */
export class Course {
  readonly #endpoints: Endpoints;
  readonly #policy: Policy;
  readonly #requestId: string | undefined;
  readonly #clock: Clock;
  readonly #begun: number;
  readonly #attempts: Attempts;

  constructor(endpoints: Endpoints, policy: Policy, requestId?: string, clock: Clock = monotonic) {
    this.#endpoints = endpoints;
    this.#policy = policy;
    this.#requestId = requestId;
    this.#clock = clock;
    this.#begun = clock();
    this.#attempts = new Attempts(policy, endpoints.nodes.length);
  }

  node(): number {
    return this.#endpoints.pick();
  }

  /** How long the next attempt may take. */
  patienceMs(): number {
    return this.#attempts.attemptMs(this.#elapsedMs());
  }

  /** How long the whole call may still take. */
  remainingMs(): number {
    return Math.max(1, this.#policy.deadlineMs - this.#elapsedMs());
  }

  /** Milliseconds to wait before the next attempt; throws what the user sees when there is none. */
  onFailure(node: number, failure: Failure): number {
    if (failure.kind !== "final") this.#endpoints.failed(node);
    const afterMs = failure.error.retryAfterMs ?? 0;
    const waitMs = this.#attempts.onFailure(failure.kind, afterMs, this.#elapsedMs(), Math.random());
    if (waitMs === undefined) throw this.#verdict(node, failure);
    return waitMs;
  }

  #elapsedMs(): number {
    return this.#clock() - this.#begun;
  }

  #verdict(node: number, failure: Failure): QuorateError {
    const { kind, error } = failure;
    if (kind === "final" || kind === "busy" || kind === "noMember") return error;
    if (kind === "notSent" && !this.#attempts.sent) return unreachable(this.#endpoints, error);
    return unknown(`${this.#endpoints.at(node).address}: ${error.what}`, error.code, this.#requestId);
  }
}

function unreachable(endpoints: Endpoints, error: QuorateError): QuorateError {
  const what = `no node of the cluster can be reached at ${endpoints.names()}`;
  const next =
    "check that a node runs there (`quorate dev`, or `deploy/local-cluster.sh status`), and that the endpoint or " +
    "QUORATE_ENDPOINT names its client port (7400)";
  return local("UNAVAILABLE", "UNREACHABLE", what, next, error.what);
}

function unknown(cause: string, code: string, requestId: string | undefined): QuorateError {
  const what = "no answer came: the call may or may not have taken effect";
  const next = requestId ? `repeat with the same request id: ${requestId}` : "ask again";
  const error = errorOf(code, "UNKNOWN_OUTCOME", what, { cause, next });
  if (error instanceof UnknownOutcome) error.requestId = requestId;
  return error;
}
