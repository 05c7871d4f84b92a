//! The formats in which GGUF files hold weights: how many values a block has, how many bytes, and what it means.
//!
//! One file per block format. A new one needs a variant here, a file beside the others, and its repacking in
//! `matrix.rs`.

mod q4_0;
mod q4_1;
mod q8_0;

use crate::half;
use std::fmt;

/// Values in a block of every quantised format so far; activations are quantised in the same blocks.
pub(crate) const BLOCK: usize = 32;

/// How a tensor's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    F32,
    F16,
    /// Blocks of 32 values of 4 bits: `scale * (q - 8)`.
    Q4_0,
    /// Blocks of 32 values of 4 bits: `scale * q + least`.
    Q4_1,
    /// Blocks of 32 values of 8 bits: `scale * q`.
    Q8_0,
}

impl Format {
    /// The format with this type number in a GGUF file, if it is one of ours.
    pub fn from_ggml(id: u32) -> Option<Format> {
        match id {
            0 => Some(Format::F32),
            1 => Some(Format::F16),
            2 => Some(Format::Q4_0),
            3 => Some(Format::Q4_1),
            8 => Some(Format::Q8_0),
            _ => None,
        }
    }

    /// Values in a block.
    pub fn block_len(self) -> usize {
        match self {
            Format::F32 | Format::F16 => 1,
            Format::Q4_0 | Format::Q4_1 | Format::Q8_0 => BLOCK,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Format::F32 => 4,
            Format::F16 => 2,
            Format::Q4_0 => q4_0::BYTES,
            Format::Q4_1 => q4_1::BYTES,
            Format::Q8_0 => q8_0::BYTES,
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
    pub(crate) fn is_quantised(self) -> bool {
        match self {
            Format::F32 | Format::F16 => false,
            Format::Q4_0 | Format::Q4_1 | Format::Q8_0 => true,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::F32 => "F32",
            Format::F16 => "F16",
            Format::Q4_0 => "Q4_0",
            Format::Q4_1 => "Q4_1",
            Format::Q8_0 => "Q8_0",
        })
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
            Format::Q4_0 => q4_0::dequantize(block, values),
            Format::Q4_1 => q4_1::dequantize(block, values),
            Format::Q8_0 => q8_0::dequantize(block, values),
        }
    }
}

/// The 16-bit number at byte `offset`.
pub(crate) fn half_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

/// Value `index` of 32 packed as nibbles: byte `i` holds value `i` below and value `i + 16` above.
fn nibble(packed: &[u8], index: usize) -> u8 {
    packed[index % 16] >> (index / 16 * 4) & 15
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
