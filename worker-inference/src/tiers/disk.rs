//! The owner's side of the disk tier: what lies where, what is on its way, and when the tier gives up.

mod done;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use sys::disk::Disk;

use super::buffers::{Buffer, Buffers};
use super::check::Sum;
use super::files::Files;
use super::format::{Header, Shape};
use super::io::{Io, Job};
use super::meta::{Fetch, Gone, Kept, Meta};
use super::scan::{self, Found};
use super::shelf::Shelf;
use super::slots::{Slot, Slots};
use crate::prefix::{Key, Scope};

/// Reads that may fail one after the other before the disk is given up.
const READ_FAILURES_MAX: u32 = 8;

/// A block's place on disk.
#[derive(Debug, Clone, Copy)]
struct Placed {
    slot: Slot,
    stamp: u64,
    sum: Sum,
    /// Its bytes are not there yet, and neither is `sum`.
    is_being_written: bool,
}

/// Whom a read is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// A sequence waits: the bytes stay until they are copied.
    Sequence,
    /// Somebody may come: the bytes go to the host tier.
    Host,
}

#[derive(Debug)]
enum Stage {
    /// The block is still being written; its bytes come back with that.
    OnWrite,
    OnRead(Slot),
    Arrived(Meta, Buffer),
}

#[derive(Debug)]
struct Reading {
    whom: For,
    stage: Stage,
}

/// What the disk tier has to tell its owner.
#[derive(Debug)]
pub(super) enum News {
    /// A buffer nobody waits for.
    Spare(Buffer),
    /// Bytes for the host tier.
    ForHost(Key, Meta, Sum, Buffer),
    /// A sequence's bytes have arrived and can be copied.
    Arrived(Key),
    /// A sequence's bytes will not come.
    Lost(Key),
    /// A block left the disk.
    Gone(Gone),
    Wrote(Duration),
    WasRead(Duration),
}

pub(super) struct DiskTier {
    shape: Shape,
    shelf: Shelf<Placed>,
    slots: Slots,
    io: Option<Io>,
    off: Option<String>,
    stamp: u64,
    found: usize,
    reading: BTreeMap<Key, Reading>,
    /// Buffers that are out for writing and for reading; arrived ones count as reading.
    writes: usize,
    reads: usize,
    erasing: usize,
    failures: u32,
    news: VecDeque<News>,
}

impl DiskTier {
    pub(super) fn open(shape: Shape, bound: u64, disk: Option<Box<dyn Disk>>) -> DiskTier {
        let mut tier = DiskTier::closed(shape);
        match disk {
            None => tier.off = Some("no folder was given for it".into()),
            Some(disk) => match scan::scan(disk.as_ref(), &shape, bound)
                .and_then(|found| tier.begin(disk, found, bound))
            {
                Ok(()) if tier.slots.is_useless() => tier.switch_off("its bound is smaller than one block"),
                Ok(()) => {}
                Err(cause) => tier.switch_off(&format!("its folder can't be read: {cause}")),
            },
        }
        tier
    }

    fn closed(shape: Shape) -> DiskTier {
        DiskTier {
            shape,
            shelf: Shelf::default(),
            slots: Slots::new(shape, 0, Vec::new(), 0),
            io: None,
            off: None,
            stamp: 0,
            found: 0,
            reading: BTreeMap::new(),
            writes: 0,
            reads: 0,
            erasing: 0,
            failures: 0,
            news: VecDeque::new(),
        }
    }

    fn begin(&mut self, disk: Box<dyn Disk>, mut found: Found, bound: u64) -> std::io::Result<()> {
        self.slots = Slots::new(self.shape, bound, std::mem::take(&mut found.foreign), found.next_file);
        for (file, opened) in &found.files {
            self.slots.found(*file, opened.slots, found.free(*file).into_iter());
        }
        self.found = found.blocks.len();
        self.stamp = found.blocks.last().map_or(0, |(_, header)| header.stamp);
        for (slot, Header { stamp, key, meta, sum }) in found.blocks {
            self.shelf.insert(key, meta, Placed { slot, stamp, sum, is_being_written: false });
        }
        self.io = Some(Io::start(Files::new(disk, self.shape, found.files))?);
        Ok(())
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.shelf.has(key)
    }

    pub(super) fn has_arrived(&self, key: &Key) -> bool {
        matches!(self.reading.get(key), Some(Reading { stage: Stage::Arrived(..), .. }))
    }

    pub(super) fn meta(&self, key: &Key) -> Option<&Meta> {
        match self.reading.get(key) {
            Some(Reading { stage: Stage::Arrived(meta, _), .. }) => Some(meta),
            _ => self.shelf.get(key).map(|(meta, _)| meta),
        }
    }

    pub(super) fn set_rank(&mut self, key: &Key, rank: u64) {
        self.shelf.set_rank(key, rank);
    }

    pub(super) fn touch(&mut self, key: &Key) {
        self.shelf.touch(key);
    }

    pub(super) fn counts(&self) -> &BTreeMap<(Scope, u8), usize> {
        self.shelf.counts()
    }

    /// All blocks: those on disk, and those that arrived and may have been sent away from there since.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&Key, &Meta)> {
        let arrived = self.reading.iter().filter_map(|(key, reading)| match &reading.stage {
            Stage::Arrived(meta, _) => Some((key, meta)),
            Stage::OnWrite | Stage::OnRead(_) => None,
        });
        self.shelf.keys().chain(arrived)
    }

    pub(super) fn off(&self) -> Option<&str> {
        self.off.as_deref()
    }

    pub(super) fn found(&self) -> usize {
        self.found
    }

    pub(super) fn erasing(&self) -> usize {
        self.erasing
    }

    pub(super) fn writes(&self) -> usize {
        self.writes
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.slots.bytes()
    }

    pub(super) fn next_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// Whether a block could be placed without sending another away.
    pub(super) fn has_room(&self) -> bool {
        self.slots.has_room()
    }

    /// A slot for a block, at the cost of one that is worth less where needed.
    pub(super) fn place(&mut self, meta: &Meta, writes_max: usize) -> Result<Slot, Kept> {
        if self.off.is_some() {
            return Err(Kept::Off);
        }
        if self.writes >= writes_max {
            return Err(Kept::Later);
        }
        if let Some((slot, jobs)) = self.slots.take() {
            jobs.into_iter().for_each(|job| self.in_order(job));
            return Ok(slot);
        }
        let victim = self.shelf.victim(meta).ok_or(Kept::Full)?;
        let (_, placed) = self.shelf.remove(&victim).ok_or(Kept::Full)?;
        self.news.push_back(News::Gone(Gone::Room));
        Ok(placed.slot)
    }

    /// Gives a slot from `place` back.
    pub(super) fn give(&mut self, slot: Slot) {
        self.slots.give(slot);
    }

    /// Writes a block to a slot from `place`.
    pub(super) fn write(&mut self, slot: Slot, key: Key, meta: Meta, known_sum: Option<Sum>, bytes: Buffer) {
        self.stamp += 1;
        self.writes += 1;
        let (stamp, sum) = (self.stamp, known_sum.unwrap_or_default());
        self.shelf.insert(key, meta, Placed { slot, stamp, sum, is_being_written: true });
        self.shelf.pin(&key);
        self.in_order(Job::Write { slot, header: Header { stamp, key, meta, sum }, known_sum, bytes });
    }

    /// Starts to read a block, or joins a read that is under way.
    pub(super) fn fetch(&mut self, key: &Key, whom: For, reads_max: usize, buffers: &mut Buffers) -> Fetch {
        if let Some(reading) = self.reading.get_mut(key) {
            if whom == For::Sequence {
                reading.whom = whom;
            }
            return if self.has_arrived(key) { Fetch::Ready } else { Fetch::Started };
        }
        let Some((_, placed)) = self.shelf.get(key) else { return Fetch::Absent };
        if self.reads >= reads_max {
            return Fetch::Busy;
        }
        let stage = if placed.is_being_written { Some(Stage::OnWrite) } else { self.read(key, buffers) };
        let Some(stage) = stage else { return Fetch::Busy };
        if matches!(stage, Stage::OnWrite) {
            self.reads += 1;
        }
        self.reading.insert(*key, Reading { whom, stage });
        Fetch::Started
    }

    /// Reads a block that nobody asked for, to learn how fast that is. True when there is one.
    pub(super) fn probe(&mut self, buffers: &mut Buffers) -> bool {
        let stored = self.shelf.entries().find(|(_, placed)| !placed.is_being_written).map(|(key, _)| *key);
        self.reads == 0 && stored.is_some_and(|key| self.read(&key, buffers).is_some())
    }

    fn read(&mut self, key: &Key, buffers: &mut Buffers) -> Option<Stage> {
        let (meta, Placed { slot, stamp, sum, .. }) = self.shelf.get(key)?;
        let header = Header { stamp: *stamp, key: *key, meta: *meta, sum: *sum };
        let (slot, bytes) = (*slot, buffers.take()?);
        self.shelf.pin(key);
        self.reads += 1;
        if let Some(io) = &self.io {
            io.urgent(Job::Read { slot, header, bytes });
        }
        Some(Stage::OnRead(slot))
    }

    /// The bytes of a block that arrived for a sequence.
    pub(super) fn take_arrived(&mut self, key: &Key) -> Option<Buffer> {
        if !self.has_arrived(key) {
            return None;
        }
        self.reads -= 1;
        match self.reading.remove(key)?.stage {
            Stage::Arrived(_, bytes) => Some(bytes),
            Stage::OnWrite | Stage::OnRead(_) => None,
        }
    }

    /// Nobody waits for the block any more. True when somebody did.
    pub(super) fn cancel(&mut self, key: &Key) -> bool {
        let Some(reading) = self.reading.remove(key) else { return false };
        match reading.stage {
            Stage::OnWrite => self.reads -= 1,
            // The buffer is counted until it comes back.
            Stage::OnRead(_) => {}
            Stage::Arrived(_, bytes) => {
                self.reads -= 1;
                self.news.push_back(News::Spare(bytes));
            }
        }
        reading.whom == For::Sequence
    }

    /// Removes a block and what is left of its bytes on disk.
    pub(super) fn forget(&mut self, key: &Key) -> bool {
        if self.cancel(key) {
            self.news.push_back(News::Lost(*key));
        }
        let Some((_, placed)) = self.shelf.remove(key) else { return false };
        self.erasing += 1;
        self.in_order(Job::Erase { slot: placed.slot });
        self.news.push_back(News::Gone(Gone::Forgotten));
        true
    }

    /// What was written before the tier was switched off can't be found block by block any more: all of it goes.
    pub(super) fn forget_files(&mut self) {
        let files = if self.off.is_some() { self.slots.remove_all() } else { Vec::new() };
        files.into_iter().for_each(|job| self.in_order(job));
    }

    /// Takes in what the thread has done.
    pub(super) fn collect(&mut self) {
        while let Some(io) = &self.io {
            match io.done() {
                Ok(Some(done)) => self.handle(done),
                Ok(None) => return,
                Err(()) => self.thread_is_gone(),
            }
        }
    }

    /// As `collect`, after waiting for one thing to be done. False when nothing is under way or was done in time.
    pub(super) fn wait(&mut self, at_most: Duration) -> bool {
        let is_idle = self.writes + self.reads_under_way() + self.erasing == 0;
        let Some(io) = self.io.as_ref().filter(|_| !is_idle) else { return false };
        match io.wait(at_most) {
            Ok(Some(done)) => self.handle(done),
            Ok(None) => return false,
            Err(()) => self.thread_is_gone(),
        }
        self.collect();
        true
    }

    fn reads_under_way(&self) -> usize {
        let arrived = |reading: &&Reading| matches!(reading.stage, Stage::Arrived(..));
        self.reads - self.reading.values().filter(arrived).count()
    }

    fn in_order(&self, job: Job) {
        if let Some(io) = &self.io {
            io.in_order(job);
        }
    }

    /// The engine goes on without the tier. Blocks that lie in it stay there for the next start.
    pub(super) fn switch_off(&mut self, why: &str) {
        if self.off.is_some() {
            return;
        }
        tracing::warn!(
            why,
            blocks = self.shelf.len(),
            "the KV disk tier is switched off until the next start; blocks are computed again instead"
        );
        self.off = Some(why.to_string());
        self.shelf = Shelf::default();
        let waiting: Vec<Key> = self.reading.keys().filter(|key| !self.has_arrived(key)).copied().collect();
        for key in waiting {
            if self.cancel(&key) {
                self.news.push_back(News::Lost(key));
            }
        }
    }

    fn thread_is_gone(&mut self) {
        self.switch_off("its thread has ended");
        self.io = None;
        (self.writes, self.erasing) = (0, 0);
        self.reads -= self.reads_under_way();
    }
}
