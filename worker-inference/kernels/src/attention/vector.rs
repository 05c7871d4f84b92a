//! The same attention with vectors, up to [`TILE`] queries at a time, so that each key and value is read and
//! widened once for all query heads of its KV head, for neighbouring rows of a prompt, and for sequences that share
//! their blocks.
//!
//! In scores a lane is a token, in outputs a lane is a dimension: no lanes are summed but those of the powers.

// Loops over small constant ranges index several arrays at once and unroll into registers.
#![allow(clippy::needless_range_loop)]

use super::gathered::merge_lanes;
use super::{Attend, CUT_BLOCKS, Item, Part, TILE, Workspace};
use crate::kv::{BLOCK_TOKENS, BlockRef, CUT_TOKENS, HEAD_DIM_MAX};
use crate::math::exp_lanes;
use crate::simd::{Sixteen, Vector, load16, store16};
use std::ops::Range;

#[inline(always)]
pub(super) fn parts<S: Sixteen>(attend: &Attend<'_>, parts: &[Part], work: &mut Workspace) {
    for (index, part) in parts.iter().enumerate() {
        begin(attend, part, work);
        let items = attend.plan.items(part);
        for (cut, item) in items.iter().enumerate() {
            let mut runs = item.runs().peekable();
            while let Some(rows) = runs.next() {
                // What will be read after this run.
                let next = match (runs.peek(), items.get(cut + 1), parts.get(index + 1)) {
                    (Some(next), _, _) => keys_of(attend, part, item, next),
                    (None, Some(next), _) => first_keys(attend, part, next),
                    (None, None, Some(next)) => first_keys(attend, next, &attend.plan.items(next)[0]),
                    (None, None, None) => [std::ptr::null(); CUT_BLOCKS],
                };
                run::<S>(attend, part, item, rows, &next, work);
            }
            gather::<S>(attend, part, item, cut, work);
        }
        finish(attend, part, work);
    }
}

/// Puts the queries of a part side by side.
#[inline(always)]
fn begin(attend: &Attend<'_>, part: &Part, work: &mut Workspace) {
    for query in 0..part.queries() {
        let from = &attend.q[attend.place(part, query)];
        work.q[query][..from.len()].copy_from_slice(from);
        work.total[query].clear();
    }
}

/// Adds a cut to what the queries have, or keeps it for later.
#[inline(always)]
fn gather<S: Sixteen>(attend: &Attend<'_>, part: &Part, item: &Item, cut: usize, work: &mut Workspace) {
    for query in 0..part.queries() {
        let found = &mut work.part[query];
        if !item.is_active(query / part.heads.len()) {
            found.clear();
        }
        match part.slots_of(query) {
            Some(slots) => attend.slots.write(slots.start + part.first_cut() + cut, found),
            None => merge_lanes::<S>(&mut work.total[query], found, attend.head_dim()),
        }
    }
}

#[inline(always)]
fn finish(attend: &Attend<'_>, part: &Part, work: &Workspace) {
    if part.slots_of(0).is_none() {
        (0..part.queries()).for_each(|query| attend.write(part, query, &work.total[query]));
    }
}

/// The blocks of a cut that a run of rows reads: those of the row that reaches furthest.
#[inline(always)]
fn entries<'a>(attend: &'a Attend<'_>, part: &Part, item: &Item, rows: &Range<usize>) -> &'a [BlockRef] {
    let rows = &attend.plan.rows(part)[rows.clone()];
    let furthest = rows.iter().max_by_key(|row| row.position).unwrap_or(&rows[0]);
    let entries = attend.entries(furthest.sequence, item.cut);
    &entries[..entries.len().min(furthest.position / BLOCK_TOKENS + 1 - item.cut * CUT_BLOCKS)]
}

/// Where the keys of a run lie, for prefetching: null where nothing is read.
#[inline(always)]
fn keys_of(attend: &Attend<'_>, part: &Part, item: &Item, rows: &Range<usize>) -> [*const u16; CUT_BLOCKS] {
    let mut keys = [std::ptr::null(); CUT_BLOCKS];
    for (keys, entry) in keys.iter_mut().zip(entries(attend, part, item, rows)) {
        if entry.mask != 0 {
            *keys = attend.head(entry.block, part).0.as_ptr();
        }
    }
    keys
}

#[inline(always)]
fn first_keys(attend: &Attend<'_>, part: &Part, item: &Item) -> [*const u16; CUT_BLOCKS] {
    let first = item.runs().next();
    first.map_or([std::ptr::null(); CUT_BLOCKS], |rows| keys_of(attend, part, item, &rows))
}

/// One cut as the rows of a run see it.
struct Sight<'a> {
    /// Keys and values of each block that somebody sees; of others, those of some other block.
    keys: [&'a [u16]; CUT_BLOCKS],
    values: [&'a [u16]; CUT_BLOCKS],
    /// What each row of the unit sees.
    rows: [[u16; CUT_BLOCKS]; TILE],
    /// What any row sees, and what all rows see.
    seen: [u16; CUT_BLOCKS],
    common: [u16; CUT_BLOCKS],
    /// All rows see all tokens of all blocks.
    whole: bool,
    dim: usize,
}

#[inline(always)]
fn run<S: Sixteen>(
    attend: &Attend<'_>,
    part: &Part,
    item: &Item,
    rows: Range<usize>,
    next: &[*const u16; CUT_BLOCKS],
    work: &mut Workspace,
) {
    let heads = part.heads.len();
    let mut sight = Sight {
        keys: [&[]; CUT_BLOCKS],
        values: [&[]; CUT_BLOCKS],
        rows: [[0; CUT_BLOCKS]; TILE],
        seen: [0; CUT_BLOCKS],
        common: [u16::MAX; CUT_BLOCKS],
        whole: false,
        dim: attend.head_dim(),
    };
    for row in rows.clone() {
        let masks = attend.sight(&attend.plan.rows(part)[row], item.cut);
        sight.rows[row] = masks;
        for block in 0..CUT_BLOCKS {
            sight.seen[block] |= masks[block];
            sight.common[block] &= masks[block];
        }
    }
    sight.whole = sight.common == [u16::MAX; CUT_BLOCKS];
    for (block, entry) in entries(attend, part, item, &rows).iter().enumerate() {
        if sight.seen[block] != 0 {
            (sight.keys[block], sight.values[block]) = attend.head(entry.block, part);
        }
    }
    let (mut query, end) = (rows.start * heads, rows.end * heads);
    while query < end {
        // Only the first tile of a run asks for what comes next.
        let next = if query == rows.start * heads { next } else { &[std::ptr::null(); CUT_BLOCKS] };
        let mut tile = Tile { sight: &sight, scale: attend.scale, heads, query, next, work };
        let wide = <S::Native as Vector>::LANES == 16;
        query += match end - query {
            12.. if wide => tile.all::<S, 12>(),
            8 if wide => tile.all::<S, 8>(),
            6.. => tile.all::<S, 6>(),
            4 => tile.all::<S, 4>(),
            3 | 5 => tile.all::<S, 3>(),
            2 => tile.all::<S, 2>(),
            _ => tile.all::<S, 1>(),
        };
    }
}

/// Some queries of a run.
struct Tile<'a, 'b> {
    sight: &'a Sight<'a>,
    scale: f32,
    heads: usize,
    /// The first query.
    query: usize,
    /// Keys to be asked for, or null.
    next: &'a [*const u16; CUT_BLOCKS],
    work: &'b mut Workspace,
}

impl Tile<'_, '_> {
    /// Fills in what `Q` queries find in the cut. Returns `Q`.
    #[inline(always)]
    fn all<S: Sixteen, const Q: usize>(&mut self) -> usize {
        assert!(
            self.query + Q <= TILE && self.sight.dim <= HEAD_DIM_MAX && self.sight.dim.is_multiple_of(16)
        );
        self.scores::<S::Native, Q>();
        for query in self.query..self.query + Q {
            let masks = &self.sight.rows[query / self.heads];
            let scores = &mut self.work.scores[query];
            let part = &mut self.work.part[query];
            (part.max, part.sum) = match self.sight.whole {
                true => powers::<S, true>(scores, masks),
                false => powers::<S, false>(scores, masks),
            };
            part.acc[..self.sight.dim].fill(0.0);
        }
        self.values::<S::Native, Q>();
        Q
    }

    /// The scores of every block that is seen, some vectors of tokens at a time so that a number of a query is
    /// read once for all of them.
    #[inline(always)]
    fn scores<V: Vector, const Q: usize>(&mut self) {
        let dim = self.sight.dim;
        let mut columns = [Column { keys: std::ptr::null(), values: std::ptr::null(), token: 0 }; 32];
        let mut count = 0;
        for block in (0..CUT_BLOCKS).filter(|&block| self.sight.seen[block] != 0) {
            let (keys, values) = (self.sight.keys[block], self.sight.values[block]);
            assert!(keys.len() == dim * BLOCK_TOKENS && values.len() == dim * BLOCK_TOKENS);
            for lane in (0..BLOCK_TOKENS).step_by(V::LANES) {
                let keys = keys[lane..].as_ptr();
                columns[count] = Column { keys, values: values.as_ptr(), token: block * BLOCK_TOKENS + lane };
                count += 1;
            }
        }
        let columns = &columns[..count];
        // SAFETY: the columns are those of blocks of `dim` dimensions, checked above.
        unsafe {
            match (V::LANES, Q) {
                (16, 8..) => self.columns::<V, Q, 2>(columns),
                (16, 3..) => self.columns::<V, Q, 4>(columns),
                (16, _) => self.columns::<V, Q, 8>(columns),
                (_, 4..) => self.columns::<V, Q, 2>(columns),
                (_, _) => self.columns::<V, Q, 4>(columns),
            }
        }
    }

    /// # Safety
    /// Each column points at the keys of `dim` dimensions, 16 apart.
    #[inline(always)]
    unsafe fn columns<V: Vector, const Q: usize, const T: usize>(&mut self, columns: &[Column]) {
        let (chunks, rest) = columns.as_chunks::<T>();
        for chunk in chunks {
            // SAFETY: the caller's promise.
            unsafe { self.chunk::<V, Q, T>(chunk) };
        }
        for column in rest {
            // SAFETY: the caller's promise.
            unsafe { self.chunk::<V, Q, 1>(&[*column]) };
        }
    }

    /// # Safety
    /// As for [`Tile::columns`].
    #[inline(always)]
    unsafe fn chunk<V: Vector, const Q: usize, const T: usize>(&mut self, columns: &[Column; T]) {
        let scale = V::splat(self.scale);
        // SAFETY: the caller's promise.
        let even = unsafe { self.dots::<V, Q, T, 0>(columns) };
        for q in 0..Q {
            for t in 0..T {
                // SAFETY: `LANES` tokens from `token` on are inside the cut.
                unsafe { V::store(self.scores_at(q, columns[t].token), even[q][t]) };
            }
        }
        // SAFETY: the caller's promise.
        let odd = unsafe { self.dots::<V, Q, T, 1>(columns) };
        for q in 0..Q {
            for t in 0..T {
                let to = self.scores_at(q, columns[t].token);
                // SAFETY: as above.
                unsafe { V::store(to, V::mul(V::add(V::load(to), odd[q][t]), scale)) };
            }
        }
    }

    #[inline(always)]
    fn scores_at(&mut self, q: usize, token: usize) -> *mut f32 {
        debug_assert!(token < CUT_TOKENS);
        self.work.scores[self.query + q].as_mut_ptr().wrapping_add(token)
    }

    /// Products of the even or of the odd dimensions, summed ascending.
    ///
    /// # Safety
    /// As for [`Tile::columns`].
    #[inline(always)]
    unsafe fn dots<V: Vector, const Q: usize, const T: usize, const ODD: usize>(
        &self,
        columns: &[Column; T],
    ) -> [[V::F; T]; Q] {
        let q = self.work.q.as_flattened()[self.query * HEAD_DIM_MAX..].as_ptr();
        let mut sums = [[V::splat(0.0); T]; Q];
        for d in (ODD..self.sight.dim).step_by(2) {
            let mut keys = [V::splat(0.0); T];
            for t in 0..T {
                if ODD == 0 {
                    // The values that these scores will meet, a line for every two dimensions of keys.
                    V::prefetch(columns[t].values.wrapping_add(d * BLOCK_TOKENS).cast());
                }
                // SAFETY: dimension `d` of a column.
                keys[t] = unsafe { V::load_half(columns[t].keys.add(d * BLOCK_TOKENS)) };
            }
            for i in 0..Q {
                // SAFETY: queries up to `query + Q <= TILE`, `HEAD_DIM_MAX` apart; `d < dim <= HEAD_DIM_MAX`.
                let q = V::splat(unsafe { *q.add(i * HEAD_DIM_MAX + d) });
                for t in 0..T {
                    sums[i][t] = V::fma(keys[t], q, sums[i][t]);
                }
            }
        }
        sums
    }

    /// Adds the values weighted by the powers. Tokens that all queries see are added for all of them at once; in
    /// the few blocks where they part, the others follow query by query. A query must never touch a token that
    /// it does not see: zero times infinity is not zero.
    #[inline(always)]
    fn values<V: Vector, const Q: usize>(&mut self) {
        let mut begin = 0;
        for block in 0..CUT_BLOCKS {
            let (seen, common) = (self.sight.seen[block], self.sight.common[block]);
            if seen == common {
                continue;
            }
            // All together only up to where they part, and only if nobody sees an earlier token.
            let upto = u16::MAX.checked_shr(common.leading_zeros()).unwrap_or(0);
            let together = if seen & upto == common { common } else { 0 };
            self.blocks::<V, Q>(0, begin..block, u16::MAX);
            self.blocks::<V, Q>(0, block..block + 1, together);
            for q in 0..Q {
                let mask = self.sight.rows[(self.query + q) / self.heads][block] & !together;
                self.blocks::<V, 1>(q, block..block + 1, mask);
            }
            begin = block + 1;
        }
        self.blocks::<V, Q>(0, begin..CUT_BLOCKS, u16::MAX);
    }

    /// Adds, for queries `first..first + Q` of the tile, those seen tokens of some blocks that are in `mask`. Some
    /// dimensions at a time, so that the sums stay in registers.
    #[inline(always)]
    fn blocks<V: Vector, const Q: usize>(&mut self, first: usize, blocks: Range<usize>, mask: u16) {
        let mut d = 0;
        if blocks.is_empty() || mask == 0 {
            return;
        }
        while d < self.sight.dim {
            let vectors = (self.sight.dim - d) / V::LANES;
            let many = if V::LANES == 16 && Q <= 6 || Q <= 3 { 4 } else { 2 };
            d += V::LANES
                * if many == 4 && vectors >= 4 {
                    self.dimensions::<V, Q, 4>(first, blocks.clone(), mask, d)
                } else if vectors >= 2 {
                    self.dimensions::<V, Q, 2>(first, blocks.clone(), mask, d)
                } else {
                    self.dimensions::<V, Q, 1>(first, blocks.clone(), mask, d)
                };
        }
    }

    /// `D` vectors of dimensions from `d` on. Returns `D`.
    #[inline(always)]
    fn dimensions<V: Vector, const Q: usize, const D: usize>(
        &mut self,
        first: usize,
        blocks: Range<usize>,
        mask: u16,
        d: usize,
    ) -> usize {
        let dim = self.sight.dim;
        let query = self.query + first;
        assert!(d + D * V::LANES <= dim && query + Q <= TILE && blocks.end <= CUT_BLOCKS);
        let powers = self.work.scores.as_flattened()[query * CUT_TOKENS..].as_ptr();
        let mut acc = [[V::splat(0.0); D]; Q];
        for q in 0..Q {
            for i in 0..D {
                let from = &self.work.part[query + q].acc[d + i * V::LANES..][..V::LANES];
                // SAFETY: `LANES` numbers.
                acc[q][i] = unsafe { V::load(from.as_ptr()) };
            }
        }
        for block in blocks {
            let mut left = self.sight.seen[block] & mask;
            if left == 0 {
                continue;
            }
            let values = self.sight.values[block];
            assert_eq!(values.len(), dim * BLOCK_TOKENS);
            let next = self.next[block];
            while left != 0 {
                let token = left.trailing_zeros() as usize;
                left &= left - 1;
                if d == 0 && !next.is_null() {
                    for line in 0..dim / 32 {
                        V::prefetch(next.wrapping_add(token * dim + line * 32).cast());
                    }
                }
                let mut value = [V::splat(0.0); D];
                for i in 0..D {
                    // SAFETY: token below 16, dimensions below `dim`, by the checks above.
                    value[i] = unsafe { V::load_half(values.as_ptr().add(token * dim + d + i * V::LANES)) };
                }
                for q in 0..Q {
                    // SAFETY: queries up to `query + Q <= TILE`, `CUT_TOKENS` apart.
                    let power =
                        V::splat(unsafe { *powers.add(q * CUT_TOKENS + block * BLOCK_TOKENS + token) });
                    for i in 0..D {
                        acc[q][i] = V::fma(power, value[i], acc[q][i]);
                    }
                }
            }
        }
        for q in 0..Q {
            for i in 0..D {
                let to = &mut self.work.part[query + q].acc[d + i * V::LANES..][..V::LANES];
                // SAFETY: `LANES` places.
                unsafe { V::store(to.as_mut_ptr(), acc[q][i]) };
            }
        }
        D
    }
}

/// Some tokens of a block.
#[derive(Clone, Copy)]
struct Column {
    keys: *const u16,
    values: *const u16,
    /// The first token, counted from the beginning of the cut.
    token: usize,
}

/// Turns the scores of one query into powers. Returns their maximum and sum. With `WHOLE` all tokens are seen.
#[inline(always)]
fn powers<S: Sixteen, const WHOLE: bool>(
    scores: &mut [f32; CUT_TOKENS],
    masks: &[u16; CUT_BLOCKS],
) -> (f32, f32) {
    let least = S::splat(f32::NEG_INFINITY);
    let scores = scores.as_chunks_mut::<BLOCK_TOKENS>().0;
    let mut max = least;
    for block in 0..CUT_BLOCKS {
        let score = load16::<S>(&scores[block]);
        max = S::max(if WHOLE { score } else { S::select(masks[block], score, least) }, max);
    }
    let max = S::largest(max);
    let mut sum = S::splat(0.0);
    for block in 0..CUT_BLOCKS {
        if !WHOLE && masks[block] == 0 {
            continue;
        }
        let mut power = exp_lanes::<S>(S::sub(load16::<S>(&scores[block]), S::splat(max)));
        if !WHOLE {
            power = S::select(masks[block], power, S::splat(0.0));
        }
        sum = S::add(sum, power);
        store16::<S>(&mut scores[block], power);
    }
    (max, S::sum(sum))
}
