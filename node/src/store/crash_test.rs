//! The promise "acknowledged means durable", tested by losing every write that was not synced, at random
//! points, and by planting stores that forget a sync and must be caught.

use super::*;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Condvar, Mutex};
use sys::disk::{CrashDisk, DiskFile};

/// What is wrong with a disk between the store and the platter.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    None,
    SkipFileSync,
    SkipDirSync,
}

/// Among the folders that were synced: all at once.
const WHOLE: &str = "all";

/// Passes calls on to a [`CrashDisk`], watches them, and may leave some out.
struct Spy {
    disk: CrashDisk,
    fault: Fault,
    /// Syncs of folders until one fails, as if the process had been killed just before it.
    die_in: AtomicI64,
    shard_syncs: Mutex<BTreeMap<String, u32>>,
    /// While closed, syncs of files wait.
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, closed: bool) {
        *self.closed.lock().unwrap() = closed;
        self.changed.notify_all();
    }

    fn pass(&self) {
        drop(self.changed.wait_while(self.closed.lock().unwrap(), |closed| *closed).unwrap());
    }
}

impl Spy {
    fn new(disk: &CrashDisk, fault: Fault) -> Arc<Spy> {
        Arc::new(Spy {
            disk: disk.clone(),
            fault,
            die_in: AtomicI64::new(i64::MAX),
            shard_syncs: Mutex::default(),
            gate: Arc::default(),
        })
    }
}

struct SpyFile {
    file: Box<dyn DiskFile>,
    skip: bool,
    gate: Arc<Gate>,
}

impl DiskFile for SpyFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, into)
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.gate.pass();
        if self.skip { Ok(()) } else { self.file.sync() }
    }
    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
}

impl Disk for Spy {
    fn create_dir_all(&self, dir: &str) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        self.disk.read(path)
    }
    fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let skip = self.fault == Fault::SkipFileSync;
        Ok(Box::new(SpyFile { file: self.disk.open(path)?, skip, gate: self.gate.clone() }))
    }
    fn exists(&self, path: &str) -> io::Result<bool> {
        self.disk.exists(path)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        if self.die_in.fetch_sub(1, Ordering::Relaxed) <= 1 {
            return Err(io::Error::other("killed"));
        }
        *self.shard_syncs.lock().unwrap().entry(dir.to_string()).or_default() += 1;
        if self.fault == Fault::SkipDirSync { Ok(()) } else { self.disk.sync_dir(dir) }
    }
    fn sync_all(&self) -> io::Result<()> {
        self.gate.pass();
        *self.shard_syncs.lock().unwrap().entry(WHOLE.to_string()).or_default() += 1;
        if self.fault == Fault::None { self.disk.sync_all() } else { Ok(()) }
    }
}

/// An index that, as sled does, comes back after a crash as some earlier state not before its last barrier.
#[derive(Clone, Default)]
struct ForgetfulIndex {
    log: Arc<Mutex<(Vec<Change>, usize)>>,
}

#[derive(Clone)]
enum Change {
    Put(Entry),
    Remove(ProjectName, Hash),
    Stamp(Stamp),
}

impl ForgetfulIndex {
    fn crash(&self, seed: u64) {
        let (log, durable) = &mut *self.log.lock().unwrap();
        let kept = *durable + (seed as usize) % (log.len() - *durable + 1);
        log.truncate(kept);
        *durable = kept;
    }

    fn add(&self, changes: impl Iterator<Item = Change>) {
        self.log.lock().unwrap().0.extend(changes);
    }

    fn state(&self) -> (BTreeMap<(ProjectName, Hash), u64>, Option<Stamp>) {
        let (mut rows, mut stamp) = (BTreeMap::new(), None);
        for change in self.log.lock().unwrap().0.iter().cloned() {
            match change {
                Change::Put(entry) => drop(rows.insert((entry.project, entry.hash), entry.bytes)),
                Change::Remove(project, hash) => drop(rows.remove(&(project, hash))),
                Change::Stamp(new) => stamp = Some(new),
            }
        }
        (rows, stamp)
    }
}

impl Index for ForgetfulIndex {
    fn get(&self, project: &ProjectName, hash: &Hash) -> Result<Option<u64>, IndexError> {
        Ok(self.state().0.get(&(project.clone(), *hash)).copied())
    }
    fn put(&self, entries: &[Entry]) -> Result<(), IndexError> {
        self.add(entries.iter().cloned().map(Change::Put));
        Ok(())
    }
    fn remove(&self, project: &ProjectName, hashes: &[Hash]) -> Result<(), IndexError> {
        self.add(hashes.iter().map(|hash| Change::Remove(project.clone(), *hash)));
        Ok(())
    }
    fn all(&self) -> Result<Vec<Entry>, IndexError> {
        let rows = self.state().0.into_iter();
        Ok(rows.map(|((project, hash), bytes)| Entry { project, hash, bytes }).collect())
    }
    fn stamp(&self) -> Result<Option<Stamp>, IndexError> {
        Ok(self.state().1)
    }
    fn set_stamp(&self, stamp: Stamp) -> Result<(), IndexError> {
        self.add(std::iter::once(Change::Stamp(stamp)));
        Ok(())
    }
    fn barrier(&self) -> Result<(), IndexError> {
        let mut log = self.log.lock().unwrap();
        log.1 = log.0.len();
        Ok(())
    }
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

/// What one life of a store acknowledged before the power went.
#[derive(Default)]
struct Acked {
    held: BTreeMap<Hash, Bytes>,
    removed: Vec<Hash>,
}

fn a() -> ProjectName {
    ProjectName::parse("a").unwrap()
}

fn segment(text: String) -> (Hash, Bytes) {
    (Hash::keyed("a", text.as_bytes()), Bytes::from(text))
}

/// Several callers put and remove until the power goes, or all is done.
async fn live(store: &SegmentStore, seed: u64, acked: &mut Acked) {
    for round in 0..4u64 {
        let puts = (0..3u64).map(|caller| {
            let store = store.clone();
            let mut rng = Rng(seed ^ (round << 8) ^ caller);
            async move {
                let text = |i: u64| format!("{seed} {round} {caller} {i} {}", "x".repeat((i * 700) as usize));
                let batch: Vec<_> = (0..1 + rng.below(3)).map(|i| segment(text(i))).collect();
                store.put_all(&a(), batch.clone()).await.map(|()| batch)
            }
        });
        let answers = futures::future::join_all(puts).await;
        acked.held.extend(answers.into_iter().flatten().flatten());
        let first = acked.held.keys().next().copied();
        if let Some(hash) = first.filter(|_| round % 2 == 1) {
            // Once asked for, both outcomes are allowed until it is acknowledged.
            acked.held.remove(&hash);
            if store.remove(&a(), &[hash]).await.is_ok() {
                acked.removed.push(hash);
            }
        }
    }
}

/// Checks the promise after a restart: Err says what was broken.
async fn check(store: &SegmentStore, acked: &Acked) -> Result<(), String> {
    for (hash, bytes) in &acked.held {
        match store.get(&a(), *hash).await {
            Ok(Some(found)) if found == *bytes => {}
            other => return Err(format!("acknowledged {} is {other:?}", hash.short())),
        }
    }
    let hashes: Vec<Hash> = acked.held.keys().copied().collect();
    let missing = store.missing(&a(), &hashes).await.map_err(|e| e.to_string())?;
    if !missing.is_empty() {
        return Err(format!("{} acknowledged segments are said to be missing", missing.len()));
    }
    for hash in &acked.removed {
        if store.get(&a(), *hash).await != Ok(None) {
            return Err(format!("removed {} is back", hash.short()));
        }
    }
    Ok(())
}

/// One disk through several power cuts.
async fn run(seed: u64, fault: Fault) -> Result<usize, String> {
    let (disk, index, mut rng) = (CrashDisk::new(), ForgetfulIndex::default(), Rng(seed));
    let mut acked = Acked::default();
    for life in 0..3u64 {
        disk.cut_power_in(1 + rng.below(260));
        let opened = SegmentStore::open(Spy::new(&disk, fault), Box::new(index.clone()), [9; 16]);
        if let Ok(store) = opened {
            live(&store, seed * 8 + life, &mut acked).await;
            if rng.below(4) == 0 {
                store.close().await;
            }
        }
        disk.crash(rng.below(u64::MAX));
        index.crash(rng.below(1 << 20));
        let store = SegmentStore::open(Arc::new(disk.clone()), Box::new(index.clone()), [9; 16])
            .map_err(|e| e.to_string())?;
        check(&store, &acked).await.map_err(|broken| format!("seed {seed}, life {life}: {broken}"))?;
        store.close().await;
    }
    Ok(acked.held.len())
}

#[tokio::test]
async fn acknowledged_segments_survive_power_cuts() {
    let mut survivors = 0;
    for seed in 0..150 {
        survivors += run(seed, Fault::None).await.unwrap();
    }
    assert!(survivors > 1000, "the test must acknowledge something: {survivors}");
}

#[tokio::test]
async fn a_store_that_forgets_a_sync_is_caught() {
    for fault in [Fault::SkipFileSync, Fault::SkipDirSync] {
        let mut caught = 0;
        for seed in 0..20 {
            caught += run(seed, fault).await.is_err() as u32;
        }
        assert!(caught >= 10, "{fault:?} was caught in {caught} of 20 runs");
    }
}

#[tokio::test]
async fn a_kill_before_the_sync_of_the_folder_leaves_no_false_promise() {
    for die_in in 1..12 {
        let disk = CrashDisk::new();
        let one = segment("one".into());
        let spy = Spy::new(&disk, Fault::None);
        spy.die_in.store(die_in, Ordering::Relaxed);
        // The first process is killed somewhere on its way; the disk keeps its power.
        if let Ok(store) = SegmentStore::open(spy, Box::new(MemoryIndex::default()), [9; 16]) {
            let _killed = store.put_all(&a(), vec![one.clone()]).await;
        }
        let store =
            SegmentStore::open(Arc::new(disk.clone()), Box::new(MemoryIndex::default()), [9; 16]).unwrap();
        store.put_all(&a(), vec![one.clone()]).await.unwrap();
        disk.crash(die_in as u64);
        let store =
            SegmentStore::open(Arc::new(disk.clone()), Box::new(MemoryIndex::default()), [9; 16]).unwrap();
        assert_eq!(store.get(&a(), one.0).await.unwrap(), Some(one.1), "killed at sync {die_in}");
    }
}

#[tokio::test]
async fn callers_that_wait_together_share_one_sync_of_the_folder() {
    let disk = CrashDisk::new();
    let spy = Spy::new(&disk, Fault::None);
    let store = SegmentStore::open(spy.clone(), Box::new(MemoryIndex::default()), [9; 16]).unwrap();
    let in_shard_0 = (0..).map(|i| segment(format!("text {i}"))).filter(|(hash, _)| hash.0[0] == 0);
    let segments: Vec<_> = in_shard_0.take(20).collect();
    spy.gate.set(true);
    let puts = segments.iter().map(|segment| {
        let (store, segment) = (store.clone(), segment.clone());
        async move { store.put_all(&a(), vec![segment]).await }
    });
    let mut all = Box::pin(futures::future::join_all(puts));
    // Polled once, every caller is queued; the first group waits at the gate.
    assert!(futures::poll!(&mut all).is_pending());
    spy.gate.set(false);
    for answer in all.await {
        answer.unwrap();
    }
    store.close().await;
    let seen = spy.shard_syncs.lock().unwrap();
    let syncs: u32 = ["segments/a/00", WHOLE].iter().filter_map(|dir| seen.get(*dir)).sum();
    assert!((1..=2).contains(&syncs), "20 callers took {syncs} syncs of the folder");
    assert_eq!(store.stats().segments, 20);
}
