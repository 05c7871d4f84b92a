//! The formats in which GGUF files hold weights: how many values a block has, how many bytes, and what it means.
//!
//! Every block format is seen as parts of 32 values ([`Part`]): unsigned numbers `q` with a scale. All that follows
//! (dequantising, repacking, products) works on parts and on what [`Format`] says of them.

mod k;
mod simple;

use crate::half;
use std::fmt;

/// Values in a part of every quantised format; activations are quantised in blocks of as many.
pub(crate) const BLOCK: usize = 32;

/// Values in a block of the "K" formats.
const K_BLOCK: usize = 256;

/// How a tensor's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(non_camel_case_types)] // The names that everyone knows.
pub enum Format {
    F32,
    F16,
    /// The upper half of an F32.
    BF16,
    /// Blocks of 32 values of 4 bits: `scale * (q - 8)`.
    Q4_0,
    /// Blocks of 32 values of 4 bits: `scale * q + least`.
    Q4_1,
    /// Blocks of 32 values of 5 bits: `scale * (q - 16)`.
    Q5_0,
    /// Blocks of 32 values of 5 bits: `scale * q + least`.
    Q5_1,
    /// Blocks of 32 values of 8 bits: `scale * q`.
    Q8_0,
    /// Blocks of 8 x 32 values of 4 bits: `scale * a * q + least * b`, `a` and `b` of 6 bits for each 32.
    Q4_K,
    /// As Q4_K with values of 5 bits.
    Q5_K,
    /// Blocks of 16 x 16 values of 6 bits: `scale * a * (q - 32)`, `a` of 8 bits for each 16.
    Q6_K,
}

/// The integer factors that the parts of a format have beside the scale of their block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Factors {
    None,
    /// One for the scale and one for the least value, both from 0 to 63.
    ScaleAndLeast,
    /// One for the scale of either half, from -128 to 127.
    Halves,
}

/// 32 values of a block format, taken apart.
pub(crate) struct Part {
    /// From 0 to `2^bits - 1`: what the value stands for is [`Format::zero`] less.
    pub(crate) q: [u8; BLOCK],
    /// A half float.
    pub(crate) scale: u16,
    /// A half float; added, never subtracted.
    pub(crate) least: u16,
    /// What [`Format::factors`] says.
    pub(crate) fine: [u8; 2],
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 11] = [
        Format::F32,
        Format::F16,
        Format::BF16,
        Format::Q4_0,
        Format::Q4_1,
        Format::Q5_0,
        Format::Q5_1,
        Format::Q8_0,
        Format::Q4_K,
        Format::Q5_K,
        Format::Q6_K,
    ];

    /// The format with this type number in a GGUF file, if it is one of ours.
    pub fn from_ggml(id: u32) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.ggml() == id)
    }

    /// Its type number in a GGUF file.
    pub fn ggml(self) -> u32 {
        match self {
            Format::F32 => 0,
            Format::F16 => 1,
            Format::BF16 => 30,
            Format::Q4_0 => 2,
            Format::Q4_1 => 3,
            Format::Q5_0 => 6,
            Format::Q5_1 => 7,
            Format::Q8_0 => 8,
            Format::Q4_K => 12,
            Format::Q5_K => 13,
            Format::Q6_K => 14,
        }
    }

    /// Values in a block.
    pub const fn block_len(self) -> usize {
        match self {
            Format::F32 | Format::F16 | Format::BF16 => 1,
            Format::Q4_0 | Format::Q4_1 | Format::Q5_0 | Format::Q5_1 | Format::Q8_0 => BLOCK,
            Format::Q4_K | Format::Q5_K | Format::Q6_K => K_BLOCK,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Format::F32 => 4,
            Format::F16 | Format::BF16 => 2,
            Format::Q4_0 => 2 + 16,
            Format::Q4_1 => 4 + 16,
            Format::Q5_0 => 2 + 4 + 16,
            Format::Q5_1 => 4 + 4 + 16,
            Format::Q8_0 => 2 + 32,
            Format::Q4_K => 4 + 12 + 128,
            Format::Q5_K => 4 + 12 + 32 + 128,
            Format::Q6_K => 128 + 64 + 16 + 2,
        }
    }

    /// Bytes of a row of `cols` values; `None` if those are not whole blocks, or too many to count.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_len()) {
            return None;
        }
        (cols / self.block_len()).checked_mul(self.block_bytes())
    }

    /// Whether products with it go through 8-bit integers.
    pub(crate) const fn is_quantised(self) -> bool {
        !matches!(self, Format::F32 | Format::F16 | Format::BF16)
    }

    /// Bits of a number of a block format.
    pub(crate) const fn bits(self) -> usize {
        match self {
            Format::Q4_0 | Format::Q4_1 | Format::Q4_K => 4,
            Format::Q5_0 | Format::Q5_1 | Format::Q5_K => 5,
            Format::Q6_K => 6,
            Format::Q8_0 => 8,
            Format::F32 | Format::F16 | Format::BF16 => panic!("float formats have no blocks"),
        }
    }

    /// What a number of a block format stands for is this much less.
    pub(crate) const fn zero(self) -> i32 {
        match self {
            Format::Q4_0 => 8,
            Format::Q5_0 => 16,
            Format::Q6_K => 32,
            Format::Q8_0 => 128,
            _ => 0,
        }
    }

    /// Whether values have a least value added.
    pub(crate) const fn has_least(self) -> bool {
        matches!(self, Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K)
    }

    pub(crate) const fn factors(self) -> Factors {
        match self {
            Format::Q4_K | Format::Q5_K => Factors::ScaleAndLeast,
            Format::Q6_K => Factors::Halves,
            _ => Factors::None,
        }
    }

    /// Part `part` of a block of a block format, as it lies in a file.
    pub(crate) fn part(self, block: &[u8], part: usize) -> Part {
        match self {
            Format::Q4_0 => simple::q4_0(block),
            Format::Q4_1 => simple::q4_1(block),
            Format::Q5_0 => simple::q5_0(block),
            Format::Q5_1 => simple::q5_1(block),
            Format::Q8_0 => simple::q8_0(block),
            Format::Q4_K => k::q4_k(block, part),
            Format::Q5_K => k::q5_k(block, part),
            Format::Q6_K => k::q6_k(block, part),
            Format::F32 | Format::F16 | Format::BF16 => panic!("{self} has no blocks"),
        }
    }

    /// Value `index` of a part. Exact but for the addition of the least value.
    pub(crate) fn value(self, index: usize, q: u8, scale: f32, least: f32, fine: [u8; 2]) -> f32 {
        let q = f32::from(i16::from(q) - self.zero() as i16);
        let (scale, least) = match self.factors() {
            Factors::None => (scale, least),
            Factors::ScaleAndLeast => (scale * f32::from(fine[0]), least * f32::from(fine[1])),
            Factors::Halves => (scale * f32::from(fine[index / 16] as i8), least),
        };
        if self.has_least() { scale * q + least } else { scale * q }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The values of whole blocks as they lie in a file.
///
/// # Panics
/// If `data` is not exactly the blocks of `out.len()` values.
pub fn dequantize(format: Format, data: &[u8], out: &mut [f32]) {
    assert_eq!(Some(data.len()), format.row_bytes(out.len()), "bytes of {} {format} values", out.len());
    let blocks = data.chunks_exact(format.block_bytes()).zip(out.chunks_exact_mut(format.block_len()));
    for (block, values) in blocks {
        match format {
            Format::F32 => values[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
            Format::F16 => values[0] = half::to_f32(half_at(block, 0)),
            Format::BF16 => values[0] = half::bf16_to_f32(half_at(block, 0)),
            _ => dequantize_block(format, block, values),
        }
    }
}

fn dequantize_block(format: Format, block: &[u8], values: &mut [f32]) {
    for (index, values) in values.chunks_exact_mut(BLOCK).enumerate() {
        let part = format.part(block, index);
        let (scale, least) = (half::to_f32(part.scale), half::to_f32(part.least));
        for (index, value) in values.iter_mut().enumerate() {
            *value = format.value(index, part.q[index], scale, least, part.fine);
        }
    }
}

/// The 16-bit number at byte `offset`.
pub(crate) fn half_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q8_0_is_scale_times_q() {
        let mut block = vec![0x00, 0x38]; // 0.5
        block.extend((0..32).map(|q| (q - 16) as u8));
        let mut values = [0.0; 32];
        dequantize(Format::Q8_0, &block, &mut values);
        assert_eq!(values, std::array::from_fn(|i| (i as f32 - 16.0) / 2.0));
    }

    #[test]
    fn q4_formats_put_the_second_half_into_upper_nibbles() {
        let packed: Vec<u8> = (0..16).map(|i| i | (15 - i) << 4).collect();
        let q = |i: usize| if i < 16 { i as f32 } else { 31.0 - i as f32 };
        let mut values = [0.0; 32];
        let q4_0 = [&[0x00, 0x40][..], &packed].concat(); // 2
        dequantize(Format::Q4_0, &q4_0, &mut values);
        assert_eq!(values, std::array::from_fn(|i| 2.0 * (q(i) - 8.0)));
        let q4_1 = [&[0x00, 0x40, 0x00, 0xbc][..], &packed].concat(); // 2, -1
        dequantize(Format::Q4_1, &q4_1, &mut values);
        assert_eq!(values, std::array::from_fn(|i| 2.0 * q(i) - 1.0));
    }

    #[test]
    fn plain_floats() {
        let mut value = [0.0];
        dequantize(Format::F32, &1.25f32.to_le_bytes(), &mut value);
        assert_eq!(value, [1.25]);
        dequantize(Format::F16, &[0x00, 0xc0], &mut value);
        assert_eq!(value, [-2.0]);
    }

    #[test]
    fn rows_are_whole_blocks() {
        assert_eq!(Format::Q4_1.row_bytes(576), Some(360));
        assert_eq!(Format::Q8_0.row_bytes(33), None);
        assert_eq!(Format::F32.row_bytes(usize::MAX), None);
    }
}
