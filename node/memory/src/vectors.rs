//! Vectors of items, and exact cosines with all of them: no approximation, so that the chain alone decides.
//!
//! Every vector has length one, so a cosine is a sum of products. It is summed in 16 lanes, `lane[i % 16] += a * b`,
//! and the lanes in one fixed tree: the same bits with any vector instructions, and without.

use zeroize::Zeroize;

use crate::bm25::Slot;

const LANES: usize = 16;

/// Rows of `dims` floats, several for one slot where an item is long.
#[derive(Debug)]
pub(crate) struct Vectors {
    dims: usize,
    rows: Vec<f32>,
    owners: Vec<Slot>,
}

impl Vectors {
    pub(crate) fn new(dims: usize) -> Vectors {
        Vectors { dims, rows: Vec::new(), owners: Vec::new() }
    }

    /// Rows that are kept.
    pub(crate) fn len(&self) -> usize {
        self.owners.len()
    }

    /// Adds a row for a slot. Rows of another length, or of zeros and worse, are left out.
    pub(crate) fn add(&mut self, slot: Slot, row: &[f32]) -> bool {
        let length = dot(row, row).sqrt();
        if row.len() != self.dims || !length.is_normal() {
            return false;
        }
        self.grow();
        self.rows.extend(row.iter().map(|value| value / length));
        self.owners.push(slot);
        true
    }

    /// Adds a row as [`Vectors::rows`] gave it.
    pub(crate) fn restore(&mut self, slot: Slot, row: &[f32]) {
        self.rows.extend_from_slice(row);
        self.owners.push(slot);
    }

    /// Makes room by hand: a vector that grows by itself leaves its old floats in freed memory.
    fn grow(&mut self) {
        if self.rows.capacity() - self.rows.len() >= self.dims {
            return;
        }
        let room = (self.rows.len() + self.rows.len() / 2).max(16 * self.dims);
        let mut larger = Vec::with_capacity(room + self.dims);
        larger.extend_from_slice(&self.rows);
        std::mem::replace(&mut self.rows, larger).zeroize();
    }

    /// Takes out the rows of a slot: the last ones take their places, and theirs are overwritten.
    pub(crate) fn remove(&mut self, slot: Slot) {
        for at in (0..self.owners.len()).rev().filter(|at| self.owners[*at] == slot).collect::<Vec<_>>() {
            let last = self.owners.len() - 1;
            self.rows.copy_within(last * self.dims.., at * self.dims);
            self.rows[last * self.dims..].zeroize();
            self.rows.truncate(last * self.dims);
            self.owners.swap_remove(at);
        }
    }

    /// All rows with their slots, in no particular order but one slot's own.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (Slot, &[f32])> {
        self.owners.iter().copied().zip(self.rows.chunks_exact(self.dims.max(1)))
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        4 * (self.rows.capacity() + self.owners.capacity())
    }

    /// The best cosine of each slot with a question, whose length is made one first.
    pub(crate) fn score(&self, question: &[f32]) -> Vec<(Slot, f32)> {
        let length = dot(question, question).sqrt();
        if question.len() != self.dims || !length.is_normal() {
            return Vec::new();
        }
        let question: Vec<f32> = question.iter().map(|value| value / length).collect();
        let mut best: Vec<(Slot, f32)> = self.rows().map(|(slot, row)| (slot, dot(&question, row))).collect();
        best.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)));
        best.dedup_by_key(|(slot, _)| *slot);
        best
    }
}

impl Drop for Vectors {
    fn drop(&mut self) {
        self.rows.zeroize();
    }
}

/// The sum of products in the fixed order. What is longer than the other is not looked at.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a, b) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.0.iter().zip(b.0) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(a.1).zip(b.1) {
        *lane += a * b;
    }
    sum(lanes)
}

/// The lanes, in pairs of equal distance.
pub(crate) fn sum(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_window_counts() {
        let mut vectors = Vectors::new(2);
        assert!(vectors.add(0, &[2.0, 0.0]) && vectors.add(0, &[0.0, 3.0]) && vectors.add(1, &[1.0, 1.0]));
        let scores = vectors.score(&[0.0, 5.0]);
        assert_eq!(scores[0], (0, 1.0));
        assert!((scores[1].1 - 0.5f32.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn what_is_no_direction_is_left_out() {
        let mut vectors = Vectors::new(2);
        for bad in [&[0.0, 0.0][..], &[f32::NAN, 1.0], &[f32::INFINITY, 1.0], &[1.0]] {
            assert!(!vectors.add(0, bad));
        }
        assert_eq!(vectors.score(&[1.0, 0.0]), []);
    }

    #[test]
    fn removed_rows_are_filled_by_the_last() {
        let mut vectors = Vectors::new(4);
        for slot in 0..5 {
            vectors.add(slot, &[1.0, slot as f32, 0.0, 0.0]);
        }
        vectors.remove(1);
        vectors.remove(4);
        assert_eq!(vectors.rows().map(|(slot, _)| slot).collect::<Vec<_>>(), [0, 3, 2]);
        assert_eq!(vectors.rows.len(), 12);
    }

    #[test]
    fn short_ends_are_summed_as_well() {
        let (a, b): (Vec<f32>, Vec<f32>) = (0..37).map(|i| (i as f32, 2.0)).unzip();
        assert_eq!(dot(&a, &b), 36.0 * 37.0);
    }
}
