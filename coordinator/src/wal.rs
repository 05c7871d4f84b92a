//! The write-ahead log: vote and entries of one raft node, in one ordered sequence of files.
//!
//! It knows nothing of raft's rules and nothing of what entries mean. It promises four things:
//! what was called done survives a power cut; changes come back in the order they were made; a torn end
//! is cut off at open; damage before the end is refused, never skipped.
//!
//! Files `<dir>/<sequence>.wal` are filled with zeros when made and overwritten in place, so that a sync
//! writes no metadata. Each starts with a head record that holds the vote and how far the log is purged,
//! so that older files can be dropped. Group commit: whatever waits is written together, synced once, and
//! then called done. In a simulation the same happens in the caller, without a thread.
//!
//! Read: `record` (bytes), `segment` (one file), `index` (memory), `writer` (files), `lane` (who flushes).

mod index;
mod lane;
#[cfg(test)]
mod model_test;
mod record;
mod segment;
mod writer;

use bytes::Bytes;
use index::Index;
use lane::{Job, Lane};
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard};
use sys::disk::Disk;
use types::{ClusterId, NodeId};

/// An entry's name: the term and node of the leader that wrote it, and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, minicbor::Encode, minicbor::Decode)]
pub struct EntryId {
    #[n(0)]
    pub term: u64,
    #[n(1)]
    pub node: u64,
    #[n(2)]
    pub index: u64,
}

/// For whom this node voted, in which term, and whether a quorum has granted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Vote {
    #[n(0)]
    pub term: u64,
    #[n(1)]
    pub node: u64,
    #[n(2)]
    pub granted: bool,
}

/// One change of the log. Changes are durable in the order they are submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Vote(Vote),
    /// Appends one entry, right behind the last.
    Append {
        id: EntryId,
        body: Bytes,
    },
    /// Removes every entry at or behind an index.
    Truncate {
        from: u64,
    },
    /// Removes every entry up to and with this one, for ever.
    Purge(EntryId),
    /// Remembers how far the cluster had agreed. A hint for a faster start: needs no sync.
    Commit(Option<EntryId>),
}

/// What the log holds, entries aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub vote: Option<Vote>,
    pub committed: Option<EntryId>,
    pub purged: Option<EntryId>,
    /// The last entry, or the last purged one when there is none.
    pub last: Option<EntryId>,
}

/// Who flushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// A thread of its own, which gathers what waits: production.
    Thread,
    /// The caller, at once: simulation, where a thread would break the order of events.
    Inline,
    /// A task that takes its time, as a slow disk does: simulation.
    #[cfg(test)]
    Late,
}

/// Known mistakes of a log.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Changes are called done one batch before they are synced.
    AcknowledgeBeforeSync,
    /// Votes are never written.
    ForgetVotes,
    /// What was cut off a log comes back at the next start.
    KeepTruncated,
}

/// How to open a log.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// The folder, inside the disk.
    pub dir: String,
    /// Whose log this is; another owner's files are refused.
    pub cluster: ClusterId,
    pub node: NodeId,
    pub flush: Flush,
    /// Size of one file. Larger entries get a larger file.
    pub segment_bytes: u64,
    /// Entries kept in memory; older ones are read from their file.
    pub cache_bytes: usize,
    /// A planted mistake, to prove that the crash tests can see one. Exists in tests only.
    #[cfg(test)]
    pub planted: Option<Planted>,
    /// With [`Flush::Late`]: how long a sync takes, in milliseconds.
    #[cfg(test)]
    pub sync_ms: Arc<std::sync::atomic::AtomicU64>,
}

impl WalOptions {
    pub fn new(dir: &str, cluster: ClusterId, node: NodeId, flush: Flush) -> Self {
        WalOptions {
            dir: dir.to_string(),
            cluster,
            node,
            flush,
            segment_bytes: 4 << 20,
            cache_bytes: 16 << 20,
            #[cfg(test)]
            planted: None,
            #[cfg(test)]
            sync_ms: Arc::default(),
        }
    }
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    #[error(
        "the raft log {file} is damaged at byte {offset}: {detail}. What was promised may be lost, so this node \
         must not go on. Next: remove this node from the cluster and join again with an empty disk under a new id"
    )]
    Damaged { file: String, offset: u64, detail: String },
    #[error(
        "the raft log file {file} is missing, although later ones are there. Next: put it back, or remove this \
         node from the cluster and join again with an empty disk under a new id"
    )]
    Missing { file: String },
    #[error(
        "the raft log {file} belongs to node {found_node} of cluster {found_cluster}, not to node {node} of \
         cluster {cluster}. Next: check the data folder in the configuration"
    )]
    Owner { file: String, found_cluster: ClusterId, found_node: NodeId, cluster: ClusterId, node: NodeId },
    #[error(
        "the raft log {file} was written by a newer version: it needs a reader of format {min_reader}, this is \
         {READER}. Next: start the newer version again"
    )]
    TooNew { file: String, min_reader: u32 },
    #[error("cannot open the raft log: {0}")]
    Io(#[from] io::Error),
}

/// The format that is written and the newest that can be read.
const FORMAT: u32 = 1;
const READER: u32 = 1;

/// Called once, when the changes are durable, or with the error after which nothing is.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// An open log. Clones are the same log.
#[derive(Clone)]
pub struct Wal {
    shared: Arc<Shared>,
}

struct Shared {
    index: Arc<Mutex<Index>>,
    /// Locked before `index`, so that memory and files see changes in one order.
    lane: Mutex<Lane>,
    disk: Arc<dyn Disk>,
    dir: String,
}

impl Wal {
    /// Opens the log in a folder, or makes an empty one.
    ///
    /// # Errors
    /// Damage, a missing file, another owner, a newer format, or the disk's own errors. Nothing is changed
    /// then.
    pub fn open(disk: Arc<dyn Disk>, options: WalOptions) -> Result<Wal, WalError> {
        let dir = options.dir.clone();
        let flush = options.flush;
        let (index, writer) = writer::open(disk.clone(), options)?;
        let index = Arc::new(Mutex::new(index));
        let lane = Mutex::new(Lane::start(flush, writer, index.clone())?);
        Ok(Wal { shared: Arc::new(Shared { index, lane, disk, dir }) })
    }

    /// Makes changes: readable when this returns, durable when `done` is called.
    ///
    /// # Errors
    /// When the log has stopped after an earlier error, or the changes leave a hole. `done` is not called then.
    pub fn submit(&self, changes: Vec<Change>, done: Done) -> io::Result<()> {
        let mut lane = lock(&self.shared.lane);
        lock(&self.shared.index).apply_all(&changes)?;
        let finished = lane.commit(Job { changes, done: Some(done) });
        drop(lane);
        if let Some(finished) = finished {
            finished.tell();
        }
        Ok(())
    }

    /// What the log holds, entries aside. Includes changes that are not durable yet.
    pub fn summary(&self) -> Summary {
        lock(&self.shared.index).summary()
    }

    /// Entries in a range of indexes, in order, until their bodies reach `bytes_max`; at least one if there is
    /// one.
    pub fn entries(
        &self,
        range: impl RangeBounds<u64>,
        bytes_max: usize,
    ) -> io::Result<Vec<(EntryId, Bytes)>> {
        lock(&self.shared.index).read(range, bytes_max, |places| {
            segment::read_bodies(self.shared.disk.as_ref(), &self.shared.dir, places)
        })
    }

    /// Flushes what waits and stops. Later changes are refused; entries stay readable.
    pub fn close(&self) {
        let lane = std::mem::replace(&mut *lock(&self.shared.lane), Lane::Closed);
        lane.close();
    }
}

/// Whether a log was ever made in a folder.
pub fn exists(disk: &dyn Disk, dir: &str) -> io::Result<bool> {
    Ok(disk.exists(dir)? && disk.list(dir)?.iter().any(|name| name.ends_with(".wal")))
}

/// A poisoned lock means that a thread panicked in the middle of a change: nothing sensible can follow.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("the raft log's state is broken by an earlier panic")
}
