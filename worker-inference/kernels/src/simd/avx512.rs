//! 512-bit vectors.

use super::{Operation, Sixteen, Vector};
use std::arch::x86_64::*;

pub(crate) struct Avx512;

/// # Safety
/// The CPU has AVX-512 F, BW, DQ, VL and VNNI, and AVX2, FMA and F16C.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn enter<O: Operation>(operation: O) -> O::Output {
    operation.vector::<Avx512>()
}

/// An instruction of this set.
macro_rules! op {
    ($e:expr) => {{
        // SAFETY: reached only through `enter`, on a CPU that has the instructions (see `Vector`).
        unsafe { $e }
    }};
}

impl Vector for Avx512 {
    const LANES: usize = 16;
    const I8_BIAS: i32 = 128;
    type F = __m512;
    type I = __m512i;

    #[inline(always)]
    fn splat(x: f32) -> __m512 {
        op!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn add(a: __m512, b: __m512) -> __m512 {
        op!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(a: __m512, b: __m512) -> __m512 {
        op!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(a: __m512, b: __m512) -> __m512 {
        op!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(a: __m512, b: __m512) -> __m512 {
        op!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        op!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(a: __m512, b: __m512) -> __m512 {
        op!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(a: __m512, b: __m512) -> __m512 {
        op!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn abs(a: __m512) -> __m512 {
        op!(_mm512_abs_ps(a))
    }
    #[inline(always)]
    fn round(a: __m512) -> __m512 {
        op!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn power_of_two(n: __m512) -> __m512 {
        let biased = Self::add_i(Self::to_int(n), Self::splat_i(127));
        op!(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased)))
    }
    #[inline(always)]
    fn scale_by_power(a: __m512, n: __m512) -> __m512 {
        op!(_mm512_scalef_ps(a, n))
    }
    #[inline(always)]
    fn zero_below(x: __m512, bound: __m512, y: __m512) -> __m512 {
        op!(_mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, bound), y))
    }
    #[inline(always)]
    fn select(mask: u16, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_mask_blend_ps(mask, b, a))
    }
    #[inline(always)]
    fn swap_pairs(a: __m512) -> __m512 {
        op!(_mm512_permute_ps::<0b10_11_00_01>(a))
    }

    #[inline(always)]
    fn splat_i(x: i32) -> __m512i {
        op!(_mm512_set1_epi32(x))
    }
    #[inline(always)]
    fn add_i(a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn to_int(a: __m512) -> __m512i {
        op!(_mm512_cvtps_epi32(a))
    }
    #[inline(always)]
    fn to_float(a: __m512i) -> __m512 {
        op!(_mm512_cvtepi32_ps(a))
    }
    #[inline(always)]
    fn sub_bytes(a: __m512i, amount: u8) -> __m512i {
        op!(_mm512_sub_epi8(a, _mm512_set1_epi8(amount as i8)))
    }
    #[inline(always)]
    fn low_nibbles(a: __m512i) -> __m512i {
        op!(_mm512_and_si512(a, _mm512_set1_epi8(15)))
    }
    #[inline(always)]
    fn high_nibbles(a: __m512i) -> __m512i {
        op!(_mm512_and_si512(_mm512_srli_epi16::<4>(a), _mm512_set1_epi8(15)))
    }
    #[inline(always)]
    fn or_bits(a: __m512i, bits: __m512i, down: i32, mask: u8) -> __m512i {
        // The count is a constant wherever this is called, and so becomes part of the instruction.
        let moved = if down < 0 {
            op!(_mm512_sll_epi16(bits, _mm_cvtsi32_si128(-down)))
        } else {
            op!(_mm512_srl_epi16(bits, _mm_cvtsi32_si128(down)))
        };
        op!(_mm512_or_si512(a, _mm512_and_si512(moved, _mm512_set1_epi8(mask as i8))))
    }
    #[inline(always)]
    fn dot_u7(sum: __m512i, w: __m512i, a: __m512i) -> __m512i {
        op!(_mm512_dpbusd_epi32(sum, w, a))
    }
    #[inline(always)]
    fn dot_i8(sum: __m512i, w: __m512i, a: __m512i) -> __m512i {
        op!(_mm512_dpbusd_epi32(sum, w, a))
    }

    #[inline(always)]
    fn prefetch(from: *const u8) {
        op!(_mm_prefetch::<_MM_HINT_T0>(from.cast()))
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, a: __m512) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_ps(to, a) }
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u16) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> __m512 {
        // SAFETY: the caller's promise.
        let words = unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())) };
        op!(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(words)))
    }
    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn store_half(to: *mut u16, a: __m512) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a)) }
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, a: __m512i) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_si512(to.cast(), a) }
    }
    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, a: __m512i) {
        // SAFETY: the caller's promise.
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(a)) }
    }
}

impl Sixteen for Avx512 {
    type Native = Avx512;

    #[inline(always)]
    fn sum(a: __m512) -> f32 {
        let eight = op!(_mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a)));
        super::avx2::sum_of_eight(eight)
    }
    #[inline(always)]
    fn largest(a: __m512) -> f32 {
        op!(_mm512_reduce_max_ps(a))
    }
    #[inline(always)]
    fn sum_i(a: __m512i) -> i32 {
        op!(_mm512_reduce_add_epi32(a))
    }
    #[inline(always)]
    fn largest_of_each(vectors: &[__m512; 16]) -> __m512 {
        fold_each(vectors, |a, b| op!(_mm512_max_ps(a, b)))
    }
    #[inline(always)]
    fn sum_of_each(vectors: &[__m512i; 16]) -> __m512i {
        let mut floats = [Self::splat(0.0); 16];
        for (float, &vector) in floats.iter_mut().zip(vectors) {
            *float = op!(_mm512_castsi512_ps(vector));
        }
        let sums = fold_each(&floats, |a, b| {
            op!(_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b))))
        });
        op!(_mm512_castps_si512(sums))
    }
}

/// Lane `i` is what becomes of the lanes of vector `i`: pairs of vectors are folded into one that has half as many lanes of each.
#[inline(always)]
fn fold_each(vectors: &[__m512; 16], fold: impl Fn(__m512, __m512) -> __m512) -> __m512 {
    let mut v = *vectors;
    // Halves, then quarters: vector `i` has those of `i`, `i + 8`, `i + 4` and `i + 12` side by side.
    for i in 0..8 {
        let (a, b) = (v[i], v[i + 8]);
        v[i] = fold(op!(_mm512_shuffle_f32x4::<0x44>(a, b)), op!(_mm512_shuffle_f32x4::<0xee>(a, b)));
    }
    for i in 0..4 {
        let (a, b) = (v[i], v[i + 4]);
        v[i] = fold(op!(_mm512_shuffle_f32x4::<0x88>(a, b)), op!(_mm512_shuffle_f32x4::<0xdd>(a, b)));
    }
    // Inside quarters.
    for i in 0..2 {
        let (a, b) = (v[i], v[i + 2]);
        v[i] = fold(op!(_mm512_unpacklo_ps(a, b)), op!(_mm512_unpackhi_ps(a, b)));
    }
    let mixed = fold(op!(_mm512_unpacklo_ps(v[0], v[1])), op!(_mm512_unpackhi_ps(v[0], v[1])));
    op!(_mm512_shuffle_f32x4::<0b11_01_10_00>(mixed, mixed))
}
