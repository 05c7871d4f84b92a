//! What a sampler asks of a row of logits.

use crate::cpu::Cpu;
use crate::math;
use crate::simd::{Operation, Sixteen, load16};

impl Cpu {
    /// The index of the largest value, the lowest of equals; 0 if no value is a number.
    ///
    /// # Panics
    /// If there are no values.
    pub fn argmax(&self, logits: &[f32]) -> usize {
        let largest = self.perform(Largest(logits));
        logits.iter().position(|&value| value == largest).unwrap_or(0)
    }

    /// The logarithm of the softmax at `index`: `logits[index] - max - ln(sum(exp(logits - max)))`.
    ///
    /// # Panics
    /// If `index` is out of range.
    pub fn log_softmax_at(&self, logits: &[f32], index: usize) -> f64 {
        let largest = self.perform(Largest(logits));
        let sum = self.perform(SumOfExp { logits, largest });
        f64::from(logits[index]) - f64::from(largest) - math::ln64(sum)
    }
}

/// The largest value; negative infinity where none is a number.
struct Largest<'a>(&'a [f32]);

impl Operation for Largest<'_> {
    type Output = f32;

    fn scalar(self) -> f32 {
        assert!(!self.0.is_empty(), "no logits");
        self.0.iter().fold(f32::NEG_INFINITY, |largest, &value| math::max(value, largest))
    }

    #[inline(always)]
    fn vector<S: Sixteen>(self) -> f32 {
        assert!(!self.0.is_empty(), "no logits");
        let (chunks, rest) = self.0.as_chunks::<16>();
        let mut lanes = S::splat(f32::NEG_INFINITY);
        for chunk in chunks {
            lanes = S::max(load16::<S>(chunk), lanes);
        }
        let mut largest = S::largest(lanes);
        for &value in rest {
            largest = math::max(value, largest);
        }
        largest
    }
}

/// The sum of `exp(x - largest)`: f32 powers, summed by 16 lanes of f64.
struct SumOfExp<'a> {
    logits: &'a [f32],
    largest: f32,
}

/// Adds up the lanes in order.
fn total(lanes: [f64; 16]) -> f64 {
    lanes.iter().sum()
}

impl Operation for SumOfExp<'_> {
    type Output = f64;

    fn scalar(self) -> f64 {
        let mut lanes = [0.0; 16];
        for (index, value) in self.logits.iter().enumerate() {
            lanes[index % 16] += f64::from(math::exp(value - self.largest));
        }
        total(lanes)
    }

    #[inline(always)]
    fn vector<S: Sixteen>(self) -> f64 {
        let mut lanes = [0.0; 16];
        let mut powers = [0.0f32; 16];
        let (chunks, rest) = self.logits.as_chunks::<16>();
        for chunk in chunks {
            let power = math::exp_lanes::<S>(S::sub(load16::<S>(chunk), S::splat(self.largest)));
            crate::simd::store16::<S>(&mut powers, power);
            for lane in 0..16 {
                lanes[lane] += f64::from(powers[lane]);
            }
        }
        for (lane, value) in rest.iter().enumerate() {
            lanes[lane] += f64::from(math::exp(value - self.largest));
        }
        total(lanes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    fn logits(len: usize) -> Vec<f32> {
        (0..len).map(|i| (i * 2_654_435_761 % 4001) as f32 / 100.0 - 20.0).collect()
    }

    #[test]
    fn the_lowest_of_equals_wins() {
        for isa in Isa::available() {
            let cpu = Cpu::new(isa, 1, |_| ());
            for len in 1..=70 {
                let mut values = vec![-1.0; len];
                values[len / 2] = 3.0;
                values[len - 1] = 3.0;
                assert_eq!(cpu.argmax(&values), len / 2);
            }
            assert_eq!(cpu.argmax(&[f32::NAN, 1.0, 2.0]), 2);
            assert_eq!(cpu.argmax(&[f32::NAN]), 0);
        }
    }

    #[test]
    fn log_softmax_is_right_and_the_same_everywhere() {
        for len in (1..=70).chain([49_152]) {
            let logits = logits(len);
            let index = len * 2 / 3;
            let expected = Cpu::new(Isa::Scalar, 1, |_| ()).log_softmax_at(&logits, index);
            for isa in Isa::available() {
                let found = Cpu::new(isa, 1, |_| ()).log_softmax_at(&logits, index);
                assert_eq!(found.to_bits(), expected.to_bits(), "{isa} {len}");
            }
            let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
            assert!((expected - (f64::from(logits[index]) - sum.ln())).abs() < 1e-6);
        }
    }
}
