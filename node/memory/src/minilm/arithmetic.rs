//! Sums and curves in one fixed order of operations that IEEE 754 fixes: no fused operation, no library function.

use crate::vectors::{dot, sum};

/// `e^x` for x up to 0; what is below -87 counts as -87. Off by 2 in the last place at most.
pub(super) fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts, of which the first is short: its product with a small integer is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 0.0);
    let whole = (x * LOG2_E - 0.5) as i32;
    let r = (x - whole as f32 * LN_2_HIGH) - whole as f32 * LN_2_LOW;
    let series = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let power = series.into_iter().fold(1.0 / 5040.0, |sum, next| sum * r + next);
    power * f32::from_bits(((whole + 127) as u32) << 23)
}

/// `x / 2 * (1 + erf(x / sqrt 2))`, with the error function of Abramowitz and Stegun 7.1.26 (1.5e-7).
pub(super) fn gelu(x: f32) -> f32 {
    let at = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * at);
    let series = [-1.453_152, 1.421_413_7, -0.284_496_75, 0.254_829_6];
    let part = series.into_iter().fold(1.061_405_4, |sum, next| sum * t + next) * t * exp(-at * at);
    // Of what is left of the curve only the far side is small; subtracting there would lose it.
    if x < 0.0 { 0.5 * x * part } else { x - 0.5 * x * part }
}

/// The sum in 16 lanes.
pub(super) fn total(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<16>();
    let mut lanes = [0.0f32; 16];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane += value);
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, value)| *lane += value);
    sum(lanes)
}

/// A row with mean 0 and variance 1, times `weight`, plus `bias`.
pub(super) fn normalize(row: &mut [f32], weight: &[f32], bias: &[f32]) {
    const EPS: f32 = 1e-12;
    let mean = total(row) / row.len() as f32;
    row.iter_mut().for_each(|value| *value -= mean);
    let deviation = (dot(row, row) / row.len() as f32 + EPS).sqrt();
    for ((value, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
        *value = *value / deviation * weight + bias;
    }
}

/// Shares of one, larger where the value is.
pub(super) fn softmax(values: &mut [f32]) {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter_mut().for_each(|value| *value = exp(*value - largest));
    let all = total(values);
    values.iter_mut().for_each(|value| *value /= all);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_those_of_the_library() {
        for step in 0..87_000 {
            let x = -(step as f32) / 1000.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() <= 3e-7 * exact, "exp {x}");
        }
        // Values from tables of the normal distribution: x * P(x).
        for (x, expected) in
            [(0.0, 0.0), (1.0, 0.841_344_7), (-1.0, -0.158_655_3), (2.0, 1.954_499_7), (-3.0, -0.004_049_694)]
        {
            assert!((gelu(x) - expected).abs() < 1e-6, "gelu {x} = {}", gelu(x));
        }
        assert_eq!(gelu(20.0), 20.0);
    }

    #[test]
    fn rows_are_normalised_and_shared_out() {
        let mut row: Vec<f32> = (0..40).map(|i| i as f32).collect();
        normalize(&mut row, &[2.0; 40], &[1.0; 40]);
        assert!((total(&row) / 40.0 - 1.0).abs() < 1e-5);
        let mut shares = [0.0, 1.0, -1e9];
        softmax(&mut shares);
        assert!((shares[1] / shares[0] - 1f32.exp()).abs() < 1e-5 && shares[2] < 1e-30);
    }
}
