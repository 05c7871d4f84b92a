//! The same attention with vectors, up to four queries at a time so that each key and value is read and widened
//! once for all query heads of its KV head, and for neighbouring rows of a prompt.
//!
//! In scores a lane is a token, in outputs a lane is a dimension: no lanes are summed but those of the powers.

// Loops over small constant ranges index several arrays at once and unroll into registers.
#![allow(clippy::needless_range_loop)]

use super::{Attend, CUT_BLOCKS, Gathered};
use crate::kv::{BLOCK_TOKENS, CUT_TOKENS};
use crate::math::{self, exp_lanes};
use crate::simd::{Sixteen, Vector};

#[inline(always)]
pub(super) fn queries<S: Sixteen>(attend: &Attend<'_>) {
    let queries = attend.queries();
    let mut query = 0;
    while query < queries {
        query += match queries - query {
            4.. => tile::<S, 4>(attend, query),
            3 => tile::<S, 3>(attend, query),
            2 => tile::<S, 2>(attend, query),
            _ => tile::<S, 1>(attend, query),
        };
    }
}

/// One cut as the queries of a tile see it.
struct Cut<const Q: usize> {
    first: usize,
    /// Blocks of the cut that exist for the furthest query.
    blocks: usize,
    visible: [[u16; Q]; CUT_BLOCKS],
    /// Scores, then powers; meaningful where visible.
    scores: [[f32; CUT_TOKENS]; Q],
}

impl<const Q: usize> Cut<Q> {
    /// Tokens of a block that at least one query sees.
    #[inline(always)]
    fn seen(&self, block: usize) -> u16 {
        self.visible[block].iter().fold(0, |all, mask| all | mask)
    }

    /// Whether all queries see the same tokens of a block.
    #[inline(always)]
    fn alike(&self, block: usize) -> bool {
        self.visible[block].iter().all(|mask| *mask == self.visible[block][0])
    }
}

/// Queries `first..first + Q`. Returns `Q`.
#[inline(always)]
fn tile<S: Sixteen, const Q: usize>(attend: &Attend<'_>, first: usize) -> usize {
    let dim = attend.head_dim();
    let positions: [usize; Q] = std::array::from_fn(|q| attend.position(first + q));
    let q: [&[f32]; Q] = std::array::from_fn(|q| &attend.q[attend.place(first + q)]);
    let last = positions.iter().max().map_or(0, |position| position / BLOCK_TOKENS);
    let horizon = positions.iter().map(|&position| attend.horizon(position)).min().unwrap_or(0);
    let begin = horizon / CUT_TOKENS * CUT_BLOCKS;
    // Rows of a prompt share their keys with the rows before them, which are still near.
    let ahead = first == 0 && attend.rows.len() == 1;
    let mut totals = [Gathered::NOTHING; Q];
    let mut parts = [Gathered::NOTHING; Q];
    let mut cut = Cut { first: 0, blocks: 0, visible: [[0; Q]; CUT_BLOCKS], scores: [[0.0; CUT_TOKENS]; Q] };
    for start in (begin..=last).step_by(CUT_BLOCKS) {
        cut.first = start;
        cut.blocks = CUT_BLOCKS.min(last + 1 - start);
        for block in 0..cut.blocks {
            cut.visible[block] = std::array::from_fn(|q| attend.visible(start + block, positions[q]));
        }
        score::<S, Q>(attend, &q, &mut cut, ahead);
        for q in 0..Q {
            (parts[q].max, parts[q].sum) = powers::<S, Q>(&mut cut, q);
        }
        values::<S::Native, Q>(attend, &cut, &mut parts);
        for (total, part) in totals.iter_mut().zip(&parts) {
            merge::<S>(total, part, dim);
        }
    }
    for (q, total) in totals.iter().enumerate() {
        attend.write(first + q, &total.acc[..dim], total.sum);
    }
    Q
}

/// Fills in the scores of every block that is seen. With `ahead` it asks for the next keys, and for the values
/// that these scores will meet: a decoding row reads them from far away, and from a new page for every block.
#[inline(always)]
fn score<S: Sixteen, const Q: usize>(attend: &Attend<'_>, q: &[&[f32]; Q], cut: &mut Cut<Q>, ahead: bool) {
    let dim = attend.head_dim();
    let lanes = <S::Native as Vector>::LANES;
    assert!(dim.is_multiple_of(2) && q.iter().all(|q| q.len() == dim));
    for block in 0..cut.blocks {
        if cut.seen(block) == 0 {
            continue;
        }
        let entry = attend.blocks[cut.first + block];
        let (keys, values) = attend.pool.head(attend.layer, entry.block, attend.kv_head);
        assert_eq!(keys.len(), dim * BLOCK_TOKENS);
        let next_keys = attend.next_keys(cut.first + block).unwrap_or(keys);
        for lane in (0..BLOCK_TOKENS).step_by(lanes) {
            let mut sums = [[S::Native::splat(0.0); 2]; Q];
            for d in (0..dim).step_by(2) {
                if ahead && lane == 0 {
                    // One line of each: two dimensions of 16 keys, and as many values.
                    S::prefetch(next_keys.as_ptr().wrapping_add(d * BLOCK_TOKENS).cast());
                    S::prefetch(values.as_ptr().wrapping_add(d * BLOCK_TOKENS).cast());
                }
                for odd in 0..2 {
                    // SAFETY: dimension `d + odd < dim`, tokens `lane..lane + LANES` of 16.
                    unsafe {
                        let key = S::Native::load_half(keys.as_ptr().add((d + odd) * BLOCK_TOKENS + lane));
                        for i in 0..Q {
                            let q = S::Native::splat(*q[i].as_ptr().add(d + odd));
                            sums[i][odd] = S::Native::fma(key, q, sums[i][odd]);
                        }
                    }
                }
            }
            for i in 0..Q {
                let sum = S::Native::add(sums[i][0], sums[i][1]);
                let scores = &mut cut.scores[i][block * BLOCK_TOKENS + lane..][..lanes];
                // SAFETY: `LANES` places.
                unsafe {
                    S::Native::store(scores.as_mut_ptr(), S::Native::mul(sum, S::Native::splat(attend.scale)))
                };
            }
        }
    }
}

/// Turns the scores of one query into powers. Returns their maximum and sum.
#[inline(always)]
fn powers<S: Sixteen, const Q: usize>(cut: &mut Cut<Q>, q: usize) -> (f32, f32) {
    let least = S::splat(f32::NEG_INFINITY);
    let scores = cut.scores[q].as_chunks_mut::<BLOCK_TOKENS>().0;
    let mut max = least;
    for block in 0..cut.blocks {
        let seen = S::select(cut.visible[block][q], crate::simd::load16::<S>(&scores[block]), least);
        max = S::max(seen, max);
    }
    let max = S::largest(max);
    let mut sum = S::splat(0.0);
    for block in 0..cut.blocks {
        let mask = cut.visible[block][q];
        if mask == 0 {
            continue;
        }
        let power = exp_lanes::<S>(S::sub(crate::simd::load16::<S>(&scores[block]), S::splat(max)));
        let power = S::select(mask, power, S::splat(0.0));
        sum = S::add(sum, power);
        crate::simd::store16::<S>(&mut scores[block], power);
    }
    (max, S::sum(sum))
}

/// The sums of values weighted by powers, some dimensions at a time so that they stay in registers.
#[inline(always)]
fn values<V: Vector, const Q: usize>(attend: &Attend<'_>, cut: &Cut<Q>, parts: &mut [Gathered; Q]) {
    let dim = attend.head_dim();
    let mut d = 0;
    while d < dim {
        let vectors = (dim - d) / V::LANES;
        d += V::LANES
            * if V::LANES == 16 && vectors >= 4 {
                dimensions::<V, Q, 4>(attend, cut, parts, d)
            } else if vectors >= 2 {
                dimensions::<V, Q, 2>(attend, cut, parts, d)
            } else {
                dimensions::<V, Q, 1>(attend, cut, parts, d)
            };
    }
}

/// `D` vectors of dimensions from `d` on. Returns `D`.
#[inline(always)]
fn dimensions<V: Vector, const Q: usize, const D: usize>(
    attend: &Attend<'_>,
    cut: &Cut<Q>,
    parts: &mut [Gathered; Q],
    d: usize,
) -> usize {
    let dim = attend.head_dim();
    assert!(d + D * V::LANES <= dim);
    let mut acc = [[V::splat(0.0); D]; Q];
    for block in (0..cut.blocks).filter(|&block| cut.seen(block) != 0) {
        let entry = attend.blocks[cut.first + block];
        let (_, values) = attend.pool.head(attend.layer, entry.block, attend.kv_head);
        assert_eq!(values.len(), dim * BLOCK_TOKENS);
        let alike = cut.alike(block);
        let mut left = cut.seen(block);
        while left != 0 {
            let token = left.trailing_zeros() as usize;
            left &= left - 1;
            let mut value = [V::splat(0.0); D];
            for (i, value) in value.iter_mut().enumerate() {
                // SAFETY: token below 16, dimensions below `dim`, by the checks above.
                *value = unsafe { V::load_half(values.as_ptr().add(token * dim + d + i * V::LANES)) };
            }
            for q in 0..Q {
                // A query that does not see the token must not touch it: zero times infinity is not zero.
                if alike || cut.visible[block][q] >> token & 1 == 1 {
                    let power = V::splat(cut.scores[q][block * BLOCK_TOKENS + token]);
                    for i in 0..D {
                        acc[q][i] = V::fma(power, value[i], acc[q][i]);
                    }
                }
            }
        }
    }
    for q in 0..Q {
        for i in 0..D {
            let to = &mut parts[q].acc[d + i * V::LANES..][..V::LANES];
            // SAFETY: `LANES` places.
            unsafe { V::store(to.as_mut_ptr(), acc[q][i]) };
        }
    }
    D
}

/// Adds a cut to the cuts before it.
#[inline(always)]
fn merge<S: Sixteen>(total: &mut Gathered, part: &Gathered, dim: usize) {
    if part.max == f32::NEG_INFINITY {
        return;
    }
    if total.max == f32::NEG_INFINITY {
        *total = *part;
        return;
    }
    let max = math::max(total.max, part.max);
    let (before, now) = (math::exp(total.max - max), math::exp(part.max - max));
    total.max = max;
    total.sum = part.sum.mul_add(now, total.sum * before);
    let (before, now) = (S::splat(before), S::splat(now));
    let accs = total.acc[..dim].as_chunks_mut::<16>().0;
    for (acc, part) in accs.iter_mut().zip(part.acc.as_chunks::<16>().0) {
        let merged =
            S::fma(crate::simd::load16::<S>(part), now, S::mul(crate::simd::load16::<S>(acc), before));
        crate::simd::store16::<S>(acc, merged);
    }
}
