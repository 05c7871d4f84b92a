//! Keys and values of past tokens, in blocks of 16 tokens, as half floats.
//!
//! The pool is one flat piece of memory; block `b` lies in it as a whole, all layers of it, so that it can be
//! copied, moved or sent by itself. Inside a block, for each layer and each KV head:
//!
//! - keys, turned: `head_dim` x 16 tokens, so that one vector holds one dimension of 16 tokens;
//! - values: 16 tokens x `head_dim`.

use crate::cpu::Cpu;
use crate::half;
use crate::memory::{Piece, numbers, numbers_mut};
use crate::simd::{Operation, Sixteen};

/// Tokens of a block.
pub const BLOCK_TOKENS: usize = 16;

/// Attention is summed over stretches of this many tokens, at absolute multiples, then merged.
pub const CUT_TOKENS: usize = 256;

/// Longest head; the scratch of attention lies on the stack.
pub const HEAD_DIM_MAX: usize = 256;

/// What one token leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvLayout {
    pub layers: usize,
    pub kv_heads: usize,
    /// Values of a head: a multiple of 16, at most [`HEAD_DIM_MAX`].
    pub head_dim: usize,
}

impl KvLayout {
    /// Bytes of a block of 16 tokens.
    pub fn block_bytes(&self) -> usize {
        self.block_halves() * 2
    }

    fn block_halves(&self) -> usize {
        self.layers * self.kv_heads * self.head_halves()
    }

    /// Half floats of the keys and values of one layer and one head of a block.
    fn head_halves(&self) -> usize {
        2 * BLOCK_TOKENS * self.head_dim
    }

    /// Where those begin.
    fn head_start(&self, layer: usize, block: u32, kv_head: usize) -> usize {
        block as usize * self.block_halves() + (layer * self.kv_heads + kv_head) * self.head_halves()
    }
}

/// A place in the pool for one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub block: u32,
    /// Which of the 16 tokens: the position modulo 16.
    pub slot: u8,
}

impl Place {
    /// Stores nothing: for a row that is computed for its logits alone, because its keys and values already lie
    /// in a block that others share.
    pub const NOWHERE: Place = Place { block: u32::MAX, slot: 0 };
}

/// One entry of a sequence's table: entry `i` covers the absolute positions `16i..16i + 16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRef {
    pub block: u32,
    /// Bit `t` set: token `t` of the block is there to be read. With no bit set, `block` means nothing.
    pub mask: u16,
}

/// All blocks of an engine.
pub struct KvPool {
    layout: KvLayout,
    blocks: usize,
    piece: Piece,
}

impl KvPool {
    /// A pool of zeroed blocks, not yet touched; `advise` is called once with its bytes, to ask for huge pages.
    ///
    /// # Panics
    /// If the layout has no layers or heads, or a head length that is not a multiple of 16 up to
    /// [`HEAD_DIM_MAX`], or the bytes are more than can be counted.
    pub fn new(layout: KvLayout, blocks: usize, advise: impl FnOnce(&[u8])) -> KvPool {
        assert!(layout.layers > 0 && layout.kv_heads > 0, "{layout:?} holds nothing");
        assert!(
            layout.head_dim > 0 && layout.head_dim.is_multiple_of(16) && layout.head_dim <= HEAD_DIM_MAX,
            "heads of {} values: attention takes multiples of 16 up to {HEAD_DIM_MAX}",
            layout.head_dim
        );
        assert!(blocks < u32::MAX as usize, "{blocks} blocks cannot be numbered");
        let bytes = layout.block_bytes().checked_mul(blocks).expect("the pool's bytes can be counted");
        KvPool { layout, blocks, piece: Piece::new(bytes, advise) }
    }

    pub fn layout(&self) -> KvLayout {
        self.layout
    }

    /// Blocks in the pool.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Bytes of the whole pool.
    pub fn bytes(&self) -> usize {
        self.piece.bytes().len()
    }

    /// All of a block, to be copied out.
    pub fn block(&self, block: u32) -> &[u8] {
        let len = self.layout.block_bytes();
        &self.piece.bytes()[block as usize * len..][..len]
    }

    /// All of a block, to be copied in.
    pub fn block_mut(&mut self, block: u32) -> &mut [u8] {
        let len = self.layout.block_bytes();
        &mut self.piece.bytes_mut()[block as usize * len..][..len]
    }

    /// Copies the first `tokens` tokens of a block to another: what a fork does with a partial tail.
    ///
    /// # Panics
    /// If the blocks are the same or not in the pool, or there are more than 16 tokens.
    pub fn copy_tokens(&mut self, from: u32, to: u32, tokens: usize) {
        assert!(from != to, "block {from} copied onto itself");
        assert!(tokens <= BLOCK_TOKENS, "{tokens} tokens of a block of {BLOCK_TOKENS}");
        assert!((from.max(to) as usize) < self.blocks, "blocks {from} and {to} of {}", self.blocks);
        let layout = self.layout;
        let halves = self.halves_mut();
        for head in 0..layout.layers * layout.kv_heads {
            let (from, to) = (layout.head_start(0, from, head), layout.head_start(0, to, head));
            for row in 0..layout.head_dim {
                let row = row * BLOCK_TOKENS;
                halves.copy_within(from + row..from + row + tokens, to + row);
            }
            let keys = layout.head_dim * BLOCK_TOKENS;
            halves.copy_within(from + keys..from + keys + tokens * layout.head_dim, to + keys);
        }
    }

    /// The keys and the values of one head of a block, in the layout of this module.
    #[inline(always)]
    pub(crate) fn head(&self, layer: usize, block: u32, kv_head: usize) -> (&[u16], &[u16]) {
        let len = self.layout.head_halves();
        let start = self.layout.head_start(layer, block, kv_head);
        numbers::<u16>(self.piece.bytes())[start..start + len].split_at(len / 2)
    }

    fn halves_mut(&mut self) -> &mut [u16] {
        numbers_mut(self.piece.bytes_mut())
    }
}

impl Cpu {
    /// Stores the keys and values of some tokens: row `i` of `k` and of `v` goes to `places[i]`, or is dropped
    /// where that is [`Place::NOWHERE`].
    ///
    /// # Panics
    /// If the shapes do not fit or a place does not exist.
    pub fn store_kv(&self, pool: &mut KvPool, layer: usize, places: &[Place], k: &[f32], v: &[f32]) {
        let layout = pool.layout;
        let row_len = layout.kv_heads * layout.head_dim;
        assert!(layer < layout.layers, "layer {layer} of {}", layout.layers);
        assert_eq!(k.len(), places.len() * row_len, "keys of {} rows", places.len());
        assert_eq!(v.len(), places.len() * row_len, "values of {} rows", places.len());
        for place in places.iter().filter(|place| **place != Place::NOWHERE) {
            assert!((place.block as usize) < pool.blocks, "block {} of {}", place.block, pool.blocks);
            assert!((place.slot as usize) < BLOCK_TOKENS, "slot {} of a block", place.slot);
        }
        self.perform(Store { layout, halves: pool.halves_mut(), layer, places, k, v });
    }
}

struct Store<'a> {
    layout: KvLayout,
    halves: &'a mut [u16],
    layer: usize,
    places: &'a [Place],
    k: &'a [f32],
    v: &'a [f32],
}

impl Store<'_> {
    /// Stores one head of one token: keys down a column, values along a row.
    #[inline(always)]
    fn head(&mut self, place: Place, kv_head: usize, keys: &[u16], values: &[u16]) {
        let start = self.layout.head_start(self.layer, place.block, kv_head);
        let dim = self.layout.head_dim;
        let slot = place.slot as usize;
        let (columns, rows) = self.halves[start..][..2 * BLOCK_TOKENS * dim].split_at_mut(BLOCK_TOKENS * dim);
        for (column, key) in columns.chunks_exact_mut(BLOCK_TOKENS).zip(keys) {
            column[slot] = *key;
        }
        rows[slot * dim..][..dim].copy_from_slice(values);
    }

    /// Stores every head of every row, with `narrow` to turn floats into half floats.
    #[inline(always)]
    fn all(mut self, narrow: impl Fn(&[f32], &mut [u16])) {
        let dim = self.layout.head_dim;
        let (mut keys, mut values) = ([0u16; HEAD_DIM_MAX], [0u16; HEAD_DIM_MAX]);
        for (row, &place) in self.places.iter().enumerate() {
            if place == Place::NOWHERE {
                continue;
            }
            for kv_head in 0..self.layout.kv_heads {
                let at = (row * self.layout.kv_heads + kv_head) * dim;
                narrow(&self.k[at..][..dim], &mut keys[..dim]);
                narrow(&self.v[at..][..dim], &mut values[..dim]);
                self.head(place, kv_head, &keys[..dim], &values[..dim]);
            }
        }
    }
}

impl Operation for Store<'_> {
    type Output = ();

    fn scalar(self) {
        self.all(|from, to| {
            for (to, from) in to.iter_mut().zip(from) {
                *to = half::from_f32(*from);
            }
        });
    }

    #[inline(always)]
    fn vector<S: Sixteen>(self) {
        self.all(
            #[inline(always)]
            |from, to| {
                for (to, from) in to.as_chunks_mut::<16>().0.iter_mut().zip(from.as_chunks::<16>().0) {
                    // SAFETY: 16 numbers each.
                    unsafe { S::store_half(to.as_mut_ptr(), S::load(from.as_ptr())) };
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    const LAYOUT: KvLayout = KvLayout { layers: 2, kv_heads: 3, head_dim: 32 };

    fn rows(count: usize, seed: usize) -> Vec<f32> {
        (0..count * 96).map(|i| ((i * 31 + seed) % 977) as f32 / 13.7 - 30.0).collect()
    }

    fn filled(isa: Isa) -> KvPool {
        let mut pool = KvPool::new(LAYOUT, 3, |_| ());
        let cpu = Cpu::new(isa, 1, |_| ());
        let places: Vec<Place> = (0..16).map(|slot| Place { block: 1, slot }).collect();
        for layer in 0..2 {
            let (mut k, mut v) = (rows(16, layer), rows(16, layer + 50));
            (k[0], k[1], v[0], v[1]) = (f32::NAN, 1e30, 6e-8, -65520.0);
            cpu.store_kv(&mut pool, layer, &places, &k, &v);
        }
        pool
    }

    #[test]
    fn stored_halves_are_the_same_everywhere() {
        let expected = filled(Isa::Scalar);
        for isa in Isa::available() {
            assert_eq!(filled(isa).block(1), expected.block(1), "{isa}");
        }
        assert!(expected.block(0).iter().chain(expected.block(2)).all(|&byte| byte == 0));
    }

    #[test]
    fn a_row_for_nowhere_is_dropped() {
        for isa in Isa::available() {
            let (expected, mut pool) = (filled(isa), filled(isa));
            let cpu = Cpu::new(isa, 1, |_| ());
            cpu.store_kv(&mut pool, 1, &[Place::NOWHERE; 2], &rows(2, 9), &rows(2, 9));
            assert!((0..3).all(|block| pool.block(block) == expected.block(block)), "{isa}");
        }
    }

    #[test]
    fn keys_are_turned_and_values_are_not() {
        let pool = filled(Isa::Scalar);
        let (k, v) = (rows(16, 1), rows(16, 51));
        let (keys, values) = pool.head(1, 1, 2);
        for token in 1..16 {
            for d in 0..32 {
                assert_eq!(keys[d * 16 + token], half::from_f32(k[token * 96 + 64 + d]));
                assert_eq!(values[token * 32 + d], half::from_f32(v[token * 96 + 64 + d]));
            }
        }
    }

    #[test]
    fn a_copy_takes_the_first_tokens_only() {
        for tokens in 0..=16 {
            let mut pool = filled(Isa::Scalar);
            pool.copy_tokens(1, 2, tokens);
            for layer in 0..2 {
                for head in 0..3 {
                    let (from, to) = (pool.head(layer, 1, head), pool.head(layer, 2, head));
                    for place in 0..512 {
                        let key = if place % 16 < tokens { from.0[place] } else { 0 };
                        let value = if place / 32 < tokens { from.1[place] } else { 0 };
                        assert_eq!((to.0[place], to.1[place]), (key, value));
                    }
                }
            }
        }
    }

    #[test]
    fn a_block_can_be_moved() {
        let mut pool = filled(Isa::Scalar);
        let bytes = pool.block(1).to_vec();
        assert_eq!(bytes.len(), LAYOUT.block_bytes());
        pool.block_mut(0).copy_from_slice(&bytes);
        assert_eq!(pool.block(0), pool.block(1));
    }
}
