//! Time as an argument. Only the leader reads these clocks, and only to stamp log entries and to count leases.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Largest difference from the median of the nodes' clocks that a wall clock may have.
pub const WALL_SKEW_MS: u64 = 5_000;

pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since some fixed moment; never goes back.
    fn monotonic_ms(&self) -> u64;
    /// Unix milliseconds; may jump.
    fn wall_ms(&self) -> u64;
}

/// The machine's clocks.
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn monotonic_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn wall_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map(|d| d.as_millis() as u64).unwrap_or(0)
    }
}

/// The two clocks of one office: both continue where the ledger stands.
#[derive(Clone, Copy, Debug)]
pub struct OfficeClock {
    ledger_base_ms: u64,
    wall_base_ms: u64,
    monotonic_base_ms: u64,
}

impl OfficeClock {
    /// Starts an office: both clocks go on from their last committed values. Only a ledger that has none yet takes the
    /// leader's own wall clock, which nobody has confirmed at that moment.
    pub fn start(ledger_ms: u64, wall_ms: u64, clock: &dyn Clock) -> Self {
        OfficeClock {
            ledger_base_ms: ledger_ms,
            wall_base_ms: if wall_ms == 0 { clock.wall_ms() } else { wall_ms },
            monotonic_base_ms: clock.monotonic_ms(),
        }
    }

    pub fn ledger_ms(&self, clock: &dyn Clock) -> u64 {
        self.ledger_base_ms + clock.monotonic_ms().saturating_sub(self.monotonic_base_ms)
    }

    /// The leader's wall clock while it agrees with the median of the nodes; else, and as long as no node was heard, the
    /// ledger's wall clock at the office's beginning, moved on at the monotonic rate. The second value says whether the
    /// clock was refused.
    pub fn wall_ms(&self, clock: &dyn Clock, reported_ms: &mut [u64]) -> (u64, bool) {
        let own = clock.wall_ms();
        let slope = self.wall_base_ms + clock.monotonic_ms().saturating_sub(self.monotonic_base_ms);
        reported_ms.sort_unstable();
        match reported_ms.get(reported_ms.len() / 2) {
            Some(median) if own.abs_diff(*median) <= WALL_SKEW_MS => (own, false),
            Some(_) => (slope, true),
            None => (slope, own.abs_diff(slope) > WALL_SKEW_MS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u64, u64);
    impl Clock for Fixed {
        fn monotonic_ms(&self) -> u64 {
            self.0
        }
        fn wall_ms(&self) -> u64 {
            self.1
        }
    }

    #[test]
    fn a_new_office_continues_the_ledgers_clock() {
        let office = OfficeClock::start(9_000, 50_000, &Fixed(100, 50_500));
        assert_eq!(office.ledger_ms(&Fixed(350, 0)), 9_250);
    }

    #[test]
    fn a_jumped_wall_clock_is_refused() {
        let office = OfficeClock::start(0, 0, &Fixed(0, 100_000));
        assert_eq!(
            office.wall_ms(&Fixed(1_000, 101_000), &mut [100_900, 101_100, 101_050]),
            (101_000, false)
        );
        assert_eq!(office.wall_ms(&Fixed(1_000, 900_000), &mut [101_000, 101_100, 100_900]), (101_000, true));
    }

    #[test]
    fn a_new_leader_does_not_believe_its_own_clock_before_a_node_was_heard() {
        let hour_ms = 3_600_000;
        let office = OfficeClock::start(0, 500_000, &Fixed(0, 500_000 + hour_ms));
        assert_eq!(office.wall_ms(&Fixed(1_000, 501_000 + hour_ms), &mut []), (501_000, true));
        assert_eq!(office.wall_ms(&Fixed(1_000, 501_000 + hour_ms), &mut [501_100]), (501_000, true));
        assert_eq!(office.wall_ms(&Fixed(1_000, 501_400), &mut []), (501_000, false));
        // A new cluster has nothing else, and one that slept for long catches up when a node agrees.
        let first = OfficeClock::start(0, 0, &Fixed(0, 700_000));
        assert_eq!(first.wall_ms(&Fixed(1_000, 701_000), &mut []), (701_000, false));
        let late = 500_000 + 20 * hour_ms;
        assert_eq!(office.wall_ms(&Fixed(1_000, late), &mut [late]), (late, false));
    }
}
