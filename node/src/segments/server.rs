//! The answering side.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use proto::internal::v1::segments_server::{Segments, SegmentsServer};
use proto::internal::v1::{
    ModelChunk, PullModelRequest, PullRequest, PushResponse, SaidRequest, SaidResponse, SegmentChunk,
    TokensRequest, TokensResponse, WantRequest, WantResponse,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status, Streaming};
use types::{ClusterId, Hash, ProjectName, TaskUid, limits::CHUNK_BYTES};

use super::parcel::{self, Assembler};
use super::{ClusterCell, HASHES_PER_REQUEST, Traffic, model_files, status};
use crate::live::{LiveChunk, LiveTokens, Said};
use crate::models::ModelStore;
use crate::store::SegmentStore;

/// Transfers at the same time. Each may hold a group of segments in memory.
const TRANSFERS: usize = 32;
/// Segments of a push are stored in groups of about this size: one sync for many, but bounded memory.
const GROUP_BYTES: usize = 8 << 20;
/// Chunks between a store and a slow reader.
const CHUNKS_AHEAD: usize = 4;
/// A node that has just started answers within this time, or says that it cannot yet.
const CATCHING_UP: Duration = Duration::from_millis(1_000);
/// A peer that sends nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(20);
/// Framing of a message around its data.
const MESSAGE_BYTES: usize = CHUNK_BYTES + (64 << 10);

/// Everything the plane serves from. Mount [`SegmentsPlane::service`] on the internal port.
#[derive(Clone)]
pub struct SegmentsPlane {
    pub cluster: ClusterCell,
    pub store: SegmentStore,
    pub live: LiveTokens,
    pub models: ModelStore,
    pub traffic: Arc<Traffic>,
}

/// The service behind a plane.
pub struct SegmentsService {
    plane: SegmentsPlane,
    transfers: Arc<Semaphore>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl SegmentsPlane {
    /// The tonic service, with its size limits set.
    pub fn service(self) -> SegmentsServer<SegmentsService> {
        let service = SegmentsService { plane: self, transfers: Arc::new(Semaphore::new(TRANSFERS)) };
        SegmentsServer::new(service)
            .max_decoding_message_size(MESSAGE_BYTES)
            .accept_compressed(CompressionEncoding::Zstd)
            // Only to those who say that they take it: whoever pulls segments does, whoever pulls a model does not.
            .send_compressed(CompressionEncoding::Zstd)
    }
}

impl SegmentsService {
    /// Checks that a call is for this cluster.
    fn member(&self, cluster_id: &[u8]) -> Result<ClusterId, Status> {
        let Some(ours) = self.plane.cluster.get() else {
            return Err(Status::unavailable("this node has not joined a cluster yet; try again"));
        };
        parcel::check_cluster(*ours, cluster_id).map_err(status::from_parcel)?;
        Ok(*ours)
    }

    /// Waits until this node knows what was forgotten while it was away.
    async fn serving(&self) -> Result<(), Status> {
        let silent = |_| {
            Status::unavailable("this node does not know yet what was forgotten while it was away; try again")
        };
        tokio::time::timeout(CATCHING_UP, self.plane.store.serving()).await.map_err(silent)
    }

    /// A transfer's place. It is held as long as the stream lives, and dropped with it.
    async fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        let place = self.transfers.clone().acquire_owned().await;
        place.map_err(|_closed| Status::unavailable("the node is stopping"))
    }

    async fn receive(&self, mut chunks: Streaming<SegmentChunk>) -> Result<u32, Status> {
        let Some(first) = next(&mut chunks).await? else { return Ok(0) };
        let cluster = self.member(&first.cluster_id)?;
        let project = project(&first.project)?;
        let mut assembler = Assembler::new(cluster, project.clone());
        let (mut group, mut bytes, mut stored) = (Vec::new(), 0, 0);
        let mut chunk = Some(first);
        while let Some(one) = chunk {
            self.plane.traffic.count_received(one.data.len());
            if let Some(segment) = assembler.add(one).map_err(status::from_parcel)? {
                bytes += segment.1.len();
                stored += 1;
                group.push(segment);
            }
            if bytes >= GROUP_BYTES || group.len() >= HASHES_PER_REQUEST {
                self.keep(&project, std::mem::take(&mut group)).await?;
                bytes = 0;
            }
            chunk = next(&mut chunks).await?;
        }
        assembler.finish().map_err(status::from_parcel)?;
        self.keep(&project, group).await?;
        Ok(stored)
    }

    async fn keep(&self, project: &ProjectName, group: Vec<(Hash, Bytes)>) -> Result<(), Status> {
        self.plane.store.put_all(project, group).await.map_err(status::from_store)
    }
}

async fn next(chunks: &mut Streaming<SegmentChunk>) -> Result<Option<SegmentChunk>, Status> {
    match tokio::time::timeout(SILENCE, chunks.message()).await {
        Ok(message) => message,
        Err(_) => Err(Status::deadline_exceeded("the sender fell silent")),
    }
}

fn project(text: &str) -> Result<ProjectName, Status> {
    ProjectName::parse(text).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn hashes(wire: &[Bytes]) -> Result<Vec<Hash>, Status> {
    if wire.len() > HASHES_PER_REQUEST {
        let many = format!("{} hashes in one request, at most {HASHES_PER_REQUEST}", wire.len());
        return Err(Status::invalid_argument(many));
    }
    wire.iter().map(|bytes| parcel::hash(bytes)).collect::<Result<_, _>>().map_err(status::from_parcel)
}

/// Sends the segments that are held, in the order asked for. A receiver that goes away ends it.
async fn send(
    plane: SegmentsPlane,
    cluster: ClusterId,
    project: ProjectName,
    hashes: Vec<Hash>,
    out: mpsc::Sender<Result<SegmentChunk, Status>>,
    _place: OwnedSemaphorePermit,
) {
    for hash in hashes {
        let bytes = match plane.store.get(&project, hash).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            Err(error) => {
                let _receiver_gone = out.send(Err(status::from_store(error))).await;
                return;
            }
        };
        for chunk in parcel::cut(cluster, &project, hash, bytes) {
            let length = chunk.data.len();
            if out.send(Ok(chunk)).await.is_err() {
                return;
            }
            plane.traffic.count_sent(length);
        }
    }
}

fn tokens(chunk: LiveChunk) -> TokensResponse {
    let LiveChunk { step, attempt, offset, tokens, text } = chunk;
    TokensResponse { step, attempt, offset, tokens, text }
}

#[tonic::async_trait]
impl Segments for SegmentsService {
    async fn want(&self, request: Request<WantRequest>) -> Result<Response<WantResponse>, Status> {
        let request = request.into_inner();
        self.member(&request.cluster_id)?;
        let (project, hashes) = (project(&request.project)?, hashes(&request.hashes)?);
        self.serving().await?;
        let missing = self.plane.store.missing(&project, &hashes).await.map_err(status::from_store)?;
        let missing = missing.iter().map(parcel::wire).collect();
        Ok(Response::new(WantResponse { missing, takes_zstd: true }))
    }

    async fn push(
        &self,
        request: Request<Streaming<SegmentChunk>>,
    ) -> Result<Response<PushResponse>, Status> {
        self.serving().await?;
        let _place = self.place().await?;
        let stored = self.receive(request.into_inner()).await?;
        Ok(Response::new(PushResponse { stored }))
    }

    type PullStream = ReceiverStream<Result<SegmentChunk, Status>>;

    async fn pull(&self, request: Request<PullRequest>) -> Result<Response<Self::PullStream>, Status> {
        let request = request.into_inner();
        let cluster = self.member(&request.cluster_id)?;
        let (project, hashes) = (project(&request.project)?, hashes(&request.hashes)?);
        self.serving().await?;
        let place = self.place().await?;
        let (out, chunks) = mpsc::channel(CHUNKS_AHEAD);
        tokio::spawn(send(self.plane.clone(), cluster, project, hashes, out, place));
        Ok(Response::new(ReceiverStream::new(chunks)))
    }

    type TokensStream = Answers<TokensResponse>;

    async fn tokens(&self, request: Request<TokensRequest>) -> Result<Response<Self::TokensStream>, Status> {
        let request = request.into_inner();
        self.member(&request.cluster_id)?;
        let project = project(&request.project)?;
        let task = TaskUid::parse(&request.task).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let chunks = self.plane.live.subscribe(&project, task).map_err(status::from_watchers)?;
        Ok(Response::new(Box::pin(chunks.map(|chunk| Ok(tokens(chunk))))))
    }

    async fn said(&self, request: Request<SaidRequest>) -> Result<Response<SaidResponse>, Status> {
        let request = request.into_inner();
        self.member(&request.cluster_id)?;
        let project = project(&request.project)?;
        let task = TaskUid::parse(&request.task).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let after = Said { attempt: &request.attempt, tokens: request.tokens };
        let more = self.plane.live.said(&project, task, request.step, &after).map(tokens);
        Ok(Response::new(SaidResponse { more }))
    }

    type PullModelStream = ReceiverStream<Result<ModelChunk, Status>>;

    async fn pull_model(
        &self,
        request: Request<PullModelRequest>,
    ) -> Result<Response<Self::PullModelStream>, Status> {
        let request = request.into_inner();
        self.member(&request.cluster_id)?;
        let digest = parcel::hash(&request.digest).map_err(status::from_parcel)?;
        let place = self.place().await?;
        let chunks = model_files::read(self.plane.models.clone(), digest, place).await?;
        Ok(Response::new(ReceiverStream::new(chunks)))
    }
}
