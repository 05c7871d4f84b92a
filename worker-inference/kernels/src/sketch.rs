//! The largest products of a matrix without reading all of it.
//!
//! A *sketch* is the matrix in four bits. What it leaves out of a row has a length, and no product of the row is further
//! from the sketch's than that length times the length of the input (Cauchy and Schwarz). So a row that stays further below
//! the best one than that can't be the largest, whatever was left out, and only the others are multiplied with the
//! matrix itself. The largest product has the same bits as if all had been.

use crate::activations::Activations;
use crate::cpu::Cpu;
use crate::half;
use crate::math;
use crate::matrix::{GROUP, Matrix, ShapeError};
use crate::quant::{BLOCK, Format, dequantize};
use crate::simd::{Operation, Sixteen, load16};
use std::cmp::Ordering;

/// How a sketch is stored.
const FORMAT: Format = Format::Q4_0;

/// Values of the smallest matrix that is sketched: a smaller one is read in no time.
const VALUES_MIN: usize = 1 << 20;

/// If more than one group of rows in so many may hold the largest product, it is quicker to multiply them all.
const FEW: usize = 4;

/// A matrix in four bits, and how far it is off.
pub struct Sketch {
    matrix: Matrix,
    /// For each group of rows: no product of them is further off than this times the length of the input.
    off: Vec<f64>,
}

impl Sketch {
    /// Whether reading a sketch is so much quicker than reading such a matrix that one should be made.
    pub fn pays(matrix: &Matrix) -> bool {
        matches!(matrix.format(), Format::Q8_0 | Format::Q6_K) && matrix.rows() * matrix.cols() >= VALUES_MIN
    }

    /// Of a tensor of `rows` x `cols` values as it lies in a GGUF file.
    ///
    /// # Errors
    /// When shape, format and `data` do not fit together, or rows are not whole blocks of 32.
    pub fn of(format: Format, rows: usize, cols: usize, data: &[u8]) -> Result<Sketch, ShapeError> {
        let bytes = Matrix::checked_bytes(format, rows, cols, data)? / rows;
        let mut matrix = Matrix::zeroed(FORMAT, rows, cols)?;
        let mut off = vec![0.0; rows.div_ceil(GROUP)];
        let (mut values, mut line) = (vec![0.0; cols], Vec::new());
        for (row, data) in data.chunks_exact(bytes).enumerate() {
            dequantize(format, data, &mut values);
            line.clear();
            let lengths = sketch_row(&values, &mut line);
            matrix.fill_row(row, &line);
            let farthest: &mut f64 = &mut off[row / GROUP];
            let off = lengths.off(cols);
            // What is no number stays: nothing is known of such a group.
            if off.is_nan() || off > *farthest {
                *farthest = off;
            }
        }
        Ok(Sketch { matrix, off })
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.matrix.bytes() + std::mem::size_of_val(&self.off[..])
    }
}

/// The lengths of a row and of what its sketch leaves out of it.
#[derive(Default)]
struct Lengths {
    square: f64,
    square_left_out: f64,
}

impl Lengths {
    /// What is left out, and what rounding adds: both products are sums of a term a block, which are together not larger
    /// than the length of the row times that of the input, and each step of either errs by no more than `2^-24` of that.
    fn off(&self, cols: usize) -> f64 {
        let (length, left_out) = (self.square.sqrt(), self.square_left_out.sqrt());
        let roundings = (cols / BLOCK + 8) as f64;
        left_out + roundings * f64::from(f32::EPSILON) * (length + left_out)
    }
}

/// Appends a row in [`FORMAT`], as in a file.
fn sketch_row(values: &[f32], line: &mut Vec<u8>) -> Lengths {
    let mut lengths = Lengths::default();
    for block in values.as_chunks::<BLOCK>().0 {
        let farthest =
            block.iter().fold(0.0f32, |most, &value| if value.abs() > most.abs() { value } else { most });
        let scale = half::from_f32(farthest / -8.0);
        let inverse = if half::to_f32(scale) == 0.0 { 0.0 } else { 1.0 / half::to_f32(scale) };
        let numbers = block.map(|value| (value * inverse + 8.5).clamp(0.0, 15.0) as u8);
        for (value, number) in block.iter().zip(numbers) {
            let left_out = f64::from(*value) - f64::from(half::to_f32(scale)) * (f64::from(number) - 8.0);
            lengths.square += f64::from(*value) * f64::from(*value);
            lengths.square_left_out += left_out * left_out;
        }
        line.extend_from_slice(&scale.to_le_bytes());
        line.extend((0..BLOCK / 2).map(|index| numbers[index] | numbers[index + BLOCK / 2] << 4));
    }
    lengths
}

impl Cpu {
    /// What [`Cpu::matmul`] gives, for every product that may be the largest of its row; negative infinity for all others.
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
        assert_eq!(
            (matrix.rows(), matrix.cols()),
            (sketch.matrix.rows(), sketch.matrix.cols()),
            "rows and cols"
        );
        let (rows, groups) = (matrix.rows(), matrix.groups());
        self.matmul(&sketch.matrix, activations, out);
        let tops = self.tops(out, rows);
        out.fill(f32::NEG_INFINITY);

        let best: Vec<usize> = tops.chunks_exact(groups).map(|tops| self.argmax(tops)).collect();
        let mut first = best.clone();
        first.sort_unstable();
        first.dedup();
        self.matmul_groups(matrix, activations, &first, out);

        let bars: Vec<Bar<'_>> = (0..activations.m())
            .map(|row| {
                let group = row * rows + best[row] * GROUP..row * rows + rows.min((best[row] + 1) * GROUP);
                Bar {
                    tops: &tops[row * groups..][..groups],
                    largest: f64::from(
                        out[group].iter().fold(f32::NEG_INFINITY, |most, &x| math::max(x, most)),
                    ),
                    length: activations.length(row),
                }
            })
            .collect();
        let may_win = |group: &usize| bars.iter().any(|bar| bar.is_reached(*group, sketch.off[*group]));
        let rest: Vec<usize> =
            (0..groups).filter(|group| first.binary_search(group).is_err()).filter(may_win).collect();
        if rest.len() * FEW > groups {
            return false;
        }
        self.matmul_groups(matrix, activations, &rest, out);
        true
    }

    /// The largest of each 16 products, row by row.
    fn tops(&self, products: &[f32], row_len: usize) -> Vec<f32> {
        let groups = row_len.div_ceil(GROUP);
        let mut tops = vec![0.0; products.len() / row_len * groups];
        for (products, tops) in products.chunks_exact(row_len).zip(tops.chunks_exact_mut(groups)) {
            self.perform(Tops { products, tops });
        }
        tops
    }
}

/// What a row's products must reach to be its largest.
struct Bar<'a> {
    /// The largest product of each group by the sketch.
    tops: &'a [f32],
    /// A product that is there.
    largest: f64,
    /// Of the input.
    length: f64,
}

impl Bar<'_> {
    /// Whether the group may reach it; where something is no number, it may.
    fn is_reached(&self, group: usize, off: f64) -> bool {
        (f64::from(self.tops[group]) + off * self.length).partial_cmp(&self.largest) != Some(Ordering::Less)
    }
}

/// The largest of each 16 numbers, negative infinity if none is a number.
struct Tops<'a> {
    products: &'a [f32],
    tops: &'a mut [f32],
}

impl Operation for Tops<'_> {
    type Output = ();

    fn scalar(self) {
        for (products, top) in self.products.chunks(GROUP).zip(self.tops) {
            *top = products.iter().fold(f32::NEG_INFINITY, |most, &product| math::max(product, most));
        }
    }

    #[inline(always)]
    fn vector<S: Sixteen>(self) {
        let least = S::splat(f32::NEG_INFINITY);
        let (chunks, rest) = self.products.as_chunks::<GROUP>();
        for (chunk, top) in chunks.iter().zip(self.tops.iter_mut()) {
            *top = S::largest(S::max(load16::<S>(chunk), least));
        }
        if !rest.is_empty() {
            let mut last = [f32::NEG_INFINITY; GROUP];
            last[..rest.len()].copy_from_slice(rest);
            self.tops[chunks.len()] = S::largest(S::max(load16::<S>(&last), least));
        }
    }
}

#[cfg(test)]
mod tests;
