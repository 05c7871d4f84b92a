//! Q8_0: a half-float scale, then 32 signed bytes.

use super::half_at;
use crate::half;

pub(super) const BYTES: usize = 2 + 32;

pub(super) fn dequantize(block: &[u8], values: &mut [f32]) {
    let scale = half::to_f32(half_at(block, 0));
    for (value, &q) in values.iter_mut().zip(&block[2..]) {
        *value = scale * f32::from(q as i8);
    }
}
