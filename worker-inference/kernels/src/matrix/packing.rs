//! Where the numbers of 16 interleaved rows lie in a *unit*, the 32 columns of all of them.
//!
//! A vector holds four columns of 16 rows: its byte `(row, i)` is byte `4 * row + i`. Vector `j` of eight is columns
//! `4j..4j + 4`.
//!
//! - 8 bits: the eight vectors.
//! - 4 bits: four vectors; byte `b` of the `j`-th is that of vector `j` below and of vector `j + 4` above.
//! - 5 bits: the lower four as above, then one vector of bits; bit `j` of its bytes belongs to vector `j`.
//! - 6 bits: the lower four as above, then two vectors of bit pairs; bits `2t` and `2t + 1` of the bytes of the
//!   `p`-th belong to vector `4p + t`.

use super::GROUP;
use crate::quant::BLOCK;

/// Bytes of a vector.
pub(crate) const VECTOR: usize = 4 * GROUP;
/// Where the bits above the lower four begin.
pub(crate) const UPPER: usize = 4 * VECTOR;

/// A unit unpacked: 32 columns of 16 weight rows, eight vectors of four columns each.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct UnitWeights(pub(crate) [[u8; VECTOR]; BLOCK / 4]);

/// Bytes of a unit of numbers of so many bits.
pub(crate) const fn unit_bytes(bits: usize) -> usize {
    BLOCK * GROUP * bits / 8
}

/// Puts the numbers of one row into a unit that is still zero there.
pub(super) fn put(unit: &mut [u8], bits: usize, row: usize, q: &[u8; BLOCK]) {
    if bits == 8 {
        return put_bytes(unit, row, q);
    }
    let low: [u8; 16] = std::array::from_fn(|index| q[index] & 15 | q[index + 16] << 4);
    put_bytes(unit, row, &low);
    let upper = &mut unit[UPPER..];
    match bits {
        4 => {}
        5 => put_bytes(upper, row, &upper_bits::<4>(q, 1)),
        6 => put_bytes(upper, row, &upper_bits::<8>(q, 2)),
        _ => unreachable!("numbers of {bits} bits"),
    }
}

/// The bits above the lower four, `width` of each number, by byte of one row.
fn upper_bits<const N: usize>(q: &[u8; BLOCK], width: usize) -> [u8; N] {
    let in_a_byte = 8 / width;
    std::array::from_fn(|byte| {
        let vector = |t| byte / 4 * in_a_byte + t;
        (0..in_a_byte).fold(0, |bits, t| bits | q[vector(t) * 4 + byte % 4] >> 4 << (t * width))
    })
}

/// The bytes of one row, four to a vector.
fn put_bytes(vectors: &mut [u8], row: usize, bytes: &[u8]) {
    for (four, vector) in bytes.chunks_exact(4).zip(vectors.chunks_exact_mut(VECTOR)) {
        vector[row * 4..][..4].copy_from_slice(four);
    }
}

/// The number of one row and column (of 32).
pub(crate) fn get(unit: &[u8], bits: usize, row: usize, col: usize) -> u8 {
    let (vector, byte) = (col / 4, row * 4 + col % 4);
    if bits == 8 {
        return unit[vector * VECTOR + byte];
    }
    let low = unit[vector % 4 * VECTOR + byte] >> (vector / 4 * 4) & 15;
    let upper = match bits {
        5 => unit[UPPER + byte] >> vector & 1,
        6 => unit[UPPER + vector / 4 * VECTOR + byte] >> (vector % 4 * 2) & 3,
        _ => 0,
    };
    low | upper << 4
}
