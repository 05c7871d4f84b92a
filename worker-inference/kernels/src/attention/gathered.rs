//! What queries gather, and how cuts are merged.

use crate::kv::HEAD_DIM_MAX;
use crate::math;
use crate::pool::Shards;
use crate::simd::{Sixteen, load16, store16};

/// What a query has gathered from the cuts so far, or from one cut. Only the first `head_dim` places of `acc` mean
/// anything, and none while `max` is negative infinity.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Gathered {
    pub(super) acc: [f32; HEAD_DIM_MAX],
    pub(super) max: f32,
    pub(super) sum: f32,
}

impl Gathered {
    pub(super) const NOTHING: Gathered =
        Gathered { acc: [0.0; HEAD_DIM_MAX], max: f32::NEG_INFINITY, sum: 0.0 };

    pub(super) fn clear(&mut self) {
        (self.max, self.sum) = (f32::NEG_INFINITY, 0.0);
    }

    #[inline(always)]
    fn copy(&mut self, from: &Gathered, dim: usize) {
        (self.max, self.sum) = (from.max, from.sum);
        self.acc[..dim].copy_from_slice(&from.acc[..dim]);
    }
}

/// Places for what single cuts gave, where the cuts of a query belong to several threads.
#[derive(Clone, Copy)]
pub(super) struct Slots<'a> {
    pub(super) floats: &'a Shards<'a, f32>,
    pub(super) head_dim: usize,
}

impl Slots<'_> {
    /// Floats of one slot: maximum, sum, and the values.
    pub(super) fn floats(head_dim: usize) -> usize {
        head_dim + 2
    }

    #[inline(always)]
    pub(super) fn write(&self, slot: usize, from: &Gathered) {
        let len = Slots::floats(self.head_dim);
        // SAFETY: a slot is written by the one thread that computes its cut, and the slice dies here.
        let to = unsafe { self.floats.slice(slot * len..(slot + 1) * len) };
        (to[0], to[1]) = (from.max, from.sum);
        to[2..].copy_from_slice(&from.acc[..self.head_dim]);
    }

    #[inline(always)]
    pub(super) fn read(&self, slot: usize, to: &mut Gathered) {
        let len = Slots::floats(self.head_dim);
        // SAFETY: slots are read after all threads have written theirs, and the slice dies here.
        let from = unsafe { self.floats.slice(slot * len..(slot + 1) * len) };
        (to.max, to.sum) = (from[0], from[1]);
        to.acc[..self.head_dim].copy_from_slice(&from[2..]);
    }
}

/// Adds a cut to the cuts before it: the specification.
pub(super) fn merge(total: &mut Gathered, part: &Gathered, dim: usize) {
    if part.max == f32::NEG_INFINITY {
        return;
    }
    if total.max == f32::NEG_INFINITY {
        return total.copy(part, dim);
    }
    let max = math::max(total.max, part.max);
    let (before, now) = (math::exp(total.max - max), math::exp(part.max - max));
    total.max = max;
    total.sum = part.sum.mul_add(now, total.sum * before);
    for (acc, part) in total.acc[..dim].iter_mut().zip(&part.acc) {
        *acc = part.mul_add(now, *acc * before);
    }
}

/// [`merge`] with vectors.
#[inline(always)]
pub(super) fn merge_lanes<S: Sixteen>(total: &mut Gathered, part: &Gathered, dim: usize) {
    if part.max == f32::NEG_INFINITY {
        return;
    }
    if total.max == f32::NEG_INFINITY {
        return total.copy(part, dim);
    }
    let max = math::max(total.max, part.max);
    let (before, now) = (math::exp(total.max - max), math::exp(part.max - max));
    total.max = max;
    total.sum = part.sum.mul_add(now, total.sum * before);
    let (before, now) = (S::splat(before), S::splat(now));
    let accs = total.acc[..dim].as_chunks_mut::<16>().0;
    for (acc, part) in accs.iter_mut().zip(part.acc.as_chunks::<16>().0) {
        let merged = S::fma(load16::<S>(part), now, S::mul(load16::<S>(acc), before));
        store16::<S>(acc, merged);
    }
}
