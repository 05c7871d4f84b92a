"""Everything about following a task or quotas except the stream: what is asked, what is shown, when to give up."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import Optional

from . import _wire
from ._course import Clock, Course
from ._cursor import Cursor
from ._endpoints import Endpoints
from ._failures import Failure
from ._proto import quota_pb2, task_pb2
from ._retry import Kind, Policy
from .data import AuditEvent, Event, Quota, QuotaEvent, TaskData
from .errors import WaitTimeout, local

# The shortest patience with a cluster that went away under a watch: an election and a lease fit into it.
PATIENCE_MS = 30_000


class Keeping:
    """A watch that outlives its streams: whom to ask, for how long, when to give up. `timeout_s` None: never."""

    def __init__(self, endpoints: Endpoints, policy: Policy, timeout_s: Optional[float], clock: Clock) -> None:
        self._endpoints = endpoints
        self._policy = policy
        self._timeout_s = timeout_s
        self._clock = clock
        self._begun = clock()
        # The failures since a node was last heard.
        self._trouble: Optional[Course] = None
        self._heard_ever = False

    def node(self) -> int:
        return self._endpoints.pick()

    def open_patience_s(self) -> float:
        """How long a node may take to accept the watch."""
        attempt_s = self._policy.attempt_ms / 1_000
        left_s = self.left_s()
        return attempt_s if left_s is None else min(attempt_s, left_s)

    def left_s(self) -> Optional[float]:
        """Seconds that are left of the time given.

        Raises:
            WaitTimeout: nothing is left.
        """
        if self._timeout_s is None:
            return None
        left_s = self._timeout_s - (self._clock() - self._begun)
        if left_s <= 0:
            raise self._timed_out()
        return left_s

    def on_failure(self, node: int, failure: Failure) -> float:
        """Seconds to wait before the next node is asked; raises when it is time to give up."""
        left_s = self.left_s()
        if self._trouble is None:
            self._trouble = Course(self._endpoints, self._trouble_policy(), clock=self._clock)
        try:
            wait_s = self._trouble.on_failure(node, failure)
        except Exception:
            self._trouble = None
            raise
        return wait_s if left_s is None else min(wait_s, left_s)

    def _trouble_policy(self) -> Policy:
        """A cluster that was heard once deserves more patience than an address that never answered."""
        deadline_ms = max(self._policy.deadline_ms, PATIENCE_MS)
        unreachable_ms = deadline_ms if self._heard_ever else self._policy.unreachable_ms
        return replace(self._policy, deadline_ms=deadline_ms, unreachable_ms=unreachable_ms, attempts_max=1 << 62)

    def _heard(self) -> None:
        self._heard_ever = True
        self._trouble = None

    def _timed_out(self) -> WaitTimeout:
        raise NotImplementedError


class Following(Keeping):
    """A watch of a task between its streams."""

    def __init__(
        self,
        endpoints: Endpoints,
        policy: Policy,
        message: task_pb2.WatchTaskRequest,
        timeout_s: Optional[float],
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(endpoints, policy, timeout_s, clock)
        self._message = message
        self._ready: deque[Event] = deque()
        self._cursor = Cursor(message.from_sequence)
        self._heard_on_this_stream = False

    @property
    def next_sequence(self) -> int:
        return self._cursor.next

    @property
    def ended(self) -> bool:
        return self._cursor.ended and not self._ready

    def pop(self) -> Optional[Event]:
        return self._ready.popleft() if self._ready else None

    def request(self) -> task_pb2.WatchTaskRequest:
        """What to ask the next node for."""
        self._heard_on_this_stream = False
        message = task_pb2.WatchTaskRequest()
        message.CopyFrom(self._message)
        message.from_sequence = self._cursor.ask_from
        return message

    def take(self, message: task_pb2.TaskEvent) -> bool:
        """Takes what a node sent. False: drop the stream and ask again."""
        self._heard_on_this_stream = True
        self._heard()
        event = _wire.event(message)
        if event is None:
            return True
        shown = self._cursor.take(event)
        self._ready.extend(shown or ())
        return shown is not None

    @property
    def must_look(self) -> bool:
        """A stream that ended without a word: the task may have ended before the sequence asked for."""
        return not self._heard_on_this_stream

    def looked(self, task: TaskData) -> bool:
        """True when there is nothing more to come."""
        if task.state.is_final and task.sequence < self._cursor.next:
            self._cursor.ended = True
        return self._cursor.ended

    def _timed_out(self) -> WaitTimeout:
        message = f"task {self._message.id} has not ended within {self._timeout_s:g} s"
        next = "wait again: the task goes on, and nothing of it is lost"
        return WaitTimeout("DEADLINE_EXCEEDED", "WAIT_TIMEOUT", message, next=next)


class QuotaFollowing(Keeping):
    """A watch of quotas between its streams. Each of them begins with every place; what was shown is left out."""

    def __init__(
        self,
        endpoints: Endpoints,
        policy: Policy,
        message: quota_pb2.WatchQuotasRequest,
        timeout_s: Optional[float],
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(endpoints, policy, timeout_s, clock)
        self._message = message
        self._shown: dict[str, Quota] = {}
        self._audit = message.after_audit

    @property
    def last_audit(self) -> int:
        return self._audit

    def request(self) -> quota_pb2.WatchQuotasRequest:
        """What to ask the next node for."""
        return quota_pb2.WatchQuotasRequest(path=self._message.path, after_audit=self._audit)

    def take(self, message: quota_pb2.QuotaEvent) -> Optional[QuotaEvent]:
        """Takes what a node sent; None when it was shown already."""
        self._heard()
        event = _wire.quota_event(message)
        if isinstance(event, AuditEvent):
            return self._new_audit(event)
        if event is None or self._shown.get(event.path) == event:
            return None
        self._shown[event.path] = event
        return event

    def _new_audit(self, event: AuditEvent) -> Optional[AuditEvent]:
        if event.number <= self._audit:
            return None
        self._audit = event.number
        return event

    def _timed_out(self) -> WaitTimeout:
        message = f"the watch of quotas is over after {self._timeout_s:g} s"
        next = "watch again, from `last_audit` on where no audit event may be missed"
        return WaitTimeout("DEADLINE_EXCEEDED", "WAIT_TIMEOUT", message, next=next)


def stopped() -> Failure:
    """A node ended the stream before the watch was over."""
    next = "go on watching: nothing is lost by that"
    return Failure(Kind.BUSY, local("UNAVAILABLE", "UNAVAILABLE", "the node stopped answering", next))
