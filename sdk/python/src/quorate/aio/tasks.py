"""Tasks: create, look at, follow, talk to, stop."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Optional, Union

from .. import _requests, _wire
from .._proto import task_pb2
from .._requests import Moment
from ..data import Ask, Busy, Explanation, Input, TaskClass, TaskData, WhatIf
from .watch import AsyncWatch

if TYPE_CHECKING:
    from .client import AsyncClient


class AsyncTask(TaskData):
    """A task as it was when the cluster answered, and what can be done with it. `refresh` gives it anew."""

    _tasks: AsyncTasks

    @classmethod
    def _of(cls, it: task_pb2.Task, tasks: AsyncTasks) -> AsyncTask:
        task = cls(**vars(_wire.task(it)))
        # No field: comparing, printing and copying are about the data alone.
        object.__setattr__(task, "_tasks", tasks)
        return task

    async def refresh(self) -> AsyncTask:
        """The task as it is now (linearizable)."""
        return await self._tasks.get(self._key)

    def watch(self, *, from_sequence: int = 1, tokens: bool = True, timeout: Optional[float] = None) -> AsyncWatch:
        """Follows it; see `AsyncTasks.watch`."""
        return self._tasks.watch(self._key, from_sequence=from_sequence, tokens=tokens, timeout=timeout)

    async def wait(self, timeout: Optional[float] = None) -> AsyncTask:
        """Waits until nothing more will happen to it; see `AsyncTasks.wait`."""
        return await self._tasks.wait(self._key, timeout)

    async def result(self, timeout: Optional[float] = None) -> str:
        """Waits for the end and gives the text, small or large; see `AsyncTasks.result`."""
        return await self._tasks.result(self._key, timeout)

    async def cancel(self, *, request_id: Optional[str] = None) -> AsyncTask:
        """Returns when CANCELLING is durable. CANCELLED is the proof that nothing runs any more."""
        return await self._tasks.cancel(self._key, request_id=request_id)

    async def pause(self, *, request_id: Optional[str] = None) -> AsyncTask:
        """Holds it still at once. A step that is not committed is decided again after resuming."""
        return await self._tasks.pause(self._key, request_id=request_id)

    async def resume(self, *, request_id: Optional[str] = None) -> AsyncTask:
        """Puts a paused task back into its queue."""
        return await self._tasks.resume(self._key, request_id=request_id)

    async def approve(self, ask: Optional[Union[str, Ask]] = None, *, request_id: Optional[str] = None) -> AsyncTask:
        """Lets a tool call be made; see `AsyncTasks.approve`."""
        return await self._tasks.approve(self._key, ask, request_id=request_id)

    async def reject(self, ask: Optional[Union[str, Ask]] = None, *, request_id: Optional[str] = None) -> AsyncTask:
        """Does not let a tool call be made; see `AsyncTasks.reject`."""
        return await self._tasks.reject(self._key, ask, request_id=request_id)

    async def answer(
        self, text: str, ask: Optional[Union[str, Ask]] = None, *, request_id: Optional[str] = None
    ) -> AsyncTask:
        """Answers a question; see `AsyncTasks.answer`."""
        return await self._tasks.answer(self._key, text, ask, request_id=request_id)

    async def repeat(self, ask: Optional[Union[str, Ask]] = None, *, request_id: Optional[str] = None) -> AsyncTask:
        """Has a call whose outcome is unknown made again; see `AsyncTasks.repeat`."""
        return await self._tasks.repeat(self._key, ask, request_id=request_id)

    async def send(
        self, text: str, busy: Union[Busy, str] = Busy.REJECT, *, request_id: Optional[str] = None
    ) -> AsyncTask:
        """Sends a message; see `AsyncTasks.send`."""
        return await self._tasks.send(self._key, text, busy, request_id=request_id)

    async def retry(self, *, task_id: Optional[str] = None, request_id: Optional[str] = None) -> AsyncTask:
        """A new task like this one, which has ended; see `AsyncTasks.retry`."""
        return await self._tasks.retry(self._key, task_id=task_id, request_id=request_id)

    async def fork(
        self, step: Optional[int] = None, *, task_id: Optional[str] = None, request_id: Optional[str] = None
    ) -> AsyncTask:
        """A new task that goes on from a committed step of this one; see `AsyncTasks.fork`."""
        return await self._tasks.fork(self._key, step, task_id=task_id, request_id=request_id)

    async def explain(self, *, what_if: Iterable[WhatIf] = ()) -> Explanation:
        """Why it waits, with numbers; see `AsyncTasks.explain`."""
        return await self._tasks.explain(self._key, what_if=what_if)

    @property
    def _key(self) -> str:
        return self.uid or self.id


class AsyncTasks:
    """Tasks of the client's project: create, look at, follow, talk to, stop. Ids are task ids or uids."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def create(
        self,
        agent: str,
        input: Optional[str] = None,
        *,
        inputs: Iterable[Union[str, Input]] = (),
        task_id: Optional[str] = None,
        labels: Optional[Mapping[str, str]] = None,
        klass: Optional[Union[TaskClass, str]] = None,
        priority: Optional[int] = None,
        deadline: Optional[Moment] = None,
        not_before: Optional[Moment] = None,
        after: Iterable[Union[str, TaskData]] = (),
        limits: Optional[Mapping[str, int]] = None,
        request_id: Optional[str] = None,
        dry_run: bool = False,
    ) -> AsyncTask:
        """Returns when the task and its inputs are durable.

        Args:
            agent: name of an agent or a team.
            input: a text; `inputs` takes several, with names where they are `Input`s.
            task_id: your own key, unique in the project.
            labels: at most 16.
            klass: which queue it waits in; `interactive` when not set.
            priority: 0 to 9; higher runs earlier within its class. 5 when not set.
            deadline: when patience ends and the task is EXPIRED: `30m` or a timedelta from now, or a datetime.
            not_before: when it may start at the earliest, written like the deadline.
            after: tasks of the project that have to succeed first, as ids or as they came. Where one doesn't, this one
                is cancelled.
            limits: for the task and everything below it, by quota key, such as `{"tokens_total": 100_000}`.
            request_id: repeating a create with the same one gives the first answer. A fresh one when not set.
            dry_run: check everything, change nothing. The answer is the task as it would be, without an id, and its
                `pending` says what would hold it now.

        Raises:
            InvalidArgument: a field can't be used; bounds are checked before anything is sent.
            NotFound: there is no such agent.
            Conflict: the task id is taken, or the request id was used with another body.
            UnknownOutcome: no answer came; it has the request id to repeat with.
        """
        request = _requests.create_task(
            self._client.project,
            agent,
            input,
            inputs,
            task_id,
            labels,
            klass,
            priority,
            deadline,
            not_before,
            after,
            limits,
            request_id,
            dry_run,
            now_ms=time.time_ns() // 1_000_000,
        )
        return self._task(await self._client._call(lambda s: s.tasks.CreateTask, request, request.request_id))

    async def get(self, id: str, *, allow_stale: bool = False) -> AsyncTask:
        """The task as it is now (linearizable).

        With `allow_stale` as the asked node last saw it: quick, also without a leader, maybe old.
        """
        request = task_pb2.GetTaskRequest(project=self._client.project, id=id, allow_stale=allow_stale)
        return self._task(await self._client._call(lambda s: s.tasks.GetTask, request))

    async def list(
        self, filter: str = "", *, page_size: int = 0, allow_stale: bool = False
    ) -> AsyncIterator[AsyncTask]:
        """Every task, page after page as they are taken.

        `filter` has terms joined by AND: `state=RUNNING`, `agent=reader`, `label.team=x`, `parent=t_...`,
        `class=batch`. `page_size` is at most 1,000; 0 leaves it to the cluster.
        """
        request = task_pb2.ListTasksRequest(
            project=self._client.project, page_size=page_size, filter=filter, allow_stale=allow_stale
        )
        while True:
            page = await self._client._call(lambda s: s.tasks.ListTasks, request)
            for it in page.tasks:
                yield self._task(it)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def watch(
        self, id: str, *, from_sequence: int = 1, tokens: bool = True, timeout: Optional[float] = None
    ) -> AsyncWatch:
        """Follows a task until its final state: committed events in order, live text between them.

        A stream that breaks is taken up at the next node, without a gap and without a duplicate. Events that the
        cluster no longer keeps are named by a `GapEvent`.

        Args:
            from_sequence: the first committed event wanted.
            tokens: False leaves live text out.
            timeout: seconds for the whole watch; then `WaitTimeout` is raised. None: no end.
        """
        return AsyncWatch(self._client, _requests.watch_task(self._client.project, id, from_sequence, tokens), timeout)

    async def wait(self, id: str, timeout: Optional[float] = None) -> AsyncTask:
        """Waits, however long, until nothing more will happen to the task, and gives it.

        Raises:
            WaitTimeout: that took more than `timeout` seconds.
        """
        async with self.watch(id, tokens=False, timeout=timeout) as watch:
            async for _ in watch:
                pass
        return await self.get(id)

    async def result(self, id: str, timeout: Optional[float] = None) -> str:
        """Waits until the task has ended and gives its text, small or large.

        Raises:
            NoResult: it ended otherwise; `cause` is the task's own error.
            WaitTimeout: that took more than `timeout` seconds.
        """
        task = await self.wait(id, timeout)
        text = _requests.result_at_hand(task)
        if text is not None:
            return text
        return await self._client._read_text(task.project or self._client.project, task.result_hash or "")

    async def cancel(self, id: str, *, request_id: Optional[str] = None) -> AsyncTask:
        """Returns when CANCELLING is durable. CANCELLED is the proof that nothing runs any more."""
        request = task_pb2.CancelTaskRequest(
            project=self._client.project, id=id, request_id=_requests.given_or_fresh(request_id)
        )
        return self._task(await self._client._call(lambda s: s.tasks.CancelTask, request, request.request_id))

    async def pause(self, id: str, *, request_id: Optional[str] = None) -> AsyncTask:
        """Holds the task still at once. A step that is not committed is decided again after resuming."""
        request = task_pb2.PauseTaskRequest(
            project=self._client.project, id=id, request_id=_requests.given_or_fresh(request_id)
        )
        return self._task(await self._client._call(lambda s: s.tasks.PauseTask, request, request.request_id))

    async def resume(self, id: str, *, request_id: Optional[str] = None) -> AsyncTask:
        """Puts a paused task back into its queue."""
        request = task_pb2.ResumeTaskRequest(
            project=self._client.project, id=id, request_id=_requests.given_or_fresh(request_id)
        )
        return self._task(await self._client._call(lambda s: s.tasks.ResumeTask, request, request.request_id))

    async def approve(
        self, id: str, ask: Optional[Union[str, Ask]] = None, *, request_id: Optional[str] = None
    ) -> AsyncTask:
        """Lets a tool call be made. Durable when it returns, and heard once.

        Args:
            ask: the open question, as it came in `Task.asks` or its id; may be left out where only one is open.

        Raises:
            AlreadyAnswered: somebody was quicker.
            NothingAsked: nothing is open.
        """
        return await self._signal(id, task_pb2.APPROVE, ask, "", request_id)

    async def reject(
        self, id: str, ask: Optional[Union[str, Ask]] = None, *, request_id: Optional[str] = None
    ) -> AsyncTask:
        """Does not let a tool call be made, or says of an unknown outcome that the call failed; its model hears so."""
        return await self._signal(id, task_pb2.REJECT, ask, "", request_id)

    async def answer(
        self, id: str, text: str, ask: Optional[Union[str, Ask]] = None, *, request_id: Optional[str] = None
    ) -> AsyncTask:
        """Answers a question, or says how a call ended of which nobody knows."""
        return await self._signal(id, task_pb2.ANSWER, ask, text, request_id)

    async def repeat(
        self, id: str, ask: Optional[Union[str, Ask]] = None, *, request_id: Optional[str] = None
    ) -> AsyncTask:
        """Has a call whose outcome is unknown made again; only of tools whose policy is `ask`."""
        return await self._signal(id, task_pb2.REPEAT, ask, "", request_id)

    async def send(
        self, id: str, text: str, busy: Union[Busy, str] = Busy.REJECT, *, request_id: Optional[str] = None
    ) -> AsyncTask:
        """Sends a message to a conversation.

        Args:
            busy: what becomes of it while the task is at work: `reject` (raises `TaskBusy`), `enqueue` (it waits for
                its turn), `interrupt` (stops the model and keeps what it said), `rollback` (in place of what was done
                since the last message).
        """
        return await self._signal(id, _requests.message_kind(busy), None, text, request_id)

    async def retry(self, id: str, *, task_id: Optional[str] = None, request_id: Optional[str] = None) -> AsyncTask:
        """A new task of the same agent's revision and inputs as one that has ended.

        Raises:
            NotEnded: it has not.
        """
        request = _requests.retry_task(self._client.project, id, task_id, request_id)
        return self._task(await self._client._call(lambda s: s.tasks.RetryTask, request, request.request_id))

    async def fork(
        self, id: str, step: Optional[int] = None, *, task_id: Optional[str] = None, request_id: Optional[str] = None
    ) -> AsyncTask:
        """A new task that goes on from a committed step of another one; None: from the newest."""
        request = _requests.fork_task(self._client.project, id, step, task_id, request_id)
        return self._task(await self._client._call(lambda s: s.tasks.ForkTask, request, request.request_id))

    async def explain(self, id: str, *, what_if: Iterable[WhatIf] = ()) -> Explanation:
        """Why a task waits, with numbers, its place in the queue, and when it will start.

        With `what_if` as if these limits were set; nothing changes. Refused in a cluster of more than 10,000 tasks.
        """
        request = _requests.explain_task(self._client.project, id, what_if)
        return _wire.explanation(await self._client._call(lambda s: s.tasks.ExplainTask, request))

    async def _signal(
        self,
        id: str,
        kind: task_pb2.SignalKind.ValueType,
        ask: Optional[Union[str, Ask]],
        text: str,
        request_id: Optional[str],
    ) -> AsyncTask:
        request = _requests.signal_task(self._client.project, id, kind, ask, text, request_id)
        return self._task(await self._client._call(lambda s: s.tasks.SignalTask, request, request.request_id))

    def _task(self, it: task_pb2.Task) -> AsyncTask:
        return AsyncTask._of(it, self)
