//! openraft's types, filled in: entries and replies are bytes, ids are numbers, a node is an address.

use crate::wal::{self, EntryId};
use bytes::Bytes;
use openraft::type_config::alias;
use openraft::vote::RaftLeaderId;
use openraft::{BasicNode, EntryPayload};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

openraft::declare_raft_types!(
    /// openraft's types for this cluster.
    pub Types:
        D = Command,
        R = Answer,
        NodeId = u64,
        Node = BasicNode,
        AsyncRuntime = Runtime,
);

#[cfg(not(test))]
type Runtime = openraft::impls::TokioRuntime;
/// In tests what openraft draws follows from the seed that a node is started with.
#[cfg(test)]
pub(super) type Runtime = openraft::rt::deterministic_rng::DeterministicRng<openraft::impls::TokioRuntime>;

pub(super) type LogId = alias::LogIdOf<Types>;
pub(super) type Vote = alias::VoteOf<Types>;
pub(super) type LeaderId = alias::LeaderIdOf<Types>;
pub(super) type Entry = alias::EntryOf<Types>;
pub(super) type Payload = EntryPayload<Command, u64, BasicNode>;
pub(super) type Membership = openraft::Membership<u64, BasicNode>;
pub(super) type StoredMembership = alias::StoredMembershipOf<Types>;
pub(super) type SnapshotMeta = alias::SnapshotMetaOf<Types>;
pub(super) type Snapshot = alias::SnapshotOf<Types, Bytes>;

/// An entry's bytes, opaque here. Prints its length: contents do not belong in logs.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Command(pub(super) Bytes);

/// A reply's bytes, opaque here.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Answer(pub(super) Vec<u8>);

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

// openraft asks for serde of its data types; our own formats are in `log_store` and `wire`.
impl serde::Serialize for Command {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Command {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(|bytes| Command(Bytes::from(bytes)))
    }
}

impl serde::Serialize for Answer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Answer {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Answer)
    }
}

/// A membership as it is stored: one set of voters, or two in the middle of a change, and all addresses.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub(super) struct MembershipRecord {
    #[n(0)]
    voter_sets: Vec<BTreeSet<u64>>,
    #[n(1)]
    members: BTreeMap<u64, String>,
}

impl From<&Membership> for MembershipRecord {
    fn from(membership: &Membership) -> Self {
        MembershipRecord {
            voter_sets: membership.get_joint_config().clone(),
            members: membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect(),
        }
    }
}

impl MembershipRecord {
    pub(super) fn into_membership(self) -> Result<Membership, String> {
        membership(self.voter_sets, self.members)
    }
}

/// A membership from its parts; the empty one is what a new node has.
pub(super) fn membership(
    voter_sets: Vec<BTreeSet<u64>>,
    members: BTreeMap<u64, String>,
) -> Result<Membership, String> {
    let nodes: BTreeMap<u64, BasicNode> =
        members.into_iter().map(|(id, addr)| (id, BasicNode { addr })).collect();
    Membership::new(voter_sets, nodes).map_err(|e| e.to_string())
}

pub(super) fn leader_id(term: u64, node: u64) -> LeaderId {
    LeaderId::new(term, node)
}

pub(super) fn log_id(id: EntryId) -> LogId {
    LogId::new(leader_id(id.term, id.node), id.index)
}

pub(super) fn entry_id(id: LogId) -> EntryId {
    EntryId { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
}

pub(super) fn vote(vote: wal::Vote) -> Vote {
    Vote { leader_id: leader_id(vote.term, vote.node), committed: vote.granted }
}

pub(super) fn wal_vote(vote: &Vote) -> wal::Vote {
    wal::Vote { term: vote.leader_id.term, node: vote.leader_id.node_id, granted: vote.committed }
}
