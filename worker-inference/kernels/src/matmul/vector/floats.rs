//! Float formats.

use super::{Sums, write};
use crate::activations::PANEL;
use crate::matmul::{Multiply, PANELS_AT_ONCE};
use crate::matrix::GROUP;
use crate::simd::Vector;

/// A float format as the inner loop sees it.
pub(super) trait Floats {
    type Number;
    /// # Safety
    /// `from` points at `V::LANES` numbers; the CPU has the instructions of `V`.
    unsafe fn load<V: Vector>(from: *const Self::Number) -> V::F;
    fn numbers<'a>(product: &Multiply<'a>) -> &'a [Self::Number];
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct BF16;

impl Floats for F32 {
    type Number = f32;
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const f32) -> V::F {
        // SAFETY: the caller's promise.
        unsafe { V::load(from) }
    }
    #[inline(always)]
    fn numbers<'a>(product: &Multiply<'a>) -> &'a [f32] {
        product.matrix.floats()
    }
}

impl Floats for F16 {
    type Number = u16;
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const u16) -> V::F {
        // SAFETY: the caller's promise.
        unsafe { V::load_half(from) }
    }
    #[inline(always)]
    fn numbers<'a>(product: &Multiply<'a>) -> &'a [u16] {
        product.matrix.halves()
    }
}

impl Floats for BF16 {
    type Number = u16;
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const u16) -> V::F {
        // SAFETY: the caller's promise.
        unsafe { V::load_bf16(from) }
    }
    #[inline(always)]
    fn numbers<'a>(product: &Multiply<'a>) -> &'a [u16] {
        product.matrix.halves()
    }
}

#[inline(always)]
pub(super) fn all<V: Vector, T: Floats>(product: &Multiply<'_>) {
    for (group, panels) in product.parts(PANELS_AT_ONCE) {
        for panel in panels {
            floats::<V, T>(product, group, panel);
        }
    }
}

#[inline(always)]
fn floats<V: Vector, T: Floats>(product: &Multiply<'_>, group: usize, panel: usize) {
    let cols = product.matrix.cols();
    let weights = &T::numbers(product)[group * cols * GROUP..(group + 1) * cols * GROUP];
    let width = product.activations.width(panel);
    let x = &product.activations.float_rows()[panel * PANEL * cols..(panel * PANEL + width) * cols];
    let mut sums: Sums = [[0.0; GROUP]; PANEL];
    let mut row = 0;
    while row < width {
        // SAFETY: `weights` has 16 numbers a column, `x` has `width` rows of `cols`.
        row += unsafe {
            match width - row {
                4.. => float_tile::<V, T, 4>(weights, x, cols, row, &mut sums),
                2.. => float_tile::<V, T, 2>(weights, x, cols, row, &mut sums),
                _ => float_tile::<V, T, 1>(weights, x, cols, row, &mut sums),
            }
        };
    }
    for (row, lanes) in sums[..width].iter().enumerate() {
        write::<V>(product.outputs(group, panel, row), lanes);
    }
}

/// Rows `first..first + C` of the panel. Returns `C`.
///
/// # Safety
/// `weights` has `16 * cols` numbers, `x` at least `(first + C) * cols`.
#[inline(always)]
unsafe fn float_tile<V: Vector, T: Floats, const C: usize>(
    weights: &[T::Number],
    x: &[f32],
    cols: usize,
    first: usize,
    sums: &mut Sums,
) -> usize {
    for lane in (0..GROUP).step_by(V::LANES) {
        let mut out = [[V::splat(0.0); 4]; C];
        for col in (0..cols).step_by(4) {
            for part in 0..4.min(cols - col) {
                // SAFETY: column `col + part < cols`, row `first + c`, by the caller's promise.
                unsafe {
                    let w = T::load::<V>(weights.as_ptr().add((col + part) * GROUP + lane));
                    for c in 0..C {
                        let x = V::splat(*x.as_ptr().add((first + c) * cols + col + part));
                        out[c][part] = V::fma(w, x, out[c][part]);
                    }
                }
            }
        }
        for c in 0..C {
            let sum = V::add(V::add(out[c][0], out[c][1]), V::add(out[c][2], out[c][3]));
            // SAFETY: `LANES` places from `lane` on.
            unsafe { V::store(sums[first + c].as_mut_ptr().add(lane), sum) };
        }
    }
    C
}
