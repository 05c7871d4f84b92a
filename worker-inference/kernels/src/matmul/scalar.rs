//! The specification of a product, 16 weight rows and one panel at a time.

use super::Multiply;
use crate::activations::Panel;
use crate::half;
use crate::matrix::GROUP;
use crate::quant::{BLOCK, Format};

pub(super) fn tile(product: &Multiply<'_>, group: usize, panel: usize) {
    for row in 0..product.activations.width(panel) {
        let lanes = match product.matrix.format() {
            Format::F32 | Format::F16 => floats(product, group, panel * super::PANEL + row),
            Format::Q4_0 | Format::Q4_1 | Format::Q8_0 => {
                blocks(product, group, product.activations.panel(panel), row)
            }
        };
        product.write(group, panel, row, &lanes);
    }
}

fn blocks(product: &Multiply<'_>, group: usize, panel: Panel<'_>, row: usize) -> [f32; GROUP] {
    let count = product.matrix.cols() / BLOCK;
    let mut out = [0.0f32; GROUP];
    for block in 0..count {
        let unit = group * count + block;
        let item = block * panel.width + row;
        let sums = integer_sums(product, unit, &panel.bytes[item * BLOCK..][..BLOCK]);
        for lane in 0..GROUP {
            let scale = half::to_f32(product.matrix.scales()[unit * GROUP + lane]) * panel.scales[item];
            out[lane] = (sums[lane] as f32).mul_add(scale, out[lane]);
            if product.matrix.format() == Format::Q4_1 {
                let least = half::to_f32(product.matrix.leasts()[unit * GROUP + lane]);
                out[lane] = least.mul_add(panel.sums[item], out[lane]);
            }
        }
    }
    out
}

/// The sum over one block of weight times activation, for 16 weight rows.
fn integer_sums(product: &Multiply<'_>, unit: usize, x: &[i8]) -> [i32; GROUP] {
    let mut sums = [0; GROUP];
    for (j, four) in x.chunks_exact(4).enumerate() {
        for (lane, sum) in sums.iter_mut().enumerate() {
            let weights = four_weights(product, unit, j, lane);
            *sum += (0..4).map(|i| weights[i] * i32::from(four[i])).sum::<i32>();
        }
    }
    sums
}

/// Columns `4j..4j + 4` of one row of a block.
fn four_weights(product: &Multiply<'_>, unit: usize, j: usize, lane: usize) -> [i32; 4] {
    let values = product.matrix.values();
    match product.matrix.format() {
        Format::Q8_0 => {
            let bytes = &values[unit * 512 + j * 64 + lane * 4..][..4];
            std::array::from_fn(|i| i32::from(bytes[i]) - 128)
        }
        format => {
            let bytes = &values[unit * 256 + j % 4 * 64 + lane * 4..][..4];
            let zero = if format == Format::Q4_0 { 8 } else { 0 };
            std::array::from_fn(|i| i32::from(bytes[i] >> (j / 4 * 4) & 15) - zero)
        }
    }
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
                _ => half::to_f32(product.matrix.halves()[place]),
            };
            sums[col % 4] = weight.mul_add(*x, sums[col % 4]);
        }
        (sums[0] + sums[1]) + (sums[2] + sums[3])
    })
}
