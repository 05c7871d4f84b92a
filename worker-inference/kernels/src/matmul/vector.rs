//! The same product with vectors: a tile of 16 weight rows and up to 16 activation rows.
//!
//! A lane is a weight row, so lanes never meet and the order of each sum is the scalar one. The weights of a block
//! are loaded and unpacked once for all rows of the tile, whose sums stay in registers. One code serves one row (a
//! decoding sequence), a few (a batch of agents), and many (a prompt).

// Loops over small constant ranges index several arrays at once and unroll into registers.
#![allow(clippy::needless_range_loop)]

use super::Multiply;
use crate::activations::{PANEL, Panel};
use crate::matrix::GROUP;
use crate::quant::{BLOCK, Format};
use crate::simd::Vector;

/// How far ahead weights are asked for, in bytes: the processor does so by itself only up to the end of a page,
/// and with a few rows of input that costs a fifth of the speed.
const AHEAD: usize = 4096;

/// Sums of one tile: 16 weight rows for each activation row.
type Sums = [[f32; GROUP]; PANEL];

#[inline(always)]
pub(super) fn tiles<V: Vector>(product: &Multiply<'_>) {
    match product.matrix.format() {
        Format::F32 => product.for_tiles(
            #[inline(always)]
            |product, group, panel| floats::<V, F32>(product, group, panel),
        ),
        Format::F16 => product.for_tiles(
            #[inline(always)]
            |product, group, panel| floats::<V, F16>(product, group, panel),
        ),
        Format::Q4_0 => product.for_tiles(
            #[inline(always)]
            |product, group, panel| blocks::<V, Q4_0>(product, group, panel),
        ),
        Format::Q4_1 => product.for_tiles(
            #[inline(always)]
            |product, group, panel| blocks::<V, Q4_1>(product, group, panel),
        ),
        Format::Q8_0 => product.for_tiles(
            #[inline(always)]
            |product, group, panel| blocks::<V, Q8_0>(product, group, panel),
        ),
    }
}

/// A block format as the inner loop sees it.
trait Blocks {
    /// Bytes of a block of 16 interleaved rows.
    const UNIT: usize;
    const HAS_LEAST: bool;

    /// Eight vectors of four columns each.
    ///
    /// # Safety
    /// `from` points at a unit, or `4 * lane` bytes into it; the CPU has the instructions of `V`.
    unsafe fn load<V: Vector>(from: *const u8) -> [V::I; 8];
    /// What the integer sum starts from, given -128 times the sum of the activations.
    fn start<V: Vector>(offset: i32) -> V::I;
    fn dot<V: Vector>(sum: V::I, w: V::I, x: V::I) -> V::I;
}

struct Q4_0;
struct Q4_1;
struct Q8_0;

/// # Safety
/// As [`Blocks::load`].
#[inline(always)]
unsafe fn load_nibbles<V: Vector>(from: *const u8) -> [V::I; 8] {
    // SAFETY: a unit is four vectors of 64 bytes.
    let packed = unsafe {
        [
            V::load_bytes(from),
            V::load_bytes(from.add(64)),
            V::load_bytes(from.add(128)),
            V::load_bytes(from.add(192)),
        ]
    };
    [
        V::low_nibbles(packed[0]),
        V::low_nibbles(packed[1]),
        V::low_nibbles(packed[2]),
        V::low_nibbles(packed[3]),
        V::high_nibbles(packed[0]),
        V::high_nibbles(packed[1]),
        V::high_nibbles(packed[2]),
        V::high_nibbles(packed[3]),
    ]
}

impl Blocks for Q4_0 {
    const UNIT: usize = 256;
    const HAS_LEAST: bool = false;

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const u8) -> [V::I; 8] {
        // SAFETY: the caller's promise.
        unsafe { load_nibbles::<V>(from) }
    }
    #[inline(always)]
    fn start<V: Vector>(offset: i32) -> V::I {
        // Nibbles stand for 8 less: minus 8 times the sum.
        V::splat_i(offset >> 4)
    }
    #[inline(always)]
    fn dot<V: Vector>(sum: V::I, w: V::I, x: V::I) -> V::I {
        V::dot_u4(sum, w, x)
    }
}

impl Blocks for Q4_1 {
    const UNIT: usize = 256;
    const HAS_LEAST: bool = true;

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const u8) -> [V::I; 8] {
        // SAFETY: the caller's promise.
        unsafe { load_nibbles::<V>(from) }
    }
    #[inline(always)]
    fn start<V: Vector>(_offset: i32) -> V::I {
        V::splat_i(0)
    }
    #[inline(always)]
    fn dot<V: Vector>(sum: V::I, w: V::I, x: V::I) -> V::I {
        V::dot_u4(sum, w, x)
    }
}

impl Blocks for Q8_0 {
    const UNIT: usize = 512;
    const HAS_LEAST: bool = false;

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const u8) -> [V::I; 8] {
        // SAFETY: a unit is eight vectors of 64 bytes.
        unsafe {
            [
                V::load_bytes(from),
                V::load_bytes(from.add(64)),
                V::load_bytes(from.add(128)),
                V::load_bytes(from.add(192)),
                V::load_bytes(from.add(256)),
                V::load_bytes(from.add(320)),
                V::load_bytes(from.add(384)),
                V::load_bytes(from.add(448)),
            ]
        }
    }
    #[inline(always)]
    fn start<V: Vector>(offset: i32) -> V::I {
        // Undoes the bias of the stored weights, where the dot product keeps it.
        const { assert!(V::I8_BIAS == 0 || V::I8_BIAS == 128) };
        V::splat_i(if V::I8_BIAS == 0 { 0 } else { offset })
    }
    #[inline(always)]
    fn dot<V: Vector>(sum: V::I, w: V::I, x: V::I) -> V::I {
        V::dot_i8(sum, w, x)
    }
}

#[inline(always)]
fn blocks<V: Vector, B: Blocks>(product: &Multiply<'_>, group: usize, panel: usize) {
    let input = product.activations.panel(panel);
    let count = product.matrix.cols() / BLOCK;
    let units = group * count..(group + 1) * count;
    let weights = Weights {
        values: &product.matrix.values()[units.start * B::UNIT..units.end * B::UNIT],
        scales: &product.matrix.scales()[units.start * GROUP..units.end * GROUP],
        leasts: if B::HAS_LEAST {
            &product.matrix.leasts()[units.start * GROUP..units.end * GROUP]
        } else {
            &[]
        },
        count,
    };
    // The pointers of `block_tile` rely on these lengths.
    assert!(input.scales.len() == count * input.width && input.bytes.len() == count * input.width * BLOCK);
    assert!(input.sums.len() == input.scales.len() && input.offsets.len() == input.scales.len());
    let mut sums: Sums = [[0.0; GROUP]; PANEL];
    let mut row = 0;
    while row < input.width {
        let left = input.width - row;
        // SAFETY: the slices have the lengths just checked, and the tile stays inside the panel.
        row += unsafe {
            match left {
                16.. if V::LANES == 16 => block_tile::<V, B, 16>(&weights, &input, row, &mut sums),
                8.. if V::LANES == 16 => block_tile::<V, B, 8>(&weights, &input, row, &mut sums),
                4.. => block_tile::<V, B, 4>(&weights, &input, row, &mut sums),
                3 => block_tile::<V, B, 3>(&weights, &input, row, &mut sums),
                2 => block_tile::<V, B, 2>(&weights, &input, row, &mut sums),
                _ => block_tile::<V, B, 1>(&weights, &input, row, &mut sums),
            }
        };
    }
    for (row, lanes) in sums[..input.width].iter().enumerate() {
        product.write(group, panel, row, lanes);
    }
}

/// The blocks of one group of weight rows.
struct Weights<'a> {
    values: &'a [u8],
    scales: &'a [u16],
    leasts: &'a [u16],
    count: usize,
}

/// Rows `first..first + C` of the panel. Returns `C`.
///
/// # Safety
/// `weights` has `count` units; `input` has `count * width` items; `first + C <= width`.
#[inline(always)]
unsafe fn block_tile<V: Vector, B: Blocks, const C: usize>(
    weights: &Weights<'_>,
    input: &Panel<'_>,
    first: usize,
    sums: &mut Sums,
) -> usize {
    for lane in (0..GROUP).step_by(V::LANES) {
        let mut out = [V::splat(0.0); C];
        for block in 0..weights.count {
            // SAFETY: inside the slices by the caller's promise; lanes `lane..lane + LANES` of 16.
            unsafe {
                let unit = block * GROUP + lane;
                if first + lane == 0 {
                    let ahead = weights.values.as_ptr().wrapping_add(block * B::UNIT + AHEAD);
                    for line in (0..B::UNIT).step_by(64) {
                        V::prefetch(ahead.wrapping_add(line));
                    }
                }
                let w = B::load::<V>(weights.values.as_ptr().add(block * B::UNIT + lane * 4));
                let scale_w = V::load_half(weights.scales.as_ptr().add(unit));
                let item = block * input.width + first;
                for c in 0..C {
                    let item = item + c;
                    let x = input.bytes.as_ptr().add(item * BLOCK).cast::<i32>();
                    let mut sum = B::start::<V>(*input.offsets.as_ptr().add(item));
                    for (j, w) in w.iter().enumerate() {
                        sum = B::dot::<V>(sum, *w, V::splat_i(x.add(j).read_unaligned()));
                    }
                    let scale = V::mul(scale_w, V::splat(*input.scales.as_ptr().add(item)));
                    out[c] = V::fma(V::to_float(sum), scale, out[c]);
                    if B::HAS_LEAST {
                        let least = V::load_half(weights.leasts.as_ptr().add(unit));
                        out[c] = V::fma(least, V::splat(*input.sums.as_ptr().add(item)), out[c]);
                    }
                }
            }
        }
        for c in 0..C {
            // SAFETY: `LANES` places from `lane` on.
            unsafe { V::store(sums[first + c].as_mut_ptr().add(lane), out[c]) };
        }
    }
    C
}

/// A float format as the inner loop sees it.
trait Floats {
    type Number;
    /// # Safety
    /// `from` points at `V::LANES` numbers; the CPU has the instructions of `V`.
    unsafe fn load<V: Vector>(from: *const Self::Number) -> V::F;
    fn numbers<'a>(product: &Multiply<'a>) -> &'a [Self::Number];
}

struct F32;
struct F16;

impl Floats for F32 {
    type Number = f32;
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const f32) -> V::F {
        // SAFETY: the caller's promise.
        unsafe { V::load(from) }
    }
    #[inline(always)]
    fn numbers<'a>(product: &Multiply<'a>) -> &'a [f32] {
        product.matrix.floats()
    }
}

impl Floats for F16 {
    type Number = u16;
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const u16) -> V::F {
        // SAFETY: the caller's promise.
        unsafe { V::load_half(from) }
    }
    #[inline(always)]
    fn numbers<'a>(product: &Multiply<'a>) -> &'a [u16] {
        product.matrix.halves()
    }
}

#[inline(always)]
fn floats<V: Vector, T: Floats>(product: &Multiply<'_>, group: usize, panel: usize) {
    let cols = product.matrix.cols();
    let weights = &T::numbers(product)[group * cols * GROUP..(group + 1) * cols * GROUP];
    let width = product.activations.width(panel);
    let x = &product.activations.float_rows()[panel * PANEL * cols..(panel * PANEL + width) * cols];
    let mut sums: Sums = [[0.0; GROUP]; PANEL];
    let mut row = 0;
    while row < width {
        // SAFETY: `weights` has 16 numbers a column, `x` has `width` rows of `cols`.
        row += unsafe {
            match width - row {
                4.. => float_tile::<V, T, 4>(weights, x, cols, row, &mut sums),
                2.. => float_tile::<V, T, 2>(weights, x, cols, row, &mut sums),
                _ => float_tile::<V, T, 1>(weights, x, cols, row, &mut sums),
            }
        };
    }
    for (row, lanes) in sums[..width].iter().enumerate() {
        product.write(group, panel, row, lanes);
    }
}

/// Rows `first..first + C` of the panel. Returns `C`.
///
/// # Safety
/// `weights` has `16 * cols` numbers, `x` at least `(first + C) * cols`.
#[inline(always)]
unsafe fn float_tile<V: Vector, T: Floats, const C: usize>(
    weights: &[T::Number],
    x: &[f32],
    cols: usize,
    first: usize,
    sums: &mut Sums,
) -> usize {
    for lane in (0..GROUP).step_by(V::LANES) {
        let mut out = [[V::splat(0.0); 4]; C];
        for col in (0..cols).step_by(4) {
            for part in 0..4.min(cols - col) {
                // SAFETY: column `col + part < cols`, row `first + c`, by the caller's promise.
                unsafe {
                    let w = T::load::<V>(weights.as_ptr().add((col + part) * GROUP + lane));
                    for c in 0..C {
                        let x = V::splat(*x.as_ptr().add((first + c) * cols + col + part));
                        out[c][part] = V::fma(w, x, out[c][part]);
                    }
                }
            }
        }
        for c in 0..C {
            let sum = V::add(V::add(out[c][0], out[c][1]), V::add(out[c][2], out[c][3]));
            // SAFETY: `LANES` places from `lane` on.
            unsafe { V::store(sums[first + c].as_mut_ptr().add(lane), sum) };
        }
    }
    C
}
