//! What runs next: a pure machine over sequences and blocks. No clock, no bytes, no arithmetic.
//!
//! One step's token budget goes first to every sequence that generates (one token each), then to prompts in
//! order (`order`), in chunks that end on block borders. A sequence is admitted only when all the blocks that it
//! may ever need are set aside, so nothing that runs is thrown out to make room for its like; a more urgent class
//! may put less urgent sequences aside (`aside`). A block that several prompts need is computed by one of them;
//! the others wait for it and then share it, to the token (`share`). What a sequence reads beside its own blocks is held for it
//! (`held`).

mod admission;
mod aside;
mod bytes;
mod contents;
mod fork;
mod guess;
mod held;
mod order;
mod share;
mod verbs;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::blocks::{BLOCK_TOKENS, BlockId, Blocks, Eviction};
use crate::evict::{Owner, Use};
use crate::prefix::{BlockTokens, Key, Naming, Scope};
use crate::sequence::{Sequence, SequenceId, Work};

pub use aside::Asides;
pub use bytes::{Below, Bytes, NoBytes, Whole};
use contents::Contents;
pub use fork::Fork;
use order::Service;
pub use share::Shared;
use verbs::Verbs;
pub use verbs::{Verb, VerbOutcome};

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
        "a sequence that must start at once needs {needed} KV blocks and {available} are not set aside; submit a fork's \
         tokens instead, or raise engine.kv_bytes"
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
    /// Tokens guessed to come after the rows, run with them; see `guess`.
    pub guessed: Vec<u32>,
}

/// One step's work. Rows of one sequence lie together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    pub chunks: Vec<Chunk>,
}

impl Batch {
    /// Rows of tokens that are known.
    pub fn rows(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.rows.len()).sum()
    }

    /// Rows of guessed tokens.
    pub fn guessed(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.guessed.len()).sum()
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
    paused: BTreeSet<SequenceId>,
    service: Service,
    blocks: Blocks,
    contents: Contents,
    /// Blocks set aside for running sequences and not yet taken.
    promised: usize,
    /// Something has come or gone since somebody last did not fit.
    changed: bool,
    step: u64,
    shared: Shared,
    asides: Asides,
    verbs: Verbs,
    next_id: u64,
}

impl Scheduler {
    /// `blocks` free blocks; keys are derived by `naming`.
    ///
    /// # Panics
    /// When the limits can't work: too few rows for all running sequences and one block of a prompt.
    pub fn new(limits: Limits, naming: Naming, blocks: usize) -> Scheduler {
        Scheduler::over(limits, naming, Blocks::new(blocks))
    }

    /// The same over a pool with its own eviction policy.
    ///
    /// # Panics
    /// As [`Scheduler::new`].
    pub fn over(limits: Limits, naming: Naming, blocks: Blocks) -> Scheduler {
        assert!(limits.running > 0 && limits.running + BLOCK_TOKENS <= limits.step_tokens, "{limits:?}");
        assert!(limits.chunk_tokens >= BLOCK_TOKENS, "{limits:?}");
        Scheduler {
            limits,
            naming,
            sequences: BTreeMap::new(),
            waiting: BTreeSet::new(),
            running: BTreeSet::new(),
            paused: BTreeSet::new(),
            service: Service::default(),
            blocks,
            contents: Contents::default(),
            promised: 0,
            changed: false,
            step: 0,
            shared: Shared::default(),
            asides: Asides::default(),
            verbs: Verbs::default(),
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

    /// Sequences that were put aside until somebody lets them go on.
    pub fn paused(&self) -> usize {
        self.paused.len()
    }

    /// What was taken over so far.
    pub fn shared(&self) -> Shared {
        self.shared
    }

    /// How often sequences were put aside so far.
    pub fn asides(&self) -> Asides {
        self.asides
    }

    /// Nothing runs and nothing waits to run; paused sequences don't count.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// The time of what follows, in ms since any fixed moment. It only changes what is kept, never a token.
    pub fn set_time(&mut self, now_ms: u64) {
        self.blocks.set_time(now_ms);
    }

    /// The block that holds a content.
    pub fn block_of(&self, key: &Key) -> Option<BlockId> {
        self.contents.block_of(key)
    }

    /// What stands before the first block of a scope's chains.
    pub(crate) fn root(&self, scope: &Scope) -> Key {
        self.naming.root(scope)
    }

    /// A project's share of the computing beside other projects, 1 when nobody says otherwise.
    pub fn set_weight(&mut self, scope: Scope, weight: u32) {
        self.service.set_weight(scope, weight);
    }

    /// Puts a sequence in line.
    pub fn submit(&mut self, work: Work) -> Result<SequenceId, SubmitError> {
        self.check(&work)?;
        let waiting = self.waiting.len() + self.paused.len();
        if waiting >= self.limits.waiting {
            return Err(SubmitError::Busy { waiting });
        }
        let mut sequence = Sequence::new(work);
        sequence.come(self.step, self.blocks.now_ms());
        let id = self.name();
        self.service.enter(&sequence, self.step);
        self.changed = true;
        self.waiting.insert((sequence.class, id));
        self.sequences.insert(id, sequence);
        Ok(id)
    }

    /// Decides the next step. The batch must then be run and committed.
    pub fn plan(&mut self, bytes: &mut dyn Bytes) -> Batch {
        self.step += 1;
        self.admit(bytes);
        let mut plan = Plan { left: self.limits.step_tokens, ..Plan::default() };
        for id in self.in_order() {
            self.plan_decode(id, &mut plan, bytes);
        }
        // Those that have caught up generate in this step already.
        for id in self.in_order() {
            self.plan_prompt(id, &mut plan, bytes);
        }
        plan.batch
    }

    fn in_order(&self) -> Vec<SequenceId> {
        let rank = |id: SequenceId| self.service.rank(id, &self.sequences[&id], self.step);
        let mut order: Vec<SequenceId> = self.running.iter().map(|(_, id)| *id).collect();
        order.sort_by_cached_key(|&id| rank(id));
        order
    }

    /// The batch was run: full blocks are sealed and can be found from now on.
    pub fn commit(&mut self, batch: &Batch, bytes: &mut dyn Bytes) {
        for chunk in &batch.chunks {
            let before = self.sequences[&chunk.id].stored / BLOCK_TOKENS;
            self.sequence_mut(chunk.id).advance(&chunk.rows);
            self.service.charge(&self.sequences[&chunk.id], chunk.rows.len(), self.step);
            let full = self.sequences[&chunk.id].stored / BLOCK_TOKENS;
            (before..full).for_each(|block| self.seal(chunk.id, block, bytes));
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
        if self.sequences.contains_key(&id) {
            self.take_back(id);
            self.seal_tail(id);
        }
        let sequence = self.sequences.remove(&id)?;
        self.waiting.remove(&(sequence.class, id));
        self.paused.remove(&id);
        if self.running.remove(&(sequence.class, id)) {
            self.promised -= sequence.missing_blocks();
        }
        self.let_go(&sequence.table, sequence.prompt(), sequence.generated().len(), sequence.found());
        self.service.leave(&sequence);
        self.changed = true;
        Some(sequence)
    }

    /// Releases a table from its end. `found` of its blocks were there when the call began.
    fn let_go(&mut self, table: &[BlockId], prompt: usize, answer: usize, found: usize) {
        for (index, &block) in table.iter().enumerate().rev() {
            let call = Use {
                prompt: prompt as u32,
                answer: answer as u32,
                after: ((table.len() - 1 - index) * BLOCK_TOKENS) as u32,
                hit: index < found,
            };
            self.blocks.release_after(block, &call);
        }
    }

    /// Frees every idle block, as if no prompt had been seen before. Running sequences keep theirs.
    pub fn clear_cache(&mut self) {
        while let Some(key) = self.blocks.evict(Eviction::Cleared) {
            self.contents.remove(&key);
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
    fn plan_decode(&mut self, id: SequenceId, plan: &mut Plan, bytes: &mut dyn Bytes) {
        let sequence = &self.sequences[&id];
        if sequence.is_decoding() && sequence.pending() > 0 {
            let rows = sequence.next_row..sequence.next_row + 1;
            self.schedule(id, rows, plan, bytes);
        }
    }

    /// A chunk of a prompt, unless its next block is being computed by a sequence before it in line, or brought
    /// up from below.
    fn plan_prompt(&mut self, id: SequenceId, plan: &mut Plan, bytes: &mut dyn Bytes) {
        if self.sequences[&id].is_decoding() || !self.adopt(id, bytes) || self.next_block_is_claimed(id, plan)
        {
            return;
        }
        let sequence = &self.sequences[&id];
        let start = sequence.next_row;
        let end = chunk_end(start, sequence.tokens().len(), plan.left.min(self.limits.chunk_tokens));
        if end > start {
            self.schedule(id, start..end, plan, bytes);
        }
    }

    fn schedule(&mut self, id: SequenceId, rows: Range<usize>, plan: &mut Plan, bytes: &mut dyn Bytes) {
        let first = self.sequences[&id].stored / BLOCK_TOKENS;
        for block in first..rows.end.div_ceil(BLOCK_TOKENS) {
            if (block + 1) * BLOCK_TOKENS <= rows.end {
                self.claim(id, block, plan);
            }
            if block >= self.sequences[&id].table.len() {
                let taken = self.take(id, bytes);
                self.sequence_mut(id).table.push(taken);
            }
        }
        plan.left -= rows.len();
        let store_from = self.sequences[&id].stored;
        plan.batch.chunks.push(Chunk { id, rows, store_from, guessed: Vec::new() });
    }

    /// This step fills a block: whoever needs the same can wait for it.
    fn claim(&mut self, id: SequenceId, block: usize, plan: &mut Plan) {
        let sequence = &self.sequences[&id];
        if let Some(&tokens) =
            sequence.block_tokens(block).filter(|_| sequence.shares_until((block + 1) * BLOCK_TOKENS))
        {
            let parent = self.parent_key(id, block);
            plan.claimed.entry(parent).or_default().push(tokens);
        }
    }

    /// Takes one of the blocks set aside for a running sequence.
    fn take(&mut self, id: SequenceId, bytes: &mut dyn Bytes) -> BlockId {
        self.take_for(owner(&self.sequences[&id]), bytes)
    }

    /// Takes a block that was set aside. What it held is offered to the tiers below.
    fn take_for(&mut self, owner: Owner, bytes: &mut dyn Bytes) -> BlockId {
        let taken = self.blocks.take_for(owner).expect("admission set this block aside");
        if let Some(lost) = taken.lost
            && let Some(content) = self.contents.remove(&lost.key)
            && let Some(whole) = content.whole(&lost.key, lost.worth)
        {
            bytes.demote(whole);
        }
        self.promised -= 1;
        taken.block
    }
}

fn owner(sequence: &Sequence) -> Owner {
    Owner { project: *sequence.scope(), class: sequence.class }
}

/// A step being put together.
#[derive(Debug, Default)]
struct Plan {
    left: usize,
    /// The blocks that this step fills, by the content before them.
    claimed: BTreeMap<Key, Vec<BlockTokens>>,
    batch: Batch,
}

/// Where a chunk ends: at the end of the tokens, or at the last block border within `most` rows.
fn chunk_end(start: usize, len: usize, most: usize) -> usize {
    if len - start <= most { len } else { (start + most) / BLOCK_TOKENS * BLOCK_TOKENS }
}

#[cfg(test)]
#[path = "scheduler/scheduler_test.rs"]
mod scheduler_test;
