//! The small operations between matrix products: normalisation, gate, sums.

use crate::cpu::Cpu;
use crate::math;
use crate::matrix::Matrix;
use crate::simd::{Operation, Sixteen, load16, padded, store16};

/// What the first of the two inner products of a feed-forward network becomes before it is multiplied with the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// SwiGLU: `gate / (1 + exp(-gate)) * up`.
    Silu,
    /// GeGLU with the approximation by tanh that Gemma was trained with:
    /// `gate / 2 * (1 + tanh(sqrt(2 / pi) * (gate + 0.044715 * gate^3))) * up`.
    Gelu,
}

impl Cpu {
    /// Root-mean-square normalisation of rows as long as `weight`: `out = x / sqrt(mean(x^2) + eps) * weight`.
    ///
    /// # Panics
    /// If `x` is not whole rows, or `out` has another length.
    pub fn rmsnorm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let len = weight.len();
        assert!(len > 0 && x.len().is_multiple_of(len), "{} values are not rows of {len}", x.len());
        assert_eq!(x.len(), out.len(), "one output a value");
        self.on_rows(out, len, &|first, out| {
            let from = Some(&x[first * len..][..out.len()]);
            self.perform(Normalize { from, x: out, weight, eps });
        });
    }

    /// [`Cpu::rmsnorm`] where the rows lie. With a `weight` as long as a head, each head of `x` is normalised by
    /// itself, as the queries and keys of Qwen 3 and Gemma 3 are.
    ///
    /// # Panics
    /// If `x` is not whole rows.
    pub fn rmsnorm_in_place(&self, x: &mut [f32], weight: &[f32], eps: f32) {
        let len = weight.len();
        assert!(len > 0 && x.len().is_multiple_of(len), "{} values are not rows of {len}", x.len());
        self.on_rows(x, len, &|_, x| self.perform(Normalize { from: None, x, weight, eps }));
    }

    /// `gate = gated(gate) * up`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub(crate) fn apply(&self, kind: Gate, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "one value of `up` for each of `gate`");
        match kind {
            Gate::Silu => self.perform(SiluMul { gate, up }),
            Gate::Gelu => self.perform(GeluMul { gate, up }),
        }
    }

    /// Adds `bias` to each row of `x`, which is as long as `bias`.
    ///
    /// # Panics
    /// If `x` is not whole rows.
    pub fn add_rows(&self, x: &mut [f32], bias: &[f32]) {
        let len = bias.len();
        assert!(len > 0 && x.len().is_multiple_of(len), "{} values are not rows of {len}", x.len());
        for row in x.chunks_exact_mut(len) {
            row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
        }
    }

    /// `x += y`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add(&self, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "one value of `y` for each of `x`");
        self.on_rows(x, 1, &|first, x| x.iter_mut().zip(&y[first..]).for_each(|(x, y)| *x += y));
    }

    /// Some rows of a matrix, as an embedding takes them.
    ///
    /// # Panics
    /// If there is no such row, or `out` is not as many rows.
    pub fn take_rows(&self, matrix: &Matrix, rows: &[u32], out: &mut [f32]) {
        let len = matrix.cols();
        assert_eq!(out.len(), rows.len() * len, "{} rows of {len}", rows.len());
        self.on_rows(out, len, &|first, out| {
            let rows = rows[first..].iter();
            out.chunks_exact_mut(len)
                .zip(rows)
                .for_each(|(out, &row)| matrix.dequantize_row(row as usize, out));
        });
    }

    /// `x *= by`.
    pub fn scale(&self, x: &mut [f32], by: f32) {
        self.on_rows(x, 1, &|_, x| x.iter_mut().for_each(|x| *x *= by));
    }
}

struct Normalize<'a> {
    /// Where the rows are taken from; None where they lie in `x` already.
    from: Option<&'a [f32]>,
    x: &'a mut [f32],
    weight: &'a [f32],
    eps: f32,
}

/// What a row is multiplied with, given the sum of its squares.
#[inline(always)]
fn inverse_root(sum: f32, len: usize, eps: f32) -> f32 {
    1.0 / (sum / len as f32 + eps).sqrt()
}

/// What a row is multiplied with.
fn factor(x: &[f32], eps: f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    for chunk in x.chunks(16) {
        for (lane, value) in lanes.iter_mut().zip(padded(chunk)) {
            *lane = value.mul_add(value, *lane);
        }
    }
    inverse_root(math::sum_of_lanes(lanes), x.len(), eps)
}

/// [`factor`] with vectors.
#[inline(always)]
fn factor_lanes<S: Sixteen>(x: &[f32], eps: f32) -> f32 {
    let (chunks, rest) = x.as_chunks::<16>();
    let mut lanes = S::splat(0.0);
    for chunk in chunks {
        let value = load16::<S>(chunk);
        lanes = S::fma(value, value, lanes);
    }
    let value = load16::<S>(&padded(rest));
    lanes = S::fma(value, value, lanes);
    inverse_root(S::sum(lanes), x.len(), eps)
}

impl Normalize<'_> {
    #[inline(always)]
    fn rows(self, factor: impl Fn(&[f32], f32) -> f32) {
        let len = self.weight.len();
        for (index, x) in self.x.chunks_exact_mut(len).enumerate() {
            // Products alone, which round the same however they are compiled.
            if let Some(from) = self.from {
                let from = &from[index * len..][..len];
                let factor = factor(from, self.eps);
                let weighted = x.iter_mut().zip(from).zip(self.weight);
                weighted.for_each(|((x, from), weight)| *x = *from * factor * weight);
            } else {
                let factor = factor(x, self.eps);
                x.iter_mut().zip(self.weight).for_each(|(x, weight)| *x = *x * factor * weight);
            }
        }
    }
}

impl Operation for Normalize<'_> {
    type Output = ();

    fn scalar(self) {
        self.rows(factor);
    }

    #[inline(always)]
    fn vector<S: Sixteen>(self) {
        self.rows(
            #[inline(always)]
            |x, eps| factor_lanes::<S>(x, eps),
        );
    }
}

struct SiluMul<'a> {
    gate: &'a mut [f32],
    up: &'a [f32],
}

#[inline(always)]
fn silu_mul_lanes<S: Sixteen>(gate: S::F, up: S::F) -> S::F {
    let below = S::add(S::splat(1.0), crate::math::exp_lanes::<S>(S::sub(S::splat(-0.0), gate)));
    S::mul(S::div(gate, below), up)
}

impl Operation for SiluMul<'_> {
    type Output = ();

    fn scalar(self) {
        for (gate, up) in self.gate.iter_mut().zip(self.up) {
            *gate = *gate / (1.0 + math::exp(-*gate)) * up;
        }
    }

    #[inline(always)]
    fn vector<S: Sixteen>(self) {
        // A function's name would be called, without the instructions; a closure is inlined.
        gated::<S>(
            self.gate,
            self.up,
            #[inline(always)]
            |gate, up| silu_mul_lanes::<S>(gate, up),
        );
    }
}

struct GeluMul<'a> {
    gate: &'a mut [f32],
    up: &'a [f32],
}

/// `(1 + tanh(y)) / 2` is `1 / (1 + exp(-2y))`: the exponent, without the gate that both of its terms have.
const GELU_LINEAR: f32 = -1.595_769;
const GELU_CUBIC: f32 = -0.071_354_82;

#[inline(always)]
fn gelu_mul_lanes<S: Sixteen>(gate: S::F, up: S::F) -> S::F {
    let slope = S::fma(S::mul(gate, gate), S::splat(GELU_CUBIC), S::splat(GELU_LINEAR));
    let below = S::add(S::splat(1.0), crate::math::exp_lanes::<S>(S::mul(slope, gate)));
    S::mul(S::div(gate, below), up)
}

impl Operation for GeluMul<'_> {
    type Output = ();

    fn scalar(self) {
        for (gate, up) in self.gate.iter_mut().zip(self.up) {
            let slope = (*gate * *gate).mul_add(GELU_CUBIC, GELU_LINEAR);
            *gate = *gate / (1.0 + math::exp(slope * *gate)) * up;
        }
    }

    #[inline(always)]
    fn vector<S: Sixteen>(self) {
        // A function's name would be called, without the instructions; a closure is inlined.
        gated::<S>(
            self.gate,
            self.up,
            #[inline(always)]
            |gate, up| gelu_mul_lanes::<S>(gate, up),
        );
    }
}

/// `gate = one(gate, up)`, 16 at a time.
#[inline(always)]
fn gated<S: Sixteen>(gate: &mut [f32], up: &[f32], one: impl Fn(S::F, S::F) -> S::F) {
    let (gates, gate_rest) = gate.as_chunks_mut::<16>();
    let (ups, up_rest) = up.as_chunks::<16>();
    for (gate, up) in gates.iter_mut().zip(ups) {
        let result = one(load16::<S>(gate), load16::<S>(up));
        store16::<S>(gate, result);
    }
    let mut last = padded(gate_rest);
    let result = one(load16::<S>(&last), load16::<S>(&padded(up_rest)));
    store16::<S>(&mut last, result);
    gate_rest.copy_from_slice(&last[..gate_rest.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 100.0 - 10.0).collect()
    }

    fn bits(numbers: &[f32]) -> Vec<u32> {
        numbers.iter().map(|number| number.to_bits()).collect()
    }

    /// Every instruction set, alone and on two threads, gives the bits of the scalar twin.
    fn assert_same_everywhere(what: &str, compute: impl Fn(&Cpu) -> Vec<f32>) -> Vec<f32> {
        let expected = compute(&Cpu::new(Isa::Scalar, 1, |_| ()));
        for isa in Isa::available() {
            for threads in [1, 2] {
                let found = compute(&Cpu::new(isa, threads, |_| ()));
                assert_eq!(bits(&found), bits(&expected), "{what} on {isa}, {threads} threads");
            }
        }
        expected
    }

    #[test]
    fn rmsnorm_of_all_lengths() {
        for len in (1..=70).chain([576]) {
            for rows in [1, 3, 40] {
                let (x, weight) = (numbers(rows * len, 1), numbers(len, 2));
                let found = assert_same_everywhere("rmsnorm", |cpu| {
                    let mut out = vec![0.0; x.len()];
                    cpu.rmsnorm(&x, &weight, 1e-5, &mut out);
                    out
                });
                let mean = x[..len].iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / len as f64;
                let truth = f64::from(x[len - 1]) / (mean + 1e-5).sqrt() * f64::from(weight[len - 1]);
                assert!((f64::from(found[len - 1]) - truth).abs() <= 1e-5 * truth.abs().max(1e-3));
            }
        }
    }

    #[test]
    fn silu_mul_of_all_lengths() {
        for len in (1..=70).chain([20_000]) {
            let (gate, up) = (numbers(len, 3), numbers(len, 4));
            let found = assert_same_everywhere("silu_mul", |cpu| {
                let mut out = gate.clone();
                cpu.apply(Gate::Silu, &mut out, &up);
                out
            });
            for ((found, gate), up) in found.iter().zip(&gate).zip(&up) {
                let truth = f64::from(*gate) / (1.0 + (-f64::from(*gate)).exp()) * f64::from(*up);
                assert!((f64::from(*found) - truth).abs() <= 2e-6 * truth.abs() + 1e-9);
            }
        }
    }

    #[test]
    fn silu_of_extreme_values() {
        let gate = [-1000.0, -89.0, -87.3, -0.0, 0.0, 87.4, 1000.0, f32::NEG_INFINITY, f32::INFINITY];
        let found = assert_same_everywhere("silu_mul", |cpu| {
            let mut out = gate.to_vec();
            cpu.apply(Gate::Silu, &mut out, &[1.0; 9]);
            out
        });
        assert!(found[0].abs() < 1e-30 && found[6] == 1000.0);
    }

    #[test]
    fn rmsnorm_in_place_has_the_bits_of_rmsnorm() {
        // Heads of the models that normalise them, and lengths that leave a rest.
        for (len, rows) in [(1, 3), (17, 5), (64, 9), (128, 32), (256, 12)] {
            let (x, weight) = (numbers(rows * len, 5), numbers(len, 6));
            let apart = assert_same_everywhere("rmsnorm", |cpu| {
                let mut out = vec![0.0; x.len()];
                cpu.rmsnorm(&x, &weight, 1e-6, &mut out);
                out
            });
            let in_place = assert_same_everywhere("rmsnorm_in_place", |cpu| {
                let mut x = x.clone();
                cpu.rmsnorm_in_place(&mut x, &weight, 1e-6);
                x
            });
            assert_eq!(bits(&in_place), bits(&apart), "rows of {len}");
        }
    }

    #[test]
    fn gelu_mul_of_all_lengths() {
        for len in (1..=70).chain([20_000]) {
            let (gate, up) = (numbers(len, 3), numbers(len, 4));
            let found = assert_same_everywhere("gelu_mul", |cpu| {
                let mut out = gate.clone();
                cpu.apply(Gate::Gelu, &mut out, &up);
                out
            });
            for ((found, gate), up) in found.iter().zip(&gate).zip(&up) {
                let g = f64::from(*gate);
                let exponent = 2.0 * (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044_715 * g.powi(3));
                let truth = g / (1.0 + (-exponent).exp()) * f64::from(*up);
                // An error of the exponent is one of the result, times the exponent.
                let error = 2e-7 * truth.abs() * (10.0 + exponent.abs()) + 1e-30;
                assert!((f64::from(*found) - truth).abs() <= error, "{gate} {up}: {found} {truth}");
                let by_tanh = g / 2.0 * (1.0 + (exponent / 2.0).tanh()) * f64::from(*up);
                assert!((truth - by_tanh).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn gelu_of_extreme_values() {
        let gate = [-1e30, -1000.0, -12.0, -0.0, 0.0, 12.0, 1000.0, 1e30, f32::INFINITY];
        let found = assert_same_everywhere("gelu_mul", |cpu| {
            let mut out = gate.to_vec();
            cpu.apply(Gate::Gelu, &mut out, &[1.0; 9]);
            out
        });
        assert!(found[0].abs() < 1e-7 && found[1].abs() < 1e-30 && found[2].abs() < 1e-30, "{found:?}");
        assert!(found[3..5].iter().all(|zero| *zero == 0.0), "{found:?}");
        assert_eq!(found[5..], gate[5..]);
    }

    #[test]
    fn a_bias_is_added_to_every_row() {
        let mut x = vec![1.0, 2.0, 3.0, 4.0];
        Cpu::new(Isa::Scalar, 1, |_| ()).add_rows(&mut x, &[0.5, -1.0]);
        assert_eq!(x, [1.5, 1.0, 3.5, 3.0]);
    }

    #[test]
    #[should_panic(expected = "3 values are not rows of 2")]
    fn a_bias_for_other_rows_is_refused() {
        Cpu::new(Isa::Scalar, 1, |_| ()).add_rows(&mut [0.0; 3], &[0.0; 2]);
    }

    #[test]
    fn sums_and_products() {
        let mut x = vec![1.0, 2.0];
        let cpu = Cpu::new(Isa::Scalar, 1, |_| ());
        cpu.add(&mut x, &[0.5, -1.0]);
        cpu.scale(&mut x, 2.0);
        assert_eq!(x, [3.0, 2.0]);
    }
}
