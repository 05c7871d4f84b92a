//! A circuit breaker: after many failures in a row nobody is sent for a while, then one goes and looks. Pure.

use crate::bounds::{BREAKER_FAILURES, BREAKER_FIRST_MS, BREAKER_MOST_MS};

/// Whether calls may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    /// Nobody goes for so long.
    Open {
        left_ms: u64,
    },
    /// One call is looking, or may go and look.
    Probing,
}

/// The breaker of one destination.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    failures: u32,
    /// Times it opened without a success between.
    opened: u32,
    open_until_ms: Option<u64>,
    probing: bool,
}

impl Breaker {
    pub fn state(&self, now_ms: u64) -> BreakerState {
        match self.open_until_ms {
            None => BreakerState::Closed,
            Some(until) if now_ms < until => BreakerState::Open { left_ms: until - now_ms },
            Some(_) => BreakerState::Probing,
        }
    }

    /// Whether a call may go now; otherwise after how many milliseconds to ask again.
    pub fn admit(&mut self, now_ms: u64) -> Result<(), u64> {
        match self.state(now_ms) {
            BreakerState::Closed => Ok(()),
            BreakerState::Open { left_ms } => Err(left_ms),
            BreakerState::Probing if self.probing => Err(BREAKER_FIRST_MS),
            BreakerState::Probing => {
                self.probing = true;
                Ok(())
            }
        }
    }

    /// The destination answered, if only to refuse one request.
    pub fn success(&mut self) {
        *self = Breaker::default();
    }

    /// The destination is ill: errors of its own, silence, no connection.
    pub fn failure(&mut self, now_ms: u64) {
        self.failures = self.failures.saturating_add(1);
        let probed = std::mem::take(&mut self.probing);
        // Calls that were on their way when it opened say nothing new.
        let is_open = matches!(self.state(now_ms), BreakerState::Open { .. });
        if !is_open && (probed || self.failures >= BREAKER_FAILURES) {
            let wait = BREAKER_FIRST_MS.saturating_mul(1 << self.opened.min(20)).min(BREAKER_MOST_MS);
            self.opened = self.opened.saturating_add(1);
            self.open_until_ms = Some(now_ms.saturating_add(wait));
        }
    }

    /// A call ended that tells nothing of the destination, such as one that was stopped.
    pub fn nothing(&mut self) {
        self.probing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(now_ms: u64) -> Breaker {
        let mut breaker = Breaker::default();
        (0..BREAKER_FAILURES).for_each(|_| breaker.failure(now_ms));
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let mut breaker = Breaker::default();
        for now in 0..100 {
            (0..BREAKER_FAILURES - 1).for_each(|_| breaker.failure(now));
            breaker.success();
            assert_eq!(breaker.admit(now), Ok(()));
        }
        assert_eq!(broken(7).state(7), BreakerState::Open { left_ms: BREAKER_FIRST_MS });
        assert_eq!(broken(7).admit(1007), Err(BREAKER_FIRST_MS - 1000));
    }

    #[test]
    fn one_goes_and_looks_and_a_bad_look_doubles_the_time() {
        let mut breaker = broken(0);
        let mut now = BREAKER_FIRST_MS;
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert_eq!(breaker.admit(now), Ok(()), "the probe");
            assert!(breaker.admit(now).is_err(), "one only");
            breaker.failure(now);
            breaker.failure(now); // one that was on its way
            let BreakerState::Open { left_ms } = breaker.state(now) else { panic!("it opens again") };
            waits.push(left_ms);
            now += left_ms;
        }
        assert_eq!(waits, [10_000, 20_000, 40_000, 80_000, 120_000, 120_000, 120_000]);
        assert_eq!(breaker.admit(now), Ok(()));
        breaker.success();
        assert_eq!(breaker.state(now), BreakerState::Closed);
        assert_eq!(breaker.admit(now), Ok(()));
    }

    #[test]
    fn a_probe_that_was_stopped_leaves_the_place_to_the_next() {
        let mut breaker = broken(0);
        assert_eq!(breaker.admit(BREAKER_FIRST_MS), Ok(()));
        breaker.nothing();
        assert_eq!(breaker.admit(BREAKER_FIRST_MS), Ok(()));
    }
}
