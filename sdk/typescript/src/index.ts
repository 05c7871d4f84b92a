/** Client for Quorate. Start with `Client`. */

export { Client } from "./client.js";
export type { ClientOptions } from "./settings.js";
export { VERSION } from "./settings.js";
export type * from "./data.js";
export { isFinal } from "./data.js";
export type * from "./admin-data.js";
export {
  AlreadyAnswered, Conflict, InternalError, InvalidArgument, NoResult, NotEnded, NotFound, NothingAsked, PermissionDenied,
  QuorateError, QuotaExceeded, ResourceExhausted, TaskBusy, Unavailable, UnknownOutcome, Unreachable, WaitTimeout,
} from "./errors.js";
export type { Given, Moment } from "./requests.js";
export { Task } from "./task.js";
export type * from "./tasks.js";
export type { Watch, QuotaWatch } from "./watch.js";
export type { Agents, ApplyOptions } from "./agents.js";
export type { Quotas, QuotaWatchOptions, SetQuotaOptions } from "./quotas.js";
export type { AuditOptions, Cluster, DrainOptions, NodeChangeOptions } from "./cluster.js";
export type { Schedules, ScheduleOptions } from "./schedules.js";
export type { Amounts, CostOptions, Prices, SetPriceOptions } from "./prices.js";
export type { Contexts, EvaluateOptions, EvaluateTaskOptions } from "./contexts.js";
export type { Memories, RememberOptions, SearchOptions } from "./memories.js";
