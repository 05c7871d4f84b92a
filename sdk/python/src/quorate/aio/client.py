"""The client for asyncio. One client belongs to one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Callable, Optional, TypeVar, Union

import grpc
import grpc.aio

from .. import _requests, _settings
from .._failures import failure_of
from .._proto import context_pb2
from .admin import AsyncAgents, AsyncCluster, AsyncQuotas
from .contexts import AsyncContexts
from .nodes import Nodes, Stubs
from .prices import AsyncPrices
from .schedules import AsyncSchedules
from .tasks import AsyncTasks
from .tools import AsyncTools

_Ask = TypeVar("_Ask")
_Answer = TypeVar("_Answer")


class AsyncClient:
    """A handle to a cluster. Opens nothing: the first call does.

    Args:
        endpoints: addresses like `127.0.0.1:7400`, as a list or joined by commas; any node will do. None: the
            environment's QUORATE_ENDPOINT, else `127.0.0.1:7400`.
        project: what calls are about. None: QUORATE_PROJECT, else `default`.
        api_key: sent with every call. None: QUORATE_API_KEY, else none.
        ca: PEM file with the cluster's CA; set, every node is asked over TLS. None: QUORATE_CA, else no TLS.
        timeout: seconds that one call may take, with all its attempts.
        connect_timeout: seconds to look for any node that takes a connection.

    Raises:
        InvalidArgument: an address, the project or the CA can't be used.
    """

    def __init__(
        self,
        endpoints: Optional[Union[str, Iterable[str]]] = None,
        project: Optional[str] = None,
        *,
        api_key: Optional[str] = None,
        ca: Optional[Union[str, Path]] = None,
        timeout: float = 30.0,
        connect_timeout: float = 10.0,
    ) -> None:
        self._settings = _settings.read(endpoints, project, api_key, ca, timeout, connect_timeout)
        self._nodes = Nodes(self._settings)
        self.tasks = AsyncTasks(self)
        self.tools = AsyncTools(self)
        self.schedules = AsyncSchedules(self)
        self.agents = AsyncAgents(self)
        self.quotas = AsyncQuotas(self)
        self.prices = AsyncPrices(self)
        self.cluster = AsyncCluster(self)
        self.context = AsyncContexts(self)

    @property
    def project(self) -> str:
        return self._settings.project

    async def close(self) -> None:
        """Closes the connections. Calls and watches that go on raise `Conflict` (CLIENT_CLOSED)."""
        await self._nodes.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.close()

    async def _call(
        self,
        method: Callable[[Stubs], grpc.aio.UnaryUnaryMultiCallable[_Ask, _Answer]],
        request: _Ask,
        request_id: Optional[str] = None,
        timeout: Optional[float] = None,
    ) -> _Answer:
        """Asks until there is an answer, the time is up, or the answer is final."""
        course = self._settings.course(request_id, timeout)
        while True:
            node = course.node()
            try:
                ask = method(self._nodes.stubs(node))
                return await ask(request, timeout=course.patience_s(), metadata=self._settings.metadata)
            except grpc.RpcError as error:
                failure = failure_of(error)
            await asyncio.sleep(course.on_failure(node, failure))

    async def _read_text(self, project: str, hash: str) -> str:
        request = context_pb2.ReadSegmentRequest(project=project, hash=hash)
        course, text = self._settings.course(), _requests.Text(hash)
        while True:
            node = course.node()
            text.begin()
            try:
                ask = self._nodes.stubs(node).context.ReadSegment
                async for answer in ask(request, timeout=course.remaining_s(), metadata=self._settings.metadata):
                    text.take(answer.chunk)
                return text.text()
            except grpc.RpcError as error:
                failure = failure_of(error)
            await asyncio.sleep(course.on_failure(node, failure))
