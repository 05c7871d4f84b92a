//! The bytes behind the block numbers, as the scheduler needs them moved.

use crate::blocks::BlockId;
use crate::prefix::{BlockTokens, Key, Scope};

/// Where a content that is not in the pool can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Below {
    /// Nowhere, or computing it anew is cheaper.
    Absent,
    /// It is on its way; ask again with the next step.
    Coming,
    /// It can be restored now.
    Ready,
}

/// A whole content of the pool: sealed a moment ago, or about to leave.
#[derive(Debug, Clone, Copy)]
pub struct Whole<'a> {
    pub block: BlockId,
    pub key: &'a Key,
    /// The content before it; the scope's root at the start of a chain.
    pub parent: &'a Key,
    pub tokens: &'a BlockTokens,
    pub scope: &'a Scope,
    pub class: u8,
    /// What it is worth beside others, as the eviction policy sees it; 0 when it was just sealed.
    pub worth: u64,
}

/// Moves the bytes of blocks between the pool and the tiers below it. Every call is done when it returns.
pub trait Bytes {
    /// Looks below the pool; asks for a content that is far to be brought near.
    fn find(&mut self, key: &Key) -> Below;
    /// Writes a content into a block of the pool. False when it turned out damaged: it is gone then.
    fn restore(&mut self, key: &Key, tokens: &BlockTokens, to: BlockId) -> bool;
    /// A content is about to be overwritten: keeps it below, if that is worth it.
    fn demote(&mut self, leaving: Whole<'_>);
    /// A content can be found from now on: it may be copied to a durable tier while it stays.
    fn sealed(&mut self, _content: Whole<'_>) {}
    /// Copies the first tokens of a block to another one.
    fn copy(&mut self, from: BlockId, to: BlockId, tokens: usize);
}

/// A pool with nothing below it and no bytes at all, for tests and for replays in virtual time.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBytes;

impl Bytes for NoBytes {
    fn find(&mut self, _key: &Key) -> Below {
        Below::Absent
    }
    fn restore(&mut self, _key: &Key, _tokens: &BlockTokens, _to: BlockId) -> bool {
        false
    }
    fn demote(&mut self, _leaving: Whole<'_>) {}
    fn copy(&mut self, _from: BlockId, _to: BlockId, _tokens: usize) {}
}
