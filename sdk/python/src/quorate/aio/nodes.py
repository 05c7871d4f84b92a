"""The same as `quorate.nodes` for asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc.aio

from .._endpoints import Endpoint
from .._proto import agent_pb2_grpc, cluster_pb2_grpc, context_pb2_grpc, price_pb2_grpc, quota_pb2_grpc, task_pb2_grpc
from .._settings import Settings, closed

if TYPE_CHECKING:
    from .._proto.agent_pb2_grpc import AgentServiceAsyncStub
    from .._proto.cluster_pb2_grpc import ClusterServiceAsyncStub
    from .._proto.context_pb2_grpc import ContextServiceAsyncStub
    from .._proto.price_pb2_grpc import PriceBookServiceAsyncStub
    from .._proto.quota_pb2_grpc import QuotaServiceAsyncStub
    from .._proto.task_pb2_grpc import TaskServiceAsyncStub


class Stubs:
    """The services of one node, over one connection."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.tasks: TaskServiceAsyncStub = task_pb2_grpc.TaskServiceStub(channel)
        self.agents: AgentServiceAsyncStub = agent_pb2_grpc.AgentServiceStub(channel)
        self.quotas: QuotaServiceAsyncStub = quota_pb2_grpc.QuotaServiceStub(channel)
        self.prices: PriceBookServiceAsyncStub = price_pb2_grpc.PriceBookServiceStub(channel)
        self.cluster: ClusterServiceAsyncStub = cluster_pb2_grpc.ClusterServiceStub(channel)
        self.context: ContextServiceAsyncStub = context_pb2_grpc.ContextServiceStub(channel)


class Nodes:
    """A connection to each node, made when it is first asked: it then belongs to the event loop that runs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stubs: dict[int, Stubs] = {}
        self._closed = False

    def stubs(self, node: int) -> Stubs:
        if self._closed:
            raise closed()
        found = self._stubs.get(node)
        if found is None:
            found = self._stubs[node] = Stubs(channel(self._settings.endpoints.nodes[node], self._settings))
        return found

    async def close(self) -> None:
        self._closed = True
        for stubs in self._stubs.values():
            await stubs.channel.close()


def channel(endpoint: Endpoint, settings: Settings) -> grpc.aio.Channel:
    if endpoint.tls and settings.credentials is not None:
        return grpc.aio.secure_channel(endpoint.address, settings.credentials, settings.options)
    return grpc.aio.insecure_channel(endpoint.address, settings.options)
