//! What the disk tier does with each thing its thread has done.

use std::time::Duration;

use super::{DiskTier, For, News, READ_FAILURES_MAX, Reading, Stage};
use crate::prefix::Key;
use crate::tiers::buffers::Buffer;
use crate::tiers::check::Sum;
use crate::tiers::io::{Done, Failure};
use crate::tiers::meta::{Gone, Meta};
use crate::tiers::slots::Slot;

impl DiskTier {
    pub(super) fn handle(&mut self, done: Done) {
        match done {
            Done::Created { result: Ok(()), .. } | Done::Removed { result: Ok(()) } => {}
            Done::Created { file, result: Err(failure) } => self.not_created(file, &failure),
            Done::Removed { result: Err(failure) } => self.broken(&failure),
            Done::Written { slot, key, sum, bytes, result, spent } => {
                self.writes -= 1;
                self.written(slot, key, sum, bytes, result, spent);
            }
            Done::Read { slot, key, bytes, result, spent } => self.was_read(slot, key, bytes, result, spent),
            Done::Erased { slot, result } => {
                self.erasing -= 1;
                match result {
                    Ok(()) => self.slots.give(slot),
                    Err(failure) => self.broken(&failure),
                }
            }
        }
    }

    /// A full disk leaves the tier with what it has.
    fn not_created(&mut self, file: u32, failure: &Failure) {
        let Failure::Full(why) = failure else { return self.broken(failure) };
        self.slots.creation_failed(file);
        if self.slots.is_useless() {
            return self.switch_off(why);
        }
        let bytes = self.slots.bytes();
        tracing::warn!(%why, bytes, "the disk is full; the KV disk tier stays at its present size");
    }

    fn broken(&mut self, failure: &Failure) {
        match failure {
            // Told when the file could not be made.
            Failure::NoFile => {}
            Failure::Corrupt => self.switch_off("its bytes changed"),
            Failure::Full(why) | Failure::Io(why) => self.switch_off(&why.clone()),
        }
    }

    fn written(
        &mut self,
        slot: Slot,
        key: Key,
        sum: Sum,
        bytes: Buffer,
        result: Result<(), Failure>,
        spent: Duration,
    ) {
        let meta = self.is_at(&key, slot).then(|| *self.shelf.get(&key).expect("just found").0);
        if meta.is_some() {
            self.settle_write(slot, &key, sum, result.is_ok());
        }
        // Whether or not they reached the disk, these are the right bytes.
        match meta {
            Some(meta) if matches!(self.reading.get(&key), Some(Reading { stage: Stage::OnWrite, .. })) => {
                self.deliver(key, meta, sum, bytes);
            }
            _ => self.news.push_back(News::Spare(bytes)),
        }
        match result {
            Ok(()) => self.news.push_back(News::Wrote(spent)),
            Err(failure) => self.broken(&failure),
        }
    }

    fn settle_write(&mut self, slot: Slot, key: &Key, sum: Sum, is_good: bool) {
        self.shelf.unpin(key);
        if !is_good {
            self.drop_block(slot, key, Gone::Failed);
        } else if let Some(placed) = self.shelf.item_mut(key) {
            placed.sum = sum;
            placed.is_being_written = false;
        }
    }

    fn was_read(
        &mut self,
        slot: Slot,
        key: Key,
        bytes: Buffer,
        result: Result<(), Failure>,
        spent: Duration,
    ) {
        let is_awaited =
            matches!(self.reading.get(&key), Some(Reading { stage: Stage::OnRead(at), .. }) if *at == slot);
        let here = self.is_at(&key, slot);
        if here {
            self.shelf.unpin(&key);
        }
        match result {
            Ok(()) => self.read_well(slot, key, bytes, is_awaited && here, spent),
            Err(failure) => self.read_badly(slot, key, bytes, is_awaited, &failure),
        }
    }

    fn read_well(&mut self, slot: Slot, key: Key, bytes: Buffer, is_awaited: bool, spent: Duration) {
        self.failures = 0;
        self.news.push_back(News::WasRead(spent));
        match self.shelf.get(&key).map(|(meta, placed)| (*meta, placed.sum)) {
            Some((meta, sum)) if is_awaited && self.is_at(&key, slot) => self.deliver(key, meta, sum, bytes),
            _ => {
                self.reads -= 1;
                self.news.push_back(News::Spare(bytes));
            }
        }
    }

    fn read_badly(&mut self, slot: Slot, key: Key, bytes: Buffer, is_awaited: bool, failure: &Failure) {
        self.reads -= 1;
        self.news.push_back(News::Spare(bytes));
        let is_corrupt = *failure == Failure::Corrupt;
        self.drop_block(slot, &key, if is_corrupt { Gone::Corrupt } else { Gone::Failed });
        if is_awaited && self.reading.remove(&key).is_some_and(|reading| reading.whom == For::Sequence) {
            self.news.push_back(News::Lost(key));
        }
        if !is_corrupt {
            self.failures += 1;
        }
        if self.failures >= READ_FAILURES_MAX {
            self.broken(failure);
        }
    }

    fn deliver(&mut self, key: Key, meta: Meta, sum: Sum, bytes: Buffer) {
        let Some(reading) = self.reading.get_mut(&key) else {
            return self.news.push_back(News::Spare(bytes));
        };
        match reading.whom {
            For::Sequence => {
                reading.stage = Stage::Arrived(meta, bytes);
                self.news.push_back(News::Arrived(key));
            }
            For::Host => {
                self.reading.remove(&key);
                self.reads -= 1;
                self.news.push_back(News::ForHost(key, meta, sum, bytes));
            }
        }
    }

    /// Whether the block still lies where a job was sent to.
    fn is_at(&self, key: &Key, slot: Slot) -> bool {
        self.shelf.get(key).is_some_and(|(_, placed)| placed.slot == slot)
    }

    fn drop_block(&mut self, slot: Slot, key: &Key, gone: Gone) {
        if self.is_at(key, slot) {
            self.shelf.remove(key);
            self.slots.give(slot);
            self.news.push_back(News::Gone(gone));
        }
    }
}
