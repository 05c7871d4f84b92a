"""Connections to nodes, each made when it is first asked."""

from __future__ import annotations

import contextlib
import threading
import time

import grpc

from ._failures import Failure
from ._proto import agent_pb2_grpc, cluster_pb2_grpc, context_pb2_grpc, price_pb2_grpc, quota_pb2_grpc, task_pb2_grpc
from ._retry import Kind
from ._settings import Settings, closed

_HEALTH = "/grpc.health.v1.Health/Check"


class Stubs:
    """The services of one node, over one connection."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.tasks = task_pb2_grpc.TaskServiceStub(channel)
        self.agents = agent_pb2_grpc.AgentServiceStub(channel)
        self.quotas = quota_pb2_grpc.QuotaServiceStub(channel)
        self.prices = price_pb2_grpc.PriceBookServiceStub(channel)
        self.cluster = cluster_pb2_grpc.ClusterServiceStub(channel)
        self.context = context_pb2_grpc.ContextServiceStub(channel)
        # Any answer to it means that there is a connection; what it says is not read.
        self.health: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_HEALTH, None, None)


class Nodes:
    """A connection to each node, made when it is first asked."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stubs: dict[int, Stubs] = {}
        self._lock = threading.Lock()
        self._closed = False

    def stubs(self, node: int) -> Stubs:
        with self._lock:
            if self._closed:
                raise closed()
            found = self._stubs.get(node)
            if found is None:
                found = self._stubs[node] = Stubs(self._channel(node))
            return found

    def rest(self, node: int, failure: Failure, wait_s: float) -> None:
        """Waits before the node is asked again; less when it could not be reached and takes a connection now.

        gRPC goes on connecting only while some call waits for it: without one, a node that comes up is seen 5 s later.
        """
        if failure.kind is not Kind.NOT_SENT or wait_s == 0:
            time.sleep(wait_s)
            return
        with contextlib.suppress(grpc.RpcError):
            self.stubs(node).health(b"", timeout=wait_s, wait_for_ready=True)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for stubs in self._stubs.values():
                stubs.channel.close()

    def _channel(self, node: int) -> grpc.Channel:
        endpoint = self._settings.endpoints.nodes[node]
        if endpoint.tls and self._settings.credentials is not None:
            return grpc.secure_channel(endpoint.address, self._settings.credentials, self._settings.options)
        return grpc.insecure_channel(endpoint.address, self._settings.options)
