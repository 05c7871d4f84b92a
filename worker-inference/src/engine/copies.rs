//! Blocks that go to another engine of the same numerics, so that a chain can go on there without being computed again.
//!
//! A chain is named by its tokens, and both sides derive the keys: what arrives is found only by who runs the same
//! tokens in the same scope.

use super::Engine;
use crate::prefix::{Key, Scope};
use crate::tiers::{Demoted, Meta, Where};

impl Engine {
    /// Whole blocks from the start of a chain that are here without a gap, in whatever tier.
    pub fn held(&self, scope: &Scope, tokens: &[u32]) -> usize {
        let chain = self.scheduler.chain(scope, tokens);
        chain.iter().take_while(|(key, _)| self.has(key)).count()
    }

    /// The bytes of a chain's whole blocks from number `from` on, at most `most` of them: as far as they are in memory.
    pub fn copy_out(&self, scope: &Scope, tokens: &[u32], from: usize, most: usize) -> Vec<Vec<u8>> {
        let chain = self.scheduler.chain(scope, tokens);
        chain.iter().skip(from).take(most).map_while(|(key, _)| self.block_bytes(key)).collect()
    }

    /// Takes a chain's whole blocks from number `from` on into the host tier. Answers how many it has of them now: fewer
    /// where there is no room, no host tier, or a block of another length.
    pub fn copy_in(
        &mut self,
        scope: &Scope,
        class: u8,
        tokens: &[u32],
        from: usize,
        blocks: &[Vec<u8>],
    ) -> usize {
        let chain = self.scheduler.chain(scope, tokens);
        let root = self.scheduler.root(scope);
        let mut parents = std::iter::once(root).chain(chain.iter().map(|(key, _)| *key)).skip(from);
        let wanted = chain.iter().skip(from).zip(blocks);
        let taken = wanted.take_while(|((key, tokens), bytes)| {
            let parent = parents.next();
            let meta = Meta { parent, tokens: *tokens, project: *scope, class, rank: COPIED };
            self.take_in(key, meta, bytes)
        });
        taken.count()
    }

    fn take_in(&mut self, key: &Key, meta: Meta, bytes: &[u8]) -> bool {
        if self.has(key) {
            return true;
        }
        let Some(below) = self.below.as_mut().filter(|it| it.tiers.config().block_bytes == bytes.len())
        else {
            return false;
        };
        matches!(below.tiers.demote(*key, meta, bytes), Demoted::Host | Demoted::Disk | Demoted::Known)
    }

    fn has(&self, key: &Key) -> bool {
        let below = || self.below.as_ref().is_some_and(|it| it.tiers.find(key) != Where::Absent);
        self.scheduler.block_of(key).is_some() || below()
    }

    fn block_bytes(&self, key: &Key) -> Option<Vec<u8>> {
        match self.scheduler.block_of(key) {
            Some(block) => Some(self.kv.block(block.0).to_vec()),
            None => self.below.as_ref()?.tiers.held(key).map(<[u8]>::to_vec),
        }
    }
}

/// What a copied block is worth beside others, as the bits of a chance: somebody asks for it when its node is lost, which
/// is seldom. So it goes before what was used here.
const COPIED: u64 = 0;
