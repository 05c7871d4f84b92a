"""What a client is made of: where the cluster is, who asks, and how connections behave. Opens nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional, Union

import grpc

from . import _endpoints, _requests
from ._course import Course
from ._endpoints import DEFAULT_PORT, Endpoints
from ._retry import Policy
from .errors import QuorateError, local

VERSION = "0.1.0"

# Full pages of tasks with inline results are above gRPC's default of 4 MiB.
_ANSWER_BYTES = 80 << 20

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.primary_user_agent", f"quorate-python/{VERSION}"),
    ("grpc.max_receive_message_length", _ANSWER_BYTES),
    # Repetition is ours alone: it keeps the request id and goes to the next node.
    ("grpc.enable_retries", 0),
    # Nodes are named directly; a proxy meant for the web must not get their traffic.
    ("grpc.enable_http_proxy", 0),
    # A machine that is off answers nothing at all; the next one should be tried soon.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Clients of one process do not wait for each other's lost connections.
    ("grpc.use_local_subchannel_pool", 1),
    # A frozen process keeps its connections open; only an unanswered ping tells.
    ("grpc.keepalive_time_ms", 2_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
)


@dataclass(frozen=True)
class Settings:
    endpoints: Endpoints
    project: str
    policy: Policy
    metadata: tuple[tuple[str, str], ...] = field(repr=False)
    credentials: Optional[grpc.ChannelCredentials]
    options: tuple[tuple[str, Any], ...] = _OPTIONS

    def course(self, request_id: Optional[str] = None, timeout: Optional[float] = None) -> Course:
        policy = self.policy
        if timeout is not None:
            ms = max(1, int(timeout * 1_000))
            policy = replace(policy, deadline_ms=ms, attempt_ms=ms)
        return Course(self.endpoints, policy, request_id)


def read(
    endpoints: Optional[Union[str, Iterable[str]]],
    project: Optional[str],
    api_key: Optional[str],
    ca: Optional[Union[str, Path]],
    timeout: float,
    connect_timeout: float,
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """What is None comes from the environment, else from the defaults. Times are in seconds."""

    def set_in(name: str) -> Optional[str]:
        return environment.get(name, "").strip() or None

    ca = ca or set_in("QUORATE_CA")
    api_key = api_key or set_in("QUORATE_API_KEY")
    given = endpoints if endpoints is not None else set_in("QUORATE_ENDPOINT")
    nodes = _endpoints.parse(given if given is not None else f"127.0.0.1:{DEFAULT_PORT}", tls=ca is not None)
    policy = Policy(deadline_ms=max(1, int(timeout * 1_000)), unreachable_ms=max(1, int(connect_timeout * 1_000)))
    return Settings(
        endpoints=nodes,
        project=_requests.project_name(project or set_in("QUORATE_PROJECT") or "default"),
        policy=policy,
        metadata=(("authorization", f"Bearer {_key(api_key)}"),) if api_key else (),
        credentials=_credentials(ca) if any(node.tls for node in nodes.nodes) else None,
    )


def _key(text: str) -> str:
    """The text is never shown: messages end in logs."""
    if text.isascii() and text.isprintable():
        return text
    next = "give the key as the cluster printed it, without line ends"
    raise local("INVALID_ARGUMENT", "BAD_API_KEY", "the API key has characters that no key has", next)


def _credentials(ca: Optional[Union[str, Path]]) -> grpc.ChannelCredentials:
    """Without a CA the roots that gRPC brings along count."""
    if ca is None:
        return grpc.ssl_channel_credentials()
    try:
        return grpc.ssl_channel_credentials(root_certificates=Path(ca).read_bytes())
    except OSError as why:
        next = "name the PEM file with the cluster's CA certificate in `ca` or QUORATE_CA"
        message = f"the CA {str(ca)!r} cannot be read"
        raise local("INVALID_ARGUMENT", "BAD_CA", message, next, cause=str(why)) from why


def closed() -> QuorateError:
    return local("FAILED_PRECONDITION", "CLIENT_CLOSED", "the client was closed", "make another client")
