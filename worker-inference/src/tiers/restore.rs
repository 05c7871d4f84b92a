//! Blocks on their way up: from the disk to memory while the engine computes, and from memory to the pool.

use std::time::{Duration, Instant};

use super::check;
use super::disk::{For, News};
use super::meta::{Fetch, Fetched, Gone, Meta, Tier, Where};
use super::{Held, Tiers};
use crate::prefix::Key;

/// Copies a block out; false when what came out is not what was put in.
pub(super) fn copy_checked(key: &Key, meta: &Meta, held: &Held, out: &mut [u8]) -> bool {
    out.copy_from_slice(&held.bytes);
    check::sum(key, meta, out) == held.sum
}

impl Tiers {
    /// Starts to bring a block from the disk for a sequence that waits for it. It then stays in memory until it
    /// is copied or the fetch is cancelled.
    pub fn fetch(&mut self, key: &Key) -> Fetch {
        if self.host.has(key) {
            self.host.touch(key);
            return Fetch::Ready;
        }
        self.settle();
        self.disk.fetch(key, For::Sequence, self.config.reads_max(), &mut self.buffers)
    }

    /// Starts to bring blocks from the disk to the host tier, in this order, as far as there are buffers. It is a
    /// hint: what arrives may go again before it is used. Says how many of the blocks are in memory or on their
    /// way; call again with the rest.
    pub fn prefetch(&mut self, keys: &[Key]) -> usize {
        self.settle();
        keys.iter().take_while(|key| self.prefetch_one(key)).count()
    }

    fn prefetch_one(&mut self, key: &Key) -> bool {
        if self.host.has(key) {
            self.host.touch(key);
            return true;
        }
        let whom = if self.config.host_blocks() > 0 { For::Host } else { return false };
        match self.disk.fetch(key, whom, self.config.reads_max(), &mut self.buffers) {
            Fetch::Ready | Fetch::Started => true,
            Fetch::Busy | Fetch::Absent => false,
        }
    }

    /// The fetches that ended since the last call, without those whose block was copied already. Never waits.
    pub fn poll(&mut self) -> Vec<Fetched> {
        self.settle();
        std::mem::take(&mut self.fetched)
    }

    /// As `poll`, but when no fetch has ended yet, waits for one as long as something is under way: for an
    /// engine that has nothing else to do.
    pub fn wait(&mut self, at_most: Duration) -> Vec<Fetched> {
        let end = Instant::now() + at_most;
        self.settle();
        while self.fetched.is_empty() && self.disk.wait(end.saturating_duration_since(Instant::now())) {
            self.settle();
        }
        std::mem::take(&mut self.fetched)
    }

    /// Waits until everything that was queued is written and erased, or the disk tier is off.
    pub fn flush(&mut self) {
        while self.disk.writes() + self.disk.erasing() > 0 && self.disk.wait(Duration::from_secs(1)) {
            self.settle();
        }
        self.settle();
    }

    /// Nobody waits for a fetched block any more, and `poll` says nothing about it.
    pub fn cancel(&mut self, key: &Key) {
        self.disk.cancel(key);
        self.settle();
        self.fetched.retain(|fetched| fetched.key != *key);
    }

    /// Copies a block that is in memory to `out`, and says which tier it came from. A block that was fetched
    /// leaves the memory; one of the host tier stays there. `Absent`: it is not in memory, or its bytes were
    /// damaged; then `out` may hold anything.
    ///
    /// # Panics
    /// When `out` is not one block.
    pub fn copy_into(&mut self, key: &Key, out: &mut [u8]) -> Where {
        let len = self.config.block_bytes;
        assert_eq!(out.len(), len, "a block of these tiers has {len} bytes");
        match self.disk.take_arrived(key) {
            Some(bytes) => {
                // Its sum was compared when it was read, a moment ago.
                out.copy_from_slice(&bytes);
                self.buffers.give(bytes);
                self.fetched.retain(|fetched| fetched.key != *key);
                self.disk.touch(key);
                self.totals.restored_disk_bytes += len as u64;
                Where::Disk
            }
            None => self.copy_held(key, out),
        }
    }

    fn copy_held(&mut self, key: &Key, out: &mut [u8]) -> Where {
        let start = Instant::now();
        let Some((meta, held)) = self.host.get(key) else { return Where::Absent };
        if !copy_checked(key, meta, held, out) {
            tracing::warn!(?key, "a KV block in memory was damaged; it is computed again");
            self.drop_held(key, Gone::Corrupt);
            return Where::Absent;
        }
        self.totals.from_host.add(out.len(), start.elapsed());
        self.totals.restored_host_bytes += out.len() as u64;
        self.touch(key);
        Where::Host
    }

    pub(super) fn drop_held(&mut self, key: &Key, gone: Gone) -> bool {
        let Some((_, held)) = self.host.remove(key) else { return false };
        self.totals.count(Tier::Host, gone);
        self.buffers.give(held.bytes);
        true
    }

    /// Takes in what the disk tier has to tell.
    pub(super) fn settle(&mut self) {
        self.disk.collect();
        // What is taken in may push a block out to disk, which may be news again.
        while let Some(news) = self.disk.next_news() {
            self.take_in(news);
        }
        if !self.totals.is_disk_probed {
            self.totals.is_disk_probed = self.disk.probe(&mut self.buffers);
        }
    }

    fn take_in(&mut self, news: News) {
        let len = self.config.block_bytes;
        match news {
            News::Spare(buffer) => self.buffers.give(buffer),
            News::ForHost(key, meta, sum, bytes) => self.shelve(key, meta, Held { bytes, sum }),
            News::Arrived(key) => self.fetched.push(Fetched { key, arrived: true }),
            News::Lost(key) => self.fetched.push(Fetched { key, arrived: false }),
            News::Gone(gone) => self.count_gone(gone),
            News::Wrote(spent) => {
                self.totals.written_bytes += len as u64;
                self.totals.to_disk.add(len, spent);
            }
            News::WasRead(spent) => self.totals.from_disk.add(len, spent),
        }
    }

    fn count_gone(&mut self, gone: Gone) {
        if gone == Gone::Corrupt {
            tracing::warn!("a KV block on disk was damaged; it is computed again");
        }
        self.totals.count(Tier::Disk, gone);
    }

    /// What was prefetched enters the host tier.
    fn shelve(&mut self, key: Key, meta: Meta, held: Held) {
        if self.host.has(&key) || !self.make_room(&meta) {
            return self.buffers.give(held.bytes);
        }
        self.host.insert(key, meta, held);
    }
}
