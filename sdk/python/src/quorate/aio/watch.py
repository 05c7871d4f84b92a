"""Following a task over connections that break: the stream is opened again elsewhere, the cursor keeps it one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Optional

import grpc
import grpc.aio

from .._failures import failure_of, lost
from .._proto import task_pb2
from .._watching import Following, stopped
from ..data import Event

if TYPE_CHECKING:
    from .client import AsyncClient


class AsyncWatch(AsyncIterator[Event]):
    """A task being followed. Ends by itself after the event that brings the final state.

    After an error it may be asked again: it goes on where it was. Leaving an `async with` block closes its stream.
    """

    def __init__(self, client: AsyncClient, request: task_pb2.WatchTaskRequest, timeout: Optional[float]) -> None:
        self._client = client
        self._following = Following(client._settings.endpoints, client._settings.policy, request, timeout)
        self._id = request.id
        self._stream: Optional[Stream] = None

    @property
    def next_sequence(self) -> int:
        """Where to go on later: the sequence of the next committed event."""
        return self._following.next_sequence

    def __aiter__(self) -> AsyncWatch:
        return self

    async def __anext__(self) -> Event:
        while True:
            event = self._following.pop()
            if event is not None:
                return event
            if self._following.ended:
                await self.close()
                raise StopAsyncIteration
            await self._receive()

    async def close(self) -> None:
        """Gives the stream back. Asking for the next event opens another one."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.call.cancel()

    async def __aenter__(self) -> AsyncWatch:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.close()

    async def _receive(self) -> None:
        """Opens the stream if it is not, and takes one message from it."""
        node = self._stream.node if self._stream else self._following.node()
        try:
            if self._stream is None:
                self._stream = await self._open(node)
            message = await self._stream.call.read()
        except grpc.RpcError as error:
            failure = failure_of(error)
        except asyncio.TimeoutError:
            failure = lost("the node did not take the watch in time")
        except asyncio.CancelledError:
            # The call is cancelled with the one who waits; whoever asks again gets another one.
            await self.close()
            raise
        else:
            if isinstance(message, task_pb2.TaskEvent):
                if not self._following.take(message):
                    await self.close()
                return
            failure = stopped()
            if self._following.must_look and self._following.looked(await self._client.tasks.get(self._id)):
                return
        await self.close()
        await asyncio.sleep(self._following.on_failure(node, failure))

    async def _open(self, node: int) -> Stream:
        ask = self._client._nodes.stubs(node).tasks.WatchTask
        patience_s = self._following.open_patience_s()
        # Without a timeout no deadline travels with it: a task may take days.
        call = ask(
            self._following.request(), timeout=self._following.left_s(), metadata=self._client._settings.metadata
        )
        await asyncio.wait_for(call.initial_metadata(), patience_s)
        return Stream(node, call)


class Stream:
    """A watch's open stream, and the node that sends it."""

    def __init__(
        self, node: int, call: grpc.aio.UnaryStreamCall[task_pb2.WatchTaskRequest, task_pb2.TaskEvent]
    ) -> None:
        self.node = node
        self.call = call
