//! Copy-on-write: a second sequence over the same beginning.

use super::{Bytes, Scheduler, SubmitError, Verb, VerbOutcome, owner};
use crate::blocks::BLOCK_TOKENS;
use crate::sequence::{Sequence, SequenceId, Work};

/// A new sequence that begins like another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// How many of the parent's tokens it keeps; all when None.
    pub keep: Option<usize>,
    /// Tokens after them.
    pub append: Vec<u32>,
    pub max_new: usize,
    pub class: u8,
}

impl Scheduler {
    /// Starts a sequence that shares all full blocks of its parent and copies at most the last, partial one.
    /// It runs at once or is refused: a fork that waited would hold blocks while it waits.
    pub fn fork(
        &mut self,
        parent: SequenceId,
        fork: Fork,
        bytes: &mut dyn Bytes,
    ) -> Result<SequenceId, SubmitError> {
        let forked = self.try_fork(parent, fork, bytes);
        let outcome = match &forked {
            Ok(_) => VerbOutcome::Done,
            Err(SubmitError::Unknown(_)) => VerbOutcome::Unknown,
            Err(_) => VerbOutcome::Refused,
        };
        self.verbs.count(Verb::Fork, outcome);
        forked
    }

    fn try_fork(
        &mut self,
        parent: SequenceId,
        fork: Fork,
        bytes: &mut dyn Bytes,
    ) -> Result<SequenceId, SubmitError> {
        let from = self.sequences.get(&parent).ok_or(SubmitError::Unknown(parent))?;
        let kept = fork.keep.unwrap_or(from.tokens().len()).min(from.tokens().len());
        let tokens = [&from.tokens()[..kept], &fork.append].concat();
        let logits_from = tokens.len().saturating_sub(1);
        let work = Work {
            tokens,
            scope: *from.scope(),
            max_new: fork.max_new,
            logits_from,
            class: fork.class,
            tree: from.tree(),
            private_from: usize::MAX,
        };
        self.check(&work)?;
        let shared = from.stored.min(kept);
        let child = Sequence::new(work);
        self.check_room(&child, shared / BLOCK_TOKENS)?;
        Ok(self.start_fork(parent, child, shared, bytes))
    }

    pub(super) fn check_room(&self, child: &Sequence, shared_blocks: usize) -> Result<(), SubmitError> {
        let needed = child.blocks_at_most() - shared_blocks;
        let available = self.blocks.available() - self.promised;
        let running = self.running.len();
        if needed > available {
            return Err(SubmitError::NoRoom { needed, available });
        }
        if running >= self.limits.running {
            return Err(SubmitError::Busy { waiting: running });
        }
        Ok(())
    }

    fn start_fork(
        &mut self,
        parent: SequenceId,
        mut child: Sequence,
        shared: usize,
        bytes: &mut dyn Bytes,
    ) -> SequenceId {
        self.promised += child.blocks_at_most();
        let from = self.sequences[&parent].table.clone();
        for &block in &from[..shared / BLOCK_TOKENS] {
            self.blocks.hold(block);
            self.promised -= 1;
            child.adopt(block, BLOCK_TOKENS);
        }
        let tail = shared % BLOCK_TOKENS;
        if tail > 0 {
            let to = self.take_for(owner(&child), bytes);
            bytes.copy(from[shared / BLOCK_TOKENS], to, tail);
            child.adopt(to, tail);
        }
        self.enter_running(child)
    }

    /// A sequence runs without having waited.
    pub(super) fn enter_running(&mut self, mut sequence: Sequence) -> SequenceId {
        sequence.come(self.step, self.blocks.now_ms());
        sequence.begin(self.blocks.now_ms());
        let id = self.name();
        self.service.enter(&sequence, self.step);
        self.running.insert((sequence.class, id));
        self.sequences.insert(id, sequence);
        id
    }
}
