"""The synchronous client. May be used by several threads; `aio` has the same for asyncio."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Callable, Optional, TypeVar, Union

import grpc

from . import _requests, _settings
from ._failures import failure_of
from ._proto import context_pb2
from .admin import Agents, Cluster, Quotas
from .contexts import Contexts
from .nodes import Nodes, Stubs
from .prices import Prices
from .schedules import Schedules
from .tasks import Tasks
from .tools import Tools

_Ask = TypeVar("_Ask")
_Answer = TypeVar("_Answer")


class Client:
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
        self.tasks = Tasks(self)
        self.tools = Tools(self)
        self.schedules = Schedules(self)
        self.agents = Agents(self)
        self.quotas = Quotas(self)
        self.prices = Prices(self)
        self.cluster = Cluster(self)
        self.context = Contexts(self)

    @property
    def project(self) -> str:
        return self._settings.project

    def close(self) -> None:
        """Closes the connections. Calls and watches that go on raise `Conflict` (CLIENT_CLOSED)."""
        self._nodes.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def _call(
        self,
        method: Callable[[Stubs], grpc.UnaryUnaryMultiCallable[_Ask, _Answer]],
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
                return ask(request, timeout=course.patience_s(), metadata=self._settings.metadata)
            except grpc.RpcError as error:
                failure = failure_of(error)
            wait_s = course.on_failure(node, failure)
            self._nodes.rest(course.node(), failure, wait_s)

    def _read_text(self, project: str, hash: str) -> str:
        request = context_pb2.ReadSegmentRequest(project=project, hash=hash)
        course, text = self._settings.course(), _requests.Text(hash)
        while True:
            node = course.node()
            text.begin()
            try:
                ask = self._nodes.stubs(node).context.ReadSegment
                for answer in ask(request, timeout=course.remaining_s(), metadata=self._settings.metadata):
                    text.take(answer.chunk)
                return text.text()
            except grpc.RpcError as error:
                failure = failure_of(error)
            wait_s = course.on_failure(node, failure)
            self._nodes.rest(course.node(), failure, wait_s)
