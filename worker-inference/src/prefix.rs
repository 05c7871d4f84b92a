//! Names of block contents, and the index that finds them: the only place where a block key is derived.
//!
//! key = BLAKE3(numerics id, scope salt, parent key, 16 token ids). Equal keys mean equal KV bits: the same
//! model, kernels and KV type, the same scope (nobody outside it can hit), the same tokens from the start.

use std::collections::BTreeMap;

use types::Hash;

use crate::blocks::{BLOCK_TOKENS, BlockId};

/// The name of a block's content and of everything before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(pub [u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", Hash(self.0).short())
    }
}

/// Who may share: blocks are found only by sequences with the same salt.
pub type Scope = [u8; 32];

/// The tokens of one full block.
pub type BlockTokens = [u32; BLOCK_TOKENS];

/// Derives keys for one engine.
#[derive(Debug, Clone)]
pub struct Naming {
    numerics: Hash,
}

impl Naming {
    pub fn new(numerics: Hash) -> Naming {
        Naming { numerics }
    }

    /// The key of a block after `parent` (None at the start of a sequence).
    pub fn key(&self, scope: &Scope, parent: Option<&Key>, tokens: &BlockTokens) -> Key {
        let mut hasher = blake3::Hasher::new_derive_key("quorate v1 kv block");
        hasher.update(&self.numerics.0);
        hasher.update(scope);
        hasher.update(&parent.map_or([0; 32], |parent| parent.0));
        for token in tokens {
            hasher.update(&token.to_le_bytes());
        }
        Key(*hasher.finalize().as_bytes())
    }
}

#[derive(Debug, Clone)]
struct Entry {
    block: BlockId,
    tokens: BlockTokens,
}

/// Which block holds which content.
#[derive(Debug, Clone, Default)]
pub struct PrefixIndex {
    entries: BTreeMap<Key, Entry>,
}

impl PrefixIndex {
    /// The block with this content. The token ids are compared, so that even a colliding key can't mix
    /// up two prefixes.
    pub fn find(&self, key: &Key, tokens: &BlockTokens) -> Option<BlockId> {
        self.entries.get(key).filter(|entry| entry.tokens == *tokens).map(|entry| entry.block)
    }

    /// Remembers a sealed block. False when the content is already known under another block: then that one
    /// stays, and the new block must not be keyed.
    pub fn insert(&mut self, key: Key, tokens: BlockTokens, block: BlockId) -> bool {
        match self.entries.entry(key) {
            std::collections::btree_map::Entry::Occupied(_) => false,
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(Entry { block, tokens });
                true
            }
        }
    }

    /// Forgets a content, because its block was evicted.
    pub fn remove(&mut self, key: &Key) {
        self.entries.remove(key);
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_matters_is_in_the_key() {
        let naming = Naming::new(Hash([1; 32]));
        let tokens: BlockTokens = std::array::from_fn(|index| index as u32);
        let base = naming.key(&[2; 32], None, &tokens);
        let mut other = tokens;
        other[15] += 1;
        let keys = [
            base,
            naming.key(&[3; 32], None, &tokens),
            naming.key(&[2; 32], Some(&base), &tokens),
            naming.key(&[2; 32], None, &other),
            Naming::new(Hash([4; 32])).key(&[2; 32], None, &tokens),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{index}");
        }
        assert_eq!(base, naming.key(&[2; 32], None, &tokens));
    }

    #[test]
    fn a_key_with_other_tokens_is_no_hit() {
        let mut index = PrefixIndex::default();
        let key = Key([9; 32]);
        assert!(index.insert(key, [1; 16], BlockId(3)));
        assert!(!index.insert(key, [1; 16], BlockId(4)));
        assert_eq!(index.find(&key, &[1; 16]), Some(BlockId(3)));
        assert_eq!(index.find(&key, &[2; 16]), None);
        index.remove(&key);
        assert!(index.is_empty());
    }
}
