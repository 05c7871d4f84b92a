"""Serving: a stream to every node, over which this program's tools and agents are called."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any, Optional, Union

import grpc
import grpc.aio

from .._course import random_number
from .._endpoints import Endpoint
from .._failures import Failure, failure_of
from .._proto import tool_pb2, tool_pb2_grpc
from .._requests import given_tools
from .._retry import Kind
from .._settings import Settings
from ..errors import QuorateError, local
from ..serving import ExternalAgent, Tool
from .nodes import channel

if TYPE_CHECKING:
    from .._proto.tool_pb2_grpc import ToolServiceAsyncStub
    from .client import AsyncClient

Stream = Any
"""gRPC's type of a stream in both directions, which no version of it names in one way."""

_FIRST_WAIT_S = 0.05
_LONGEST_WAIT_S = 1.0
# For nodes that are members and down; those that are up take less.
_ALL_NODES_S = 2.0


class AsyncTools:
    """Functions of this program as tools of the project's agents, and as agents."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def serve(self, *served: Union[Tool, ExternalAgent]) -> None:
        """Serves until it is cancelled: answers calls from every node, and comes back where a stream breaks.

        Args:
            served: what `quorate.tool` and `quorate.agent` made. Names of tools must differ.

        Raises:
            InvalidArgument: the cluster doesn't take them.
            PermissionDenied: the caller's role is below submitter.
            Unreachable: no node took a connection for `connect_timeout`.
        """
        await Serving(self._client._settings, served).run()

    @contextlib.asynccontextmanager
    async def serving(self, *served: Union[Tool, ExternalAgent]) -> AsyncIterator[None]:
        """Serves while the block runs, which begins when all nodes that are up know. Raises what `serve` does."""
        async with while_serving(self._client._settings, served):
            yield


@contextlib.asynccontextmanager
async def while_serving(settings: Settings, served: tuple[Union[Tool, ExternalAgent], ...]) -> AsyncIterator[None]:
    serving = Serving(settings, served)
    running = asyncio.ensure_future(serving.run())
    try:
        await serving.begun_or(running)
        yield
    finally:
        running.cancel()
        # What it raised before was raised already, or came after everything was served.
        await asyncio.gather(running, return_exceptions=True)


class Serving:
    """The streams of one `serve`."""

    def __init__(self, settings: Settings, served: tuple[Union[Tool, ExternalAgent], ...]) -> None:
        self._settings = settings
        self._tools = {it.name: it for it in served if isinstance(it, Tool)}
        self._agents = {it.name: it for it in served if isinstance(it, ExternalAgent)}
        self._register = given_tools(served)
        self._streams: dict[str, asyncio.Task[None]] = {}
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._begun = asyncio.Event()
        self._taken: set[str] = set()

    async def run(self) -> None:
        for endpoint in self._settings.endpoints.nodes:
            self._open(endpoint)
        looking = asyncio.ensure_future(self._give_up())
        try:
            await self._ended
        finally:
            every = [looking, *self._streams.values()]
            for each in every:
                each.cancel()
            await asyncio.gather(*every, return_exceptions=True)

    async def begun_or(self, running: asyncio.Future[None]) -> None:
        """Returns when all nodes have taken what is served; raises what `running` raised before."""
        begun = asyncio.ensure_future(self._begun.wait())
        either: set[asyncio.Future[Any]] = {begun, running}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        if running.done():
            running.result()

    def _fail(self, error: QuorateError) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)

    async def _give_up(self) -> None:
        patience_ms = self._settings.policy.unreachable_ms
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._begun.wait(), patience_ms / 1_000)
            return
        message = f"no node at {self._settings.endpoints.names()} took what is to be served within {patience_ms} ms"
        next = "check that a node runs there, and that the endpoint names its client port (7400)"
        self._fail(local("UNAVAILABLE", "UNREACHABLE", message, next))

    def _open(self, endpoint: Endpoint) -> None:
        if endpoint.address not in self._streams:
            self._streams[endpoint.address] = asyncio.ensure_future(self._keep(endpoint))

    def _took(self, address: str, nodes: list[str]) -> None:
        """A node serves what is here, and says which others there are."""
        if not self._taken:
            asyncio.get_running_loop().call_later(_ALL_NODES_S, self._begun.set)
        self._taken.add(address)
        self._served_at(nodes)
        if self._taken.issuperset(nodes):
            self._begun.set()

    def _served_at(self, nodes: list[str]) -> None:
        """Opens streams to nodes that are new, and ends those to nodes that went."""
        given = self._settings.endpoints.nodes
        for address in nodes:
            self._open(Endpoint(address, given[0].tls))
        wanted = {*nodes, *(endpoint.address for endpoint in given)}
        for address in self._streams.keys() - wanted:
            self._streams.pop(address).cancel()

    async def _keep(self, endpoint: Endpoint) -> None:
        """Keeps a stream to one node, whatever happens to it."""
        wait_s = _FIRST_WAIT_S
        async with channel(endpoint, self._settings) as line:
            while True:
                stream = OneStream(self, endpoint.address, line)
                try:
                    await stream.follow()
                except grpc.RpcError as error:
                    failure = failure_of(error)
                    if _is_final(failure):
                        self._fail(failure.error)
                        return
                wait_s = _FIRST_WAIT_S if stream.was_taken else min(2 * wait_s, _LONGEST_WAIT_S)
                await asyncio.sleep(wait_s * (0.5 + random_number() % 1_000 / 2_000))


def _is_final(failure: Failure) -> bool:
    return failure.kind is Kind.FINAL and failure.error.code != "INTERNAL"


class OneStream:
    """One life of a stream to one node."""

    def __init__(self, serving: Serving, address: str, line: grpc.aio.Channel) -> None:
        self._serving = serving
        self._address = address
        stub: ToolServiceAsyncStub = tool_pb2_grpc.ToolServiceStub(line)
        # While it waits gRPC goes on connecting: a node that comes up is served at once.
        self._stream: Stream = stub.ServeTools(metadata=serving._settings.metadata, wait_for_ready=True)
        self._turn = asyncio.Lock()
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self.was_taken = False

    async def follow(self) -> None:
        try:
            first = tool_pb2.ToolServerMessage(
                project=self._serving._settings.project, register=self._serving._register
            )
            await self._write(first)
            async for request in self._stream:
                self._hear(request)
            # Where the stream breaks, what is under way goes on to its end: half of it may be done.
        except asyncio.CancelledError:
            for task in self._under_way.values():
                task.cancel()
            raise
        finally:
            self._stream.cancel()

    def _hear(self, request: tool_pb2.ToolServerRequest) -> None:
        kind = request.WhichOneof("kind")
        if kind == "served_at":
            self.was_taken = True
            self._serving._took(self._address, list(request.served_at.nodes))
        elif kind == "call":
            self._begin(request.call.id, self._call(request.call))
        elif kind == "question":
            self._begin(request.question.id, self._step(request.question))
        elif kind == "cancel" and request.cancel.id in self._under_way:
            self._under_way[request.cancel.id].cancel()

    def _begin(self, id: int, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._under_way[id] = task
        task.add_done_callback(lambda _: self._under_way.pop(id, None))

    async def _call(self, call: tool_pb2.ServedCall) -> None:
        tool: Optional[Tool] = self._serving._tools.get(call.tool)
        result = (
            await tool._result(call)
            if tool is not None
            else tool_pb2.ToolResult(id=call.id, text=f"there is no tool {call.tool} here", is_error=True)
        )
        await self._write(tool_pb2.ToolServerMessage(result=result))

    async def _step(self, question: tool_pb2.ModelQuestion) -> None:
        agent = self._serving._agents.get(question.model)
        answer = (
            await agent._answer(question)
            if agent is not None
            else tool_pb2.ModelAnswer(id=question.id, failure=f"there is no agent {question.model} here")
        )
        await self._write(tool_pb2.ToolServerMessage(answer=answer))

    async def _write(self, message: tool_pb2.ToolServerMessage) -> None:
        # One at a time is what gRPC takes. The stream may be gone: the reader sees that.
        async with self._turn:
            with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
                await self._stream.write(message)
