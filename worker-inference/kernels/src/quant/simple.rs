//! The formats with one half-float scale, and perhaps one least value, for each block of 32.
//!
//! Q4_0, Q5_0: scale, (fifth bits,) 16 bytes of nibbles that stand for -8 to 7, or -16 to 15.
//! Q4_1, Q5_1: scale, least value, (fifth bits,) 16 bytes of nibbles from 0 on.
//! Q8_0: scale, 32 signed bytes.

use super::{BLOCK, Part, half_at};

pub(super) fn q4_0(block: &[u8]) -> Part {
    Part { q: nibbles(&block[2..]), scale: half_at(block, 0), least: 0, fine: [0; 2] }
}

pub(super) fn q4_1(block: &[u8]) -> Part {
    Part { q: nibbles(&block[4..]), scale: half_at(block, 0), least: half_at(block, 2), fine: [0; 2] }
}

pub(super) fn q5_0(block: &[u8]) -> Part {
    let q = with_fifth_bits(nibbles(&block[6..]), &block[2..]);
    Part { q, scale: half_at(block, 0), least: 0, fine: [0; 2] }
}

pub(super) fn q5_1(block: &[u8]) -> Part {
    let q = with_fifth_bits(nibbles(&block[8..]), &block[4..]);
    Part { q, scale: half_at(block, 0), least: half_at(block, 2), fine: [0; 2] }
}

pub(super) fn q8_0(block: &[u8]) -> Part {
    let q = std::array::from_fn(|index| block[2 + index] ^ 0x80);
    Part { q, scale: half_at(block, 0), least: 0, fine: [0; 2] }
}

/// Byte `i` of 16 holds value `i` below and value `i + 16` above.
fn nibbles(packed: &[u8]) -> [u8; BLOCK] {
    let mut q = [0; BLOCK];
    for (index, byte) in packed[..16].iter().enumerate() {
        q[index] = byte & 15;
        q[index + 16] = byte >> 4;
    }
    q
}

/// Bit `i` of a 32-bit number is the fifth bit of value `i`.
fn with_fifth_bits(mut q: [u8; BLOCK], bits: &[u8]) -> [u8; BLOCK] {
    let bits = u32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]]);
    for (index, q) in q.iter_mut().enumerate() {
        *q |= ((bits >> index & 1) << 4) as u8;
    }
    q
}
