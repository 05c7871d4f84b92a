//! Moves the bytes of blocks, as the scheduler asks.

use kernels::KvPool;

use crate::blocks::BlockId;
use crate::prefix::{BlockTokens, Key};
use crate::scheduler::{Below, Bytes, Leaving};

/// The pool and what lies below it.
pub(super) struct Lower<'a> {
    pub(super) kv: &'a mut KvPool,
}

impl Bytes for Lower<'_> {
    fn find(&mut self, _key: &Key) -> Below {
        Below::Absent
    }

    fn restore(&mut self, _key: &Key, _tokens: &BlockTokens, _to: BlockId) -> bool {
        false
    }

    fn demote(&mut self, _leaving: Leaving<'_>) {}

    fn copy(&mut self, from: BlockId, to: BlockId, tokens: usize) {
        self.kv.copy_tokens(from.0, to.0, tokens);
    }
}
