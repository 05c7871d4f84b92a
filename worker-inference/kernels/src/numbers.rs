//! Random numbers for tests: the same in every run.

pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// From -1 to 1.
    pub(crate) fn float(&mut self) -> f32 {
        self.next() as f32 / (1u64 << 30) as f32 - 1.0
    }

    /// About as a weight is spread: from -3 to 3, mostly small.
    pub(crate) fn weight(&mut self) -> f32 {
        (0..3).map(|_| self.float()).sum()
    }
}
