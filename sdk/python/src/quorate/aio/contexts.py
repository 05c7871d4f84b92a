"""The text behind tasks: what of it mattered."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .. import _requests, _wire
from .._proto import context_pb2
from ..data import Evaluation, RecordedCall

if TYPE_CHECKING:
    from .client import AsyncClient


class AsyncContexts:
    """What agents read. Nothing is generated: recorded calls are scored by an engine of the cluster."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def evaluate(
        self,
        task: str,
        *,
        step: int = 0,
        team: bool = False,
        model: str = "",
        budget_tokens: int = 0,
        audit_all: bool = False,
        suggest: bool = False,
        page: bool = False,
        timeout: float = _requests.EVALUATION_S,
    ) -> Evaluation:
        """What each part of what a task's agent read was worth for what it did.

        Args:
            step: the step that called the model. 0: the last one that did.
            team: all calls of the task and of every task below it, and what readers did not get.
            model: one that a node has loaded. Empty: the task's own, else any.
            budget_tokens: at most so many computed tokens; calls beyond are listed as skipped. 0: a million.
            audit_all: every call is audited by exact removal, not one in twenty.
            suggest: also the smallest context of each call.
            page: also a page of HTML. It holds the texts.
            timeout: seconds; giving up ends the work.
        """
        request = context_pb2.EvaluateContextRequest(
            project=self._client.project,
            task=context_pb2.TaskCalls(task=task, step=step, team=team),
            model=model,
            budget_tokens=budget_tokens,
            audit_all=audit_all,
            suggest=suggest,
            page=page,
        )
        return await self._evaluate(request, timeout)

    async def evaluate_calls(
        self,
        calls: Iterable[RecordedCall],
        *,
        model: str = "",
        budget_tokens: int = 0,
        audit_all: bool = False,
        suggest: bool = False,
        page: bool = False,
        timeout: float = _requests.EVALUATION_S,
    ) -> Evaluation:
        """The same of calls that were recorded elsewhere."""
        request = context_pb2.EvaluateContextRequest(
            project=self._client.project,
            calls=_requests.recorded_calls(calls),
            model=model,
            budget_tokens=budget_tokens,
            audit_all=audit_all,
            suggest=suggest,
            page=page,
        )
        return await self._evaluate(request, timeout)

    async def _evaluate(self, request: context_pb2.EvaluateContextRequest, timeout: float) -> Evaluation:
        answer = await self._client._call(lambda s: s.context.EvaluateContext, request, timeout=timeout)
        return _wire.evaluation(answer)
