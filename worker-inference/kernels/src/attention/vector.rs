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

/// Vectors of tokens in a cut: 8 lanes are the fewest.
const COLUMNS_MAX: usize = CUT_TOKENS / 8;

/// One cut as the rows of a run see it.
struct Sight<'a> {
    /// Keys and values of each block that somebody sees; of others, those of some other block.
    keys: [&'a [u16]; CUT_BLOCKS],
    values: [&'a [u16]; CUT_BLOCKS],
    /// What each row of the unit sees.
    rows: [[u16; CUT_BLOCKS]; TILE],
    /// What any row sees.
    seen: [u16; CUT_BLOCKS],
    /// What all rows see, and no row sees a token in between.
    together: [u16; CUT_BLOCKS],
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
        together: [u16::MAX; CUT_BLOCKS],
        whole: false,
        dim: attend.head_dim(),
    };
    for row in rows.clone() {
        let masks = attend.sight(&attend.plan.rows(part)[row], item.cut);
        sight.rows[row] = masks;
        for block in 0..CUT_BLOCKS {
            sight.seen[block] |= masks[block];
            sight.together[block] &= masks[block];
        }
    }
    sight.part_ways();
    for (block, entry) in entries(attend, part, item, &rows).iter().enumerate() {
        if sight.seen[block] != 0 {
            (sight.keys[block], sight.values[block]) = attend.head(entry.block, part);
        }
    }
    let queries = rows.start * heads..rows.end * heads;
    tiles::<S::Native>(
        Tile { sight: &sight, scale: attend.scale, heads, first: 0, next, work },
        &queries,
        true,
    );
    for query in queries.clone() {
        let (scores, masks) = (&mut work.scores[query], &sight.rows[query / heads]);
        let part = &mut work.part[query];
        (part.max, part.sum) =
            if sight.whole { powers::<S, true>(scores, masks) } else { powers::<S, false>(scores, masks) };
        part.acc[..sight.dim].fill(0.0);
    }
    tiles::<S::Native>(
        Tile { sight: &sight, scale: attend.scale, heads, first: 0, next, work },
        &queries,
        false,
    );
}

/// Scores or values of some queries of a run, tile by tile.
#[inline(always)]
fn tiles<V: Vector>(mut tile: Tile<'_, '_>, queries: &Range<usize>, scores: bool) {
    assert!(queries.end <= TILE && tile.sight.dim <= HEAD_DIM_MAX && tile.sight.dim.is_multiple_of(16));
    tile.first = queries.start;
    while tile.first < queries.end {
        tile.first += match queries.end - tile.first {
            12.. if V::LANES == 16 => tile.either::<V, 12>(scores),
            6.. => tile.either::<V, 6>(scores),
            4 => tile.either::<V, 4>(scores),
            3 | 5 => tile.either::<V, 3>(scores),
            2 => tile.either::<V, 2>(scores),
            _ => tile.either::<V, 1>(scores),
        };
        // Only the first tile of a run asks for what comes next.
        tile.next = &[std::ptr::null(); CUT_BLOCKS];
    }
}

impl Sight<'_> {
    /// Finds out where rows that do not see the same tokens of a block part.
    #[inline(always)]
    fn part_ways(&mut self) {
        self.whole = self.together == [u16::MAX; CUT_BLOCKS];
        for (seen, together) in self.seen.iter().zip(&mut self.together) {
            // All together only up to where they part, and only if nobody sees an earlier token.
            let upto = u16::MAX.checked_shr(together.leading_zeros()).unwrap_or(0);
            if seen & upto != *together {
                *together = 0;
            }
        }
    }
}

/// Some queries of a run.
struct Tile<'a, 'b> {
    sight: &'a Sight<'a>,
    scale: f32,
    heads: usize,
    /// The first query.
    first: usize,
    /// Keys to be asked for, or null.
    next: &'a [*const u16; CUT_BLOCKS],
    work: &'b mut Workspace,
}

impl Tile<'_, '_> {
    #[inline(always)]
    fn either<V: Vector, const Q: usize>(&mut self, scores: bool) -> usize {
        if scores {
            self.scores::<V, Q>()
        } else {
            self.values::<V, Q>()
        }
        Q
    }

    /// The scores of every block that is seen, some vectors of tokens at a time so that a number of a query is
    /// read once for all of them.
    #[inline(always)]
    fn scores<V: Vector, const Q: usize>(&mut self) {
        let dim = self.sight.dim;
        let mut columns =
            [Column { keys: std::ptr::null(), values: std::ptr::null(), token: 0 }; COLUMNS_MAX];
        let mut count = 0;
        for block in (0..CUT_BLOCKS).filter(|&block| self.sight.seen[block] != 0) {
            let (keys, values) = (self.sight.keys[block], self.sight.values[block]);
            assert!(keys.len() == dim * BLOCK_TOKENS && values.len() == dim * BLOCK_TOKENS);
            for lane in (0..BLOCK_TOKENS).step_by(V::LANES) {
                let (keys, values) = (keys[lane..].as_ptr(), values.as_ptr());
                columns[count] = Column { keys, values, token: block * BLOCK_TOKENS + lane };
                count += 1;
            }
        }
        if count == 0 {
            return;
        }
        // SAFETY: the columns are those of blocks of `dim` dimensions, checked above.
        unsafe {
            if Q >= 8 || V::LANES < 16 && Q >= 4 {
                self.columns::<V, Q, 2>(&columns[..count]);
            } else {
                self.columns::<V, Q, 4>(&columns[..count]);
            }
        }
    }

    /// # Safety
    /// Each column points at the keys of `dim` dimensions, 16 apart.
    #[inline(always)]
    unsafe fn columns<V: Vector, const Q: usize, const T: usize>(&mut self, columns: &[Column]) {
        let scale = V::splat(self.scale);
        for start in (0..columns.len()).step_by(T) {
            // The last column again and again, where there are no more.
            let chunk: [Column; T] = std::array::from_fn(|t| columns[(start + t).min(columns.len() - 1)]);
            let mut halves = [[[V::splat(0.0); T]; Q]; 2];
            for (odd, half) in halves.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *half = unsafe { self.dots::<V, Q, T>(&chunk, odd) };
            }
            for q in 0..Q {
                for t in 0..T {
                    let score = V::mul(V::add(halves[0][q][t], halves[1][q][t]), scale);
                    let to = &mut self.work.scores[self.first + q][chunk[t].token..][..V::LANES];
                    // SAFETY: `LANES` places.
                    unsafe { V::store(to.as_mut_ptr(), score) };
                }
            }
        }
    }

    /// Products of the even or of the odd dimensions, summed ascending.
    ///
    /// # Safety
    /// As for [`Tile::columns`].
    #[inline(always)]
    unsafe fn dots<V: Vector, const Q: usize, const T: usize>(
        &self,
        columns: &[Column; T],
        odd: usize,
    ) -> [[V::F; T]; Q] {
        let q = self.work.q.as_flattened()[self.first * HEAD_DIM_MAX..].as_ptr();
        let mut sums = [[V::splat(0.0); T]; Q];
        for d in (odd..self.sight.dim).step_by(2) {
            let mut keys = [V::splat(0.0); T];
            for t in 0..T {
                // The values that these scores will meet, a line for every two dimensions of keys.
                V::prefetch(columns[t].values.wrapping_add(d * BLOCK_TOKENS).cast());
                // SAFETY: dimension `d` of a column.
                keys[t] = unsafe { V::load_half(columns[t].keys.add(d * BLOCK_TOKENS)) };
            }
            for i in 0..Q {
                // SAFETY: queries up to `first + Q <= TILE`, `HEAD_DIM_MAX` apart; `d < dim <= HEAD_DIM_MAX`.
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
        let together = self.sight.together;
        let mut begin = 0;
        for end in 1..=CUT_BLOCKS {
            let parted = self.sight.seen[end - 1] != together[end - 1];
            if !parted && end < CUT_BLOCKS {
                continue;
            }
            self.blocks::<V, Q>(self.first, begin..end, &together);
            for query in self.first..self.first + Q {
                if parted {
                    let mut rest = self.sight.rows[query / self.heads];
                    rest[end - 1] &= !together[end - 1];
                    self.blocks::<V, 1>(query, end - 1..end, &rest);
                }
            }
            begin = end;
        }
    }

    /// Adds, for queries `first..first + Q`, the tokens `masks` of some blocks. Some dimensions at a time, so that
    /// the sums stay in registers.
    #[inline(always)]
    fn blocks<V: Vector, const Q: usize>(
        &mut self,
        first: usize,
        blocks: Range<usize>,
        masks: &[u16; CUT_BLOCKS],
    ) {
        if V::LANES == 16 && Q <= 6 || Q <= 3 {
            self.dimensions::<V, Q, 4>(first, blocks, masks);
        } else {
            self.dimensions::<V, Q, 2>(first, blocks, masks);
        }
    }

    #[inline(always)]
    fn dimensions<V: Vector, const Q: usize, const D: usize>(
        &mut self,
        first: usize,
        blocks: Range<usize>,
        masks: &[u16; CUT_BLOCKS],
    ) {
        let dim = self.sight.dim;
        assert!(first + Q <= TILE && blocks.end <= CUT_BLOCKS && dim >= V::LANES);
        let powers = self.work.scores.as_flattened()[first * CUT_TOKENS..].as_ptr();
        for start in (0..dim).step_by(D * V::LANES) {
            // The last vector again and again, where there are no more.
            let at: [usize; D] = std::array::from_fn(|i| (start + i * V::LANES).min(dim - V::LANES));
            let mut acc = [[V::splat(0.0); D]; Q];
            for q in 0..Q {
                for i in 0..D {
                    let from = &self.work.part[first + q].acc[at[i]..][..V::LANES];
                    // SAFETY: `LANES` numbers.
                    acc[q][i] = unsafe { V::load(from.as_ptr()) };
                }
            }
            for block in blocks.clone() {
                let mut left = masks[block];
                if left == 0 {
                    continue;
                }
                let values = self.sight.values[block];
                assert_eq!(values.len(), dim * BLOCK_TOKENS);
                let next = self.next[block];
                while left != 0 {
                    let token = left.trailing_zeros() as usize;
                    left &= left - 1;
                    if start == 0 && !next.is_null() {
                        for line in 0..dim / 32 {
                            V::prefetch(next.wrapping_add(token * dim + line * 32).cast());
                        }
                    }
                    let mut value = [V::splat(0.0); D];
                    for i in 0..D {
                        // SAFETY: token below 16, dimensions below `dim`, by the checks above.
                        value[i] = unsafe { V::load_half(values.as_ptr().add(token * dim + at[i])) };
                    }
                    for q in 0..Q {
                        let power = q * CUT_TOKENS + block * BLOCK_TOKENS + token;
                        // SAFETY: queries up to `first + Q <= TILE`, `CUT_TOKENS` apart.
                        let power = V::splat(unsafe { *powers.add(power) });
                        for i in 0..D {
                            acc[q][i] = V::fma(power, value[i], acc[q][i]);
                        }
                    }
                }
            }
            for q in 0..Q {
                for i in 0..D {
                    let to = &mut self.work.part[first + q].acc[at[i]..][..V::LANES];
                    // SAFETY: `LANES` places.
                    unsafe { V::store(to.as_mut_ptr(), acc[q][i]) };
                }
            }
        }
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
