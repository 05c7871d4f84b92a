//! Recorded sessions of agents between nodes: what of them travels, step by step, and when a session moves. The traces
//! are not in the repository; QUORATE_TEST_DATA names their folder.

use super::tests::{Directory, Node, node, project};
use bytes::Bytes;
use context::{Kind, Segment, Visibility};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use types::{Hash, NodeId};

/// The texts of a chain, at each call of a model.
type Session = Vec<Vec<String>>;

/// Cuts each prompt where those before it can be used again: what is left is new, and so is every answer.
fn coding(path: &Path) -> Session {
    let (mut chain, mut session) = (Vec::<String>::new(), Session::new());
    for line in fs::read_to_string(path).unwrap().lines() {
        let call: Value = serde_json::from_str(line).unwrap();
        let mut rest = call["input"].as_str().unwrap();
        let mut kept = 0;
        while let Some(left) = chain.get(kept).and_then(|text| rest.strip_prefix(text.as_str())) {
            (rest, kept) = (left, kept + 1);
        }
        chain.truncate(kept);
        chain.extend((!rest.is_empty()).then(|| rest.to_string()));
        session.push(chain.clone());
        chain.push(call["output"].as_str().unwrap_or_default().to_string());
    }
    session
}

/// A call at each message of the assistant; a message is a segment.
fn conversation(line: &str) -> Session {
    let task: Value = serde_json::from_str(line).unwrap();
    let (mut chain, mut session) = (Vec::new(), Session::new());
    for message in task["traj"].as_array().unwrap() {
        if message["role"] == "assistant" {
            session.push(chain.clone());
        }
        chain.push(message.to_string());
    }
    session
}

/// Passes bytes on to a node, and counts those of both ways.
async fn counted(directory: &Directory, id: NodeId) -> Arc<AtomicU64> {
    let to = directory.lock().unwrap()[&id].clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    directory.lock().unwrap().insert(id, listener.local_addr().unwrap().to_string());
    let count = Arc::new(AtomicU64::new(0));
    let bytes = count.clone();
    tokio::spawn(async move {
        while let Ok((from, _)) = listener.accept().await {
            let to = TcpStream::connect(&to).await.unwrap();
            let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
            tokio::spawn(pass(from_read, to_write, bytes.clone()));
            tokio::spawn(pass(to_read, from_write, bytes.clone()));
        }
    });
    count
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    count: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        count.fetch_add(read as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

struct Plane {
    worker: Node,
    keeper: Node,
    /// Takes whole sessions over from the keeper.
    heir: Node,
    wire: Arc<AtomicU64>,
}

impl Plane {
    async fn new() -> Plane {
        let directory = Directory::default();
        let worker = node(&directory, 1, [7; 16]).await;
        let keeper = node(&directory, 2, [7; 16]).await;
        let heir = node(&directory, 3, [7; 16]).await;
        let wire = counted(&directory, keeper.id).await;
        Plane { worker, keeper, heir, wire }
    }

    /// Keeps a session step by step, as an agent does, and hands it over at its end. Answers what a full resend of
    /// every step would have been.
    async fn live(&self, session: &Session, known: &mut BTreeMap<Hash, usize>) -> u64 {
        let (mut resend, mut held) = (0, Vec::new());
        for chain in session {
            let sealed: Vec<(Hash, Bytes)> = chain.iter().map(|text| seal(text)).collect();
            resend += sealed.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
            // A node remembers what it gave to whom.
            let new: Vec<_> = sealed.iter().filter(|(hash, _)| !known.contains_key(hash)).cloned().collect();
            self.worker.peers.push(self.keeper.id, &project(), &new).await.unwrap();
            known.extend(new.iter().map(|(hash, bytes)| (*hash, bytes.len())));
            held = sealed.into_iter().map(|(hash, _)| hash).collect();
        }
        let (store, from) = (&self.heir.plane.store, [self.keeper.id]);
        self.heir.peers.fetch(store, &from, &project(), &held).await.unwrap();
        assert_eq!(store.missing(&project(), &held).await.unwrap(), []);
        resend
    }
}

fn seal(text: &str) -> (Hash, Bytes) {
    let segment = Segment::new(Kind::Message, "agent", Visibility::Task, text.to_string());
    let sealed = context::seal(&project(), &segment);
    (sealed.hash, sealed.bytes.into())
}

async fn measure(name: &str, sessions: Vec<Session>) {
    let plane = Plane::new().await;
    let mut known = BTreeMap::new();
    let (mut resend, mut steps) = (0, 0);
    for session in &sessions {
        steps += session.len();
        resend += plane.live(session, &mut known).await;
    }
    let distinct: u64 = known.values().map(|bytes| *bytes as u64).sum();
    let (kept, moved) = (plane.worker.plane.traffic.sent(), plane.heir.plane.traffic.received());
    let wire = plane.wire.load(Ordering::Relaxed);
    println!("figure {name}_sessions {}\nfigure {name}_steps {steps}", sessions.len());
    println!("figure {name}_distinct_bytes {distinct}\nfigure {name}_kept_bytes {kept}");
    println!("figure {name}_handed_over_bytes {moved}\nfigure {name}_wire_bytes_of_both {wire}");
    println!("figure {name}_full_resend_bytes {resend}");
    println!("figure {name}_kept_percent_of_resend {:.2}", kept as f64 * 100.0 / resend as f64);
    assert!(kept * 100 <= distinct * 105, "{kept} bytes travelled for {distinct} distinct ones");
    assert!(moved <= distinct, "a hand-over moved {moved} bytes of {distinct}");
}

fn folder() -> String {
    std::env::var("QUORATE_TEST_DATA").unwrap_or_else(|_| "../shared/data".to_owned())
}

fn skipped(what: &str) {
    eprintln!("SKIPPED: {what} is not in {}; set QUORATE_TEST_DATA", folder());
}

#[tokio::test]
async fn coding_sessions_travel_as_differences() {
    let Ok(files) = fs::read_dir(format!("{}/miniswe", folder())) else { return skipped("miniswe") };
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    let sessions: Vec<Session> = paths.iter().map(|path| coding(path)).collect();
    assert_eq!(sessions.len(), 10);
    measure("miniswe", sessions).await;
}

#[tokio::test]
async fn conversations_travel_as_differences() {
    let Ok(text) = fs::read_to_string(format!("{}/tau-airline/trajectories.jsonl", folder())) else {
        return skipped("tau-airline");
    };
    let sessions: Vec<Session> = text.lines().map(conversation).collect();
    assert_eq!(sessions.len(), 100);
    measure("tau_airline", sessions).await;
}
