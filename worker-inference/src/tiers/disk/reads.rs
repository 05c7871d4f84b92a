//! Blocks on their way from the disk, and for whom.

use super::{DiskTier, News, Placed};
use crate::prefix::Key;
use crate::tiers::buffers::{Buffer, Buffers};
use crate::tiers::format::Header;
use crate::tiers::io::Job;
use crate::tiers::meta::{Fetch, Meta};
use crate::tiers::slots::Slot;

/// Whom a read is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tiers) enum For {
    /// A sequence waits: the bytes stay until they are copied.
    Sequence,
    /// Somebody may come: the bytes go to the host tier.
    Host,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// The block is still being written; its bytes come back with that.
    OnWrite,
    OnRead(Slot),
    Arrived(Meta, Buffer),
}

#[derive(Debug)]
pub(super) struct Reading {
    pub(super) whom: For,
    pub(super) stage: Stage,
}

impl DiskTier {
    /// Starts to read a block, or joins a read that is under way.
    pub(in crate::tiers) fn fetch(
        &mut self,
        key: &Key,
        whom: For,
        reads_max: usize,
        buffers: &mut Buffers,
    ) -> Fetch {
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
    pub(in crate::tiers) fn probe(&mut self, buffers: &mut Buffers) -> bool {
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
    pub(in crate::tiers) fn take_arrived(&mut self, key: &Key) -> Option<Buffer> {
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
    pub(in crate::tiers) fn cancel(&mut self, key: &Key) -> bool {
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
}
