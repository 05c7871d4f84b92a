//! How the attention of a row is spread over stretches of its context.
//!
//! For one row and one query head, with the scores `s[t]` of the visible tokens as in [`super`]:
//!
//! ```text
//! max      = the largest s
//! p[t]     = exp(s[t] - max)
//! sum      = the p by 16 lanes (lane = t % 16), blocks ascending, then the fixed tree
//! share(S) = (sum over visible t in S, ascending, of p[t]) / sum      in f64
//! ```
//!
//! A row's heads are added ascending. Attention itself merges cut by cut and keeps no powers; here they are computed
//! again, for the few rows and layers that somebody asks about.

use super::{Sequence, check, in_block};
use crate::cpu::Cpu;
use crate::half;
use crate::kv::{BLOCK_TOKENS, BlockRef, KvPool};
use crate::math;
use crate::pool::{Shards, share};
use crate::simd::{Operation, Sixteen, load16, store16};
use std::ops::Range;

impl Cpu {
    /// Adds to `mass` what each row of `sequence` gives to each of `segments` (positions), in one layer, summed over
    /// its query heads: `mass` has a value for each row and segment, segments together. All else is as for
    /// [`Cpu::attention`]; the shares of everything that a row sees add up to the number of its heads.
    ///
    /// # Panics
    /// As [`Cpu::attention`], or if `mass` has another length or a segment ends past the table.
    #[allow(clippy::too_many_arguments)]
    pub fn attention_mass(
        &self,
        pool: &KvPool,
        layer: usize,
        sequence: &Sequence<'_>,
        positions: &[u32],
        scale: f32,
        window: Option<usize>,
        q: &[f32],
        segments: &[Range<usize>],
        mass: &mut [f64],
    ) {
        let layout = pool.layout();
        check(pool, std::slice::from_ref(sequence), positions);
        assert!(layer < layout.layers, "layer {layer} of {}", layout.layers);
        assert_eq!(mass.len(), sequence.rows.len() * segments.len(), "a value a row and segment");
        let tokens = sequence.blocks.len() * BLOCK_TOKENS;
        assert!(segments.iter().all(|segment| segment.end <= tokens), "segments within {tokens} tokens");
        if mass.is_empty() {
            return;
        }
        let window = window.unwrap_or(usize::MAX);
        let width = q.len() / positions.len();
        let mass = Shards::new(mass);
        self.on_threads(sequence.rows.len() * width * tokens, &|thread, threads| {
            let mut powers = vec![[0.0; BLOCK_TOKENS]; sequence.blocks.len()];
            for index in share(sequence.rows.len(), thread, threads) {
                let row = sequence.rows.start + index;
                let masks = masks(sequence.blocks, positions[row] as usize, window);
                // SAFETY: the shares of two threads have no row in common, and the slice dies in this round.
                let mass = unsafe { mass.slice(index * segments.len()..(index + 1) * segments.len()) };
                let heads = q[row * width..(row + 1) * width].chunks_exact(layout.head_dim);
                let group = heads.len() / layout.kv_heads;
                for (head, q) in heads.enumerate() {
                    let kv_head = head / group;
                    let (blocks, masks) = (sequence.blocks, &masks[..]);
                    let weigh = Weigh { pool, layer, kv_head, blocks, masks, scale, q, powers: &mut powers };
                    let sum = f64::from(self.perform(weigh));
                    for (mass, segment) in mass.iter_mut().zip(segments) {
                        *mass += of_segment(&powers, masks, segment) / sum;
                    }
                }
            }
        });
    }
}

/// The tokens of each block that a row sees.
fn masks(blocks: &[BlockRef], position: usize, window: usize) -> Vec<u16> {
    let horizon = (position + 1).saturating_sub(window);
    let seen = |(block, entry): (usize, &BlockRef)| {
        let (from, to) = (in_block(horizon, block), in_block(position + 1, block));
        entry.mask & ((1u32 << to) - (1u32 << from)) as u16
    };
    blocks.iter().enumerate().map(seen).collect()
}

/// The powers of a segment's visible tokens.
fn of_segment(powers: &[[f32; BLOCK_TOKENS]], masks: &[u16], segment: &Range<usize>) -> f64 {
    let seen = segment.clone().filter(|token| masks[token / BLOCK_TOKENS] >> (token % BLOCK_TOKENS) & 1 == 1);
    seen.map(|token| f64::from(powers[token / BLOCK_TOKENS][token % BLOCK_TOKENS])).sum()
}

/// The powers of one query and their sum. Powers of blocks that it does not see at all are left as they are.
struct Weigh<'a> {
    pool: &'a KvPool,
    layer: usize,
    kv_head: usize,
    blocks: &'a [BlockRef],
    masks: &'a [u16],
    scale: f32,
    q: &'a [f32],
    powers: &'a mut [[f32; BLOCK_TOKENS]],
}

impl Weigh<'_> {
    #[inline(always)]
    fn keys(&self, block: usize) -> &[u16] {
        self.pool.head(self.layer, self.blocks[block].block, self.kv_head).0
    }

    fn score(&self, block: usize, token: usize) -> f32 {
        let keys = self.keys(block);
        let mut sums = [0.0f32; 2];
        for (d, q) in self.q.iter().enumerate() {
            sums[d % 2] = half::to_f32(keys[d * BLOCK_TOKENS + token]).mul_add(*q, sums[d % 2]);
        }
        (sums[0] + sums[1]) * self.scale
    }
}

impl Operation for Weigh<'_> {
    type Output = f32;

    fn scalar(self) -> f32 {
        let masks = self.masks;
        let tokens = || {
            let all = (0..masks.len()).flat_map(|block| (0..BLOCK_TOKENS).map(move |token| (block, token)));
            all.filter(|&(block, token)| masks[block] >> token & 1 == 1)
        };
        let mut max = f32::NEG_INFINITY;
        for (block, token) in tokens() {
            let score = self.score(block, token);
            self.powers[block][token] = score;
            max = math::max(score, max);
        }
        let mut lanes = [0.0f32; BLOCK_TOKENS];
        for (block, token) in tokens() {
            let power = &mut self.powers[block][token];
            *power = math::exp(*power - max);
            lanes[token] += *power;
        }
        math::sum_of_lanes(lanes)
    }

    #[inline(always)]
    fn vector<S: Sixteen>(self) -> f32 {
        let least = S::splat(f32::NEG_INFINITY);
        let mut max = least;
        for block in 0..self.masks.len() {
            if self.masks[block] == 0 {
                continue;
            }
            let mut sums = [S::splat(0.0); 2];
            for (d, (keys, q)) in
                self.keys(block).as_chunks::<BLOCK_TOKENS>().0.iter().zip(self.q).enumerate()
            {
                // SAFETY: 16 half floats.
                let keys = unsafe { S::load_half(keys.as_ptr()) };
                sums[d % 2] = S::fma(keys, S::splat(*q), sums[d % 2]);
            }
            let score = S::mul(S::add(sums[0], sums[1]), S::splat(self.scale));
            store16::<S>(&mut self.powers[block], score);
            max = S::max(S::select(self.masks[block], score, least), max);
        }
        let max = S::splat(S::largest(max));
        let mut sum = S::splat(0.0);
        for block in 0..self.masks.len() {
            if self.masks[block] == 0 {
                continue;
            }
            let power = exp_of::<S>(&self.powers[block], max, self.masks[block]);
            sum = S::add(sum, power);
            store16::<S>(&mut self.powers[block], power);
        }
        S::sum(sum)
    }
}

/// The powers of a block, zero where nothing is seen.
#[inline(always)]
fn exp_of<S: Sixteen>(scores: &[f32; BLOCK_TOKENS], max: S::F, mask: u16) -> S::F {
    S::select(mask, math::exp_lanes::<S>(S::sub(load16::<S>(scores), max)), S::splat(0.0))
}
