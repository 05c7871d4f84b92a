//! Calls over gRPC: the client side as a [`Transport`], the server side as a service to mount.

use super::node::RaftNode;
use super::transport::{Body, CallError, Envelope, Plane, Reply, SnapshotRequest, Transport};
use super::wire::{self, Malformed};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{Stream, stream};
use proto::internal::v1 as pb;
use proto::internal::v1::raft_service_client::RaftServiceClient;
use proto::internal::v1::raft_service_server::{RaftService, RaftServiceServer};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use types::limits::CHUNK_BYTES;

/// One message: replicated entries are sent in portions of 2 MiB plus at most one entry.
const MESSAGE_BYTES: usize = 8 << 20;
/// A snapshot larger than this is refused before it is received.
const SNAPSHOT_BYTES: u64 = 1 << 30;
/// Between two chunks of a snapshot.
const CHUNK_PATIENCE: Duration = Duration::from_secs(10);

/// Opens channels to other nodes. Lazily: an unreachable node is no error here.
pub trait Dialer: Send + Sync + 'static {
    /// A new channel to an address like `host:port`.
    ///
    /// # Errors
    /// Only for an address that can never be dialled.
    fn channel(&self, address: &str) -> Result<Channel, String>;
}

/// Dials without encryption.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainDialer;

impl Dialer for PlainDialer {
    fn channel(&self, address: &str) -> Result<Channel, String> {
        endpoint(address).map(|endpoint| endpoint.connect_lazy())
    }
}

/// How a node at `host:port` is called, whatever the connection is made of.
///
/// # Errors
/// Only for an address that can never be dialled.
pub fn endpoint(address: &str) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|e| format!("{address:?} is not an address like host:port: {e}"))?;
    Ok(endpoint
        .connect_timeout(Duration::from_secs(1))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(3))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(2 << 20)
        .initial_connection_window_size(4 << 20))
}

/// Raft calls over gRPC, one channel per address and plane, opened at the first call and used again.
pub struct GrpcTransport {
    dialer: Arc<dyn Dialer>,
    channels: Mutex<BTreeMap<(String, Plane), Channel>>,
}

impl GrpcTransport {
    pub fn new(dialer: Arc<dyn Dialer>) -> Arc<Self> {
        Arc::new(GrpcTransport { dialer, channels: Mutex::default() })
    }

    fn client(&self, address: &str, plane: Plane) -> Result<RaftServiceClient<Channel>, CallError> {
        let mut channels = self.channels.lock().map_err(|_| CallError::Unreachable("broken".into()))?;
        let key = (address.to_string(), plane);
        let channel = match channels.get(&key) {
            Some(channel) => channel.clone(),
            None => {
                let channel = self.dialer.channel(address).map_err(CallError::Unreachable)?;
                channels.insert(key, channel.clone());
                channel
            }
        };
        Ok(RaftServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES))
    }
}

impl Transport for GrpcTransport {
    fn call<'a>(
        &'a self,
        address: &'a str,
        plane: Plane,
        envelope: Envelope,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Reply, CallError>> {
        Box::pin(async move { send(self.client(address, plane)?, envelope, deadline).await })
    }
}

async fn send(
    mut client: RaftServiceClient<Channel>,
    envelope: Envelope,
    deadline: Duration,
) -> Result<Reply, CallError> {
    let header = wire::header(&envelope);
    let reply = match envelope.body {
        Body::Vote(request) => {
            let wire = timed(wire::vote_request_out(header, &request), deadline);
            wire::vote_response_in(client.vote(wire).await.map_err(call_error)?.into_inner())
        }
        Body::PreVote(request) => {
            let wire = timed(wire::pre_vote_request_out(header, &request), deadline);
            wire::pre_vote_response_in(client.pre_vote(wire).await.map_err(call_error)?.into_inner())
        }
        Body::Append(request) => {
            let wire = timed(wire::append_out(header, request), deadline);
            wire::appended_in(client.append_entries(wire).await.map_err(call_error)?.into_inner())
        }
        Body::Snapshot(request) => {
            let parts = timed(snapshot_parts(header, request), deadline);
            wire::installed_in(client.install_snapshot(parts).await.map_err(call_error)?.into_inner())
        }
        Body::TransferLeader(request) => {
            let wire = timed(wire::transfer_out(header, &request), deadline);
            wire::transferred_in(client.transfer_leader(wire).await.map_err(call_error)?.into_inner())
        }
    };
    Ok(reply?)
}

fn timed<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// A head, then chunks.
fn snapshot_parts(
    header: pb::RaftHeader,
    request: SnapshotRequest,
) -> impl Stream<Item = pb::InstallSnapshotRequest> + Send + 'static {
    use pb::install_snapshot_request::Part;
    let head = Part::Head(wire::snapshot_head(header, &request));
    let bytes = request.snapshot.snapshot;
    let starts = (0..bytes.len()).step_by(CHUNK_BYTES);
    let chunks = starts.map(move |at| Part::Chunk(bytes.slice(at..bytes.len().min(at + CHUNK_BYTES))));
    let parts = std::iter::once(head).chain(chunks);
    stream::iter(parts.map(|part| pb::InstallSnapshotRequest { part: Some(part) }))
}

/// What a failed call says about the other side.
fn call_error(status: Status) -> CallError {
    match status.code() {
        tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => CallError::Timeout,
        tonic::Code::FailedPrecondition | tonic::Code::InvalidArgument | tonic::Code::Unimplemented => {
            CallError::Refused(status.message().to_string())
        }
        _ => CallError::Unreachable(status.message().to_string()),
    }
}

/// The server side. Made by [`RaftNode::service`].
pub struct RaftRpc {
    node: RaftNode,
}

impl RaftRpc {
    pub(super) fn service(node: RaftNode) -> RaftServiceServer<RaftRpc> {
        RaftServiceServer::new(RaftRpc { node })
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }

    async fn handle(&self, envelope: Result<Envelope, Malformed>) -> Result<Reply, Status> {
        let envelope = envelope.map_err(|e| Status::invalid_argument(e.to_string()))?;
        self.node.handle(envelope).await.map_err(|error| match error {
            CallError::Refused(reason) => Status::failed_precondition(reason),
            CallError::Timeout => Status::deadline_exceeded("no answer in time"),
            CallError::Unreachable(reason) => Status::unavailable(reason),
        })
    }
}

/// The node answers each request with its own kind of reply.
fn mixed_up() -> Status {
    Status::internal("the reply does not fit the request")
}

#[tonic::async_trait]
impl RaftService for RaftRpc {
    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        match self.handle(wire::vote_request_in(request.into_inner())).await? {
            Reply::Vote(reply) => Ok(Response::new(wire::vote_response_out(&reply))),
            _ => Err(mixed_up()),
        }
    }

    async fn pre_vote(
        &self,
        request: Request<pb::PreVoteRequest>,
    ) -> Result<Response<pb::PreVoteResponse>, Status> {
        match self.handle(wire::pre_vote_request_in(request.into_inner())).await? {
            Reply::PreVote(reply) => Ok(Response::new(wire::pre_vote_response_out(&reply))),
            _ => Err(mixed_up()),
        }
    }

    async fn append_entries(
        &self,
        request: Request<pb::AppendEntriesRequest>,
    ) -> Result<Response<pb::AppendEntriesResponse>, Status> {
        match self.handle(wire::append_in(request.into_inner())).await? {
            Reply::Append(reply) => Ok(Response::new(wire::appended_out(&reply))),
            _ => Err(mixed_up()),
        }
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::InstallSnapshotRequest>>,
    ) -> Result<Response<pb::InstallSnapshotResponse>, Status> {
        let (head, bytes) = receive_snapshot(request.into_inner()).await?;
        match self.handle(wire::snapshot_in(head, bytes)).await? {
            Reply::Snapshot(reply) => Ok(Response::new(wire::installed_out(&reply))),
            _ => Err(mixed_up()),
        }
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        match self.handle(wire::transfer_in(request.into_inner())).await? {
            Reply::TransferLeader(reply) => Ok(Response::new(wire::transferred_out(&reply))),
            _ => Err(mixed_up()),
        }
    }
}

/// Collects a snapshot. Memory grows with what has come, never with what the head claims.
async fn receive_snapshot(
    mut parts: Streaming<pb::InstallSnapshotRequest>,
) -> Result<(pb::RaftSnapshotHead, Bytes), Status> {
    use pb::install_snapshot_request::Part;
    let Some(Part::Head(head)) = next_part(&mut parts).await? else {
        return Err(Status::invalid_argument("a snapshot starts with its head"));
    };
    if head.bytes > SNAPSHOT_BYTES {
        return Err(Status::invalid_argument(format!("a snapshot of {} bytes is too large", head.bytes)));
    }
    let mut bytes = BytesMut::new();
    while let Some(part) = next_part(&mut parts).await? {
        let Part::Chunk(chunk) = part else {
            return Err(Status::invalid_argument("a snapshot has one head"));
        };
        if (bytes.len() + chunk.len()) as u64 > head.bytes {
            return Err(Status::invalid_argument("the snapshot is longer than its head says"));
        }
        bytes.extend_from_slice(&chunk);
    }
    if bytes.len() as u64 != head.bytes {
        return Err(Status::invalid_argument("the snapshot is shorter than its head says"));
    }
    Ok((head, bytes.freeze()))
}

async fn next_part(
    parts: &mut Streaming<pb::InstallSnapshotRequest>,
) -> Result<Option<pb::install_snapshot_request::Part>, Status> {
    let next = tokio::time::timeout(CHUNK_PATIENCE, parts.message()).await;
    match next.map_err(|_| Status::deadline_exceeded("the next chunk did not come"))?? {
        Some(message) => Ok(Some(message.part.ok_or_else(|| Status::invalid_argument("an empty part"))?)),
        None => Ok(None),
    }
}
