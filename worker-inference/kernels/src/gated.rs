//! The inner width of a feed-forward network: two products of the same input, of which one gates the other, made the input
//! of a third.
//!
//! What is wide stays in a thread's cache: some columns of some rows are multiplied with both matrices, gated and prepared
//! before the next. No bit depends on these pieces, for each output of a product is a sum of its own, a gate looks at
//! one place, and a block of 32 is prepared by itself.

use crate::activations::{Activations, Filling, PANEL};
use crate::cpu::Cpu;
use crate::matmul::{Multiply, PANELS_AT_ONCE, PRODUCTS_A_NUMBER, Target, by_rows};
use crate::matrix::{GROUP, Matrix};
use crate::ops::Gate;
use crate::pool::{Shards, share};
use crate::quant::BLOCK;
use crate::simd::Tiles;
use std::ops::Range;

/// Most numbers of a piece: with those that it is multiplied with, a part of a second-level cache.
const PIECE: usize = 8192;

/// Working memory of [`Cpu::gated`]; keep one, it is reused.
#[derive(Default)]
pub struct Pieces(Vec<f32>);

/// The two matrices and what they meet.
struct Gated<'a> {
    cpu: &'a Cpu,
    gate: &'a Matrix,
    up: &'a Matrix,
    kind: Gate,
    input: &'a Activations,
    out: Filling<'a>,
}

impl Cpu {
    /// Rows of `gated(gate x) * up x`, prepared for products with `down`, where `input` has the rows `x`.
    ///
    /// # Panics
    /// If the shapes do not fit, or `input` was prepared for other kinds of matrices.
    pub fn gated(
        &self,
        [gate, up, down]: [&Matrix; 3],
        kind: Gate,
        input: &Activations,
        out: &mut Activations,
        pieces: &mut Pieces,
    ) {
        let (m, k, width) = (input.m(), input.k(), gate.rows());
        assert!(gate.cols() == k && up.cols() == k, "input rows are {k} long");
        assert!(up.rows() == width && down.cols() == width, "matrices of different inner width");
        pieces.0.resize(2 * PIECE * self.threads(), 0.0);
        let pieces = Shards::new(&mut pieces.0);
        let gated = Gated { cpu: self, gate, up, kind, input, out: out.filling(m, &[down]) };
        self.on_threads(2 * width * k * m / PRODUCTS_A_NUMBER, &|thread, threads| {
            let tiles = (m >= PANEL).then(|| Tiles::of(self.isa())).flatten();
            let (panels, blocks) = (input.panels(), width.div_ceil(BLOCK));
            let (panels, blocks) = if tiles.is_some() && by_rows(panels, threads) {
                (share(panels, thread, threads), 0..blocks)
            } else {
                (0..panels, share(blocks, thread, threads))
            };
            let columns = blocks.start * BLOCK..width.min(blocks.end * BLOCK);
            // SAFETY: every thread has a piece of its own.
            let piece = unsafe { pieces.slice(2 * PIECE * thread..2 * PIECE * (thread + 1)) };
            // SAFETY: threads share out the panels or the columns.
            unsafe { gated.share(panels, columns, tiles.as_ref(), piece) };
        });
    }
}

impl Gated<'_> {
    /// # Safety
    /// Nobody else makes these columns of these panels.
    unsafe fn share(
        &self,
        panels: Range<usize>,
        columns: Range<usize>,
        tiles: Option<&Tiles>,
        piece: &mut [f32],
    ) {
        for first in panels.clone().step_by(PANELS_AT_ONCE) {
            let panels = first..panels.end.min(first + PANELS_AT_ONCE);
            let rows = self.input.m().min(panels.end * PANEL) - panels.start * PANEL;
            let at_once = PIECE / rows / BLOCK * BLOCK;
            for first in columns.clone().step_by(at_once) {
                let columns = first..columns.end.min(first + at_once);
                // SAFETY: the caller's promise.
                unsafe { self.piece(panels.clone(), rows, columns, tiles, piece) };
            }
        }
    }

    /// # Safety
    /// As [`Gated::share`].
    unsafe fn piece(
        &self,
        panels: Range<usize>,
        rows: usize,
        columns: Range<usize>,
        tiles: Option<&Tiles>,
        piece: &mut [f32],
    ) {
        let apart = columns.len();
        let (gate, up) = piece.split_at_mut(PIECE);
        let (gate, up) = (&mut gate[..rows * apart], &mut up[..rows * apart]);
        for (matrix, numbers) in [(self.gate, &mut *gate), (self.up, &mut *up)] {
            let first = (panels.start * PANEL, columns.start);
            let out = Target { numbers: &Shards::new(numbers), first, apart };
            let groups = columns.start / GROUP..columns.end.div_ceil(GROUP);
            let (panels, activations) = (panels.clone(), self.input);
            self.cpu.perform(Multiply { matrix, groups, panels, activations, out, tiles });
        }
        self.cpu.apply(self.kind, gate, up);
        for (panel, rows) in panels.zip(gate.chunks(PANEL * apart)) {
            // SAFETY: the caller's promise.
            unsafe { self.out.take(self.cpu, panel, columns.clone(), rows) };
        }
    }
}

#[cfg(test)]
mod tests;
