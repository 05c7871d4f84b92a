//! Which slots of which files are free, and when a file may be added. Pure bookkeeping of the disk tier's bound.

use std::collections::BTreeMap;

use super::files;
use super::format::Shape;
use super::io::Job;

/// A place for one block on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    pub(super) file: u32,
    pub(super) slot: u32,
}

/// A file in the folder whose blocks are not used: of another engine, another format, or damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Foreign {
    pub(super) name: String,
    pub(super) bytes: u64,
}

#[derive(Debug)]
pub(super) struct Slots {
    shape: Shape,
    bound: u64,
    /// Slots of each of our files.
    files: BTreeMap<u32, u32>,
    foreign: Vec<Foreign>,
    free: Vec<Slot>,
    next_file: u32,
    used: u64,
}

impl Slots {
    pub(super) fn new(shape: Shape, bound: u64, foreign: Vec<Foreign>, next_file: u32) -> Slots {
        let used = foreign.iter().map(|file| file.bytes).sum();
        Slots { shape, bound, files: BTreeMap::new(), foreign, free: Vec::new(), next_file, used }
    }

    /// Bytes of all files, foreign ones included.
    pub(super) fn bytes(&self) -> u64 {
        self.used
    }

    /// A file found at start, with the slots that hold no block.
    pub(super) fn found(&mut self, file: u32, slots: u32, free: impl Iterator<Item = u32>) {
        self.files.insert(file, slots);
        self.used += self.shape.file_bytes(slots);
        self.free.extend(free.map(|slot| Slot { file, slot }));
    }

    /// Whether `take` would give a slot.
    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty() || self.slots_of_next() > 0
    }

    /// A free slot, with what must be done before it is written. None when the bound is reached.
    pub(super) fn take(&mut self) -> Option<(Slot, Vec<Job>)> {
        if let Some(slot) = self.free.pop() {
            return Some((slot, Vec::new()));
        }
        let jobs = self.grow()?;
        self.free.pop().map(|slot| (slot, jobs))
    }

    pub(super) fn give(&mut self, slot: Slot) {
        if self.files.contains_key(&slot.file) {
            self.free.push(slot);
        }
    }

    /// The file could not be made, because the disk is full: what is there must do.
    pub(super) fn creation_failed(&mut self, file: u32) {
        if let Some(slots) = self.files.remove(&file) {
            self.used -= self.shape.file_bytes(slots);
            self.free.retain(|slot| slot.file != file);
            self.bound = self.used;
        }
    }

    /// Removes every file.
    pub(super) fn remove_all(&mut self) -> Vec<Job> {
        let ours = std::mem::take(&mut self.files).into_keys().map(files::name);
        let names = self.foreign.drain(..).map(|file| file.name).chain(ours);
        let jobs = names.map(|name| Job::Remove { name }).collect();
        (self.used, self.bound) = (0, 0);
        self.free.clear();
        jobs
    }

    /// Whether any block could be stored at all.
    pub(super) fn is_useless(&self) -> bool {
        self.files.is_empty() && self.bound < self.shape.file_bytes(1)
    }

    /// Foreign files go first, one by one, until a whole file of ours fits.
    fn grow(&mut self) -> Option<Vec<Job>> {
        let slots = self.slots_of_next();
        if slots == 0 {
            return None;
        }
        let file = self.next_file;
        self.next_file = self.next_file.checked_add(1)?;
        let mut jobs = Vec::new();
        while self.slots_within(self.used) < slots {
            let Foreign { name, bytes } = self.foreign.pop()?;
            self.used -= bytes;
            jobs.push(Job::Remove { name });
        }
        jobs.push(Job::Create { file, slots });
        // The lowest slot is on top, so that a file fills from its beginning.
        self.found(file, slots, (0..slots).rev());
        Some(jobs)
    }

    /// Slots of the next file, when as many foreign files go as needed.
    fn slots_of_next(&self) -> u32 {
        self.slots_within(self.used - self.foreign.iter().map(|file| file.bytes).sum::<u64>())
    }

    fn slots_within(&self, used: u64) -> u32 {
        self.shape.slots_within(self.bound.saturating_sub(used))
    }
}
