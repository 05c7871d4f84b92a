//! Raft's messages as protobuf and back. What comes in is checked: a missing field is an error, not a default.

use super::transport::{Body, CallError, Envelope, Reply, SnapshotReply, SnapshotRequest};
use super::type_config::{
    self, Command, Entry, LogId, Membership, Payload, Snapshot, SnapshotMeta, StoredMembership, Types, Vote,
    leader_id,
};
use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use proto::internal::v1 as pb;
use std::collections::BTreeSet;
use types::{ClusterId, NodeId};

/// A message that is not what its sender should have sent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed raft message: {0}")]
pub(super) struct Malformed(pub(super) String);

impl From<Malformed> for CallError {
    fn from(malformed: Malformed) -> Self {
        CallError::Refused(malformed.to_string())
    }
}

type Result<T> = std::result::Result<T, Malformed>;

fn need<T>(field: Option<T>, name: &str) -> Result<T> {
    field.ok_or_else(|| Malformed(format!("{name} is missing")))
}

// ---- parts ----

pub(super) fn header(envelope: &Envelope) -> pb::RaftHeader {
    pb::RaftHeader {
        cluster_id: Bytes::copy_from_slice(&envelope.cluster.0),
        from_node: envelope.from.0,
        to_node: envelope.to.0,
    }
}

/// An envelope with its addresses checked for form, not for truth.
pub(super) fn envelope(header: Option<pb::RaftHeader>, body: Body) -> Result<Envelope> {
    let header = need(header, "header")?;
    let id: [u8; 16] =
        header.cluster_id[..].try_into().map_err(|_| Malformed("cluster id of wrong length".into()))?;
    Ok(Envelope { cluster: ClusterId(id), from: NodeId(header.from_node), to: NodeId(header.to_node), body })
}

fn vote_out(vote: &Vote) -> pb::RaftVote {
    pb::RaftVote { term: vote.leader_id.term, node_id: vote.leader_id.node_id, committed: vote.committed }
}

fn vote_in(vote: Option<pb::RaftVote>) -> Result<Vote> {
    let vote = need(vote, "vote")?;
    Ok(Vote { leader_id: leader_id(vote.term, vote.node_id), committed: vote.committed })
}

fn log_id_out(id: &LogId) -> pb::RaftLogId {
    pb::RaftLogId { term: id.leader_id.term, node_id: id.leader_id.node_id, index: id.index }
}

fn log_id_in(id: pb::RaftLogId) -> LogId {
    LogId::new(leader_id(id.term, id.node_id), id.index)
}

fn membership_out(membership: &Membership) -> pb::RaftMembership {
    let set = |ids: &BTreeSet<u64>| pb::RaftVoterSet { node_ids: ids.iter().copied().collect() };
    let member = |(id, node): (&u64, &openraft::BasicNode)| pb::RaftMember {
        node_id: *id,
        address: node.addr.clone(),
    };
    pb::RaftMembership {
        voter_sets: membership.get_joint_config().iter().map(set).collect(),
        members: membership.nodes().map(member).collect(),
    }
}

fn membership_in(membership: pb::RaftMembership) -> Result<Membership> {
    let sets = membership.voter_sets.into_iter().map(|set| set.node_ids.into_iter().collect()).collect();
    let members = membership.members.into_iter().map(|m| (m.node_id, m.address)).collect();
    type_config::membership(sets, members).map_err(Malformed)
}

fn entry_out(entry: Entry) -> pb::RaftEntry {
    use pb::raft_entry::Payload as Wire;
    let payload = match entry.payload {
        Payload::Blank => Wire::Blank(pb::RaftBlank {}),
        Payload::Normal(command) => Wire::Command(command.0),
        Payload::Membership(membership) => Wire::Membership(membership_out(&membership)),
    };
    pb::RaftEntry { log_id: Some(log_id_out(&entry.log_id)), payload: Some(payload) }
}

fn entry_in(entry: pb::RaftEntry) -> Result<Entry> {
    use pb::raft_entry::Payload as Wire;
    let payload = match need(entry.payload, "payload of an entry")? {
        Wire::Blank(_) => Payload::Blank,
        Wire::Command(bytes) => Payload::Normal(Command(bytes)),
        Wire::Membership(membership) => Payload::Membership(membership_in(membership)?),
    };
    Ok(Entry { log_id: log_id_in(need(entry.log_id, "log id of an entry")?), payload })
}

// ---- votes ----

pub(super) fn vote_request_out(header: pb::RaftHeader, request: &VoteRequest<Types>) -> pb::VoteRequest {
    pb::VoteRequest {
        header: Some(header),
        vote: Some(vote_out(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_out),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(super) fn pre_vote_request_out(
    header: pb::RaftHeader,
    request: &VoteRequest<Types>,
) -> pb::PreVoteRequest {
    let pb::VoteRequest { header, vote, last_log_id, leadership_transfer } =
        vote_request_out(header, request);
    pb::PreVoteRequest { header, vote, last_log_id, leadership_transfer }
}

pub(super) fn vote_request_in(wire: pb::VoteRequest) -> Result<Envelope> {
    let request = VoteRequest {
        vote: vote_in(wire.vote)?,
        last_log_id: wire.last_log_id.map(log_id_in),
        leadership_transfer: wire.leadership_transfer,
    };
    envelope(wire.header, Body::Vote(request))
}

pub(super) fn pre_vote_request_in(wire: pb::PreVoteRequest) -> Result<Envelope> {
    let request = VoteRequest {
        vote: vote_in(wire.vote)?,
        last_log_id: wire.last_log_id.map(log_id_in),
        leadership_transfer: wire.leadership_transfer,
    };
    envelope(wire.header, Body::PreVote(request))
}

pub(super) fn vote_response_out(reply: &VoteResponse<Types>) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(vote_out(&reply.vote)),
        granted: reply.vote_granted,
        last_log_id: reply.last_log_id.as_ref().map(log_id_out),
    }
}

pub(super) fn pre_vote_response_out(reply: &VoteResponse<Types>) -> pb::PreVoteResponse {
    let pb::VoteResponse { vote, granted, last_log_id } = vote_response_out(reply);
    pb::PreVoteResponse { vote, granted, last_log_id }
}

fn vote_response(
    vote: Option<pb::RaftVote>,
    granted: bool,
    last: Option<pb::RaftLogId>,
) -> Result<VoteResponse<Types>> {
    Ok(VoteResponse { vote: vote_in(vote)?, vote_granted: granted, last_log_id: last.map(log_id_in) })
}

pub(super) fn vote_response_in(wire: pb::VoteResponse) -> Result<Reply> {
    vote_response(wire.vote, wire.granted, wire.last_log_id).map(Reply::Vote)
}

pub(super) fn pre_vote_response_in(wire: pb::PreVoteResponse) -> Result<Reply> {
    vote_response(wire.vote, wire.granted, wire.last_log_id).map(Reply::PreVote)
}

// ---- entries ----

pub(super) fn append_out(
    header: pb::RaftHeader,
    request: AppendEntriesRequest<Types>,
) -> pb::AppendEntriesRequest {
    pb::AppendEntriesRequest {
        header: Some(header),
        vote: Some(vote_out(&request.vote)),
        previous_log_id: request.prev_log_id.as_ref().map(log_id_out),
        entries: request.entries.into_iter().map(entry_out).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_out),
    }
}

pub(super) fn append_in(wire: pb::AppendEntriesRequest) -> Result<Envelope> {
    let request = AppendEntriesRequest {
        vote: vote_in(wire.vote)?,
        prev_log_id: wire.previous_log_id.map(log_id_in),
        entries: wire.entries.into_iter().map(entry_in).collect::<Result<Vec<_>>>()?,
        leader_commit: wire.leader_commit.map(log_id_in),
    };
    check_order(&request)?;
    envelope(wire.header, Body::Append(request))
}

/// raft asserts that entries follow each other; what comes from outside must be checked before.
fn check_order(request: &AppendEntriesRequest<Types>) -> Result<()> {
    let mut next = request.prev_log_id.map(|id| id.index.wrapping_add(1));
    for entry in &request.entries {
        if next.unwrap_or(0) != entry.log_id.index {
            return Err(Malformed(format!("entry {} is out of order", entry.log_id.index)));
        }
        next = Some(entry.log_id.index.wrapping_add(1));
    }
    Ok(())
}

pub(super) fn appended_out(reply: &AppendEntriesResponse<Types>) -> pb::AppendEntriesResponse {
    use pb::append_entries_response::Result as Wire;
    let result = match reply {
        AppendEntriesResponse::Success => Wire::Success(pb::RaftStored {}),
        AppendEntriesResponse::PartialSuccess(matching) => {
            Wire::Partial(pb::RaftPartlyStored { matching: matching.as_ref().map(log_id_out) })
        }
        AppendEntriesResponse::Conflict => Wire::Conflict(pb::RaftConflict {}),
        AppendEntriesResponse::HigherVote(vote) => Wire::HigherVote(vote_out(vote)),
    };
    pb::AppendEntriesResponse { result: Some(result) }
}

pub(super) fn appended_in(wire: pb::AppendEntriesResponse) -> Result<Reply> {
    use pb::append_entries_response::Result as Wire;
    Ok(Reply::Append(match need(wire.result, "result of an append")? {
        Wire::Success(_) => AppendEntriesResponse::Success,
        Wire::Partial(partial) => AppendEntriesResponse::PartialSuccess(partial.matching.map(log_id_in)),
        Wire::Conflict(_) => AppendEntriesResponse::Conflict,
        Wire::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote_in(Some(vote))?),
    }))
}

// ---- snapshots ----

pub(super) fn snapshot_head(header: pb::RaftHeader, request: &SnapshotRequest) -> pb::RaftSnapshotHead {
    let meta = &request.snapshot.meta;
    let bytes = &request.snapshot.snapshot;
    pb::RaftSnapshotHead {
        header: Some(header),
        vote: Some(vote_out(&request.vote)),
        last_log_id: request.last_log_id().as_ref().map(log_id_out),
        membership_log_id: meta.last_membership.log_id().as_ref().map(log_id_out),
        membership: Some(membership_out(meta.last_membership.membership())),
        bytes: bytes.len() as u64,
        hash: Bytes::copy_from_slice(blake3::hash(bytes).as_bytes()),
    }
}

pub(super) fn snapshot_in(head: pb::RaftSnapshotHead, snapshot: Bytes) -> Result<Envelope> {
    if blake3::hash(&snapshot).as_bytes()[..] != head.hash[..] {
        return Err(Malformed("the snapshot's chunks do not have its hash".into()));
    }
    let membership = membership_in(need(head.membership, "membership")?)?;
    let last_membership = StoredMembership::new(head.membership_log_id.map(log_id_in), membership);
    let meta = SnapshotMeta { last_log_id: head.last_log_id.map(log_id_in), last_membership };
    let request = SnapshotRequest { vote: vote_in(head.vote)?, snapshot: Snapshot { meta, snapshot } };
    envelope(head.header, Body::Snapshot(request))
}

pub(super) fn installed_out(reply: &SnapshotReply) -> pb::InstallSnapshotResponse {
    pb::InstallSnapshotResponse { vote: Some(vote_out(&reply.vote)) }
}

pub(super) fn installed_in(wire: pb::InstallSnapshotResponse) -> Result<Reply> {
    Ok(Reply::Snapshot(SnapshotReply { vote: vote_in(wire.vote)? }))
}

// ---- handover ----

pub(super) fn transfer_out(
    header: pb::RaftHeader,
    request: &TransferLeaderRequest<Types>,
) -> pb::TransferLeaderRequest {
    pb::TransferLeaderRequest {
        header: Some(header),
        from_leader: Some(vote_out(request.from_leader())),
        last_log_id: request.last_log_id().map(log_id_out),
        next_leader: *request.to_node_id(),
    }
}

pub(super) fn transfer_in(wire: pb::TransferLeaderRequest) -> Result<Envelope> {
    let last = wire.last_log_id.map(log_id_in);
    let request = TransferLeaderRequest::new(vote_in(wire.from_leader)?, wire.next_leader, last);
    envelope(wire.header, Body::TransferLeader(request))
}

pub(super) fn transferred_out(reply: &TransferLeaderResponse<Types>) -> pb::TransferLeaderResponse {
    use pb::transfer_leader_response::{LogNotFlushed, Refused as Wire, VoteChanged};
    let refused = match reply {
        Ok(()) => None,
        Err(TransferLeaderError::VoteChanged { expected, actual }) => Some(Wire::VoteChanged(VoteChanged {
            expected: Some(vote_out(expected)),
            actual: Some(vote_out(actual)),
        })),
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            Some(Wire::LogNotFlushed(LogNotFlushed {
                expected: expected.as_ref().map(log_id_out),
                actual: actual.as_ref().map(log_id_out),
            }))
        }
    };
    pb::TransferLeaderResponse { refused }
}

pub(super) fn transferred_in(wire: pb::TransferLeaderResponse) -> Result<Reply> {
    use pb::transfer_leader_response::Refused as Wire;
    Ok(Reply::TransferLeader(match wire.refused {
        None => Ok(()),
        Some(Wire::VoteChanged(it)) => Err(TransferLeaderError::VoteChanged {
            expected: vote_in(it.expected)?,
            actual: vote_in(it.actual)?,
        }),
        Some(Wire::LogNotFlushed(it)) => Err(TransferLeaderError::LogNotFlushed {
            expected: it.expected.map(log_id_in),
            actual: it.actual.map(log_id_in),
        }),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    fn id(index: u64) -> LogId {
        LogId::new(leader_id(4, 2), index)
    }

    fn ballot() -> Vote {
        Vote { leader_id: leader_id(4, 2), committed: true }
    }

    fn members() -> Membership {
        let addresses = [(1, "a:1".to_string()), (2, "b:1".to_string()), (3, "c:1".to_string())];
        type_config::membership(vec![[1, 2].into(), [2].into()], addresses.into()).unwrap()
    }

    fn sealed(body: Body) -> Envelope {
        Envelope { cluster: ClusterId([5; 16]), from: NodeId(2), to: NodeId(3), body }
    }

    fn entries() -> Vec<Entry> {
        vec![
            Entry { log_id: id(8), payload: Payload::Blank },
            Entry { log_id: id(9), payload: Payload::Normal(Command(Bytes::from_static(b"entry"))) },
            Entry { log_id: id(10), payload: Payload::Membership(members()) },
        ]
    }

    fn append() -> AppendEntriesRequest<Types> {
        let commit = Some(id(6));
        AppendEntriesRequest {
            vote: ballot(),
            prev_log_id: Some(id(7)),
            entries: entries(),
            leader_commit: commit,
        }
    }

    fn append_wire() -> pb::AppendEntriesRequest {
        let envelope = sealed(Body::Append(append()));
        append_out(header(&envelope), append())
    }

    #[test]
    fn entries_come_back_as_they_went() {
        let bytes = append_wire().encode_to_vec();
        let back = append_in(pb::AppendEntriesRequest::decode(&bytes[..]).unwrap()).unwrap();
        assert_eq!((back.cluster, back.from, back.to), (ClusterId([5; 16]), NodeId(2), NodeId(3)));
        let Body::Append(request) = back.body else { panic!("another kind") };
        assert_eq!((request.vote, request.entries), (ballot(), entries()));
        assert_eq!((request.prev_log_id, request.leader_commit), (Some(id(7)), Some(id(6))));
    }

    #[test]
    fn every_reply_comes_back_as_it_went() {
        let replies = [
            AppendEntriesResponse::Success,
            AppendEntriesResponse::PartialSuccess(Some(id(3))),
            AppendEntriesResponse::PartialSuccess(None),
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::HigherVote(ballot()),
        ];
        for reply in replies {
            let Ok(Reply::Append(back)) = appended_in(appended_out(&reply)) else { panic!("another kind") };
            assert_eq!(back, reply);
        }
        let vote = VoteResponse { vote: ballot(), vote_granted: true, last_log_id: Some(id(1)) };
        let Ok(Reply::Vote(back)) = vote_response_in(vote_response_out(&vote)) else {
            panic!("another kind")
        };
        assert_eq!(back, vote);
        let changed = TransferLeaderError::VoteChanged { expected: ballot(), actual: ballot() };
        let behind = TransferLeaderError::LogNotFlushed { expected: Some(id(2)), actual: None };
        for reply in [Ok(()), Err(changed), Err(behind)] {
            let Ok(Reply::TransferLeader(back)) = transferred_in(transferred_out(&reply)) else {
                panic!("other")
            };
            assert_eq!(back, reply);
        }
    }

    #[test]
    fn a_snapshot_must_have_the_hash_of_its_head() {
        let last_membership = StoredMembership::new(Some(id(10)), members());
        let meta = SnapshotMeta { last_log_id: Some(id(12)), last_membership };
        let snapshot = Snapshot { meta: meta.clone(), snapshot: Bytes::from_static(b"state") };
        let request = SnapshotRequest { vote: ballot(), snapshot };
        let head = snapshot_head(header(&sealed(Body::Snapshot(request.clone()))), &request);
        let back = snapshot_in(head.clone(), Bytes::from_static(b"state")).unwrap();
        let Body::Snapshot(back) = back.body else { panic!("another kind") };
        assert_eq!((back.vote, back.snapshot.meta), (ballot(), meta));
        assert!(snapshot_in(head, Bytes::from_static(b"other")).is_err());
    }

    #[test]
    fn what_does_not_make_sense_is_refused() {
        type Spoil = fn(&mut pb::AppendEntriesRequest);
        let spoilt: [(&str, Spoil); 8] = [
            ("no header", |m| m.header = None),
            ("short cluster id", |m| m.header.as_mut().unwrap().cluster_id = Bytes::from_static(b"x")),
            ("no vote", |m| m.vote = None),
            ("no log id", |m| m.entries[0].log_id = None),
            ("no payload", |m| m.entries[0].payload = None),
            ("a hole", |m| drop(m.entries.remove(0))),
            ("the last index there is", |m| m.previous_log_id.as_mut().unwrap().index = u64::MAX),
            ("a voter without an address", |m| {
                let sets = vec![pb::RaftVoterSet { node_ids: vec![77] }];
                let membership = pb::RaftMembership { voter_sets: sets, members: vec![] };
                m.entries[0].payload = Some(pb::raft_entry::Payload::Membership(membership));
            }),
        ];
        for (name, spoil) in spoilt {
            let mut wire = append_wire();
            spoil(&mut wire);
            assert!(append_in(wire).is_err(), "{name}");
        }
        assert!(appended_in(pb::AppendEntriesResponse { result: None }).is_err());
    }
}
