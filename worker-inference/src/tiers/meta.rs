//! What is known of a block beside its bytes, and the words for where it is and why it went.

use crate::prefix::{BlockTokens, Key, Scope};

/// A block's place among others. Its key is derived from most of this, so that equal keys have equal metas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// The block before it; None at the start of a sequence.
    pub parent: Option<Key>,
    pub tokens: BlockTokens,
    /// Whose it is: counts are kept by it, and everything of a project can be forgotten at once.
    pub project: Scope,
    /// The class of the sequence that sealed it.
    pub class: u8,
    /// Blocks of a lower rank go first; among equals, the one used longest ago. All 0: least recently used.
    pub rank: u64,
}

/// Where the bytes of a block can be had from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// In memory: `copy_into` works now.
    Host,
    /// On disk, or on its way there: `fetch` first.
    Disk,
    Absent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    Host,
    Disk,
}

/// Why a block left a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gone {
    /// Room was needed, and a copy lies or is being written on disk.
    ToDisk,
    /// Room was needed, and no other tier has it.
    Room,
    /// Its bytes were not what was stored.
    Corrupt,
    /// The owner asked for it.
    Forgotten,
    /// It could not be read or written.
    Failed,
}

/// What became of a block given to `demote`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demoted {
    /// It is in memory.
    Host,
    /// It is being written to disk.
    Disk,
    /// A tier had it already: nothing was copied.
    Known,
    /// No tier took it.
    Lost,
}

/// What became of a block given to `keep`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is being written to disk.
    Queued,
    /// It is on disk, or on its way there.
    Known,
    /// The bandwidth is used up, or all staging buffers are: ask again after the next step.
    Later,
    /// The disk is full of blocks that are worth more.
    Full,
    /// There is no disk tier.
    Off,
}

/// The answer to `fetch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    /// In memory already: `copy_into` works now.
    Ready,
    /// A later `poll` tells.
    Started,
    /// All staging buffers are taken: copy what has arrived, then ask again.
    Busy,
    Absent,
}

/// A fetch has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    pub key: Key,
    /// False: the bytes were damaged or could not be read. The block is absent; compute it.
    pub arrived: bool,
}
