//! Names of block contents: the only place where a block key is derived.
//!
//! key = BLAKE3(numerics id, scope salt, parent key, 16 token ids). Equal keys mean equal KV bits: the same
//! model, kernels and KV type, the same scope (nobody outside it can hit), the same tokens from the start.

use types::Hash;

use crate::blocks::BLOCK_TOKENS;

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

    /// Stands for the content before the first block of a scope's sequences.
    pub fn root(&self, scope: &Scope) -> Key {
        let mut hasher = blake3::Hasher::new_derive_key("quorate v1 kv root");
        hasher.update(&self.numerics.0);
        hasher.update(scope);
        Key(*hasher.finalize().as_bytes())
    }

    /// The key of fewer than 16 tokens after `parent`.
    pub fn tail(&self, parent: &Key, tokens: &[u32]) -> Key {
        let mut hasher = blake3::Hasher::new_derive_key("quorate v1 kv tail");
        hasher.update(&parent.0);
        for token in tokens {
            hasher.update(&token.to_le_bytes());
        }
        Key(*hasher.finalize().as_bytes())
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
}
