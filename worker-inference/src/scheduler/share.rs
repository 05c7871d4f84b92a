//! Taking over what is known: whole blocks from the pool or from below it, and the beginning of a block.

use super::contents::{Content, common};
use super::{Below, Bytes, NoBytes, Plan, Scheduler};
use crate::blocks::{BLOCK_TOKENS, BlockId};
use crate::prefix::{BlockTokens, Key};
use crate::sequence::SequenceId;

/// Beginnings of a block with fewer common tokens are not worth a copy, nor a step of waiting.
const WORTH_SHARING: usize = 4;

/// Blocks that are asked for together when they are far away.
const AHEAD: usize = 16;

/// Contents taken over, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shared {
    /// Blocks that were restored from a tier below the pool.
    pub restored: u64,
    /// Blocks whose bytes below the pool turned out damaged; they were computed anew.
    pub damaged: u64,
    /// Beginnings of blocks that were copied.
    pub beginnings: u64,
}

impl Scheduler {
    /// Takes over every next block of a prompt that is known, then the beginning of the one after them. False
    /// when a block is on its way: the sequence then waits.
    pub(super) fn adopt(&mut self, id: SequenceId, bytes: &mut dyn Bytes) -> bool {
        loop {
            let position = self.sequences[&id].stored;
            if let Some(block) = self.find_block(id, position) {
                self.hold_shared(id, block);
                continue;
            }
            match self.find_below(id, position, bytes) {
                Below::Coming => {
                    self.ask_ahead(id, position + BLOCK_TOKENS, bytes);
                    return false;
                }
                Below::Ready if self.restore(id, bytes) => continue,
                Below::Ready | Below::Absent => break,
            }
        }
        self.adopt_beginning(id, bytes);
        true
    }

    /// Holds a known block as the next of a sequence. Its own place for it, if it had one, is given back.
    fn hold_shared(&mut self, id: SequenceId, block: BlockId) {
        self.blocks.hold(block);
        let sequence = self.sequence_mut(id);
        match sequence.spare_block() {
            Some(spare) => self.blocks.release(spare),
            None => self.promised -= 1,
        }
        self.sequence_mut(id).adopt(block, BLOCK_TOKENS);
    }

    /// The block that begins at `position`, if its content is in the pool.
    pub(super) fn find_block(&mut self, id: SequenceId, position: usize) -> Option<BlockId> {
        let (key, tokens) = self.content_at(id, position)?;
        self.contents.find(&key, &tokens)
    }

    fn find_below(&mut self, id: SequenceId, position: usize, bytes: &mut dyn Bytes) -> Below {
        match self.content_at(id, position) {
            Some((key, _)) => bytes.find(&key),
            None => Below::Absent,
        }
    }

    /// Asks for the blocks after one that is on its way, so that they come together.
    fn ask_ahead(&mut self, id: SequenceId, from: usize, bytes: &mut dyn Bytes) {
        for block in 0..AHEAD {
            let position = from + block * BLOCK_TOKENS;
            if self.find_block(id, position).is_none()
                && self.find_below(id, position, bytes) == Below::Absent
            {
                return;
            }
        }
    }

    fn content_at(&mut self, id: SequenceId, position: usize) -> Option<(Key, BlockTokens)> {
        if !position.is_multiple_of(BLOCK_TOKENS) {
            return None;
        }
        let block = position / BLOCK_TOKENS;
        let naming = self.naming.clone();
        let sequence = self.sequence_mut(id);
        if !sequence.shares_until(position + BLOCK_TOKENS) {
            return None;
        }
        Some((sequence.key(&naming, block)?, *sequence.block_tokens(block)?))
    }

    /// Brings the next block of a sequence up from below.
    fn restore(&mut self, id: SequenceId, bytes: &mut dyn Bytes) -> bool {
        let position = self.sequences[&id].stored;
        let Some((key, tokens)) = self.content_at(id, position) else { return false };
        let to = match self.sequence_mut(id).spare_block() {
            Some(block) => block,
            None => self.take(id, bytes),
        };
        if !bytes.restore(&key, &tokens, to) {
            self.shared.damaged += 1;
            self.sequence_mut(id).table.push(to);
            return false;
        }
        self.shared.restored += 1;
        self.sequence_mut(id).adopt(to, BLOCK_TOKENS);
        self.seal(id, position / BLOCK_TOKENS, &mut NoBytes);
        true
    }

    /// Copies the beginning of the known block that shares most of the next tokens.
    fn adopt_beginning(&mut self, id: SequenceId, bytes: &mut dyn Bytes) {
        let Some((from, tokens)) = self.closest(id) else { return };
        // Held meanwhile, so that making room can't take it.
        self.blocks.hold(from);
        let to = match self.sequence_mut(id).spare_block() {
            Some(block) => block,
            None => self.take(id, bytes),
        };
        bytes.copy(from, to, tokens);
        self.blocks.release(from);
        self.sequence_mut(id).adopt(to, tokens);
        self.shared.beginnings += 1;
    }

    fn closest(&mut self, id: SequenceId) -> Option<(BlockId, usize)> {
        let parent = self.parent_of_next(id)?;
        let sequence = &self.sequences[&id];
        let next = &sequence.tokens()[sequence.stored..];
        // The row after the last token runs in any case; whole blocks are found by key; private values are not shared.
        let shareable = sequence.private_from().saturating_sub(sequence.stored);
        let most = next.len().min(BLOCK_TOKENS - 1).min(shareable);
        let closest = self.contents.closest(&parent, &next[..most]);
        closest.filter(|(_, tokens)| *tokens >= WORTH_SHARING.min(most))
    }

    /// The key of the content before the next block, if the sequence stands between two blocks.
    fn parent_of_next(&mut self, id: SequenceId) -> Option<Key> {
        let position = self.sequences[&id].stored;
        position.is_multiple_of(BLOCK_TOKENS).then(|| self.parent_key(id, position / BLOCK_TOKENS))
    }

    /// The key of the content before a block; that of the scope before the first.
    pub(super) fn parent_key(&mut self, id: SequenceId, block: usize) -> Key {
        let naming = self.naming.clone();
        let sequence = self.sequence_mut(id);
        match block.checked_sub(1) {
            Some(before) => sequence.key(&naming, before).expect("blocks before a block are full"),
            None => naming.root(sequence.scope()),
        }
    }

    /// Whether another sequence computes the next block of this one in this step, or a block that begins alike.
    pub(super) fn next_block_is_claimed(&mut self, id: SequenceId, plan: &Plan) -> bool {
        let Some(parent) = self.parent_of_next(id) else { return false };
        let Some(claimed) = plan.claimed.get(&parent) else { return false };
        let sequence = &self.sequences[&id];
        let next = &sequence.tokens()[sequence.stored..];
        if !sequence.shares_until(sequence.stored + BLOCK_TOKENS) {
            return false;
        }
        claimed.iter().any(|tokens| common(tokens, next) >= WORTH_SHARING.min(next.len()))
    }

    /// A block is full: it can be found from now on, unless its content is already known.
    pub(super) fn seal(&mut self, id: SequenceId, block: usize, bytes: &mut dyn Bytes) {
        let sequence = &self.sequences[&id];
        if !sequence.shares_until((block + 1) * BLOCK_TOKENS) {
            return self.blocks.seal(sequence.table[block], None);
        }
        let parent = self.parent_key(id, block);
        let naming = self.naming.clone();
        let sequence = self.sequence_mut(id);
        let key = sequence.key(&naming, block).expect("a full block has 16 known tokens");
        let tokens = *sequence.block_tokens(block).expect("a full block has 16 known tokens");
        let (scope, class, held) = (*sequence.scope(), sequence.class, sequence.table[block]);
        let content = Content::new(parent, scope, class, &tokens, held);
        let is_new = self.contents.insert(key, content.clone());
        self.seal_in_chain(id, block, is_new.then_some(key));
        if let Some(whole) = content.whole(&key, 0).filter(|_| is_new) {
            bytes.sealed(whole);
        }
    }

    fn seal_in_chain(&mut self, id: SequenceId, block: usize, key: Option<Key>) {
        let table = &self.sequences[&id].table;
        let parent = block.checked_sub(1).map(|before| table[before]);
        self.blocks.seal_in_chain(table[block], key, parent, block as u32);
    }

    /// Keeps the partial last block of a sequence that ends or is put aside, so that one that begins alike need
    /// not compute it again.
    pub(super) fn seal_tail(&mut self, id: SequenceId) {
        let sequence = &self.sequences[&id];
        let (block, len) = (sequence.stored / BLOCK_TOKENS, sequence.stored % BLOCK_TOKENS);
        let Some(&held) = sequence.table.get(block).filter(|_| len > 0) else { return };
        if !sequence.shares_until(sequence.stored) {
            return;
        }
        let parent = self.parent_key(id, block);
        let sequence = &self.sequences[&id];
        let tokens = &sequence.tokens()[block * BLOCK_TOKENS..][..len];
        let key = self.naming.tail(&parent, tokens);
        let content = Content::new(parent, *sequence.scope(), sequence.class, tokens, held);
        let is_new = self.contents.insert(key, content);
        self.seal_in_chain(id, block, is_new.then_some(key));
    }
}
