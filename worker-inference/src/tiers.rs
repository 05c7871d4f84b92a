//! Where sealed KV blocks go when the pool has no room for them, and where they come back from: a bounded piece
//! of memory (the host tier) and a bounded folder (the disk tier), both found by content.
//!
//! It decides nothing about sequences and computes nothing. One thread owns a [`Tiers`] and calls it between
//! steps; no call waits for the disk, except [`Tiers::wait`] and [`Tiers::flush`], which say so. One thread of
//! its own reads and writes files.
//!
//! - A block was sealed: [`Tiers::want`]; at the end of each step [`Tiers::pump`] writes behind what was wanted,
//!   so that blocks are on disk while they are still in use and a killed process finds them again.
//! - A block is about to be evicted from the pool: [`Tiers::demote`].
//! - A chain of keys is wanted: [`Tiers::find`], then [`Tiers::fetch`] for what is on disk, [`Tiers::poll`] after
//!   each step, and [`Tiers::copy_into`] a block of the pool.
//!
//! Everything here is a cache: whatever goes wrong, a block is `Absent` and is computed again. Bytes are summed
//! when they enter and compared when they leave. KV bytes are stored in clear: they tell the text they were made
//! from, so the folder must be as private as the node's other data ([`sys::disk::RealDisk::private`]).
//!
//! Read: `meta` (words), `shelf` (the order in which blocks go), `demote`, `restore`, `disk`; below them `slots`
//! and `format` (the folder), `scan` (after a restart), `io` and `files` (the thread).

mod budget;
mod buffers;
mod check;
mod demote;
mod disk;
mod files;
mod forget;
mod format;
mod io;
mod meta;
mod observe;
mod restore;
mod scan;
mod shelf;
mod slots;

use std::collections::VecDeque;

use sys::disk::Disk;
use types::Hash;

use crate::prefix::Key;

use budget::Budget;
use buffers::{Buffer, Buffers};
use check::Sum;
use disk::DiskTier;
use format::Shape;
pub use meta::{Demoted, Fetch, Fetched, Gone, Kept, Meta, Tier, Where};
use observe::Totals;
pub use observe::{Observed, Speeds};
use shelf::Shelf;

/// Sealed blocks that wait to be written behind. More would only be evicted before their turn comes.
const WANTED_MAX: usize = 1 << 14;

/// The bounds of the tiers of one engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TiersConfig {
    /// What makes KV bits comparable: blocks of another id are never found.
    pub numerics: Hash,
    /// Bytes of one block, all layers; more than 0.
    pub block_bytes: usize,
    /// Memory for blocks. Less than one block: no host tier.
    pub host_bytes: u64,
    /// Bytes of all files in the disk tier's folder.
    pub disk_bytes: u64,
    /// Blocks on their way to or from the disk, in memory beside `host_bytes`. Half of them, at least one, are
    /// for reads; the rest, at least one, for writes.
    pub staging_blocks: usize,
    /// Bytes a second that `keep` and `pump` may write.
    pub keep_bytes_s: u64,
}

impl TiersConfig {
    fn host_blocks(&self) -> usize {
        usize::try_from(self.host_bytes / self.block_bytes as u64).unwrap_or(usize::MAX)
    }

    fn reads_max(&self) -> usize {
        (self.staging_blocks / 2).max(1)
    }

    fn writes_max(&self) -> usize {
        (self.staging_blocks - self.staging_blocks / 2).max(1)
    }
}

/// A block in memory.
#[derive(Debug)]
struct Held {
    bytes: Buffer,
    sum: Sum,
}

/// The host tier and the disk tier of one engine.
pub struct Tiers {
    config: TiersConfig,
    buffers: Buffers,
    host: Shelf<Held>,
    disk: DiskTier,
    wanted: VecDeque<(Key, Meta)>,
    budget: Budget,
    /// Fetches that ended since the last `poll`.
    fetched: Vec<Fetched>,
    totals: Totals,
}

impl Tiers {
    /// Opens the tiers, and finds again what an earlier process left on `disk`: None, or a disk that can't be
    /// read, means no disk tier, which [`Tiers::observed`] tells.
    ///
    /// # Panics
    /// When `block_bytes` is 0.
    pub fn open(config: TiersConfig, disk: Option<Box<dyn Disk>>) -> Tiers {
        assert!(config.block_bytes > 0, "a block has bytes");
        let TiersConfig { numerics, block_bytes, disk_bytes, .. } = config;
        let buffers = config.host_blocks().saturating_add(config.reads_max() + config.writes_max());
        let mut tiers = Tiers {
            config,
            buffers: Buffers::new(block_bytes, buffers),
            host: Shelf::default(),
            disk: DiskTier::open(Shape { numerics, block_bytes }, disk_bytes, disk),
            wanted: VecDeque::new(),
            budget: Budget::new(config.keep_bytes_s),
            fetched: Vec::new(),
            totals: Totals::default(),
        };
        tiers.measure_host();
        tiers
    }

    pub fn config(&self) -> &TiersConfig {
        &self.config
    }

    /// Where a block can be had from now.
    pub fn find(&self, key: &Key) -> Where {
        if self.host.has(key) || self.disk.has_arrived(key) {
            Where::Host
        } else if self.disk.has(key) {
            Where::Disk
        } else {
            Where::Absent
        }
    }

    /// What is known of a block that some tier has.
    pub fn meta(&self, key: &Key) -> Option<&Meta> {
        self.host.get(key).map(|(meta, _)| meta).or_else(|| self.disk.meta(key))
    }

    /// The bytes of a block that the host tier has.
    pub fn held(&self, key: &Key) -> Option<&[u8]> {
        self.host.get(key).map(|(_, held)| &held.bytes[..])
    }

    /// Says what a block is worth from now on, in whatever tier it is.
    pub fn set_rank(&mut self, key: &Key, rank: u64) {
        self.host.set_rank(key, rank);
        self.disk.set_rank(key, rank);
    }

    /// The block is about to be used again, or was just used: it goes later than others of its rank.
    pub fn touch(&mut self, key: &Key) {
        self.host.touch(key);
        self.disk.touch(key);
    }
}

#[cfg(test)]
#[path = "tiers/tiers_test.rs"]
mod tiers_test;
