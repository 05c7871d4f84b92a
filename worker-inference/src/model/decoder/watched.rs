//! How rows spread their attention: collected in some layers, told as a mean over their heads.

use std::ops::Range;

/// One layer in so many is looked at.
const ONE_IN: usize = 4;

/// The layers that are looked at: the last quarter, rounded up. What a token is answered with is gathered there, and
/// looking at all would cost four times as much.
pub(super) fn layers(count: usize) -> Range<usize> {
    count - count.div_ceil(ONE_IN)..count
}

/// Rows of one table whose attention somebody wants to know.
pub struct Watched<'a> {
    sequence: kernels::Sequence<'a>,
    segments: &'a [Range<usize>],
    /// A value for each row and segment, segments together.
    mass: Vec<f64>,
    /// Heads of all layers that are looked at.
    heads: usize,
}

impl<'a> Watched<'a> {
    /// `segments` are positions.
    pub fn new(sequence: kernels::Sequence<'a>, segments: &'a [Range<usize>]) -> Watched<'a> {
        let mass = vec![0.0; sequence.rows.len() * segments.len()];
        Watched { sequence, segments, mass, heads: 1 }
    }

    pub(super) fn add(
        &mut self,
        heads: usize,
        attend: impl FnOnce(&kernels::Sequence<'a>, &[Range<usize>], &mut [f64]),
    ) {
        self.heads = heads;
        attend(&self.sequence, self.segments, &mut self.mass);
    }

    /// The share of each segment for each row, segments together: means over heads and layers.
    pub fn shares(self) -> Vec<f64> {
        self.mass.into_iter().map(|mass| mass / self.heads as f64).collect()
    }
}
