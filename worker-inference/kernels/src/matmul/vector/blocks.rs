//! Block formats.

use super::shared;
#[cfg(target_arch = "x86_64")]
use super::tiles;
use super::unit::{Blocks, Unit, Weights};
use super::{Sums, write};
use crate::activations::{PANEL, Panel};
use crate::matmul::{Multiply, PANELS_AT_ONCE};
use crate::matrix::GROUP;
use crate::quant::BLOCK;
use crate::simd::Vector;

#[inline(always)]
pub(super) fn all<V: Vector, B: Blocks>(product: &Multiply<'_>) {
    #[cfg(target_arch = "x86_64")]
    if let Some(registers) = product.tiles.filter(|_| tiles::fits::<V, B>()) {
        return tiles::all::<V, B>(registers, product);
    }
    if shared::fits::<V, B>() && product.activations.m() >= shared::LEAST_ROWS {
        return shared::all::<V, B>(product);
    }
    let mut sums: Sums = [[0.0; GROUP]; PANEL];
    for (group, panels) in product.parts(PANELS_AT_ONCE) {
        for panel in panels {
            blocks::<V, B>(product, group, panel, &mut sums);
        }
    }
}

#[inline(always)]
pub(super) fn blocks<V: Vector, B: Blocks>(
    product: &Multiply<'_>,
    group: usize,
    panel: usize,
    sums: &mut Sums,
) {
    let input = product.activations.panel(panel);
    let weights = Weights::of::<B>(product, group);
    let count = weights.count;
    // The pointers of `block_tile` rely on these lengths.
    assert!(input.scales.len() == count * input.width && input.bytes.len() == count * input.width * BLOCK);
    assert!(input.sums.len() == input.scales.len() && input.offsets.len() == input.scales.len());
    assert!(input.halves.len() == input.scales.len());
    let mut row = 0;
    while row < input.width {
        let left = input.width - row;
        // SAFETY: the slices have the lengths just checked, and the tile stays inside the panel.
        row += unsafe {
            match left {
                16.. => block_tile::<V, B, 16>(&weights, &input, row, sums),
                8.. => block_tile::<V, B, 8>(&weights, &input, row, sums),
                4.. => block_tile::<V, B, 4>(&weights, &input, row, sums),
                3 => block_tile::<V, B, 3>(&weights, &input, row, sums),
                2 => block_tile::<V, B, 2>(&weights, &input, row, sums),
                _ => block_tile::<V, B, 1>(&weights, &input, row, sums),
            }
        };
    }
    for (row, lanes) in sums[..input.width].iter().enumerate() {
        write::<V>(product.outputs(group, panel, row), lanes);
    }
}

/// Rows `first..first + C` of the panel. Returns `C`.
///
/// # Safety
/// `weights` has `count` units; `input` has `count * width` items; `first + C <= width`.
#[inline(always)]
unsafe fn block_tile<V: Vector, B: Blocks, const C: usize>(
    weights: &Weights<'_>,
    input: &Panel<'_>,
    first: usize,
    sums: &mut Sums,
) -> usize {
    for lane in (0..GROUP).step_by(V::LANES) {
        let mut out = [V::splat(0.0); C];
        for unit in 0..weights.count {
            if first + lane == 0 {
                weights.ask_ahead::<V, B>(unit);
            }
            let item = unit * input.width + first;
            // SAFETY: inside the slices by the caller's promise; lanes `lane..lane + LANES` of 16.
            unsafe {
                let unit = Unit::<V>::load::<B>(weights, unit, lane);
                if V::LANES < 16 || C < 4 {
                    // Half of the 16 registers hold weights. Where there are many sums, they lie in memory: loading one costs
                    // less than unpacking weights more often.
                    for c in 0..C {
                        unit.add::<B, 1>(input, item + c, &mut out[c..]);
                    }
                    continue;
                }
                // Spelled out: a loop over so much code would keep `out` in memory.
                unit.add::<B, 4>(input, item, &mut out);
                if C >= 8 {
                    unit.add::<B, 4>(input, item + 4, &mut out[4..]);
                }
                if C >= 16 {
                    unit.add::<B, 4>(input, item + 8, &mut out[8..]);
                    unit.add::<B, 4>(input, item + 12, &mut out[12..]);
                }
            }
        }
        for c in 0..C {
            // SAFETY: `LANES` places from `lane` on.
            unsafe { V::store(sums[first + c].as_mut_ptr().add(lane), out[c]) };
        }
    }
    C
}
