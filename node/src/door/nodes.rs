//! The part of `ClusterService` for operators of machines: closing nodes and opening them, and the audit log.

use super::tasks::{propose, short, some_id, unexpected};
use super::{Door, Membership, convert, status};
use ledger::command::{Command, RequestKey};
use ledger::query::{Answer, Query};
use ledger::reply::Reply;
use ledger::rows::Closed;
use proto::v1 as pb;
use tonic::{Response, Status};
use types::{Hash, NodeId};

/// What a step may still take on a draining node.
pub(super) const GRACE_MS: u64 = 10_000;
/// A day: who waits longer cordons the node.
const GRACE_MOST_MS: u64 = 86_400_000;

/// A change of one node's openness.
pub(super) struct Closing {
    pub node: String,
    pub closed: Option<Closed>,
    pub grace_ms: u64,
    pub reason: String,
    pub request_id: String,
}

impl Door {
    pub(super) async fn close_node(
        &self,
        author: String,
        closing: Closing,
    ) -> Result<Response<pb::Node>, Status> {
        let inside = self.inside()?;
        short("reason", &closing.reason)?;
        short("request_id", &closing.request_id)?;
        if closing.grace_ms > GRACE_MOST_MS {
            return Err(status::invalid("grace_ms", &format!("at most {GRACE_MOST_MS}, a day")));
        }
        let node = inside.node_id(&closing.node).await?;
        let said = format!("{node} {:?} {}", closing.closed, closing.grace_ms);
        let request_id = some_id(closing.request_id);
        let request = RequestKey { author, request_id, body: Hash::of(said.as_bytes()) };
        let Closing { closed, grace_ms, reason, .. } = closing;
        match propose(inside, Command::CloseNode { node, closed, grace_ms, reason, request }).await? {
            Reply::Node(id) => inside.node_message(id).await.map(Response::new),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn audit_page(
        &self,
        request: pb::ListAuditEventsRequest,
    ) -> Result<Response<pb::ListAuditEventsResponse>, Status> {
        let inside = self.inside()?;
        let limit = super::agents::page_size(request.page_size)?;
        let query = Query::Audit { after: request.after, subject: request.subject, limit };
        match inside.client.read(query).await.map_err(status::from_client)? {
            Answer::Audit { rows, more } => Ok(Response::new(pb::ListAuditEventsResponse {
                next_after: rows.last().filter(|_| more).map_or(0, |row| row.number),
                events: rows.iter().map(convert::audit).collect(),
            })),
            _ => Err(Status::internal("the ledger answered another question")),
        }
    }
}

impl Membership {
    async fn node_id(&self, wanted: &str) -> Result<NodeId, Status> {
        if self.members.find(wanted).is_none() {
            self.members.refresh(&self.client).await;
        }
        let row = self.members.find(wanted);
        row.map(|row| row.id).ok_or_else(|| status::not_found("node", wanted, "quorate node list"))
    }

    async fn node_message(&self, id: NodeId) -> Result<pb::Node, Status> {
        let wanted = id.to_string();
        let found = self.nodes().await?.into_iter().find(|node| node.id == wanted);
        found.ok_or_else(|| status::not_found("node", &wanted, "quorate node list"))
    }
}
