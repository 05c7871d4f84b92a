"""Whether and when to ask again. Pure: elapsed time and random numbers are arguments."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Policy:
    """Bounds of the repetition of one call."""

    deadline_ms: int = 30_000
    """The whole call, with all its attempts."""
    attempt_ms: int = 8_000
    """One attempt. Above the 5 s for which a node itself looks for a leader."""
    unreachable_ms: int = 10_000
    """Gives up earlier when no node of a cluster ever took a connection."""
    attempts_max: int = 64
    backoff_ms: int = 50
    backoff_ms_max: int = 1_000


class Kind(enum.Enum):
    """How one attempt failed."""

    NOT_SENT = "the node took no connection: nothing happened"
    NO_MEMBER = "the node belongs to no cluster (yet): nothing happened"
    LOST = "the connection broke or the time ran out: nobody knows"
    BUSY = "the node says it cannot serve now"
    FINAL = "the answer is final"


_NOTHING_HAPPENED = (Kind.NOT_SENT, Kind.NO_MEMBER)


class Attempts:
    """The attempts of one call so far. Every call can be repeated: it reads, or it carries a request id."""

    def __init__(self, policy: Policy, endpoints: int) -> None:
        self._policy = policy
        self._endpoints = max(endpoints, 1)
        self._made = 0
        self.sent = False
        """Some attempt reached a node, so that the call may have taken effect."""

    def attempt_ms(self, elapsed_ms: int) -> int:
        """How long the next attempt may take."""
        return max(1, min(self._policy.attempt_ms, self._policy.deadline_ms - elapsed_ms))

    def on_failure(self, kind: Kind, retry_after_ms: Optional[int], elapsed_ms: int, random: int) -> Optional[int]:
        """Milliseconds to wait before asking again, or None to give up."""
        self._made += 1
        self.sent |= kind not in _NOTHING_HAPPENED
        at_least_ms = (retry_after_ms or 0) if kind is Kind.BUSY else 0
        wait_ms = max(self._backoff_ms(random), at_least_ms)
        limit_ms = self._policy.deadline_ms if self.sent else self._policy.unreachable_ms
        in_time = elapsed_ms + wait_ms < min(limit_ms, self._policy.deadline_ms)
        again = kind is not Kind.FINAL and in_time and self._made < self._policy.attempts_max
        return wait_ms if again else None

    def _backoff_ms(self, random: int) -> int:
        """Nothing while there are nodes not asked yet, then doubling with each round.

        The upper half is random, so that a thousand clients of a dead leader do not come back in one instant.
        """
        round_ = self._made // self._endpoints
        if round_ == 0:
            return 0
        full_ms = min(self._policy.backoff_ms << min(round_ - 1, 20), self._policy.backoff_ms_max)
        return full_ms // 2 + random % (full_ms // 2 + 1)
