//! Q4_1: a half-float scale, the half-float least value, then 32 nibbles from 0 to 15.

use super::{half_at, nibble};
use crate::half;

pub(super) const BYTES: usize = 4 + 16;

pub(super) fn dequantize(block: &[u8], values: &mut [f32]) {
    let scale = half::to_f32(half_at(block, 0));
    let least = half::to_f32(half_at(block, 2));
    for (index, value) in values.iter_mut().enumerate() {
        *value = scale * f32::from(nibble(&block[4..], index)) + least;
    }
}
