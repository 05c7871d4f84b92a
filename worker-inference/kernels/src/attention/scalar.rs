//! The specification of attention, one query at a time.

use super::{Attend, CUT_BLOCKS, Gathered};
use crate::half;
use crate::kv::{BLOCK_TOKENS, CUT_TOKENS};
use crate::math;

pub(super) fn query(attend: &Attend<'_>, query: usize) {
    let dim = attend.head_dim();
    let position = attend.position(query);
    let (start, last) = (attend.horizon(position) / CUT_TOKENS * CUT_BLOCKS, position / BLOCK_TOKENS);
    let mut total = Gathered::NOTHING;
    for first in (start..=last).step_by(CUT_BLOCKS) {
        let part = cut(attend, query, first, last.min(first + CUT_BLOCKS - 1));
        merge(&mut total, &part, dim);
    }
    attend.write(query, &total.acc[..dim], total.sum);
}

/// Visible tokens of a cut as (block index, token in block), ascending.
fn tokens(attend: &Attend<'_>, query: usize, first: usize, last: usize) -> Vec<(usize, usize)> {
    let position = attend.position(query);
    (first..=last)
        .flat_map(|index| (0..BLOCK_TOKENS).map(move |token| (index, token)))
        .filter(|&(index, token)| attend.visible(index, position) >> token & 1 == 1)
        .collect()
}

fn cut(attend: &Attend<'_>, query: usize, first: usize, last: usize) -> Gathered {
    let dim = attend.head_dim();
    let q = &attend.q[attend.place(query)];
    let tokens = tokens(attend, query, first, last);
    let mut part = Gathered::NOTHING;
    let mut scores = [0.0f32; CUT_TOKENS];
    for (score, &(index, token)) in scores.iter_mut().zip(&tokens) {
        let (keys, _) = attend.pool.head(attend.layer, attend.blocks[index].block, attend.kv_head);
        let mut sums = [0.0f32; 2];
        for d in 0..dim {
            sums[d % 2] = half::to_f32(keys[d * BLOCK_TOKENS + token]).mul_add(q[d], sums[d % 2]);
        }
        *score = (sums[0] + sums[1]) * attend.scale;
        part.max = math::max(*score, part.max);
    }
    let mut lanes = [0.0f32; 16];
    for (score, &(index, token)) in scores.iter().zip(&tokens) {
        let power = math::exp(score - part.max);
        lanes[token] += power;
        let (_, values) = attend.pool.head(attend.layer, attend.blocks[index].block, attend.kv_head);
        for (acc, value) in part.acc.iter_mut().zip(&values[token * dim..][..dim]) {
            *acc = power.mul_add(half::to_f32(*value), *acc);
        }
    }
    part.sum = math::sum_of_lanes(lanes);
    part
}

/// Adds a cut to the cuts before it.
fn merge(total: &mut Gathered, part: &Gathered, dim: usize) {
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
    for (acc, part) in total.acc[..dim].iter_mut().zip(&part.acc) {
        *acc = part.mul_add(now, *acc * before);
    }
}
