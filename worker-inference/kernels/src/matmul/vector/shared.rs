//! Formats of few bits on narrow vectors: both vectors of a weight group meet four rows of input at once, so that each
//! load serves several products. With the weights of one vector held in registers, as wider machines do, every product
//! would need a load of its own, and loads would be what everything waits for.

use super::unit::{Blocks, Weights, start};
use super::unpacked::{As, Unpacked};
use super::{Sums, write};
use crate::activations::{PANEL, Panel};
use crate::matmul::{Multiply, PANELS_AT_ONCE};
use crate::matrix::GROUP;
use crate::quant::BLOCK;
use crate::simd::Vector;
use std::ops::Range;

/// Vectors of a weight group.
const SIDES: usize = 2;
/// Rows of input that are multiplied together.
const ROWS: usize = 4;

/// Whether [`all`] is for this format and these vectors: sums of fewer products would be widened too often.
pub(super) const fn fits<V: Vector, B: Blocks>() -> bool {
    V::LANES * SIDES == GROUP && B::IN_TURN >= 4
}

/// With fewer rows of input than this, unpacking costs more than it saves.
pub(super) const LEAST_ROWS: usize = PANEL;

/// Units multiplied with all panels before the next: their weights and the input that meets them stay in a thread's half of
/// the first-level cache. With all units at once, prompts of a small model are a twentieth slower.
const UNITS_AT_ONCE: usize = 12;

#[inline(always)]
pub(super) fn all<V: Vector, B: Blocks>(product: &Multiply<'_>) {
    let mut unpacked = Unpacked::new(product.matrix.cols() / BLOCK);
    let mut sums: [Sums; PANELS_AT_ONCE] = [[[0.0; GROUP]; PANEL]; PANELS_AT_ONCE];
    for (group, panels) in product.parts(PANELS_AT_ONCE) {
        unpacked.fill::<V, B>(&Weights::of::<B>(product, group), As::Stored);
        sums.as_flattened_mut().fill([0.0; GROUP]);
        let count = unpacked.weights.len();
        for first in (0..count).step_by(UNITS_AT_ONCE) {
            let units = first..count.min(first + UNITS_AT_ONCE);
            for (panel, sums) in panels.clone().zip(&mut sums) {
                multiply::<V, B>(&unpacked, units.clone(), &product.activations.panel(panel), sums);
            }
        }
        for (panel, sums) in panels.zip(&sums) {
            for (row, lanes) in sums[..product.activations.width(panel)].iter().enumerate() {
                write::<V>(product.outputs(group, panel, row), lanes);
            }
        }
    }
}

/// Adds the products of some units.
#[inline(always)]
fn multiply<V: Vector, B: Blocks>(
    unpacked: &Unpacked,
    units: Range<usize>,
    input: &Panel<'_>,
    sums: &mut Sums,
) {
    let items = unpacked.weights.len() * input.width;
    // The pointers of `rows` rely on these lengths.
    assert!(input.scales.len() == items && input.bytes.len() == items * BLOCK);
    assert!(input.sums.len() == items && input.offsets.len() == items);
    assert!(units.end <= unpacked.weights.len());
    let mut row = 0;
    while row < input.width {
        let units = units.clone();
        // SAFETY: the slices have the lengths just checked, and the rows stay inside the panel.
        row += unsafe {
            match input.width - row {
                ROWS.. => rows::<V, B, ROWS>(unpacked, units, input, row, sums),
                3 => rows::<V, B, 3>(unpacked, units, input, row, sums),
                2 => rows::<V, B, 2>(unpacked, units, input, row, sums),
                _ => rows::<V, B, 1>(unpacked, units, input, row, sums),
            }
        };
    }
}

/// Rows `first..first + N` of the panel. Returns `N`.
///
/// # Safety
/// `input` has `width` items for each of `units`, `unpacked` these units; `first + N <= width`.
#[inline(always)]
unsafe fn rows<V: Vector, B: Blocks, const N: usize>(
    unpacked: &Unpacked,
    units: Range<usize>,
    input: &Panel<'_>,
    first: usize,
    sums: &mut Sums,
) -> usize {
    let out = &mut sums[first..first + N];
    for unit in units {
        // SAFETY: the caller's promise.
        unsafe { add::<V, B, N>(unpacked, unit, input, unit * input.width + first, out) };
    }
    N
}

/// Adds the products of a unit with items `item..item + N`.
///
/// # Safety
/// `input` has these items, `unpacked` the unit.
#[inline(always)]
unsafe fn add<V: Vector, B: Blocks, const N: usize>(
    unpacked: &Unpacked,
    unit: usize,
    input: &Panel<'_>,
    item: usize,
    out: &mut [[f32; GROUP]],
) {
    // SAFETY: the caller's promise; all that is loaded has 16 lanes.
    unsafe {
        let whole = integers::<V, B, N>(unpacked, unit, input, item);
        for side in 0..SIDES {
            let lane = side * V::LANES;
            let scale_w = V::load(unpacked.scales.get_unchecked(unit).0.as_ptr().add(lane));
            let least = V::load(unpacked.leasts.get_unchecked(unit).0.as_ptr().add(lane));
            for n in 0..N {
                let to = out.get_unchecked_mut(n).as_mut_ptr().add(lane);
                let scale = V::mul(scale_w, V::splat(*input.scales.get_unchecked(item + n)));
                let mut sum = V::fma(V::to_float(whole[n][side]), scale, V::load(to));
                if B::HAS_LEAST {
                    sum = V::fma(least, V::splat(*input.sums.get_unchecked(item + n)), sum);
                }
                V::store(to, sum);
            }
        }
    }
}

/// Weight times activation summed over a unit, exact integers.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
unsafe fn integers<V: Vector, B: Blocks, const N: usize>(
    unpacked: &Unpacked,
    unit: usize,
    input: &Panel<'_>,
    item: usize,
) -> [[V::I; SIDES]; N] {
    let mut sums = [[V::splat_i(0); SIDES]; N];
    // SAFETY: the caller's promise: an item has an offset and 32 bytes, a unit eight vectors.
    unsafe {
        for n in 0..N {
            sums[n] = [start::<V, B>(*input.offsets.get_unchecked(item + n)); SIDES];
        }
        let w = unpacked.weights.get_unchecked(unit).0.as_ptr();
        let x = input.bytes.as_ptr().add(item * BLOCK);
        for first in (0..8).step_by(B::IN_TURN) {
            V::dot_small_tile(&mut sums, B::IN_TURN, w.add(first).cast(), x.add(4 * first).cast());
        }
    }
    sums
}
