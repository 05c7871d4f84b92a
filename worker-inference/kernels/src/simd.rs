//! Vectors: one trait over AVX2 and AVX-512, and the door through which vector code is entered.
//!
//! An operation is a struct that holds its arguments ([`Operation`]) with two bodies: `scalar`, the plain
//! specification, and `vector`, written once for all instruction sets. [`run`] picks one. Vector bodies must be
//! `#[inline(always)]`, and so must all they call with vectors: only inside the entry functions below may the
//! compiler use the instructions.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use crate::isa::Isa;
use crate::quant::BLOCK;

/// Lanes of f32, and as many lanes of i32 which may also be seen as four bytes each.
///
/// Methods are safe to call only where the CPU has the instructions. The trait is private to the crate and its
/// implementors are named nowhere but in [`run`], which makes sure of that.
pub(crate) trait Vector {
    const LANES: usize;
    /// What [`Vector::dot_i8`] adds to each weight: it sums `(w + bias) * a`.
    const I8_BIAS: i32;
    type F: Copy;
    type I: Copy;

    fn splat(x: f32) -> Self::F;
    fn add(a: Self::F, b: Self::F) -> Self::F;
    fn sub(a: Self::F, b: Self::F) -> Self::F;
    fn mul(a: Self::F, b: Self::F) -> Self::F;
    fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a > b ? a : b`.
    fn max(a: Self::F, b: Self::F) -> Self::F;
    /// `a < b ? a : b`.
    fn min(a: Self::F, b: Self::F) -> Self::F;
    fn abs(a: Self::F) -> Self::F;
    /// To whole numbers, ties to even.
    fn round(a: Self::F) -> Self::F;
    /// Two to the power of whole numbers from -126 to 127.
    fn power_of_two(n: Self::F) -> Self::F;
    /// `a` times two to the power of whole numbers from -126 to 127, where that is a normal number.
    #[inline(always)]
    fn scale_by_power(a: Self::F, n: Self::F) -> Self::F {
        Self::mul(a, Self::power_of_two(n))
    }
    /// `x < bound ? 0 : y`.
    fn zero_below(x: Self::F, bound: Self::F, y: Self::F) -> Self::F;
    /// Lane `i` of `a` where bit `i` is set, of `b` elsewhere.
    fn select(mask: u16, a: Self::F, b: Self::F) -> Self::F;
    /// Lanes 2i and 2i+1 change places.
    fn swap_pairs(a: Self::F) -> Self::F;

    fn splat_i(x: i32) -> Self::I;
    fn add_i(a: Self::I, b: Self::I) -> Self::I;
    /// Whole numbers, ties to even.
    fn to_int(a: Self::F) -> Self::I;
    fn to_float(a: Self::I) -> Self::F;
    /// `amount` less in each byte.
    fn sub_bytes(a: Self::I, amount: u8) -> Self::I;
    /// The lower four bits of each byte.
    fn low_nibbles(a: Self::I) -> Self::I;
    /// The upper four bits of each byte.
    fn high_nibbles(a: Self::I) -> Self::I;
    /// `a` with the bits of `bits`, moved down by `down` places (up if negative) inside each byte, where `mask`
    /// has ones. Bits of a neighbour byte move in: `mask` must not let them through.
    fn or_bits(a: Self::I, bits: Self::I, down: i32, mask: u8) -> Self::I;
    /// Adds to each lane the products of its four bytes: `w` from 0 to 127, `a` from -127 to 127.
    fn dot_u7(sum: Self::I, w: Self::I, a: Self::I) -> Self::I;
    /// `dot_u7` with each of `w` in turn and `a` of its place, where weights are so small that pairs of products fit 16
    /// bits summed over all of them: `254 * largest * w.len() <= 32,767`.
    #[inline(always)]
    fn dot_small(sum: Self::I, w: &[Self::I], a: impl Fn(usize) -> Self::I) -> Self::I {
        w.iter().enumerate().fold(sum, |sum, (place, w)| Self::dot_u7(sum, *w, a(place)))
    }
    /// `dot_small` of both vectors of a weight group, which are half as wide, with rows of input, up to four: adds to
    /// `sums[row][side]`. `x` is four columns of the first row, the next row's lie [`BLOCK`] bytes further.
    ///
    /// # Safety
    /// `w` points at `steps` pairs of vectors, `x` at `4 * steps` columns of each row.
    #[inline(always)]
    unsafe fn dot_small_tile<const ROWS: usize>(
        sums: &mut [[Self::I; 2]; ROWS],
        steps: usize,
        w: *const u8,
        x: *const [i8; BLOCK],
    ) {
        for (row, sums) in sums.iter_mut().enumerate() {
            for (side, sum) in sums.iter_mut().enumerate() {
                for step in 0..steps {
                    // SAFETY: the caller's promise; a vector has four bytes a lane.
                    unsafe {
                        let w = Self::load_bytes(w.add((2 * step + side) * 4 * Self::LANES));
                        let four = x.add(row).cast::<i32>().add(step).read_unaligned();
                        *sum = Self::dot_u7(*sum, w, Self::splat_i(four));
                    }
                }
            }
        }
    }
    /// As `dot_u7` for weights from -128 to 127 stored with 128 added; sums `(w + I8_BIAS) * a`.
    fn dot_i8(sum: Self::I, w: Self::I, a: Self::I) -> Self::I;

    /// Asks for a cache line that will be read soon. Any address will do.
    fn prefetch(from: *const u8);
    /// # Safety
    /// `from` points at `LANES` numbers.
    unsafe fn load(from: *const f32) -> Self::F;
    /// # Safety
    /// `to` points at room for `LANES` numbers.
    unsafe fn store(to: *mut f32, a: Self::F);
    /// # Safety
    /// `from` points at `LANES` half floats.
    unsafe fn load_half(from: *const u16) -> Self::F;
    /// # Safety
    /// `from` points at `LANES` numbers, each the upper half of an f32.
    unsafe fn load_bf16(from: *const u16) -> Self::F;
    /// # Safety
    /// `from` points at `LANES` bytes.
    unsafe fn load_u8(from: *const u8) -> Self::F;
    /// # Safety
    /// `from` points at `LANES` bytes.
    unsafe fn load_i8(from: *const i8) -> Self::F;
    /// # Safety
    /// `to` points at room for `LANES` half floats.
    unsafe fn store_half(to: *mut u16, a: Self::F);
    /// # Safety
    /// `from` points at `4 * LANES` bytes.
    unsafe fn load_bytes(from: *const u8) -> Self::I;
    /// # Safety
    /// `to` points at room for `4 * LANES` bytes.
    unsafe fn store_bytes(to: *mut u8, a: Self::I);
    /// Stores each lane, from -128 to 127, as one byte.
    ///
    /// # Safety
    /// `to` points at room for `LANES` bytes.
    unsafe fn store_i8(to: *mut i8, a: Self::I);
}

/// Exactly 16 lanes: the width in which sums over a row are specified.
pub(crate) trait Sixteen: Vector + Sized {
    /// The machine's own width, for operations whose lanes never meet.
    type Native: Vector;
    /// The sum of all lanes by the fixed tree of [`crate::math::sum_of_lanes`].
    fn sum(a: Self::F) -> f32;
    /// Of lanes that are all numbers.
    fn largest(a: Self::F) -> f32;
    fn sum_i(a: Self::I) -> i32;
    /// Lane `i` is the largest lane of vector `i`; all are numbers.
    #[inline(always)]
    fn largest_of_each(vectors: &[Self::F; 16]) -> Self::F {
        let mut lanes = [0.0; 16];
        for (lane, &vector) in lanes.iter_mut().zip(vectors) {
            *lane = Self::largest(vector);
        }
        load16::<Self>(&lanes)
    }
    /// Lane `i` is the sum of the lanes of vector `i`.
    #[inline(always)]
    fn sum_of_each(vectors: &[Self::I; 16]) -> Self::I {
        let mut lanes = [0; 16];
        for (lane, &vector) in lanes.iter_mut().zip(vectors) {
            *lane = Self::sum_i(vector);
        }
        // SAFETY: 16 lanes of four bytes.
        unsafe { Self::load_bytes(lanes.as_ptr().cast()) }
    }
}

/// A computation with its arguments.
pub(crate) trait Operation {
    type Output;
    /// The specification.
    fn scalar(self) -> Self::Output;
    /// The same bits, faster. Must be `#[inline(always)]`.
    fn vector<S: Sixteen>(self) -> Self::Output;
}

/// Runs `operation` with the instructions `isa`, which this CPU must have.
pub(crate) fn run<O: Operation>(isa: Isa, operation: O) -> O::Output {
    match isa {
        Isa::Scalar => operation.scalar(),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Cpu::new`, the one source of `isa`, checked that this CPU has AVX2, FMA and F16C.
        Isa::Avx2 => unsafe { avx2::enter(operation) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above, for AVX-512 F, BW, DQ, VL and VNNI.
        Isa::Avx512 | Isa::Amx => unsafe { avx512::enter(operation) },
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx2 | Isa::Avx512 | Isa::Amx => unreachable!("{isa} kernels on another architecture"),
    }
}

/// Tile registers, on machines that have them.
#[cfg(target_arch = "x86_64")]
pub(crate) use amx::Tiles;

/// No tile registers here.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) enum Tiles {}

impl Tiles {
    /// The tile registers of this thread if `isa`, which this CPU must have, uses them.
    pub(crate) fn of(isa: Isa) -> Option<Tiles> {
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Cpu::new`, the one source of `isa`, checked that it is available.
            Isa::Amx => Some(unsafe { Tiles::new() }),
            _ => None,
        }
    }
}

/// 16 numbers from a slice of up to 16, the rest zero.
#[inline(always)]
pub(crate) fn padded(numbers: &[f32]) -> [f32; 16] {
    let mut lanes = [0.0; 16];
    lanes[..numbers.len()].copy_from_slice(numbers);
    lanes
}

#[inline(always)]
pub(crate) fn load16<S: Sixteen>(lanes: &[f32; 16]) -> S::F {
    // SAFETY: 16 lanes.
    unsafe { S::load(lanes.as_ptr()) }
}

#[inline(always)]
pub(crate) fn store16<S: Sixteen>(lanes: &mut [f32; 16], a: S::F) {
    // SAFETY: 16 lanes.
    unsafe { S::store(lanes.as_mut_ptr(), a) }
}
