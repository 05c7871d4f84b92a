"""Definitions, limits, machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Optional

from . import _requests, _wire
from ._proto import agent_pb2, cluster_pb2, quota_pb2
from .data import Agent, AuditEvent, ClusterStatus, Node, Quota
from .quota_watch import QuotaWatch

if TYPE_CHECKING:
    from .client import Client


class Agents:
    """Definitions of agents and teams."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def apply(
        self,
        toml: str,
        *,
        etag: Optional[str] = None,
        request_id: Optional[str] = None,
        dry_run: bool = False,
    ) -> Agent:
        """Takes the TOML text of an agent or a team; returns the revision in force when it is durable.

        With `etag` it is refused (`Conflict`) unless that is the one in force; `0`: only if there is no such agent.
        """
        request = _requests.apply_agent(self._client.project, toml, etag, request_id, dry_run)
        return _wire.agent(self._client._call(lambda s: s.agents.ApplyAgent, request, request.request_id))

    def get(self, name: str) -> Agent:
        request = agent_pb2.GetAgentRequest(project=self._client.project, name=name)
        return _wire.agent(self._client._call(lambda s: s.agents.GetAgent, request))

    def list(self) -> Iterator[Agent]:
        """All of them, by name, page after page as they are taken."""
        request = agent_pb2.ListAgentsRequest(project=self._client.project)
        while True:
            page = self._client._call(lambda s: s.agents.ListAgents, request)
            yield from (_wire.agent(it) for it in page.agents)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


class Quotas:
    """The quota tree of the cluster. Paths: `cluster`, `projects/NAME`, `projects/NAME/agents/NAME`, `tasks/ID`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def get(self, path: str) -> Quota:
        return _wire.quota(self._client._call(lambda s: s.quotas.GetQuota, quota_pb2.GetQuotaRequest(path=path)))

    def list(self, prefix: str = "") -> tuple[Quota, ...]:
        """Every place with limits or use; with `prefix` only that place and those below it."""
        answer = self._client._call(lambda s: s.quotas.ListQuotas, quota_pb2.ListQuotasRequest(prefix=prefix))
        return tuple(_wire.quota(it) for it in answer.quotas)

    def set(
        self,
        path: str,
        limits: Mapping[str, Optional[int]],
        *,
        reason: str = "",
        etag: Optional[str] = None,
        request_id: Optional[str] = None,
        dry_run: bool = False,
    ) -> Quota:
        """Changes only the keys that are named, such as `{"running": 4}`; None takes a limit away.

        Returns the limits in force when the change is durable. `reason` is for whoever reads it later. With `etag`
        it is refused (`Conflict`) unless that is the one in force. With `dry_run` nothing changes: the answer is the
        place as it would be, and its `would_wait` names the running tasks that would have to wait.
        """
        request = _requests.set_quota(path, limits, reason, etag, request_id, dry_run)
        return _wire.quota(self._client._call(lambda s: s.quotas.SetQuota, request, request.request_id))

    def watch(self, path: str = "", *, after_audit: int = 0, timeout: Optional[float] = None) -> QuotaWatch:
        """Shows every place at and below a path, then each of them again when it changes, and audit events between.

        It never ends by itself. A stream that breaks is taken up at the next node: each place is shown again only
        if it changed, and each audit event once.

        Args:
            path: empty or `cluster`: all.
            after_audit: audit events after this number; 0: only those from now on.
            timeout: seconds for the whole watch; then `WaitTimeout` is raised. None: no end.
        """
        request = quota_pb2.WatchQuotasRequest(path=path, after_audit=after_audit)
        return QuotaWatch(self._client, request, timeout)


class Cluster:
    """The machines, and the consensus between them."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def status(self) -> ClusterStatus:
        request = cluster_pb2.GetClusterStatusRequest()
        return _wire.cluster_status(self._client._call(lambda s: s.cluster.GetClusterStatus, request))

    def nodes(self) -> tuple[Node, ...]:
        """Every member, whatever its roles."""
        copies = self.status().copies
        answer = self._client._call(lambda s: s.cluster.ListNodes, cluster_pb2.ListNodesRequest())
        return tuple(_wire.node(it, copies) for it in answer.nodes)

    def node(self, id: str) -> Node:
        """One member, by an id like `n7` or its name."""
        copies = self.status().copies
        return _wire.node(self._client._call(lambda s: s.cluster.GetNode, cluster_pb2.GetNodeRequest(id=id)), copies)

    def cordon(self, id: str, *, reason: str = "", request_id: Optional[str] = None) -> Node:
        """The node gets nothing new; what runs there goes on."""
        request = cluster_pb2.CordonNodeRequest(id=id, reason=reason, request_id=_requests.given_or_fresh(request_id))
        changed = self._client._call(lambda s: s.cluster.CordonNode, request, request.request_id)
        return self._changed(changed)

    def uncordon(self, id: str, *, reason: str = "", request_id: Optional[str] = None) -> Node:
        """Takes a cordon or a drain back."""
        request = cluster_pb2.UncordonNodeRequest(id=id, reason=reason, request_id=_requests.given_or_fresh(request_id))
        changed = self._client._call(lambda s: s.cluster.UncordonNode, request, request.request_id)
        return self._changed(changed)

    def drain(
        self, id: str, *, grace: Optional[timedelta] = None, reason: str = "", request_id: Optional[str] = None
    ) -> Node:
        """The node gets nothing new, and its tasks move to others at their next step.

        `grace` is what a step may still take before its task is moved in the middle of it; 10 s when not set.
        """
        request = _requests.drain_node(id, grace, reason, request_id)
        changed = self._client._call(lambda s: s.cluster.DrainNode, request, request.request_id)
        return self._changed(changed)

    def remove_node(self, id: str, *, reason: str = "", request_id: Optional[str] = None) -> ClusterStatus:
        """A worker that is lost leaves the cluster for good. Refused while it is attached or holds leases."""
        request = cluster_pb2.RemoveNodeRequest(id=id, reason=reason, request_id=_requests.given_or_fresh(request_id))
        return _wire.cluster_status(self._client._call(lambda s: s.cluster.RemoveNode, request, request.request_id))

    def raise_level(self, *, reason: str = "", request_id: Optional[str] = None) -> ClusterStatus:
        """Begins the newest feature level that every member knows: the last step of an upgrade.

        After it no node can go back to the version before.
        """
        request = cluster_pb2.RaiseLevelRequest(reason=reason, request_id=_requests.given_or_fresh(request_id))
        return _wire.cluster_status(self._client._call(lambda s: s.cluster.RaiseLevel, request, request.request_id))

    def audit(self, subject: str = "", *, after: int = 0, page_size: int = 0) -> Iterator[AuditEvent]:
        """Who changed limits, prices and nodes, when and why; page after page as they are taken, the oldest first.

        Args:
            subject: only about this or what lies below it: a quota path, `nodes/n4`, a model. Empty: all.
            after: only events after this number.
            page_size: 0 leaves it to the cluster.
        """
        request = cluster_pb2.ListAuditEventsRequest(after=after, subject=subject, page_size=page_size)
        while True:
            page = self._client._call(lambda s: s.cluster.ListAuditEvents, request)
            yield from (_wire.audit_event(it) for it in page.events)
            if not page.next_after:
                return
            request.after = page.next_after

    def _changed(self, it: cluster_pb2.Node) -> Node:
        return _wire.node(it, self.status().copies)
