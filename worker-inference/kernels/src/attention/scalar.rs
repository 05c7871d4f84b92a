//! The specification of attention, one query and one cut at a time.

use super::gathered::{Gathered, merge};
use super::{Attend, Part};
use crate::half;
use crate::kv::{BLOCK_TOKENS, BlockRef, CUT_TOKENS};
use crate::math;

pub(super) fn part(attend: &Attend<'_>, part: &Part) {
    for query in 0..part.queries() {
        let slots = part.slots_of(query).map(|slots| slots.start + part.first_cut());
        let mut total = Gathered::NOTHING;
        for (index, item) in attend.plan.items(part).iter().enumerate() {
            let found = cut(attend, part, query, item.cut);
            match slots {
                Some(first) => attend.slots.write(first + index, &found),
                None => merge(&mut total, &found, attend.head_dim()),
            }
        }
        if slots.is_none() {
            attend.write(part, query, &total);
        }
    }
}

/// Visible tokens of a cut as (entry, token in block), ascending.
fn tokens<'a>(attend: &'a Attend<'_>, part: &Part, query: usize, cut: usize) -> Vec<(&'a BlockRef, usize)> {
    let row = &attend.plan.rows(part)[query / part.heads.len()];
    let masks = attend.sight(row, cut);
    let entries = attend.entries(row.sequence, cut);
    let all =
        entries.iter().zip(masks).flat_map(|(entry, mask)| (0..BLOCK_TOKENS).map(move |t| (entry, mask, t)));
    all.filter(|(_, mask, token)| mask >> token & 1 == 1).map(|(entry, _, token)| (entry, token)).collect()
}

fn cut(attend: &Attend<'_>, part: &Part, query: usize, cut: usize) -> Gathered {
    let dim = attend.head_dim();
    let q = &attend.q[attend.place(part, query)];
    let tokens = tokens(attend, part, query, cut);
    let mut found = Gathered::NOTHING;
    let mut scores = [0.0f32; CUT_TOKENS];
    for (score, &(entry, token)) in scores.iter_mut().zip(&tokens) {
        let (keys, _) = attend.head(entry.block, part);
        let mut sums = [0.0f32; 2];
        for d in 0..dim {
            sums[d % 2] = half::to_f32(keys[d * BLOCK_TOKENS + token]).mul_add(q[d], sums[d % 2]);
        }
        *score = (sums[0] + sums[1]) * attend.scale;
        found.max = math::max(*score, found.max);
    }
    let mut lanes = [0.0f32; 16];
    for (score, &(entry, token)) in scores.iter().zip(&tokens) {
        let power = math::exp(score - found.max);
        lanes[token] += power;
        let (_, values) = attend.head(entry.block, part);
        for (acc, value) in found.acc.iter_mut().zip(&values[token * dim..][..dim]) {
            *acc = power.mul_add(half::to_f32(*value), *acc);
        }
    }
    found.sum = math::sum_of_lanes(lanes);
    found
}
