//! Weights, laid out for the vector paths.
//!
//! Rows are taken in groups of 16 and interleaved, so that one vector holds the same four columns of 16 rows and
//! a sum never has to cross its lanes. Only the places change, never a value. Per group, for each block of 32
//! columns:
//!
//! - 4-bit formats: 4 x 16 x 4 bytes; byte `(j, row, i)` holds column `4j + i` below and `16 + 4j + i` above;
//! - Q8_0: 8 x 16 x 4 bytes; byte `(j, row, i)` holds column `4j + i`, 128 added;
//! - then, in sections of their own, 16 half-float scales and (Q4_1) 16 half-float least values a block;
//! - F32 and F16: 16 values a column.
//!
//! Rows that fill up the last group are zero.

use crate::half;
use crate::memory::{ALIGN, Arena, Piece, numbers, numbers_mut};
use crate::quant::{BLOCK, Format, half_at};
use std::fmt;
use std::ops::Range;

/// Rows that are interleaved.
pub(crate) const GROUP: usize = 16;

/// A matrix of weights; its rows make the outputs.
pub struct Matrix {
    format: Format,
    rows: usize,
    cols: usize,
    plan: Plan,
    piece: Piece,
}

/// A tensor whose shape and bytes do not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShapeError {
    /// No rows or no columns.
    Empty { rows: usize, cols: usize },
    /// A row is not a whole number of blocks.
    Ragged { format: Format, cols: usize },
    /// More bytes than can be counted.
    TooLarge { format: Format, rows: usize, cols: usize },
    /// The tensor has another size than its shape says.
    Bytes { format: Format, rows: usize, cols: usize, expected: usize, found: usize },
}

/// Where the sections of a matrix lie in its piece of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    values: Range<usize>,
    scales: Range<usize>,
    leasts: Range<usize>,
}

impl Plan {
    fn new(format: Format, rows: usize, cols: usize) -> Option<Plan> {
        let groups = rows.div_ceil(GROUP);
        let units = groups.checked_mul(cols / format.block_len())?;
        let (values, scales, leasts) = match format {
            Format::F32 => (64, 0, 0),
            Format::F16 => (32, 0, 0),
            Format::Q4_0 => (256, 32, 0),
            Format::Q4_1 => (256, 32, 32),
            Format::Q8_0 => (512, 32, 0),
        };
        let mut end = 0usize;
        let mut section = |bytes: usize| {
            let start = end.checked_next_multiple_of(ALIGN)?;
            end = start.checked_add(units.checked_mul(bytes)?)?;
            Some(start..end)
        };
        Some(Plan { values: section(values)?, scales: section(scales)?, leasts: section(leasts)? })
    }

    fn bytes(&self) -> usize {
        self.leasts.end
    }
}

impl Matrix {
    /// Repacks a tensor of `rows` x `cols` values as it lies in a GGUF file, into memory of its own.
    ///
    /// # Errors
    /// When shape, format and `data` do not fit together. Nothing is allocated before that is known.
    pub fn from_gguf(format: Format, rows: usize, cols: usize, data: &[u8]) -> Result<Matrix, ShapeError> {
        let plan = check(format, rows, cols, data)?;
        let piece = Piece::new(plan.bytes(), |_| ());
        Ok(Matrix { format, rows, cols, plan, piece }.filled(data))
    }

    /// As [`Matrix::from_gguf`], into the next piece of `arena`; into memory of its own when that is used up.
    ///
    /// # Errors
    /// As [`Matrix::from_gguf`].
    pub fn from_gguf_in(
        arena: &mut Arena,
        format: Format,
        rows: usize,
        cols: usize,
        data: &[u8],
    ) -> Result<Matrix, ShapeError> {
        let plan = check(format, rows, cols, data)?;
        let piece = arena.cut(plan.bytes()).unwrap_or_else(|| Piece::new(plan.bytes(), |_| ()));
        Ok(Matrix { format, rows, cols, plan, piece }.filled(data))
    }

    /// Bytes that a matrix takes out of an [`Arena`]; `None` if its shape is impossible.
    pub fn bytes_needed(format: Format, rows: usize, cols: usize) -> Option<usize> {
        format.row_bytes(cols)?;
        Plan::new(format, rows, cols)?.bytes().checked_next_multiple_of(ALIGN)
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of memory, repacked.
    pub fn bytes(&self) -> usize {
        self.plan.bytes()
    }

    /// The values of one row, exactly as [`crate::dequantize`] gives them.
    ///
    /// # Panics
    /// If there is no such row, or `out` is not `cols` long.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        assert_eq!(out.len(), self.cols, "a row has {} values", self.cols);
        for (col, value) in out.iter_mut().enumerate() {
            *value = self.value(row, col);
        }
    }

    fn value(&self, row: usize, col: usize) -> f32 {
        let unit = (row / GROUP * (self.cols / self.format.block_len())) + col / self.format.block_len();
        let lane = unit * GROUP + row % GROUP;
        match self.format {
            Format::F32 => self.floats()[lane],
            Format::F16 => half::to_f32(self.halves()[lane]),
            Format::Q4_0 => {
                let q = nibble(&self.values()[unit * 256..], row % GROUP, col % BLOCK);
                half::to_f32(self.scales()[lane]) * (f32::from(q) - 8.0)
            }
            Format::Q4_1 => {
                let q = nibble(&self.values()[unit * 256..], row % GROUP, col % BLOCK);
                half::to_f32(self.scales()[lane]) * f32::from(q) + half::to_f32(self.leasts()[lane])
            }
            Format::Q8_0 => {
                let col = col % BLOCK;
                let q = self.values()[unit * 512 + col / 4 * 64 + row % GROUP * 4 + col % 4] ^ 0x80;
                half::to_f32(self.scales()[lane]) * f32::from(q as i8)
            }
        }
    }

    /// Groups of [`GROUP`] rows.
    pub(crate) fn groups(&self) -> usize {
        self.rows.div_ceil(GROUP)
    }

    /// The interleaved weights of a block format.
    pub(crate) fn values(&self) -> &[u8] {
        &self.piece.bytes()[self.plan.values.clone()]
    }

    /// Scales as half floats, 16 a block.
    pub(crate) fn scales(&self) -> &[u16] {
        numbers(&self.piece.bytes()[self.plan.scales.clone()])
    }

    /// Least values as half floats, 16 a block; empty unless Q4_1.
    pub(crate) fn leasts(&self) -> &[u16] {
        numbers(&self.piece.bytes()[self.plan.leasts.clone()])
    }

    /// The interleaved values of F32.
    pub(crate) fn floats(&self) -> &[f32] {
        numbers(self.values())
    }

    /// The interleaved values of F16.
    pub(crate) fn halves(&self) -> &[u16] {
        numbers(self.values())
    }

    fn filled(mut self, data: &[u8]) -> Matrix {
        let block_bytes = self.format.block_bytes();
        let blocks = self.cols / self.format.block_len();
        let bytes = self.piece.bytes_mut();
        let (values, rest) = bytes[self.plan.values.start..].split_at_mut(self.plan.scales.start);
        let (scales, leasts) = rest.split_at_mut(self.plan.leasts.start - self.plan.scales.start);
        let scales = numbers_mut::<u16>(&mut scales[..self.plan.scales.len()]);
        let leasts = numbers_mut::<u16>(leasts);
        for (row, line) in data.chunks_exact(blocks * block_bytes).enumerate() {
            for (index, block) in line.chunks_exact(block_bytes).enumerate() {
                let unit = row / GROUP * blocks + index;
                let (lane, row) = (unit * GROUP + row % GROUP, row % GROUP);
                match self.format {
                    Format::F32 => {
                        let value = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
                        values[lane * 4..][..4].copy_from_slice(&value.to_ne_bytes());
                    }
                    Format::F16 => {
                        values[lane * 2..][..2].copy_from_slice(&half_at(block, 0).to_ne_bytes());
                    }
                    Format::Q4_0 => {
                        scales[lane] = half_at(block, 0);
                        interleave(&mut values[unit * 256..][..256], row, &block[2..], 0);
                    }
                    Format::Q4_1 => {
                        scales[lane] = half_at(block, 0);
                        leasts[lane] = half_at(block, 2);
                        interleave(&mut values[unit * 256..][..256], row, &block[4..], 0);
                    }
                    Format::Q8_0 => {
                        scales[lane] = half_at(block, 0);
                        interleave(&mut values[unit * 512..][..512], row, &block[2..], 0x80);
                    }
                }
            }
        }
        self
    }
}

/// Puts the bytes of one row of a block into its lane, four by four.
fn interleave(unit: &mut [u8], row: usize, bytes: &[u8], flip: u8) {
    for (four, vector) in bytes.chunks_exact(4).zip(unit.chunks_exact_mut(4 * GROUP)) {
        for (to, from) in vector[row * 4..][..4].iter_mut().zip(four) {
            *to = from ^ flip;
        }
    }
}

/// Column `col` of 32 of an interleaved 4-bit block.
fn nibble(unit: &[u8], row: usize, col: usize) -> u8 {
    unit[col % 16 / 4 * 64 + row * 4 + col % 4] >> (col / 16 * 4) & 15
}

fn check(format: Format, rows: usize, cols: usize, data: &[u8]) -> Result<Plan, ShapeError> {
    if rows == 0 || cols == 0 {
        return Err(ShapeError::Empty { rows, cols });
    }
    if !cols.is_multiple_of(format.block_len()) {
        return Err(ShapeError::Ragged { format, cols });
    }
    let too_large = ShapeError::TooLarge { format, rows, cols };
    let expected =
        format.row_bytes(cols).and_then(|bytes| bytes.checked_mul(rows)).ok_or(too_large.clone())?;
    if data.len() != expected {
        return Err(ShapeError::Bytes { format, rows, cols, expected, found: data.len() });
    }
    Plan::new(format, rows, cols).ok_or(too_large)
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShapeError::Empty { rows, cols } => write!(f, "a matrix of {rows} x {cols} has no values"),
            ShapeError::Ragged { format, cols } => {
                write!(f, "rows of {cols} values are not whole {format} blocks of {}", format.block_len())
            }
            ShapeError::TooLarge { format, rows, cols } => {
                write!(f, "{rows} x {cols} {format} values are more than memory can hold")
            }
            ShapeError::Bytes { format, rows, cols, expected, found } => {
                write!(f, "{rows} x {cols} {format} values take {expected} bytes, but there are {found}")
            }
        }
    }
}

impl std::error::Error for ShapeError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::dequantize;

    const FORMATS: [Format; 5] = [Format::F32, Format::F16, Format::Q4_0, Format::Q4_1, Format::Q8_0];

    #[test]
    fn repacking_changes_no_value() {
        for format in FORMATS {
            for (rows, blocks) in [(1, 1), (15, 3), (16, 2), (17, 5), (48, 1)] {
                let cols = blocks * 32;
                let bytes = rows * format.row_bytes(cols).unwrap();
                // A multiplier that visits all bytes; exponents of all ones are kept out so that values compare.
                let data: Vec<u8> = (0..bytes).map(|i| (i * 37 % 251) as u8 & 0xbb).collect();
                let mut arena = Arena::new(Matrix::bytes_needed(format, rows, cols).unwrap(), |_| ());
                let matrix = Matrix::from_gguf_in(&mut arena, format, rows, cols, &data).unwrap();
                assert_eq!(arena.left(), 0);
                let (mut found, mut expected) = (vec![0.0; cols], vec![0.0; cols]);
                for (row, line) in data.chunks(bytes / rows).enumerate() {
                    matrix.dequantize_row(row, &mut found);
                    dequantize(format, line, &mut expected);
                    assert_eq!(found, expected, "{format} {rows}x{cols} row {row}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_before_memory_is_taken() {
        let refused = |format, rows, cols, bytes: usize| {
            Matrix::from_gguf(format, rows, cols, &vec![0; bytes]).err().unwrap().to_string()
        };
        assert!(refused(Format::Q4_1, 2, 33, 40).contains("blocks of 32"));
        assert!(refused(Format::Q4_1, 2, 32, 41).contains("take 40 bytes, but there are 41"));
        assert!(refused(Format::F32, 0, 4, 0).contains("no values"));
        assert!(refused(Format::F32, usize::MAX / 2, 64, 0).contains("more than memory"));
        assert_eq!(Matrix::bytes_needed(Format::Q8_0, usize::MAX, 32), None);
    }

    #[test]
    fn a_full_arena_is_no_error() {
        let mut arena = Arena::new(64, |_| ());
        let matrix =
            Matrix::from_gguf_in(&mut arena, Format::F32, 3, 2, &1f32.to_le_bytes().repeat(6)).unwrap();
        let mut row = [0.0; 2];
        matrix.dequantize_row(2, &mut row);
        assert_eq!(row, [1.0, 1.0]);
    }
}
