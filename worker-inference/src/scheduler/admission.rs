//! Who may start: checks at submit, and setting blocks aside.

use super::{Bytes, Scheduler, SubmitError};
use crate::blocks::BLOCK_TOKENS;
use crate::sequence::{SequenceId, Work};

impl Scheduler {
    /// Refuses what could never run.
    pub(super) fn check(&self, work: &Work) -> Result<(), SubmitError> {
        let (prompt, max_new) = (work.tokens.len(), work.max_new);
        if prompt == 0 {
            return Err(SubmitError::Empty);
        }
        let window = self.limits.window;
        let whole = prompt.saturating_add(max_new);
        if whole > window {
            return Err(SubmitError::Window { prompt, max_new, window });
        }
        let (needed, total) = (whole.div_ceil(BLOCK_TOKENS), self.blocks.total());
        if needed > total {
            return Err(SubmitError::Pool { prompt, max_new, needed, total });
        }
        Ok(())
    }

    /// Admits from the front of the line. Nobody overtakes: what waits for many blocks would wait for ever.
    pub(super) fn admit(&mut self, bytes: &mut dyn Bytes) {
        // Who did not fit fits only after something has come, ended or been put aside.
        while self.changed {
            let Some(id) = self.next_in_line() else { break };
            if !self.fits(id) && !self.preempt_for(id) {
                break;
            }
            self.start(id, bytes);
        }
        self.changed = false;
    }

    fn next_in_line(&self) -> Option<SequenceId> {
        let (class, _) = *self.waiting.first()?;
        let same = self.waiting.range((class, SequenceId(0))..=(class, SequenceId(u64::MAX)));
        same.map(|(_, id)| *id).min_by_key(|id| self.service.rank(*id, &self.sequences[id], self.step))
    }

    fn start(&mut self, id: SequenceId, bytes: &mut dyn Bytes) {
        let class = self.sequences[&id].class;
        self.waiting.remove(&(class, id));
        self.running.insert((class, id));
        self.promised += self.sequences[&id].blocks_at_most();
        let now_ms = self.blocks.now_ms();
        self.sequence_mut(id).begin(now_ms);
        self.adopt(id, bytes);
    }

    /// Whether there is a place, and every block that the sequence may need can be set aside.
    pub(super) fn fits(&mut self, id: SequenceId) -> bool {
        let (needed, shared_idle) = self.need(id);
        self.running.len() < self.limits.running
            && self.blocks.available() - shared_idle >= self.promised + needed
    }

    /// Blocks that a waiting sequence may need beyond those in the pool that it can share now; and how many of
    /// these are idle.
    pub(super) fn need(&mut self, id: SequenceId) -> (usize, usize) {
        let (mut shared, mut shared_idle) = (0, 0);
        while let Some(block) = self.find_block(id, shared * BLOCK_TOKENS) {
            shared += 1;
            shared_idle += usize::from(self.blocks.is_idle(block));
        }
        (self.sequences[&id].blocks_at_most() - shared, shared_idle)
    }
}
