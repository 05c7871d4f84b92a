"""Following quotas over connections that break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Optional

import grpc
import grpc.aio

from .._failures import failure_of, lost
from .._proto import quota_pb2
from .._watching import QuotaFollowing, stopped
from ..data import QuotaEvent

if TYPE_CHECKING:
    from .client import AsyncClient

    _Call = grpc.aio.UnaryStreamCall[quota_pb2.WatchQuotasRequest, quota_pb2.QuotaEvent]


class AsyncQuotaWatch(AsyncIterator[QuotaEvent]):
    """Quotas being followed. Never ends by itself; leaving an `async with` block closes its stream.

    After an error it may be asked again: it goes on where it was.
    """

    def __init__(self, client: AsyncClient, request: quota_pb2.WatchQuotasRequest, timeout: Optional[float]) -> None:
        self._client = client
        self._following = QuotaFollowing(client._settings.endpoints, client._settings.policy, request, timeout)
        self._node = 0
        self._call: Optional[_Call] = None

    @property
    def last_audit(self) -> int:
        """Where to go on later: the number of the last audit event shown."""
        return self._following.last_audit

    def __aiter__(self) -> AsyncQuotaWatch:
        return self

    async def __anext__(self) -> QuotaEvent:
        while True:
            event = await self._receive()
            if event is not None:
                return event

    async def close(self) -> None:
        """Gives the stream back. Asking for the next event opens another one."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    async def __aenter__(self) -> AsyncQuotaWatch:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.close()

    async def _receive(self) -> Optional[QuotaEvent]:
        """Opens the stream if it is not, and takes one message from it."""
        try:
            if self._call is None:
                self._node = self._following.node()
                self._call = await self._open(self._node)
            message = await self._call.read()
        except grpc.RpcError as error:
            failure = failure_of(error)
        except asyncio.TimeoutError:
            failure = lost("the node did not take the watch in time")
        except asyncio.CancelledError:
            # The call is cancelled with the one who waits; whoever asks again gets another one.
            await self.close()
            raise
        else:
            if isinstance(message, quota_pb2.QuotaEvent):
                return self._following.take(message)
            failure = stopped()
        await self.close()
        await asyncio.sleep(self._following.on_failure(self._node, failure))
        return None

    async def _open(self, node: int) -> _Call:
        ask = self._client._nodes.stubs(node).quotas.WatchQuotas
        patience_s = self._following.open_patience_s()
        call = ask(
            self._following.request(), timeout=self._following.left_s(), metadata=self._client._settings.metadata
        )
        await asyncio.wait_for(call.initial_metadata(), patience_s)
        return call
