//! The same product with vectors: a tile of 16 weight rows and up to 16 activation rows.
//!
//! A lane is a weight row, so lanes never meet and the order of each sum is the scalar one. The weights of a unit
//! are loaded and unpacked once for all rows of the tile, whose sums stay in registers. One code serves one row (a
//! decoding sequence), a few (a batch of agents), and many (a prompt).

// Loops over small constant ranges index several arrays at once and unroll into registers.
#![allow(clippy::needless_range_loop)]

mod blocks;
mod floats;
mod unit;

use super::Multiply;
use crate::activations::PANEL;
use crate::matrix::GROUP;
use crate::quant::Format;
use crate::simd::Vector;
use blocks::blocks;
use floats::floats;

/// Sums of one tile: 16 weight rows for each activation row.
type Sums = [[f32; GROUP]; PANEL];

#[inline(always)]
pub(super) fn tiles<V: Vector>(product: &Multiply<'_>) {
    macro_rules! tiles {
        ($tile:ident, $format:ty) => {
            product.for_tiles(
                #[inline(always)]
                |product, group, panel| $tile::<V, $format>(product, group, panel),
            )
        };
    }
    match product.matrix.format() {
        Format::F32 => tiles!(floats, floats::F32),
        Format::F16 => tiles!(floats, floats::F16),
        Format::BF16 => tiles!(floats, floats::BF16),
        Format::Q4_0 => tiles!(blocks, unit::Q4_0),
        Format::Q4_1 => tiles!(blocks, unit::Q4_1),
        Format::Q5_0 => tiles!(blocks, unit::Q5_0),
        Format::Q5_1 => tiles!(blocks, unit::Q5_1),
        Format::Q8_0 => tiles!(blocks, unit::Q8_0),
        Format::Q4_K => tiles!(blocks, unit::Q4_K),
        Format::Q5_K => tiles!(blocks, unit::Q5_K),
        Format::Q6_K => tiles!(blocks, unit::Q6_K),
    }
}
