//! `ClusterService`: founding a cluster, its state, its nodes.

use super::nodes::{Closing, GRACE_MS};
use super::tasks::short;
use super::{Door, Membership, convert, identity, status};
use coordinator::{Change, ClientError, Wish};
use ledger::query::{Answer, ClusterFacts, Query};
use ledger::rows::{Closed, NodeRow, Role};
use prost::Message;
use proto::internal::v1 as link;
use proto::v1 as pb;
use proto::v1::cluster_service_server::ClusterService;
use tokio::sync::oneshot;
use tonic::{Code, Request, Response, Status};
use types::{NodeId, limits};

#[tonic::async_trait]
impl ClusterService for Door {
    async fn init_cluster(
        &self,
        _request: Request<pb::InitClusterRequest>,
    ) -> Result<Response<pb::ClusterStatus>, Status> {
        // One at a time: the second caller finds the door open.
        let _turn = self.init_turn.lock().await;
        if self.is_open() {
            return Err(status::from_refusal(ledger::reply::Refusal::AlreadyInitialised));
        }
        let (answer, done) = oneshot::channel();
        let asked = self.init.send(answer).await.is_ok();
        match done.await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return Err(init_refused(&why)),
            Err(_) if asked => {
                return Err(init_refused("the node stopped while it was founding the cluster"));
            }
            Err(_) => return Err(init_refused("this node is joining another cluster")),
        }
        self.inside()?.cluster_status().await.map(Response::new)
    }

    async fn get_cluster_status(
        &self,
        _request: Request<pb::GetClusterStatusRequest>,
    ) -> Result<Response<pb::ClusterStatus>, Status> {
        self.inside()?.cluster_status().await.map(Response::new)
    }

    async fn list_nodes(
        &self,
        _request: Request<pb::ListNodesRequest>,
    ) -> Result<Response<pb::ListNodesResponse>, Status> {
        let nodes = self.inside()?.nodes().await?;
        Ok(Response::new(pb::ListNodesResponse { nodes }))
    }

    async fn get_node(&self, request: Request<pb::GetNodeRequest>) -> Result<Response<pb::Node>, Status> {
        let wanted = request.into_inner().id;
        let nodes = self.inside()?.nodes().await?;
        let found = nodes.into_iter().find(|node| node.id == wanted || node.name == wanted);
        found.map(Response::new).ok_or_else(|| status::not_found("node", &wanted, "quorate node list"))
    }

    async fn add_voter(
        &self,
        request: Request<pb::AddVoterRequest>,
    ) -> Result<Response<pb::ClusterStatus>, Status> {
        let author = identity(&request).author();
        self.change_one(Wish::named(Change::AddVoter, request.into_inner().id, author)).await
    }

    async fn remove_voter(
        &self,
        request: Request<pb::RemoveVoterRequest>,
    ) -> Result<Response<pb::ClusterStatus>, Status> {
        let author = identity(&request).author();
        let pb::RemoveVoterRequest { id, reason, request_id } = request.into_inner();
        self.change_one(Wish { reason, request_id, ..Wish::named(Change::RemoveVoter, id, author) }).await
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::ClusterStatus>, Status> {
        let author = identity(&request).author();
        self.change_one(Wish::named(Change::TransferLeader, request.into_inner().id, author)).await
    }

    async fn remove_node(
        &self,
        request: Request<pb::RemoveNodeRequest>,
    ) -> Result<Response<pb::ClusterStatus>, Status> {
        let author = identity(&request).author();
        let pb::RemoveNodeRequest { id, reason, request_id } = request.into_inner();
        self.change_one(Wish { reason, request_id, ..Wish::named(Change::RemoveNode, id, author) }).await
    }

    async fn raise_level(
        &self,
        request: Request<pb::RaiseLevelRequest>,
    ) -> Result<Response<pb::ClusterStatus>, Status> {
        let author = identity(&request).author();
        let pb::RaiseLevelRequest { reason, request_id } = request.into_inner();
        let wish = Wish { reason, request_id, ..Wish::named(Change::RaiseLevel, String::new(), author) };
        self.change_cluster(wish).await
    }

    async fn list_models(
        &self,
        _request: Request<pb::ListModelsRequest>,
    ) -> Result<Response<pb::ListModelsResponse>, Status> {
        let inside = self.inside()?;
        match inside.client.read(Query::Models).await.map_err(status::from_client)? {
            Answer::Models(rows) => Ok(Response::new(pb::ListModelsResponse {
                models: rows.iter().map(|row| convert::model(row, &inside.members)).collect(),
            })),
            _ => Err(Status::internal("the ledger answered another question")),
        }
    }

    async fn cordon_node(
        &self,
        request: Request<pb::CordonNodeRequest>,
    ) -> Result<Response<pb::Node>, Status> {
        let author = identity(&request).author();
        let pb::CordonNodeRequest { id: node, reason, request_id } = request.into_inner();
        let closed = Some(Closed::Cordoned);
        self.close_node(author, Closing { node, closed, grace_ms: 0, reason, request_id }).await
    }

    async fn uncordon_node(
        &self,
        request: Request<pb::UncordonNodeRequest>,
    ) -> Result<Response<pb::Node>, Status> {
        let author = identity(&request).author();
        let pb::UncordonNodeRequest { id: node, reason, request_id } = request.into_inner();
        self.close_node(author, Closing { node, closed: None, grace_ms: 0, reason, request_id }).await
    }

    async fn drain_node(&self, request: Request<pb::DrainNodeRequest>) -> Result<Response<pb::Node>, Status> {
        let author = identity(&request).author();
        let pb::DrainNodeRequest { id: node, grace_ms, reason, request_id } = request.into_inner();
        let (closed, grace_ms) = (Some(Closed::Draining), grace_ms.unwrap_or(GRACE_MS));
        self.close_node(author, Closing { node, closed, grace_ms, reason, request_id }).await
    }

    async fn list_audit_events(
        &self,
        request: Request<pb::ListAuditEventsRequest>,
    ) -> Result<Response<pb::ListAuditEventsResponse>, Status> {
        self.audit_page(request.into_inner()).await
    }

    type SnapshotClusterStream = super::snapshots::Archive;

    async fn snapshot_cluster(
        &self,
        request: Request<pb::SnapshotClusterRequest>,
    ) -> Result<Response<Self::SnapshotClusterStream>, Status> {
        let allow_missing = request.into_inner().allow_missing;
        Ok(Response::new(super::snapshots::stream(self.inside()?, allow_missing)))
    }
}

impl Door {
    /// A change that is about one node. A name that leads nowhere may be a request that is repeated.
    async fn change_one(&self, mut wish: Wish) -> Result<Response<pb::ClusterStatus>, Status> {
        let inside = self.inside()?;
        // What this node remembers may have been removed meanwhile.
        inside.members.refresh(&inside.client).await;
        wish.node = inside.members.find(&wish.wanted).map(|row| row.id);
        if wish.node.is_none() && wish.request_id.is_empty() {
            return Err(status::not_found("node", &wish.wanted, "quorate node list"));
        }
        self.change_cluster(wish).await
    }

    async fn change_cluster(&self, wish: Wish) -> Result<Response<pb::ClusterStatus>, Status> {
        short("reason", &wish.reason)?;
        short("request_id", &wish.request_id)?;
        let inside = self.inside()?;
        let stranger = wish.node.is_none() && !wish.wanted.is_empty();
        let wanted = wish.wanted.clone();
        inside.client.change(wish).await.map_err(|failed| match failed {
            ClientError::Refused(_) if stranger => status::not_found("node", &wanted, "quorate node list"),
            failed => status::from_client(failed),
        })?;
        inside.cluster_status().await.map(Response::new)
    }
}

fn init_refused(why: &str) -> Status {
    status::error(
        Code::FailedPrecondition,
        "INIT_REFUSED",
        why,
        "look at this node's log; nothing was founded twice",
    )
}

impl Membership {
    /// The leader's view of consensus, with this node's own applied state and its hash.
    async fn cluster_status(&self) -> Result<pb::ClusterStatus, Status> {
        let raft = self.client.status().await.map_err(status::from_client)?;
        let (answer, own_index, _) =
            self.client.read_stale(Query::Cluster).await.map_err(status::from_client)?;
        let Answer::Cluster(facts) = answer else {
            return Err(Status::internal("the ledger answered another question"));
        };
        let unknown =
            raft.voters.iter().chain(&raft.learners).any(|id| self.members.get(NodeId(*id)).is_none());
        if unknown {
            self.members.refresh(&self.client).await;
        }
        let name = |id: &u64| self.members.name(NodeId(*id));
        Ok(pb::ClusterStatus {
            cluster_id: self.cluster.to_string(),
            leader: name(&raft.leader_id),
            term: raft.term,
            applied_index: own_index,
            committed_index: raft.committed_index,
            voters: raft.voters.iter().map(name).collect(),
            learners: raft.learners.iter().map(name).collect(),
            answered_by: self.members.name(self.own),
            state_hash: facts.state_hash.to_string(),
            state_hash_index: facts.applied_index,
            copies: facts.copies,
            feature_level: facts.feature_level,
            warnings: warnings(&facts, raft.voters.len()),
            tasks_by_state: facts.tasks_by_state.into_iter().collect(),
        })
    }

    pub(super) async fn nodes(&self) -> Result<Vec<pb::Node>, Status> {
        let Answer::Nodes(rows) = self.client.read(Query::Nodes).await.map_err(status::from_client)? else {
            return Err(Status::internal("the ledger answered another question"));
        };
        let attached = self.client.status().await.map_err(status::from_client)?.attached;
        let find = |row: &NodeRow| attached.iter().find(|node| node.node_id == row.id.0);
        Ok(rows.iter().map(|row| node(row, find(row))).collect())
    }
}

fn warnings(facts: &ClusterFacts, voters: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    if (facts.copies as usize) < limits::COPIES {
        warnings.push("one store only: losing this disk loses everything".to_string());
    }
    if voters == 1 {
        warnings.push("one voter only: while it is down nothing is accepted".to_string());
    }
    warnings
}

fn node(row: &NodeRow, attached: Option<&link::AttachedNode>) -> pb::Node {
    let role = |role: &Role| match role {
        Role::Coordinator => "coordinator".to_string(),
        Role::Worker => "worker".to_string(),
    };
    let beat = attached.and_then(|node| node.beat.clone()).unwrap_or_default();
    pb::Node {
        id: row.id.to_string(),
        name: row.name.clone(),
        roles: row.roles.iter().map(role).collect(),
        client_addr: row.client_addr.clone(),
        internal_addr: row.internal_addr.clone(),
        state: node_state(row, attached.is_some()).into(),
        running: beat.running,
        slots: attached.map_or(0, |node| node.slots),
        engines: attached.map(|node| node.engines.iter().map(engine).collect()).unwrap_or_default(),
        device: pb::Device::decode(beat.device.as_ref()).ok().filter(|_| !beat.device.is_empty()),
        fenced_commits: row.fenced.commits,
        segments: beat.segments,
        segment_bytes: beat.segment_bytes,
        context_bytes_received: beat.context_bytes_received,
        context_bytes_sent: beat.context_bytes_sent,
        context_bytes_full: beat.context_bytes_full,
        version: attached.map_or_else(|| row.version.clone(), |node| node.version.clone()),
    }
}

fn node_state(row: &NodeRow, attached: bool) -> &'static str {
    match (attached, row.closed) {
        (false, _) => "lost",
        (true, None) => "ready",
        (true, Some(Closed::Cordoned)) => "cordoned",
        (true, Some(Closed::Draining)) => "draining",
    }
}

fn engine(engine: &link::LinkEngine) -> pb::Engine {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    pb::Engine {
        model: engine.model.clone(),
        model_digest: hex(&engine.model_digest),
        numerics_id: hex(&engine.numerics_id),
        window: engine.window,
        kv_blocks: engine.kv_blocks,
        kv_blocks_used: engine.kv_blocks_used,
        kv_bytes: engine.kv_bytes,
        kernels: engine.kernels.clone(),
        tokens_computed: engine.tokens_computed,
        tokens_cached: engine.tokens_cached,
        tokens_generated: engine.tokens_generated,
        weight_bytes: engine.weight_bytes,
        kv_tiers: engine.kv_tiers.iter().map(kv_tier).collect(),
    }
}

fn kv_tier(it: &link::LinkKvTier) -> pb::KvTier {
    pb::KvTier { tier: it.tier.clone(), bytes: it.bytes }
}
