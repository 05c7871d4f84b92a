use super::*;
use crate::isa::Isa;
use crate::numbers::Numbers;
use crate::quant::{BLOCK, Format, dequantize};

/// A tensor as in a file: random bytes with scales of a sensible size.
fn tensor(format: Format, rows: usize, cols: usize, numbers: &mut Numbers) -> Vec<u8> {
    let mut data: Vec<u8> =
        (0..rows * format.row_bytes(cols).unwrap()).map(|_| numbers.next() as u8).collect();
    for block in data.chunks_exact_mut(format.block_bytes()) {
        let number = numbers.float();
        match format {
            Format::F32 => block.copy_from_slice(&number.to_le_bytes()),
            Format::BF16 => block.copy_from_slice(&number.to_le_bytes()[2..]),
            _ => {}
        }
        for place in halves(format) {
            let half = crate::half::from_f32(numbers.float() / 8.0);
            block[*place..][..2].copy_from_slice(&half.to_le_bytes());
        }
    }
    data
}

/// Where half floats lie in a block.
fn halves(format: Format) -> &'static [usize] {
    match format {
        Format::F32 | Format::BF16 => &[],
        Format::F16 | Format::Q4_0 | Format::Q5_0 | Format::Q8_0 => &[0],
        Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => &[0, 2],
        Format::Q6_K => &[208],
    }
}

fn product(isa: Isa, threads: usize, matrices: &[&Matrix], x: &[f32], m: usize) -> Vec<u32> {
    product_on(&Cpu::new(isa, threads, |_| ()), matrices, x, m)
}

fn product_on(cpu: &Cpu, matrices: &[&Matrix], x: &[f32], m: usize) -> Vec<u32> {
    let mut activations = Activations::new();
    cpu.prepare(&mut activations, x, m, matrices);
    let mut outs: Vec<Vec<f32>> = matrices.iter().map(|matrix| vec![f32::NAN; m * matrix.rows()]).collect();
    let mut products: Vec<(&Matrix, &mut [f32])> =
        matrices.iter().copied().zip(outs.iter_mut().map(Vec::as_mut_slice)).collect();
    cpu.matmul_many(&mut products, &activations);
    outs.concat().iter().map(|out| out.to_bits()).collect()
}

#[test]
fn every_path_gives_the_bits_of_the_scalar_one() {
    let mut numbers = Numbers(1);
    let scalar = Cpu::new(Isa::Scalar, 1, |_| ());
    let cpus: Vec<Cpu> = Isa::available()
        .into_iter()
        .flat_map(|isa| [1, 2, 3].map(|threads| Cpu::new(isa, threads, |_| ())))
        .collect();
    for format in Format::ALL {
        for (rows, units) in [(1, 1), (16, 2), (33, 3), (70, 5)] {
            let cols = (units * 32usize).next_multiple_of(format.block_len());
            let matrix =
                Matrix::from_gguf(format, rows, cols, &tensor(format, rows, cols, &mut numbers)).unwrap();
            for m in [1, 2, 3, 5, 8, 17, 31, 32, 130, 270] {
                let x: Vec<f32> = (0..m * cols).map(|_| numbers.float() * 3.0).collect();
                let expected = product_on(&scalar, &[&matrix], &x, m);
                for cpu in &cpus {
                    let (isa, threads) = (cpu.isa(), cpu.threads());
                    assert!(
                        product_on(cpu, &[&matrix], &x, m) == expected,
                        "{format} {rows}x{cols}, m = {m}, {isa}, {threads} threads"
                    );
                }
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_batch() {
    let mut numbers = Numbers(2);
    for format in Format::ALL {
        let (rows, cols, m) = (40, 512, 37);
        let matrix =
            Matrix::from_gguf(format, rows, cols, &tensor(format, rows, cols, &mut numbers)).unwrap();
        let x: Vec<f32> = (0..m * cols).map(|_| numbers.float()).collect();
        for isa in Isa::available() {
            let all = product(isa, 1, &[&matrix], &x, m);
            for row in 0..m {
                let alone = product(isa, 1, &[&matrix], &x[row * cols..][..cols], 1);
                assert_eq!(alone, all[row * rows..][..rows], "{format} {isa} row {row}");
            }
        }
    }
}

#[test]
fn float_columns_of_all_lengths() {
    let mut numbers = Numbers(3);
    for format in [Format::F32, Format::F16, Format::BF16] {
        for cols in 1..=70 {
            let matrix =
                Matrix::from_gguf(format, 17, cols, &tensor(format, 17, cols, &mut numbers)).unwrap();
            let x: Vec<f32> = (0..3 * cols).map(|_| numbers.float()).collect();
            let expected = product(Isa::Scalar, 1, &[&matrix], &x, 3);
            for isa in Isa::available() {
                assert_eq!(product(isa, 2, &[&matrix], &x, 3), expected, "{format} {cols} {isa}");
            }
        }
    }
}

#[test]
fn several_matrices_at_once_are_as_one_by_one() {
    let mut numbers = Numbers(4);
    let matrices: Vec<Matrix> =
        [(70, Format::Q4_1), (3, Format::F32), (16, Format::Q8_0), (200, Format::Q4_K), (5, Format::BF16)]
            .into_iter()
            .map(|(rows, format)| {
                Matrix::from_gguf(format, rows, 256, &tensor(format, rows, 256, &mut numbers)).unwrap()
            })
            .collect();
    let all: Vec<&Matrix> = matrices.iter().collect();
    let x: Vec<f32> = (0..9 * 256).map(|_| numbers.float()).collect();
    let expected: Vec<u32> =
        all.iter().flat_map(|matrix| product(Isa::Scalar, 1, &[matrix], &x, 9)).collect();
    for isa in Isa::available() {
        for threads in [1, 2, 5] {
            assert_eq!(product(isa, threads, &all, &x, 9), expected, "{isa} {threads}");
        }
    }
}

#[test]
fn extreme_weights_do_not_overflow() {
    for format in Format::ALL.into_iter().filter(|format| format.is_quantised()) {
        // Q8_0 has its extremes at 0x80 and 0x7f; the others, factors included, where all bits are the same.
        for byte in [0x00u8, 0x7f, 0x80, 0xff] {
            let mut data = vec![byte; 16 * format.row_bytes(512).unwrap()];
            for block in data.chunks_exact_mut(format.block_bytes()) {
                halves(format).iter().for_each(|place| block[*place..][..2].copy_from_slice(&[0x00, 0x3c]));
            }
            let matrix = Matrix::from_gguf(format, 16, 512, &data).unwrap();
            for x in [[1.0; 512], [-1.0; 512]] {
                let expected = product(Isa::Scalar, 1, &[&matrix], &x, 1);
                let mut row = vec![0.0; 512];
                matrix.dequantize_row(0, &mut row);
                let truth: f32 = row.iter().zip(&x).map(|(w, x)| w * x).sum();
                let found = f32::from_bits(expected[0]);
                assert!((found - truth).abs() <= truth.abs() * 1e-5, "{format} {byte:#x}: {found} {truth}");
                for isa in Isa::available() {
                    assert_eq!(product(isa, 1, &[&matrix], &x, 1), expected, "{format} {byte:#x} {isa}");
                }
            }
        }
    }
}

/// The product is close to the exact one: its only large error is the rounding of activations, half a step each.
#[test]
fn close_to_an_exact_product() {
    let mut numbers = Numbers(5);
    for format in Format::ALL {
        let (rows, cols, m) = (24, 512, 4);
        let data = tensor(format, rows, cols, &mut numbers);
        let matrix = Matrix::from_gguf(format, rows, cols, &data).unwrap();
        let mut weights = vec![0.0; rows * cols];
        dequantize(format, &data, &mut weights);
        let x: Vec<f32> = (0..m * cols).map(|_| numbers.float()).collect();
        for isa in Isa::available() {
            let found = product(isa, 2, &[&matrix], &x, m);
            for (i, x) in x.chunks(cols).enumerate() {
                for (j, w) in weights.chunks(cols).enumerate() {
                    let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                    let (truth, found) = (terms.sum::<f64>(), f64::from(f32::from_bits(found[i * rows + j])));
                    let size: f64 = w.iter().map(|w| f64::from(w.abs())).sum();
                    let step = if format.is_quantised() { 0.5 / 127.0 } else { 1e-6 };
                    assert!(
                        (found - truth).abs() <= size * step,
                        "{format} {isa} [{i}][{j}]: {found}, truth {truth}"
                    );
                }
            }
        }
    }
}

/// Beside the rounding of activations nothing is lost: the product with the rounded ones, summed in f64 from the
/// values that a file's blocks stand for, is found to a few units in the last place.
#[test]
fn exact_but_for_the_rounding_of_activations() {
    let mut numbers = Numbers(6);
    for format in Format::ALL.into_iter().filter(|format| format.is_quantised()) {
        let (rows, cols, m) = (20, 1024, 3);
        let data = tensor(format, rows, cols, &mut numbers);
        let matrix = Matrix::from_gguf(format, rows, cols, &data).unwrap();
        let mut weights = vec![0.0; rows * cols];
        dequantize(format, &data, &mut weights);
        let x: Vec<f32> = (0..m * cols).map(|_| numbers.float()).collect();
        let cpu = Cpu::new(Isa::Scalar, 1, |_| ());
        let mut activations = Activations::new();
        cpu.prepare(&mut activations, &x, m, &[&matrix]);
        let panel = activations.panel(0);
        let mut out = vec![0.0; m * rows];
        cpu.matmul(&matrix, &activations, &mut out);
        for (place, found) in out.iter().enumerate() {
            let (i, line) = (place / rows, &weights[place % rows * cols..][..cols]);
            let largest = line.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs()));
            let (mut truth, mut size) = (0.0, 0.0);
            for (col, weight) in line.iter().enumerate() {
                let item = col / BLOCK * m + i;
                let q = panel.bytes[item * BLOCK + col % BLOCK];
                let rounded = f64::from(panel.scales[item]) * f64::from(q);
                truth += f64::from(*weight) * rounded;
                size += f64::from(largest) * rounded.abs();
            }
            let error = (f64::from(*found) - truth).abs() / size;
            assert!(error < 2e-7, "{format} [{place}]: {found}, truth {truth}, error {error:e}");
        }
    }
}

#[test]
#[should_panic(expected = "not prepared")]
fn activations_of_the_wrong_kind_are_refused() {
    let float = Matrix::from_gguf(Format::F32, 1, 32, &[0; 128]).unwrap();
    let quantised = Matrix::from_gguf(Format::Q8_0, 1, 32, &[0; 34]).unwrap();
    let cpu = Cpu::new(Isa::Scalar, 1, |_| ());
    let mut activations = Activations::new();
    cpu.prepare(&mut activations, &[0.0; 32], 1, &[&float]);
    cpu.matmul(&quantised, &activations, &mut [0.0]);
}
