//! Which tokens a trace has shown before, to the token.

use std::collections::BTreeMap;

use crate::blocks::BLOCK_TOKENS;
use crate::prefix::{Key, Naming, Scope};

/// Everything that was ever the beginning of a chain.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// What came after each content: whole blocks and tails.
    next: BTreeMap<Key, Vec<Box<[u32]>>>,
    blocks: usize,
}

impl Seen {
    /// How many of the first tokens were seen before; all are seen from now on.
    pub(super) fn show(&mut self, naming: &Naming, scope: &Scope, tokens: &[u32]) -> usize {
        let mut parent = naming.root(scope);
        let (mut known, mut is_known, mut before) = (0, true, None);
        for part in tokens.chunks(BLOCK_TOKENS) {
            let shared = self.show_part(parent, part);
            known += if is_known { shared } else { 0 };
            is_known &= shared == BLOCK_TOKENS;
            let Ok(block) = part.try_into() else { break };
            parent = naming.key(scope, before.as_ref(), block);
            before = Some(parent);
        }
        known
    }

    /// Different whole blocks shown so far.
    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    fn show_part(&mut self, parent: Key, part: &[u32]) -> usize {
        let next = self.next.entry(parent).or_default();
        let shared = next.iter().map(|known| common(known, part)).max().unwrap_or(0);
        if shared < part.len() {
            next.push(part.into());
            self.blocks += usize::from(part.len() == BLOCK_TOKENS);
        }
        shared
    }
}

fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
