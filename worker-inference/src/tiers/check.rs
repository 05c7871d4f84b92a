//! The checksum of a block: over its bytes and over what they are said to be.
//!
//! BLAKE3, because it is here already, runs at several GB/s on one core, and 128 bits of it leave no room for a
//! damaged block to pass. It is not a signature: who can write the folder can write blocks.

use super::meta::Meta;
use crate::prefix::Key;

/// Bytes of a checksum.
pub(super) const SUM_BYTES: usize = 16;

pub(super) type Sum = [u8; SUM_BYTES];

/// The checksum of a block's bytes under its name. Class and rank are not in it: they may change.
pub(super) fn sum(key: &Key, meta: &Meta, bytes: &[u8]) -> Sum {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"quorate v1 kv block bytes");
    hasher.update(&key.0);
    hasher.update(&meta.parent.map_or([0; 32], |parent| parent.0));
    for token in meta.tokens {
        hasher.update(&token.to_le_bytes());
    }
    hasher.update(&meta.project);
    hasher.update(bytes);
    cut(&hasher)
}

/// The checksum of a header's bytes.
pub(super) fn header_sum(parts: &[&[u8]]) -> Sum {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"quorate v1 kv header");
    for part in parts {
        hasher.update(part);
    }
    cut(&hasher)
}

fn cut(hasher: &blake3::Hasher) -> Sum {
    *hasher.finalize().as_bytes().first_chunk().expect("32 bytes have 16")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_under_another_name_has_another_sum() {
        let meta = Meta { parent: None, tokens: [1; 16], project: [2; 32], class: 0, rank: 0 };
        let base = sum(&Key([1; 32]), &meta, b"bytes");
        let others = [
            sum(&Key([2; 32]), &meta, b"bytes"),
            sum(&Key([1; 32]), &Meta { parent: Some(Key([3; 32])), ..meta }, b"bytes"),
            sum(&Key([1; 32]), &Meta { tokens: [2; 16], ..meta }, b"bytes"),
            sum(&Key([1; 32]), &Meta { project: [3; 32], ..meta }, b"bytes"),
            sum(&Key([1; 32]), &meta, b"bytez"),
        ];
        assert!(!others.contains(&base));
        assert_eq!(base, sum(&Key([1; 32]), &Meta { class: 3, rank: 9, ..meta }, b"bytes"));
    }
}
