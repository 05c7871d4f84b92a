//! What the tiers have done so far, and how fast.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::check;
use super::meta::{Gone, Meta, Tier};
use super::{Held, Tiers};
use crate::prefix::{Key, Scope};

/// Bytes a second, as measured lately.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Meter {
    bytes: f64,
    seconds: f64,
}

/// After so much time spent, what was measured before counts half.
const MEMORY_SECONDS: f64 = 0.5;

impl Meter {
    pub(super) fn add(&mut self, bytes: usize, spent: Duration) {
        if self.seconds > MEMORY_SECONDS {
            self.bytes /= 2.0;
            self.seconds /= 2.0;
        }
        self.bytes += bytes as f64;
        self.seconds += spent.as_secs_f64();
    }

    pub(super) fn bytes_s(&self) -> Option<f64> {
        (self.bytes > 0.0 && self.seconds > 0.0).then(|| self.bytes / self.seconds)
    }
}

#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) gone: BTreeMap<(Tier, Gone), u64>,
    pub(super) restored_host_bytes: u64,
    pub(super) restored_disk_bytes: u64,
    pub(super) written_bytes: u64,
    pub(super) wanted_lost: u64,
    pub(super) to_host: Meter,
    pub(super) from_host: Meter,
    pub(super) from_disk: Meter,
    pub(super) to_disk: Meter,
    /// Whether a first block was read to learn the disk's speed.
    pub(super) is_disk_probed: bool,
}

impl Totals {
    pub(super) fn count(&mut self, tier: Tier, gone: Gone) {
        *self.gone.entry((tier, gone)).or_default() += 1;
    }
}

/// Measured speeds in bytes a second; None before the first measurement. Sums are part of the time.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Speeds {
    /// Pool to host tier.
    pub device_to_host: Option<f64>,
    /// Host tier to pool. Measured at start, so never None.
    pub host_to_device: Option<f64>,
    /// Disk to staging, on the other thread.
    pub disk_to_host: Option<f64>,
    /// Staging to disk, on the other thread.
    pub host_to_disk: Option<f64>,
}

impl Speeds {
    /// From disk into the pool, one after the other.
    pub fn disk_to_device(&self) -> Option<f64> {
        Some(1.0 / (1.0 / self.disk_to_host? + 1.0 / self.host_to_device?))
    }
}

/// Counts since the tiers were opened, and what they hold now.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Observed {
    /// Bytes held now.
    pub bytes: BTreeMap<(Tier, Scope, u8), u64>,
    /// Blocks that left, by tier and reason.
    pub gone: BTreeMap<(Tier, Gone), u64>,
    /// Bytes copied back into the pool.
    pub restored_host_bytes: u64,
    pub restored_disk_bytes: u64,
    /// Bytes written to disk.
    pub written_bytes: u64,
    /// Sealed blocks that were not written behind: they, or their turn, were gone.
    pub wanted_lost: u64,
    /// Sealed blocks that still wait to be written.
    pub wanted: usize,
    /// Slots on disk that are being erased.
    pub erasing: usize,
    /// Memory of both tiers' buffers, in use or not.
    pub buffer_bytes: usize,
    /// Bytes of all files in the folder.
    pub file_bytes: u64,
    /// Blocks found on disk when the tiers were opened.
    pub found_blocks: usize,
    /// Why there is no disk tier (any more).
    pub disk_off: Option<String>,
    pub speeds: Speeds,
}

impl Tiers {
    pub fn observed(&self) -> Observed {
        let Tiers { totals, disk, .. } = self;
        Observed {
            bytes: self.bytes_held(),
            gone: totals.gone.clone(),
            restored_host_bytes: totals.restored_host_bytes,
            restored_disk_bytes: totals.restored_disk_bytes,
            written_bytes: totals.written_bytes,
            wanted_lost: totals.wanted_lost,
            wanted: self.wanted(),
            erasing: disk.erasing(),
            buffer_bytes: self.buffers.bytes(),
            file_bytes: disk.file_bytes(),
            found_blocks: disk.found(),
            disk_off: disk.off().map(str::to_owned),
            speeds: self.speeds(),
        }
    }

    /// Blocks that wait to be written to the disk tier.
    pub fn wanted(&self) -> usize {
        self.wanted.len()
    }

    /// What a decision between restoring and computing again needs.
    pub fn speeds(&self) -> Speeds {
        let Totals { to_host, from_host, from_disk, to_disk, .. } = &self.totals;
        Speeds {
            device_to_host: to_host.bytes_s(),
            host_to_device: from_host.bytes_s(),
            disk_to_host: from_disk.bytes_s(),
            host_to_disk: to_disk.bytes_s(),
        }
    }

    fn bytes_held(&self) -> BTreeMap<(Tier, Scope, u8), u64> {
        let block = self.config.block_bytes as u64;
        let tiers = [(Tier::Host, self.host.counts()), (Tier::Disk, self.disk.counts())];
        let each = |(tier, counts): (Tier, &BTreeMap<(Scope, u8), usize>)| {
            let bytes =
                |(whose, blocks): (&(Scope, u8), &usize)| ((tier, whose.0, whose.1), *blocks as u64 * block);
            counts.iter().map(bytes).collect::<Vec<_>>()
        };
        tiers.into_iter().flat_map(each).collect()
    }

    /// Copies one block of zeros twice, the second time measured, so that there is a figure from the beginning.
    pub(super) fn measure_host(&mut self) {
        let Some(bytes) = self.buffers.take() else { return };
        let meta = Meta { parent: None, tokens: [0; 16], project: [0; 32], class: 0, rank: 0 };
        let mut out = vec![0; bytes.len()];
        let sum = check::sum(&Key([0; 32]), &meta, &bytes);
        let held = Held { bytes, sum };
        for _ in 0..2 {
            let start = Instant::now();
            super::restore::copy_checked(&Key([0; 32]), &meta, &held, &mut out);
            self.totals.from_host = Meter::default();
            self.totals.from_host.add(out.len(), start.elapsed());
        }
        self.buffers.give(held.bytes);
    }
}
