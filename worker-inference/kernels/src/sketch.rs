//! The largest products of a matrix without reading all of it.
//!
//! A *sketch* is the matrix in five bits. What it leaves out of a row has a length, and no product of the row is further
//! from the sketch's than that length times the length of the input (Cauchy and Schwarz). So a row that stays further below
//! the best one than that can't be the largest, whatever was left out, and only the others are multiplied with the
//! matrix itself. The largest product has the same bits as if all had been.
//!
//! Five bits, because of what is left to multiply: of the output matrices of SmolLM2-135M and Gemma 3 270M, on text, 0.7 and
//! 0.02 % of the groups of rows in the median. With four bits it would be 79 and 0.4 %.

use crate::activations::Activations;
use crate::cpu::Cpu;
use crate::half;
use crate::math;
use crate::matrix::{self, GROUP, Matrix, ShapeError};
use crate::pool::{Shards, share};
use crate::quant::{BLOCK, Format, dequantize};
use crate::simd::{Operation, Sixteen, load16, padded};

/// How a sketch is stored.
const FORMAT: Format = Format::Q5_0;
/// The number that stands for zero.
const ZERO: f32 = 16.0;

/// If more than one group of rows in so many may hold the largest product, it is quicker to multiply them all.
const FEW: usize = 4;

/// A matrix in five bits, and how far it is off.
pub struct Sketch {
    matrix: Matrix,
    /// No product of a row is further off than this times the length of the input.
    off: Vec<f32>,
}

impl Sketch {
    /// Whether reading a sketch is so much quicker than reading such a matrix that one should be made.
    pub fn pays(matrix: &Matrix) -> bool {
        matrix.format() == Format::Q8_0
    }

    /// Of a tensor of `rows` x `cols` values as it lies in a GGUF file. `advise` sees its memory before it is touched, to ask
    /// for huge pages.
    ///
    /// # Errors
    /// When shape, format and `data` do not fit together, or rows are not whole blocks of 32.
    pub fn of(
        format: Format,
        rows: usize,
        cols: usize,
        data: &[u8],
        advise: impl FnOnce(&[u8]),
    ) -> Result<Sketch, ShapeError> {
        matrix::check(format, rows, cols, data)?;
        let bytes = data.len() / rows;
        let mut matrix = Matrix::zeroed(FORMAT, rows, cols, advise)?;
        let mut off = Vec::with_capacity(rows);
        let (mut values, mut line) = (vec![0.0; cols], Vec::new());
        for (row, data) in data.chunks_exact(bytes).enumerate() {
            dequantize(format, data, &mut values);
            line.clear();
            let row_off = sketch_row(&values, &mut line).off(cols);
            off.push(row_off);
            // Of what is no number nothing is known, and its sketch stays zero.
            if row_off.is_finite() {
                matrix.fill_row(row, &line);
            }
        }
        Ok(Sketch { matrix, off })
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.matrix.bytes() + std::mem::size_of_val(&self.off[..])
    }
}

/// The lengths of a row and of what its sketch leaves out of it, squared.
#[derive(Default)]
struct Lengths {
    row: f64,
    left_out: f64,
}

impl Lengths {
    /// What is left out, and what rounding adds: both products are sums of a term a block, which together are not larger
    /// than the length of the row times that of the input, and each step of either errs by no more than `2^-24` of that.
    /// Infinite if it is no number.
    fn off(&self, cols: usize) -> f32 {
        let (row, left_out) = (self.row.sqrt(), self.left_out.sqrt());
        let steps = (cols / BLOCK + 16) as f64;
        let off = left_out + steps * f64::from(f32::EPSILON) * (row + left_out);
        if off.is_finite() { (off as f32).next_up() } else { f32::INFINITY }
    }
}

/// Appends a row in [`FORMAT`], as in a file.
fn sketch_row(values: &[f32], line: &mut Vec<u8>) -> Lengths {
    let mut lengths = Lengths::default();
    for block in values.as_chunks::<BLOCK>().0 {
        let farther = |most: f32, value: &f32| if value.abs() > most.abs() { *value } else { most };
        let half = half::from_f32(block.iter().fold(0.0, farther) / -ZERO);
        let scale = half::to_f32(half);
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let numbers = block.map(|value| (value * inverse + ZERO + 0.5).clamp(0.0, 2.0 * ZERO - 1.0) as u8);
        for (value, number) in block.iter().zip(numbers) {
            let left_out = f64::from(*value) - f64::from(scale) * f64::from(f32::from(number) - ZERO);
            lengths.row += f64::from(*value) * f64::from(*value);
            lengths.left_out += left_out * left_out;
        }
        let fifth_bits = (0..BLOCK).fold(0u32, |bits, index| bits | u32::from(numbers[index] >> 4) << index);
        line.extend_from_slice(&half.to_le_bytes());
        line.extend_from_slice(&fifth_bits.to_le_bytes());
        line.extend((0..BLOCK / 2).map(|index| numbers[index] & 15 | numbers[index + BLOCK / 2] << 4));
    }
    lengths
}

impl Cpu {
    /// What [`Cpu::matmul`] gives, for every product that may be the largest of its row; negative infinity for most others.
    /// False if so many may be that it is quicker to compute all: then `out` holds nothing of use.
    ///
    /// # Panics
    /// As [`Cpu::matmul`], and if the sketch has another shape than the matrix.
    pub fn matmul_largest(
        &self,
        matrix: &Matrix,
        sketch: &Sketch,
        activations: &Activations,
        out: &mut [f32],
    ) -> bool {
        let shape = (sketch.matrix.rows(), sketch.matrix.cols());
        assert_eq!((matrix.rows(), matrix.cols()), shape, "rows and columns of a sketch");
        self.matmul(&sketch.matrix, activations, out);

        // What seems to be the largest of each row is computed: others must reach it.
        let rows = matrix.rows();
        let best: Vec<usize> = out.chunks_exact(rows).map(|out| self.argmax(out) / GROUP).collect();
        let mut groups = best.clone();
        groups.sort_unstable();
        groups.dedup();
        self.matmul_groups(matrix, activations, &groups, out);
        let bars = out.chunks_exact(rows).zip(best).enumerate().map(|(row, (out, best))| {
            let group = &out[best * GROUP..rows.min((best + 1) * GROUP)];
            let bar = group.iter().fold(f32::NEG_INFINITY, |most, &product| math::max(product, most));
            Bar { bar, length: activations.length(row) }
        });
        let bars: Vec<Bar> = bars.collect();
        if !bars.iter().all(|bar| bar.length.is_finite()) {
            return false;
        }

        let mut may_win = self.reaching(&bars, &sketch.off, out);
        groups.iter().for_each(|&group| may_win[group] = false);
        let rest: Vec<usize> = (0..may_win.len()).filter(|&group| may_win[group]).collect();
        if rest.len() * FEW > may_win.len() {
            return false;
        }
        groups.iter().for_each(|&group| may_win[group] = true);
        for out in out.chunks_exact_mut(rows) {
            let unfit = out.chunks_mut(GROUP).zip(&may_win).filter(|(_, may_win)| !**may_win);
            unfit.for_each(|(out, _)| out.fill(f32::NEG_INFINITY));
        }
        self.matmul_groups(matrix, activations, &rest, out);
        true
    }

    /// The groups with a product that may reach its row's bar, being as far off as it can be.
    fn reaching(&self, bars: &[Bar], off: &[f32], products: &[f32]) -> Vec<bool> {
        let mut groups = vec![false; off.len().div_ceil(GROUP)];
        let (count, shards) = (groups.len(), Shards::new(&mut groups));
        self.on_threads(products.len(), &|thread, threads| {
            let own = share(count, thread, threads);
            let rows = own.start * GROUP..off.len().min(own.end * GROUP);
            // SAFETY: the shares of two threads have no group in common.
            let groups = unsafe { shards.slice(own) };
            for (bar, products) in bars.iter().zip(products.chunks_exact(off.len())) {
                let (off, products) = (&off[rows.clone()], &products[rows.clone()]);
                self.perform(Reach { bar, off, products, groups: &mut *groups });
            }
        });
        groups
    }
}

/// What a row's products must reach to be its largest.
struct Bar {
    bar: f32,
    /// Of the row's input.
    length: f32,
}

/// Marks each group of 16 of which one reaches the bar.
struct Reach<'a> {
    bar: &'a Bar,
    off: &'a [f32],
    products: &'a [f32],
    groups: &'a mut [bool],
}

impl Operation for Reach<'_> {
    type Output = ();

    fn scalar(self) {
        let Bar { bar, length } = *self.bar;
        let groups = self.products.chunks(GROUP).zip(self.off.chunks(GROUP)).zip(self.groups);
        for ((products, off), group) in groups {
            let reach = products.iter().zip(off).map(|(product, off)| off.mul_add(length, *product));
            *group |= reach.fold(f32::NEG_INFINITY, |most, reach| math::max(reach, most)) >= bar;
        }
    }

    #[inline(always)]
    fn vector<S: Sixteen>(self) {
        let Bar { bar, length } = *self.bar;
        let (length, least) = (S::splat(length), S::splat(f32::NEG_INFINITY));
        let groups = self.products.chunks(GROUP).zip(self.off.chunks(GROUP)).zip(self.groups);
        for ((products, off), group) in groups {
            let reach = match (products.try_into(), off.try_into()) {
                (Ok(products), Ok(off)) => S::fma(load16::<S>(off), length, load16::<S>(products)),
                // The last few. What fills them up reaches nothing.
                _ => S::fma(load16::<S>(&padded(off)), length, load16::<S>(&filled(products))),
            };
            *group |= S::largest(S::max(reach, least)) >= bar;
        }
    }
}

/// 16 numbers from a slice of fewer, the rest negative infinity.
#[inline(always)]
fn filled(numbers: &[f32]) -> [f32; GROUP] {
    let mut lanes = [f32::NEG_INFINITY; GROUP];
    lanes[..numbers.len()].copy_from_slice(numbers);
    lanes
}

#[cfg(test)]
mod tests;
