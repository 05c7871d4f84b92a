use super::*;
use crate::isa::Isa;
use crate::numbers::Numbers;
use crate::quant::Format;

fn matrix(format: Format, rows: usize, cols: usize, numbers: &mut Numbers) -> Matrix {
    let mut data: Vec<u8> =
        (0..rows * format.row_bytes(cols).unwrap()).map(|_| numbers.next() as u8).collect();
    for block in data.chunks_exact_mut(format.block_bytes()) {
        match format {
            Format::F32 => block.copy_from_slice(&numbers.float().to_le_bytes()),
            _ => block[..2].copy_from_slice(&crate::half::from_f32(numbers.float() / 8.0).to_le_bytes()),
        }
    }
    Matrix::from_gguf(format, rows, cols, &data).unwrap()
}

/// The bits of a third product with what comes out.
fn in_one(cpu: &Cpu, matrices: [&Matrix; 3], kind: Gate, x: &[f32], m: usize) -> Vec<u32> {
    let (mut input, mut inner, mut pieces) = Default::default();
    cpu.prepare(&mut input, x, m, &matrices[..2]);
    cpu.gated(matrices, kind, &input, &mut inner, &mut pieces);
    product(cpu, matrices[2], &inner)
}

/// The same, one operation after the other.
fn in_turn(cpu: &Cpu, [gate, up, down]: [&Matrix; 3], kind: Gate, x: &[f32], m: usize) -> Vec<u32> {
    let (mut input, mut inner) = (Activations::new(), Activations::new());
    let (mut gated, mut other) = (vec![0.0; m * gate.rows()], vec![0.0; m * up.rows()]);
    cpu.prepare(&mut input, x, m, &[gate, up]);
    cpu.matmul(gate, &input, &mut gated);
    cpu.matmul(up, &input, &mut other);
    cpu.apply(kind, &mut gated, &other);
    cpu.prepare(&mut inner, &gated, m, &[down]);
    product(cpu, down, &inner)
}

fn product(cpu: &Cpu, matrix: &Matrix, input: &Activations) -> Vec<u32> {
    let mut out = vec![f32::NAN; input.m() * matrix.rows()];
    cpu.matmul(matrix, input, &mut out);
    out.iter().map(|out| out.to_bits()).collect()
}

#[test]
fn pieces_give_the_bits_of_one_operation_after_the_other() {
    let mut numbers = Numbers(7);
    // Quantised, and floats of a width that is no whole number of blocks.
    for (format, k, width) in [(Format::Q4_0, 64, 288), (Format::Q8_0, 32, 8224), (Format::F32, 40, 90)] {
        let shapes = [(width, k), (width, k), (20, width)];
        let matrices = shapes.map(|(rows, cols)| matrix(format, rows, cols, &mut numbers));
        let matrices = matrices.each_ref();
        for (m, kind) in
            [(1, Gate::Silu), (3, Gate::Gelu), (17, Gate::Silu), (130, Gate::Gelu), (288, Gate::Silu)]
        {
            if m * width > 300_000 {
                continue;
            }
            let x: Vec<f32> = (0..m * k).map(|_| numbers.float()).collect();
            let expected = in_turn(&Cpu::new(Isa::Scalar, 1, |_| ()), matrices, kind, &x, m);
            for isa in Isa::available() {
                for threads in [1, 2, 3] {
                    let found = in_one(&Cpu::new(isa, threads, |_| ()), matrices, kind, &x, m);
                    assert!(found == expected, "{format}, {m} rows, {isa}, {threads} threads");
                }
            }
        }
    }
}
