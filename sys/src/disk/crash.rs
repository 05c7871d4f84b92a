//! Memory that behaves as a disk does when the power is cut.
//!
//! Each file has the bytes that programs see and the bytes that are on the platter, with the list of writes
//! in between. Each folder has the same for its names. A crash keeps the platter, plus a random part of the
//! writes in between: some sectors of some writes, and a prefix of each folder's changes of names.

use super::{Disk, DiskFile, check, parent};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// What a drive writes in one piece.
const SECTOR: usize = 512;

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct CrashDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<u64, Contents>,
    /// The names that programs see.
    names: BTreeMap<String, Node>,
    /// The names on the platter.
    durable_names: BTreeMap<String, Node>,
    /// Changes of names since each folder's last sync, in order.
    pending_names: BTreeMap<String, Vec<Rewrite>>,
    next_file: u64,
    /// Handles from before a crash must not write into the time after it.
    generation: u64,
    dead: bool,
    writes: u64,
    syncs: u64,
    cut_in: Option<u64>,
    failing_sync: Option<u64>,
    capacity: Option<u64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Node {
    Dir,
    File(u64),
}

#[derive(Default)]
struct Contents {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Edit>,
}

impl Contents {
    fn settle(&mut self) {
        for edit in self.pending.drain(..) {
            apply_edit(&mut self.durable, edit);
        }
    }
}

enum Edit {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

enum Rewrite {
    Link { name: String, node: Node },
    Unlink { name: String },
    Rename { from: String, to: String, node: Node },
}

impl CrashDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts the power and starts again. What was synced is kept; of the rest, what `seed` says.
    /// Open files of the time before answer with errors from now on. Capacity stays, other faults are over.
    pub fn crash(&self, seed: u64) {
        let mut rng = Rng(seed);
        let mut state = self.lock();
        state.keep_some_names(&mut rng);
        state.keep_some_bytes(&mut rng);
        state.generation += 1;
        state.dead = false;
        state.cut_in = None;
        state.failing_sync = None;
    }

    /// Kills the program, not the machine: open files are gone, everything written stays, and what was not
    /// synced still is not. Power that was cut is back.
    pub fn kill_program(&self) {
        let mut state = self.lock();
        state.generation += 1;
        state.dead = false;
        state.cut_in = None;
        state.failing_sync = None;
    }

    /// Cuts the power in the middle of the n-th change from now (1 is the next): that change is seen by nobody
    /// as done, and every call fails until [`CrashDisk::crash`] starts the disk again.
    pub fn cut_power_in(&self, changes: u64) {
        self.lock().cut_in = Some(changes.max(1));
    }

    /// Whether the power was cut and not yet restored.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Makes the n-th sync of a file from now fail (1 is the next). As on Linux, the writes it should have
    /// made durable are then lost, although programs still read them.
    pub fn fail_sync_in(&self, syncs: u64) {
        self.lock().failing_sync = Some(syncs.max(1));
    }

    /// Limits the bytes in all files; a write beyond fails with `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// How many syncs of files have succeeded.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// How many changes (writes, syncs, changes of names) were asked for.
    pub fn changes(&self) -> u64 {
        self.lock().writes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a disk operation panicked")
    }

    /// Counts a change, and fails it when the power goes.
    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.alive()?;
        state.writes += 1;
        if let Some(left) = state.cut_in.as_mut() {
            *left -= 1;
            state.dead = state.cut_in == Some(0);
        }
        Ok(state)
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.dead { Err(no_power()) } else { Ok(state) }
    }
}

impl State {
    fn node(&self, path: &str) -> Option<Node> {
        if path.is_empty() { Some(Node::Dir) } else { self.names.get(path).copied() }
    }

    fn file(&self, path: &str) -> io::Result<u64> {
        match self.node(path) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir) => {
                Err(io::Error::new(io::ErrorKind::IsADirectory, format!("{path} is a folder")))
            }
            None => Err(missing(path)),
        }
    }

    fn dir(&self, path: &str) -> io::Result<()> {
        match self.node(path) {
            Some(Node::Dir) => Ok(()),
            _ => Err(missing(path)),
        }
    }

    fn link(&mut self, name: &str, node: Node) {
        self.names.insert(name.to_string(), node);
        self.later(name, Rewrite::Link { name: name.to_string(), node });
    }

    fn later(&mut self, name: &str, rewrite: Rewrite) {
        self.pending_names.entry(parent(name).to_string()).or_default().push(rewrite);
    }

    /// Counts a sync down to the one that is to fail.
    fn fails_now(&mut self) -> bool {
        self.failing_sync = self.failing_sync.map(|left| left - 1);
        self.failing_sync.take_if(|left| *left == 0).is_some()
    }

    fn used(&self) -> u64 {
        self.files.values().map(|f| f.seen.len() as u64).sum()
    }

    fn keep_some_names(&mut self, rng: &mut Rng) {
        for (_, rewrites) in std::mem::take(&mut self.pending_names) {
            let keep = rng.below(rewrites.len() as u64 + 1) as usize;
            for rewrite in rewrites.into_iter().take(keep) {
                apply_rewrite(&mut self.durable_names, rewrite);
            }
        }
        let names = self.durable_names.clone();
        let reachable = |name: &String| {
            let mut dir = parent(name);
            while !dir.is_empty() && names.get(dir) == Some(&Node::Dir) {
                dir = parent(dir);
            }
            dir.is_empty()
        };
        self.durable_names.retain(|name, _| reachable(name));
        self.names = self.durable_names.clone();
        let alive: BTreeSet<u64> =
            self.names.values().filter_map(|n| if let Node::File(f) = n { Some(*f) } else { None }).collect();
        self.files.retain(|file, _| alive.contains(file));
    }

    fn keep_some_bytes(&mut self, rng: &mut Rng) {
        for contents in self.files.values_mut() {
            let pending = std::mem::take(&mut contents.pending);
            let luck = Luck::draw(rng, pending.len());
            for (n, edit) in pending.into_iter().enumerate() {
                luck.apply(rng, n, edit, &mut contents.durable);
            }
            contents.seen = contents.durable.clone();
        }
    }
}

/// How much of a file's unsynced writes survives a crash.
enum Luck {
    /// None of it.
    Nothing,
    /// Writes in order up to one, which may be cut inside.
    Prefix(usize),
    /// Any sectors of any writes: the drive reorders as it likes.
    Sectors,
    /// All of it: the crash of a program, not of the machine.
    Everything,
}

impl Luck {
    fn draw(rng: &mut Rng, writes: usize) -> Luck {
        match rng.below(4) {
            0 => Luck::Nothing,
            1 => Luck::Prefix(rng.below(writes as u64 + 1) as usize),
            2 => Luck::Sectors,
            _ => Luck::Everything,
        }
    }

    fn apply(&self, rng: &mut Rng, n: usize, edit: Edit, durable: &mut Vec<u8>) {
        match (self, edit) {
            (Luck::Nothing, _) => {}
            (Luck::Prefix(kept), edit) if n < *kept => apply_edit(durable, edit),
            (Luck::Prefix(kept), Edit::Write { offset, mut bytes }) if n == *kept => {
                bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
                apply_edit(durable, Edit::Write { offset, bytes });
            }
            (Luck::Prefix(_), _) => {}
            (Luck::Sectors, Edit::SetLen(bytes)) => {
                if rng.below(2) == 0 {
                    apply_edit(durable, Edit::SetLen(bytes));
                }
            }
            (Luck::Sectors, Edit::Write { offset, bytes }) => {
                for (offset, bytes) in sectors(offset, &bytes) {
                    if rng.below(2) == 0 {
                        apply_edit(durable, Edit::Write { offset, bytes: bytes.to_vec() });
                    }
                }
            }
            (Luck::Everything, edit) => apply_edit(durable, edit),
        }
    }
}

/// A write cut at the drive's sector borders.
fn sectors(offset: usize, bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let room = SECTOR - (offset + at) % SECTOR;
        let end = bytes.len().min(at + room);
        parts.push((offset + at, &bytes[at..end]));
        at = end;
    }
    parts
}

fn apply_edit(bytes: &mut Vec<u8>, edit: Edit) {
    match edit {
        Edit::SetLen(len) => bytes.resize(len, 0),
        Edit::Write { offset, bytes: new } => {
            let end = offset + new.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[offset..end].copy_from_slice(&new);
        }
    }
}

fn apply_rewrite(names: &mut BTreeMap<String, Node>, rewrite: Rewrite) {
    match rewrite {
        Rewrite::Link { name, node } => drop(names.insert(name, node)),
        Rewrite::Unlink { name } => drop(names.remove(&name)),
        Rewrite::Rename { from, to, node } => {
            names.remove(&from);
            names.insert(to, node);
        }
    }
}

fn missing(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{path} does not exist"))
}

fn failed_sync() -> io::Error {
    io::Error::other("the simulated disk failed to sync")
}

fn no_power() -> io::Error {
    io::Error::other("the simulated disk has no power")
}

impl Disk for CrashDisk {
    fn create_dir_all(&self, dir: &str) -> io::Result<()> {
        check(dir)?;
        let mut path = String::new();
        for part in dir.split('/').filter(|p| !p.is_empty()) {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(part);
            let mut state = self.change()?;
            match state.node(&path) {
                Some(Node::Dir) => {}
                Some(Node::File(_)) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, path)),
                None => state.link(&path, Node::Dir),
            }
        }
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        check(dir)?;
        let state = self.alive()?;
        state.dir(dir)?;
        let inside = |(name, node): (&String, &Node)| {
            let file = matches!(node, Node::File(_)) && parent(name) == dir;
            file.then(|| name.rsplit('/').next().unwrap_or(name).to_string())
        };
        Ok(state.names.iter().filter_map(inside).collect())
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        check(path)?;
        let state = self.alive()?;
        let file = state.file(path)?;
        Ok(state.files[&file].seen.clone())
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        check(path)?;
        let mut state = self.alive()?;
        let file = match state.file(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                state.dir(parent(path))?;
                drop(state);
                state = self.change()?;
                let file = state.next_file;
                state.next_file += 1;
                state.files.insert(file, Contents::default());
                state.link(path, Node::File(file));
                file
            }
            Err(e) => return Err(e),
        };
        let generation = state.generation;
        drop(state);
        Ok(Box::new(CrashFile { disk: self.clone(), file, generation }))
    }

    fn exists(&self, path: &str) -> io::Result<bool> {
        check(path)?;
        Ok(self.alive()?.node(path).is_some())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check(from)?;
        check(to)?;
        let mut state = self.change()?;
        let node = Node::File(state.file(from)?);
        state.dir(parent(to))?;
        state.names.remove(from);
        state.names.insert(to.to_string(), node);
        state.later(to, Rewrite::Rename { from: from.to_string(), to: to.to_string(), node });
        if parent(from) != parent(to) {
            state.later(from, Rewrite::Unlink { name: from.to_string() });
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        check(path)?;
        let mut state = self.change()?;
        state.file(path)?;
        state.names.remove(path);
        state.later(path, Rewrite::Unlink { name: path.to_string() });
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        check(dir)?;
        let mut state = self.change()?;
        state.dir(dir)?;
        if state.dead {
            return Err(no_power());
        }
        for rewrite in state.pending_names.remove(dir).unwrap_or_default() {
            apply_rewrite(&mut state.durable_names, rewrite);
        }
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        let mut state = self.change()?;
        if state.dead {
            return Err(no_power());
        }
        if state.fails_now() {
            state.files.values_mut().for_each(|contents| contents.pending.clear());
            return Err(failed_sync());
        }
        state.files.values_mut().for_each(Contents::settle);
        for rewrite in std::mem::take(&mut state.pending_names).into_values().flatten() {
            apply_rewrite(&mut state.durable_names, rewrite);
        }
        state.syncs += 1;
        Ok(())
    }
}

struct CrashFile {
    disk: CrashDisk,
    file: u64,
    generation: u64,
}

impl CrashFile {
    fn on<T>(&self, state: &mut State, act: impl FnOnce(&mut Contents) -> io::Result<T>) -> io::Result<T> {
        if state.generation != self.generation {
            return Err(no_power());
        }
        act(state.files.get_mut(&self.file).ok_or_else(no_power)?)
    }

    /// Applies an edit to what programs see, and remembers it for the platter.
    fn edit(&self, grows_to: u64, edit: Edit, same: Edit) -> io::Result<()> {
        let mut state = self.disk.change()?;
        let (used, capacity) = (state.used(), state.capacity.unwrap_or(u64::MAX));
        self.on(&mut state, |contents| {
            let grows = grows_to.saturating_sub(contents.seen.len() as u64);
            if grows > 0 && used + grows > capacity {
                return Err(io::Error::new(io::ErrorKind::StorageFull, "the simulated disk is full"));
            }
            apply_edit(&mut contents.seen, edit);
            contents.pending.push(same);
            Ok(())
        })?;
        if state.dead { Err(no_power()) } else { Ok(()) }
    }
}

impl DiskFile for CrashFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.disk.alive()?;
        self.on(&mut state, |contents| {
            let start = (offset as usize).min(contents.seen.len());
            let end = (start + into.len()).min(contents.seen.len());
            into[..end - start].copy_from_slice(&contents.seen[start..end]);
            Ok(end - start)
        })
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let write = || Edit::Write { offset: offset as usize, bytes: bytes.to_vec() };
        self.edit(offset + bytes.len() as u64, write(), write())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.change()?;
        if state.dead {
            return Err(no_power());
        }
        if state.fails_now() {
            self.on(&mut state, |contents| {
                contents.pending.clear();
                Ok(())
            })?;
            return Err(failed_sync());
        }
        self.on(&mut state, |contents| {
            contents.settle();
            Ok(())
        })?;
        state.syncs += 1;
        Ok(())
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.edit(bytes, Edit::SetLen(bytes as usize), Edit::SetLen(bytes as usize))
    }

    fn size(&self) -> io::Result<u64> {
        let mut state = self.disk.alive()?;
        self.on(&mut state, |contents| Ok(contents.seen.len() as u64))
    }
}

/// SplitMix64: small, good enough to pick sectors, and the same everywhere.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::write_durably;

    fn written(disk: &CrashDisk, path: &str, bytes: &[u8]) -> Box<dyn DiskFile> {
        let mut file = disk.open(path).unwrap();
        file.write_at(0, bytes).unwrap();
        file
    }

    #[test]
    fn synced_bytes_survive_and_unsynced_ones_may_not() {
        let (mut lost, mut kept, mut torn) = (0, 0, 0);
        for seed in 0..200 {
            let disk = CrashDisk::new();
            let mut file = written(&disk, "log", &[1; 2000]);
            file.sync().unwrap();
            disk.sync_dir("").unwrap();
            file.write_at(2000, &[2; 2000]).unwrap();
            disk.crash(seed);
            let bytes = disk.read("log").unwrap();
            assert_eq!(bytes[..2000], [1; 2000], "seed {seed}");
            match bytes[2000..].iter().filter(|b| **b == 2).count() {
                0 => lost += 1,
                2000 => kept += 1,
                _ => torn += 1,
            }
        }
        assert!(lost > 10 && kept > 10 && torn > 10, "{lost} {kept} {torn}");
    }

    #[test]
    fn a_name_survives_only_when_its_folder_was_synced() {
        let present = |sync: bool, seed: u64| {
            let disk = CrashDisk::new();
            disk.create_dir_all("d").unwrap();
            disk.sync_dir("").unwrap();
            written(&disk, "d/file", b"x").sync().unwrap();
            if sync {
                disk.sync_dir("d").unwrap();
            }
            disk.crash(seed);
            disk.exists("d/file").unwrap()
        };
        assert!((0..50).all(|seed| present(true, seed)));
        assert!((0..50).any(|seed| !present(false, seed)) && (0..50).any(|seed| present(false, seed)));
    }

    #[test]
    fn a_durable_write_is_old_or_new_at_every_cut() {
        for cut in 1..20 {
            for seed in 0..20 {
                let disk = CrashDisk::new();
                write_durably(&disk, "f", b"old").unwrap();
                disk.cut_power_in(cut);
                let done = write_durably(&disk, "f", b"new").is_ok();
                disk.crash(seed);
                let bytes = disk.read("f").unwrap();
                assert!(bytes == b"new" || (bytes == b"old" && !done), "cut {cut} seed {seed} {done}");
            }
        }
    }

    #[test]
    fn handles_do_not_outlive_a_crash() {
        let disk = CrashDisk::new();
        let mut file = written(&disk, "f", b"x");
        file.sync().unwrap();
        disk.crash(1);
        assert!(file.write_at(0, b"y").is_err() && file.sync().is_err() && file.size().is_err());
    }

    #[test]
    fn a_killed_program_leaves_its_writes_unsynced() {
        let lost = (0..20).filter(|seed| {
            let disk = CrashDisk::new();
            let mut file = written(&disk, "f", b"x");
            disk.sync_dir("").unwrap();
            disk.kill_program();
            assert!(file.sync().is_err());
            assert_eq!(disk.read("f").unwrap(), b"x");
            disk.crash(*seed);
            disk.read("f").unwrap().is_empty()
        });
        assert!(lost.count() > 3);
    }

    #[test]
    fn a_failed_sync_loses_the_writes_even_if_tried_again() {
        let disk = CrashDisk::new();
        disk.sync_dir("").unwrap();
        let mut file = written(&disk, "f", b"x");
        disk.sync_dir("").unwrap();
        disk.fail_sync_in(1);
        assert!(file.sync().is_err());
        assert!(file.sync().is_ok(), "the second try lies, as it does on Linux");
        assert_eq!(disk.read("f").unwrap(), b"x");
        disk.crash(0);
        assert_eq!(disk.read("f").unwrap(), b"");
    }

    #[test]
    fn a_full_disk_says_so() {
        let disk = CrashDisk::new();
        disk.set_capacity(Some(10));
        let mut file = written(&disk, "f", &[0; 10]);
        assert_eq!(file.write_at(5, &[1; 6]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.write_at(0, &[1; 10]).unwrap();
        assert_eq!(disk.syncs(), 0);
    }
}
