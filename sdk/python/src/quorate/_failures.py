"""What a failed attempt means, and its words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Optional

import grpc

from ._proto import error_details_pb2 as details_pb
from ._retry import Kind
from .errors import QuorateError, class_of, local

_UNKNOWN = "the outcome is unknown: repeat with the same request id"
_READ_AGAIN = "read the current state, then decide again"
_CORRECT = "correct the request; nothing was changed"
_LOOK_AT_LOG = "look at the log of the node that answered"

# What to do when the server gave no advice of its own.
_ADVICE = {
    "INVALID_ARGUMENT": _CORRECT,
    "OUT_OF_RANGE": _CORRECT,
    "NOT_FOUND": "check the name and the project",
    "ALREADY_EXISTS": _READ_AGAIN,
    "ABORTED": _READ_AGAIN,
    "FAILED_PRECONDITION": "read the current state; nothing was changed",
    "PERMISSION_DENIED": "ask an admin of the project for the role this needs",
    "UNAUTHENTICATED": "connect with credentials that the cluster knows",
    "RESOURCE_EXHAUSTED": "wait, or have the quota raised: `quorate quota tree` shows it",
    "UNAVAILABLE": _UNKNOWN,
    "DEADLINE_EXCEEDED": _UNKNOWN,
    "UNKNOWN": _UNKNOWN,
    "CANCELLED": _UNKNOWN,
    "UNIMPLEMENTED": "the node runs another version: compare `quorate --version` with the SDK's",
    "INTERNAL": _LOOK_AT_LOG,
    "DATA_LOSS": _LOOK_AT_LOG,
}


@dataclass(frozen=True)
class Failure:
    kind: Kind
    error: QuorateError


def failure_of(rpc_error: grpc.RpcError) -> Failure:
    """Reads what gRPC raised. The errors of both its faces have `code`, `details` and `trailing_metadata`."""
    failed: Any = rpc_error
    return read(failed.code(), failed.details() or "", failed.trailing_metadata() or ())


def read(code: grpc.StatusCode, message: str, trailing: Iterable[tuple[str, Any]]) -> Failure:
    """Reads the parts of a status."""
    status = _status(trailing)
    error = _error(code.name, message, status)
    return Failure(_kind(code, message, error, answered=status is not None), error)


def lost(message: str) -> Failure:
    """An attempt that ended on this side without an answer."""
    return Failure(Kind.LOST, local("UNAVAILABLE", "UNAVAILABLE", message, _UNKNOWN))


def _kind(code: grpc.StatusCode, message: str, error: QuorateError, answered: bool) -> Kind:
    if code is grpc.StatusCode.UNAVAILABLE:
        if answered:
            return Kind.NO_MEMBER if error.reason == "NOT_INITIALISED" else Kind.BUSY
        return Kind.NOT_SENT if _not_connected(message) else Kind.LOST
    if code in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
        return Kind.LOST
    if code is grpc.StatusCode.INTERNAL and not answered and "RST_STREAM" in message:
        return Kind.LOST
    # Over a bound of the node, not of a quota: the server says when to come back.
    over_bound = code is grpc.StatusCode.RESOURCE_EXHAUSTED and "QUOTA" not in error.reason
    return Kind.BUSY if over_bound and error.retry_after_ms is not None else Kind.FINAL


def _not_connected(message: str) -> bool:
    """A node that refuses and a connection that breaks have one code; only gRPC's words tell them apart.

    Words that are not known count as a broken connection, after which nobody claims that nothing happened.
    """
    return message.startswith(("failed to connect to all addresses", "DNS resolution failed"))


def _status(trailing: Iterable[tuple[str, Any]]) -> Optional[details_pb.Status]:
    for key, value in trailing:
        if key == "grpc-status-details-bin":
            status: Optional[details_pb.Status] = _parse(details_pb.Status(), value)
            return status
    return None


def _parse(message: Any, data: bytes) -> Any:
    """None for bytes that are no such message: a bad answer must not hide the error that it came with."""
    try:
        message.ParseFromString(data)
    except Exception:
        return None
    return message


def _detail(status: Optional[details_pb.Status], message: Any) -> Any:
    """Fills `message` from the detail of its name, if there is one."""
    wanted = f"type.googleapis.com/google.rpc.{message.DESCRIPTOR.name}"
    for detail in status.details if status else ():
        if detail.type_url == wanted:
            return _parse(message, detail.value) or type(message)()
    return message


def _error(code: str, message: str, status: Optional[details_pb.Status]) -> QuorateError:
    info: details_pb.ErrorInfo = _detail(status, details_pb.ErrorInfo())
    reason = info.reason or code
    return class_of(code, reason)(
        code,
        reason,
        message or f"the cluster answered {code}",
        cause=info.metadata.get("cause") or _cause(status),
        next=info.metadata.get("next") or _ADVICE.get(code),
        retry_after_ms=_retry_after_ms(status),
        domain=info.domain,
        metadata=dict(info.metadata),
    )


def _retry_after_ms(status: Optional[details_pb.Status]) -> Optional[int]:
    info: details_pb.RetryInfo = _detail(status, details_pb.RetryInfo())
    return max(0, info.retry_delay.ToMilliseconds()) if info.HasField("retry_delay") else None


def _cause(status: Optional[details_pb.Status]) -> Optional[str]:
    """The standard details that name what was wrong, as one line."""
    quota: details_pb.QuotaFailure = _detail(status, details_pb.QuotaFailure())
    state: details_pb.PreconditionFailure = _detail(status, details_pb.PreconditionFailure())
    fields: details_pb.BadRequest = _detail(status, details_pb.BadRequest())
    told = [(v.subject, v.description) for v in quota.violations]
    told += [(v.subject, v.description) for v in state.violations]
    told += [(v.field, v.description) for v in fields.field_violations]
    return "; ".join(f"{what}: {why}" if what else why for what, why in told) or None
