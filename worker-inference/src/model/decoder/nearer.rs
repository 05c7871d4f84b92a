//! Rows that see some tokens from nearer than they stand: what a context is without a part of it, over keys and values that
//! stay where they are.

use kernels::{Cpu, KvPool, RopeTable, Weight, join_seen};

/// What rows see from nearer than they stand: as if the tokens between were not there. Each looks once more, at other
/// tokens than its table among [`super::Rows::sequences`] shows it, and both are joined.
#[derive(Clone, Copy)]
pub struct Nearer<'a> {
    /// The row of the batch that each of these looks for; a row may look more than once.
    pub rows: &'a [usize],
    /// The last of these tokens that it may see.
    pub positions: &'a [u32],
    /// Where it stands for these tokens.
    pub stands: &'a [u32],
    /// Which of these reads which table.
    pub sequences: &'a [kernels::Sequence<'a>],
}

/// Grown when rows look from nearer, which few do.
#[derive(Default)]
pub(super) struct NearerBuffers {
    q: Vec<f32>,
    mixed: Vec<f32>,
    weights: Vec<Weight>,
    own_weights: Vec<Weight>,
}

/// Whose keys and values are looked at, and how.
pub(super) struct Seen<'a> {
    pub kv: &'a KvPool,
    pub layer: usize,
    pub scale: f32,
    pub sliding: Option<usize>,
    pub heads: usize,
}

impl NearerBuffers {
    /// Turns the queries of rows that look from nearer to where they stand for it. `q` is not turned yet.
    pub(super) fn turn(&mut self, cpu: &Cpu, rope: &RopeTable, nearer: &Nearer<'_>, q: &[f32], width: usize) {
        self.q.clear();
        nearer.rows.iter().for_each(|row| self.q.extend_from_slice(&q[row * width..(row + 1) * width]));
        cpu.rope(rope, &mut self.q, nearer.stands);
    }

    /// A place for the weights of all rows and heads of the batch, if somebody needs them.
    pub(super) fn own_weights(&mut self, nearer: &Nearer<'_>, count: usize) -> &mut [Weight] {
        self.own_weights.clear();
        self.own_weights.resize(if nearer.rows.is_empty() { 0 } else { count }, Weight::NOTHING);
        &mut self.own_weights
    }

    /// Looks, and joins what is seen with what the rows have seen: `mixed` has a row of values for each row of the batch.
    pub(super) fn join(&mut self, cpu: &Cpu, nearer: &Nearer<'_>, seen: &Seen<'_>, mixed: &mut [f32]) {
        if nearer.rows.is_empty() {
            return;
        }
        let NearerBuffers { q, mixed: found, weights, own_weights } = self;
        let (width, heads) = (q.len() / nearer.rows.len(), seen.heads);
        found.resize(q.len(), 0.0);
        weights.clear();
        weights.resize(nearer.rows.len() * heads, Weight::NOTHING);
        let (sequences, positions) = (nearer.sequences, nearer.positions);
        let Seen { kv, layer, scale, sliding, .. } = *seen;
        cpu.attention_and_weights(kv, layer, sequences, positions, scale, sliding, q, found, weights);
        for ((row, found), weights) in
            nearer.rows.iter().zip(found.chunks_exact(width)).zip(weights.chunks_exact(heads))
        {
            let own = &mut own_weights[row * heads..(row + 1) * heads];
            join_seen(&mut mixed[row * width..(row + 1) * width], own, found, weights);
        }
    }
}
