//! Q4_0: a half-float scale, then 32 nibbles that stand for -8 to 7.

use super::{half_at, nibble};
use crate::half;

pub(super) const BYTES: usize = 2 + 16;

pub(super) fn dequantize(block: &[u8], values: &mut [f32]) {
    let scale = half::to_f32(half_at(block, 0));
    for (index, value) in values.iter_mut().enumerate() {
        *value = scale * (f32::from(nibble(&block[2..], index)) - 8.0);
    }
}
