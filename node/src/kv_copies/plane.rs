//! The receiving side: blocks of other nodes' engines into the host tier of ours.

use super::{Source, Sources};
use crate::engine_thread::kv::Chain;
use crate::segments::ClusterCell;
use proto::internal::v1::kv_copies_server::{KvCopies, KvCopiesServer};
use proto::internal::v1::{CopyRequest, CopyResponse, HeldRequest, HeldResponse, KvChain};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};
use types::Hash;

/// Copies that are taken at the same time: each holds its blocks in memory.
const AT_ONCE: usize = 4;
/// Bytes of one copy at most.
const COPY_BYTES: u64 = 256 << 20;
/// A peer that sends nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(20);

/// Mounted on the internal port before engines are there.
#[derive(Clone)]
pub(crate) struct KvPlane {
    cluster: ClusterCell,
    sources: Arc<OnceLock<Sources>>,
    places: Arc<Semaphore>,
}

impl KvPlane {
    pub(crate) fn new(cluster: ClusterCell, sources: Arc<OnceLock<Sources>>) -> KvPlane {
        KvPlane { cluster, sources, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    pub(crate) fn service(self) -> KvCopiesServer<KvPlane> {
        KvCopiesServer::new(self)
    }

    /// The engine that a chain is for: none where blocks would be of no use.
    fn source(&self, named: &KvChain) -> Result<Option<Source>, Status> {
        if self.cluster.get().is_none_or(|ours| ours.0[..] != named.cluster_id[..]) {
            return Err(Status::failed_precondition("this node is of another cluster"));
        }
        let source = self.sources.get().and_then(|sources| sources.get(&named.model));
        Ok(source.filter(|source| source.numerics.0[..] == named.numerics[..]).cloned())
    }
}

fn chain(named: KvChain) -> Result<Chain, Status> {
    let scope = <[u8; 32]>::try_from(&named.scope[..]).map_err(|_| bad("a scope has 32 bytes"))?;
    let class = u8::try_from(named.class).map_err(|_| bad("a class is a small number"))?;
    Ok(Chain { scope, class, tokens: named.tokens.into() })
}

fn bad(what: &str) -> Status {
    Status::invalid_argument(what)
}

async fn next(pieces: &mut Streaming<CopyRequest>) -> Result<Option<CopyRequest>, Status> {
    let message = tokio::time::timeout(SILENCE, pieces.message()).await;
    message.map_err(|_| Status::deadline_exceeded("the sender fell silent"))?
}

/// All bytes that were announced, and no others.
async fn bytes(first: &CopyRequest, pieces: &mut Streaming<CopyRequest>) -> Result<Vec<u8>, Status> {
    if first.total > COPY_BYTES {
        return Err(bad("too many bytes in one copy"));
    }
    let mut bytes = Vec::with_capacity(first.total as usize);
    while let Some(piece) = next(pieces).await? {
        if bytes.len() + piece.data.len() > first.total as usize {
            return Err(bad("more bytes than were announced"));
        }
        bytes.extend_from_slice(&piece.data);
    }
    if bytes.len() as u64 != first.total || Hash::of(&bytes).0[..] != first.sum[..] {
        return Err(Status::data_loss("the bytes are not what was announced"));
    }
    Ok(bytes)
}

#[tonic::async_trait]
impl KvCopies for KvPlane {
    async fn held(&self, request: Request<HeldRequest>) -> Result<Response<HeldResponse>, Status> {
        let named = request.into_inner().chain.ok_or_else(|| bad("no chain"))?;
        let source = self.source(&named)?;
        // Nothing is taken where there is no engine for it: then everything is held, as far as the sender cares.
        let Some(source) = source else { return Ok(Response::new(HeldResponse { blocks: u64::MAX })) };
        let blocks = source.thread.held(chain(named)?).await as u64;
        Ok(Response::new(HeldResponse { blocks }))
    }

    async fn copy(&self, request: Request<Streaming<CopyRequest>>) -> Result<Response<CopyResponse>, Status> {
        let _place = self.places.acquire().await.map_err(|_| Status::unavailable("the node is stopping"))?;
        let mut pieces = request.into_inner();
        let mut first = next(&mut pieces).await?.ok_or_else(|| bad("an empty copy"))?;
        let named = first.chain.take().ok_or_else(|| bad("no chain"))?;
        let Some(source) = self.source(&named)? else { return Ok(Response::new(CopyResponse { blocks: 0 })) };
        let from = usize::try_from(first.from).map_err(|_| bad("no such block"))?;
        let length = usize::try_from(first.block_bytes).ok().filter(|length| *length > 0);
        let length = length.ok_or_else(|| bad("a block has bytes"))?;
        let bytes = bytes(&first, &mut pieces).await?;
        let blocks = bytes.chunks(length).map(<[u8]>::to_vec).collect();
        let blocks = source.thread.copy_in(chain(named)?, from, blocks).await as u64;
        Ok(Response::new(CopyResponse { blocks }))
    }
}
