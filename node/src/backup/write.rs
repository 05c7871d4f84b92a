//! Writes the archive while the cluster works: the ledger first, then what it names, a few segments in memory at a
//! time. Segments are immutable and durable before the ledger names them, so what is read later still belongs to it.

use super::format::{End, Head, Kind, MAGIC, Stored, frame};
use super::{BackupError, Is, named_by};
use crate::members::Members;
use crate::segments::{PeerError, Peers};
use crate::store::SegmentStore;
use bytes::Bytes;
use coordinator::Client;
use ledger::State;
use std::collections::{BTreeSet, VecDeque};
use tokio::sync::mpsc;
use types::{Hash, NodeId, ProjectName, limits};

/// Segments that are fetched together.
const TOGETHER: usize = 32;
/// Bytes of one message, except where one frame alone is larger.
const MESSAGE_BYTES: usize = 256 << 10;

/// Where everything is read from.
#[derive(Clone)]
pub(crate) struct Sources {
    pub own: NodeId,
    pub client: Client,
    pub members: Members,
    pub store: SegmentStore,
    pub peers: Peers,
}

/// What an archive holds, when it is written or looked through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub head: Head,
    pub end: End,
    /// Of the whole file.
    pub bytes: u64,
}

/// Sends an archive piece by piece, and answers what was in it.
pub(crate) async fn archive(
    sources: Sources,
    allow_missing: bool,
    out: mpsc::Sender<Bytes>,
) -> Result<Summary, BackupError> {
    let ledger = sources.client.snapshot().await.map_err(|e| BackupError::Ledger(e.to_string()))?;
    let (state, ledger) = tokio::task::spawn_blocking(move || (State::restore(&ledger), ledger))
        .await
        .map_err(|error| BackupError::Ledger(error.to_string()))?;
    let state = state.map_err(|halt| BackupError::Ledger(halt.to_string()))?;
    let mut file = File { out, hasher: blake3::Hasher::new(), waiting: Vec::new(), bytes: 0 };
    let head = Head::of(&state, &ledger);
    file.write(&MAGIC).await?;
    file.write(&frame(Kind::Head, &types::encode(&head))).await?;
    for piece in ledger.chunks(limits::CHUNK_BYTES) {
        file.write(&frame(Kind::Ledger, piece)).await?;
    }
    drop(ledger);
    let tasks = state.tasks().count() as u64;
    let mut walk = Walk::of(&state);
    drop(state);
    let (segments, missing) = walk.write(&sources, allow_missing, &mut file).await?;
    let end = End { tasks, segments, missing, hash: file.hash() };
    file.write(&frame(Kind::End, &types::encode(&end))).await?;
    file.flush().await?;
    Ok(Summary { head, end, bytes: file.bytes })
}

/// The receiving end, with the hash of what went there.
struct File {
    out: mpsc::Sender<Bytes>,
    hasher: blake3::Hasher,
    waiting: Vec<u8>,
    bytes: u64,
}

impl File {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= MESSAGE_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), BackupError> {
        let message = Bytes::from(std::mem::take(&mut self.waiting));
        self.out.send(message).await.map_err(|_| BackupError::NobodyReads)
    }

    fn hash(&self) -> Hash {
        Hash(*self.hasher.finalize().as_bytes())
    }
}

/// A segment to fetch. A record names further ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    project: ProjectName,
    hash: Hash,
    is: Is,
    home: Vec<NodeId>,
}

/// Everything that is named, each once: what the ledger names, then what step records name as they are read.
struct Walk {
    queue: VecDeque<Wanted>,
    seen: BTreeSet<(ProjectName, Hash)>,
}

impl Walk {
    fn of(state: &State) -> Walk {
        let mut walk = Walk { queue: VecDeque::new(), seen: BTreeSet::new() };
        // What was forgotten is with nobody.
        walk.seen.extend(state.forgotten().map(|(project, hash)| (project.clone(), hash)));
        for needed in state.needed() {
            let texts = needed.segments.into_iter().map(|hash| (hash, Is::Text));
            let steps = needed.journal.map(|hash| (hash, Is::Step));
            let memories = needed.memory.map(|hash| (hash, Is::Memory));
            let boards = needed.board.map(|hash| (hash, Is::Board));
            for (hash, is) in texts.chain(steps).chain(memories).chain(boards) {
                walk.want(&needed.project, hash, is, &needed.home);
            }
        }
        walk
    }

    fn want(&mut self, project: &ProjectName, hash: Hash, is: Is, home: &[NodeId]) {
        if self.seen.insert((project.clone(), hash)) {
            let (project, home) = (project.clone(), home.to_vec());
            self.queue.push_back(Wanted { project, hash, is, home });
        }
    }

    /// Answers how many were written, and how many nobody has.
    async fn write(
        &mut self,
        sources: &Sources,
        allow_missing: bool,
        file: &mut File,
    ) -> Result<(u64, u64), BackupError> {
        let (mut written, mut missing) = (0, 0);
        while let Some(group) = self.next_group() {
            for (wanted, bytes) in sources.fetch(&group, allow_missing).await? {
                let Some(bytes) = bytes else {
                    missing += 1;
                    continue;
                };
                self.follow(&wanted, &bytes)?;
                let stored = Stored { project: wanted.project, hash: wanted.hash, bytes: bytes.to_vec() };
                file.write(&frame(Kind::Segment, &types::encode(&stored))).await?;
                written += 1;
            }
        }
        Ok((written, missing))
    }

    /// Some of one project, from the front.
    fn next_group(&mut self) -> Option<Vec<Wanted>> {
        let first = self.queue.pop_front()?;
        let mut group = vec![first];
        while group.len() < TOGETHER
            && self.queue.front().is_some_and(|next| next.project == group[0].project)
        {
            group.extend(self.queue.pop_front());
        }
        Some(group)
    }

    fn follow(&mut self, wanted: &Wanted, bytes: &[u8]) -> Result<(), BackupError> {
        let named = named_by(wanted.is, &wanted.project, wanted.hash, bytes);
        let (names, previous) = named.map_err(|e| BackupError::Ledger(format!("a record: {e}")))?;
        for hash in names {
            self.want(&wanted.project, hash, Is::Text, &wanted.home);
        }
        if let Some(previous) = previous {
            self.want(&wanted.project, previous, wanted.is, &wanted.home);
        }
        Ok(())
    }
}

impl Sources {
    /// The bytes of each, from here or from other nodes; none for what nobody has, where that is allowed.
    async fn fetch(
        &self,
        group: &[Wanted],
        allow_missing: bool,
    ) -> Result<Vec<(Wanted, Option<Bytes>)>, BackupError> {
        let project = &group[0].project;
        let mut found = Vec::with_capacity(group.len());
        let mut absent = Vec::new();
        for wanted in group {
            match self.store.get(project, wanted.hash).await? {
                Some(bytes) => found.push((wanted.clone(), Some(bytes))),
                None => absent.push(wanted.clone()),
            }
        }
        if !absent.is_empty() {
            found.extend(self.pull(project, absent, allow_missing).await?);
        }
        Ok(found)
    }

    /// All at once where all can be had, else one by one.
    async fn pull(
        &self,
        project: &ProjectName,
        absent: Vec<Wanted>,
        allow_missing: bool,
    ) -> Result<Vec<(Wanted, Option<Bytes>)>, BackupError> {
        let hashes: Vec<Hash> = absent.iter().map(|wanted| wanted.hash).collect();
        match self.peers.pull(&self.holders(&absent), project, &hashes).await {
            Ok(pulled) => {
                Ok(absent.into_iter().zip(pulled.into_iter().map(|(_, bytes)| Some(bytes))).collect())
            }
            Err(PeerError::Missing { .. }) if allow_missing => {
                let mut found = Vec::with_capacity(absent.len());
                for wanted in absent {
                    let nodes = self.holders(std::slice::from_ref(&wanted));
                    let pulled = self.peers.pull(&nodes, project, &[wanted.hash]).await.ok();
                    let bytes = pulled.and_then(|pulled| pulled.into_iter().next()).map(|(_, bytes)| bytes);
                    found.push((wanted, bytes));
                }
                Ok(found)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The homes first, then every other store.
    fn holders(&self, wanted: &[Wanted]) -> Vec<NodeId> {
        let homes = wanted.iter().flat_map(|wanted| wanted.home.iter().copied());
        let others = self.members.keepers(self.own, &[], wanted[0].hash);
        let mut nodes: Vec<NodeId> = Vec::new();
        for node in homes.chain(others) {
            if node != self.own && !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        nodes
    }
}
