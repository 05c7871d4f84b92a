"""The way of one call through the nodes: which one is asked, for how long, and what a failure leads to."""

from __future__ import annotations

import secrets
import time
from typing import Callable, Optional

from ._endpoints import Endpoints
from ._failures import Failure
from ._retry import Attempts, Kind, Policy
from .errors import QuorateError, UnknownOutcome, local

Clock = Callable[[], float]


def random_number() -> int:
    return secrets.randbits(64)


def fresh_request_id() -> str:
    """128 random bits, so that two clients never share one."""
    return "r_" + secrets.token_hex(16)


class Course:
    """One call. The clock gives seconds."""

    def __init__(
        self,
        endpoints: Endpoints,
        policy: Policy,
        request_id: Optional[str] = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._endpoints = endpoints
        self._policy = policy
        self._request_id = request_id
        self._clock = clock
        self._begun = clock()
        self._attempts = Attempts(policy, len(endpoints))

    def node(self) -> int:
        return self._endpoints.pick()

    def patience_s(self) -> float:
        """How long the next attempt may take."""
        return self._attempts.attempt_ms(self._elapsed_ms()) / 1_000

    def remaining_s(self) -> float:
        """How long the whole call may still take."""
        return max(1, self._policy.deadline_ms - self._elapsed_ms()) / 1_000

    def on_failure(self, node: int, failure: Failure) -> float:
        """Seconds to wait before the next attempt; raises what the user sees when there is none."""
        if failure.kind is not Kind.FINAL:
            self._endpoints.failed(node)
        after_ms = failure.error.retry_after_ms
        wait_ms = self._attempts.on_failure(failure.kind, after_ms, self._elapsed_ms(), random_number())
        if wait_ms is None:
            raise self._verdict(node, failure)
        return wait_ms / 1_000

    def _elapsed_ms(self) -> int:
        return int((self._clock() - self._begun) * 1_000)

    def _verdict(self, node: int, failure: Failure) -> QuorateError:
        return verdict(self._endpoints, node, failure, self._attempts.sent, self._request_id)


def verdict(endpoints: Endpoints, node: int, failure: Failure, sent: bool, request_id: Optional[str]) -> QuorateError:
    """The error a user sees at the end of all attempts."""
    if failure.kind in (Kind.FINAL, Kind.BUSY, Kind.NO_MEMBER):
        return failure.error
    if failure.kind is Kind.NOT_SENT and not sent:
        return _unreachable(endpoints, failure)
    return _unknown(f"{endpoints.address(node)}: {failure.error.message}", failure.error.code, request_id)


def _unreachable(endpoints: Endpoints, failure: Failure) -> QuorateError:
    message = f"no node of the cluster can be reached at {endpoints.names()}"
    next = (
        "check that a node runs there (`quorate dev`, or `deploy/local-cluster.sh status`), and that the endpoint or "
        "QUORATE_ENDPOINT names its client port (7400)"
    )
    return local("UNAVAILABLE", "UNREACHABLE", message, next, cause=failure.error.message)


def _unknown(cause: str, code: str, request_id: Optional[str]) -> QuorateError:
    message = "no answer came: the call may or may not have taken effect"
    next = f"repeat with the same request id: {request_id}" if request_id else "ask again"
    error = UnknownOutcome(code, "UNKNOWN_OUTCOME", message, cause=cause, next=next)
    error.request_id = request_id
    return error
