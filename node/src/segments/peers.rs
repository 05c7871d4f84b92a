//! The asking side: one lazily connected channel a peer, used for this plane alone, so that a big transfer
//! never delays a heartbeat.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use proto::internal::v1::segments_client::SegmentsClient;
use proto::internal::v1::{
    ModelChunk, PullModelRequest, PullRequest, SaidRequest, SegmentChunk, TokensRequest, TokensResponse,
    WantRequest, WantResponse,
};
use tokio::time::timeout;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use types::{ClusterId, Hash, NodeId, ProjectName, TaskUid, limits::CHUNK_BYTES};

use super::cap::LinkCap;
use super::lanes::{Lane, Lanes};
use super::model_files::Receiving;
use super::parcel::{self, Assembler, ParcelError};
use super::{ClusterCell, HASHES_PER_REQUEST, Traffic, status};
use crate::live::{LiveChunk, Said};
use crate::models::ModelStore;
use crate::store::{SegmentStore, StoreError};

/// The first try of a holder while there are others: a frozen node must not hold up a failover.
const FIRST_PATIENCE: Duration = Duration::from_millis(1_500);
/// The wait for an answer, or for the next chunk, otherwise.
const PATIENCE: Duration = Duration::from_secs(10);
/// A push also waits for the peer's disk.
const PUSH_PATIENCE: Duration = Duration::from_secs(30);
/// HTTP/2 windows: the default of 64 KiB makes a big transfer wait for every round trip.
const WINDOW_BYTES: u32 = 4 << 20;
const CONNECT: Duration = Duration::from_secs(2);
/// Segments of so many bytes together are pushed without asking which of them are held already.
const UNASKED_BYTES: usize = 4 << 10;
/// A connection that carries nothing is checked this often while a call waits on it.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Finds the internal address of a node, as `host:port`. None when the node is not a member.
pub trait Addresses: Send + Sync + 'static {
    fn address(&self, node: NodeId) -> Option<String>;
}

impl<F: Fn(NodeId) -> Option<String> + Send + Sync + 'static> Addresses for F {
    fn address(&self, node: NodeId) -> Option<String> {
        self(node)
    }
}

/// Makes connections. Must not block: connecting happens at the first call.
pub trait Dial: Send + Sync + 'static {
    fn dial(&self, address: &str) -> Result<Channel, String>;
}

/// Plain TCP.
pub struct PlainDial;

impl Dial for PlainDial {
    fn dial(&self, address: &str) -> Result<Channel, String> {
        endpoint(address).map(|endpoint| endpoint.connect_lazy())
    }
}

/// How a node at `host:port` is called, whatever the connection is made of.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| e.to_string())?;
    Ok(endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES))
}

/// Why a peer could not give or take.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PeerError {
    #[error(
        "this node has not joined a cluster yet; start it with `join` addresses, or run `quorate cluster init`"
    )]
    NoCluster,
    #[error("{node} has no known address; it may have left the cluster, see `quorate node list`")]
    NoAddress { node: NodeId },
    #[error(
        "{node} at {address} cannot be reached: {why}; check that it runs and that its internal port is open"
    )]
    Unreachable { node: NodeId, address: String, why: String },
    #[error("{node} did not {what} within {waited_ms} ms; whether it will is unknown")]
    TimedOut { node: NodeId, what: &'static str, waited_ms: u64 },
    #[error("{node} refused: {why}")]
    Refused { node: NodeId, why: String },
    #[error("{node} sent something else than it was asked for: {why}")]
    Damaged { node: NodeId, why: String },
    #[error(
        "{count} of the wanted segments, {first} among them, are with none of the holders asked ({asked}); start the nodes that hold them"
    )]
    Missing { count: usize, first: Hash, asked: String },
    #[error("no holder could give the model {name} ({asked}); run `quorate model pull` on this node")]
    NoModel { name: String, asked: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PeerError {
    /// Whether the same call may succeed later, or at another node.
    pub fn is_retriable(&self) -> bool {
        match self {
            PeerError::Unreachable { .. }
            | PeerError::TimedOut { .. }
            | PeerError::Damaged { .. }
            | PeerError::Missing { .. }
            | PeerError::NoModel { .. }
            | PeerError::NoCluster => true,
            PeerError::NoAddress { .. } | PeerError::Refused { .. } | PeerError::Store(_) => false,
        }
    }
}

/// The other nodes, as holders of segments. Clones share their connections.
#[derive(Clone)]
pub struct Peers {
    cluster: ClusterCell,
    addresses: Arc<dyn Addresses>,
    dial: Arc<dyn Dial>,
    traffic: Arc<Traffic>,
    channels: Arc<Mutex<BTreeMap<NodeId, (String, Channel)>>>,
    lanes: Lanes,
    cap: LinkCap,
}

/// A connection to a node, the cluster it is for, and the bound that it keeps to.
pub(crate) struct Wire {
    pub(crate) node: NodeId,
    address: String,
    pub(crate) cluster: ClusterId,
    pub(crate) cap: LinkCap,
    pub(crate) channel: Channel,
}

/// One node, for one call.
struct Peer {
    node: NodeId,
    cap: LinkCap,
    address: String,
    cluster: ClusterId,
    client: SegmentsClient<Channel>,
}

impl Peers {
    pub fn new(
        cluster: ClusterCell,
        addresses: Arc<dyn Addresses>,
        dial: Arc<dyn Dial>,
        traffic: Arc<Traffic>,
    ) -> Peers {
        Peers {
            cluster,
            addresses,
            dial,
            traffic,
            channels: Arc::default(),
            lanes: Lanes::default(),
            cap: LinkCap::default(),
        }
    }

    /// The same, with a bound on what moves over each link.
    pub fn capped(self, cap: LinkCap) -> Peers {
        Peers { cap, ..self }
    }

    /// Gives a node those of the segments that it lacks, or all where asking costs more. They are durable there when
    /// this answers Ok, with the bytes that were sent.
    pub async fn push(
        &self,
        node: NodeId,
        project: &ProjectName,
        segments: &[(Hash, Bytes)],
    ) -> Result<u64, PeerError> {
        let mut peer = self.peer(node)?;
        // A question costs a round trip, and little bytes cost less than that.
        let length: usize = segments.iter().map(|(_, bytes)| bytes.len()).sum();
        if length <= UNASKED_BYTES && segments.len() <= HASHES_PER_REQUEST {
            let lane = Lane { node, project: project.clone() };
            return self.push_together(lane, segments.to_vec()).await.map(|()| length as u64);
        }
        let mut bytes = 0;
        for group in segments.chunks(HASHES_PER_REQUEST) {
            let hashes: Vec<Hash> = group.iter().map(|(hash, _)| *hash).collect();
            let (wanted, takes_zstd) = peer.want(project, &hashes).await?;
            if takes_zstd {
                peer.client = peer.client.clone().send_compressed(CompressionEncoding::Zstd);
            }
            let chosen = group.iter().filter(|(hash, _)| wanted.contains(hash)).cloned().collect();
            bytes += peer.send(project, chosen, &self.traffic).await?;
        }
        Ok(bytes)
    }

    /// Those of the segments that a node does not hold. The others it keeps for a while from now on.
    pub async fn lacks(
        &self,
        node: NodeId,
        project: &ProjectName,
        hashes: &[Hash],
    ) -> Result<BTreeSet<Hash>, PeerError> {
        let mut peer = self.peer(node)?;
        let mut lacking = BTreeSet::new();
        for group in hashes.chunks(HASHES_PER_REQUEST) {
            lacking.extend(peer.want(project, group).await?.0);
        }
        Ok(lacking)
    }

    async fn push_together(&self, lane: Lane, segments: Vec<(Hash, Bytes)>) -> Result<(), PeerError> {
        let (idle, outcome) = self.lanes.join(&lane, segments);
        if idle {
            // By itself: whoever came first may go away before the others have their answer.
            tokio::spawn(self.clone().drive(lane.clone()));
        }
        let stopped = |_| PeerError::TimedOut { node: lane.node, what: "store", waited_ms: 0 };
        outcome.await.map_err(stopped)?
    }

    async fn drive(self, lane: Lane) {
        while let Some(mut together) = self.lanes.next(&lane) {
            let segments = std::mem::take(&mut together.segments);
            let sent = match self.peer(lane.node) {
                Ok(mut peer) => peer.send(&lane.project, segments, &self.traffic).await.map(|_bytes| ()),
                Err(error) => Err(error),
            };
            together.ended(&sent);
        }
    }

    /// Gets segments from whichever of the nodes have them, in the order given, each checked against its name.
    /// Nodes are asked in turn for what is still missing; one that only hangs is asked again at the end.
    pub async fn pull(
        &self,
        nodes: &[NodeId],
        project: &ProjectName,
        hashes: &[Hash],
    ) -> Result<Vec<(Hash, Bytes)>, PeerError> {
        let mut found = BTreeMap::new();
        let mut wanted: BTreeSet<Hash> = hashes.iter().copied().collect();
        let mut asked = Vec::new();
        let mut slow = Vec::new();
        for &node in nodes {
            let patience = if nodes.len() > 1 { FIRST_PATIENCE } else { PATIENCE };
            let answer = self.pull_from(node, project, &mut wanted, &mut found, patience).await;
            match answer {
                Err(PeerError::TimedOut { .. }) => slow.push(node),
                Err(error) => asked.push(error.to_string()),
                Ok(()) => asked.push(format!("{node} does not hold them all")),
            }
        }
        for node in slow {
            let answer = self.pull_from(node, project, &mut wanted, &mut found, PATIENCE).await;
            asked.extend(answer.err().map(|error| error.to_string()));
        }
        if let Some(&first) = wanted.first() {
            let asked = if asked.is_empty() { "nobody".into() } else { asked.join("; ") };
            return Err(PeerError::Missing { count: wanted.len(), first, asked });
        }
        Ok(hashes.iter().map(|hash| (*hash, found[hash].clone())).collect())
    }

    /// Asks one node for what is wanted. What has arrived stays, even when the rest fails.
    async fn pull_from(
        &self,
        node: NodeId,
        project: &ProjectName,
        wanted: &mut BTreeSet<Hash>,
        found: &mut BTreeMap<Hash, Bytes>,
        patience: Duration,
    ) -> Result<(), PeerError> {
        let mut peer = self.peer(node)?;
        let all: Vec<Hash> = wanted.iter().copied().collect();
        for group in all.chunks(HASHES_PER_REQUEST) {
            let mut chunks = peer.ask(project, group, patience).await?;
            let mut assembler = Assembler::new(peer.cluster, project.clone());
            while let Some(chunk) = peer.next(&mut chunks, patience).await? {
                self.traffic.count_received(chunk.data.len());
                self.cap.pass(node, chunk.data.len()).await;
                if let Some((hash, bytes)) = assembler.add(chunk).map_err(|e| peer.damaged(e))?
                    && wanted.remove(&hash)
                {
                    found.insert(hash, bytes);
                }
            }
            assembler.finish().map_err(|e| peer.damaged(e))?;
        }
        Ok(())
    }

    /// Pulls what the store lacks, and stores it: all of the segments are held durably when this answers Ok.
    pub async fn fetch(
        &self,
        store: &SegmentStore,
        nodes: &[NodeId],
        project: &ProjectName,
        hashes: &[Hash],
    ) -> Result<(), PeerError> {
        let missing = store.missing(project, hashes).await?;
        for group in missing.chunks(HASHES_PER_REQUEST) {
            let segments = self.pull(nodes, project, group).await?;
            store.put_all(project, segments).await?;
        }
        Ok(())
    }

    /// Live tokens of a task that another node runs. The stream ends when it does not run there any more.
    pub async fn tokens(
        &self,
        node: NodeId,
        project: &ProjectName,
        task: TaskUid,
    ) -> Result<BoxStream<'static, Result<LiveChunk, PeerError>>, PeerError> {
        let mut peer = self.peer(node)?;
        let request = TokensRequest {
            cluster_id: Bytes::copy_from_slice(&peer.cluster.0),
            project: project.to_string(),
            task: task.to_string(),
        };
        let answer = timeout(PATIENCE, peer.client.tokens(request)).await;
        let answer = answer.map_err(|_| peer.timed_out("answer", PATIENCE))?.map_err(|e| peer.failed(e))?;
        let chunks = answer.into_inner().map(move |chunk| chunk.map(live).map_err(|e| peer.failed(e)));
        Ok(chunks.boxed())
    }

    /// What was said in a step of a task that another node runs or ran; see [`crate::live::LiveTokens::said`].
    pub async fn said(
        &self,
        node: NodeId,
        project: &ProjectName,
        task: TaskUid,
        step: u64,
        after: &Said<'_>,
    ) -> Result<Option<LiveChunk>, PeerError> {
        let mut peer = self.peer(node)?;
        let request = SaidRequest {
            cluster_id: Bytes::copy_from_slice(&peer.cluster.0),
            project: project.to_string(),
            task: task.to_string(),
            step,
            attempt: after.attempt.to_string(),
            tokens: after.tokens,
        };
        let answer = timeout(FIRST_PATIENCE, peer.client.said(request)).await;
        let answer =
            answer.map_err(|_| peer.timed_out("answer", FIRST_PATIENCE))?.map_err(|e| peer.failed(e))?;
        Ok(answer.into_inner().more.map(live))
    }

    /// Gets a model from whichever of the nodes have it; checked and in its place when this answers Ok.
    pub async fn pull_model(
        &self,
        nodes: &[NodeId],
        name: &str,
        digest: Hash,
        models: &ModelStore,
    ) -> Result<PathBuf, PeerError> {
        let mut asked = Vec::new();
        for &node in nodes {
            match self.pull_model_from(node, name, digest, models).await {
                Ok(path) => return Ok(path),
                Err(error) => asked.push(error.to_string()),
            }
        }
        let asked = if asked.is_empty() { "nobody was asked".into() } else { asked.join("; ") };
        Err(PeerError::NoModel { name: name.to_string(), asked })
    }

    async fn pull_model_from(
        &self,
        node: NodeId,
        name: &str,
        digest: Hash,
        models: &ModelStore,
    ) -> Result<PathBuf, PeerError> {
        let mut peer = self.peer(node)?;
        let cluster_id = Bytes::copy_from_slice(&peer.cluster.0);
        let request = PullModelRequest { cluster_id, digest: parcel::wire(&digest) };
        let answer = timeout(PATIENCE, peer.client.pull_model(request)).await;
        let mut chunks =
            answer.map_err(|_| peer.timed_out("answer", PATIENCE))?.map_err(|e| peer.failed(e))?.into_inner();
        let receiving = Receiving::start(models.clone(), name, digest);
        let mut done = 0;
        while let Some(chunk) = peer.next(&mut chunks, PATIENCE).await? {
            if chunk.offset != done {
                return Err(peer.out_of_order(&chunk, done));
            }
            done += chunk.data.len() as u64;
            self.cap.pass(node, chunk.data.len()).await;
            if !receiving.write(chunk.data).await {
                break;
            }
        }
        let model = receiving.finish().await.map_err(|why| PeerError::Damaged { node, why })?;
        Ok(model.path)
    }

    /// A connection for another plane between nodes.
    pub(crate) fn wire(&self, node: NodeId) -> Result<Wire, PeerError> {
        let cluster = *self.cluster.get().ok_or(PeerError::NoCluster)?;
        let address = self.addresses.address(node).ok_or(PeerError::NoAddress { node })?;
        let channel = self.channel(node, &address)?;
        Ok(Wire { node, address, cluster, cap: self.cap.clone(), channel })
    }

    fn peer(&self, node: NodeId) -> Result<Peer, PeerError> {
        let Wire { node, address, cluster, cap, channel } = self.wire(node)?;
        let client = SegmentsClient::new(channel).max_decoding_message_size(CHUNK_BYTES + (64 << 10));
        Ok(Peer { node, cap, address, cluster, client })
    }

    /// The connection to a node: kept while its address stays, and reconnecting by itself.
    fn channel(&self, node: NodeId, address: &str) -> Result<Channel, PeerError> {
        let mut channels = self.channels.lock().expect("dialing does not panic");
        match channels.get(&node) {
            Some((known, channel)) if known == address => Ok(channel.clone()),
            _new_or_moved => {
                let channel = self.dial.dial(address).map_err(|why| PeerError::Unreachable {
                    node,
                    address: address.to_string(),
                    why,
                })?;
                channels.insert(node, (address.to_string(), channel.clone()));
                Ok(channel)
            }
        }
    }
}

impl Peer {
    /// Which of them the peer lacks, and whether it takes them compressed.
    async fn want(
        &mut self,
        project: &ProjectName,
        hashes: &[Hash],
    ) -> Result<(BTreeSet<Hash>, bool), PeerError> {
        let request = WantRequest {
            cluster_id: Bytes::copy_from_slice(&self.cluster.0),
            project: project.to_string(),
            hashes: hashes.iter().map(parcel::wire).collect(),
        };
        let answer = timeout(PATIENCE, self.client.want(request)).await;
        let answer = answer.map_err(|_| self.timed_out("answer", PATIENCE))?.map_err(|e| self.failed(e))?;
        let WantResponse { missing, takes_zstd } = answer.into_inner();
        let missing = missing.iter().map(|bytes| parcel::hash(bytes)).collect::<Result<_, _>>();
        Ok((missing.map_err(|e| self.damaged(e))?, takes_zstd))
    }

    async fn send(
        &mut self,
        project: &ProjectName,
        segments: Vec<(Hash, Bytes)>,
        traffic: &Arc<Traffic>,
    ) -> Result<u64, PeerError> {
        let bytes: usize = segments.iter().map(|(_, bytes)| bytes.len()).sum();
        if segments.is_empty() {
            return Ok(0);
        }
        let (cluster, project, traffic) = (self.cluster, project.clone(), traffic.clone());
        let chunks =
            segments.into_iter().flat_map(move |(hash, bytes)| parcel::cut(cluster, &project, hash, bytes));
        let counted = chunks.inspect(move |chunk| traffic.count_sent(chunk.data.len()));
        // Bytes need time, at a megabyte a second in the worst network that is still worth waiting for.
        let patience = PUSH_PATIENCE + Duration::from_secs(bytes as u64 >> 20) + self.cap.time_of(bytes);
        let (node, cap) = (self.node, self.cap.clone());
        let paced = futures::stream::iter(counted).then(move |chunk| {
            let cap = cap.clone();
            async move {
                cap.pass(node, chunk.data.len()).await;
                chunk
            }
        });
        let answer = timeout(patience, self.client.push(paced)).await;
        answer.map_err(|_| self.timed_out("store", patience))?.map_err(|e| self.failed(e))?;
        Ok(bytes as u64)
    }

    async fn ask(
        &mut self,
        project: &ProjectName,
        hashes: &[Hash],
        patience: Duration,
    ) -> Result<Streaming<SegmentChunk>, PeerError> {
        let request = PullRequest {
            cluster_id: Bytes::copy_from_slice(&self.cluster.0),
            project: project.to_string(),
            hashes: hashes.iter().map(parcel::wire).collect(),
        };
        let mut client = self.client.clone().accept_compressed(CompressionEncoding::Zstd);
        let answer = timeout(patience, client.pull(request)).await;
        let answer = answer.map_err(|_| self.timed_out("answer", patience))?.map_err(|e| self.failed(e))?;
        Ok(answer.into_inner())
    }

    async fn next<T>(&self, chunks: &mut Streaming<T>, patience: Duration) -> Result<Option<T>, PeerError> {
        let message = timeout(patience, chunks.message()).await;
        message.map_err(|_| self.timed_out("send", patience))?.map_err(|e| self.failed(e))
    }

    fn failed(&self, status: Status) -> PeerError {
        let (node, why) = (self.node, status.message().to_string());
        match status.code() {
            Code::DataLoss => PeerError::Damaged { node, why },
            code if status::is_retriable(code) => {
                PeerError::Unreachable { node, address: self.address.clone(), why }
            }
            _ => PeerError::Refused { node, why },
        }
    }

    fn timed_out(&self, what: &'static str, waited: Duration) -> PeerError {
        PeerError::TimedOut { node: self.node, what, waited_ms: waited.as_millis() as u64 }
    }

    fn damaged(&self, error: ParcelError) -> PeerError {
        PeerError::Damaged { node: self.node, why: error.to_string() }
    }

    fn out_of_order(&self, chunk: &ModelChunk, done: u64) -> PeerError {
        let why = format!("a piece of a model at {} came after {done} bytes", chunk.offset);
        PeerError::Damaged { node: self.node, why }
    }
}

fn live(response: TokensResponse) -> LiveChunk {
    let TokensResponse { step, attempt, offset, tokens, text } = response;
    LiveChunk { step, attempt, offset, tokens, text }
}
