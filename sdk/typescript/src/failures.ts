/** What a failed attempt means, and its words. */

import { fromBinary, type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import { status as Code, type ServiceError } from "@grpc/grpc-js";
import { errorOf, local, type QuorateError } from "./errors.js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  PreconditionFailureSchema,
  QuotaFailureSchema,
  RetryInfoSchema,
  StatusSchema,
  type Status,
} from "./gen/quorate/sdk/error_details_pb.js";
import type { FailureKind } from "./retry.js";

const UNKNOWN = "the outcome is unknown: repeat with the same request id";
const READ_AGAIN = "read the current state, then decide again";
const CORRECT = "correct the request; nothing was changed";
const LOOK_AT_LOG = "look at the log of the node that answered";

/** What to do when the server gave no advice of its own. */
const ADVICE: Readonly<Record<string, string>> = {
  INVALID_ARGUMENT: CORRECT,
  OUT_OF_RANGE: CORRECT,
  NOT_FOUND: "check the name and the project",
  ALREADY_EXISTS: READ_AGAIN,
  ABORTED: READ_AGAIN,
  FAILED_PRECONDITION: "read the current state; nothing was changed",
  PERMISSION_DENIED: "ask an admin of the project for the role this needs",
  UNAUTHENTICATED: "connect with credentials that the cluster knows",
  RESOURCE_EXHAUSTED: "wait, or have the quota raised: `quorate quota tree` shows it",
  UNAVAILABLE: UNKNOWN,
  DEADLINE_EXCEEDED: UNKNOWN,
  UNKNOWN,
  CANCELLED: UNKNOWN,
  UNIMPLEMENTED: "the node runs another version: compare `quorate --version` with the SDK's",
  INTERNAL: LOOK_AT_LOG,
  DATA_LOSS: LOOK_AT_LOG,
};

export interface Failure {
  readonly kind: FailureKind;
  readonly error: QuorateError;
}

/** Why an attempt failed, to be thrown between the rooms of this package alone. */
export class Failed extends Error {
  readonly failure: Failure;

  constructor(failure: Failure) {
    super(failure.error.message);
    this.failure = failure;
  }
}

/** Reads what gRPC raised. */
export function failureOf(raised: ServiceError): Failure {
  const status = statusOf(raised);
  const error = readError(Code[raised.code] ?? "UNKNOWN", raised.details, status);
  return { kind: kindOf(raised, error, status !== undefined), error };
}

/** What to do after an attempt that ended on this side. */
const ENDED_ADVICE = { notSent: "check that a node runs there", lost: UNKNOWN, busy: "go on: nothing is lost by that" };

/** An attempt that ended on this side: before it was sent, without an answer, or before the stream was over. */
export function endedHere(kind: keyof typeof ENDED_ADVICE, message: string): Failure {
  return { kind, error: local("UNAVAILABLE", "UNAVAILABLE", message, ENDED_ADVICE[kind]) };
}

function kindOf(raised: ServiceError, error: QuorateError, answered: boolean): FailureKind {
  switch (raised.code) {
    case Code.UNAVAILABLE:
      if (answered) return error.reason === "NOT_INITIALISED" ? "noMember" : "busy";
      return notConnected(raised.details) ? "notSent" : "lost";
    case Code.UNKNOWN:
    case Code.DEADLINE_EXCEEDED:
    case Code.CANCELLED:
      return "lost";
    case Code.INTERNAL:
      return !answered && /RST_STREAM|ECONN|socket|session/i.test(raised.details) ? "lost" : "final";
    case Code.RESOURCE_EXHAUSTED:
      // Over a bound of the node, not of a quota: the server says when to come back.
      return !error.reason.includes("QUOTA") && error.retryAfterMs !== undefined ? "busy" : "final";
    default:
      return "final";
  }
}

/**
 * A node that refuses and a connection that breaks have one code; only gRPC's words tell them apart. Words that are not
 * known count as a broken connection, after which nobody claims that nothing happened.
 */
function notConnected(details: string): boolean {
  return /^(No connection established|Name resolution failed)/.test(details);
}

function statusOf(raised: ServiceError): Status | undefined {
  const [bytes] = raised.metadata?.get("grpc-status-details-bin") ?? [];
  return Buffer.isBuffer(bytes) ? parse(StatusSchema, bytes) : undefined;
}

/** Undefined for bytes that are no such message: a bad answer must not hide the error that it came with. */
function parse<D extends DescMessage>(schema: D, bytes: Uint8Array): MessageShape<D> | undefined {
  try {
    return fromBinary(schema, bytes);
  } catch {
    return undefined;
  }
}

/** The detail of this name, if there is one. The messages are `google.rpc`'s, field for field. */
function detail<D extends DescMessage>(status: Status | undefined, schema: D): MessageShape<D> | undefined {
  const wanted = `type.googleapis.com/google.rpc.${schema.name}`;
  const found = status?.details.find((any) => any.typeUrl === wanted);
  return found && parse(schema, found.value);
}

function readError(code: string, message: string, status: Status | undefined): QuorateError {
  const info = detail(status, ErrorInfoSchema);
  return errorOf(code, info?.reason || code, message || `the cluster answered ${code}`, {
    cause: info?.metadata["cause"] || causeOf(status),
    next: info?.metadata["next"] || ADVICE[code],
    retryAfterMs: retryAfterMs(status),
    domain: info?.domain,
    metadata: info?.metadata,
  });
}

function retryAfterMs(status: Status | undefined): number | undefined {
  const delay = detail(status, RetryInfoSchema)?.retryDelay;
  return delay && Math.max(0, Number(delay.seconds) * 1_000 + Math.floor(delay.nanos / 1_000_000));
}

/** The standard details that name what was wrong, as one line. */
function causeOf(status: Status | undefined): string | undefined {
  const told = [
    ...(detail(status, QuotaFailureSchema)?.violations ?? []),
    ...(detail(status, PreconditionFailureSchema)?.violations ?? []),
    ...(detail(status, BadRequestSchema)?.fieldViolations ?? []).map(({ field, description }) => {
      return { subject: field, description };
    }),
  ];
  return told.map((it) => (it.subject ? `${it.subject}: ${it.description}` : it.description)).join("; ") || undefined;
}
