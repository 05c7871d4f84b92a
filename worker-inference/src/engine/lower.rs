//! Moves the bytes of blocks between the pool and its tiers, as the scheduler asks, when it pays: bringing a block
//! back must be cheaper than computing it again, by what was measured here.

use std::collections::BTreeSet;
use std::time::Duration;

use super::pool::Pool;
use crate::blocks::{BLOCK_TOKENS, BlockId};
use crate::prefix::{BlockTokens, Key};
use crate::scheduler::{Below, Bytes, Whole};
use crate::tiers::{Fetch, Meta, Tiers, Where};

/// The newest measurement counts so much of 8.
const NEWEST: f64 = 1.0;
/// A step with fewer rows says little about what a row of a prompt costs.
const TELLING_ROWS: usize = 32;

/// The tiers below the pool, and what is under way between them.
pub(super) struct TiersBelow {
    pub(super) tiers: Tiers,
    /// Fetches that somebody waited for when last asked.
    fetching: BTreeSet<Key>,
    asked: BTreeSet<Key>,
    /// Seconds that computing one row of a prompt takes; None before the first measurement.
    row_seconds: Option<f64>,
}

impl TiersBelow {
    pub(super) fn new(tiers: Tiers) -> TiersBelow {
        TiersBelow { tiers, fetching: BTreeSet::new(), asked: BTreeSet::new(), row_seconds: None }
    }

    /// A step of so many rows took so long.
    pub(super) fn learn(&mut self, rows: usize, spent: Duration) {
        if rows >= TELLING_ROWS {
            let now = spent.as_secs_f64() / rows as f64;
            self.row_seconds =
                Some(self.row_seconds.map_or(now, |before| (before * (8.0 - NEWEST) + now * NEWEST) / 8.0));
        }
    }

    /// Gives up what was fetched for sequences that have ended meanwhile.
    pub(super) fn settle(&mut self) {
        let wanted = std::mem::take(&mut self.asked);
        self.fetching.difference(&wanted).for_each(|key| self.tiers.cancel(key));
        self.fetching = wanted;
    }

    /// Whether moving a block at `bytes_s` takes less time than computing its tokens.
    fn pays(&self, bytes_s: Option<f64>) -> bool {
        let (Some(bytes_s), Some(row)) = (bytes_s, self.row_seconds) else { return true };
        self.tiers.config().block_bytes as f64 / bytes_s < row * BLOCK_TOKENS as f64
    }

    fn find(&mut self, key: &Key) -> Below {
        let speeds = self.tiers.speeds();
        if self.fetching.contains(key) {
            self.asked.insert(*key);
        }
        match self.tiers.find(key) {
            Where::Host if self.pays(speeds.host_to_device) => Below::Ready,
            Where::Disk if self.pays(speeds.disk_to_device()) => self.fetch(key),
            Where::Host | Where::Disk | Where::Absent => Below::Absent,
        }
    }

    fn fetch(&mut self, key: &Key) -> Below {
        self.asked.insert(*key);
        match self.tiers.fetch(key) {
            Fetch::Ready => Below::Ready,
            Fetch::Started | Fetch::Busy => Below::Coming,
            Fetch::Absent => Below::Absent,
        }
    }
}

/// The pool and what lies below it, for the time of one call of the scheduler.
pub(super) struct Lower<'a> {
    pub(super) kv: &'a mut Pool,
    pub(super) below: Option<&'a mut TiersBelow>,
}

impl Bytes for Lower<'_> {
    fn find(&mut self, key: &Key) -> Below {
        self.below.as_mut().map_or(Below::Absent, |below| below.find(key))
    }

    fn restore(&mut self, key: &Key, _tokens: &BlockTokens, to: BlockId) -> bool {
        let Lower { kv, below } = self;
        // The key says which tokens they are, and the bytes are summed together with it.
        below.as_mut().is_some_and(|below| below.tiers.copy_into(key, kv.block_mut(to.0)) != Where::Absent)
    }

    fn demote(&mut self, leaving: Whole<'_>) {
        if let Some(below) =
            self.below.as_mut().filter(|below| below.pays(below.tiers.speeds().host_to_device))
        {
            below.tiers.demote(*leaving.key, meta(&leaving), self.kv.block(leaving.block.0));
        }
    }

    fn sealed(&mut self, content: Whole<'_>) {
        if let Some(below) = &mut self.below {
            below.tiers.want(*content.key, meta(&content));
        }
    }

    fn copy(&mut self, from: BlockId, to: BlockId, tokens: usize) {
        self.kv.copy_later(from, to, tokens);
    }
}

fn meta(content: &Whole<'_>) -> Meta {
    Meta {
        parent: Some(*content.parent),
        tokens: *content.tokens,
        project: *content.scope,
        class: content.class,
        rank: content.worth,
    }
}
