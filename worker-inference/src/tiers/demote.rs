//! Blocks on their way down: from the pool to the host tier, from there to the disk, and behind the back of the
//! computation straight to the disk.

use std::time::Instant;

use super::check;
use super::meta::{Demoted, Gone, Kept, Meta, Tier};
use super::{Held, Tiers, WANTED_MAX};
use crate::prefix::Key;

impl Tiers {
    /// Takes the bytes of a sealed block that is about to leave the pool. They are copied and summed before this
    /// returns.
    ///
    /// # Panics
    /// When `bytes` is not one block.
    pub fn demote(&mut self, key: Key, meta: Meta, bytes: &[u8]) -> Demoted {
        self.check_len(bytes);
        self.settle();
        if self.host.has(&key) {
            self.host.touch(&key);
            return Demoted::Known;
        }
        if self.make_room(&meta) && self.hold(key, meta, bytes) {
            return Demoted::Host;
        }
        match self.keep_now(key, meta, bytes) {
            Kept::Queued => Demoted::Disk,
            Kept::Known => Demoted::Known,
            Kept::Later | Kept::Full | Kept::Off => {
                self.totals.count(Tier::Host, Gone::Room);
                Demoted::Lost
            }
        }
    }

    /// Copies a sealed block to the disk while it stays where it is.
    ///
    /// # Panics
    /// When `bytes` is not one block.
    pub fn keep(&mut self, key: Key, meta: Meta, bytes: &[u8]) -> Kept {
        self.check_len(bytes);
        self.settle();
        self.keep_within_budget(key, meta, bytes)
    }

    fn keep_within_budget(&mut self, key: Key, meta: Meta, bytes: &[u8]) -> Kept {
        if self.disk.off().is_some() {
            return Kept::Off;
        }
        if self.disk.has(&key) {
            return Kept::Known;
        }
        if !self.budget.allows() {
            return Kept::Later;
        }
        // Without its parent a block can't be found after a restart: not worth another block's place.
        let is_rooted = meta.parent.is_none_or(|parent| self.disk.has(&parent));
        if !is_rooted && !self.disk.has_room() {
            return Kept::Full;
        }
        self.keep_now(key, meta, bytes)
    }

    /// A block was sealed: `pump` will copy it to the disk soon.
    pub fn want(&mut self, key: Key, meta: Meta) {
        if self.disk.off().is_some() || self.disk.has(&key) {
            return;
        }
        if self.wanted.len() == WANTED_MAX {
            // The newest are worth most: they are not on disk in any other run.
            self.wanted.pop_front();
            self.totals.wanted_lost += 1;
        }
        self.wanted.push_back((key, meta));
    }

    /// Writes wanted blocks behind, as far as the bandwidth and the buffers go. `now_us` counts from any fixed
    /// moment; `bytes` gives what the pool has of a block.
    pub fn pump<'a>(&mut self, now_us: u64, bytes: impl Fn(&Key) -> Option<&'a [u8]>) {
        self.budget.advance(now_us);
        self.settle();
        while let Some((key, meta)) = self.wanted.front().copied() {
            let kept = match bytes(&key) {
                Some(bytes) => self.keep(key, meta, bytes),
                None => self.keep_held(key, meta),
            };
            match kept {
                Kept::Later => return,
                Kept::Queued | Kept::Known => {}
                Kept::Full | Kept::Off => self.totals.wanted_lost += 1,
            }
            self.wanted.pop_front();
        }
    }

    /// A block that has left the pool may be in the host tier.
    fn keep_held(&mut self, key: Key, meta: Meta) -> Kept {
        let Some((_, held)) = self.host.remove(&key) else { return Kept::Full };
        let kept = self.keep_within_budget(key, meta, &held.bytes);
        self.host.insert(key, meta, held);
        kept
    }

    fn check_len(&self, bytes: &[u8]) {
        let len = self.config.block_bytes;
        assert_eq!(bytes.len(), len, "a block of these tiers has {len} bytes");
    }

    fn keep_now(&mut self, key: Key, meta: Meta, bytes: &[u8]) -> Kept {
        if self.disk.has(&key) {
            return Kept::Known;
        }
        let slot = match self.disk.place(&meta, self.config.writes_max()) {
            Ok(slot) => slot,
            Err(kept) => return kept,
        };
        let Some(mut buffer) = self.buffers.take() else {
            self.disk.give(slot);
            return Kept::Later;
        };
        buffer.copy_from_slice(bytes);
        self.budget.spend(bytes.len());
        self.disk.write(slot, key, meta, None, buffer);
        Kept::Queued
    }

    /// Puts bytes into the host tier, which has room.
    fn hold(&mut self, key: Key, meta: Meta, bytes: &[u8]) -> bool {
        let start = Instant::now();
        let Some(mut buffer) = self.buffers.take() else { return false };
        buffer.copy_from_slice(bytes);
        let sum = check::sum(&key, &meta, &buffer);
        self.totals.to_host.add(bytes.len(), start.elapsed());
        self.host.insert(key, meta, Held { bytes: buffer, sum });
        true
    }

    /// Makes room in the host tier for one more block. False when what is there is worth more.
    pub(super) fn make_room(&mut self, meta: &Meta) -> bool {
        let blocks = self.config.host_blocks();
        while blocks > 0 && self.host.len() >= blocks {
            let Some(victim) = self.host.victim(meta) else { return false };
            self.spill(&victim);
        }
        blocks > 0
    }

    /// Moves a block from the host tier to the disk, without a copy.
    fn spill(&mut self, key: &Key) {
        let Some((meta, Held { bytes, sum })) = self.host.remove(key) else { return };
        if self.disk.has(key) {
            self.totals.count(Tier::Host, Gone::ToDisk);
            return self.buffers.give(bytes);
        }
        match self.disk.place(&meta, self.config.writes_max()) {
            Ok(slot) => {
                self.totals.count(Tier::Host, Gone::ToDisk);
                self.budget.spend(bytes.len());
                self.disk.write(slot, *key, meta, Some(sum), bytes);
            }
            Err(_) => {
                self.totals.count(Tier::Host, Gone::Room);
                self.buffers.give(bytes);
            }
        }
    }
}
