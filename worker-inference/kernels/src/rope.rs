//! Rotary position embedding: pairs of values of a head are turned by an angle that grows with the position.

use crate::cpu::Cpu;
use crate::math;
use crate::simd::{Operation, Sixteen};

/// Which values make a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeStyle {
    /// Neighbours, 2i and 2i + 1: tensors of the llama architecture in GGUF.
    Interleaved,
    /// i and i + half: GPT-NeoX, and with it Qwen and Gemma.
    Halves,
}

/// Cosines and sines of all positions, computed once in f64.
pub struct RopeTable {
    style: RopeStyle,
    head_dim: usize,
    /// For each position, one cosine for every value of a head.
    cos: Vec<f32>,
    /// As `cos`; the sign is that with which the *other* value of the pair enters.
    sin: Vec<f32>,
}

impl RopeTable {
    /// Angles `position / (base ^ (2i / head_dim) * factors[i])` for positions `0..positions`. `factors` are the
    /// per-pair divisors of models with a stretched window; without, 1. Linear scaling by `s` is `s` for every pair.
    /// A model whose layers differ in base or scaling has a table for each kind.
    ///
    /// # Panics
    /// If `head_dim` is odd or 0, `base` is not above 0, or there is not one factor for each pair.
    pub fn new(
        style: RopeStyle,
        head_dim: usize,
        positions: usize,
        base: f64,
        factors: Option<&[f32]>,
    ) -> RopeTable {
        let pairs = head_dim / 2;
        assert!(pairs > 0 && head_dim.is_multiple_of(2), "a head of {head_dim} values has no pairs");
        assert!(factors.is_none_or(|factors| factors.len() == pairs), "one factor for each of {pairs} pairs");
        let rates: Vec<f64> = (0..pairs)
            .map(|pair| {
                let rate = math::exp64(-math::ln64(base) * (2 * pair) as f64 / head_dim as f64);
                rate / factors.map_or(1.0, |factors| f64::from(factors[pair]))
            })
            .collect();
        let mut table = RopeTable {
            style,
            head_dim,
            cos: vec![0.0; positions * head_dim],
            sin: vec![0.0; positions * head_dim],
        };
        for position in 0..positions {
            table.fill(position, &rates);
        }
        table
    }

    /// Positions in the table.
    pub fn positions(&self) -> usize {
        self.cos.len() / self.head_dim
    }

    fn fill(&mut self, position: usize, rates: &[f64]) {
        let start = position * self.head_dim;
        for (pair, rate) in rates.iter().enumerate() {
            let (sin, cos) = math::sin_cos64(position as f64 * rate);
            let (a, b) = match self.style {
                RopeStyle::Interleaved => (2 * pair, 2 * pair + 1),
                RopeStyle::Halves => (pair, pair + rates.len()),
            };
            self.cos[start + a] = cos as f32;
            self.cos[start + b] = cos as f32;
            self.sin[start + a] = -sin as f32;
            self.sin[start + b] = sin as f32;
        }
    }

    fn partner(&self, index: usize) -> usize {
        match self.style {
            RopeStyle::Interleaved => index ^ 1,
            RopeStyle::Halves => (index + self.head_dim / 2) % self.head_dim,
        }
    }
}

impl Cpu {
    /// Turns every head of every row; row `i` stands at `positions[i]`.
    ///
    /// # Panics
    /// If a row is not whole heads, or a position is not in the table.
    pub fn rope(&self, table: &RopeTable, x: &mut [f32], positions: &[u32]) {
        if positions.is_empty() {
            return assert!(x.is_empty(), "rows without positions");
        }
        let row_len = x.len() / positions.len();
        assert_eq!(x.len(), row_len * positions.len(), "one row for each position");
        assert!(
            row_len > 0 && row_len.is_multiple_of(table.head_dim),
            "a row of {row_len} is not whole heads"
        );
        let last = positions.iter().max().map_or(0, |&position| position as usize);
        assert!(last < table.positions(), "position {last} of {}", table.positions());
        self.on_rows(x, row_len, &|first, x| {
            let positions = &positions[first..][..x.len() / row_len];
            self.perform(Rotate { table, x, row_len, positions });
        });
    }
}

struct Rotate<'a> {
    table: &'a RopeTable,
    x: &'a mut [f32],
    row_len: usize,
    positions: &'a [u32],
}

impl Operation for Rotate<'_> {
    type Output = ();

    fn scalar(self) {
        let dim = self.table.head_dim;
        for (row, &position) in self.x.chunks_exact_mut(self.row_len).zip(self.positions) {
            let cos = &self.table.cos[position as usize * dim..][..dim];
            let sin = &self.table.sin[position as usize * dim..][..dim];
            for head in row.chunks_exact_mut(dim) {
                for a in (0..dim).filter(|&a| a < self.table.partner(a)) {
                    let b = self.table.partner(a);
                    let (x, y) = (head[a], head[b]);
                    head[a] = x.mul_add(cos[a], y * sin[a]);
                    head[b] = y.mul_add(cos[b], x * sin[b]);
                }
            }
        }
    }

    #[inline(always)]
    fn vector<S: Sixteen>(self) {
        let dim = self.table.head_dim;
        let span = match self.table.style {
            RopeStyle::Interleaved => dim,
            RopeStyle::Halves => dim / 2,
        };
        if !span.is_multiple_of(16) {
            return self.scalar();
        }
        for (row, &position) in self.x.chunks_exact_mut(self.row_len).zip(self.positions) {
            let cos = &self.table.cos[position as usize * dim..][..dim];
            let sin = &self.table.sin[position as usize * dim..][..dim];
            for head in row.chunks_exact_mut(dim) {
                match self.table.style {
                    RopeStyle::Interleaved => interleaved::<S>(head, cos, sin),
                    RopeStyle::Halves => halves::<S>(head, cos, sin),
                }
            }
        }
    }
}

#[inline(always)]
fn interleaved<S: Sixteen>(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    assert!(cos.len() == head.len() && sin.len() == head.len() && head.len().is_multiple_of(16));
    for at in (0..head.len()).step_by(16) {
        // SAFETY: 16 values from `at` on, in slices of the same length.
        unsafe {
            let x = S::load(head.as_ptr().add(at));
            let turned = S::mul(S::swap_pairs(x), S::load(sin.as_ptr().add(at)));
            S::store(head.as_mut_ptr().add(at), S::fma(x, S::load(cos.as_ptr().add(at)), turned));
        }
    }
}

#[inline(always)]
fn halves<S: Sixteen>(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = head.len() / 2;
    assert!(cos.len() == head.len() && sin.len() == head.len() && half.is_multiple_of(16));
    for a in (0..half).step_by(16) {
        let b = a + half;
        // SAFETY: 16 values from `a` and from `b` on, in slices of the same length.
        unsafe {
            let (x, y) = (S::load(head.as_ptr().add(a)), S::load(head.as_ptr().add(b)));
            let (x_turned, y_turned) =
                (S::mul(y, S::load(sin.as_ptr().add(a))), S::mul(x, S::load(sin.as_ptr().add(b))));
            S::store(head.as_mut_ptr().add(a), S::fma(x, S::load(cos.as_ptr().add(a)), x_turned));
            S::store(head.as_mut_ptr().add(b), S::fma(y, S::load(cos.as_ptr().add(b)), y_turned));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    #[test]
    fn heads_are_turned_alike_everywhere() {
        for style in [RopeStyle::Interleaved, RopeStyle::Halves] {
            for dim in [2, 8, 16, 32, 48, 64, 80, 128, 256] {
                let table = RopeTable::new(style, dim, 300, 1e5, None);
                let positions = [0, 1, 299, 17];
                let x: Vec<f32> = (0..4 * 3 * dim).map(|i| (i * 37 % 101) as f32 / 10.0 - 5.0).collect();
                let turn = |isa, threads| {
                    let mut x = x.clone();
                    Cpu::new(isa, threads, |_| ()).rope(&table, &mut x, &positions);
                    x.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
                };
                let expected = turn(Isa::Scalar, 1);
                for isa in Isa::available() {
                    assert_eq!(turn(isa, 2), expected, "{style:?} {dim} {isa}");
                }
                assert_eq!(f32::from_bits(expected[5 % dim]), x[5 % dim], "position 0 turns nothing");
            }
        }
    }

    #[test]
    fn the_angle_is_the_papers() {
        let (dim, position, base) = (64, 1234u32, 10_000.0f64);
        for (style, a, b) in [(RopeStyle::Interleaved, 10, 11), (RopeStyle::Halves, 5, 37)] {
            let table = RopeTable::new(style, dim, 2000, base, None);
            let mut x = vec![0.0; dim];
            x[a] = 1.0;
            Cpu::new(Isa::Scalar, 1, |_| ()).rope(&table, &mut x, &[position]);
            let angle = f64::from(position) * base.powf(-10.0 / 64.0);
            assert!(
                (f64::from(x[a]) - angle.cos()).abs() < 1e-6 && (f64::from(x[b]) - angle.sin()).abs() < 1e-6
            );
        }
    }

    #[test]
    fn equal_factors_stretch_all_positions() {
        let plain = RopeTable::new(RopeStyle::Halves, 256, 9, 1e6, None);
        let stretched = RopeTable::new(RopeStyle::Halves, 256, 65, 1e6, Some(&[8.0; 128]));
        for position in 0..9 {
            let (at, far) = (position * 256, position * 8 * 256);
            assert_eq!(plain.cos[at..at + 256], stretched.cos[far..far + 256]);
            assert_eq!(plain.sin[at..at + 256], stretched.sin[far..far + 256]);
        }
    }

    #[test]
    fn factors_slow_a_pair_down() {
        let plain = RopeTable::new(RopeStyle::Halves, 4, 9, 100.0, None);
        let slowed = RopeTable::new(RopeStyle::Halves, 4, 9, 100.0, Some(&[1.0, 8.0]));
        assert_eq!(plain.cos[8 * 4], slowed.cos[8 * 4]);
        assert_eq!(plain.cos[4 + 1], slowed.cos[8 * 4 + 1]);
    }
}
