//! Guessed tokens: rows run behind those of a sequence before anybody knows whether they will be its tokens.
//!
//! A guess is never among a sequence's tokens, so nothing is sealed, shared or found by it. Once the token at its place
//! was generated and is the same, the row counts as run ([`Scheduler::ran_guess`]), exactly as if it had been planned
//! then. What was run behind the last one that came true lies behind what is stored: nobody reads it, the next rows
//! overwrite it, and blocks that hold nothing else are given back ([`Scheduler::take_back`]).

use super::{Batch, Bytes, Scheduler};
use crate::blocks::BLOCK_TOKENS;
use crate::sequence::SequenceId;

impl Scheduler {
    /// How many guessed tokens may run behind a chunk: those that come after the token that it tells, as far as the
    /// sequence may go. 0 for a chunk that tells no next token.
    pub fn guesses_at_most(&self, batch: &Batch, chunk: usize) -> usize {
        let chunk = &batch.chunks[chunk];
        let sequence = &self.sequences[&chunk.id];
        let is_end = chunk.rows.end == sequence.tokens().len() && sequence.logits_from() < chunk.rows.end;
        if is_end { sequence.left_after_next() } else { 0 }
    }

    /// Runs guessed tokens behind a chunk, in blocks that were set aside for the sequence.
    ///
    /// # Panics
    /// When there are more than [`Scheduler::guesses_at_most`].
    pub fn guess(&mut self, batch: &mut Batch, chunk: usize, guessed: Vec<u32>, bytes: &mut dyn Bytes) {
        assert!(guessed.len() <= self.guesses_at_most(batch, chunk), "no room was set aside for {guessed:?}");
        let chunk = &mut batch.chunks[chunk];
        let blocks = (chunk.rows.end + guessed.len()).div_ceil(BLOCK_TOKENS);
        while self.sequences[&chunk.id].table.len() < blocks {
            let taken = self.take(chunk.id, bytes);
            self.sequence_mut(chunk.id).table.push(taken);
        }
        chunk.guessed = guessed;
    }

    /// The next row of a sequence ran already, because its token was guessed and has come.
    pub fn ran_guess(&mut self, id: SequenceId, bytes: &mut dyn Bytes) {
        let sequence = self.sequence_mut(id);
        let row = sequence.next_row;
        assert!(row < sequence.tokens().len(), "a guess is kept only once its token has come");
        sequence.advance(&(row..row + 1));
        self.service.charge(&self.sequences[&id], 1, self.step);
        if (row + 1).is_multiple_of(BLOCK_TOKENS) {
            self.seal(id, row / BLOCK_TOKENS, bytes);
        }
    }

    /// Gives back the blocks of a sequence in which nothing is stored.
    pub fn take_back(&mut self, id: SequenceId) {
        while let Some(block) = self.sequences.get_mut(&id).and_then(|sequence| sequence.spare_block()) {
            self.blocks.release(block);
            self.promised += usize::from(self.running.contains(&(self.sequences[&id].class, id)));
        }
    }
}
