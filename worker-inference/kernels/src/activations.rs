//! The input of a matrix product: rows of floats, also as 8-bit integers in blocks of 32.
//!
//! A block becomes `scale * q` with `q` from -127 to 127, rounded to nearest even, and its sum is kept for
//! weights that have a least value or a zero point. Rows are stored in panels of 16: all rows of a panel lie side
//! by side for one block, then the next block. One row alone is thus simply contiguous.

use crate::cpu::Cpu;
use crate::math;
use crate::matrix::Matrix;
use crate::memory::Lines;
use crate::pool::{Shards, share};
use crate::quant::BLOCK;
use crate::simd::{Operation, Sixteen, load16, store16};
use std::ops::Range;

/// Rows of a panel.
pub(crate) const PANEL: usize = 16;

/// Blocks whose largest value is below this are zero; their inverse scale would overflow.
const ZERO_BELOW: f32 = 1e-30;

/// Blocks of a row that are asked for ahead.
const AHEAD: usize = 4;

/// Prepared input rows. Keep one for each place that needs it: its buffers are reused.
#[derive(Default)]
pub struct Activations {
    m: usize,
    k: usize,
    has_blocks: bool,
    has_floats: bool,
    bytes: Lines,
    scales: Vec<f32>,
    sums: Vec<f32>,
    offsets: Vec<i32>,
    halves: Vec<[i32; 2]>,
    floats: Vec<f32>,
}

/// The blocks of up to 16 rows: item `block * width + row` of each slice, 32 bytes each in `bytes`.
#[derive(Clone, Copy)]
pub(crate) struct Panel<'a> {
    pub(crate) width: usize,
    pub(crate) bytes: &'a [i8],
    pub(crate) scales: &'a [f32],
    /// Scale times the sum of the block.
    pub(crate) sums: &'a [f32],
    /// -128 times the sum of the block's bytes.
    pub(crate) offsets: &'a [i32],
    /// The same for the first and the last 16 bytes.
    pub(crate) halves: &'a [[i32; 2]],
}

impl Activations {
    pub fn new() -> Activations {
        Activations::default()
    }

    /// Rows.
    pub fn m(&self) -> usize {
        self.m
    }

    /// Values in a row.
    pub fn k(&self) -> usize {
        self.k
    }

    pub(crate) fn panels(&self) -> usize {
        self.m.div_ceil(PANEL)
    }

    pub(crate) fn width(&self, panel: usize) -> usize {
        PANEL.min(self.m - panel * PANEL)
    }

    #[inline(always)]
    pub(crate) fn panel(&self, panel: usize) -> Panel<'_> {
        assert!(self.has_blocks, "activations were not prepared for a quantised matrix");
        let blocks = self.k / BLOCK;
        let range = panel * PANEL * blocks..(panel * PANEL + self.width(panel)) * blocks;
        Panel {
            width: self.width(panel),
            bytes: &self.bytes[range.start * BLOCK..range.end * BLOCK],
            scales: &self.scales[range.clone()],
            sums: &self.sums[range.clone()],
            offsets: &self.offsets[range.clone()],
            halves: &self.halves[range],
        }
    }

    /// The length of a row as it is multiplied with a quantised matrix, or a little more.
    pub(crate) fn length(&self, row: usize) -> f32 {
        let (panel, row) = (self.panel(row / PANEL), row % PANEL);
        let square = |item: usize| {
            let scale = f64::from(panel.scales[item]);
            let bytes = &panel.bytes[item * BLOCK..][..BLOCK];
            scale * scale * f64::from(bytes.iter().map(|&q| i32::from(q) * i32::from(q)).sum::<i32>())
        };
        let items = (row..panel.scales.len()).step_by(panel.width);
        (items.map(square).sum::<f64>().sqrt() as f32).next_up()
    }

    pub(crate) fn float_rows(&self) -> &[f32] {
        assert!(self.has_floats, "activations were not prepared for a float matrix");
        &self.floats
    }

    /// Makes room for `m` rows as products with these matrices need them.
    fn resize(&mut self, m: usize, matrices: &[&Matrix]) {
        let k = matrices.first().expect("activations are prepared for at least one matrix").cols();
        assert!(matrices.iter().all(|matrix| matrix.cols() == k), "matrices of different width");
        self.m = m;
        self.k = k;
        self.has_blocks = matrices.iter().any(|matrix| matrix.format().is_quantised());
        self.has_floats = matrices.iter().any(|matrix| !matrix.format().is_quantised());
        let blocks = if self.has_blocks { m * (k / BLOCK) } else { 0 };
        self.bytes.resize(blocks * BLOCK);
        self.scales.resize(blocks, 0.0);
        self.sums.resize(blocks, 0.0);
        self.offsets.resize(blocks, 0);
        self.halves.resize(blocks, [0; 2]);
        self.floats.resize(if self.has_floats { m * k } else { 0 }, 0.0);
    }

    /// To be filled with `m` rows, in the forms that products with these matrices need.
    pub(crate) fn filling(&mut self, m: usize, matrices: &[&Matrix]) -> Filling<'_> {
        self.resize(m, matrices);
        Filling {
            m,
            k: self.k,
            has_blocks: self.has_blocks,
            has_floats: self.has_floats,
            bytes: Shards::new(&mut self.bytes),
            scales: Shards::new(&mut self.scales),
            sums: Shards::new(&mut self.sums),
            offsets: Shards::new(&mut self.offsets),
            halves: Shards::new(&mut self.halves),
            floats: Shards::new(&mut self.floats),
        }
    }
}

/// Rows that are being prepared, piece by piece.
pub(crate) struct Filling<'a> {
    m: usize,
    k: usize,
    has_blocks: bool,
    has_floats: bool,
    bytes: Shards<'a, i8>,
    scales: Shards<'a, f32>,
    sums: Shards<'a, f32>,
    offsets: Shards<'a, i32>,
    halves: Shards<'a, [i32; 2]>,
    floats: Shards<'a, f32>,
}

impl Filling<'_> {
    /// Takes some columns of the rows of a panel, whole blocks if blocks are wanted; `x` has them row by row.
    ///
    /// # Safety
    /// Nobody else takes these columns of the panel meanwhile.
    pub(crate) unsafe fn take(&self, cpu: &Cpu, panel: usize, columns: Range<usize>, x: &[f32]) {
        let rows = panel * PANEL..self.m.min((panel + 1) * PANEL);
        assert_eq!(x.len(), rows.len() * columns.len());
        if self.has_blocks {
            let (width, first) = (rows.len(), rows.start * (self.k / BLOCK));
            let items = first + columns.start / BLOCK * width..first + columns.end / BLOCK * width;
            // SAFETY: the items of a panel's block lie side by side, those of other blocks and panels elsewhere.
            let operation = unsafe {
                Quantize {
                    x,
                    width,
                    blocks: columns.len() / BLOCK,
                    bytes: self.bytes.slice(items.start * BLOCK..items.end * BLOCK),
                    scales: self.scales.slice(items.clone()),
                    sums: self.sums.slice(items.clone()),
                    offsets: self.offsets.slice(items.clone()),
                    halves: self.halves.slice(items),
                }
            };
            cpu.perform(operation);
        }
        if self.has_floats {
            for (row, x) in rows.zip(x.chunks_exact(columns.len())) {
                let start = row * self.k + columns.start;
                // SAFETY: these columns of this row are nobody else's.
                unsafe { self.floats.slice(start..start + x.len()) }.copy_from_slice(x);
            }
        }
    }
}

impl Cpu {
    /// Takes `m` rows of `x` in the forms that products with these matrices need. All have the same `cols`,
    /// which is the length of a row.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn prepare(&self, activations: &mut Activations, x: &[f32], m: usize, matrices: &[&Matrix]) {
        let filling = activations.filling(m, matrices);
        let k = filling.k;
        assert_eq!(x.len(), m * k, "{m} rows of {k} values");
        self.on_threads(m * k, &|thread, threads| {
            for panel in share(m.div_ceil(PANEL), thread, threads) {
                let rows = panel * PANEL..m.min((panel + 1) * PANEL);
                // SAFETY: every panel belongs to one thread.
                unsafe { filling.take(self, panel, 0..k, &x[rows.start * k..rows.end * k]) };
            }
        });
    }
}

/// Fills one panel from its rows.
struct Quantize<'a> {
    x: &'a [f32],
    width: usize,
    blocks: usize,
    bytes: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [f32],
    offsets: &'a mut [i32],
    halves: &'a mut [[i32; 2]],
}

impl Quantize<'_> {
    /// The scale of a block with this largest magnitude, and what its values are multiplied with.
    #[inline(always)]
    fn scale(largest: f32) -> (f32, f32) {
        if largest < ZERO_BELOW { (0.0, 0.0) } else { (largest / 127.0, 127.0 / largest) }
    }

    #[inline(always)]
    fn keep(&mut self, item: usize, scale: f32, halves: [i32; 2]) {
        let sum = halves[0] + halves[1];
        self.scales[item] = scale;
        self.sums[item] = scale * sum as f32;
        self.offsets[item] = -128 * sum;
        self.halves[item] = [-128 * halves[0], -128 * halves[1]];
    }
}

impl Operation for Quantize<'_> {
    type Output = ();

    fn scalar(mut self) {
        for (index, block) in self.x.as_chunks::<BLOCK>().0.iter().enumerate() {
            let item = index % self.blocks * self.width + index / self.blocks;
            let largest = block.iter().fold(0.0, |largest, value| math::max(value.abs(), largest));
            let (scale, inverse) = Self::scale(largest);
            let mut halves = [0; 2];
            for (index, (value, byte)) in block.iter().zip(&mut self.bytes[item * BLOCK..]).enumerate() {
                let q = math::min(math::max(value * inverse, -127.0), 127.0).round_ties_even() as i8;
                *byte = q;
                halves[index / 16] += i32::from(q);
            }
            self.keep(item, scale, halves);
        }
    }

    #[inline(always)]
    fn vector<S: Sixteen>(mut self) {
        for block in 0..self.blocks {
            if self.width == PANEL {
                self.whole::<S>(block);
                continue;
            }
            for row in 0..self.width {
                let item = block * self.width + row;
                let [a, b] = self.load::<S>(row, block);
                let (scale, inverse) = Self::scale(S::largest(Self::magnitude::<S>(a, b)));
                let halves = self.round::<S>(item, [a, b], S::splat(inverse));
                self.keep(item, scale, [S::sum_i(halves[0]), S::sum_i(halves[1])]);
            }
        }
    }
}

impl Quantize<'_> {
    /// A block of all rows of a whole panel: what is to be found out of each row is found for all of them at once.
    #[inline(always)]
    fn whole<S: Sixteen>(&mut self, block: usize) {
        let mut largest = [S::splat(0.0); PANEL];
        for (row, largest) in largest.iter_mut().enumerate() {
            let [a, b] = self.load::<S>(row, block);
            self.ask_ahead::<S>(row, block);
            *largest = Self::magnitude::<S>(a, b);
        }
        let (largest, most, bound) = (S::largest_of_each(&largest), S::splat(127.0), S::splat(ZERO_BELOW));
        let (mut scales, mut inverses) = ([0.0; PANEL], [0.0; PANEL]);
        store16::<S>(&mut scales, S::zero_below(largest, bound, S::div(largest, most)));
        store16::<S>(&mut inverses, S::zero_below(largest, bound, S::div(most, largest)));
        let mut halves = [[S::splat_i(0); PANEL]; 2];
        for row in 0..PANEL {
            let values = self.load::<S>(row, block);
            let [first, second] = self.round::<S>(block * PANEL + row, values, S::splat(inverses[row]));
            (halves[0][row], halves[1][row]) = (first, second);
        }
        let halves = halves.each_ref().map(S::sum_of_each);
        self.keep_all::<S>(block, &scales, halves);
    }

    /// As [`Quantize::keep`], for the items of a block of a whole panel.
    #[inline(always)]
    fn keep_all<S: Sixteen>(&mut self, block: usize, scales: &[f32; PANEL], halves: [S::I; 2]) {
        let items = block * PANEL..(block + 1) * PANEL;
        let sum = S::to_float(S::add_i(halves[0], halves[1]));
        let lanes = |slice: &mut [f32], lanes: S::F| {
            store16::<S>(slice.try_into().expect("16 items"), lanes);
        };
        self.scales[items.clone()].copy_from_slice(scales);
        lanes(&mut self.sums[items.clone()], S::mul(load16::<S>(scales), sum));
        let times = S::splat(-128.0);
        let mut whole = [[0i32; PANEL]; 3];
        for (to, sum) in whole.iter_mut().zip([S::to_float(halves[0]), S::to_float(halves[1]), sum]) {
            // SAFETY: 16 lanes of four bytes.
            unsafe { S::store_bytes(to.as_mut_ptr().cast(), S::to_int(S::mul(sum, times))) };
        }
        let [first, second, sum] = whole;
        self.offsets[items.clone()].copy_from_slice(&sum);
        for (halves, row) in self.halves[items].iter_mut().zip(0..PANEL) {
            *halves = [first[row], second[row]];
        }
    }

    #[inline(always)]
    fn load<S: Sixteen>(&self, row: usize, block: usize) -> [S::F; 2] {
        let values = self.x[(row * self.blocks + block) * BLOCK..][..BLOCK].as_chunks::<16>().0;
        [load16::<S>(&values[0]), load16::<S>(&values[1])]
    }

    /// Asks for a later block of a row: rows take turns, so that the processor does not see by itself what comes.
    #[inline(always)]
    fn ask_ahead<S: Sixteen>(&self, row: usize, block: usize) {
        let ahead = self.x.as_ptr().wrapping_add((row * self.blocks + block + AHEAD) * BLOCK);
        S::prefetch(ahead.cast());
        S::prefetch(ahead.wrapping_add(BLOCK / 2).cast());
    }

    /// Lanes of which the largest is the largest magnitude of a block; numbers, whatever the block has.
    #[inline(always)]
    fn magnitude<S: Sixteen>(a: S::F, b: S::F) -> S::F {
        S::max(S::abs(b), S::max(S::abs(a), S::splat(0.0)))
    }

    /// Rounds and stores a block; returns the halves.
    #[inline(always)]
    fn round<S: Sixteen>(&mut self, item: usize, values: [S::F; 2], inverse: S::F) -> [S::I; 2] {
        let (least, most) = (S::splat(-127.0), S::splat(127.0));
        let bytes = &mut self.bytes[item * BLOCK..][..BLOCK];
        let mut halves = [S::splat_i(0); 2];
        for half in 0..2 {
            let value = S::min(S::max(S::mul(values[half], inverse), least), most);
            halves[half] = S::to_int(value);
            // SAFETY: 16 of 32 bytes.
            unsafe { S::store_i8(bytes.as_mut_ptr().add(16 * half), halves[half]) };
        }
        halves
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::quant::Format;

    fn prepared(isa: Isa, threads: usize, x: &[f32], m: usize) -> Activations {
        let k = x.len() / m;
        let weights = Matrix::from_gguf(Format::Q8_0, 1, k, &vec![0; k / 32 * 34]).unwrap();
        let mut activations = Activations::new();
        Cpu::new(isa, threads, |_| ()).prepare(&mut activations, x, m, &[&weights]);
        activations
    }

    fn assert_same(a: &Activations, b: &Activations) {
        assert_eq!(a.bytes[..], b.bytes[..]);
        assert_eq!(a.offsets, b.offsets);
        assert_eq!(a.halves, b.halves);
        let bits = |numbers: &[f32]| numbers.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&a.scales), bits(&b.scales));
        assert_eq!(bits(&a.sums), bits(&b.sums));
    }

    #[test]
    fn all_instruction_sets_round_alike() {
        for m in [1, 3, 16, 17, 40] {
            let k = 96;
            let mut x: Vec<f32> =
                (0..m * k).map(|i| ((i * 2_654_435_761 % 1000) as f32 - 500.0) / 7.0).collect();
            // Ties, a zero block, tiny numbers, and numbers that are none.
            x[..32].copy_from_slice(&std::array::from_fn::<f32, 32, _>(|i| i as f32 * 4.0 - 62.0));
            x[0] = 127.0;
            x[1] = 2.5;
            x[2] = 3.5;
            x[32..64].fill(0.0);
            x[64..96].fill(1e-35);
            x[96 % (m * k)] = f32::NAN;
            x[k * m - 1] = f32::INFINITY;
            let expected = prepared(Isa::Scalar, 1, &x, m);
            for isa in Isa::available() {
                assert_same(&prepared(isa, 1, &x, m), &expected);
                assert_same(&prepared(isa, 2, &x, m), &expected);
            }
        }
    }

    #[test]
    fn a_block_is_scale_times_q() {
        let x: Vec<f32> = (0..32).map(|i| i as f32 - 10.0).collect();
        let activations = prepared(Isa::Scalar, 1, &x, 1);
        for (value, &q) in x.iter().zip(&activations.bytes[..]) {
            assert!(
                (value - activations.scales[0] * f32::from(q)).abs() <= activations.scales[0] / 2.0 + 1e-6
            );
        }
        let sum: i32 = activations.bytes.iter().map(|&q| i32::from(q)).sum();
        assert_eq!(activations.offsets[0], -128 * sum);
        assert_eq!(activations.halves[0].iter().sum::<i32>(), -128 * sum);
        assert_eq!(activations.sums[0], activations.scales[0] * sum as f32);
    }
}
