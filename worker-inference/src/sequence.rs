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
}

/// The state of one sequence.
#[derive(Debug, Clone)]
pub struct Sequence {
    pub(crate) class: u8,
    scope: Scope,
    tokens: Vec<u32>,
    prompt: usize,
    max_new: usize,
    logits_from: usize,
    /// Blocks with a token at or behind this position are neither looked for nor shown to others.
    private_from: usize,
    /// Tokens whose keys and values lie in the table's blocks.
    pub(crate) stored: usize,
    /// Positions before this one need no row any more: they ran, or their values were found.
    pub(crate) next_row: usize,
    /// Rows that really ran.
    pub(crate) computed: usize,
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
            prompt: work.tokens.len(),
            tokens: work.tokens,
            max_new: work.max_new,
            logits_from: work.logits_from,
            private_from: usize::MAX,
            stored: 0,
            next_row: 0,
            computed: 0,
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
        self.next_row - self.computed
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

    /// Whether it has run its prompt and goes on token by token.
    pub(crate) fn is_decoding(&self) -> bool {
        self.next_row >= self.prompt
    }

    /// Whether nothing may be appended any more and all rows ran.
    pub(crate) fn is_complete(&self) -> bool {
        self.generated().len() >= self.max_new && (self.max_new > 0 || self.pending() == 0)
    }

    /// Blocks it may come to hold in all.
    pub(crate) fn blocks_at_most(&self) -> usize {
        (self.prompt + self.max_new).div_ceil(BLOCK_TOKENS)
    }

    pub(crate) fn push(&mut self, token: u32) {
        self.tokens.push(token);
    }

    /// The tokens of a block, when all 16 are known.
    pub(crate) fn block_tokens(&self, block: usize) -> Option<&BlockTokens> {
        self.tokens.get(block * BLOCK_TOKENS..(block + 1) * BLOCK_TOKENS)?.try_into().ok()
    }

    /// Rows from this position on are computed in a way of their own: nobody else may use their values, and it
    /// may not use those of others.
    pub(crate) fn keep_private(&mut self, from: usize) {
        self.private_from = from;
    }

    /// The key of a block, when all 16 tokens are known and the block is not private.
    pub(crate) fn key(&mut self, naming: &Naming, block: usize) -> Option<Key> {
        if (block + 1) * BLOCK_TOKENS > self.private_from {
            return None;
        }
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
        self.next_row = self.next_row.max(self.stored.min(self.logits_from));
    }

    /// Rows were run and their values stored.
    pub(crate) fn advance(&mut self, rows: &Range<usize>) {
        self.computed += rows.len();
        self.next_row = rows.end;
        self.stored = self.stored.max(rows.end);
    }
}
