//! Blocks that a sequence reads beside its own: held for it by whoever asked, as long as it runs.

use super::{Scheduler, SubmitError};
use crate::blocks::{BLOCK_TOKENS, BlockId};
use crate::prefix::{BlockTokens, Scope};
use crate::sequence::{Sequence, SequenceId, Work};

impl Scheduler {
    /// Holds the blocks of these tokens, if the values of all of them are in the pool. [`Scheduler::let_go_of`] them.
    ///
    /// # Errors
    /// When idle ones among them are set aside for sequences that run.
    pub fn hold_known(&mut self, scope: &Scope, tokens: &[u32]) -> Result<Option<Vec<BlockId>>, SubmitError> {
        let Some(blocks) = self.known(scope, tokens) else { return Ok(None) };
        let needed = blocks.iter().filter(|block| self.blocks.is_idle(**block)).count();
        let available = self.blocks.available() - self.promised;
        if needed > available {
            return Err(SubmitError::NoRoom { needed, available });
        }
        blocks.iter().for_each(|block| self.blocks.hold(*block));
        Ok(Some(blocks))
    }

    /// Lets go of blocks that were held.
    pub fn let_go_of(&mut self, blocks: &[BlockId]) {
        self.let_go(blocks, blocks.len() * BLOCK_TOKENS, 0, blocks.len());
        self.changed = true;
    }

    /// The blocks of these tokens, if the values of all of them are in the pool.
    pub fn known(&self, scope: &Scope, tokens: &[u32]) -> Option<Vec<BlockId>> {
        let mut blocks = Vec::with_capacity(tokens.len().div_ceil(BLOCK_TOKENS));
        let mut parent = None;
        let (full, tail) = tokens.as_chunks::<BLOCK_TOKENS>();
        for tokens in full {
            let tokens: &BlockTokens = tokens;
            let key = self.naming.key(scope, parent.as_ref(), tokens);
            blocks.push(self.contents.find(&key, tokens)?);
            parent = Some(key);
        }
        if !tail.is_empty() {
            let parent = parent.unwrap_or_else(|| self.naming.root(scope));
            blocks.push(self.contents.block_of(&self.naming.tail(&parent, tail))?);
        }
        Some(blocks)
    }

    /// Starts a sequence now or refuses it, and never puts it aside: one that waited would keep the room that it waits for.
    pub fn start_holding(&mut self, work: Work) -> Result<SequenceId, SubmitError> {
        self.check(&work)?;
        let mut sequence = Sequence::new(work);
        sequence.stay();
        self.check_room(&sequence, 0)?;
        self.promised += sequence.blocks_at_most();
        Ok(self.enter_running(sequence))
    }
}
