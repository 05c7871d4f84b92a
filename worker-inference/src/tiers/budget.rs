//! How fast sealed blocks may be written behind: bytes a second, saved up for at most one second.

#[derive(Debug)]
pub(super) struct Budget {
    bytes_s: u64,
    /// Below zero after writes that could not wait.
    left: i64,
    last_us: u64,
}

impl Budget {
    pub(super) fn new(bytes_s: u64) -> Budget {
        Budget { bytes_s, left: bytes_s.min(i64::MAX as u64) as i64, last_us: 0 }
    }

    /// Time has come to `now_us`, counted from any fixed moment. A clock that goes back gives nothing.
    pub(super) fn advance(&mut self, now_us: u64) {
        let passed = now_us.saturating_sub(self.last_us).min(1_000_000);
        self.last_us = self.last_us.max(now_us);
        let earned = (u128::from(self.bytes_s) * u128::from(passed) / 1_000_000) as i64;
        let most = self.bytes_s.min(i64::MAX as u64) as i64;
        self.left = self.left.saturating_add(earned).min(most);
    }

    /// Whether another write may begin. A block may take the budget below zero once, so that even a budget
    /// smaller than a block lets blocks through at its rate.
    pub(super) fn allows(&self) -> bool {
        self.left > 0
    }

    pub(super) fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of 1000 bytes written in ten seconds of steps of 10 ms.
    fn written(bytes_s: u64) -> u64 {
        let mut budget = Budget::new(bytes_s);
        let mut blocks = 0;
        for step in 0..1000 {
            budget.advance(step * 10_000);
            while budget.allows() {
                budget.spend(1000);
                blocks += 1;
            }
        }
        blocks * 1000
    }

    #[test]
    fn the_rate_holds_for_small_and_large_budgets() {
        for bytes_s in [500, 10_000, 5_000_000] {
            let bytes = written(bytes_s);
            assert!((10 * bytes_s..=11 * bytes_s + 1000).contains(&bytes), "{bytes_s}: {bytes}");
        }
        assert_eq!(written(0), 0);
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let mut budget = Budget::new(1000);
        budget.advance(5_000_000);
        budget.spend(1000);
        budget.advance(1_000_000);
        assert!(!budget.allows());
    }
}
