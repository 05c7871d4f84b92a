//! One sequence of tokens and how far it has come. Plain state; `scheduler` moves it.

use std::ops::Range;

use crate::blocks::{BLOCK_TOKENS, BlockId};
use crate::prefix::{BlockTokens, Key, Naming, Scope};

/// A sequence's name inside one engine; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

impl std::fmt::Display for SequenceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sequence {}", self.0)
    }
}

/// The task tree that a sequence belongs to: what a tree has had orders its sequences beside others of its project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeId(pub u64);

impl TreeId {
    /// No tree: the sequence stands for itself.
    pub const ALONE: TreeId = TreeId(0);
}

/// What a sequence wants to be run for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The tokens it begins with; at least one.
    pub tokens: Vec<u32>,
    /// Only sequences of the same scope share blocks.
    pub scope: Scope,
    /// Tokens that may be appended. 0: it ends when its tokens have run (scoring).
    pub max_new: usize,
    /// The first position whose logits somebody wants; at most the last one.
    pub logits_from: usize,
    /// Smaller is more urgent.
    pub class: u8,
    pub tree: TreeId,
    /// From this position on its values are its own: computed with something left out, so that neither they nor
    /// others' may be shared. `usize::MAX` for all ordinary work.
    pub private_from: usize,
}

/// The state of one sequence.
#[derive(Debug, Clone)]
pub struct Sequence {
    pub(crate) class: u8,
    scope: Scope,
    tree: TreeId,
    /// The step in which it came.
    pub(crate) arrived: u64,
    came_ms: u64,
    /// From its coming until it ran first.
    waited_ms: Option<u64>,
    tokens: Vec<u32>,
    prompt: usize,
    max_new: usize,
    logits_from: usize,
    private_from: usize,
    /// It is never put aside.
    stays: bool,
    /// Tokens whose keys and values lie in the table's blocks.
    pub(crate) stored: usize,
    /// Positions before this one need no row any more: they ran, or their values were found.
    pub(crate) next_row: usize,
    /// Rows that really ran.
    computed: usize,
    /// Of those, rows that had run before, whose values were lost while it did not run.
    recomputed: usize,
    /// Positions that needed no row, because their values were found or shared.
    cached: usize,
    /// The furthest `next_row` so far.
    reached: usize,
    pub(crate) table: Vec<BlockId>,
    /// Keys of the full blocks, as far as somebody asked.
    keys: Vec<Key>,
}

impl Sequence {
    pub(crate) fn new(work: Work) -> Sequence {
        assert!(!work.tokens.is_empty() && work.logits_from < work.tokens.len(), "checked at submit");
        Sequence {
            class: work.class,
            scope: work.scope,
            tree: work.tree,
            arrived: 0,
            came_ms: 0,
            waited_ms: None,
            prompt: work.tokens.len(),
            tokens: work.tokens,
            max_new: work.max_new,
            logits_from: work.logits_from,
            private_from: work.private_from,
            stays: false,
            stored: 0,
            next_row: 0,
            computed: 0,
            recomputed: 0,
            cached: 0,
            reached: 0,
            table: Vec::new(),
            keys: Vec::new(),
        }
    }

    /// All tokens: what it began with, then what was generated.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The generated tokens.
    pub fn generated(&self) -> &[u32] {
        &self.tokens[self.prompt..]
    }

    /// Tokens it began with.
    pub fn prompt(&self) -> usize {
        self.prompt
    }

    /// Positions that no row was run for, because their values were found or shared.
    pub fn cached(&self) -> usize {
        self.cached
    }

    /// It came in this step, at this time.
    pub(crate) fn come(&mut self, step: u64, now_ms: u64) {
        (self.arrived, self.came_ms) = (step, now_ms);
    }

    /// It is never put aside from now on.
    pub(crate) fn stay(&mut self) {
        self.stays = true;
    }

    /// It runs from now on; what it waits later, put aside, is no part of its first wait.
    pub(crate) fn begin(&mut self, now_ms: u64) {
        self.waited_ms.get_or_insert(now_ms.saturating_sub(self.came_ms));
    }

    /// Milliseconds in line before it ran first; 0 for one that never ran.
    pub fn waited_ms(&self) -> u64 {
        self.waited_ms.unwrap_or(0)
    }

    /// Blocks at its beginning that were found and not computed.
    pub(crate) fn found(&self) -> usize {
        self.cached / BLOCK_TOKENS
    }

    /// Rows that ran although they had run before: the price of having been put aside.
    pub fn recomputed(&self) -> usize {
        self.recomputed
    }

    /// The task tree it belongs to.
    pub fn tree(&self) -> TreeId {
        self.tree
    }

    /// Rows that ran for it.
    pub fn computed(&self) -> usize {
        self.computed
    }

    /// The blocks of its KV, in order of position.
    pub fn table(&self) -> &[BlockId] {
        &self.table
    }

    /// Tokens whose KV lies in the table.
    pub fn stored(&self) -> usize {
        self.stored
    }

    /// Whether values before this position may be shared.
    pub(crate) fn shares_until(&self, position: usize) -> bool {
        position <= self.private_from
    }

    /// From here on its values are its own, `usize::MAX` where all may be shared.
    pub(crate) fn private_from(&self) -> usize {
        self.private_from
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The first position whose logits are wanted.
    pub fn logits_from(&self) -> usize {
        self.logits_from
    }

    /// Rows still to run before the next token is known.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.next_row
    }

    /// Whether it has run its prompt and goes on token by token. One that was put aside is not, until it has
    /// caught up.
    pub(crate) fn is_decoding(&self) -> bool {
        self.next_row >= self.prompt && self.pending() <= 1
    }

    /// Whether nothing may be appended any more and all rows ran.
    pub(crate) fn is_complete(&self) -> bool {
        self.generated().len() >= self.max_new && (self.max_new > 0 || self.pending() == 0)
    }

    /// Blocks it may come to hold in all.
    pub(crate) fn blocks_at_most(&self) -> usize {
        (self.prompt + self.max_new).div_ceil(BLOCK_TOKENS)
    }

    /// Blocks of those that it has not taken yet.
    pub(crate) fn missing_blocks(&self) -> usize {
        self.blocks_at_most() - self.table.len()
    }

    /// Tokens that may still be generated after the next one.
    pub(crate) fn left_after_next(&self) -> usize {
        self.max_new.saturating_sub(self.generated().len() + 1)
    }

    /// The block taken for the next tokens, if none of them is stored yet; it is taken out of the table.
    pub(crate) fn spare_block(&mut self) -> Option<BlockId> {
        if self.table.len() > self.stored.div_ceil(BLOCK_TOKENS) { self.table.pop() } else { None }
    }

    pub(crate) fn push(&mut self, token: u32) {
        self.tokens.push(token);
    }

    /// The tokens of a block, when all 16 are known.
    pub(crate) fn block_tokens(&self, block: usize) -> Option<&BlockTokens> {
        self.tokens.get(block * BLOCK_TOKENS..(block + 1) * BLOCK_TOKENS)?.try_into().ok()
    }

    /// The key of a block, when all 16 tokens are known.
    pub(crate) fn key(&mut self, naming: &Naming, block: usize) -> Option<Key> {
        while self.keys.len() <= block {
            let tokens = self.block_tokens(self.keys.len())?;
            let key = naming.key(&self.scope, self.keys.last(), tokens);
            self.keys.push(key);
        }
        Some(self.keys[block])
    }

    /// Takes over the content of a block that was found or shared.
    pub(crate) fn adopt(&mut self, block: BlockId, tokens: usize) {
        self.table.push(block);
        self.stored += tokens;
        self.skip_to(self.stored.min(self.logits_from));
    }

    fn skip_to(&mut self, row: usize) {
        if row > self.next_row {
            self.cached += row.saturating_sub(self.reached.max(self.next_row));
            self.next_row = row;
            self.reached = self.reached.max(row);
        }
    }

    /// Gives its blocks away, to begin anew later: what it has generated stays, and only the row after the last
    /// token is wanted again.
    pub(crate) fn put_aside(&mut self) -> Vec<BlockId> {
        if !self.generated().is_empty() {
            self.logits_from = self.tokens.len() - 1;
        }
        (self.stored, self.next_row) = (0, 0);
        std::mem::take(&mut self.table)
    }

    /// Whether it may be put aside and begin anew: nobody has heard a part of its answer that would be given twice.
    pub(crate) fn can_be_put_aside(&self) -> bool {
        !self.stays && (self.max_new > 0 || self.reached <= self.logits_from)
    }

    /// Rows were run and their values stored.
    pub(crate) fn advance(&mut self, rows: &Range<usize>) {
        self.computed += rows.len();
        self.recomputed += rows.end.min(self.reached).saturating_sub(rows.start);
        self.next_row = rows.end;
        self.reached = self.reached.max(rows.end);
        self.stored = self.stored.max(rows.end);
    }
}
