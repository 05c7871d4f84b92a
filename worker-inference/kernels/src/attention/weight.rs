//! Outputs of attention over different tokens, joined.

use crate::math;

/// With what weight the output of a row and head speaks: the sum of its powers is `sum * e^max`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weight {
    pub(super) max: f32,
    pub(super) sum: f32,
}

impl Weight {
    /// Of what sees no token.
    pub const NOTHING: Weight = Weight { max: f32::NEG_INFINITY, sum: 0.0 };
}

/// Joins what the same heads have seen of different tokens: `out` and `weights` become what they are for all these tokens
/// together. For each head one weight, and as many values as the others have.
///
/// # Panics
/// If lengths don't fit.
pub fn join_seen(out: &mut [f32], weights: &mut [Weight], more: &[f32], more_weights: &[Weight]) {
    assert!(out.len() == more.len() && weights.len() == more_weights.len(), "the same heads");
    let dim = out.len() / weights.len().max(1);
    let heads = out.chunks_exact_mut(dim.max(1)).zip(more.chunks_exact(dim.max(1)));
    for ((out, more), (weight, other)) in heads.zip(weights.iter_mut().zip(more_weights)) {
        let max = math::max(weight.max, other.max);
        if max == f32::NEG_INFINITY {
            continue;
        }
        let (one, two) = (weight.sum * math::exp(weight.max - max), other.sum * math::exp(other.max - max));
        *weight = Weight { max, sum: one + two };
        let (one, two) = (one / weight.sum, two / weight.sum);
        out.iter_mut().zip(more).for_each(|(out, more)| *out = *out * one + *more * two);
    }
}
