/** What the SDK hands out about limits, money and machines. */

import type { Usage } from "./data.js";

/**
 * What a limit counts. `budget`: used up, reserved and then settled, within a window. `rate`: so much a minute. `holding`:
 * held while a task runs. `weight`: a project's share among those that wait. `unknown`: only a newer cluster knows it.
 */
export type LimitKind = "budget" | "rate" | "holding" | "weight" | "unknown";

export interface Limit {
  /** Null: without limit. */
  readonly limit: number | null;
  /** Budgets: settled, with what went beyond a reservation. Holdings: held now. Rates: used of the minute. */
  readonly used: number;
  /** Budgets: set aside by calls under way. */
  readonly reserved: number;
  readonly kind: LimitKind;
  /** Budgets of an hour, a day or a month of the calendar (UTC); undefined: for good. */
  readonly windowStart: Date | undefined;
  readonly windowEnd: Date | undefined;
  /** Part of `used` that went beyond its reservation. */
  readonly overage: number;
}

/** The limits of one place in the tree. */
export interface Quota {
  /** `cluster`, `projects/NAME`, `projects/NAME/agents/NAME`, `tasks/ID`. */
  readonly path: string;
  /** By key, such as `running`, `tokens_minute`, `tokens_total`. */
  readonly limits: Readonly<Record<string, Limit>>;
  readonly etag: string;
  readonly reason: string;
  readonly author: string;
  readonly updateTime: Date | undefined;
  /** Of a dry run: uids of the running tasks that would have to wait for room, the youngest leases first. */
  readonly wouldWait: readonly string[];
}

/** Who changed a limit, a price or a node, when and why; or that a budget ran up to 50, 80 or 100 percent. */
export interface AuditEvent {
  /** Counts from 1 without a gap. */
  readonly number: number;
  readonly time: Date;
  /** Undefined: the ledger itself. */
  readonly author: string | undefined;
  /** `quota.set`, `quota.crossed`, `price.set`, `node.close`. */
  readonly action: string;
  readonly subject: string;
  /** Such as `running 4 -> 8`. */
  readonly change: string;
  readonly reason: string;
}

/** What a watch of quotas shows: a place as it is now, or an entry of the audit log. */
export type QuotaEvent =
  | { readonly kind: "quota"; readonly quota: Quota }
  | { readonly kind: "audit"; readonly audit: AuditEvent };

/** What a model costs, in micro-dollars a million tokens: 3_000_000 are 3 dollars. */
export interface Price {
  readonly model: string;
  /** New tokens of the prompt. */
  readonly input: number;
  /** Tokens of the prompt that were in the chain before. */
  readonly cached: number;
  readonly output: number;
  /** Counts the changes of this model's price. */
  readonly etag: string;
  readonly reason: string;
  readonly author: string;
  readonly updateTime: Date | undefined;
}

/** What costs are summed by. Days are those of UTC. */
export type CostGroup = "project" | "agent" | "model" | "task" | "day";

/** What the tasks of one group used. */
export interface CostLine {
  /** A quota path, a model's name, or a day as YYYY-MM-DD. */
  readonly key: string;
  readonly tasks: number;
  readonly steps: number;
  readonly usage: Usage;
  readonly newTokens: number;
  readonly knownTokens: number;
  readonly kvBlockSeconds: number;
  readonly toolCalls: number;
}

/** Days in order; all others the most expensive first, at most 1,000. */
export interface Costs {
  readonly lines: readonly CostLine[];
  /** Everything, with what was left out of the lines. */
  readonly total: CostLine;
}

/** The consensus as the node `answeredBy` sees it. */
export interface ClusterStatus {
  readonly clusterId: string;
  /** Undefined while there is no leader. */
  readonly leader: string | undefined;
  readonly term: number;
  readonly appliedIndex: number;
  readonly committedIndex: number;
  readonly voters: readonly string[];
  readonly learners: readonly string[];
  readonly answeredBy: string;
  readonly stateHash: string;
  readonly stateHashIndex: number;
  /** Copies kept of every acknowledged segment, given the stores that are members. */
  readonly copies: number;
  readonly featureLevel: number;
  readonly tasksByState: Readonly<Record<string, number>>;
  readonly warnings: readonly string[];
}

/** A model that a node serves. `window` is in tokens. */
export interface Engine {
  readonly model: string;
  readonly modelDigest: string;
  readonly numericsId: string;
  readonly window: number;
  readonly kernels: string;
  readonly kvBlocks: number;
  readonly kvBlocksUsed: number;
  readonly kvBytes: number;
  readonly weightBytes: number;
  readonly tokensComputed: number;
  readonly tokensCached: number;
  readonly tokensGenerated: number;
  /** Bytes of KV that can be used again: `memory`, `host`, `disk`. */
  readonly kvTiers: Readonly<Record<string, number>>;
}

/** A figure that could not be read is undefined. */
export interface Gpu {
  readonly uuid: string | undefined;
  readonly name: string | undefined;
  readonly memoryTotalBytes: number | undefined;
  readonly memoryUsedBytes: number | undefined;
  readonly utilizationPercent: number | undefined;
  readonly powerMilliwatts: number | undefined;
  readonly temperatureCelsius: number | undefined;
}

/** What the machine has. A figure that could not be read is undefined. */
export interface Device {
  readonly cpus: number | undefined;
  readonly memoryBytes: number | undefined;
  readonly memoryFreeBytes: number | undefined;
  readonly rssBytes: number | undefined;
  /** Thousandths of the last 10 s in which some task waited. */
  readonly cpuPressureMilli: number | undefined;
  readonly memoryPressureMilli: number | undefined;
  readonly gpus: readonly Gpu[];
}

/** One node, whatever its roles. */
export interface Node {
  readonly id: string;
  readonly name: string;
  readonly roles: readonly string[];
  /** `ready`: attached to the leader; `cordoned`, `draining`: attached, and gets nothing new; `lost`: not attached. */
  readonly state: string;
  readonly clientAddr: string;
  readonly internalAddr: string;
  readonly running: number;
  readonly slots: number;
  /** Commits refused because this node's lease was no longer in force. */
  readonly fencedCommits: number;
  readonly engines: readonly Engine[];
  readonly segments: number;
  readonly segmentBytes: number;
  readonly contextBytesReceived: number;
  readonly contextBytesSent: number;
  /** What would have moved if every assignment and model call had carried its whole chain. */
  readonly contextBytesFull: number;
  readonly device: Device;
  readonly version: string;
}

/** A model that nodes hold. */
export interface Model {
  readonly name: string;
  readonly digest: string;
  readonly bytes: number;
  readonly holders: readonly string[];
}
