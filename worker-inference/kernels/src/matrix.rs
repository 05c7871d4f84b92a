//! Weights, laid out for the vector paths.
//!
//! Rows are taken in groups of 16 and interleaved, so that one vector holds the same four columns of 16 rows and
//! a sum never has to cross its lanes. Only the places change, never a value. Per group, for each block of 32
//! columns:
//!
//! - block formats: a *unit* of the numbers, see [`packing`];
//! - then, in sections of their own, 16 half-float scales and (formats with a least value) 16 half-float least
//!   values for each block of the format, and (K formats) 2 x 16 one-byte factors for each 32 columns;
//! - F32, F16 and BF16: 16 values a column.
//!
//! Rows that fill up the last group are zero.

pub(crate) mod packing;

use crate::half;
use crate::memory::{ALIGN, Arena, Piece, numbers, numbers_mut};
use crate::quant::{BLOCK, Factors, Format, Part};
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
pub(crate) struct Plan {
    values: Range<usize>,
    scales: Range<usize>,
    leasts: Range<usize>,
    factors: Range<usize>,
}

impl Plan {
    fn new(format: Format, rows: usize, cols: usize) -> Option<Plan> {
        let groups = rows.div_ceil(GROUP);
        let blocks = groups.checked_mul(cols / format.block_len())?;
        let units = groups.checked_mul(cols / BLOCK)?;
        let least = if format.has_least() { 32 } else { 0 };
        let factor = if format.factors() == Factors::None { 0 } else { 32 };
        let mut end = 0usize;
        let mut section = |count: usize, bytes: usize| {
            let start = end.checked_next_multiple_of(ALIGN)?;
            end = start.checked_add(count.checked_mul(bytes)?)?;
            Some(start..end)
        };
        let (values, scale) = match format {
            Format::F32 => (section(blocks, 64)?, 0),
            Format::F16 | Format::BF16 => (section(blocks, 32)?, 0),
            _ => (section(units, packing::unit_bytes(format.bits()))?, 32),
        };
        Some(Plan {
            values,
            scales: section(blocks, scale)?,
            leasts: section(blocks, least)?,
            factors: section(units, factor)?,
        })
    }

    fn bytes(&self) -> usize {
        self.factors.end
    }
}

impl Matrix {
    /// Repacks a tensor of `rows` x `cols` values as it lies in a GGUF file, into memory of its own.
    ///
    /// # Errors
    /// When shape, format and `data` do not fit together. Nothing is allocated before that is known.
    pub fn from_gguf(format: Format, rows: usize, cols: usize, data: &[u8]) -> Result<Matrix, ShapeError> {
        check(format, rows, cols, data)?;
        Ok(Matrix::zeroed(format, rows, cols, |_| ())?.filled(data))
    }

    /// A matrix in memory of its own, to be filled row by row.
    pub(crate) fn zeroed(
        format: Format,
        rows: usize,
        cols: usize,
        advise: impl FnOnce(&[u8]),
    ) -> Result<Matrix, ShapeError> {
        let plan = plan(format, rows, cols)?;
        let piece = Piece::new(plan.bytes(), advise);
        Ok(Matrix { format, rows, cols, plan, piece })
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
        let (group, lane) = (row / GROUP, row % GROUP);
        let column = (group * self.cols + col) * GROUP + lane;
        match self.format {
            Format::F32 => self.floats()[column],
            Format::F16 => half::to_f32(self.halves()[column]),
            Format::BF16 => half::bf16_to_f32(self.halves()[column]),
            format => {
                let unit = group * (self.cols / BLOCK) + col / BLOCK;
                let (scale, least) = (self.scale(unit, lane), self.least(unit, lane));
                let col = col % BLOCK;
                format.value(col, self.number(unit, lane, col), scale, least, self.fine(unit, lane))
            }
        }
    }

    /// The number of row `lane` of a group at column `col` of unit `unit`, which counts all units of the matrix.
    pub(crate) fn number(&self, unit: usize, lane: usize, col: usize) -> u8 {
        let bytes = packing::unit_bytes(self.format.bits());
        packing::get(&self.values()[unit * bytes..][..bytes], self.format.bits(), lane, col)
    }

    /// The scale of the block that a unit is part of.
    pub(crate) fn scale(&self, unit: usize, lane: usize) -> f32 {
        half::to_f32(self.scales()[self.block(unit) * GROUP + lane])
    }

    /// The least value of the block that a unit is part of; 0 if the format has none.
    pub(crate) fn least(&self, unit: usize, lane: usize) -> f32 {
        if self.format.has_least() {
            half::to_f32(self.leasts()[self.block(unit) * GROUP + lane])
        } else {
            0.0
        }
    }

    /// The factors of a unit; nothing of interest if the format has none.
    pub(crate) fn fine(&self, unit: usize, lane: usize) -> [u8; 2] {
        match self.format.factors() {
            Factors::None => [0; 2],
            _ => [0, GROUP].map(|which| self.factors()[unit * 2 * GROUP + which + lane]),
        }
    }

    fn block(&self, unit: usize) -> usize {
        unit * BLOCK / self.format.block_len()
    }

    /// Groups of [`GROUP`] rows.
    pub(crate) fn groups(&self) -> usize {
        self.rows.div_ceil(GROUP)
    }

    /// The interleaved weights of a block format.
    pub(crate) fn values(&self) -> &[u8] {
        &self.piece.bytes()[self.plan.values.clone()]
    }

    /// Scales as half floats, 16 a block of the format.
    pub(crate) fn scales(&self) -> &[u16] {
        numbers(&self.piece.bytes()[self.plan.scales.clone()])
    }

    /// Least values as half floats, 16 a block of the format; empty if it has none.
    pub(crate) fn leasts(&self) -> &[u16] {
        numbers(&self.piece.bytes()[self.plan.leasts.clone()])
    }

    /// Factors of the units, two times 16 each; empty if the format has none.
    pub(crate) fn factors(&self) -> &[u8] {
        &self.piece.bytes()[self.plan.factors.clone()]
    }

    /// The interleaved values of F32.
    pub(crate) fn floats(&self) -> &[f32] {
        numbers(self.values())
    }

    /// The interleaved values of F16 and BF16.
    pub(crate) fn halves(&self) -> &[u16] {
        numbers(self.values())
    }

    fn filled(mut self, data: &[u8]) -> Matrix {
        let line_bytes = data.len() / self.rows;
        data.chunks_exact(line_bytes).enumerate().for_each(|(row, line)| self.fill_row(row, line));
        self
    }

    /// Takes a row as it lies in a file; its place is zero so far.
    pub(crate) fn fill_row(&mut self, row: usize, line: &[u8]) {
        if self.format.is_quantised() {
            self.fill_parts(row, line);
        } else {
            self.fill_floats(row, line);
        }
    }

    fn fill_floats(&mut self, row: usize, line: &[u8]) {
        let width = self.format.block_bytes();
        let start = (row / GROUP * self.cols * GROUP + row % GROUP) * width;
        let values = &mut self.piece.bytes_mut()[self.plan.values.clone()][start..];
        for (from, to) in line.chunks_exact(width).zip(values.chunks_mut(GROUP * width)) {
            match *from {
                [a, b] => to[..2].copy_from_slice(&u16::from_le_bytes([a, b]).to_ne_bytes()),
                [a, b, c, d] => to[..4].copy_from_slice(&u32::from_le_bytes([a, b, c, d]).to_ne_bytes()),
                _ => unreachable!("floats of {width} bytes"),
            }
        }
    }

    fn fill_parts(&mut self, row: usize, line: &[u8]) {
        let (format, lane) = (self.format, row % GROUP);
        let (parts, bits) = (format.block_len() / BLOCK, format.bits());
        let unit_bytes = packing::unit_bytes(bits);
        let first = row / GROUP * (self.cols / format.block_len());
        let mut sections = self.plan.sections(self.piece.bytes_mut());
        for (block, bytes) in (first..).zip(line.chunks_exact(format.block_bytes())) {
            for index in 0..parts {
                let (part, unit) = (format.part(bytes, index), block * parts + index);
                packing::put(&mut sections.values[unit * unit_bytes..][..unit_bytes], bits, lane, &part.q);
                sections.keep(format, block * GROUP + lane, unit * 2 * GROUP + lane, &part);
            }
        }
    }
}

/// The sections of a block format, to be written.
struct Sections<'a> {
    values: &'a mut [u8],
    scales: &'a mut [u16],
    leasts: &'a mut [u16],
    factors: &'a mut [u8],
}

impl Plan {
    fn sections<'a>(&self, bytes: &'a mut [u8]) -> Sections<'a> {
        let (values, rest) = bytes.split_at_mut(self.scales.start);
        let (scales, rest) = rest.split_at_mut(self.leasts.start - self.scales.start);
        let (leasts, factors) = rest.split_at_mut(self.factors.start - self.leasts.start);
        Sections {
            values: &mut values[self.values.clone()],
            scales: numbers_mut(&mut scales[..self.scales.len()]),
            leasts: numbers_mut(&mut leasts[..self.leasts.len()]),
            factors,
        }
    }
}

impl Sections<'_> {
    #[inline(always)]
    fn keep(&mut self, format: Format, place: usize, factor: usize, part: &Part) {
        self.scales[place] = part.scale;
        if format.has_least() {
            self.leasts[place] = part.least;
        }
        if format.factors() != Factors::None {
            self.factors[factor] = part.fine[0];
            self.factors[factor + GROUP] = part.fine[1];
        }
    }
}

/// How a tensor with these bytes is laid out; an error if they are not those of its shape.
pub(crate) fn check(format: Format, rows: usize, cols: usize, data: &[u8]) -> Result<Plan, ShapeError> {
    let plan = plan(format, rows, cols)?;
    match format.row_bytes(cols).and_then(|bytes| bytes.checked_mul(rows)) {
        None => Err(ShapeError::TooLarge { format, rows, cols }),
        Some(expected) if expected != data.len() => {
            Err(ShapeError::Bytes { format, rows, cols, expected, found: data.len() })
        }
        Some(_) => Ok(plan),
    }
}

fn plan(format: Format, rows: usize, cols: usize) -> Result<Plan, ShapeError> {
    if rows == 0 || cols == 0 {
        return Err(ShapeError::Empty { rows, cols });
    }
    if !cols.is_multiple_of(format.block_len()) {
        return Err(ShapeError::Ragged { format, cols });
    }
    Plan::new(format, rows, cols).ok_or(ShapeError::TooLarge { format, rows, cols })
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

    #[test]
    fn repacking_changes_no_value() {
        for format in Format::ALL {
            for (rows, blocks) in [(1, 1), (15, 3), (16, 2), (17, 5), (48, 1)] {
                let cols = blocks * format.block_len().max(32);
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
