"""Serving, for programs without asyncio: the same streams, in a loop of their own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Optional, Union

from .aio.tools import Serving, while_serving
from .serving import ExternalAgent, Tool

if TYPE_CHECKING:
    from .client import Client


class Tools:
    """Functions of this program as tools of the project's agents, and as agents."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def serve(self, *served: Union[Tool, ExternalAgent]) -> None:
        """Serves until it is cancelled: answers calls from every node, and comes back where a stream breaks.

        Args:
            served: what `quorate.tool` and `quorate.agent` made. Names of tools must differ.

        Raises:
            InvalidArgument: the cluster doesn't take them.
            PermissionDenied: the caller's role is below submitter.
            Unreachable: no node took a connection for `connect_timeout`.
        """

        async def run() -> None:
            await Serving(self._client._settings, served).run()

        running = asyncio.run_coroutine_threadsafe(run(), _loop())
        try:
            running.result()
        finally:
            running.cancel()

    @contextlib.contextmanager
    def serving(self, *served: Union[Tool, ExternalAgent]) -> Iterator[None]:
        """Serves while the block runs, which begins when all nodes that are up know. Raises what `serve` does."""
        begun: Future[None] = Future()
        over = threading.Event()

        async def run() -> None:
            end = asyncio.Event()
            ends.append(end)
            async with while_serving(self._client._settings, served):
                begun.set_result(None)
                await end.wait()

        ends: list[asyncio.Event] = []
        loop = _loop()
        running = asyncio.run_coroutine_threadsafe(run(), loop)
        running.add_done_callback(lambda it: _tell(begun, it, over))
        begun.result()
        try:
            yield
        finally:
            loop.call_soon_threadsafe(ends[0].set)
            over.wait()


def _tell(begun: Future[None], running: Future[None], over: threading.Event) -> None:
    if not begun.done():
        error = None if running.cancelled() else running.exception()
        begun.set_exception(error or asyncio.CancelledError())
    over.set()


_lock = threading.Lock()
_running: Optional[asyncio.AbstractEventLoop] = None


def _loop() -> asyncio.AbstractEventLoop:
    """One loop of the process, which never closes: gRPC's asyncio face mixes up loops that come and go."""
    global _running
    with _lock:
        if _running is None:
            _running = asyncio.new_event_loop()
            threading.Thread(target=_running.run_forever, daemon=True, name="quorate-serving").start()
        return _running
