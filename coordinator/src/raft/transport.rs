//! One call between two nodes, before it is bytes. A simulation routes these in memory.

use super::type_config::{LogId, Snapshot, Types, Vote};
use futures::future::BoxFuture;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
    VoteResponse,
};
use std::fmt;
use std::time::Duration;
use types::{ClusterId, NodeId};

/// A request with its addresses. A node refuses what is not meant for it: an address may have been reused.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub cluster: ClusterId,
    pub from: NodeId,
    pub to: NodeId,
    pub body: Body,
}

/// What is asked. The contents are raft's business; [`Body::name`] is for logs.
#[derive(Clone)]
#[non_exhaustive]
pub enum Body {
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    Append(AppendEntriesRequest<Types>),
    Snapshot(SnapshotRequest),
    TransferLeader(TransferLeaderRequest<Types>),
}

/// A whole snapshot from a leader.
#[derive(Clone)]
pub struct SnapshotRequest {
    pub(super) vote: Vote,
    pub(super) snapshot: Snapshot,
}

/// What is answered.
#[derive(Clone)]
#[non_exhaustive]
pub enum Reply {
    Vote(VoteResponse<Types>),
    PreVote(VoteResponse<Types>),
    Append(AppendEntriesResponse<Types>),
    Snapshot(SnapshotReply),
    TransferLeader(TransferLeaderResponse<Types>),
}

/// The receiver's vote after it took, or refused, a snapshot.
#[derive(Clone)]
pub struct SnapshotReply {
    pub(super) vote: Vote,
}

/// Why a call has no reply. In no case is it known that nothing happened on the other side, except `Refused`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("no answer in time")]
    Timeout,
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The other side is another node, another cluster, or does not understand.
    #[error("refused: {0}")]
    Refused(String),
}

/// Which connection a call uses: bulk must not delay heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plane {
    Control,
    Bulk,
}

/// Carries calls to nodes.
pub trait Transport: Send + Sync + 'static {
    /// Delivers one call and brings the reply, within `deadline` or not at all.
    fn call<'a>(
        &'a self,
        address: &'a str,
        plane: Plane,
        envelope: Envelope,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Reply, CallError>>;
}

impl Body {
    /// The request's name, for logs and for tests that treat kinds differently.
    pub fn name(&self) -> &'static str {
        match self {
            Body::Vote(_) => "vote",
            Body::PreVote(_) => "pre-vote",
            Body::Append(request) if request.entries.is_empty() => "heartbeat",
            Body::Append(_) => "append",
            Body::Snapshot(_) => "snapshot",
            Body::TransferLeader(_) => "transfer-leader",
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reply::Vote(_) => "vote",
            Reply::PreVote(_) => "pre-vote",
            Reply::Append(_) => "append",
            Reply::Snapshot(_) => "snapshot",
            Reply::TransferLeader(_) => "transfer-leader",
        })
    }
}

impl SnapshotRequest {
    pub(super) fn last_log_id(&self) -> Option<LogId> {
        self.snapshot.meta.last_log_id
    }
}
