//! 256-bit vectors, and two of them side by side where 16 lanes are asked for.

use super::{Operation, Sixteen, Vector};
use crate::quant::BLOCK;
use std::arch::asm;
use std::arch::x86_64::*;

pub(crate) struct Avx2;

/// Two vectors as one of 16 lanes.
pub(crate) struct Pair;

/// # Safety
/// The CPU has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn enter<O: Operation>(operation: O) -> O::Output {
    operation.vector::<Pair>()
}

/// An instruction of this set.
macro_rules! op {
    ($e:expr) => {{
        // SAFETY: reached only through `enter`, on a CPU that has the instructions (see `Vector`).
        unsafe { $e }
    }};
}

/// The last three steps of the fixed tree.
#[inline(always)]
pub(super) fn sum_of_eight(a: __m256) -> f32 {
    let four = op!(_mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a)));
    let two = op!(_mm_add_ps(four, _mm_movehl_ps(four, four)));
    op!(_mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two))))
}

/// Products of two vectors of weights with the four columns at `x + AT`, pair by pair: added to `pairs`, or instead of
/// them where `BEGIN`.
///
/// In assembly, because of what the compiler does with many of these: it loads all columns first, runs out of registers,
/// and writes them to memory.
///
/// # Safety
/// `x` points at `AT + 4` bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply<const AT: usize, const BEGIN: bool>(
    pairs: &mut [__m256i; 2],
    w0: __m256i,
    w1: __m256i,
    x: *const u8,
) {
    let [mut first, mut second] = *pairs;
    // SAFETY: it reads what the caller promises, and uses the instructions that this function asks for.
    unsafe {
        if BEGIN {
            asm!(
                "vpbroadcastd {second}, dword ptr [{x} + {at}]",
                "vpmaddubsw {first}, {w0}, {second}",
                "vpmaddubsw {second}, {w1}, {second}",
                x = in(reg) x, at = const AT, w0 = in(ymm_reg) w0, w1 = in(ymm_reg) w1,
                first = out(ymm_reg) first, second = out(ymm_reg) second,
                options(nostack, preserves_flags, readonly),
            );
        } else {
            asm!(
                "vpbroadcastd {columns}, dword ptr [{x} + {at}]",
                "vpmaddubsw {products}, {w0}, {columns}",
                "vpmaddubsw {columns}, {w1}, {columns}",
                "vpaddw {first}, {first}, {products}",
                "vpaddw {second}, {second}, {columns}",
                x = in(reg) x, at = const AT, w0 = in(ymm_reg) w0, w1 = in(ymm_reg) w1,
                products = out(ymm_reg) _, columns = out(ymm_reg) _,
                first = inout(ymm_reg) first, second = inout(ymm_reg) second,
                options(nostack, preserves_flags, readonly),
            );
        }
    }
    *pairs = [first, second];
}

impl Vector for Avx2 {
    const LANES: usize = 8;
    const I8_BIAS: i32 = 0;
    type F = __m256;
    type I = __m256i;

    #[inline(always)]
    fn splat(x: f32) -> __m256 {
        op!(_mm256_set1_ps(x))
    }
    #[inline(always)]
    fn add(a: __m256, b: __m256) -> __m256 {
        op!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(a: __m256, b: __m256) -> __m256 {
        op!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(a: __m256, b: __m256) -> __m256 {
        op!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(a: __m256, b: __m256) -> __m256 {
        op!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        op!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(a: __m256, b: __m256) -> __m256 {
        op!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn min(a: __m256, b: __m256) -> __m256 {
        op!(_mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn abs(a: __m256) -> __m256 {
        op!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), a))
    }
    #[inline(always)]
    fn round(a: __m256) -> __m256 {
        op!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn power_of_two(n: __m256) -> __m256 {
        let biased = Self::add_i(Self::to_int(n), Self::splat_i(127));
        op!(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased)))
    }
    #[inline(always)]
    fn zero_below(x: __m256, bound: __m256, y: __m256) -> __m256 {
        op!(_mm256_and_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(x, bound), y))
    }
    #[inline(always)]
    fn select(mask: u16, a: __m256, b: __m256) -> __m256 {
        let bits = op!(_mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128));
        let set = op!(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(i32::from(mask)), bits), bits));
        op!(_mm256_blendv_ps(b, a, _mm256_castsi256_ps(set)))
    }
    #[inline(always)]
    fn swap_pairs(a: __m256) -> __m256 {
        op!(_mm256_permute_ps::<0b10_11_00_01>(a))
    }

    #[inline(always)]
    fn splat_i(x: i32) -> __m256i {
        op!(_mm256_set1_epi32(x))
    }
    #[inline(always)]
    fn add_i(a: __m256i, b: __m256i) -> __m256i {
        op!(_mm256_add_epi32(a, b))
    }
    #[inline(always)]
    fn to_int(a: __m256) -> __m256i {
        op!(_mm256_cvtps_epi32(a))
    }
    #[inline(always)]
    fn to_float(a: __m256i) -> __m256 {
        op!(_mm256_cvtepi32_ps(a))
    }
    #[inline(always)]
    fn sub_bytes(a: __m256i, amount: u8) -> __m256i {
        op!(_mm256_sub_epi8(a, _mm256_set1_epi8(amount as i8)))
    }
    #[inline(always)]
    fn low_nibbles(a: __m256i) -> __m256i {
        op!(_mm256_and_si256(a, _mm256_set1_epi8(15)))
    }
    #[inline(always)]
    fn high_nibbles(a: __m256i) -> __m256i {
        op!(_mm256_and_si256(_mm256_srli_epi16::<4>(a), _mm256_set1_epi8(15)))
    }
    #[inline(always)]
    fn or_bits(a: __m256i, bits: __m256i, down: i32, mask: u8) -> __m256i {
        // The count is a constant wherever this is called, and so becomes part of the instruction.
        let moved = if down < 0 {
            op!(_mm256_sll_epi16(bits, _mm_cvtsi32_si128(-down)))
        } else {
            op!(_mm256_srl_epi16(bits, _mm_cvtsi32_si128(down)))
        };
        op!(_mm256_or_si256(a, _mm256_and_si256(moved, _mm256_set1_epi8(mask as i8))))
    }
    #[inline(always)]
    fn dot_u7(sum: __m256i, w: __m256i, a: __m256i) -> __m256i {
        // Pairs reach 2 * 127 * 127 = 32,258 and fit i16.
        op!(_mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, a), _mm256_set1_epi16(1))))
    }
    #[inline(always)]
    fn dot_small(sum: __m256i, w: &[__m256i], a: impl Fn(usize) -> __m256i) -> __m256i {
        // Widening takes as long as multiplying does, so it is done once.
        let mut pairs = op!(_mm256_setzero_si256());
        for (place, w) in w.iter().enumerate() {
            pairs = op!(_mm256_add_epi16(pairs, _mm256_maddubs_epi16(*w, a(place))));
        }
        op!(_mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))))
    }
    #[inline(always)]
    unsafe fn dot_small_tile<const ROWS: usize>(
        sums: &mut [[__m256i; 2]; ROWS],
        steps: usize,
        w: *const u8,
        x: *const [i8; BLOCK],
    ) {
        let mut pairs = [[op!(_mm256_setzero_si256()); 2]; ROWS];
        macro_rules! step {
            ($($step:literal)*) => {$(
                if $step < steps {
                    // SAFETY: the caller's promise.
                    let (w0, w1) = unsafe {
                        let from = w.cast::<__m256i>().add(2 * $step);
                        (_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1)))
                    };
                    step!($step: w0, w1, 0 1 2 3);
                }
            )*};
            ($step:literal: $w0:ident, $w1:ident, $($row:literal)*) => {$(
                if $row < ROWS {
                    // SAFETY: the caller's promise.
                    op!(multiply::<{ $row * BLOCK + $step * 4 }, { $step == 0 }>(&mut pairs[$row], $w0, $w1, x.cast()));
                }
            )*};
        }
        const { assert!(ROWS <= 4) };
        step!(0 1 2 3 4 5 6 7);
        for row in 0..ROWS {
            for side in 0..2 {
                let wide = op!(_mm256_madd_epi16(pairs[row][side], _mm256_set1_epi16(1)));
                sums[row][side] = op!(_mm256_add_epi32(sums[row][side], wide));
            }
        }
    }
    #[inline(always)]
    fn dot_i8(sum: __m256i, w: __m256i, a: __m256i) -> __m256i {
        // |w| as an unsigned byte times `a` with the sign of `w`: pairs reach 2 * 128 * 127 = 32,512 and just fit
        // i16, which 255 * 127 would not.
        let signed = op!(_mm256_xor_si256(w, _mm256_set1_epi8(-128)));
        let pairs = op!(_mm256_maddubs_epi16(_mm256_abs_epi8(signed), _mm256_sign_epi8(a, signed)));
        op!(_mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))))
    }

    #[inline(always)]
    fn prefetch(from: *const u8) {
        op!(_mm_prefetch::<_MM_HINT_T0>(from.cast()))
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, a: __m256) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_ps(to, a) }
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u16) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> __m256 {
        // SAFETY: the caller's promise.
        let words = unsafe { _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())) };
        op!(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(words)))
    }
    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn store_half(to: *mut u16, a: __m256) {
        // SAFETY: the caller's promise.
        unsafe { _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a)) }
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, a: __m256i) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_si256(to.cast(), a) }
    }
    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, a: __m256i) {
        let words = op!(_mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a)));
        // SAFETY: the caller's promise: room for the lower 8 bytes.
        unsafe { _mm_storel_epi64(to.cast(), _mm_packs_epi16(words, words)) }
    }
}

/// Methods of [`Pair`] that do the same to both halves.
macro_rules! on_both {
    ($($name:ident($($arg:ident: $kind:ident),*) -> $result:ident;)*) => {$(
        #[inline(always)]
        fn $name($($arg: Self::$kind),*) -> Self::$result {
            (Avx2::$name($($arg.0),*), Avx2::$name($($arg.1),*))
        }
    )*};
}

impl Vector for Pair {
    const LANES: usize = 16;
    const I8_BIAS: i32 = Avx2::I8_BIAS;
    type F = (__m256, __m256);
    type I = (__m256i, __m256i);

    on_both! {
        add(a: F, b: F) -> F;
        sub(a: F, b: F) -> F;
        mul(a: F, b: F) -> F;
        div(a: F, b: F) -> F;
        fma(a: F, b: F, c: F) -> F;
        max(a: F, b: F) -> F;
        min(a: F, b: F) -> F;
        abs(a: F) -> F;
        round(a: F) -> F;
        power_of_two(n: F) -> F;
        zero_below(x: F, bound: F, y: F) -> F;
        swap_pairs(a: F) -> F;
        add_i(a: I, b: I) -> I;
        to_int(a: F) -> I;
        to_float(a: I) -> F;
        low_nibbles(a: I) -> I;
        high_nibbles(a: I) -> I;
        dot_u7(sum: I, w: I, a: I) -> I;
        dot_i8(sum: I, w: I, a: I) -> I;
    }

    #[inline(always)]
    fn splat(x: f32) -> Self::F {
        (Avx2::splat(x), Avx2::splat(x))
    }
    #[inline(always)]
    fn splat_i(x: i32) -> Self::I {
        (Avx2::splat_i(x), Avx2::splat_i(x))
    }
    #[inline(always)]
    fn select(mask: u16, a: Self::F, b: Self::F) -> Self::F {
        (Avx2::select(mask, a.0, b.0), Avx2::select(mask >> 8, a.1, b.1))
    }
    #[inline(always)]
    fn sub_bytes(a: Self::I, amount: u8) -> Self::I {
        (Avx2::sub_bytes(a.0, amount), Avx2::sub_bytes(a.1, amount))
    }
    #[inline(always)]
    fn or_bits(a: Self::I, bits: Self::I, down: i32, mask: u8) -> Self::I {
        (Avx2::or_bits(a.0, bits.0, down, mask), Avx2::or_bits(a.1, bits.1, down, mask))
    }
    #[inline(always)]
    fn prefetch(from: *const u8) {
        Avx2::prefetch(from)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::F {
        // SAFETY: the caller's promise covers both halves.
        unsafe { (Avx2::load(from), Avx2::load(from.add(8))) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, a: Self::F) {
        // SAFETY: the caller's promise covers both halves.
        unsafe {
            Avx2::store(to, a.0);
            Avx2::store(to.add(8), a.1);
        }
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u16) -> Self::F {
        // SAFETY: the caller's promise covers both halves.
        unsafe { (Avx2::load_half(from), Avx2::load_half(from.add(8))) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self::F {
        // SAFETY: the caller's promise covers both halves.
        unsafe { (Avx2::load_bf16(from), Avx2::load_bf16(from.add(8))) }
    }
    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> Self::F {
        // SAFETY: the caller's promise covers both halves.
        unsafe { (Avx2::load_u8(from), Avx2::load_u8(from.add(8))) }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self::F {
        // SAFETY: the caller's promise covers both halves.
        unsafe { (Avx2::load_i8(from), Avx2::load_i8(from.add(8))) }
    }
    #[inline(always)]
    unsafe fn store_half(to: *mut u16, a: Self::F) {
        // SAFETY: the caller's promise covers both halves.
        unsafe {
            Avx2::store_half(to, a.0);
            Avx2::store_half(to.add(8), a.1);
        }
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self::I {
        // SAFETY: the caller's promise covers both halves.
        unsafe { (Avx2::load_bytes(from), Avx2::load_bytes(from.add(32))) }
    }
    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, a: Self::I) {
        // SAFETY: the caller's promise covers both halves.
        unsafe {
            Avx2::store_bytes(to, a.0);
            Avx2::store_bytes(to.add(32), a.1);
        }
    }
    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, a: Self::I) {
        // SAFETY: the caller's promise covers both halves.
        unsafe {
            Avx2::store_i8(to, a.0);
            Avx2::store_i8(to.add(8), a.1);
        }
    }
}

impl Sixteen for Pair {
    type Native = Avx2;

    #[inline(always)]
    fn sum(a: Self::F) -> f32 {
        sum_of_eight(Avx2::add(a.0, a.1))
    }
    #[inline(always)]
    fn largest(a: Self::F) -> f32 {
        let eight = Avx2::max(a.0, a.1);
        let four = op!(_mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight)));
        let two = op!(_mm_max_ps(four, _mm_movehl_ps(four, four)));
        op!(_mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two))))
    }
    #[inline(always)]
    fn sum_i(a: Self::I) -> i32 {
        let eight = Avx2::add_i(a.0, a.1);
        let four = op!(_mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight)));
        let two = op!(_mm_add_epi32(four, _mm_shuffle_epi32::<0b11_10>(four)));
        op!(_mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b01>(two))))
    }
}
