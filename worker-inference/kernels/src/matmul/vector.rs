//! The same product with vectors: a tile of 16 weight rows and up to 16 activation rows.
//!
//! A lane is a weight row, so lanes never meet and the order of each sum is the scalar one. The weights of a unit
//! are loaded and unpacked once for all rows of the tile, whose sums stay in registers. One code serves one row (a
//! decoding sequence), a few (a batch of agents), and many (a prompt).

// Loops over small constant ranges index several arrays at once and unroll into registers.
#![allow(clippy::needless_range_loop)]

mod blocks;
mod floats;
mod shared;
#[cfg(target_arch = "x86_64")]
mod tiles;
mod unit;
mod unpacked;

use super::Multiply;
use crate::activations::PANEL;
use crate::matrix::GROUP;
use crate::quant::Format;
use crate::simd::Vector;

/// Sums of one tile: 16 weight rows for each activation row.
type Sums = [[f32; GROUP]; PANEL];

#[inline(always)]
pub(super) fn tiles<V: Vector>(product: &Multiply<'_>) {
    match product.matrix.format() {
        Format::F32 => floats::all::<V, floats::F32>(product),
        Format::F16 => floats::all::<V, floats::F16>(product),
        Format::BF16 => floats::all::<V, floats::BF16>(product),
        Format::Q4_0 => blocks::all::<V, unit::Q4_0>(product),
        Format::Q4_1 => blocks::all::<V, unit::Q4_1>(product),
        Format::Q5_0 => blocks::all::<V, unit::Q5_0>(product),
        Format::Q5_1 => blocks::all::<V, unit::Q5_1>(product),
        Format::Q8_0 => blocks::all::<V, unit::Q8_0>(product),
        Format::Q4_K => blocks::all::<V, unit::Q4_K>(product),
        Format::Q5_K => blocks::all::<V, unit::Q5_K>(product),
        Format::Q6_K => blocks::all::<V, unit::Q6_K>(product),
    }
}

/// Copies what 16 weight rows gave, or the first few of them.
#[inline(always)]
fn write<V: Vector>(out: &mut [f32], lanes: &[f32; GROUP]) {
    if out.len() < GROUP {
        return out.copy_from_slice(&lanes[..out.len()]);
    }
    for lane in (0..GROUP).step_by(V::LANES) {
        // SAFETY: both have 16 numbers. (A copy of a slice would be a call.)
        unsafe { V::store(out.as_mut_ptr().add(lane), V::load(lanes.as_ptr().add(lane))) };
    }
}
