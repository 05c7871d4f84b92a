/** What went wrong, in words a person can act on. */

export interface ErrorParts {
  cause?: string | undefined;
  next?: string | undefined;
  retryAfterMs?: number | undefined;
  domain?: string | undefined;
  metadata?: Readonly<Record<string, string>> | undefined;
}

/**
 * A failed call: what (`what`), why (`why`), what to do next (`next`); `message` has all of them.
 *
 * `reason` is a stable word for programs, such as `REQUEST_ID_REUSED`; where the server gave none it is the code's name.
 * `code` is the name of the gRPC code. `domain` and `metadata` are those of `google.rpc.ErrorInfo`. `retryAfterMs` is set
 * where the server said how long to wait before asking again.
 */
export class QuorateError extends Error {
  readonly code: string;
  readonly reason: string;
  readonly what: string;
  readonly why: string | undefined;
  readonly next: string | undefined;
  readonly retryAfterMs: number | undefined;
  readonly domain: string;
  readonly metadata: Readonly<Record<string, string>>;

  constructor(code: string, reason: string, what: string, parts: ErrorParts = {}) {
    super(inLines(reason, what, parts));
    this.name = new.target.name;
    this.code = code;
    this.reason = reason;
    this.what = what;
    this.why = parts.cause;
    this.next = parts.next;
    this.retryAfterMs = parts.retryAfterMs;
    this.domain = parts.domain ?? "";
    this.metadata = parts.metadata ?? {};
  }
}

function inLines(reason: string, what: string, parts: ErrorParts): string {
  const why = parts.cause ? `\n  why: ${parts.cause}` : "";
  const next = parts.next ? `\n  next: ${parts.next}` : "";
  return `${what} [${reason}]${why}${next}`;
}

/** A field cannot be used, or the request is too large. Nothing was changed. */
export class InvalidArgument extends QuorateError {}

/** There is no such task, agent, node, quota or segment in the project. */
export class NotFound extends QuorateError {}

/** The cluster does not know who asks, or the caller's role is too low. */
export class PermissionDenied extends QuorateError {}

/** The state is not what the request assumes: a wrong etag, a taken id, a reused request id, a wrong state. */
export class Conflict extends QuorateError {}

/** The task has no result: it ended otherwise. `why` is the task's own error. */
export class NoResult extends Conflict {}

/** Somebody was quicker: the first answer to a question counts. */
export class AlreadyAnswered extends Conflict {}

/** The task asks nothing, or nothing that this answers. */
export class NothingAsked extends Conflict {}

/** The task is at work; say with `busy` what is to happen to a message. */
export class TaskBusy extends Conflict {}

/** Only tasks that have ended are retried. */
export class NotEnded extends Conflict {}

/** A bound of the cluster is reached. */
export class ResourceExhausted extends QuorateError {}

/** A quota is full; `why` names it. */
export class QuotaExceeded extends ResourceExhausted {}

/** No node could serve the call now, although it was repeated. */
export class Unavailable extends QuorateError {}

/** No node took a connection: nothing happened. */
export class Unreachable extends Unavailable {}

/**
 * No answer came: the call may or may not have taken effect. Repeat it with this `requestId`, which is undefined for
 * calls that change nothing.
 */
export class UnknownOutcome extends Unavailable {
  requestId: string | undefined;
}

/** The time that you gave for waiting is over. The task goes on. */
export class WaitTimeout extends QuorateError {}

/** A node failed, or runs a version that this SDK does not understand. */
export class InternalError extends QuorateError {}

type ErrorClass = new (code: string, reason: string, what: string, parts?: ErrorParts) => QuorateError;

const BY_CODE: Readonly<Record<string, ErrorClass>> = {
  INVALID_ARGUMENT: InvalidArgument,
  OUT_OF_RANGE: InvalidArgument,
  UNIMPLEMENTED: InternalError,
  NOT_FOUND: NotFound,
  PERMISSION_DENIED: PermissionDenied,
  UNAUTHENTICATED: PermissionDenied,
  ALREADY_EXISTS: Conflict,
  ABORTED: Conflict,
  FAILED_PRECONDITION: Conflict,
  RESOURCE_EXHAUSTED: ResourceExhausted,
  UNAVAILABLE: Unavailable,
  DEADLINE_EXCEEDED: Unavailable,
};

/** Some reasons say more than their code. */
const BY_REASON: Readonly<Record<string, ErrorClass>> = {
  REQUEST_ID_REUSED: Conflict,
  REQUEST_TOO_LARGE: InvalidArgument,
  NO_RESULT: NoResult,
  ALREADY_ANSWERED: AlreadyAnswered,
  NOTHING_ASKED: NothingAsked,
  TASK_BUSY: TaskBusy,
  NOT_ENDED: NotEnded,
  UNREACHABLE: Unreachable,
  UNKNOWN_OUTCOME: UnknownOutcome,
  WAIT_TIMEOUT: WaitTimeout,
};

/** The error of the class that its code and reason ask for. */
export function errorOf(code: string, reason: string, what: string, parts: ErrorParts = {}): QuorateError {
  const quota = code === "RESOURCE_EXHAUSTED" && reason.includes("QUOTA");
  const Kind = quota ? QuotaExceeded : (BY_REASON[reason] ?? BY_CODE[code] ?? InternalError);
  return new Kind(code, reason, what, parts);
}

/** An error made on this side. */
export function local(code: string, reason: string, what: string, next: string, cause?: string): QuorateError {
  return errorOf(code, reason, what, { next, cause });
}

/** A request that no cluster would take. */
export function refused(reason: string, what: string, next: string, cause?: string): QuorateError {
  return local("INVALID_ARGUMENT", reason, what, next, cause);
}
