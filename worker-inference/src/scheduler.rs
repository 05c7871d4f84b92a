//! What runs next: a pure machine over sequences and blocks. No clock, no bytes, no arithmetic.
//!
//! One step's token budget goes first to every sequence that generates (one token each), then to prompts in
//! order of class and arrival, in chunks that end on block borders. A sequence is admitted only when all the
//! blocks that it may ever need are set aside, so nothing that runs is ever thrown out to make room. A block
//! that several prompts need is computed by one of them; the others wait for it and then share it.

mod admission;
mod fork;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::blocks::{BLOCK_TOKENS, BlockId, Blocks, Eviction};
use crate::prefix::{Key, Naming, PrefixIndex};
use crate::sequence::{Sequence, SequenceId, Work};

pub use fork::{Copy, Fork};

/// The bounds of one engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows of one step, generating and prompt together.
    pub step_tokens: usize,
    /// Rows of one sequence in one step.
    pub chunk_tokens: usize,
    /// Sequences admitted at the same time; at most `step_tokens - 16`.
    pub running: usize,
    /// Sequences waiting to be admitted.
    pub waiting: usize,
    /// Tokens of one sequence, generated ones included.
    pub window: usize,
}

/// Why a sequence was not taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SubmitError {
    #[error("the prompt is empty; give at least one token")]
    Empty,
    #[error("max_new is 0; ask for at least one token")]
    NothingToGenerate,
    #[error(
        "prompt of {prompt} tokens plus {max_new} new ones is more than the model's window of {window}; \
         shorten the prompt or ask for fewer tokens"
    )]
    Window { prompt: usize, max_new: usize, window: usize },
    #[error(
        "prompt of {prompt} tokens plus {max_new} new ones needs {needed} KV blocks and the pool has {total}; \
         shorten the prompt or raise engine.kv_bytes"
    )]
    Pool { prompt: usize, max_new: usize, needed: usize, total: usize },
    #[error(
        "{waiting} sequences wait or run already; try again later or raise engine.waiting and engine.running"
    )]
    Busy { waiting: usize },
    #[error(
        "a fork needs {needed} KV blocks now and {available} are not set aside; submit its tokens instead"
    )]
    NoRoom { needed: usize, available: usize },
    #[error("{0} is unknown or has ended")]
    Unknown(SequenceId),
    #[error("token {token} is outside the vocabulary of {vocabulary}; use this model's tokenizer")]
    Token { token: u32, vocabulary: usize },
    #[error("{0}; correct the sampling settings")]
    Sampling(&'static str),
    #[error("{0}")]
    Request(&'static str),
}

/// Rows of one sequence in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub id: SequenceId,
    /// Positions to run.
    pub rows: Range<usize>,
    /// Positions before this one have their values stored already and must not be written.
    pub store_from: usize,
}

/// One step's work. Rows of one sequence lie together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    pub chunks: Vec<Chunk>,
}

impl Batch {
    pub fn rows(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.rows.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }
}

/// Where a waiting or running sequence stands in line.
type Order = (u8, SequenceId);

/// All sequences and blocks of one engine.
#[derive(Debug, Clone)]
pub struct Scheduler {
    limits: Limits,
    naming: Naming,
    sequences: BTreeMap<SequenceId, Sequence>,
    waiting: BTreeSet<Order>,
    running: BTreeSet<Order>,
    blocks: Blocks,
    index: PrefixIndex,
    /// Blocks set aside for running sequences and not yet taken.
    promised: usize,
    next_id: u64,
}

impl Scheduler {
    /// `blocks` free blocks; keys are derived by `naming`.
    ///
    /// # Panics
    /// When the limits can't work: too few rows for all running sequences and one block of a prompt.
    pub fn new(limits: Limits, naming: Naming, blocks: usize) -> Scheduler {
        assert!(limits.running > 0 && limits.running + BLOCK_TOKENS <= limits.step_tokens, "{limits:?}");
        assert!(limits.chunk_tokens >= BLOCK_TOKENS, "{limits:?}");
        Scheduler {
            limits,
            naming,
            sequences: BTreeMap::new(),
            waiting: BTreeSet::new(),
            running: BTreeSet::new(),
            blocks: Blocks::new(blocks),
            index: PrefixIndex::default(),
            promised: 0,
            next_id: 1,
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    pub fn sequence(&self, id: SequenceId) -> Option<&Sequence> {
        self.sequences.get(&id)
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn running(&self) -> usize {
        self.running.len()
    }

    pub fn is_idle(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Puts a sequence in line.
    pub fn submit(&mut self, work: Work) -> Result<SequenceId, SubmitError> {
        self.check(&work)?;
        if self.waiting.len() >= self.limits.waiting {
            return Err(SubmitError::Busy { waiting: self.waiting.len() });
        }
        let sequence = Sequence::new(work);
        let id = self.name();
        self.waiting.insert((sequence.class, id));
        self.sequences.insert(id, sequence);
        Ok(id)
    }

    /// What a waiting sequence computes from position `from` on is its own; see [`Sequence::keep_private`].
    pub(crate) fn keep_private(&mut self, id: SequenceId, from: usize) {
        self.sequence_mut(id).keep_private(from);
    }

    /// Decides the next step. The batch must then be run and committed.
    pub fn plan(&mut self) -> Batch {
        self.admit();
        let mut plan =
            Plan { left: self.limits.step_tokens, claimed: BTreeSet::new(), batch: Batch::default() };
        let order: Vec<SequenceId> = self.running.iter().map(|(_, id)| *id).collect();
        for id in &order {
            self.plan_decode(*id, &mut plan);
        }
        for id in &order {
            self.plan_prompt(*id, &mut plan);
        }
        plan.batch
    }

    /// The batch was run: full blocks are sealed and can be found from now on.
    pub fn commit(&mut self, batch: &Batch) {
        for chunk in &batch.chunks {
            let before = self.sequences[&chunk.id].stored / BLOCK_TOKENS;
            self.sequence_mut(chunk.id).advance(&chunk.rows);
            let full = self.sequences[&chunk.id].stored / BLOCK_TOKENS;
            (before..full).for_each(|block| self.seal(chunk.id, block));
        }
    }

    /// Appends a generated token. True when the sequence may generate more.
    pub fn append(&mut self, id: SequenceId, token: u32) -> bool {
        let sequence = self.sequence_mut(id);
        sequence.push(token);
        !sequence.is_complete()
    }

    /// Ends a sequence, whatever its state, and lets go of its blocks. None when it is unknown.
    pub fn remove(&mut self, id: SequenceId) -> Option<Sequence> {
        let sequence = self.sequences.remove(&id)?;
        self.waiting.remove(&(sequence.class, id));
        if self.running.remove(&(sequence.class, id)) {
            self.promised -= sequence.blocks_at_most() - sequence.table.len();
        }
        // From the end: the blocks that fewest others can use are then the first to be evicted.
        sequence.table.iter().rev().for_each(|&block| self.blocks.release(block));
        Some(sequence)
    }

    /// Frees every idle block, as if no prompt had been seen before. Running sequences keep theirs.
    pub fn clear_cache(&mut self) {
        while let Some(key) = self.blocks.evict(Eviction::Cleared) {
            self.index.remove(&key);
        }
    }

    fn name(&mut self) -> SequenceId {
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        id
    }

    fn sequence_mut(&mut self, id: SequenceId) -> &mut Sequence {
        self.sequences.get_mut(&id).expect("only known sequences are scheduled")
    }

    /// One row for a sequence that generates.
    fn plan_decode(&mut self, id: SequenceId, plan: &mut Plan) {
        let sequence = &self.sequences[&id];
        if sequence.is_decoding() && sequence.pending() > 0 {
            let rows = sequence.next_row..sequence.next_row + 1;
            self.schedule(id, rows, plan);
        }
    }

    /// A chunk of a prompt, unless its next block is being computed by a sequence before it in line.
    fn plan_prompt(&mut self, id: SequenceId, plan: &mut Plan) {
        if self.sequences[&id].is_decoding() {
            return;
        }
        self.adopt(id);
        if self.next_block_is_claimed(id, plan) {
            return;
        }
        let sequence = &self.sequences[&id];
        let start = sequence.next_row;
        let end = chunk_end(start, sequence.tokens().len(), plan.left.min(self.limits.chunk_tokens));
        if end > start {
            self.schedule(id, start..end, plan);
        }
    }

    fn next_block_is_claimed(&mut self, id: SequenceId, plan: &Plan) -> bool {
        let naming = self.naming.clone();
        let sequence = self.sequence_mut(id);
        let on_border = sequence.stored.is_multiple_of(BLOCK_TOKENS);
        let key = if on_border { sequence.key(&naming, sequence.stored / BLOCK_TOKENS) } else { None };
        key.is_some_and(|key| plan.claimed.contains(&key))
    }

    fn schedule(&mut self, id: SequenceId, rows: Range<usize>, plan: &mut Plan) {
        let first = self.sequences[&id].stored / BLOCK_TOKENS;
        let naming = self.naming.clone();
        for block in first..rows.end.div_ceil(BLOCK_TOKENS) {
            plan.claimed.extend(self.sequence_mut(id).key(&naming, block));
            if block >= self.sequences[&id].table.len() {
                let taken = self.take();
                self.sequence_mut(id).table.push(taken);
            }
        }
        plan.left -= rows.len();
        let store_from = self.sequences[&id].stored;
        plan.batch.chunks.push(Chunk { id, rows, store_from });
    }

    /// Takes one of the blocks set aside for a running sequence.
    fn take(&mut self) -> BlockId {
        let taken = self.blocks.take().expect("admission set this block aside");
        if let Some(key) = taken.evicted {
            self.index.remove(&key);
        }
        self.promised -= 1;
        taken.block
    }

    /// Takes over every next block of a prompt that the index knows.
    fn adopt(&mut self, id: SequenceId) {
        while let Some(block) = self.find_block(id, self.sequences[&id].stored) {
            self.blocks.hold(block);
            self.promised -= 1;
            self.sequence_mut(id).adopt(block, BLOCK_TOKENS);
        }
    }

    /// The block that begins at `position`, if its content is known.
    fn find_block(&mut self, id: SequenceId, position: usize) -> Option<BlockId> {
        if !position.is_multiple_of(BLOCK_TOKENS) {
            return None;
        }
        let naming = self.naming.clone();
        let block = position / BLOCK_TOKENS;
        let key = self.sequence_mut(id).key(&naming, block)?;
        let tokens = self.sequences[&id].block_tokens(block)?;
        self.index.find(&key, tokens)
    }

    fn seal(&mut self, id: SequenceId, block: usize) {
        let naming = self.naming.clone();
        let sequence = self.sequence_mut(id);
        let held = sequence.table[block];
        let Some(key) = sequence.key(&naming, block) else { return self.blocks.seal(held, None) };
        let tokens = *sequence.block_tokens(block).expect("a full block has 16 known tokens");
        let is_new = self.index.insert(key, tokens, held);
        self.blocks.seal(held, is_new.then_some(key));
    }
}

/// A step being put together.
struct Plan {
    left: usize,
    /// Keys of the blocks that this step computes.
    claimed: BTreeSet<Key>,
    batch: Batch,
}

/// Where a chunk ends: at the end of the tokens, or at the last block border within `most` rows.
fn chunk_end(start: usize, len: usize, most: usize) -> usize {
    if len - start <= most { len } else { (start + most) / BLOCK_TOKENS * BLOCK_TOKENS }
}

#[cfg(test)]
#[path = "scheduler/scheduler_test.rs"]
mod scheduler_test;
