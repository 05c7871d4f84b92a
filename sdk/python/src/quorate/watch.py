"""Following a task over connections that break: the stream is opened again elsewhere, the cursor keeps it one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Optional, Protocol

import grpc

from ._failures import failure_of
from ._proto import task_pb2
from ._watching import Following, stopped
from .data import Event

if TYPE_CHECKING:
    from .client import Client


class Watch(Iterator[Event]):
    """A task being followed. Ends by itself after the event that brings the final state.

    After an error it may be asked again: it goes on where it was. Leaving a `with` block closes its stream.
    """

    def __init__(self, client: Client, request: task_pb2.WatchTaskRequest, timeout: Optional[float]) -> None:
        self._client = client
        self._following = Following(client._settings.endpoints, client._settings.policy, request, timeout)
        self._id = request.id
        self._stream: Optional[Stream] = None

    @property
    def next_sequence(self) -> int:
        """Where to go on later: the sequence of the next committed event."""
        return self._following.next_sequence

    def __iter__(self) -> Watch:
        return self

    def __next__(self) -> Event:
        while True:
            event = self._following.pop()
            if event is not None:
                return event
            if self._following.ended:
                self.close()
                raise StopIteration
            self._receive()

    def close(self) -> None:
        """Gives the stream back. Asking for the next event opens another one."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.call.cancel()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def _receive(self) -> None:
        """Opens the stream if it is not, and takes one message from it."""
        node = self._stream.node if self._stream else self._following.node()
        try:
            if self._stream is None:
                self._stream = self._open(node)
            message = next(self._stream.call, None)
        except grpc.RpcError as error:
            failure = failure_of(error)
        else:
            if message is not None:
                if not self._following.take(message):
                    self.close()
                return
            failure = stopped()
            if self._following.must_look and self._following.looked(self._client.tasks.get(self._id)):
                return
        self.close()
        wait_s = self._following.on_failure(node, failure)
        self._client._nodes.rest(self._following.node(), failure, wait_s)

    def _open(self, node: int) -> Stream:
        ask = self._client._nodes.stubs(node).tasks.WatchTask
        patience_s = self._following.open_patience_s()
        # Without a timeout no deadline travels with it: a task may take days.
        call = ask(
            self._following.request(), timeout=self._following.left_s(), metadata=self._client._settings.metadata
        )
        accepted(call, patience_s)
        return Stream(node, call)


class Accepted(Protocol):
    """What is used of gRPC's call for a stream until the node has taken it."""

    def initial_metadata(self) -> object: ...

    def cancel(self) -> object: ...


def accepted(call: Accepted, patience_s: float) -> None:
    """Waits until the node has taken the call; it is cancelled when that takes too long."""
    impatience = threading.Timer(patience_s, call.cancel)
    impatience.daemon = True
    impatience.start()
    try:
        call.initial_metadata()
    finally:
        impatience.cancel()


class _Call(Protocol):
    """What is used of gRPC's call for a stream."""

    def __next__(self) -> task_pb2.TaskEvent: ...

    def cancel(self) -> object: ...


class Stream:
    """A watch's open stream, and the node that sends it."""

    def __init__(self, node: int, call: _Call) -> None:
        self.node = node
        self.call = call
