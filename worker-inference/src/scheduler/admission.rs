//! Who may start: checks at submit, and setting blocks aside.

use super::{Scheduler, SubmitError};
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
    pub(super) fn admit(&mut self) {
        while self.running.len() < self.limits.running {
            let Some(&(class, id)) = self.waiting.first() else { return };
            if !self.fits(id) {
                return;
            }
            self.waiting.remove(&(class, id));
            self.running.insert((class, id));
            self.promised += self.sequences[&id].blocks_at_most();
            self.adopt(id);
        }
    }

    /// Whether every block that the sequence may need, beyond those it can share now, can be set aside.
    fn fits(&mut self, id: SequenceId) -> bool {
        let (mut shared, mut shared_idle) = (0, 0);
        while let Some(block) = self.find_block(id, shared * BLOCK_TOKENS) {
            shared += 1;
            shared_idle += usize::from(self.blocks.is_idle(block));
        }
        let needed = self.sequences[&id].blocks_at_most() - shared;
        self.blocks.available() - shared_idle >= self.promised + needed
    }
}
