"""The asyncio client behind the face of the synchronous one, so that one test serves both."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from quorate import AsyncClient, Client


def sync_client(*arguments: Any, **more: Any) -> Any:
    return Client(*arguments, **more)


def async_client(*arguments: Any, **more: Any) -> Any:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def make() -> AsyncClient:
        return AsyncClient(*arguments, **more)

    return Blocking(asyncio.run_coroutine_threadsafe(make(), loop).result(), loop, thread)


class Blocking:
    """Calls wait, streams are plain iterators, values come through as they are."""

    def __init__(self, inner: Any, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        self._inner = inner
        self._loop = loop
        self._thread = thread

    def __getattr__(self, name: str) -> Any:
        return self._show(getattr(self._inner, name))

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        return self._show(self._inner(*arguments, **more))

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return self._wait(self._inner.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> Blocking:
        return self

    def __exit__(self, *_: object) -> None:
        self._wait(self._inner.close())
        if isinstance(self._inner, AsyncClient):
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _show(self, value: Any) -> Any:
        if inspect.isawaitable(value):
            return self._show(self._wait(value))
        is_room = type(value).__module__.startswith("quorate.aio")
        if is_room or callable(value) or isinstance(value, AsyncIterator):
            return Blocking(value, self._loop, self._thread)
        return value

    def _wait(self, awaitable: Any) -> Any:
        async def run() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()
