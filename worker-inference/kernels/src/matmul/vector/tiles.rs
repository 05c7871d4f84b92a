//! Block formats on tile registers, for panels of 16 rows: the integer sums of 16 x 16 outputs come out of one
//! instruction; scales enter as everywhere else.
//!
//! A weight group is unpacked once for all panels that meet it.

use super::blocks::blocks;
use super::unit::{Blocks, Weights};
use super::unpacked::{As, Unpacked};
use super::{Sums, write};
use crate::activations::{PANEL, Panel};
use crate::matmul::Multiply;
use crate::matrix::GROUP;
use crate::quant::{BLOCK, Factors};
use crate::simd::Vector;
use crate::simd::amx::{SUMS, TileSums, Tiles};

/// Whether [`all`] can multiply this format. The two sums that Q6_K needs for a unit would keep the tile registers
/// half empty.
pub(super) const fn fits<V: Vector, B: Blocks>() -> bool {
    V::LANES == GROUP && !matches!(B::FACTORS, Factors::Halves)
}

#[inline(always)]
pub(super) fn all<V: Vector, B: Blocks>(tiles: &Tiles, product: &Multiply<'_>) {
    let mut unpacked = Unpacked::new(product.matrix.cols() / BLOCK);
    let mut done = [TileSums([[0; GROUP]; PANEL]); SUMS];
    let mut sums: Sums = [[0.0; GROUP]; PANEL];
    for (group, panels) in product.parts() {
        unpacked.fill::<V, B>(&Weights::of::<B>(product, group), As::Signed);
        for panel in panels {
            let input = product.activations.panel(panel);
            if input.width < PANEL {
                blocks::<V, B>(product, group, panel, &mut sums);
                continue;
            }
            unpacked.multiply::<V, B>(tiles, &input, &mut done, &mut sums);
            for (row, lanes) in sums.iter().enumerate() {
                write::<V>(product.outputs(group, panel, row), lanes);
            }
        }
    }
}

impl Unpacked {
    /// The outputs of a whole panel. `done` is room for integer sums.
    #[inline(always)]
    fn multiply<V: Vector, B: Blocks>(
        &self,
        tiles: &Tiles,
        input: &Panel<'_>,
        done: &mut [TileSums; SUMS],
        sums: &mut Sums,
    ) {
        let units = self.weights.len();
        assert!(input.scales.len() == units * PANEL && input.bytes.len() == units * PANEL * BLOCK);
        assert!(input.sums.len() == input.scales.len());
        let mut out = [V::splat(0.0); PANEL];
        // A unit is scaled while the three after it are multiplied.
        for unit in 0..units + SUMS {
            let register = unit % SUMS;
            if unit >= SUMS {
                tiles.store(register, &mut done[register]);
            }
            if unit < units {
                let x = &input.bytes[unit * PANEL * BLOCK..][..PANEL * BLOCK];
                // SAFETY: a panel's items of one unit lie side by side: 16 rows of 32 bytes.
                unsafe { tiles.multiply(register, x.as_ptr(), &self.weights[unit]) };
            }
            if unit >= SUMS {
                self.scale::<V, B>(input, unit - SUMS, &done[register], &mut out);
            }
        }
        for (sums, out) in sums.iter_mut().zip(out) {
            // SAFETY: 16 lanes.
            unsafe { V::store(sums.as_mut_ptr(), out) };
        }
    }

    /// Adds the scaled sums of a unit to the outputs.
    #[inline(always)]
    fn scale<V: Vector, B: Blocks>(
        &self,
        input: &Panel<'_>,
        unit: usize,
        sums: &TileSums,
        out: &mut [V::F; PANEL],
    ) {
        let items = unit * PANEL..(unit + 1) * PANEL;
        let (scales, totals) = (&input.scales[items.clone()], &input.sums[items]);
        // SAFETY: all have 16 lanes.
        unsafe {
            let (scale_w, least) =
                (V::load(self.scales[unit].0.as_ptr()), V::load(self.leasts[unit].0.as_ptr()));
            for row in 0..PANEL {
                let sum = V::to_float(V::load_bytes(sums.0[row].as_ptr().cast()));
                out[row] = V::fma(sum, V::mul(scale_w, V::splat(scales[row])), out[row]);
                if B::HAS_LEAST {
                    out[row] = V::fma(least, V::splat(totals[row]), out[row]);
                }
            }
        }
    }
}
