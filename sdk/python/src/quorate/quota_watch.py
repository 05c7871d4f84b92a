"""Following quotas over connections that break."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Optional, Protocol

import grpc

from ._failures import failure_of
from ._proto import quota_pb2
from ._watching import QuotaFollowing, stopped
from .data import QuotaEvent
from .watch import accepted

if TYPE_CHECKING:
    from .client import Client


class _Call(Protocol):
    """What is used of gRPC's call for a stream."""

    def __next__(self) -> quota_pb2.QuotaEvent: ...

    def cancel(self) -> object: ...


class QuotaWatch(Iterator[QuotaEvent]):
    """Quotas being followed. Never ends by itself; leaving a `with` block closes its stream.

    After an error it may be asked again: it goes on where it was.
    """

    def __init__(self, client: Client, request: quota_pb2.WatchQuotasRequest, timeout: Optional[float]) -> None:
        self._client = client
        self._following = QuotaFollowing(client._settings.endpoints, client._settings.policy, request, timeout)
        self._node = 0
        self._call: Optional[_Call] = None

    @property
    def last_audit(self) -> int:
        """Where to go on later: the number of the last audit event shown."""
        return self._following.last_audit

    def __iter__(self) -> QuotaWatch:
        return self

    def __next__(self) -> QuotaEvent:
        while True:
            event = self._receive()
            if event is not None:
                return event

    def close(self) -> None:
        """Gives the stream back. Asking for the next event opens another one."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def __enter__(self) -> QuotaWatch:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def _receive(self) -> Optional[QuotaEvent]:
        """Opens the stream if it is not, and takes one message from it."""
        try:
            if self._call is None:
                self._node = self._following.node()
                self._call = self._open(self._node)
            message = next(self._call, None)
        except grpc.RpcError as error:
            failure = failure_of(error)
        else:
            if message is not None:
                return self._following.take(message)
            failure = stopped()
        self.close()
        wait_s = self._following.on_failure(self._node, failure)
        self._client._nodes.rest(self._following.node(), failure, wait_s)
        return None

    def _open(self, node: int) -> _Call:
        ask = self._client._nodes.stubs(node).quotas.WatchQuotas
        patience_s = self._following.open_patience_s()
        call = ask(
            self._following.request(), timeout=self._following.left_s(), metadata=self._client._settings.metadata
        )
        accepted(call, patience_s)
        return call
