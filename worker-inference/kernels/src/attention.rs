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

mod gathered;
mod mass;
mod plan;
mod scalar;
mod vector;
mod weight;

use crate::cpu::Cpu;
use crate::kv::{BLOCK_TOKENS, BlockRef, CUT_TOKENS, HEAD_DIM_MAX, KvPool};
use crate::pool::Shards;
use crate::simd::{Operation, Sixteen};
use gathered::{Gathered, Slots};
use plan::{Item, Part, Plan, Row, Shape};
use std::ops::Range;
pub use weight::{Weight, join_seen};

/// Blocks of a cut.
const CUT_BLOCKS: usize = CUT_TOKENS / BLOCK_TOKENS;

/// Queries that are computed together, so that a key or value is read and widened once for all of them.
const TILE: usize = 12;

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

/// What attention keeps from call to call, so that it need not be allocated again.
#[derive(Default)]
pub(crate) struct Scratch {
    plan: Plan,
    workspaces: Vec<Workspace>,
    slots: Vec<f32>,
}

impl Cpu {
    /// Attention of one layer for a whole batch. `q` and `out` have a row of `heads * head_dim` values for each of
    /// `positions`; `heads` is a multiple of the KV heads, and query head `h` reads KV head
    /// `h / (heads / kv_heads)`. Scores are multiplied by `scale`. A row at position `p` sees the tokens at `t <= p`,
    /// with a `window` only those with `p - t < window`. Rows in no sequence are left as they are; a row that sees
    /// no token becomes zero.
    ///
    /// Sequences whose tables begin with the same entries (blocks and masks) read those blocks together, in
    /// whatever order they come.
    ///
    /// # Panics
    /// If shapes do not fit, the window is 0, a present block is not in the pool, rows of two sequences overlap or
    /// are not ascending, or a row stands past the end of its table.
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
        self.attention_and_weights(pool, layer, sequences, positions, scale, window, q, out, &mut []);
    }

    /// [`Cpu::attention`] that also tells, for each row and query head, with what weight its output speaks, so that it can be
    /// joined with the output of another call ([`join_seen`]). `weights` is empty or has one for each; those of rows in no
    /// sequence are left as they are.
    #[allow(clippy::too_many_arguments)]
    pub fn attention_and_weights(
        &self,
        pool: &KvPool,
        layer: usize,
        sequences: &[Sequence<'_>],
        positions: &[u32],
        scale: f32,
        window: Option<usize>,
        q: &[f32],
        out: &mut [f32],
        weights: &mut [Weight],
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
        let has_weights = !weights.is_empty();
        assert!(!has_weights || weights.len() * layout.head_dim == out.len(), "one weight a row and head");
        let seen: u64 = positions.iter().map(|&position| (u64::from(position) + 1).min(window as u64)).sum();
        let numbers = usize::try_from(seen).unwrap_or(usize::MAX).saturating_mul(group * layout.head_dim)
            / PRODUCTS_A_NUMBER;
        let threads = self.threads_for(numbers);
        let mut scratch = self.attention_scratch();
        let Scratch { plan, workspaces, slots } = &mut *scratch;
        plan.fill(Shape { kv_heads: layout.kv_heads, group, window, threads }, sequences, positions);
        workspaces.resize_with(workspaces.len().max(threads), Workspace::default);
        slots.resize(plan.slots() * Slots::floats(layout.head_dim), 0.0);
        let (workspaces, slots) = (Shards::new(workspaces), Shards::new(slots));
        let slots = Slots { floats: &slots, head_dim: layout.head_dim };
        let (out, weights) = (&Shards::new(out), &Shards::new(weights));
        let weights = has_weights.then_some(weights);
        let attend = Attend { pool, layer, sequences, plan, slots, window, scale, q, out, weights, group };
        self.run(threads, &|thread| {
            // SAFETY: each thread is run once and has a workspace of its own.
            let workspace = unsafe { &mut workspaces.slice(thread..thread + 1)[0] };
            self.perform(Share { attend: &attend, parts: plan.parts_of(thread), workspace });
        });
        if plan.slots() > 0 {
            // SAFETY: the threads are done.
            let workspace = unsafe { &mut workspaces.slice(0..1)[0] };
            self.perform(Finish { attend: &attend, workspace });
        }
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

/// One call of attention, as all threads see it.
struct Attend<'a> {
    pool: &'a KvPool,
    layer: usize,
    sequences: &'a [Sequence<'a>],
    plan: &'a Plan,
    slots: Slots<'a>,
    /// At least 1; `usize::MAX` where the layer has none.
    window: usize,
    scale: f32,
    q: &'a [f32],
    out: &'a Shards<'a, f32>,
    weights: Option<&'a Shards<'a, Weight>>,
    group: usize,
}

impl Attend<'_> {
    fn head_dim(&self) -> usize {
        self.pool.layout().head_dim
    }

    /// The blocks of a cut that a sequence has.
    #[inline(always)]
    fn entries(&self, sequence: usize, cut: usize) -> &[BlockRef] {
        let blocks = self.sequences[sequence].blocks;
        let start = (cut * CUT_BLOCKS).min(blocks.len());
        &blocks[start..blocks.len().min(start + CUT_BLOCKS)]
    }

    #[inline(always)]
    fn head(&self, block: u32, part: &Part) -> (&[u16], &[u16]) {
        self.pool.head(self.layer, block, part.kv_head)
    }

    /// Where the values of a query of a part lie in `q` and in `out`.
    fn place(&self, part: &Part, query: usize) -> Range<usize> {
        let row = self.plan.rows(part)[query / part.heads.len()].row;
        let heads = self.group * self.pool.layout().kv_heads;
        let head = part.heads.start + query % part.heads.len();
        let start = (row * heads + head) * self.head_dim();
        start..start + self.head_dim()
    }

    /// The tokens of each block of a cut that a row sees.
    #[inline(always)]
    fn sight(&self, row: &Row, cut: usize) -> [u16; CUT_BLOCKS] {
        let mut masks = [0; CUT_BLOCKS];
        let entries = self.entries(row.sequence, cut);
        let begin = cut * CUT_TOKENS;
        let (from, to) =
            (row.horizon(self.window).saturating_sub(begin), (row.position + 1).saturating_sub(begin));
        for (block, (mask, entry)) in masks.iter_mut().zip(entries).enumerate() {
            let (from, to) = (in_block(from, block), in_block(to, block));
            *mask = entry.mask & ((1u32 << to) - (1u32 << from.min(to))) as u16;
        }
        masks
    }

    #[inline(always)]
    fn write(&self, part: &Part, query: usize, total: &Gathered) {
        let place = self.place(part, query);
        if let Some(weights) = self.weights {
            let index = place.start / self.head_dim();
            // SAFETY: one thread writes this row and head, and the slice dies here.
            unsafe { weights.slice(index..index + 1)[0] = Weight { max: total.max, sum: total.sum } };
        }
        // SAFETY: one thread writes this row and head, and the slice dies here.
        let out = unsafe { self.out.slice(place) };
        if total.sum == 0.0 {
            return out.fill(0.0);
        }
        let inverse = 1.0 / total.sum;
        for (out, acc) in out.iter_mut().zip(&total.acc) {
            *out = acc * inverse;
        }
    }
}

/// How many of a block's tokens lie before `token` of its cut.
#[inline(always)]
fn in_block(token: usize, block: usize) -> usize {
    token.saturating_sub(block * BLOCK_TOKENS).min(BLOCK_TOKENS)
}

/// The working memory of a thread.
#[repr(C, align(64))]
struct Workspace {
    q: [[f32; HEAD_DIM_MAX]; TILE],
    /// Scores of a cut, then powers; meaningful where visible.
    scores: [[f32; CUT_TOKENS]; TILE],
    part: [Gathered; TILE],
    total: [Gathered; TILE],
}

impl Default for Workspace {
    fn default() -> Workspace {
        Workspace {
            q: [[0.0; HEAD_DIM_MAX]; TILE],
            scores: [[0.0; CUT_TOKENS]; TILE],
            part: [Gathered::NOTHING; TILE],
            total: [Gathered::NOTHING; TILE],
        }
    }
}

/// What one thread does of a call.
struct Share<'a> {
    attend: &'a Attend<'a>,
    parts: &'a [Part],
    workspace: &'a mut Workspace,
}

impl Operation for Share<'_> {
    type Output = ();

    fn scalar(self) {
        self.parts.iter().for_each(|part| scalar::part(self.attend, part));
    }

    #[inline(always)]
    fn vector<S: Sixteen>(self) {
        vector::parts::<S>(self.attend, self.parts, self.workspace);
    }
}

/// Merges the cuts of the units that were split among threads.
struct Finish<'a> {
    attend: &'a Attend<'a>,
    workspace: &'a mut Workspace,
}

impl Finish<'_> {
    #[inline(always)]
    fn merge(self, merge: impl Fn(&mut Gathered, &Gathered, usize)) {
        let [total, read] = &mut self.workspace.total[..2] else { unreachable!("a tile has two queries") };
        for part in self.attend.plan.split() {
            for query in 0..part.queries() {
                total.clear();
                for slot in part.slots_of(query).into_iter().flatten() {
                    self.attend.slots.read(slot, read);
                    merge(total, read, self.attend.head_dim());
                }
                self.attend.write(part, query, total);
            }
        }
    }
}

impl Operation for Finish<'_> {
    type Output = ();

    fn scalar(self) {
        self.merge(gathered::merge);
    }

    #[inline(always)]
    fn vector<S: Sixteen>(self) {
        self.merge(
            #[inline(always)]
            |total, part, dim| gathered::merge_lanes::<S>(total, part, dim),
        );
    }
}

#[cfg(test)]
mod tests;
