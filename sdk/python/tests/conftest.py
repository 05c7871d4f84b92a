"""What tests share: fake nodes, and clients of both faces."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from faces import async_client, sync_client
from fake import Fake


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QUORATE_ENDPOINT", "QUORATE_PROJECT", "QUORATE_API_KEY", "QUORATE_CA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fakes() -> Iterator[Callable[[int], list[Fake]]]:
    """Starts so many fake nodes."""
    with contextlib.ExitStack() as stack:

        def start(count: int) -> list[Fake]:
            # What a fake does not override is answered UNIMPLEMENTED.
            started = [Fake() for _ in range(count)]  # type: ignore[abstract]
            for fake in started:
                stack.callback(fake.stop)
            return started

        yield start


@pytest.fixture(params=[sync_client, async_client], ids=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Makes a client of either face; addresses or fakes, and what the client takes by name."""
    with contextlib.ExitStack() as stack:

        def make(*nodes: Any, **more: Any) -> Any:
            addresses = [node.address if isinstance(node, Fake) else node for node in nodes]
            return stack.enter_context(request.param(addresses, **{"timeout": 10, **more}))

        yield make
