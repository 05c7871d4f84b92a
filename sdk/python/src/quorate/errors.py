"""What went wrong, in words a person can act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional


class QuorateError(Exception):
    """A failed call: what (`message`), why (`cause`), what to do next (`next`).

    `reason` is a stable word for programs, such as `REQUEST_ID_REUSED`; where the server gave none it is the code's
    name. `code` is the name of the gRPC code. `domain` and `metadata` are those of `google.rpc.ErrorInfo`.
    `retry_after_ms` is set where the server said how long to wait before asking again.
    """

    def __init__(
        self,
        code: str,
        reason: str,
        message: str,
        *,
        cause: Optional[str] = None,
        next: Optional[str] = None,
        retry_after_ms: Optional[int] = None,
        domain: str = "",
        metadata: Optional[Mapping[str, str]] = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.cause = cause
        self.next = next
        self.retry_after_ms = retry_after_ms
        self.domain = domain
        self.metadata: Mapping[str, str] = dict(metadata or {})

    def __str__(self) -> str:
        lines = [f"{self.message} [{self.reason}]"]
        lines += [f"  why: {self.cause}"] if self.cause else []
        lines += [f"  next: {self.next}"] if self.next else []
        return "\n".join(lines)


class InvalidArgument(QuorateError):
    """A field cannot be used, or the request is too large. Nothing was changed."""


class NotFound(QuorateError):
    """There is no such task, agent, node, quota or segment in the project."""


class PermissionDenied(QuorateError):
    """The cluster does not know who asks, or the caller's role is too low."""


class Conflict(QuorateError):
    """The state is not what the request assumes: a wrong etag, a taken id, a reused request id, a wrong state."""


class NoResult(Conflict):
    """The task has no result: it ended otherwise. `cause` is the task's own error."""


class AlreadyAnswered(Conflict):
    """Somebody was quicker: the first answer to a question counts."""


class NothingAsked(Conflict):
    """The task asks nothing, or nothing that this answers."""


class TaskBusy(Conflict):
    """The task is at work; say with `busy` what is to happen to a message."""


class NotEnded(Conflict):
    """Only tasks that have ended are retried."""


class ResourceExhausted(QuorateError):
    """A bound of the cluster is reached."""


class QuotaExceeded(ResourceExhausted):
    """A quota is full; `cause` names it."""


class Unavailable(QuorateError):
    """No node could serve the call now, although it was repeated."""


class Unreachable(Unavailable):
    """No node took a connection: nothing happened."""


class UnknownOutcome(Unavailable):
    """No answer came: the call may or may not have taken effect. Repeat it with this `request_id`.

    `request_id` is None for calls that change nothing.
    """

    request_id: Optional[str] = None


class WaitTimeout(QuorateError, TimeoutError):
    """The time that you gave for waiting is over. The task goes on."""


class InternalError(QuorateError):
    """A node failed, or runs a version that this SDK does not understand."""


_BY_CODE: Mapping[str, type[QuorateError]] = {
    "INVALID_ARGUMENT": InvalidArgument,
    "OUT_OF_RANGE": InvalidArgument,
    "UNIMPLEMENTED": InternalError,
    "NOT_FOUND": NotFound,
    "PERMISSION_DENIED": PermissionDenied,
    "UNAUTHENTICATED": PermissionDenied,
    "ALREADY_EXISTS": Conflict,
    "ABORTED": Conflict,
    "FAILED_PRECONDITION": Conflict,
    "RESOURCE_EXHAUSTED": ResourceExhausted,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": Unavailable,
}

# Some reasons say more than their code.
_BY_REASON: Mapping[str, type[QuorateError]] = {
    "REQUEST_ID_REUSED": Conflict,
    "REQUEST_TOO_LARGE": InvalidArgument,
    "NO_RESULT": NoResult,
    "ALREADY_ANSWERED": AlreadyAnswered,
    "NOTHING_ASKED": NothingAsked,
    "TASK_BUSY": TaskBusy,
    "NOT_ENDED": NotEnded,
    "UNREACHABLE": Unreachable,
    "UNKNOWN_OUTCOME": UnknownOutcome,
}


def class_of(code: str, reason: str) -> type[QuorateError]:
    """The class that an error of this code and reason is raised as."""
    if code == "RESOURCE_EXHAUSTED" and "QUOTA" in reason:
        return QuotaExceeded
    return _BY_REASON.get(reason) or _BY_CODE.get(code, InternalError)


def local(code: str, reason: str, message: str, next: str, cause: Optional[str] = None) -> QuorateError:
    """An error made on this side."""
    return class_of(code, reason)(code, reason, message, cause=cause, next=next)
