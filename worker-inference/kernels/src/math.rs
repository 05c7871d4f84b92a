//! Functions that libraries compute a little differently from one another, made here of operations that
//! IEEE 754 fixes to the last bit, so that no machine and no libc can change a result.

use crate::simd::Vector;
use std::f64::consts::{FRAC_PI_2, LN_2};

/// The larger, as the vector instruction decides it: `b` when either is not a number.
#[inline(always)]
pub(crate) fn max(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The smaller, as the vector instruction decides it: `b` when either is not a number.
#[inline(always)]
pub(crate) fn min(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// The upper bits of ln 2, few enough that a product with an exponent is exact; and the rest.
const LN2_HIGH: f32 = 355.0 / 512.0;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// Above this the result would leave the range of f32; it stays at `exp(88)`.
const EXP_TOP: f32 = 88.0;
/// Below this the result would not be a normal number; it becomes 0.
const EXP_BOTTOM: f32 = -87.3;
/// The Taylor series of exp, highest power first: on half a binade its eighth term is under one part in 10^8.
const EXP_SERIES: [f32; 8] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];

/// `e` to the power `x`, within 2 units in the last place.
pub(crate) fn exp(x: f32) -> f32 {
    let clamped = max(EXP_BOTTOM, min(EXP_TOP, x));
    let n = (clamped * LOG2_E).round_ties_even();
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, clamped));
    let mut sum = EXP_SERIES[0];
    for term in &EXP_SERIES[1..] {
        sum = sum.mul_add(r, *term);
    }
    let result = sum * f32::from_bits((((n as i32) + 127) << 23) as u32);
    if x < EXP_BOTTOM { 0.0 } else { result }
}

/// [`exp`] on every lane.
#[inline(always)]
pub(crate) fn exp_lanes<V: Vector>(x: V::F) -> V::F {
    let clamped = V::max(V::splat(EXP_BOTTOM), V::min(V::splat(EXP_TOP), x));
    let n = V::round(V::mul(clamped, V::splat(LOG2_E)));
    let r = V::fma(n, V::splat(-LN2_HIGH), clamped);
    let r = V::fma(n, V::splat(-LN2_LOW), r);
    let mut sum = V::splat(EXP_SERIES[0]);
    for term in &EXP_SERIES[1..] {
        sum = V::fma(sum, r, V::splat(*term));
    }
    V::zero_below(x, V::splat(EXP_BOTTOM), V::scale_by_power(sum, n))
}

/// The fixed tree over 16 lanes: halves are folded onto each other until one is left.
pub(crate) fn sum_of_lanes(mut lanes: [f32; 16]) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

/// Natural logarithm of a positive, normal number; of anything else, not a number.
pub(crate) fn ln64(x: f64) -> f64 {
    if !x.is_normal() || x < 0.0 {
        return f64::NAN;
    }
    let mut exponent = (x.to_bits() >> 52) as i64 - 1023;
    let mut fraction = f64::from_bits(x.to_bits() & ((1 << 52) - 1) | 1023 << 52);
    if fraction > std::f64::consts::SQRT_2 {
        fraction /= 2.0;
        exponent += 1;
    }
    // ln f = 2 artanh((f-1)/(f+1)), whose series falls by a factor of 34 a term.
    let z = (fraction - 1.0) / (fraction + 1.0);
    let mut sum = 0.0;
    for power in (1..=27).rev().step_by(2) {
        sum = sum * (z * z) + 1.0 / f64::from(power);
    }
    2.0 * z * sum + exponent as f64 * LN_2
}

/// `e` to the power `x`, for |x| <= 700.
pub(crate) fn exp64(x: f64) -> f64 {
    assert!(x.abs() <= 700.0, "exp of {x}");
    let n = (x / LN_2).round_ties_even();
    let r = x - n * LN_2;
    let mut sum = 1.0;
    for k in (1..=20).rev() {
        sum = 1.0 + sum * r / f64::from(k);
    }
    sum * f64::from_bits(((n as i64 + 1023) as u64) << 52)
}

/// Sine and cosine of an angle in radians, to about 1e-11 for angles up to a million.
pub(crate) fn sin_cos64(angle: f64) -> (f64, f64) {
    /// What f64's pi/2 leaves out.
    const FRAC_PI_2_REST: f64 = 6.123_233_995_736_766e-17;
    assert!(angle.abs() <= 1e9, "sine of {angle}");
    let quarter = (angle / FRAC_PI_2).round_ties_even();
    let r = quarter.mul_add(-FRAC_PI_2_REST, quarter.mul_add(-FRAC_PI_2, angle));
    let (sin, cos) = sin_cos_series(r);
    match (quarter as i64).rem_euclid(4) {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

/// The Taylor series of sine and cosine, for |r| <= pi/4.
fn sin_cos_series(r: f64) -> (f64, f64) {
    let (mut sin, mut cos) = (1.0, 1.0);
    for k in (1..=10).rev().map(|half| f64::from(2 * half)) {
        sin = 1.0 - sin * r * r / (k * (k + 1.0));
        cos = 1.0 - cos * r * r / (k * (k - 1.0));
    }
    (sin * r, cos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_true_value() {
        let mut worst = (0.0f64, 0.0f32);
        for step in -87_000..=88_000 {
            let x = step as f32 / 1000.0;
            let truth = f64::from(x).exp();
            let error = (f64::from(exp(x)) - truth).abs() / truth;
            if error > worst.0 {
                worst = (error, x);
            }
        }
        assert!(worst.0 < 2.5e-7, "worst relative error {worst:?}");
    }

    #[test]
    fn exp_at_its_ends() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-87.4), 0.0);
        assert!(exp(f32::INFINITY).is_finite());
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn f64_functions_agree_with_the_library() {
        for step in 1..20_000 {
            let x = f64::from(step) * 0.37;
            let (sin, cos) = sin_cos64(x);
            assert!((sin - x.sin()).abs() < 1e-12 && (cos - x.cos()).abs() < 1e-12, "angle {x}");
            assert!((ln64(x) - x.ln()).abs() < 1e-14 * x.ln().abs().max(1.0), "ln {x}");
            let y = x / 20.0 - 180.0;
            assert!((exp64(y) - y.exp()).abs() < 1e-13 * y.exp(), "exp {y}");
        }
    }

    #[test]
    fn lanes_are_summed_by_the_tree() {
        let lanes: [f32; 16] = std::array::from_fn(|lane| if lane == 0 { 1.0 } else { f32::EPSILON / 2.0 });
        // One by one each half-epsilon would be lost; the tree gathers some of them first.
        assert!(sum_of_lanes(lanes) > 1.0);
    }
}
