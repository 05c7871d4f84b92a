//! The segment store: content-addressed files that are on the platter before anyone is told so.
//!
//! Every node has one, whatever its role. The files are the truth; the index beside them only answers "do I
//! hold this?" without touching the disk, and is rebuilt from the files whenever it cannot be trusted. The
//! store knows nothing of what a segment says: it checks names, moves bytes, and never answers before fsync.
//!
//! Read: this file (the API), `files` (layout and the order of syncs), `worker` (two threads, group commit), `garbage`,
//! `index` and `sled_index`, `identity` (who this node is), `lock` (one process a folder).

mod files;
mod frame;
mod garbage;
pub mod identity;
mod index;
mod journal;
mod lock;
mod sled_index;
mod worker;

#[cfg(test)]
mod crash_test;
#[cfg(test)]
mod sweep_test;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use context::STORED_BYTES;
use sys::disk::{Disk, RealDisk};
use tokio::sync::{mpsc, oneshot, watch};
use types::{Hash, ProjectName};

pub use index::{Entry, Index, IndexError, MemoryIndex, Stamp};
pub use lock::{DataLock, LockError};
pub use sled_index::SledIndex;
use worker::{ReadJob, Shared, WriteJob};

/// Jobs that may wait for each thread; further callers wait before they are queued.
const QUEUE: usize = 256;

/// Why the store did not do what it was asked. Nothing was acknowledged.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    #[error(
        "the segment store stopped after a disk error: {reason}; nothing more can be promised, so check the \
         disk and start the node again"
    )]
    Failed { reason: String },
    #[error(
        "the disk with the segments is full ({reason}); free space in the node's data_dir, then try again"
    )]
    Full { reason: String },
    #[error(
        "segment {hash} of project {project} does not have the bytes of its name; it was damaged on the way, \
         send it again"
    )]
    WrongName { project: ProjectName, hash: Hash },
    #[error("segment {hash} has {bytes} bytes; between 1 and {limit} are accepted, cut it into smaller ones")]
    Size { hash: Hash, bytes: usize, limit: usize },
    #[error(
        "segment {hash} of project {project} was forgotten and is not taken again; whatever still needs its text writes \
         it anew, as a segment of its own"
    )]
    Forgotten { project: ProjectName, hash: Hash },
    #[error("the index of the segment store failed: {reason}; start the node again, it rebuilds the index")]
    Index { reason: String },
    #[error("cannot read segment {hash}: {reason}; check the disk")]
    Unreadable { hash: Hash, reason: String },
    #[error("the segment store is closed because the node is stopping; ask another node")]
    Closed,
}

/// What the store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStats {
    pub segments: u64,
    pub bytes: u64,
}

/// A handle; clones are the same store. The threads end when the last handle is gone.
#[derive(Clone)]
pub struct SegmentStore {
    writes: mpsc::Sender<WriteJob>,
    reads: mpsc::Sender<ReadJob>,
    failure: watch::Receiver<Option<String>>,
    /// Whether others may be given what is here.
    serving: Arc<watch::Sender<bool>>,
    shared: Arc<Shared>,
}

impl SegmentStore {
    /// Opens the store on a disk, below `segments/`. Blocks: an index that was not closed properly, or belongs
    /// to another disk than `disk_id` says, is compared with the files first.
    pub fn open(
        disk: Arc<dyn Disk>,
        index: Box<dyn Index>,
        disk_id: [u8; 16],
    ) -> Result<SegmentStore, StoreError> {
        let (failed, failure) = watch::channel(None);
        let (shared, files) = Shared::open(disk, index, disk_id, failed)?;
        let shared = Arc::new(shared);
        let (writes, write_jobs) = mpsc::channel(QUEUE);
        let (reads, read_jobs) = mpsc::channel(QUEUE);
        worker::start_writer(shared.clone(), files, write_jobs)?;
        worker::start_reader(shared.clone(), read_jobs, writes.downgrade())?;
        let serving = Arc::new(watch::Sender::new(true));
        Ok(SegmentStore { writes, reads, failure, serving, shared })
    }

    /// Opens the store of a node: files in `data_dir`, the sled index in `data_dir/index`.
    pub fn open_in(data_dir: &Path, disk_id: [u8; 16]) -> Result<SegmentStore, StoreError> {
        let failed = |reason: String| StoreError::Failed { reason };
        let disk = RealDisk::new(data_dir).map_err(|e| failed(e.to_string()))?;
        let index = SledIndex::open(&data_dir.join("index"))
            .map_err(|e| StoreError::Index { reason: e.to_string() })?;
        SegmentStore::open(Arc::new(disk), Box::new(index), disk_id)
    }

    /// Stores segments; all of them are durable when this answers Ok. Those already held cost nothing.
    /// Callers at the same time share their syncs.
    pub async fn put_all(
        &self,
        project: &ProjectName,
        segments: Vec<(Hash, Bytes)>,
    ) -> Result<(), StoreError> {
        let project = project.clone();
        self.write(|done| WriteJob::Put { project, segments, done }).await
    }

    /// The bytes of a segment, checked against its name. None when it is not held; a damaged file is moved
    /// aside, logged and then not held.
    pub async fn get(&self, project: &ProjectName, hash: Hash) -> Result<Option<Bytes>, StoreError> {
        let project = project.clone();
        self.read(|done| ReadJob::Get { project, hash, counts: true, done }).await
    }

    /// The same for whoever only wants to know what it says: what is doomed stays so.
    pub async fn peek(&self, project: &ProjectName, hash: Hash) -> Result<Option<Bytes>, StoreError> {
        let project = project.clone();
        self.read(|done| ReadJob::Get { project, hash, counts: false, done }).await
    }

    /// Those of the hashes that are not held durably, in the order given, each once.
    pub async fn missing(&self, project: &ProjectName, hashes: &[Hash]) -> Result<Vec<Hash>, StoreError> {
        let (project, hashes) = (project.clone(), hashes.to_vec());
        self.read(|done| ReadJob::Missing { project, hashes, done }).await
    }

    /// Forgets segments. Those not held are skipped.
    pub async fn remove(&self, project: &ProjectName, hashes: &[Hash]) -> Result<(), StoreError> {
        let (project, hashes) = (project.clone(), hashes.to_vec());
        self.write(|done| WriteJob::Remove { project, hashes, done }).await
    }

    /// Forgets segments for good: none of their bytes stay on this disk, and they are neither given nor taken from now
    /// on, for the life of the process. Whoever opens the store tells it again what was forgotten.
    pub async fn erase(&self, project: &ProjectName, hashes: &[Hash]) -> Result<(), StoreError> {
        let (project, hashes) = (project.clone(), hashes.to_vec());
        self.shared.forget(&project, &hashes);
        self.write(|done| WriteJob::Erase { project, hashes, done }).await
    }

    /// The first segments that are held behind one, by project and name.
    pub async fn page(
        &self,
        after: Option<(ProjectName, Hash)>,
        most: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.read(|done| ReadJob::Page { after, most, done }).await
    }

    /// These and no others are what nothing in a project names any more. Whoever puts one of them, reads it or asks
    /// whether it is here takes it out again.
    pub fn doom(&self, project: &ProjectName, hashes: impl IntoIterator<Item = Hash>, now_ms: u64) {
        self.shared.garbage().doom(project, hashes, now_ms);
    }

    /// Removes some of what is doomed since this time or longer, with every byte of it, and answers how much it was:
    /// nothing when there is no more. Unlike what is erased it may come again.
    pub async fn sweep(&self, project: &ProjectName, since_ms: u64) -> Result<StoreStats, StoreError> {
        let project = project.clone();
        self.write(|done| WriteJob::Sweep { project, since_ms, done }).await
    }

    /// A node that was away does not know what was forgotten meanwhile: until [`SegmentStore::serve`] nobody else gets
    /// anything from here.
    pub fn hold_back(&self) {
        self.serving.send_replace(false);
    }

    /// What was forgotten is erased here; others may ask.
    pub fn serve(&self) {
        self.serving.send_replace(true);
    }

    /// Resolves when others may ask.
    pub async fn serving(&self) {
        let mut serving = self.serving.subscribe();
        // The sender is ours, so the channel stays open.
        let _open = serving.wait_for(|serving| *serving).await.is_ok();
    }

    /// Whether it was erased.
    pub fn is_forgotten(&self, project: &ProjectName, hash: &Hash) -> bool {
        self.shared.is_forgotten(project, hash)
    }

    /// How much is held.
    pub fn stats(&self) -> StoreStats {
        self.shared.stats()
    }

    /// Resolves, with the reason, when the disk failed. The node must stop then: after a failed fsync
    /// nothing is known about what was written.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_closed) => std::future::pending().await,
        }
    }

    /// Finishes what is queued, marks the index as complete and ends the threads. Later calls get `Closed`.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.writes.send(WriteJob::Close { done }).await.is_ok() {
            // An error means that the thread is already gone, which is what was asked for.
            let _already_gone = closed.await;
        }
    }

    async fn write<T>(&self, job: impl FnOnce(Answer<T>) -> WriteJob) -> Result<T, StoreError> {
        let (done, answer) = oneshot::channel();
        self.writes.send(job(done)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    async fn read<T>(&self, job: impl FnOnce(Answer<T>) -> ReadJob) -> Result<T, StoreError> {
        let (done, answer) = oneshot::channel();
        self.reads.send(job(done)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

/// Where a thread puts its answer.
type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// Whether `bytes` are what `hash` names inside a project.
fn is_named(project: &ProjectName, hash: &Hash, bytes: &[u8]) -> bool {
    context::verify(project, *hash, bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::disk::CrashDisk;

    pub(super) fn project(name: &str) -> ProjectName {
        ProjectName::parse(name).unwrap()
    }

    pub(super) fn segment(project: &ProjectName, text: &str) -> (Hash, Bytes) {
        (Hash::keyed(project.as_str(), text.as_bytes()), Bytes::copy_from_slice(text.as_bytes()))
    }

    fn open(disk: &CrashDisk) -> SegmentStore {
        SegmentStore::open(Arc::new(disk.clone()), Box::new(MemoryIndex::default()), [7; 16]).unwrap()
    }

    #[tokio::test]
    async fn what_is_put_is_read_and_counted_once() {
        let (disk, a) = (CrashDisk::new(), project("a/b"));
        let store = open(&disk);
        let (one, two) = (segment(&a, "one"), segment(&a, "twotwo"));
        store.put_all(&a, vec![one.clone(), two.clone(), one.clone()]).await.unwrap();
        store.put_all(&a, vec![two.clone()]).await.unwrap();
        assert_eq!(store.get(&a, one.0).await.unwrap(), Some(one.1));
        assert_eq!(store.stats(), StoreStats { segments: 2, bytes: 9 });
        let absent = Hash::of(b"absent");
        assert_eq!(store.missing(&a, &[absent, two.0, absent]).await.unwrap(), [absent]);
        assert_eq!(store.get(&a, absent).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_project_does_not_see_another() {
        let (a, b) = (project("a"), project("a/b"));
        let store = open(&CrashDisk::new());
        let one = segment(&a, "one");
        store.put_all(&a, vec![one.clone()]).await.unwrap();
        assert_eq!(store.missing(&b, &[one.0]).await.unwrap(), [one.0]);
        assert_eq!(store.get(&b, one.0).await.unwrap(), None);
        assert!(matches!(store.put_all(&b, vec![one]).await, Err(StoreError::WrongName { .. })));
    }

    #[tokio::test]
    async fn wrong_names_and_sizes_are_refused_and_change_nothing() {
        let a = project("a");
        let store = open(&CrashDisk::new());
        let good = segment(&a, "good");
        let lie = (good.0, Bytes::from_static(b"evil"));
        assert!(matches!(
            store.put_all(&a, vec![good.clone(), lie]).await,
            Err(StoreError::WrongName { hash, .. }) if hash == good.0
        ));
        let empty = (Hash::keyed("a", b""), Bytes::new());
        assert!(matches!(store.put_all(&a, vec![empty]).await, Err(StoreError::Size { bytes: 0, .. })));
        assert_eq!(store.stats(), StoreStats::default());
        assert_eq!(store.get(&a, good.0).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_damaged_file_is_set_aside_and_can_be_put_again() {
        let (disk, a) = (CrashDisk::new(), project("a"));
        let store = open(&disk);
        let one = segment(&a, "one");
        store.put_all(&a, vec![one.clone()]).await.unwrap();
        disk.open(&files::path(&a, &one.0)).unwrap().write_at(0, b"X").unwrap();
        assert_eq!(store.get(&a, one.0).await.unwrap(), None);
        store.put_all(&a, vec![one.clone()]).await.unwrap();
        assert_eq!(store.get(&a, one.0).await.unwrap(), Some(one.1));
        assert_eq!(store.stats(), StoreStats { segments: 1, bytes: 3 });
    }

    #[tokio::test]
    async fn removed_segments_are_gone_after_a_restart_too() {
        let (disk, a) = (CrashDisk::new(), project("a"));
        let store = open(&disk);
        let (one, two) = (segment(&a, "one"), segment(&a, "two"));
        store.put_all(&a, vec![one.clone(), two.clone()]).await.unwrap();
        store.remove(&a, &[one.0, Hash::of(b"never held")]).await.unwrap();
        assert_eq!(store.missing(&a, &[one.0, two.0]).await.unwrap(), [one.0]);
        store.close().await;
        assert_eq!(store.put_all(&a, vec![one.clone()]).await, Err(StoreError::Closed));
        let store = open(&disk);
        assert_eq!(store.stats(), StoreStats { segments: 1, bytes: 3 });
        assert_eq!(store.get(&a, one.0).await.unwrap(), None);
    }

    /// Every file of the disk that holds these bytes.
    fn holding(disk: &CrashDisk, bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        for dir in ["", "segments", "segments/a"].into_iter().map(String::from).chain(shards()) {
            for name in disk.list(&dir).unwrap_or_default() {
                let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                let content = disk.read(&path).unwrap_or_default();
                if content.windows(bytes.len()).any(|window| window == bytes) {
                    found.push(path);
                }
            }
        }
        found
    }

    fn shards() -> impl Iterator<Item = String> {
        (0..=u8::MAX).map(|first| format!("segments/a/{first:02x}"))
    }

    #[tokio::test]
    async fn of_what_is_erased_no_byte_stays_and_it_never_comes_back() {
        let (disk, a) = (CrashDisk::new(), project("a"));
        let store = open(&disk);
        let (secret, other) = (segment(&a, "the secret is green"), segment(&a, "the other stays"));
        store.put_all(&a, vec![secret.clone(), other.clone()]).await.unwrap();
        // Damaged once: what was moved aside holds most of it.
        disk.open(&files::path(&a, &secret.0)).unwrap().write_at(0, b"X").unwrap();
        assert_eq!(store.get(&a, secret.0).await.unwrap(), None);
        store.put_all(&a, vec![secret.clone()]).await.unwrap();
        assert_eq!(holding(&disk, b"secret is green").len(), 3, "the file, the damaged one, the journal");
        store.erase(&a, &[secret.0, Hash::of(b"never held")]).await.unwrap();
        assert_eq!(holding(&disk, b"secret is green"), Vec::<String>::new());
        assert_eq!(store.get(&a, secret.0).await.unwrap(), None);
        assert_eq!(store.missing(&a, &[secret.0]).await.unwrap(), [secret.0]);
        let refused = store.put_all(&a, vec![secret.clone()]).await;
        assert!(
            matches!(refused, Err(StoreError::Forgotten { hash, .. }) if hash == secret.0),
            "{refused:?}"
        );
        assert!(store.is_forgotten(&a, &secret.0) && !store.is_forgotten(&project("b"), &secret.0));
        assert_eq!(store.stats(), StoreStats { segments: 1, bytes: 15 });
        store.close().await;
        disk.crash(3);
        assert_eq!(holding(&disk, b"secret is green"), Vec::<String>::new());
        assert_eq!(open(&disk).get(&a, other.0).await.unwrap(), Some(other.1));
    }

    #[tokio::test]
    async fn the_same_segment_from_many_callers_is_written_once() {
        let (disk, a) = (CrashDisk::new(), project("a"));
        let store = open(&disk);
        store.put_all(&a, vec![segment(&a, "warm the folders")]).await.unwrap();
        let puts = (0..64).map(|i| {
            let (store, a) = (store.clone(), a.clone());
            async move { store.put_all(&a, vec![segment(&a, &format!("same {}", i / 32))]).await }
        });
        for answer in futures::future::join_all(puts).await {
            answer.unwrap();
        }
        assert_eq!(store.stats().segments, 3);
        let syncs = disk.syncs();
        assert!(
            syncs <= 2 + 1 + 2,
            "{syncs} syncs: twice the new journal, once the project's marker, then the groups"
        );
    }

    #[tokio::test]
    async fn a_failed_sync_stops_the_store_for_good() {
        let (disk, a) = (CrashDisk::new(), project("a"));
        let store = open(&disk);
        store.put_all(&a, vec![segment(&a, "before")]).await.unwrap();
        disk.fail_sync_in(1);
        assert!(matches!(store.put_all(&a, vec![segment(&a, "x")]).await, Err(StoreError::Failed { .. })));
        assert!(matches!(store.put_all(&a, vec![segment(&a, "y")]).await, Err(StoreError::Failed { .. })));
        assert!(!store.failed().await.is_empty());
        assert!(store.get(&a, segment(&a, "before").0).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_full_disk_refuses_and_recovers() {
        let (disk, a) = (CrashDisk::new(), project("a"));
        let store = open(&disk);
        store.put_all(&a, vec![segment(&a, "before")]).await.unwrap();
        disk.set_capacity(Some(64));
        let big = segment(&a, &"z".repeat(1000));
        assert!(matches!(store.put_all(&a, vec![big.clone()]).await, Err(StoreError::Full { .. })));
        disk.set_capacity(None);
        store.put_all(&a, vec![big.clone()]).await.unwrap();
        assert_eq!(store.get(&a, big.0).await.unwrap(), Some(big.1));
    }
}
