//! Matrix products: every row of activations with every row of weights.
//!
//! Each output is a sum of its own in one fixed order, whatever the number of activation rows and whoever
//! computes it. For quantised weights, over blocks of 32 ascending:
//!
//! ```text
//! out = fma(sum of q_w * q_x as an exact integer, scale_w * scale_x, out)
//! out = fma(least_w, scale_x * sum of q_x, out)                            (formats with a least value)
//! ```
//!
//! Where the format has factors, scale_w and least_w are those of the block times those of the 32 columns, which is
//! exact; for Q6_K the integer is `factor * sum` of the first half plus that of the second, exact as well.
//!
//! For float weights four sums take the columns in turn, `s[col % 4] = fma(w, x, s[col % 4])`, and
//! `out = (s0 + s1) + (s2 + s3)`.

mod scalar;
mod vector;

use crate::activations::{Activations, PANEL};
use crate::cpu::Cpu;
use crate::matrix::{GROUP, Matrix};
use crate::pool::{Shards, share};
use crate::simd::{Operation, Sixteen, Tiles};
use std::ops::Range;

/// Panels multiplied with a weight group before the next group: 128 rows of input stay in the second-level cache
/// while the weights pass by once.
pub(crate) const PANELS_AT_ONCE: usize = 8;

/// Products that take as long as one number of the operations between matrix products.
pub(crate) const PRODUCTS_A_NUMBER: usize = 16;

impl Cpu {
    /// `out[i][j]` = activation row `i` times weight row `j`; `out` has `m` rows of `matrix.rows()`.
    ///
    /// # Panics
    /// If the shapes do not fit, or the activations were prepared for another kind of matrix.
    pub fn matmul(&self, matrix: &Matrix, activations: &Activations, out: &mut [f32]) {
        self.matmul_many(&mut [(matrix, out)], activations);
    }

    /// Several products with the same activations in one round of the threads.
    ///
    /// # Panics
    /// As [`Cpu::matmul`].
    pub fn matmul_many(&self, products: &mut [(&Matrix, &mut [f32])], activations: &Activations) {
        let (m, k) = (activations.m(), activations.k());
        let mut groups = 0;
        for (matrix, out) in products.iter() {
            assert_eq!(matrix.cols(), k, "activation rows are {k} long");
            assert_eq!(out.len(), m * matrix.rows(), "outputs of {m} x {} rows", matrix.rows());
            groups += matrix.groups();
        }
        let products =
            products.iter_mut().map(|(matrix, out)| (*matrix, Shards::new(out))).collect::<Vec<_>>();
        self.on_threads(groups * GROUP * k * m / PRODUCTS_A_NUMBER, &|thread, threads| {
            let tiles = (m >= PANEL).then(|| Tiles::of(self.isa())).flatten();
            let (panels, mut own) = if tiles.is_some() && by_rows(activations.panels(), threads) {
                (share(activations.panels(), thread, threads), 0..groups)
            } else {
                (0..activations.panels(), share(groups, thread, threads))
            };
            for (matrix, out) in &products {
                let part = own.start.min(matrix.groups())..own.end.min(matrix.groups());
                own = own.start.saturating_sub(matrix.groups())..own.end.saturating_sub(matrix.groups());
                if !part.is_empty() {
                    let tiles = tiles.as_ref();
                    let panels = panels.clone();
                    let out = Target::whole(matrix, out);
                    self.perform(Multiply { matrix, groups: part, panels, activations, out, tiles });
                }
            }
        });
    }
}

impl Cpu {
    /// The products with some groups of weight rows alone, none of them twice; the rest of `out` stays as it is.
    ///
    /// # Panics
    /// As [`Cpu::matmul`], or if there is no such group.
    pub(crate) fn matmul_groups(
        &self,
        matrix: &Matrix,
        activations: &Activations,
        groups: &[usize],
        out: &mut [f32],
    ) {
        let (m, k) = (activations.m(), activations.k());
        assert_eq!(matrix.cols(), k, "activation rows are {k} long");
        assert_eq!(out.len(), m * matrix.rows(), "outputs of {m} x {} rows", matrix.rows());
        assert!(
            groups.is_sorted_by(|a, b| a < b) && groups.last().is_none_or(|&last| last < matrix.groups())
        );
        let out = &Shards::new(out);
        self.on_threads(groups.len() * GROUP * k * m / PRODUCTS_A_NUMBER, &|thread, threads| {
            for &group in &groups[share(groups.len(), thread, threads)] {
                let (groups, panels) = (group..group + 1, 0..activations.panels());
                let out = Target::whole(matrix, out);
                self.perform(Multiply { matrix, groups, panels, activations, out, tiles: None });
            }
        });
    }
}

/// Whether threads divide the rows of input between them instead of the weights. Then what a thread reads was for the most
/// part written by itself, and lies in its own cache; weights are unpacked by every thread.
pub(crate) fn by_rows(panels: usize, threads: usize) -> bool {
    panels.is_multiple_of(threads) && panels >= 4 * threads || panels >= 8 * threads
}

/// Where outputs go: a rectangle of all rows and columns.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) numbers: &'a Shards<'a, f32>,
    /// The row and the column that come first.
    pub(crate) first: (usize, usize),
    /// Numbers from one row to the next.
    pub(crate) apart: usize,
}

impl<'a> Target<'a> {
    fn whole(matrix: &Matrix, numbers: &'a Shards<'a, f32>) -> Target<'a> {
        Target { numbers, first: (0, 0), apart: matrix.rows() }
    }
}

/// The outputs of some groups of weight rows for some panels of activation rows. Nobody else writes these.
pub(crate) struct Multiply<'a> {
    pub(crate) matrix: &'a Matrix,
    pub(crate) groups: Range<usize>,
    pub(crate) panels: Range<usize>,
    pub(crate) activations: &'a Activations,
    pub(crate) out: Target<'a>,
    /// Tile registers of this thread.
    pub(crate) tiles: Option<&'a Tiles>,
}

impl Multiply<'_> {
    /// Every weight group, and the panels, `at_once` or fewer, to multiply with it before the next.
    fn parts(&self, at_once: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
        let (panels, groups) = (self.panels.clone(), self.groups.clone());
        panels.clone().step_by(at_once).flat_map(move |first| {
            let some = first..panels.end.min(first + at_once);
            groups.clone().map(move |group| (group, some.clone()))
        })
    }

    /// Where the outputs of a weight group go, for row `row` of panel `panel`: 16, fewer in the last group.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    fn outputs(&self, group: usize, panel: usize, row: usize) -> &mut [f32] {
        let start = self.start(group, panel, row);
        // SAFETY: these weight rows or this panel belong to this thread alone, and the slice is written and dropped at once.
        unsafe { self.out.numbers.slice(start..start + GROUP.min(self.matrix.rows() - group * GROUP)) }
    }

    fn start(&self, group: usize, panel: usize, row: usize) -> usize {
        let (first_row, first_column) = self.out.first;
        (panel * PANEL + row - first_row) * self.out.apart + group * GROUP - first_column
    }

    /// Where the outputs of a whole weight group go for the 16 rows of a whole panel, and how far apart these lie.
    #[inline(always)]
    fn place(&self, group: usize, panel: usize) -> (*mut f32, usize) {
        let (start, end) = (self.start(group, panel, 0), self.start(group, panel, PANEL - 1) + GROUP);
        (self.out.numbers.pointer(start..end), self.out.apart)
    }
}

impl Operation for Multiply<'_> {
    type Output = ();

    fn scalar(self) {
        for (group, panels) in self.parts(PANELS_AT_ONCE) {
            panels.for_each(|panel| scalar::tile(&self, group, panel));
        }
    }

    #[inline(always)]
    fn vector<S: Sixteen>(self) {
        vector::tiles::<S::Native>(&self);
    }
}

#[cfg(test)]
mod tests;
