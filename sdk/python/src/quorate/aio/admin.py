"""Definitions, limits, machines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Optional

from .. import _requests, _wire
from .._proto import agent_pb2, cluster_pb2, quota_pb2
from ..data import Agent, ClusterStatus, Node, Quota

if TYPE_CHECKING:
    from .client import AsyncClient


class AsyncAgents:
    """Definitions of agents and teams."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def apply(
        self,
        toml: str,
        *,
        etag: Optional[str] = None,
        request_id: Optional[str] = None,
        validate_only: bool = False,
    ) -> Agent:
        """Takes the TOML text of an agent or a team; returns the revision in force when it is durable.

        With `etag` it is refused (`Conflict`) unless that is the one in force; `0`: only if there is no such agent.
        """
        request = _requests.apply_agent(self._client.project, toml, etag, request_id, validate_only)
        return _wire.agent(await self._client._call(lambda s: s.agents.ApplyAgent, request, request.request_id))

    async def get(self, name: str) -> Agent:
        request = agent_pb2.GetAgentRequest(project=self._client.project, name=name)
        return _wire.agent(await self._client._call(lambda s: s.agents.GetAgent, request))

    async def list(self) -> AsyncIterator[Agent]:
        """All of them, by name, page after page as they are taken."""
        request = agent_pb2.ListAgentsRequest(project=self._client.project)
        while True:
            page = await self._client._call(lambda s: s.agents.ListAgents, request)
            for it in page.agents:
                yield _wire.agent(it)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


class AsyncQuotas:
    """The quota tree of the cluster. Paths: `cluster`, `projects/NAME`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def get(self, path: str) -> Quota:
        return _wire.quota(await self._client._call(lambda s: s.quotas.GetQuota, quota_pb2.GetQuotaRequest(path=path)))

    async def list(self) -> tuple[Quota, ...]:
        """Every place with limits or use."""
        answer = await self._client._call(lambda s: s.quotas.ListQuotas, quota_pb2.ListQuotasRequest())
        return tuple(_wire.quota(it) for it in answer.quotas)

    async def set(
        self,
        path: str,
        limits: Mapping[str, Optional[int]],
        *,
        reason: str = "",
        etag: Optional[str] = None,
        request_id: Optional[str] = None,
        validate_only: bool = False,
    ) -> Quota:
        """Changes only the keys that are named, such as `{"running": 4}`; None takes a limit away.

        Returns the limits in force when the change is durable. `reason` is for whoever reads it later. With `etag`
        it is refused (`Conflict`) unless that is the one in force.
        """
        request = _requests.set_quota(path, limits, reason, etag, request_id, validate_only)
        return _wire.quota(await self._client._call(lambda s: s.quotas.SetQuota, request, request.request_id))


class AsyncCluster:
    """The machines, and the consensus between them."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def status(self) -> ClusterStatus:
        request = cluster_pb2.GetClusterStatusRequest()
        return _wire.cluster_status(await self._client._call(lambda s: s.cluster.GetClusterStatus, request))

    async def nodes(self) -> tuple[Node, ...]:
        """Every member, whatever its roles."""
        copies = (await self.status()).copies
        answer = await self._client._call(lambda s: s.cluster.ListNodes, cluster_pb2.ListNodesRequest())
        return tuple(_wire.node(it, copies) for it in answer.nodes)

    async def node(self, id: str) -> Node:
        """One member, by an id like `n7` or its name."""
        copies = (await self.status()).copies
        return _wire.node(
            await self._client._call(lambda s: s.cluster.GetNode, cluster_pb2.GetNodeRequest(id=id)), copies
        )
