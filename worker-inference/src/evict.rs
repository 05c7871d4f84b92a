//! Which idle block is given up when room is needed: one small trait, pure, time is an argument.
//!
//! The pool ([`crate::blocks`]) decides what *may* go: blocks that no sequence holds and that no resident block
//! continues, so chains go from their tails and what is resident can always be found. A policy only decides the
//! order among those. Every call costs O(log n) or less, and the same calls give the same answers everywhere:
//! no clock, no randomness, and of floats only sums, products, quotients and comparisons.
//!
//! Hints are advice from whoever runs the agents. They change what is kept, never what is computed.

mod arc;
mod belady;
mod ghosts;
mod lru;
mod order;
mod s3fifo;
mod slru;
mod ttl;
mod worth;

use std::fmt;

use crate::prefix::{Key, Scope};

pub use arc::Arc;
pub use belady::Belady;
pub use lru::Lru;
pub use s3fifo::S3Fifo;
pub use slru::Slru;
pub use ttl::Ttl;
pub use worth::Worth;

/// Why a block was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Eviction {
    /// A sequence needed a block and no free one was left.
    Room,
    /// A newer state of the same session has replaced it, and room was needed.
    Superseded,
    /// It belonged to a task that has ended for good, and room was needed.
    DeadChild,
    /// It was kept for a return that did not come in time, and room was needed.
    Expired,
    /// It was pinned, but running work needed room and nothing else was left.
    Unpinned,
    /// Its project held more than it may.
    ProjectLimit,
    /// The owner asked for the cache to be emptied.
    Cleared,
}

impl Eviction {
    /// All reasons, in order.
    pub const ALL: [Eviction; 7] = [
        Eviction::Room,
        Eviction::Superseded,
        Eviction::DeadChild,
        Eviction::Expired,
        Eviction::Unpinned,
        Eviction::ProjectLimit,
        Eviction::Cleared,
    ];

    /// The word for metrics and tables.
    pub fn name(self) -> &'static str {
        match self {
            Eviction::Room => "room",
            Eviction::Superseded => "superseded",
            Eviction::DeadChild => "dead_child",
            Eviction::Expired => "expired",
            Eviction::Unpinned => "unpinned",
            Eviction::ProjectLimit => "project_limit",
            Eviction::Cleared => "cleared",
        }
    }
}

/// Whom a block belongs to: the project that pays and the class it runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Owner {
    /// Blocks are never shared beyond it.
    pub project: Scope,
    /// Smaller is more urgent.
    pub class: u8,
}

/// What is known of a block's content when it is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    pub key: Key,
    pub parent: Option<Key>,
    /// Blocks before it in its chain.
    pub depth: u32,
    pub owner: Owner,
}

/// What is known of the call that used a block, when the call is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Use {
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Tokens that were generated after it.
    pub answer: u32,
    /// Tokens of the call after this block.
    pub after: u32,
    /// Whether it was there when the call began.
    pub hit: bool,
}

/// What the runtime knows of a block's future.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// Its session pauses, and comes back before `until_ms` with this probability (of 1000).
    Retain { until_ms: u64, permille: u16 },
    /// A newer state of the session has replaced it.
    Superseded,
    /// The task that made it has ended for good.
    Dead,
    /// Kept until then unless running work needs room and nothing else is left.
    Pin { until_ms: u64 },
    /// Nothing is known any more; earlier hints are forgotten.
    None,
}

/// A block that a policy gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Victim {
    pub slot: u32,
    pub reason: Eviction,
    /// How much it was worth to the policy: the host and disk tiers may use it as a rank. Bigger is better.
    pub worth: u64,
}

/// An order among the blocks that may be given up. Slots are block numbers of one pool, below its size.
pub trait Policy: fmt::Debug + Send {
    fn name(&self) -> &'static str;

    /// A slot got new content.
    fn sealed(&mut self, slot: u32, facts: &Facts, now_ms: u64);

    /// A call that was not the one that made it took the content into use.
    fn hit(&mut self, slot: u32, now_ms: u64);

    /// The last call that held it is over.
    fn rest(&mut self, slot: u32, call: &Use, now_ms: u64);

    /// It may be given up from now on. Comes after `rest`, and again when its last child is gone.
    fn enter(&mut self, slot: u32, now_ms: u64);

    /// It may not be given up any more: it is held, or a child of it is resident.
    fn leave(&mut self, slot: u32);

    /// The one to give up now. It has left, and its content is gone.
    fn victim(&mut self, now_ms: u64) -> Option<Victim>;

    /// A content is gone that was not chosen by `victim`; it had left.
    fn gone(&mut self, slot: u32, now_ms: u64);

    /// Advice. Policies without a use for it ignore it.
    fn hint(&mut self, _slot: u32, _hint: Hint, _now_ms: u64) {}

    /// A copy in the same state.
    fn boxed(&self) -> Box<dyn Policy>;
}

/// The names that [`policy`] knows, ours last.
pub const POLICIES: [&str; 6] = ["lru", "slru", "arc", "s3-fifo", "ttl", "ours"];

/// How long blocks live under the policy `ttl`.
const TTL_MS: u64 = 300_000;

/// A policy by name, for a pool of so many blocks. None when the name is unknown.
pub fn policy(name: &str, blocks: usize) -> Option<Box<dyn Policy>> {
    Some(match name {
        "lru" => Box::new(Lru::default()),
        "slru" => Box::new(Slru::new(blocks)),
        "arc" => Box::new(Arc::new(blocks)),
        "s3-fifo" => Box::new(S3Fifo::new(blocks)),
        "ttl" => Box::new(Ttl::new(TTL_MS)),
        "ours" => Box::new(Worth::new(blocks)),
        _ => return None,
    })
}

impl Clone for Box<dyn Policy> {
    fn clone(&self) -> Box<dyn Policy> {
        self.boxed()
    }
}
