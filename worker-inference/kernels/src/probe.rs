//! How fast the machine is at this moment: the peak of int8 products from registers, to be printed beside figures.
//!
//! Nothing but multiplying and adding happens here: no memory beyond the first cache, no waiting. What it falls
//! short of its best, other programs, other guests of the host or heat have taken, and every figure measured then
//! is low by as much.

use std::hint::black_box;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::cpu::Cpu;
use crate::simd::{Operation, Sixteen, Vector};

/// Rows of four-bit weights that are multiplied with each input.
const WEIGHTS: usize = 4;
/// Inputs of one pass: with `WEIGHTS` they give more sums than an instruction takes cycles.
const INPUTS: usize = 3;
/// Passes between two looks at the clock: below a millisecond on vectors.
const PASSES: usize = 20_000;
/// Bytes of one input on the widest vectors.
const BYTES: usize = 64;

type Rows<const N: usize> = [[u8; BYTES]; N];

impl Cpu {
    /// Int8 operations a second (a multiplication and an addition are two) of all threads together, in thousands
    /// of millions, measured for `at_least` so long with the instructions of this handle.
    pub fn peak(&self, at_least: Duration) -> f64 {
        let threads = self.threads();
        let rates = Mutex::new(0.0);
        self.run(threads, &|_| {
            let rate = self.rate_of_one(at_least);
            *rates.lock().unwrap_or_else(PoisonError::into_inner) += rate;
        });
        rates.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn rate_of_one(&self, at_least: Duration) -> f64 {
        let (weights, inputs) = numbers();
        let (start, mut operations) = (Instant::now(), 0);
        loop {
            let passes = Passes { weights: black_box(&weights), inputs: black_box(&inputs), count: PASSES };
            let done = self.perform(passes);
            black_box(done.sum);
            operations += done.operations;
            let seconds = start.elapsed();
            if seconds >= at_least {
                return operations as f64 / seconds.as_secs_f64() / 1e9;
            }
        }
    }
}

/// Weights from 0 to 15, and inputs so small that no sum overflows.
fn numbers() -> (Rows<WEIGHTS>, Rows<INPUTS>) {
    let mut weights = [[0; BYTES]; WEIGHTS];
    let mut inputs = [[0; BYTES]; INPUTS];
    for at in 0..BYTES {
        weights.iter_mut().enumerate().for_each(|(row, bytes)| bytes[at] = ((at * 7 + row * 5) % 16) as u8);
        inputs.iter_mut().enumerate().for_each(|(row, bytes)| bytes[at] = ((at * 3 + row * 11) % 15) as u8);
    }
    (weights, inputs)
}

/// Every row of weights times every input, `count` times over.
struct Passes<'a> {
    weights: &'a Rows<WEIGHTS>,
    inputs: &'a Rows<INPUTS>,
    count: usize,
}

/// What was done, and what came out of it.
#[derive(Debug, PartialEq, Eq)]
struct Done {
    operations: u64,
    sum: i64,
}

impl Done {
    /// All rows times all inputs, so often.
    fn new(count: usize, sum: i64) -> Done {
        Done { operations: (2 * BYTES * WEIGHTS * INPUTS * count) as u64, sum }
    }
}

impl Operation for Passes<'_> {
    type Output = Done;

    fn scalar(self) -> Done {
        let mut sums = [[0_i32; INPUTS]; WEIGHTS];
        for _ in 0..self.count {
            let inputs = black_box(self.inputs);
            for (sums, weights) in sums.iter_mut().zip(self.weights) {
                for (sum, input) in sums.iter_mut().zip(inputs) {
                    let products = weights
                        .iter()
                        .zip(input)
                        .map(|(&weight, &input)| i32::from(weight) * i32::from(input));
                    *sum += products.sum::<i32>();
                }
            }
        }
        Done::new(self.count, sums.iter().flatten().map(|&sum| i64::from(sum)).sum())
    }

    #[inline(always)]
    fn vector<S: Sixteen>(self) -> Done {
        let bytes = 4 * S::Native::LANES;
        let mut total = 0;
        for from in (0..BYTES).step_by(bytes) {
            total += part_of::<S::Native>(&self, from);
        }
        Done::new(self.count, total)
    }
}

/// The part of the rows that begins at byte `from` and fills one vector.
#[inline(always)]
fn part_of<V: Vector>(passes: &Passes<'_>, from: usize) -> i64 {
    // SAFETY: `from` and the bytes of a vector together are at most the bytes of a row.
    let load = |row: &[u8; BYTES]| unsafe { V::load_bytes(row[from..from + 4 * V::LANES].as_ptr()) };
    let weights = [0, 1, 2, 3].map(|row| load(&passes.weights[row]));
    let mut sums = [[V::splat_i(0); INPUTS]; WEIGHTS];
    for _ in 0..passes.count {
        let inputs = black_box(passes.inputs);
        for input in 0..INPUTS {
            let input_bytes = load(&inputs[input]);
            for row in 0..WEIGHTS {
                sums[row][input] = V::dot_u7(sums[row][input], weights[row], input_bytes);
            }
        }
    }
    let mut lanes = [0.0_f32; 16];
    let mut total = 0;
    for sum in sums.iter().flatten() {
        // SAFETY: 16 lanes are at least those of a vector.
        unsafe { V::store(lanes.as_mut_ptr(), V::to_float(*sum)) };
        total += lanes[..V::LANES].iter().map(|&lane| lane as i64).sum::<i64>();
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    #[test]
    fn all_instructions_do_the_same_work() {
        let (weights, inputs) = numbers();
        let passes = |count| Passes { weights: &weights, inputs: &inputs, count };
        let expected = passes(50).scalar();
        assert!(expected.sum > 0);
        for isa in Isa::available() {
            assert_eq!(Cpu::new(isa, 1, |_| ()).perform(passes(50)), expected, "{isa}");
        }
    }

    #[test]
    fn no_sum_overflows() {
        let most = 4 * 15 * 14 * PASSES as i64;
        assert!(most * (BYTES as i64 / 4) < i64::from(i32::MAX), "a scalar sum takes all lanes: {most}");
    }

    #[test]
    fn a_peak_is_a_rate() {
        for isa in Isa::available() {
            let peak = Cpu::new(isa, 2, |_| ()).peak(Duration::from_millis(5));
            assert!(peak > 0.01 && peak < 1e5, "{isa}: {peak}");
        }
    }
}
