//! The specification of a product, 16 weight rows and one panel at a time.

use super::Multiply;
use crate::activations::Panel;
use crate::half;
use crate::matrix::GROUP;
use crate::quant::{BLOCK, Factors, Format};

pub(super) fn tile(product: &Multiply<'_>, group: usize, panel: usize) {
    for row in 0..product.activations.width(panel) {
        let lanes = if product.matrix.format().is_quantised() {
            blocks(product, group, product.activations.panel(panel), row)
        } else {
            floats(product, group, panel * super::PANEL + row)
        };
        let out = product.outputs(group, panel, row);
        out.copy_from_slice(&lanes[..out.len()]);
    }
}

fn blocks(product: &Multiply<'_>, group: usize, panel: Panel<'_>, row: usize) -> [f32; GROUP] {
    let (matrix, format) = (product.matrix, product.matrix.format());
    let count = matrix.cols() / BLOCK;
    let mut out = [0.0f32; GROUP];
    for block in 0..count {
        let unit = group * count + block;
        let item = block * panel.width + row;
        let x = &panel.bytes[item * BLOCK..][..BLOCK];
        for (lane, out) in out.iter_mut().enumerate() {
            let halves = integer_sums(product, unit, lane, x);
            let [first, second] = matrix.fine(unit, lane);
            let (mut scale, mut least) = (matrix.scale(unit, lane), matrix.least(unit, lane));
            let mut sum = (halves[0] + halves[1]) as f32;
            match format.factors() {
                Factors::None => {}
                Factors::ScaleAndLeast => {
                    scale *= f32::from(first);
                    least *= f32::from(second);
                }
                // Exact: no more than 2 * 16 * 32 * 127 * 128 < 2^24.
                Factors::Halves => {
                    let products = [first, second].map(|factor| f32::from(factor as i8));
                    sum = (halves[1] as f32).mul_add(products[1], halves[0] as f32 * products[0]);
                }
            }
            *out = sum.mul_add(scale * panel.scales[item], *out);
            if format.has_least() {
                *out = least.mul_add(panel.sums[item], *out);
            }
        }
    }
    out
}

/// The sums over the halves of one unit of weight times activation, for one weight row.
fn integer_sums(product: &Multiply<'_>, unit: usize, lane: usize, x: &[i8]) -> [i32; 2] {
    let zero = product.matrix.format().zero();
    let mut halves = [0; 2];
    for (col, x) in x.iter().enumerate() {
        let weight = i32::from(product.matrix.number(unit, lane, col)) - zero;
        halves[col / 16] += weight * i32::from(*x);
    }
    halves
}

fn floats(product: &Multiply<'_>, group: usize, row: usize) -> [f32; GROUP] {
    let cols = product.matrix.cols();
    let x = &product.activations.float_rows()[row * cols..][..cols];
    std::array::from_fn(|lane| {
        let mut sums = [0.0f32; 4];
        for (col, x) in x.iter().enumerate() {
            let place = (group * cols + col) * GROUP + lane;
            let weight = match product.matrix.format() {
                Format::F32 => product.matrix.floats()[place],
                Format::BF16 => half::bf16_to_f32(product.matrix.halves()[place]),
                _ => half::to_f32(product.matrix.halves()[place]),
            };
            sums[col % 4] = weight.mul_add(*x, sums[col % 4]);
        }
        (sums[0] + sums[1]) + (sums[2] + sums[3])
    })
}
