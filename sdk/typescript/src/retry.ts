/** Whether and when to ask again. Pure: elapsed time and random numbers are arguments. */

/** Bounds of the repetition of one call. */
export interface Policy {
  /** The whole call, with all its attempts. */
  readonly deadlineMs: number;
  /** One attempt. Above the 5 s for which a node itself looks for a leader. */
  readonly attemptMs: number;
  /** Gives up earlier when no node of a cluster ever took a connection. */
  readonly unreachableMs: number;
  readonly attemptsMax: number;
  readonly backoffMs: number;
  readonly backoffMsMax: number;
}

export const DEFAULT_POLICY: Policy = {
  deadlineMs: 30_000,
  attemptMs: 8_000,
  unreachableMs: 10_000,
  attemptsMax: 64,
  backoffMs: 50,
  backoffMsMax: 1_000,
};

/**
 * How one attempt failed. `notSent`: the node took no connection; `noMember`: it belongs to no cluster (yet); after both
 * nothing happened. `lost`: the connection broke or the time ran out, nobody knows. `busy`: it cannot serve now.
 */
export type FailureKind = "notSent" | "noMember" | "lost" | "busy" | "final";

/** The attempts of one call so far. Every call can be repeated: it reads, or it carries a request id. */
export class Attempts {
  /** Some attempt reached a node, so that the call may have taken effect. */
  sent = false;
  #made = 0;
  readonly #policy: Policy;
  readonly #endpoints: number;

  constructor(policy: Policy, endpoints: number) {
    this.#policy = policy;
    this.#endpoints = Math.max(endpoints, 1);
  }

  /** How long the next attempt may take. */
  attemptMs(elapsedMs: number): number {
    return Math.max(1, Math.min(this.#policy.attemptMs, this.#policy.deadlineMs - elapsedMs));
  }

  /** Milliseconds to wait before asking again; undefined: give up. `random` is in [0, 1). */
  onFailure(kind: FailureKind, retryAfterMs: number, elapsedMs: number, random: number): number | undefined {
    this.#made += 1;
    this.sent ||= kind !== "notSent" && kind !== "noMember";
    const waitMs = Math.max(this.#backoffMs(random), kind === "busy" ? retryAfterMs : 0);
    const limitMs = this.sent ? this.#policy.deadlineMs : this.#policy.unreachableMs;
    const inTime = elapsedMs + waitMs < Math.min(limitMs, this.#policy.deadlineMs);
    return kind !== "final" && inTime && this.#made < this.#policy.attemptsMax ? waitMs : undefined;
  }

  /**
   * Nothing while there are nodes not asked yet, then doubling with each round. The upper half is random, so that a
   * thousand clients of a dead leader do not come back in one instant.
   */
  #backoffMs(random: number): number {
    const round = Math.floor(this.#made / this.#endpoints);
    if (round === 0) return 0;
    const fullMs = Math.min(this.#policy.backoffMs * 2 ** Math.min(round - 1, 20), this.#policy.backoffMsMax);
    const halfMs = Math.floor(fullMs / 2);
    return halfMs + Math.floor(random * (halfMs + 1));
  }
}
