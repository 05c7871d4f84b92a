//! The "K" formats: blocks of 256 values with half-float scales, in which parts have finer integer scales.
//!
//! Q4_K, Q5_K: scale, scale of the least values, eight 6-bit factors for either in 12 bytes, (32 bytes of fifth
//! bits,) 128 bytes of nibbles. A part of 32 values is `scale * a * q - scale of least * b`.
//! Q6_K: 128 bytes of nibbles, 64 bytes of upper bit pairs, 16 signed factors, scale. A part of 16 values is
//! `scale * a * (q - 32)`.

use super::{BLOCK, Part, half_at};

/// Where Q4_K and Q5_K keep their factors.
const FACTORS: usize = 4;
const FACTORS_END: usize = FACTORS + 12;

pub(super) fn q4_k(block: &[u8], part: usize) -> Part {
    with_factors(block, part, nibbles(&block[FACTORS_END..], part))
}

pub(super) fn q5_k(block: &[u8], part: usize) -> Part {
    let fifth = &block[FACTORS_END..FACTORS_END + BLOCK];
    let mut q = nibbles(&block[FACTORS_END + BLOCK..], part);
    for (q, bits) in q.iter_mut().zip(fifth) {
        *q |= (bits >> part & 1) << 4;
    }
    with_factors(block, part, q)
}

pub(super) fn q6_k(block: &[u8], part: usize) -> Part {
    // Two halves of 128 values: 64 bytes of nibbles, 32 bytes of bit pairs, four parts.
    let (half, part_of_half) = (part / 4, part % 4);
    let low = &block[half * 64 + part_of_half % 2 * 32..][..BLOCK];
    let high = &block[128 + half * 32..][..BLOCK];
    let q = std::array::from_fn(|index| {
        let nibble = low[index] >> (part_of_half / 2 * 4) & 15;
        nibble | (high[index] >> (part_of_half * 2) & 3) << 4
    });
    let factors = &block[192 + part * 2..];
    Part { q, scale: half_at(block, 208), least: 0, fine: [factors[0], factors[1]] }
}

/// 32 bytes hold the values of an even part below and of the next part above.
fn nibbles(packed: &[u8], part: usize) -> [u8; BLOCK] {
    let packed = &packed[part / 2 * BLOCK..][..BLOCK];
    std::array::from_fn(|index| packed[index] >> (part % 2 * 4) & 15)
}

fn with_factors(block: &[u8], part: usize, q: [u8; BLOCK]) -> Part {
    // The least value is subtracted, so its scale changes its sign here.
    let least = half_at(block, 2) ^ 0x8000;
    Part { q, scale: half_at(block, 0), least, fine: factors(&block[FACTORS..FACTORS_END], part) }
}

/// The 6-bit factors of a part, for scale and least value. Of the last four parts the upper two bits lie in the
/// bytes of the first four.
fn factors(packed: &[u8], part: usize) -> [u8; 2] {
    let (a, b) = (packed[part % 4], packed[4 + part % 4]);
    if part < 4 {
        return [a & 63, b & 63];
    }
    let low = packed[4 + part];
    [low & 15 | a >> 6 << 4, low >> 4 | b >> 6 << 4]
}
