//! openraft's view of the other nodes: one client for each, over the transport, every call with a deadline.

use super::transport::{Body, CallError, Envelope, Plane, Reply, SnapshotRequest, Transport};
use super::type_config::{Snapshot, Types, Vote};
use bytes::Bytes;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use types::{ClusterId, NodeId};

#[derive(Clone)]
pub(super) struct Network {
    pub(super) cluster: ClusterId,
    pub(super) from: NodeId,
    pub(super) transport: Arc<dyn Transport>,
    /// Calls that carry entries may take this long: openraft gives them a heartbeat's time, which a sync on
    /// a busy disk can exceed.
    pub(super) append: Duration,
}

/// One other node.
pub(super) struct Peer {
    network: Network,
    to: NodeId,
    address: String,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        Peer { network: self.clone(), to: NodeId(target), address: node.addr.clone() }
    }
}

impl Peer {
    async fn call(&self, plane: Plane, body: Body, deadline: Duration) -> Result<Reply, CallError> {
        let network = &self.network;
        let envelope = Envelope { cluster: network.cluster, from: network.from, to: self.to, body };
        let call = network.transport.call(&self.address, plane, envelope, deadline);
        tokio::time::timeout(deadline, call).await.unwrap_or(Err(CallError::Timeout))
    }

    fn error(&self, error: CallError, action: RPCTypes, timeout: Duration) -> RPCError<Types> {
        match error {
            CallError::Timeout => {
                RPCError::Timeout(Timeout { action, id: self.network.from.0, target: self.to.0, timeout })
            }
            CallError::Unreachable(reason) => RPCError::Unreachable(Unreachable::from_string(reason)),
            CallError::Refused(reason) => {
                tracing::warn!(to = %self.to, address = %self.address, %reason, "a raft call was refused");
                RPCError::Unreachable(Unreachable::from_string(reason))
            }
        }
    }
}

/// A reply of another kind than the request: only a broken transport does that.
fn mixed_up() -> RPCError<Types> {
    RPCError::Network(NetworkError::from_string("the reply does not fit the request"))
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let heartbeat = rpc.entries.is_empty();
        let from_the_start = rpc.prev_log_id.is_none();
        let deadline = if heartbeat { option.soft_ttl() } else { option.soft_ttl().max(self.network.append) };
        match self.call(Plane::Control, Body::Append(rpc), deadline).await {
            // Nothing is before the start, so nothing can conflict; openraft takes that for granted.
            Ok(Reply::Append(AppendEntriesResponse::Conflict)) if from_the_start => Err(mixed_up()),
            Ok(Reply::Append(reply)) => Ok(reply),
            Ok(_) => Err(mixed_up()),
            Err(error) => Err(self.error(error, RPCTypes::AppendEntries, deadline)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(Plane::Control, Body::Vote(rpc), option.soft_ttl()).await {
            Ok(Reply::Vote(reply)) => Ok(reply),
            Ok(_) => Err(mixed_up()),
            Err(error) => Err(self.error(error, RPCTypes::Vote, option.soft_ttl())),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(Plane::Control, Body::PreVote(rpc), option.soft_ttl()).await {
            Ok(Reply::PreVote(reply)) => Ok(reply),
            Ok(_) => Err(mixed_up()),
            Err(error) => Err(self.error(error, RPCTypes::Vote, option.soft_ttl())),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let body = Body::Snapshot(SnapshotRequest { vote, snapshot });
        let reply = tokio::select! {
            biased;
            closed = cancel => return Err(StreamingError::Closed(closed)),
            reply = self.call(Plane::Bulk, body, option.soft_ttl()) => reply,
        };
        match reply {
            Ok(Reply::Snapshot(reply)) => Ok(SnapshotResponse::new(reply.vote)),
            Ok(_) => Err(mixed_up().into()),
            Err(error) => Err(self.error(error, RPCTypes::InstallSnapshot, option.soft_ttl()).into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.call(Plane::Control, Body::TransferLeader(rpc), option.soft_ttl()).await {
            Ok(Reply::TransferLeader(reply)) => Ok(reply),
            Ok(_) => Err(mixed_up()),
            Err(error) => Err(self.error(error, RPCTypes::TransferLeader, option.soft_ttl())),
        }
    }
}
