"""Where the cluster is: any node will do, so a list of them, tried in turn."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Union

from .errors import local

DEFAULT_PORT = 7400
_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s/@:\[\]]+)(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True)
class Endpoint:
    address: str
    tls: bool


class Endpoints:
    """Addresses, and which of them is preferred now. May be used by several threads."""

    def __init__(self, nodes: tuple[Endpoint, ...]) -> None:
        if not nodes:
            raise local(
                "INVALID_ARGUMENT",
                "NO_ENDPOINT",
                "no endpoint is given",
                "name at least one node, like 127.0.0.1:7400",
            )
        self.nodes = nodes
        self._preferred = 0
        self._lock = threading.Lock()

    def pick(self) -> int:
        """The node to ask now."""
        return self._preferred

    def failed(self, index: int) -> None:
        """Moves on from a node that failed, unless another call has done so already."""
        with self._lock:
            if self._preferred == index:
                self._preferred = (index + 1) % len(self.nodes)

    def address(self, index: int) -> str:
        return self.nodes[index].address

    def names(self) -> str:
        """All addresses, for messages."""
        return ", ".join(node.address for node in self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)


def parse(addresses: Union[str, Iterable[str]], tls: bool) -> Endpoints:
    """Reads `host:7400`, `host`, `http://host:7400`, `https://host:7400`; a text may hold several, by commas.

    With `tls` (a CA is given) every node is asked over TLS.
    """
    texts = addresses.split(",") if isinstance(addresses, str) else list(addresses)
    return Endpoints(tuple(_parse_one(text.strip(), tls) for text in texts if text.strip()))


def _parse_one(text: str, tls: bool) -> Endpoint:
    def refuse(why: str) -> Exception:
        message = f"the endpoint {text!r} {why}"
        return local("INVALID_ARGUMENT", "BAD_ENDPOINT", message, "write it like 127.0.0.1:7400")

    scheme, found, rest = text.partition("://")
    bare = (rest if found else text).rstrip("/")
    if found and scheme not in ("http", "https"):
        raise refuse("is neither http nor https")
    if scheme == "http" and found and tls:
        raise refuse("says http, but a CA is given")
    match = _HOST_PORT.fullmatch(bare)
    if match is None:
        raise refuse("is not host:port")
    port = int(match["port"] or DEFAULT_PORT)
    if not 0 < port < 65_536:
        raise refuse("has no such port")
    return Endpoint(f"{match['host']}:{port}", tls or scheme == "https")
