//! What a node knows of its cluster, as plain values.

use super::type_config::Types;
use openraft::{BasicNode, RaftMetrics};
use std::collections::BTreeMap;
use types::NodeId;

/// Who leads, with the address of its internal plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    pub id: NodeId,
    pub address: String,
}

/// The newest term this node knows, and who leads in it. An office is the pair of term and leader:
/// two nodes may lead one after the other in one term, never at the same time with a quorum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderView {
    pub term: u64,
    pub leader: Option<Leader>,
}

/// A node's view of its cluster. Indexes are of entries; 0 also means none yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub id: NodeId,
    pub term: u64,
    pub leader: Option<Leader>,
    pub is_leader: bool,
    pub last_log: u64,
    pub committed: u64,
    pub applied: u64,
    pub snapshot: u64,
    pub purged: u64,
    pub voters: BTreeMap<NodeId, String>,
    pub learners: BTreeMap<NodeId, String>,
    /// How far each other member's log matches the leader's; on the leader only.
    pub matching: BTreeMap<NodeId, u64>,
    /// Why raft has stopped, if it has.
    pub stopped: Option<String>,
}

pub(super) fn leader_view(metrics: &RaftMetrics<Types>) -> LeaderView {
    LeaderView { term: metrics.current_term, leader: leader(metrics) }
}

pub(super) fn leader(metrics: &RaftMetrics<Types>) -> Option<Leader> {
    let id = metrics.current_leader?;
    let node = metrics.membership_config.get_node(&id);
    node.map(|node| Leader { id: NodeId(id), address: node.addr.clone() })
}

pub(super) fn status(metrics: &RaftMetrics<Types>) -> Status {
    let membership = metrics.membership_config.membership();
    let voter_ids: Vec<u64> = membership.voter_ids().collect();
    let row = |(id, node): (&u64, &BasicNode)| (NodeId(*id), node.addr.clone());
    let (voters, learners): (Vec<_>, Vec<_>) = membership.nodes().partition(|(id, _)| voter_ids.contains(id));
    let matching = metrics.replication.iter().flatten();
    Status {
        id: NodeId(metrics.id),
        term: metrics.current_term,
        leader: leader(metrics),
        is_leader: metrics.state.is_leader(),
        last_log: metrics.last_log_index.unwrap_or(0),
        committed: metrics.local_committed.map_or(0, |id| id.index),
        applied: metrics.last_applied.map_or(0, |id| id.index),
        snapshot: metrics.snapshot.map_or(0, |id| id.index),
        purged: metrics.purged.map_or(0, |id| id.index),
        voters: voters.into_iter().map(row).collect(),
        learners: learners.into_iter().map(row).collect(),
        matching: matching.map(|(id, at)| (NodeId(*id), at.map_or(0, |at| at.index))).collect(),
        stopped: metrics.running_state.as_ref().err().map(ToString::to_string),
    }
}
