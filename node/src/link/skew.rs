//! Whether this machine's wall clock agrees with the leader's: told when it stops and when it does again.

use crate::telemetry::names;
use coordinator::clock::WALL_SKEW_MS;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Default)]
pub(super) struct Skew {
    apart: AtomicBool,
}

/// What there is to say.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    Apart,
    Together,
}

impl Skew {
    /// Both in Unix milliseconds; 0 from a leader that doesn't say.
    pub(super) fn compare(&self, own_ms: u64, leader_ms: u64) {
        if leader_ms == 0 {
            return;
        }
        let ahead_s = (own_ms as f64 - leader_ms as f64) / 1000.0;
        metrics::gauge!(names::CLOCK_AHEAD_SECONDS).set(ahead_s);
        match self.hear(own_ms, leader_ms) {
            Said::Nothing => {}
            Said::Apart => tracing::warn!(
                ahead_s = ahead_s.round(),
                next = "set the one that is wrong and keep it with chrony or systemd-timesyncd; `quorate doctor` compares them",
                "this machine's clock and the leader's differ"
            ),
            Said::Together => tracing::info!("this machine's clock and the leader's agree again"),
        }
    }

    fn hear(&self, own_ms: u64, leader_ms: u64) -> Said {
        let apart = own_ms.abs_diff(leader_ms) > WALL_SKEW_MS;
        match (self.apart.swap(apart, Ordering::Relaxed), apart) {
            (false, true) => Said::Apart,
            (true, false) => Said::Together,
            _ => Said::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_once_each_way() {
        let skew = Skew::default();
        let day_ms = 86_400_000;
        let heard =
            [0, day_ms, day_ms + 1, 4_000, 5_000].map(|ahead| skew.hear(10 * day_ms + ahead, 10 * day_ms));
        assert_eq!(heard, [Said::Nothing, Said::Apart, Said::Nothing, Said::Together, Said::Nothing]);
        assert_eq!(skew.hear(9 * day_ms, 10 * day_ms), Said::Apart);
    }
}
