//! What can go wrong, in words that say what to do next.

use super::status::Leader;
use crate::wal::WalError;
use std::io;
use types::NodeId;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Wal(#[from] WalError),
    #[error("cannot read the disk: {0}")]
    Disk(#[from] io::Error),
    #[error(
        "node {id} has run before, but its raft log is gone: the disk was lost or the data folder is another one. \
         A voter that forgot its vote could elect a second leader. Next: check the data folder; if the disk is \
         lost, remove {id} from the cluster and join again under a new id"
    )]
    LostDisk { id: NodeId },
    #[error(
        "the log of node {id} starts behind entry {purged}, but its newest readable snapshot ends at {snapshot:?}: \
         a snapshot file is lost or damaged. Next: remove {id} from the cluster and join again under a new id"
    )]
    LostSnapshot { id: NodeId, purged: u64, snapshot: Option<u64> },
    #[error("these raft timings cannot work: {0}. Next: correct them in the configuration")]
    Timings(String),
    #[error("raft did not start: {0}")]
    Raft(String),
}

/// Raft has stopped on this node, for good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("raft has stopped on this node: {reason}. Next: restart the node when the cause is removed")]
pub struct Stopped {
    pub reason: String,
}

/// Why a cluster was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InitializeError {
    #[error(
        "this node is already part of a cluster. Next: use it, or start another node with an empty data folder"
    )]
    Already,
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why there is no reply to a proposal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing happened. Ask the leader, if one is known.
    #[error("this node does not lead")]
    NotLeader { leader: Option<Leader> },
    /// The entry may be committed now, later, or never.
    #[error("the outcome is unknown; ask again with the same request id")]
    Unknown,
    /// Nothing happened.
    #[error("an entry of {bytes} bytes is larger than {limit}")]
    TooLarge { bytes: usize, limit: usize },
    /// The outcome is unknown here too.
    #[error("raft has stopped on this node: {reason}")]
    Stopped { reason: String },
}

/// Why a read cannot be linearizable here and now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("this node does not lead")]
    NotLeader { leader: Option<Leader> },
    #[error("no quorum confirmed the leader in time")]
    Timeout,
    #[error("raft has stopped on this node: {reason}")]
    Stopped { reason: String },
}

/// Why members did not change, or the leadership did not move.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    #[error("this node does not lead")]
    NotLeader { leader: Option<Leader> },
    #[error("{id} is not a member. Next: let it join first")]
    NotAMember { id: NodeId },
    #[error("{id} is no voter. Next: make it one first")]
    NotAVoter { id: NodeId },
    #[error("{id} is a voter. Next: leave it out of the voters first")]
    StillAVoter { id: NodeId },
    #[error("the address {address} belongs to {id}. Next: give each node its own address")]
    AddressTaken { address: String, id: NodeId },
    #[error("a cluster has 1, 3 or 5 voters, not {count}")]
    Count { count: usize },
    #[error(
        "{id} is {entries} entries behind and did not catch up in time. Next: check that it runs, and try again"
    )]
    Behind { id: NodeId, entries: u64 },
    #[error("another change of members is under way. Next: try again when it is done")]
    InProgress,
    #[error("the outcome is unknown. Next: look at `cluster status`")]
    Unknown,
    #[error("members cannot change so: {0}")]
    Refused(String),
    #[error("raft has stopped on this node: {reason}")]
    Stopped { reason: String },
}

/// Why waiting ended without what was waited for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    #[error("it took too long")]
    Timeout,
    #[error(transparent)]
    Stopped(#[from] Stopped),
}
