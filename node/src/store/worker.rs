//! The two threads of the store: one writes, in groups that share their syncs; one reads, so that a read never
//! waits for a sync.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Instant;

use bytes::Bytes;
use sys::disk::Disk;
use tokio::sync::{mpsc, oneshot, watch};
use types::{Hash, ProjectName};

use super::files::{self, Files, Item, WriteError};
use super::garbage::Garbage;
use super::index::{Entry, Index, Stamp};
use super::{Answer, STORED_BYTES, StoreError, StoreStats, is_named};
use crate::telemetry::names;

/// A group ends at this many files: each is an open descriptor until its sync.
const GROUP_FILES: usize = 256;
/// And at this many bytes, so that the first caller does not wait for everybody else's.
const GROUP_BYTES: usize = 32 << 20;

/// Segments that one job sweeps: others wait meanwhile.
const SWEPT_AT_ONCE: usize = 1024;

/// What the writing thread is asked.
pub(super) enum WriteJob {
    Put {
        project: ProjectName,
        segments: Vec<(Hash, Bytes)>,
        done: Answer<()>,
    },
    Remove {
        project: ProjectName,
        hashes: Vec<Hash>,
        done: Answer<()>,
    },
    /// As `Remove`, and no byte of them stays.
    Erase {
        project: ProjectName,
        hashes: Vec<Hash>,
        done: Answer<()>,
    },
    /// As `Erase`, of what is garbage for so long.
    Sweep {
        project: ProjectName,
        since_ms: u64,
        done: Answer<StoreStats>,
    },
    /// A reader found the file absent or damaged.
    Recheck {
        project: ProjectName,
        hash: Hash,
    },
    Close {
        done: oneshot::Sender<()>,
    },
}

/// What the reading thread is asked.
pub(super) enum ReadJob {
    /// `counts`: it is no garbage for a while, because somebody reads it.
    Get {
        project: ProjectName,
        hash: Hash,
        counts: bool,
        done: Answer<Option<Bytes>>,
    },
    Missing {
        project: ProjectName,
        hashes: Vec<Hash>,
        done: Answer<Vec<Hash>>,
    },
    Page {
        after: Option<(ProjectName, Hash)>,
        most: usize,
        done: Answer<Vec<Entry>>,
    },
}

/// What both threads and the handles look at.
pub(super) struct Shared {
    disk: Arc<dyn Disk>,
    index: Box<dyn Index>,
    disk_id: [u8; 16],
    failed: watch::Sender<Option<String>>,
    segments: AtomicU64,
    bytes: AtomicU64,
    /// What is neither given nor taken any more.
    forgotten: RwLock<BTreeSet<(ProjectName, Hash)>>,
    garbage: Mutex<Garbage>,
}

impl Shared {
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        index: Box<dyn Index>,
        disk_id: [u8; 16],
        failed: watch::Sender<Option<String>>,
    ) -> Result<(Shared, Files), StoreError> {
        let (segments, bytes, forgotten, garbage) = Default::default();
        let shared = Shared { disk, index, disk_id, failed, segments, bytes, forgotten, garbage };
        let index_failed = |e: super::IndexError| StoreError::Index { reason: e.to_string() };
        let mut files =
            Files::open(shared.disk.clone()).map_err(|e| StoreError::Failed { reason: e.to_string() })?;
        if shared.index.stamp().map_err(index_failed)? != Some(Stamp { disk_id, complete: true }) {
            shared.reconcile(&mut files)?;
        }
        // From now on the index may run ahead of what sled has on the platter.
        shared.index.set_stamp(Stamp { disk_id, complete: false }).map_err(index_failed)?;
        shared.index.barrier().map_err(index_failed)?;
        for entry in shared.index.all().map_err(index_failed)? {
            shared.count(&entry);
        }
        Ok((shared, files))
    }

    /// Makes the index say what the files say.
    fn reconcile(&self, files: &mut Files) -> Result<(), StoreError> {
        let disk_failed = |e: io::Error| StoreError::Failed { reason: e.to_string() };
        let index_failed = |e: super::IndexError| StoreError::Index { reason: e.to_string() };
        let mut found = files.scan().map_err(disk_failed)?;
        for entry in self.index.all().map_err(index_failed)? {
            let held = found.remove(&files::Found { project: entry.project.clone(), hash: entry.hash });
            if !held {
                self.index.remove(&entry.project, &[entry.hash]).map_err(index_failed)?;
            }
        }
        let mut entries = Vec::with_capacity(found.len());
        for file in found {
            let bytes = files.size(&file).map_err(disk_failed)?;
            entries.push(Entry { project: file.project, hash: file.hash, bytes });
        }
        self.index.put(&entries).map_err(index_failed)
    }

    pub(super) fn stats(&self) -> StoreStats {
        StoreStats {
            segments: self.segments.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    pub(super) fn forget(&self, project: &ProjectName, hashes: &[Hash]) {
        let names = hashes.iter().map(|hash| (project.clone(), *hash));
        self.forgotten.write().expect("no panic while held").extend(names);
    }

    pub(super) fn is_forgotten(&self, project: &ProjectName, hash: &Hash) -> bool {
        let forgotten = self.forgotten.read().expect("no panic while held");
        !forgotten.is_empty() && forgotten.contains(&(project.clone(), *hash))
    }

    pub(super) fn garbage(&self) -> MutexGuard<'_, Garbage> {
        self.garbage.lock().expect("nothing panics while it holds the garbage")
    }

    /// Somebody counts on a segment: it is no garbage. Before it is looked whether it is held, so that it either stays or
    /// is said to be missing. False: it is going just now.
    fn spare(&self, project: &ProjectName, hash: &Hash) -> bool {
        let mut garbage = self.garbage();
        garbage.spare(project, hash);
        !garbage.is_going(project, hash)
    }

    fn count(&self, entry: &Entry) {
        self.segments.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(entry.bytes, Ordering::Relaxed);
    }

    fn uncount(&self, bytes: u64) {
        self.segments.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What the index says; a failing index knows nothing.
    fn held(&self, project: &ProjectName, hash: &Hash) -> Option<u64> {
        self.index.get(project, hash).unwrap_or_else(|error| {
            tracing::warn!(%error, "the segment index cannot be read; segments are written again");
            None
        })
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    let started = std::thread::Builder::new().name(name.to_string()).spawn(run);
    started
        .map(|_detached| ())
        .map_err(|e| StoreError::Failed { reason: format!("cannot start a thread: {e}") })
}

pub(super) fn start_writer(
    shared: Arc<Shared>,
    files: Files,
    jobs: mpsc::Receiver<WriteJob>,
) -> Result<(), StoreError> {
    spawn("segments-write", move || Writer { shared, files, jobs }.run())
}

pub(super) fn start_reader(
    shared: Arc<Shared>,
    mut jobs: mpsc::Receiver<ReadJob>,
    writer: mpsc::WeakSender<WriteJob>,
) -> Result<(), StoreError> {
    spawn("segments-read", move || {
        while let Some(job) = jobs.blocking_recv() {
            shared.answer(job, &writer);
        }
    })
}

impl Shared {
    // A caller that went away does not need its answer, here and below.
    fn answer(&self, job: ReadJob, writer: &mpsc::WeakSender<WriteJob>) {
        match job {
            ReadJob::Get { project, hash, counts, done } => {
                let going = counts && !self.spare(&project, &hash);
                let _caller_gone = done.send(if going { Ok(None) } else { self.get(&project, hash, writer) });
            }
            ReadJob::Missing { project, hashes, done } => {
                let mut seen = BTreeSet::new();
                let held = |hash: &Hash| {
                    self.spare(&project, hash)
                        && self.held(&project, hash).is_some()
                        && !self.is_forgotten(&project, hash)
                };
                let missing = |hash: &Hash| seen.insert(*hash) && !held(hash);
                let _caller_gone = done.send(Ok(hashes.into_iter().filter(missing).collect()));
            }
            ReadJob::Page { after, most, done } => {
                let page = self.index.page(after.as_ref(), most);
                let _caller_gone = done.send(page.map_err(|e| StoreError::Index { reason: e.to_string() }));
            }
        }
    }

    fn get(
        &self,
        project: &ProjectName,
        hash: Hash,
        writer: &mpsc::WeakSender<WriteJob>,
    ) -> Result<Option<Bytes>, StoreError> {
        if self.is_forgotten(project, &hash) {
            return Ok(None);
        }
        match self.disk.read(&files::path(project, &hash)) {
            Ok(bytes) if is_named(project, &hash, &bytes) => return Ok(Some(bytes.into())),
            Ok(_damaged) => {}
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                if self.held(project, &hash).is_none() {
                    return Ok(None);
                }
            }
            Err(cause) => return Err(StoreError::Unreadable { hash, reason: cause.to_string() }),
        }
        if let Some(writer) = writer.upgrade() {
            // A closed writer means that the node stops; the next start finds the same.
            let _stopping = writer.blocking_send(WriteJob::Recheck { project: project.clone(), hash });
        }
        Ok(None)
    }
}

struct Writer {
    shared: Arc<Shared>,
    files: Files,
    jobs: mpsc::Receiver<WriteJob>,
}

/// The puts of one group.
#[derive(Default)]
struct Group {
    items: Vec<Item>,
    names: BTreeSet<(ProjectName, Hash)>,
    bytes: usize,
    callers: Vec<Answer<()>>,
}

impl Writer {
    fn run(mut self) {
        while let Some(job) = self.jobs.blocking_recv() {
            let mut next = Some(job);
            while let Some(job) = next.take() {
                match job {
                    WriteJob::Put { project, segments, done } => next = self.put(project, segments, done),
                    WriteJob::Remove { project, hashes, done } => {
                        let _caller_gone = done.send(self.remove(&project, &hashes));
                    }
                    WriteJob::Erase { project, hashes, done } => {
                        let _caller_gone = done.send(self.erase(&project, &hashes));
                    }
                    WriteJob::Sweep { project, since_ms, done } => {
                        let _caller_gone = done.send(self.sweep(&project, since_ms));
                    }
                    WriteJob::Recheck { project, hash } => self.recheck(&project, hash),
                    WriteJob::Close { done } => {
                        self.finish();
                        let _caller_gone = done.send(());
                        return;
                    }
                }
            }
        }
        self.finish();
    }

    /// Gathers the puts that wait, writes them together and answers them. Returns the job that ended the group.
    fn put(
        &mut self,
        project: ProjectName,
        segments: Vec<(Hash, Bytes)>,
        done: Answer<()>,
    ) -> Option<WriteJob> {
        let mut group = Group::default();
        self.join(&mut group, project, segments, done);
        let mut other = None;
        while other.is_none() && group.items.len() < GROUP_FILES && group.bytes < GROUP_BYTES {
            match self.jobs.try_recv() {
                Ok(WriteJob::Put { project, segments, done }) => {
                    self.join(&mut group, project, segments, done)
                }
                Ok(job) => other = Some(job),
                Err(_empty_or_closed) => break,
            }
        }
        let answer = self.commit(&group.items);
        for caller in group.callers {
            let _caller_gone = caller.send(answer.clone());
        }
        other
    }

    /// Takes a caller into the group, or answers it at once when what it brings is wrong.
    fn join(&self, group: &mut Group, project: ProjectName, segments: Vec<(Hash, Bytes)>, done: Answer<()>) {
        let forgotten = segments.iter().find(|(hash, _)| self.shared.is_forgotten(&project, hash));
        let forgotten =
            forgotten.map(|(hash, _)| StoreError::Forgotten { project: project.clone(), hash: *hash });
        if let Some(error) = forgotten.or_else(|| check(&project, &segments).err()) {
            let _caller_gone = done.send(Err(error));
            return;
        }
        for (hash, bytes) in segments {
            self.shared.spare(&project, &hash);
            let new = self.shared.held(&project, &hash).is_none();
            if new && group.names.insert((project.clone(), hash)) {
                group.bytes += bytes.len();
                group.items.push(Item { project: project.clone(), hash, bytes });
            }
        }
        group.callers.push(done);
    }

    fn commit(&mut self, items: &[Item]) -> Result<(), StoreError> {
        self.refuse_if_failed()?;
        for part in items.chunks(GROUP_FILES) {
            self.write_part(part)?;
        }
        Ok(())
    }

    fn write_part(&mut self, items: &[Item]) -> Result<(), StoreError> {
        let start = Instant::now();
        self.files.write(items).map_err(|error| match error {
            WriteError::Full(cause) => StoreError::Full { reason: cause.to_string() },
            WriteError::Broken(cause) => self.fail(cause),
        })?;
        metrics::histogram!(names::FSYNC_SECONDS, "what" => "segments").record(start.elapsed().as_secs_f64());
        let entry = |item: &Item| Entry {
            project: item.project.clone(),
            hash: item.hash,
            bytes: item.bytes.len() as u64,
        };
        let entries: Vec<Entry> = items.iter().map(entry).collect();
        if let Err(error) = self.shared.index.put(&entries) {
            tracing::warn!(%error, "the segment index cannot be written; the next start rebuilds it");
        }
        entries.iter().for_each(|entry| self.shared.count(entry));
        Ok(())
    }

    fn refuse_if_failed(&self) -> Result<(), StoreError> {
        match self.shared.failed.borrow().clone() {
            Some(reason) => Err(StoreError::Failed { reason }),
            None => Ok(()),
        }
    }

    fn fail(&self, cause: io::Error) -> StoreError {
        let reason = cause.to_string();
        tracing::error!(%reason, "the segment store failed; this node must stop");
        self.shared.failed.send_replace(Some(reason.clone()));
        StoreError::Failed { reason }
    }

    /// Entries go durably before files: an index that says "held" must be right even after a power cut.
    fn remove(&mut self, project: &ProjectName, hashes: &[Hash]) -> Result<(), StoreError> {
        self.refuse_if_failed()?;
        // Else the journal would bring them back after a crash.
        self.files.settle_for_good().map_err(|cause| self.fail(cause))?;
        let once: BTreeSet<&Hash> = hashes.iter().collect();
        let held: Vec<u64> = once.into_iter().filter_map(|hash| self.shared.held(project, hash)).collect();
        let index = &self.shared.index;
        index
            .remove(project, hashes)
            .and_then(|()| index.barrier())
            .map_err(|e| StoreError::Index { reason: e.to_string() })?;
        held.into_iter().for_each(|bytes| self.shared.uncount(bytes));
        let removed = hashes.iter().try_for_each(|hash| self.files.remove(project, hash));
        removed.and_then(|()| self.files.sync_shards(project, hashes)).map_err(|cause| self.fail(cause))
    }

    /// What a crash interrupts is still held then, and erased when the store is told again: so the journal goes first.
    fn erase(&mut self, project: &ProjectName, hashes: &[Hash]) -> Result<(), StoreError> {
        self.refuse_if_failed()?;
        let there = |hash: &&Hash| {
            self.shared.held(project, hash).is_some() || self.files.has_any(project, hash).unwrap_or(true)
        };
        let there: Vec<Hash> = hashes.iter().filter(there).copied().collect();
        if there.is_empty() {
            return Ok(());
        }
        self.files.settle_and_wipe().map_err(|cause| self.fail(cause))?;
        there
            .iter()
            .try_for_each(|hash| self.files.remove_leftovers(project, hash))
            .map_err(|c| self.fail(c))?;
        self.remove(project, &there)
    }

    /// Puts wait behind this: what is put again while it goes is written anew.
    fn sweep(&mut self, project: &ProjectName, since_ms: u64) -> Result<StoreStats, StoreError> {
        self.refuse_if_failed()?;
        let going = self.shared.garbage().take(project, since_ms, SWEPT_AT_ONCE);
        let bytes = going.iter().filter_map(|hash| self.shared.held(project, hash)).sum();
        let erased = self.erase(project, &going);
        self.shared.garbage().gone();
        erased.map(|()| StoreStats { segments: going.len() as u64, bytes })
    }

    /// Looks again at a segment that a reader could not use, and forgets it if that is still so.
    fn recheck(&mut self, project: &ProjectName, hash: Hash) {
        let bytes = self.shared.disk.read(&files::path(project, &hash));
        if bytes.as_ref().is_ok_and(|bytes| is_named(project, &hash, bytes)) {
            return;
        }
        if let Some(bytes) = self.shared.held(project, &hash) {
            metrics::counter!(names::SEGMENTS_DAMAGED_TOTAL).increment(1);
            tracing::error!(%project, %hash, "a stored segment is lost or damaged; it is fetched again when needed");
            match self.shared.index.remove(project, &[hash]) {
                Ok(()) => self.shared.uncount(bytes),
                Err(error) => tracing::warn!(%error, "the segment index cannot be written"),
            }
        }
        if bytes.is_ok()
            && let Err(error) = self.files.set_aside(project, &hash)
        {
            tracing::warn!(%error, %hash, "a damaged segment cannot be moved aside");
        }
    }

    /// Marks the index as complete, unless something went wrong: then the next start compares it with the files.
    fn finish(&mut self) {
        if self.shared.failed.borrow().is_some() {
            return;
        }
        if let Err(error) = self.files.settle_for_good() {
            self.fail(error);
            return;
        }
        let stamp = Stamp { disk_id: self.shared.disk_id, complete: true };
        let index = &self.shared.index;
        if let Err(error) =
            index.barrier().and_then(|()| index.set_stamp(stamp)).and_then(|()| index.barrier())
        {
            tracing::warn!(%error, "the segment index could not be closed; the next start rebuilds it");
        }
    }
}

fn check(project: &ProjectName, segments: &[(Hash, Bytes)]) -> Result<(), StoreError> {
    for (hash, bytes) in segments {
        if bytes.is_empty() || bytes.len() > STORED_BYTES {
            return Err(StoreError::Size { hash: *hash, bytes: bytes.len(), limit: STORED_BYTES });
        }
        if !is_named(project, hash, bytes) {
            return Err(StoreError::WrongName { project: project.clone(), hash: *hash });
        }
    }
    Ok(())
}
