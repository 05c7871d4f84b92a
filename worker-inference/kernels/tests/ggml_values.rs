//! Every format read as ggml reads it: `golden/blocks.txt` holds blocks and their values, made by
//! `golden/make_blocks.py` with another implementation.

use kernels::{Format, Matrix, dequantize};

const BLOCKS: &str = include_str!("golden/blocks.txt");

struct Golden {
    format: Format,
    data: Vec<u8>,
    values: Vec<u32>,
}

fn golden() -> impl Iterator<Item = Golden> {
    BLOCKS.lines().map(|line| {
        let [name, data, values] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("three words a line")
        };
        let format = Format::ALL.into_iter().find(|format| format.to_string() == name);
        let values =
            bytes(values).chunks(4).map(|four| u32::from_be_bytes(four.try_into().unwrap())).collect();
        Golden { format: format.expect(name), data: bytes(data), values }
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn every_format_is_there() {
    let found: Vec<Format> = golden().map(|golden| golden.format).collect();
    let missing = Format::ALL.into_iter().filter(|format| !found.contains(format));
    assert_eq!(missing.collect::<Vec<_>>(), [Format::F32]);
}

#[test]
fn dequantised_values_have_the_bits_of_ggml() {
    for golden in golden() {
        let mut values = vec![0.0; golden.values.len()];
        dequantize(golden.format, &golden.data, &mut values);
        assert_eq!(bits(&values), golden.values, "{}", golden.format);
    }
}

#[test]
fn repacked_values_have_the_bits_of_ggml() {
    for golden in golden() {
        let cols = golden.format.block_len();
        let rows = golden.values.len() / cols;
        let matrix = Matrix::from_gguf(golden.format, rows, cols, &golden.data).unwrap();
        for (row, expected) in golden.values.chunks(cols).enumerate() {
            let mut values = vec![0.0; cols];
            matrix.dequantize_row(row, &mut values);
            assert_eq!(bits(&values), expected, "{} row {row}", golden.format);
        }
    }
}
