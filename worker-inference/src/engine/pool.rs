//! The engine's pool of keys and values, which copies blocks as late as it can: a fork asks for a copy in the midst of
//! somebody else's answer, and it is early enough before the next bytes are written.

use std::ops::{Deref, DerefMut};

use kernels::KvPool;

use crate::blocks::BlockId;

/// A pool, and the copies that were asked for and are not made yet, in the order in which they were asked for.
///
/// Until a copy is made its source stays as it is, because nothing is written without making all copies first; and
/// its target is a block that is being filled, which nobody reads but the next batch. So it does not matter who
/// ends meanwhile, or to whom a block goes: the last copy into it is the one that was asked for last.
pub(super) struct Pool {
    kv: KvPool,
    copies: Vec<Copy>,
}

struct Copy {
    from: BlockId,
    to: BlockId,
    tokens: usize,
}

impl Pool {
    pub(super) fn new(kv: KvPool) -> Pool {
        Pool { kv, copies: Vec::new() }
    }

    /// Copies the first `tokens` tokens of a block, before anything is written.
    pub(super) fn copy_later(&mut self, from: BlockId, to: BlockId, tokens: usize) {
        self.copies.push(Copy { from, to, tokens });
    }
}

impl Deref for Pool {
    type Target = KvPool;

    fn deref(&self) -> &KvPool {
        &self.kv
    }
}

/// To write: all copies are made first.
impl DerefMut for Pool {
    fn deref_mut(&mut self) -> &mut KvPool {
        for Copy { from, to, tokens } in self.copies.drain(..) {
            self.kv.copy_tokens(from.0, to.0, tokens);
        }
        &mut self.kv
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::KvLayout;

    /// A pool of blocks that are full of their own number.
    fn pool(blocks: usize) -> Pool {
        let mut pool =
            Pool::new(KvPool::new(KvLayout { layers: 2, kv_heads: 1, head_dim: 16 }, blocks, |_| ()));
        (0..blocks).for_each(|block| pool.block_mut(block as u32).fill(block as u8));
        pool
    }

    fn all(pool: &Pool, block: u32) -> Option<u8> {
        let bytes = pool.block(block);
        bytes.iter().all(|byte| *byte == bytes[0]).then_some(bytes[0])
    }

    #[test]
    fn a_copy_is_made_before_its_source_is_written() {
        let mut pool = pool(3);
        pool.copy_later(BlockId(1), BlockId(2), 16);
        assert_eq!(all(&pool, 2), Some(2), "not at once");
        pool.block_mut(1).fill(9);
        assert_eq!((all(&pool, 1), all(&pool, 2)), (Some(9), Some(1)));
    }

    #[test]
    fn copies_of_copies_and_into_freed_sources_come_out_as_asked_for() {
        let mut pool = pool(5);
        pool.copy_later(BlockId(1), BlockId(2), 16);
        pool.copy_later(BlockId(2), BlockId(3), 16);
        // The owner of block 1 has ended, and another fork got it.
        pool.copy_later(BlockId(4), BlockId(1), 16);
        pool.block_mut(0).fill(0);
        assert_eq!([1, 2, 3].map(|block| all(&pool, block)), [Some(4), Some(1), Some(1)]);
    }

    #[test]
    fn only_the_tokens_asked_for_are_copied() {
        let mut pool = pool(2);
        pool.copy_later(BlockId(1), BlockId(0), 5);
        let ones = pool.block_mut(0).iter().filter(|byte| **byte == 1).count();
        assert_eq!(ones * 16, pool.block(0).len() * 5);
    }
}
