//! Attention over paged keys and values.
//!
//! A query row sees the tokens of its sequence's table that are present (mask bit set) and stand at or before its
//! own position, less than a window behind it where the layer has one. The key axis is cut at absolute multiples of 256 tokens. For one query and one cut:
//!
//! ```text
//! s[t] = (sum over even d of q[d] * k[t][d] + sum over odd d) * scale     each by fused multiply-add, d ascending
//! max  = the largest s of the visible tokens
//! p[t] = exp(s[t] - max)
//! sum  = the p by 16 lanes (lane = t % 16), blocks ascending, then the fixed tree
//! acc  = fma(p[t], v[t], acc) over visible tokens ascending
//! ```
//!
//! Cuts are merged ascending by their maxima. Nothing in this depends on how many rows are computed together, on
//! who computes them or where the blocks lie, so a prompt in chunks, a batch and a single decode agree in every
//! bit. A token left out is never read: what lies in its place cannot matter.

mod scalar;
mod vector;

use crate::cpu::Cpu;
use crate::kv::{BLOCK_TOKENS, BlockRef, CUT_TOKENS, HEAD_DIM_MAX, KvPool};
use crate::pool::Shards;
use crate::simd::{Operation, Sixteen};
use std::ops::Range;

/// Blocks of a cut.
const CUT_BLOCKS: usize = CUT_TOKENS / BLOCK_TOKENS;

/// Rows of a sequence that are given out together.
const ROWS_A_TASK: usize = 4;

/// Query and key values whose product takes as long as one number of the operations between matrix products.
const PRODUCTS_A_NUMBER: usize = 8;

/// Some rows of a batch that read one table.
#[derive(Debug, Clone)]
pub struct Sequence<'a> {
    /// Entry `i` covers absolute positions `16i..16i + 16`.
    pub blocks: &'a [BlockRef],
    /// Its rows in the batch.
    pub rows: Range<usize>,
}

impl Cpu {
    /// Attention of one layer for a whole batch. `q` and `out` have a row of `heads * head_dim` values for each of
    /// `positions`; `heads` is a multiple of the KV heads, and query head `h` reads KV head
    /// `h / (heads / kv_heads)`. Scores are multiplied by `scale`. A row at position `p` sees the tokens at `t <= p`,
    /// with a `window` only those with `p - t < window`. Rows in no sequence are left as they are; a row that sees
    /// no token becomes zero.
    ///
    /// # Panics
    /// If shapes do not fit, the window is 0, a present block is not in the pool, rows of two sequences overlap or are not
    /// ascending, or a row stands past the end of its table.
    #[allow(clippy::too_many_arguments)]
    pub fn attention(
        &self,
        pool: &KvPool,
        layer: usize,
        sequences: &[Sequence<'_>],
        positions: &[u32],
        scale: f32,
        window: Option<usize>,
        q: &[f32],
        out: &mut [f32],
    ) {
        let layout = pool.layout();
        let window = window.unwrap_or(usize::MAX);
        assert!(window > 0, "a window of 0 tokens");
        assert!(layer < layout.layers, "layer {layer} of {}", layout.layers);
        assert_eq!(q.len(), out.len(), "one output a query value");
        check(pool, sequences, positions);
        let head_rows = positions.len() * layout.kv_heads * layout.head_dim;
        if head_rows == 0 {
            return;
        }
        let group = q.len() / head_rows;
        assert!(group > 0 && q.len() == group * head_rows, "query heads are no multiple of the KV heads");
        let total: u64 =
            sequences.iter().map(|sequence| rows_cost(sequence.rows.clone(), positions, window)).sum();
        let out = Shards::new(out);
        let numbers = usize::try_from(total).unwrap_or(usize::MAX).saturating_mul(group * layout.head_dim)
            / PRODUCTS_A_NUMBER;
        self.on_threads(numbers, &|thread, threads| {
            let mut done = 0;
            for sequence in sequences {
                for kv_head in 0..layout.kv_heads {
                    for start in sequence.rows.clone().step_by(ROWS_A_TASK) {
                        let rows = start..sequence.rows.end.min(start + ROWS_A_TASK);
                        // A task belongs to the thread in whose share of the cost it begins.
                        let mine = done * threads as u64 / (total * layout.kv_heads as u64) == thread as u64;
                        done += rows_cost(rows.clone(), positions, window);
                        if mine {
                            let blocks = sequence.blocks;
                            self.perform(Attend {
                                pool,
                                layer,
                                kv_head,
                                group,
                                blocks,
                                positions,
                                rows,
                                scale,
                                window,
                                q,
                                out: &out,
                            });
                        }
                    }
                }
            }
        });
    }
}

fn check(pool: &KvPool, sequences: &[Sequence<'_>], positions: &[u32]) {
    let mut end = 0;
    for sequence in sequences {
        let rows = &sequence.rows;
        assert!(end <= rows.start && rows.start <= rows.end, "rows {rows:?} after row {end}");
        end = rows.end;
        assert!(end <= positions.len(), "rows {rows:?} of {}", positions.len());
        for position in &positions[rows.clone()] {
            let tokens = sequence.blocks.len() * BLOCK_TOKENS;
            assert!((*position as usize) < tokens, "position {position} in a table of {tokens} tokens");
        }
        for entry in sequence.blocks.iter().filter(|entry| entry.mask != 0) {
            assert!((entry.block as usize) < pool.blocks(), "block {} of {}", entry.block, pool.blocks());
        }
    }
}

/// Tokens that the rows may see.
fn rows_cost(rows: Range<usize>, positions: &[u32], window: usize) -> u64 {
    positions[rows].iter().map(|&position| (u64::from(position) + 1).min(window as u64)).sum()
}

/// Some rows of one sequence and the query heads of one KV head. Nobody else writes these outputs.
struct Attend<'a> {
    pool: &'a KvPool,
    layer: usize,
    kv_head: usize,
    group: usize,
    blocks: &'a [BlockRef],
    positions: &'a [u32],
    rows: Range<usize>,
    scale: f32,
    /// At least 1; `usize::MAX` where the layer has none.
    window: usize,
    q: &'a [f32],
    out: &'a Shards<'a, f32>,
}

impl Attend<'_> {
    fn head_dim(&self) -> usize {
        self.pool.layout().head_dim
    }

    /// One query for each row and each query head of the group.
    fn queries(&self) -> usize {
        self.rows.len() * self.group
    }

    fn position(&self, query: usize) -> usize {
        self.positions[self.rows.start + query / self.group] as usize
    }

    /// Where the values of a query lie in `q` and in `out`.
    fn place(&self, query: usize) -> Range<usize> {
        let heads = self.group * self.pool.layout().kv_heads;
        let row = self.rows.start + query / self.group;
        let head = self.kv_head * self.group + query % self.group;
        let start = (row * heads + head) * self.head_dim();
        start..start + self.head_dim()
    }

    /// The first token that the window of a query at `position` leaves in sight.
    #[inline(always)]
    fn horizon(&self, position: usize) -> usize {
        (position + 1).saturating_sub(self.window)
    }

    /// The tokens of block `index` that a query at `position` sees.
    #[inline(always)]
    fn visible(&self, index: usize, position: usize) -> u16 {
        let first = index * BLOCK_TOKENS;
        if position < first {
            return 0;
        }
        let before = match position - first {
            past @ 0..BLOCK_TOKENS => (2u32 << past) - 1,
            _ => 0xffff,
        };
        let after = match self.horizon(position).saturating_sub(first) {
            hidden @ 0..BLOCK_TOKENS => 0xffffu32 << hidden,
            _ => 0,
        };
        self.blocks[index].mask & before as u16 & after as u16
    }

    /// The keys of the block after `index`, if there is one to be read.
    #[inline(always)]
    fn next_keys(&self, index: usize) -> Option<&[u16]> {
        let next = self.blocks.get(index + 1).filter(|next| next.mask != 0)?;
        Some(self.pool.head(self.layer, next.block, self.kv_head).0)
    }

    #[inline(always)]
    fn write(&self, query: usize, acc: &[f32], sum: f32) {
        // SAFETY: this row and head belong to this operation alone, and the slice dies here.
        let out = unsafe { self.out.slice(self.place(query)) };
        if sum == 0.0 {
            return out.fill(0.0);
        }
        let inverse = 1.0 / sum;
        for (out, acc) in out.iter_mut().zip(acc) {
            *out = acc * inverse;
        }
    }
}

/// What a query has gathered from the cuts so far, or from one cut.
#[derive(Clone, Copy)]
struct Gathered {
    max: f32,
    sum: f32,
    acc: [f32; HEAD_DIM_MAX],
}

impl Gathered {
    const NOTHING: Gathered = Gathered { max: f32::NEG_INFINITY, sum: 0.0, acc: [0.0; HEAD_DIM_MAX] };
}

impl Operation for Attend<'_> {
    type Output = ();

    fn scalar(self) {
        (0..self.queries()).for_each(|query| scalar::query(&self, query));
    }

    #[inline(always)]
    fn vector<S: Sixteen>(self) {
        vector::queries::<S>(&self);
    }
}

#[cfg(test)]
mod tests;
