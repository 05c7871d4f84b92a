//! One chain's blocks to one node: what it lacks of them.

use super::Source;
use crate::engine_thread::kv::Chain;
use crate::segments::{PeerError, Peers, Wire};
use bytes::Bytes;
use futures::StreamExt;
use proto::internal::v1::kv_copies_client::KvCopiesClient;
use proto::internal::v1::{CopyRequest, HeldRequest, KvChain};
use std::time::Duration;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;
use types::{Hash, NodeId, limits::CHUNK_BYTES};

/// Blocks that are in memory at the same time on their way.
const AT_ONCE: usize = 16;
/// A node that answers does so within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Gives a node the blocks of a chain that it lacks and we have. Answers how many.
pub(super) async fn send(
    peers: &Peers,
    node: NodeId,
    model: &str,
    source: &Source,
    chain: &Chain,
) -> Result<u64, PeerError> {
    let wire = peers.wire(node)?;
    let named = named(&wire, model, source, chain);
    let mut client = KvCopiesClient::new(wire.channel.clone());
    let held = quick(node, client.held(HeldRequest { chain: Some(named.clone()) })).await?;
    let first = usize::try_from(held.into_inner().blocks).unwrap_or(usize::MAX);
    let mut from = first;
    loop {
        let blocks = source.thread.copy_out(chain.clone(), from, AT_ONCE).await;
        if blocks.is_empty() {
            break;
        }
        let taken = piece(&wire, &mut client, named.clone(), from, &blocks).await?;
        from += taken;
        if taken < blocks.len() {
            break;
        }
    }
    Ok((from - first) as u64)
}

fn named(wire: &Wire, model: &str, source: &Source, chain: &Chain) -> KvChain {
    KvChain {
        cluster_id: Bytes::copy_from_slice(&wire.cluster.0),
        model: model.to_string(),
        numerics: Bytes::copy_from_slice(&source.numerics.0),
        scope: Bytes::copy_from_slice(&chain.scope),
        class: chain.class.into(),
        tokens: chain.tokens.to_vec(),
    }
}

/// Answers how many of the blocks the node has now.
async fn piece(
    wire: &Wire,
    client: &mut KvCopiesClient<Channel>,
    chain: KvChain,
    from: usize,
    blocks: &[Vec<u8>],
) -> Result<usize, PeerError> {
    let data = Bytes::from(blocks.concat());
    let (node, cap, total) = (wire.node, wire.cap.clone(), data.len());
    let first = CopyRequest {
        chain: Some(chain),
        from: from as u64,
        block_bytes: blocks[0].len() as u64,
        sum: Bytes::copy_from_slice(&Hash::of(&data).0),
        total: total as u64,
        data: Bytes::new(),
    };
    let cuts: Vec<Bytes> =
        (0..total).step_by(CHUNK_BYTES).map(|at| data.slice(at..(at + CHUNK_BYTES).min(total))).collect();
    let rest = cuts.into_iter().map(|data| CopyRequest { data, ..CopyRequest::default() });
    let paced = futures::stream::iter(std::iter::once(first).chain(rest)).then(move |request| {
        let cap = cap.clone();
        async move {
            cap.pass(node, request.data.len()).await;
            request
        }
    });
    // Bytes need time, at a megabyte a second in the worst network that is still worth waiting for.
    let patience = PATIENCE + Duration::from_secs(total as u64 >> 20) + wire.cap.time_of(total);
    let answer = timeout(patience, client.copy(paced)).await;
    let answer = answer.map_err(|_| timed_out(node, patience))?.map_err(|status| refused(node, &status))?;
    Ok(usize::try_from(answer.into_inner().blocks).unwrap_or(0).min(blocks.len()))
}

async fn quick<T>(node: NodeId, call: impl Future<Output = Result<T, Status>>) -> Result<T, PeerError> {
    let answer = timeout(PATIENCE, call).await.map_err(|_| timed_out(node, PATIENCE))?;
    answer.map_err(|status| refused(node, &status))
}

fn timed_out(node: NodeId, waited: Duration) -> PeerError {
    PeerError::TimedOut { node, what: "take KV blocks", waited_ms: waited.as_millis() as u64 }
}

fn refused(node: NodeId, status: &Status) -> PeerError {
    PeerError::Refused { node, why: status.message().to_string() }
}
