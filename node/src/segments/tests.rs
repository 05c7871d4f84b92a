//! Two nodes over real sockets.

use super::*;
use crate::live::{LiveChunk, LiveTokens};
use crate::models::{ModelStore, Silent};
use crate::store::{MemoryIndex, SegmentStore};
use bytes::Bytes;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;
use sys::disk::CrashDisk;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use types::{Hash, NodeId, ProjectName, TaskUid, limits::CHUNK_BYTES};

pub(super) struct Node {
    pub(super) id: NodeId,
    disk: CrashDisk,
    pub(super) plane: SegmentsPlane,
    pub(super) peers: Peers,
    server: tokio::task::JoinHandle<()>,
    _models: tempfile::TempDir,
}

/// Nodes find each other here, as they would in the ledger.
pub(super) type Directory = Arc<Mutex<BTreeMap<NodeId, String>>>;

pub(super) fn project() -> ProjectName {
    ProjectName::parse("a").unwrap()
}

fn segment(text: impl Into<Bytes>) -> (Hash, Bytes) {
    let bytes = text.into();
    (context::name(&project(), &bytes), bytes)
}

fn hashes(segments: &[(Hash, Bytes)]) -> Vec<Hash> {
    segments.iter().map(|(hash, _)| *hash).collect()
}

pub(super) async fn node(directory: &Directory, id: u64, cluster: [u8; 16]) -> Node {
    let (id, disk, models) = (NodeId(id), CrashDisk::new(), tempfile::tempdir().unwrap());
    let store =
        SegmentStore::open(Arc::new(disk.clone()), Box::new(MemoryIndex::default()), [1; 16]).unwrap();
    let plane = SegmentsPlane {
        cluster: Arc::new(OnceLock::from(ClusterId(cluster))),
        store,
        live: LiveTokens::default(),
        models: ModelStore::open(models.path()),
        traffic: Arc::default(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    directory.lock().unwrap().insert(id, listener.local_addr().unwrap().to_string());
    let router = tonic::transport::Server::builder().add_service(plane.clone().service());
    let server = tokio::spawn(async move {
        router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
    });
    let book = directory.clone();
    let addresses = Arc::new(move |node| book.lock().unwrap().get(&node).cloned());
    let peers = Peers::new(plane.cluster.clone(), addresses, Arc::new(PlainDial), plane.traffic.clone());
    Node { id, disk, plane, peers, server, _models: models }
}

#[tokio::test]
async fn only_what_the_peer_lacks_travels_and_is_durable() {
    let directory = Directory::default();
    let (a, b) = (node(&directory, 1, [7; 16]).await, node(&directory, 2, [7; 16]).await);
    let big = segment(vec![9; 2 * CHUNK_BYTES + 5]);
    let segments = vec![segment("one"), big.clone(), segment("three")];
    b.plane.store.put_all(&project(), vec![big]).await.unwrap();
    assert_eq!(a.peers.push(b.id, &project(), &segments).await.unwrap(), 8);
    assert_eq!(a.peers.push(b.id, &project(), &segments).await.unwrap(), 0);
    assert_eq!((a.plane.traffic.sent(), b.plane.traffic.received()), (8, 8));
    b.disk.crash(1);
    let disk = Arc::new(b.disk.clone());
    let again = SegmentStore::open(disk, Box::new(MemoryIndex::default()), [1; 16]).unwrap();
    for (hash, bytes) in segments {
        assert_eq!(again.get(&project(), hash).await.unwrap(), Some(bytes));
    }
}

#[tokio::test]
async fn a_cap_holds_for_what_is_pushed_and_pulled_together_and_other_links_are_free() {
    let directory = Directory::default();
    let (a, b, c) = (
        node(&directory, 1, [7; 16]).await,
        node(&directory, 2, [7; 16]).await,
        node(&directory, 3, [7; 16]).await,
    );
    let noise = |seed: u8| {
        let mut state = u32::from(seed) + 1;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        segment((0..CHUNK_BYTES).map(|_| next()).collect::<Vec<u8>>())
    };
    let (sent, held, elsewhere) = (noise(1), noise(2), noise(3));
    b.plane.store.put_all(&project(), vec![held.clone()]).await.unwrap();
    let bytes_second = 4 << 20;
    let peers = a.peers.clone().capped(LinkCap::new(bytes_second));
    let (project, nodes, wanted) = (project(), [b.id], [held.0]);
    let began = std::time::Instant::now();
    let segments = [sent];
    let both =
        async { tokio::join!(peers.push(b.id, &project, &segments), peers.pull(&nodes, &project, &wanted)) };
    let other = async {
        peers.push(c.id, &project, &[elsewhere]).await.unwrap();
        began.elapsed()
    };
    let ((pushed, pulled), other) = tokio::join!(both, other);
    let took = began.elapsed();
    assert_eq!((pushed.unwrap(), pulled.unwrap().len()), (CHUNK_BYTES as u64, 1));
    let least = Duration::from_secs_f64(2.0 * CHUNK_BYTES as f64 / f64::from(bytes_second as u32));
    assert!(took >= least, "{took:?} for two megabytes, at least {least:?}");
    assert!(other >= least / 2, "{other:?}: it has a bound of its own");
    println!("figure capped_link_bytes_second {:.0}", 2.0 * CHUNK_BYTES as f64 / took.as_secs_f64());
}

#[tokio::test]
async fn a_pull_gathers_from_several_holders() {
    let directory = Directory::default();
    let (a, b, c) = (
        node(&directory, 1, [7; 16]).await,
        node(&directory, 2, [7; 16]).await,
        node(&directory, 3, [7; 16]).await,
    );
    let (one, two) = (segment("one"), segment(vec![3; CHUNK_BYTES + 1]));
    b.plane.store.put_all(&project(), vec![one.clone()]).await.unwrap();
    c.plane.store.put_all(&project(), vec![two.clone()]).await.unwrap();
    let wanted = hashes(&[two.clone(), one.clone(), two.clone()]);
    let nodes = [NodeId(99), b.id, c.id];
    assert_eq!(a.peers.pull(&nodes, &project(), &wanted).await.unwrap(), [two.clone(), one.clone(), two]);
    a.peers.fetch(&a.plane.store, &nodes, &project(), &wanted).await.unwrap();
    assert_eq!(a.plane.store.missing(&project(), &wanted).await.unwrap(), []);
    let received = a.plane.traffic.received();
    a.peers.fetch(&a.plane.store, &nodes, &project(), &wanted).await.unwrap();
    assert_eq!(a.plane.traffic.received(), received, "what is held is not pulled again");
    assert_eq!(b.plane.traffic.sent(), 3 + 3);
}

#[tokio::test]
async fn what_was_forgotten_is_neither_given_nor_taken_and_nothing_is_before_that_is_known() {
    let directory = Directory::default();
    let (a, b) = (node(&directory, 1, [7; 16]).await, node(&directory, 2, [7; 16]).await);
    let (secret, other) = (segment("secret"), segment("other"));
    b.plane.store.put_all(&project(), vec![secret.clone(), other.clone()]).await.unwrap();
    b.plane.store.hold_back();
    assert!(a.peers.pull(&[b.id], &project(), &[other.0]).await.is_err(), "it was away");
    b.plane.store.erase(&project(), &[secret.0]).await.unwrap();
    b.plane.store.serve();
    assert_eq!(a.peers.pull(&[b.id], &project(), &[other.0]).await.unwrap(), [other]);
    let missing = a.peers.pull(&[b.id], &project(), &[secret.0]).await;
    assert!(matches!(missing, Err(PeerError::Missing { .. })), "{missing:?}");
    let refused = a.peers.push(b.id, &project(), &[secret]).await;
    assert!(matches!(refused, Err(PeerError::Refused { .. })), "{refused:?}");
}

#[tokio::test]
async fn what_nobody_has_is_named_with_who_was_asked() {
    let directory = Directory::default();
    let (a, b) = (node(&directory, 1, [7; 16]).await, node(&directory, 2, [7; 16]).await);
    directory.lock().unwrap().insert(NodeId(3), "127.0.0.1:1".into());
    let lost = segment("lost").0;
    let error = a.peers.pull(&[b.id, NodeId(3), NodeId(4)], &project(), &[lost]).await.unwrap_err();
    assert!(error.is_retriable());
    let text = error.to_string();
    for part in [&lost.to_string(), "n2 does not hold", "n3 at 127.0.0.1:1", "n4 has no known address"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(matches!(
        a.peers.push(NodeId(3), &project(), &[segment("x")]).await,
        Err(PeerError::Unreachable { .. })
    ));
}

#[tokio::test]
async fn projects_and_clusters_do_not_mix() {
    let directory = Directory::default();
    let (a, b) = (node(&directory, 1, [7; 16]).await, node(&directory, 2, [7; 16]).await);
    let stranger = node(&directory, 3, [8; 16]).await;
    let one = segment("one");
    b.plane.store.put_all(&project(), vec![one.clone()]).await.unwrap();
    let other = ProjectName::parse("other").unwrap();
    assert!(matches!(a.peers.pull(&[b.id], &other, &[one.0]).await, Err(PeerError::Missing { .. })));
    let refused = stranger.peers.push(b.id, &project(), std::slice::from_ref(&one)).await.unwrap_err();
    assert!(matches!(&refused, PeerError::Refused { why, .. } if why.contains("two clusters")), "{refused}");
    assert!(!refused.is_retriable());
    let refused = stranger.peers.pull(&[b.id], &project(), &[one.0]).await.unwrap_err();
    assert!(refused.to_string().contains("two clusters"), "{refused}");
}

#[tokio::test]
async fn a_frozen_holder_is_passed_over() {
    let directory = Directory::default();
    let (a, b) = (node(&directory, 1, [7; 16]).await, node(&directory, 2, [7; 16]).await);
    // It accepts connections and never says a word, as a stopped process does.
    let frozen = TcpListener::bind("127.0.0.1:0").await.unwrap();
    directory.lock().unwrap().insert(NodeId(3), frozen.local_addr().unwrap().to_string());
    let one = segment("one");
    b.plane.store.put_all(&project(), vec![one.clone()]).await.unwrap();
    let (nodes, project, wanted) = ([NodeId(3), b.id], project(), [one.0]);
    let pull = a.peers.pull(&nodes, &project, &wanted);
    let pulled = tokio::time::timeout(std::time::Duration::from_secs(8), pull).await;
    assert_eq!(pulled.expect("within its patience").unwrap(), [one]);
}

#[tokio::test]
async fn a_peer_that_comes_back_elsewhere_is_found() {
    let directory = Directory::default();
    let (a, b) = (node(&directory, 1, [7; 16]).await, node(&directory, 2, [7; 16]).await);
    a.peers.push(b.id, &project(), &[segment("one")]).await.unwrap();
    b.server.abort();
    let moved = node(&directory, 2, [7; 16]).await;
    a.peers.push(moved.id, &project(), &[segment("two")]).await.unwrap();
    assert_eq!(moved.plane.store.stats().segments, 1);
}

#[tokio::test]
async fn live_tokens_reach_another_node() {
    let directory = Directory::default();
    let (a, b) = (node(&directory, 1, [7; 16]).await, node(&directory, 2, [7; 16]).await);
    let task = TaskUid { index: 4, position: 0 };
    b.plane.live.begin(&project(), task, 1, "1.4.0");
    b.plane.live.push(task, 0, 2, "so far");
    let mut stream = a.peers.tokens(b.id, &project(), task).await.unwrap();
    let chunk = |offset, tokens, text: &str| LiveChunk {
        step: 1,
        attempt: "1.4.0".into(),
        offset,
        tokens,
        text: text.into(),
    };
    assert_eq!(stream.next().await.unwrap().unwrap(), chunk(0, 2, "so far"));
    b.plane.live.push(task, 2, 1, " more");
    b.plane.live.end(task);
    assert_eq!(stream.next().await.unwrap().unwrap(), chunk(2, 1, " more"));
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_model_is_pulled_from_a_peer_that_has_it() {
    let directory = Directory::default();
    let (a, b) = (node(&directory, 1, [7; 16]).await, node(&directory, 2, [7; 16]).await);
    // A header that promises nothing, and padding that makes it several chunks long.
    let mut bytes = b"GGUF".to_vec();
    bytes.extend_from_slice(&3u32.to_le_bytes());
    bytes.extend_from_slice(&[0; 16]);
    bytes.resize(2 * CHUNK_BYTES + 77, 0);
    let source = b._models.path().join("source.gguf");
    std::fs::write(&source, &bytes).unwrap();
    let holder = ModelStore::open(b.plane.models.dir());
    let path = source.to_str().unwrap().to_string();
    let model = tokio::task::spawn_blocking(move || holder.pull(&path, &Silent)).await.unwrap().unwrap();
    let nodes = [NodeId(9), a.id, b.id];
    let path = a.peers.pull_model(&nodes, "copy", model.digest, &a.plane.models).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), bytes);
    assert_eq!(a.plane.models.resolve("copy").unwrap().digest, model.digest);
    let absent = Hash::of(b"absent");
    let error = a.peers.pull_model(&nodes, "none", absent, &a.plane.models).await.unwrap_err().to_string();
    assert!(error.contains(&format!("no model with digest {absent}")), "{error}");
}
