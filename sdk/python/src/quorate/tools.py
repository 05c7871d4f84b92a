"""Serving, for programs without asyncio: the same streams, in a loop of their own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Union

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

        asyncio.run(run())

    @contextlib.contextmanager
    def serving(self, *served: Union[Tool, ExternalAgent]) -> Iterator[None]:
        """Serves while the block runs, which begins when all nodes that are up know. Raises what `serve` does."""
        background = _Background(self._client, served)
        background.start()
        try:
            background.begun.result()
            yield
        finally:
            background.stop()


class _Background(threading.Thread):
    """A thread with a loop that serves."""

    def __init__(self, client: Client, served: tuple[Union[Tool, ExternalAgent], ...]) -> None:
        super().__init__(daemon=True, name="quorate-serving")
        self._client = client
        self._served = served
        self.begun: Future[None] = Future()
        self._loop = asyncio.new_event_loop()
        self._over: asyncio.Event

    def run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            if not self.begun.done():
                self.begun.set_exception(error)
        finally:
            self._loop.run_until_complete(_end_all())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _serve(self) -> None:
        self._over = asyncio.Event()
        async with while_serving(self._client._settings, self._served):
            self.begun.set_result(None)
            await self._over.wait()

    def stop(self) -> None:
        if self.is_alive() and self.begun.done() and self.begun.exception() is None:
            self._loop.call_soon_threadsafe(self._over.set)
        self.join()


async def _end_all() -> None:
    """Ends what is still under way in this loop, as `asyncio.run` does."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
