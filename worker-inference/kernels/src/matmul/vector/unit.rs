//! Block formats as the inner loop sees them, and what is done with one unit: 32 columns of 16 rows.

use crate::activations::Panel;
use crate::matmul::Multiply;
use crate::matrix::GROUP;
use crate::matrix::packing::{VECTOR, unit_bytes};
use crate::quant::{BLOCK, Factors, Format};
use crate::simd::Vector;

/// How far ahead weights are asked for, in bytes: the processor does so by itself only up to the end of a page,
/// and with a few rows of input that costs a fifth of the speed. (Twice as far is no faster with one large matrix,
/// and slower with a thread's small parts of many, where it asks for another thread's part.)
const AHEAD: usize = 4096;

/// A block format as the inner loop sees it: a constant.
pub(super) trait Blocks {
    const FORMAT: Format;
    const BITS: usize = Self::FORMAT.bits();
    const UNIT: usize = unit_bytes(Self::BITS);
    const HAS_LEAST: bool = Self::FORMAT.has_least();
    const FACTORS: Factors = Self::FORMAT.factors();
    /// So many vectors of weights may be given to [`Vector::dot_small`] at once.
    const IN_TURN: usize = match Self::BITS {
        4 => 8,
        5 => 4,
        6 => 2,
        _ => 1,
    };
    /// Units of a block of the format.
    const UNITS: usize = Self::FORMAT.block_len() / BLOCK;
}

macro_rules! block_formats {
    ($($format:ident)*) => {$(
        #[allow(non_camel_case_types)]
        pub(super) struct $format;
        impl Blocks for $format {
            const FORMAT: Format = Format::$format;
        }
    )*};
}

block_formats! { Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4_K Q5_K Q6_K }

/// The units of one group of weight rows.
pub(super) struct Weights<'a> {
    pub(super) values: &'a [u8],
    scales: &'a [u16],
    leasts: &'a [u16],
    factors: &'a [u8],
    pub(super) count: usize,
}

impl<'a> Weights<'a> {
    /// The slices have the lengths on which the pointers below rely.
    #[inline(always)]
    pub(super) fn of<B: Blocks>(product: &Multiply<'a>, group: usize) -> Weights<'a> {
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

    /// Asks for what lies some way behind a unit.
    #[inline(always)]
    pub(super) fn ask_ahead<V: Vector, B: Blocks>(&self, unit: usize) {
        let ahead = self.values.as_ptr().wrapping_add(unit * B::UNIT + AHEAD);
        for line in (0..B::UNIT).step_by(64) {
            V::prefetch(ahead.wrapping_add(line));
        }
    }

    /// Scale and least value of a unit.
    ///
    /// # Safety
    /// `unit < count`, `lane + LANES <= 16`.
    #[inline(always)]
    pub(super) unsafe fn scale_and_least<V: Vector, B: Blocks>(
        &self,
        unit: usize,
        lane: usize,
    ) -> (V::F, V::F) {
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

/// The part of a unit that the lanes of a vector hold, ready to be multiplied.
pub(super) struct Unit<V: Vector> {
    /// Eight vectors of four columns each.
    w: [V::I; 8],
    scale: V::F,
    least: V::F,
    /// The factors of the halves.
    halves: [V::F; 2],
}

impl<V: Vector> Unit<V> {
    /// # Safety
    /// `unit` is one of `weights`, `lane + LANES <= 16`.
    #[inline(always)]
    pub(super) unsafe fn load<B: Blocks>(weights: &Weights<'_>, unit: usize, lane: usize) -> Unit<V> {
        // SAFETY: the caller's promise.
        unsafe {
            let w = bytes::<V, B>(weights.values.as_ptr().add(unit * B::UNIT + lane * 4));
            let (scale, least) = weights.scale_and_least::<V, B>(unit, lane);
            Unit { w, scale, least, halves: weights.halves::<V, B>(unit, lane) }
        }
    }

    /// Adds the products with items `item..item + N` of `input` to as many of `out`.
    ///
    /// # Safety
    /// `input` has these items.
    #[inline(always)]
    pub(super) unsafe fn add<B: Blocks, const N: usize>(
        &self,
        input: &Panel<'_>,
        item: usize,
        out: &mut [V::F],
    ) {
        // SAFETY: the caller's promise.
        let sums = unsafe { self.integer_sums::<B, N>(input, item) };
        for n in 0..N {
            // SAFETY: as above.
            let (scale, sum) =
                unsafe { (*input.scales.as_ptr().add(item + n), *input.sums.as_ptr().add(item + n)) };
            out[n] = V::fma(sums[n], V::mul(self.scale, V::splat(scale)), out[n]);
            if B::HAS_LEAST {
                out[n] = V::fma(self.least, V::splat(sum), out[n]);
            }
        }
    }

    /// Weight times activation summed over the unit, exact integers. `N` sums grow side by side, since each has to
    /// wait for its own last step.
    ///
    /// # Safety
    /// As for `add`.
    #[inline(always)]
    unsafe fn integer_sums<B: Blocks, const N: usize>(&self, input: &Panel<'_>, item: usize) -> [V::F; N] {
        let mut sums = [[V::splat_i(0); 2]; N];
        let parts = if B::FACTORS == Factors::Halves { 2 } else { 1 };
        for n in 0..N {
            // SAFETY: an item has one offset and two half offsets.
            unsafe {
                if parts == 2 {
                    let offsets = &*input.halves.as_ptr().add(item + n);
                    sums[n] = [start::<V, B>(offsets[0]), start::<V, B>(offsets[1])];
                } else {
                    sums[n][0] = start::<V, B>(*input.offsets.as_ptr().add(item + n));
                }
            }
        }
        let x = |n: usize, j: usize| {
            // SAFETY: an item has 32 bytes.
            let four = unsafe {
                input.bytes.as_ptr().add((item + n) * BLOCK + 4 * j).cast::<i32>().read_unaligned()
            };
            V::splat_i(four)
        };
        if N == 1 && B::BITS < 8 {
            const { assert!(B::BITS == 8 || 254 * ((1 << B::BITS) - 1) * B::IN_TURN <= i16::MAX as usize) };
            for part in 0..parts {
                for first in (part * 8 / parts..(part + 1) * 8 / parts).step_by(B::IN_TURN) {
                    let w = &self.w[first..first + B::IN_TURN];
                    sums[0][part] = V::dot_small(sums[0][part], w, |j| x(0, first + j));
                }
            }
        } else {
            for j in 0..8 / parts {
                for n in 0..N {
                    for part in 0..parts {
                        let j = part * 4 + j;
                        sums[n][part] = dot::<V, B>(sums[n][part], self.w[j], x(n, j));
                    }
                }
            }
        }
        let mut whole = [V::splat(0.0); N];
        for n in 0..N {
            whole[n] = V::to_float(sums[n][0]);
            if parts == 2 {
                whole[n] = V::fma(V::to_float(sums[n][1]), self.halves[1], V::mul(whole[n], self.halves[0]));
            }
        }
        whole
    }
}

/// The eight vectors of a unit, four columns each.
///
/// # Safety
/// `from` points at a unit of the format, or `4 * lane` bytes into it.
#[inline(always)]
pub(super) unsafe fn bytes<V: Vector, B: Blocks>(from: *const u8) -> [V::I; 8] {
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
pub(super) fn start<V: Vector, B: Blocks>(offset: i32) -> V::I {
    const { assert!(V::I8_BIAS == 0 || V::I8_BIAS == 128) };
    let zero = if B::BITS == 8 { V::I8_BIAS } else { B::FORMAT.zero() };
    V::splat_i(if zero == 0 { 0 } else { offset >> (7 - zero.trailing_zeros()) })
}

#[inline(always)]
fn dot<V: Vector, B: Blocks>(sum: V::I, w: V::I, x: V::I) -> V::I {
    if B::BITS == 8 { V::dot_i8(sum, w, x) } else { V::dot_u7(sum, w, x) }
}
