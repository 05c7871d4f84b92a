//! The machines, the voters among them, and the models they hold.

mod snapshot;

pub use snapshot::SnapshotStream;

use crate::client::{Client, request_id_or_fresh};
use crate::data::{AuditEvent, ClusterStatus, Model, Node};
use crate::error::Error;
use crate::retry::Kind;
use crate::wire;
use proto::v1;

#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    pub(crate) client: &'a Client,
}

/// A call whose message is cloned for every attempt and whose answer is the cluster's status.
macro_rules! status_call {
    ($self:ident, $kind:expr, $method:ident, $message:expr) => {{
        let message = $message;
        let call = $self.client.call($kind, |via| {
            let message = message.clone();
            async move { via.cluster().$method(via.request(message)).await }
        });
        Ok(call.await?.into())
    }};
}

impl<'a> Cluster<'a> {
    /// Makes the first endpoint's node a cluster of one; others join it by their configuration. It goes to that node
    /// alone, and is not repeated once it may have arrived.
    pub async fn init(&self) -> Result<ClusterStatus, Error> {
        status_call!(self, Kind::Once, init_cluster, v1::InitClusterRequest {})
    }

    pub async fn status(&self) -> Result<ClusterStatus, Error> {
        status_call!(self, Kind::Repeatable, get_cluster_status, v1::GetClusterStatusRequest {})
    }

    /// Makes a member node vote. Ids like `n7`, or names. Harmless to repeat.
    pub async fn add_voter(&self, id: &str) -> Result<ClusterStatus, Error> {
        status_call!(self, Kind::Repeatable, add_voter, v1::AddVoterRequest { id: id.into() })
    }

    /// The coordinator leaves the cluster for good; one that leads hands over first. `reason`: why, for whoever reads it
    /// later.
    pub async fn remove_voter(&self, id: &str, reason: &str) -> Result<ClusterStatus, Error> {
        let (id, reason, request_id) = (id.into(), reason.into(), request_id_or_fresh(None)?);
        let message = v1::RemoveVoterRequest { id, reason, request_id };
        status_call!(self, Kind::Repeatable, remove_voter, message)
    }

    /// A member that is lost leaves the cluster for good. Refused while it is attached or holds leases.
    pub async fn remove_node(&self, id: &str, reason: &str) -> Result<ClusterStatus, Error> {
        let (id, reason, request_id) = (id.into(), reason.into(), request_id_or_fresh(None)?);
        let message = v1::RemoveNodeRequest { id, reason, request_id };
        status_call!(self, Kind::Repeatable, remove_node, message)
    }

    /// Begins the newest feature level that every member knows: the last step of an upgrade, after which no node can go
    /// back to the version before.
    pub async fn raise_level(&self, reason: &str) -> Result<ClusterStatus, Error> {
        let message = v1::RaiseLevelRequest { reason: reason.into(), request_id: request_id_or_fresh(None)? };
        status_call!(self, Kind::Repeatable, raise_level, message)
    }

    pub async fn transfer_leader(&self, id: &str) -> Result<ClusterStatus, Error> {
        status_call!(self, Kind::Repeatable, transfer_leader, v1::TransferLeaderRequest { id: id.into() })
    }

    /// A backup while the cluster works: the ledger at one entry and every segment that it names. What arrives is the
    /// archive, piece by piece. `allow_missing` goes on without segments that no reachable node holds.
    pub async fn snapshot(&self, allow_missing: bool) -> Result<SnapshotStream, Error> {
        SnapshotStream::open(self.client, allow_missing).await
    }

    /// Every member, whatever its roles.
    pub async fn nodes(&self) -> Result<Vec<Node>, Error> {
        let nodes = self.client.call(Kind::Repeatable, |via| async move {
            via.cluster().list_nodes(via.request(v1::ListNodesRequest {})).await
        });
        let (nodes, status) = futures::try_join!(nodes, self.status())?;
        Ok(nodes.nodes.into_iter().map(|node| wire::node(node, status.copies)).collect())
    }

    /// One member, by id or name.
    pub async fn node(&self, id: &str) -> Result<Node, Error> {
        let message = v1::GetNodeRequest { id: id.into() };
        let node = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.cluster().get_node(via.request(message)).await }
        });
        let (node, status) = futures::try_join!(node, self.status())?;
        Ok(wire::node(node, status.copies))
    }

    /// Models that some node holds.
    pub async fn models(&self) -> Result<Vec<Model>, Error> {
        let call = self.client.call(Kind::Repeatable, |via| async move {
            via.cluster().list_models(via.request(v1::ListModelsRequest {})).await
        });
        Ok(call.await?.models.into_iter().map(Model::from).collect())
    }

    /// The node gets nothing new; what runs there goes on.
    pub fn cordon(&self, node: &str) -> CloseNode<'a> {
        CloseNode::new(self.client, node, Openness::Cordoned)
    }

    /// Takes a cordon or a drain back.
    pub fn uncordon(&self, node: &str) -> CloseNode<'a> {
        CloseNode::new(self.client, node, Openness::Open)
    }

    /// The node gets nothing new, and its tasks move at their next step, or when their grace is over.
    pub fn drain(&self, node: &str) -> CloseNode<'a> {
        CloseNode::new(self.client, node, Openness::Draining)
    }

    /// Audit events after a number, about a subject or what lies below it (empty: all): a page of them, and the number
    /// that the next page begins after.
    pub async fn audit(&self, after: u64, subject: &str) -> Result<(Vec<AuditEvent>, Option<u64>), Error> {
        let message = v1::ListAuditEventsRequest { after, subject: subject.into(), page_size: AUDIT_PAGE };
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.cluster().list_audit_events(via.request(message)).await }
        });
        let page = call.await?;
        let events = page.events.into_iter().map(AuditEvent::from).collect();
        Ok((events, (page.next_after > 0).then_some(page.next_after)))
    }
}

const AUDIT_PAGE: u32 = 500;

#[derive(Clone, Copy, Debug)]
enum Openness {
    Open,
    Cordoned,
    Draining,
}

/// A change of what a node takes.
#[derive(Clone, Debug)]
#[must_use = "nothing is changed before `send`"]
pub struct CloseNode<'a> {
    client: &'a Client,
    node: String,
    to: Openness,
    grace_ms: Option<u64>,
    reason: String,
    request_id: Option<String>,
}

impl<'a> CloseNode<'a> {
    fn new(client: &'a Client, node: &str, to: Openness) -> CloseNode<'a> {
        CloseNode { client, node: node.into(), to, grace_ms: None, reason: String::new(), request_id: None }
    }

    /// What steps may still take before tasks are moved in the middle of them; 10 s when not set. Of a drain only.
    pub fn grace_ms(mut self, grace_ms: u64) -> Self {
        self.grace_ms = Some(grace_ms);
        self
    }

    /// Why, for whoever reads it later.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// Repeating with the same request id gives the first answer. A fresh one is made when not set.
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.request_id = Some(id.into());
        self
    }

    pub async fn send(self) -> Result<Node, Error> {
        let (id, reason, grace_ms) = (self.node, self.reason, self.grace_ms);
        let request_id = request_id_or_fresh(self.request_id)?;
        let call = self.client.call(Kind::Repeatable, |via| {
            let (id, reason, request_id) = (id.clone(), reason.clone(), request_id.clone());
            async move {
                let mut nodes = via.cluster();
                match self.to {
                    Openness::Open => {
                        let message = v1::UncordonNodeRequest { id, reason, request_id };
                        nodes.uncordon_node(via.request(message)).await
                    }
                    Openness::Cordoned => {
                        let message = v1::CordonNodeRequest { id, reason, request_id };
                        nodes.cordon_node(via.request(message)).await
                    }
                    Openness::Draining => {
                        let message = v1::DrainNodeRequest { id, grace_ms, reason, request_id };
                        nodes.drain_node(via.request(message)).await
                    }
                }
            }
        });
        let node = call.await?;
        let status = Cluster { client: self.client }.status().await?;
        Ok(wire::node(node, status.copies))
    }
}
