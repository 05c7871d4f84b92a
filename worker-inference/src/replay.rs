//! Recorded traffic in virtual time: the same decisions as in a running engine, without its arithmetic. A day of
//! traffic takes seconds, and the same trace and settings give the same figures on every machine.
//!
//! - [`mooncake`]: chains of block hashes drive the block pool and its policies, Belady's included.
//! - [`azure`]: arrivals and sizes drive the scheduler; they tell about queues, not about sharing.
//! - [`miniswe`]: whole agent sessions drive the scheduler, with tiers below the pool and without.
//!
//! Traces are input from outside: a line that can't be read is an error with its number, and nothing is allocated
//! by a number that a line claims.

pub mod azure;
mod below;
mod drive;
mod lines;
pub mod miniswe;
pub mod mooncake;
mod seen;

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;

use crate::blocks::Blocks;
use crate::evict::Eviction;

pub use drive::Costs;

/// A pool that a replay can have; its bookkeeping takes some 200 bytes for a block.
pub const BLOCKS_MAX: usize = 1 << 24;

/// Why a trace can't be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("reading {what}: {cause}")]
    Read { what: String, cause: io::Error },
    #[error("{what}, line {line}: {why}; correct or remove the line")]
    Line { what: String, line: usize, why: String },
    #[error("{what} has no requests; is it the right file, and the right --format?")]
    Empty { what: String },
    #[error("{0}")]
    Setting(String),
    #[error("{line}: {why}")]
    Refused { line: String, why: String },
}

/// Milliseconds that requests waited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Waits {
    pub p50_ms: u64,
    pub p95_ms: u64,
    pub max_ms: u64,
}

impl Waits {
    fn of(mut waits_ms: Vec<u64>) -> Waits {
        waits_ms.sort_unstable();
        let at = |percent: usize| {
            let index = (waits_ms.len() * percent).div_ceil(100).saturating_sub(1);
            waits_ms.get(index).copied().unwrap_or(0)
        };
        Waits { p50_ms: at(50), p95_ms: at(95), max_ms: at(100) }
    }
}

/// What one policy made of a trace.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Row {
    pub policy: String,
    /// Blocks of the pool.
    pub blocks: usize,
    /// `none`, or `host+disk`.
    pub tiers: &'static str,
    pub requests: usize,
    /// Found prompt blocks of all prompt blocks.
    pub hit: f64,
    /// Prompt tokens computed that had been computed before.
    pub reprefilled: u64,
    /// Prompt tokens never seen before.
    pub new: u64,
    /// Prompt tokens computed for each new one; 1 is the least.
    pub computed_per_new: f64,
    pub evictions: u64,
    pub evictions_by_reason: BTreeMap<&'static str, u64>,
    /// Bytes brought back from the host and disk tiers.
    pub restored_bytes: u64,
    /// From a request's arrival to its first computed row. None where the trace is replayed without a clock.
    pub waits: Option<Waits>,
    /// From the first arrival to the last answer, virtual.
    pub makespan_ms: Option<u64>,
}

impl Row {
    /// Fills in what the pool counted.
    fn count_evictions(&mut self, evictions: &BTreeMap<Eviction, u64>) {
        self.evictions = evictions.values().sum();
        self.evictions_by_reason = evictions.iter().map(|(reason, count)| (reason.name(), *count)).collect();
    }

    fn set_tokens(&mut self, computed: u64, new: u64) {
        self.new = new;
        self.reprefilled = computed.saturating_sub(new);
        self.computed_per_new = computed as f64 / (new as f64).max(1.0);
    }
}

/// A pool under a policy by name.
fn pool(name: &str, blocks: usize) -> Result<Blocks, ReplayError> {
    if blocks == 0 || blocks > BLOCKS_MAX {
        return Err(ReplayError::Setting(format!(
            "a pool of {blocks} blocks is not possible; give --blocks between 1 and {BLOCKS_MAX}"
        )));
    }
    let policy = crate::evict::policy(name, blocks)
        .ok_or_else(|| ReplayError::Setting(format!("policy {name:?} is unknown")))?;
    Ok(Blocks::with_policy(blocks, policy))
}

#[cfg(test)]
#[path = "replay/replay_test.rs"]
mod replay_test;
