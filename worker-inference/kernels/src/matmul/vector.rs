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
use crate::matrix::packing::{VECTOR, unit_bytes};
use crate::quant::{BLOCK, Factors, Format};
use crate::simd::Vector;

/// How far ahead weights are asked for, in bytes: the processor does so by itself only up to the end of a page,
/// and with a few rows of input that costs a fifth of the speed.
const AHEAD: usize = 4096;

/// Sums of one tile: 16 weight rows for each activation row.
type Sums = [[f32; GROUP]; PANEL];

#[inline(always)]
pub(super) fn tiles<V: Vector>(product: &Multiply<'_>) {
    macro_rules! tiles {
        ($tile:ident, $format:ty) => {
            product.for_tiles(
                #[inline(always)]
                |product, group, panel| $tile::<V, $format>(product, group, panel),
            )
        };
    }
    match product.matrix.format() {
        Format::F32 => tiles!(floats, F32),
        Format::F16 => tiles!(floats, F16),
        Format::BF16 => tiles!(floats, BF16),
        Format::Q4_0 => tiles!(blocks, Q4_0),
        Format::Q4_1 => tiles!(blocks, Q4_1),
        Format::Q5_0 => tiles!(blocks, Q5_0),
        Format::Q5_1 => tiles!(blocks, Q5_1),
        Format::Q8_0 => tiles!(blocks, Q8_0),
        Format::Q4_K => tiles!(blocks, Q4_K),
        Format::Q5_K => tiles!(blocks, Q5_K),
        Format::Q6_K => tiles!(blocks, Q6_K),
    }
}

/// A block format as the inner loop sees it: a constant.
trait Blocks {
    const FORMAT: Format;
    const BITS: usize = Self::FORMAT.bits();
    const UNIT: usize = unit_bytes(Self::BITS);
    const HAS_LEAST: bool = Self::FORMAT.has_least();
    const FACTORS: Factors = Self::FORMAT.factors();
    /// Units of a block of the format.
    const UNITS: usize = Self::FORMAT.block_len() / BLOCK;
}

macro_rules! block_formats {
    ($($format:ident)*) => {$(
        #[allow(non_camel_case_types)]
        struct $format;
        impl Blocks for $format {
            const FORMAT: Format = Format::$format;
        }
    )*};
}

block_formats! { Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4_K Q5_K Q6_K }

/// The eight vectors of a unit, four columns each.
///
/// # Safety
/// `from` points at a unit of the format, or `4 * lane` bytes into it.
#[inline(always)]
unsafe fn load<V: Vector, B: Blocks>(from: *const u8) -> [V::I; 8] {
    // SAFETY: a unit has so many vectors.
    let vector = |index: usize| unsafe { V::load_bytes(from.add(index * VECTOR)) };
    let mut w = [V::splat_i(0); 8];
    if B::BITS == 8 {
        for j in 0..8 {
            w[j] = vector(j);
        }
        return w;
    }
    for j in 0..4 {
        let packed = vector(j);
        (w[j], w[j + 4]) = (V::low_nibbles(packed), V::high_nibbles(packed));
    }
    if B::BITS == 5 {
        let fifth = vector(4);
        for j in 0..8 {
            w[j] = V::or_bits(w[j], fifth, j as i32 - 4, 0x10);
        }
    }
    if B::BITS == 6 {
        let upper = [vector(4), vector(5)];
        for j in 0..8 {
            w[j] = V::or_bits(w[j], upper[j / 4], j as i32 % 4 * 2 - 4, 0x30);
        }
    }
    w
}

/// What an integer sum starts from, given -128 times the sum of the activations: it undoes what stored numbers are
/// too large by.
#[inline(always)]
fn start<V: Vector, B: Blocks>(offset: i32) -> V::I {
    const { assert!(V::I8_BIAS == 0 || V::I8_BIAS == 128) };
    let zero = if B::BITS == 8 { V::I8_BIAS } else { B::FORMAT.zero() };
    V::splat_i(if zero == 0 { 0 } else { offset >> (7 - zero.trailing_zeros()) })
}

#[inline(always)]
fn dot<V: Vector, B: Blocks>(sum: V::I, w: V::I, x: V::I) -> V::I {
    if B::BITS == 8 { V::dot_i8(sum, w, x) } else { V::dot_u7(sum, w, x) }
}

#[inline(always)]
fn blocks<V: Vector, B: Blocks>(product: &Multiply<'_>, group: usize, panel: usize) {
    let input = product.activations.panel(panel);
    let weights = Weights::of::<B>(product, group);
    let count = weights.count;
    // The pointers of `block_tile` rely on these lengths.
    assert!(input.scales.len() == count * input.width && input.bytes.len() == count * input.width * BLOCK);
    assert!(input.sums.len() == input.scales.len() && input.offsets.len() == input.scales.len());
    assert!(input.halves.len() == input.scales.len());
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

/// The units of one group of weight rows.
struct Weights<'a> {
    values: &'a [u8],
    scales: &'a [u16],
    leasts: &'a [u16],
    factors: &'a [u8],
    count: usize,
}

impl<'a> Weights<'a> {
    /// The slices have the lengths on which the pointers below rely.
    #[inline(always)]
    fn of<B: Blocks>(product: &Multiply<'a>, group: usize) -> Weights<'a> {
        let matrix = product.matrix;
        let count = matrix.cols() / BLOCK;
        let units = group * count..(group + 1) * count;
        let blocks = units.start / B::UNITS * GROUP..units.end / B::UNITS * GROUP;
        let factors = units.start * 2 * GROUP..units.end * 2 * GROUP;
        Weights {
            values: &matrix.values()[units.start * B::UNIT..units.end * B::UNIT],
            scales: &matrix.scales()[blocks.clone()],
            leasts: if B::HAS_LEAST { &matrix.leasts()[blocks] } else { &[] },
            factors: if B::FACTORS == Factors::None { &[] } else { &matrix.factors()[factors] },
            count,
        }
    }

    /// Scale and least value of a unit.
    ///
    /// # Safety
    /// `unit < count`, `lane + LANES <= 16`.
    #[inline(always)]
    unsafe fn scale_and_least<V: Vector, B: Blocks>(&self, unit: usize, lane: usize) -> (V::F, V::F) {
        let place = unit / B::UNITS * GROUP + lane;
        // SAFETY: inside the slices, by the caller's promise and the lengths of `of`.
        unsafe {
            let mut scale = V::load_half(self.scales.as_ptr().add(place));
            let mut least =
                if B::HAS_LEAST { V::load_half(self.leasts.as_ptr().add(place)) } else { V::splat(0.0) };
            if B::FACTORS == Factors::ScaleAndLeast {
                let factors = self.factors.as_ptr().add(unit * 2 * GROUP + lane);
                scale = V::mul(scale, V::load_u8(factors));
                least = V::mul(least, V::load_u8(factors.add(GROUP)));
            }
            (scale, least)
        }
    }

    /// The factors of the halves of a unit.
    ///
    /// # Safety
    /// As for [`Weights::scale_and_least`].
    #[inline(always)]
    unsafe fn halves<V: Vector, B: Blocks>(&self, unit: usize, lane: usize) -> [V::F; 2] {
        if B::FACTORS != Factors::Halves {
            return [V::splat(0.0); 2];
        }
        // SAFETY: as above.
        unsafe {
            let factors = self.factors.as_ptr().add(unit * 2 * GROUP + lane).cast::<i8>();
            [V::load_i8(factors), V::load_i8(factors.add(GROUP))]
        }
    }
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
        for unit in 0..weights.count {
            // SAFETY: inside the slices by the caller's promise; lanes `lane..lane + LANES` of 16.
            unsafe {
                if first + lane == 0 {
                    let ahead = weights.values.as_ptr().wrapping_add(unit * B::UNIT + AHEAD);
                    for line in (0..B::UNIT).step_by(64) {
                        V::prefetch(ahead.wrapping_add(line));
                    }
                }
                let w = load::<V, B>(weights.values.as_ptr().add(unit * B::UNIT + lane * 4));
                let (scale_w, least) = weights.scale_and_least::<V, B>(unit, lane);
                let halves = weights.halves::<V, B>(unit, lane);
                let item = unit * input.width + first;
                for c in 0..C {
                    let item = item + c;
                    let sum = integer_sum::<V, B>(&w, &halves, input, item);
                    let scale = V::mul(scale_w, V::splat(*input.scales.as_ptr().add(item)));
                    out[c] = V::fma(sum, scale, out[c]);
                    if B::HAS_LEAST {
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

/// The sum over a unit of weight times activation, an exact integer. `halves` are the factors of its halves.
///
/// # Safety
/// `input` has more than `item` items.
#[inline(always)]
unsafe fn integer_sum<V: Vector, B: Blocks>(
    w: &[V::I; 8],
    halves: &[V::F; 2],
    input: &Panel<'_>,
    item: usize,
) -> V::F {
    // SAFETY: an item has 32 bytes, one offset and two half offsets.
    unsafe {
        let x = input.bytes.as_ptr().add(item * BLOCK).cast::<i32>();
        let x = |j: usize| V::splat_i(x.add(j).read_unaligned());
        if B::FACTORS == Factors::Halves {
            let offsets = &*input.halves.as_ptr().add(item);
            let mut sums = [start::<V, B>(offsets[0]), start::<V, B>(offsets[1])];
            for j in 0..8 {
                sums[j / 4] = dot::<V, B>(sums[j / 4], w[j], x(j));
            }
            let first = V::mul(V::to_float(sums[0]), halves[0]);
            return V::fma(V::to_float(sums[1]), halves[1], first);
        }
        let mut sum = start::<V, B>(*input.offsets.as_ptr().add(item));
        for j in 0..8 {
            sum = dot::<V, B>(sum, w[j], x(j));
        }
        V::to_float(sum)
    }
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
struct BF16;

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

impl Floats for BF16 {
    type Number = u16;
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const u16) -> V::F {
        // SAFETY: the caller's promise.
        unsafe { V::load_bf16(from) }
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
