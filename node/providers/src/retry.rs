//! When a refused call is made again. Pure: time and randomness are arguments.

use crate::answer::{Failure, Reason};
use crate::bounds::{
    BACKOFF_FIRST_MS, BACKOFF_MOST_MS, RETRY_AFTER_MOST_MS, RETRY_AFTER_WAITED_MS, RETRY_SAVED_MILLI,
    RETRY_SHARE_MILLI, RETRY_START_MILLI, WIRE_ATTEMPTS,
};
use std::time::{Duration, SystemTime};

const ONE_RETRY_MILLI: u64 = 1000;

/// `Retry-After`: seconds or a date. A date that has passed is now; what is neither says nothing.
pub fn retry_after_ms(value: &str, now: SystemTime) -> Option<u64> {
    let value = value.trim();
    let ms = match value.parse::<f64>() {
        // Some servers send fractions. NaN and negatives are no time.
        Ok(seconds) if seconds >= 0.0 => (seconds * 1000.0).ceil().min(RETRY_AFTER_MOST_MS as f64) as u64,
        Ok(_) => return None,
        Err(_) => {
            let until = httpdate::parse_http_date(value).ok()?;
            let wait = until.duration_since(now).unwrap_or(Duration::ZERO);
            u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
        }
    };
    Some(ms.min(RETRY_AFTER_MOST_MS))
}

/// Full jitter: anything between nothing and a bound that doubles. `attempt` is 1 after the first failure.
pub fn backoff_ms(attempt: u32, random: u64) -> u64 {
    let doubled = BACKOFF_FIRST_MS.saturating_mul(1 << attempt.saturating_sub(1).min(20));
    random % (doubled.min(BACKOFF_MOST_MS) + 1)
}

/// How much of the load may be retries. Each first attempt earns a tenth of one.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    saved_milli: u64,
}

impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget { saved_milli: RETRY_START_MILLI }
    }
}

impl RetryBudget {
    /// A call is made for the first time.
    pub fn earn(&mut self) {
        self.saved_milli = (self.saved_milli + RETRY_SHARE_MILLI).min(RETRY_SAVED_MILLI);
    }

    /// A retry is wanted; false: there have been enough.
    pub fn spend(&mut self) -> bool {
        let left = self.saved_milli.checked_sub(ONE_RETRY_MILLI);
        self.saved_milli = left.unwrap_or(self.saved_milli);
        left.is_some()
    }
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another attempt after so long.
    Wait(u64),
    /// The failure is told.
    GiveUp,
}

/// Decides after a failure. `left_ms` is the time until the deadline.
pub fn next(failure: &Failure, left_ms: u64, random: u64, budget: &mut RetryBudget) -> Next {
    let attempts = failure.wire_attempts;
    if !is_refused(failure) || attempts >= WIRE_ATTEMPTS {
        return Next::GiveUp;
    }
    let jitter = backoff_ms(attempts.max(1), random);
    // Whoever was told a time comes after it, not at it: all others were told the same.
    let wait = failure.retry_after_ms.map_or(jitter, |after| after.saturating_add(jitter.min(after / 4)));
    if wait > RETRY_AFTER_WAITED_MS || wait >= left_ms || !budget.spend() {
        return Next::GiveUp;
    }
    Next::Wait(wait)
}

/// The provider was asked, or could not be, and did not work. Who found it closed on our side comes back later.
fn is_refused(failure: &Failure) -> bool {
    let refused = matches!(
        failure.reason,
        Reason::RateLimited | Reason::Overloaded | Reason::ProviderError | Reason::Unreachable
    );
    refused && failure.retriable && !failure.unknown
}

/// Numbers that look random: SplitMix64. Seeded from outside, so that tests repeat.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn both_forms_of_the_header_and_nonsense() {
        let now = at(784_111_777);
        for (value, expected) in [
            ("3", Some(3000)),
            (" 0 ", Some(0)),
            ("0.25", Some(250)),
            ("1e99", Some(RETRY_AFTER_MOST_MS)),
            ("-1", None),
            ("NaN", None),
            ("soon", None),
            ("", None),
            ("Sun, 06 Nov 1994 08:49:40 GMT", Some(3000)),
            ("Sunday, 06-Nov-94 08:49:40 GMT", Some(3000)),
            ("Sun Nov  6 08:49:40 1994", Some(3000)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("Mon, 06 Nov 2094 08:49:00 GMT", None),
            ("Sat, 06 Nov 2094 08:49:00 GMT", Some(RETRY_AFTER_MOST_MS)),
        ] {
            assert_eq!(retry_after_ms(value, now), expected, "{value:?}");
        }
    }

    #[test]
    fn jitter_fills_the_whole_bound_which_doubles_and_is_capped() {
        let mut random = Random::new(1);
        for (attempt, bound) in [(1, 500), (2, 1000), (3, 2000), (7, 20_000), (60, 20_000)] {
            let waits: Vec<u64> = (0..2000).map(|_| backoff_ms(attempt, random.draw())).collect();
            let (least, most) = (waits.iter().min().expect("some"), waits.iter().max().expect("some"));
            assert!(
                *most <= bound && *most > bound * 95 / 100 && *least < bound * 5 / 100,
                "{attempt}: {least} {most}"
            );
        }
    }

    #[test]
    fn ten_percent_and_a_small_start() {
        let mut budget = RetryBudget::default();
        let mut retried = 0;
        for _ in 0..10_000 {
            budget.earn();
            // Everything fails, everybody wants to try again as often as it goes.
            while budget.spend() {
                retried += 1;
            }
        }
        assert_eq!(retried, 1000 + RETRY_START_MILLI / 1000);
        for _ in 0..10_000 {
            budget.earn();
        }
        let saved = std::iter::from_fn(|| budget.spend().then_some(())).count();
        assert_eq!(saved as u64, RETRY_SAVED_MILLI / 1000);
    }

    fn failed(attempts: u32, after: Option<u64>) -> Failure {
        Failure { wire_attempts: attempts, ..Failure::passing(Reason::RateLimited, "") }.after(after)
    }

    fn decided(failure: &Failure, left_ms: u64) -> Next {
        next(failure, left_ms, 499, &mut RetryBudget::default())
    }

    #[test]
    fn what_is_tried_again() {
        assert_eq!(decided(&failed(1, None), 60_000), Next::Wait(499));
        assert_eq!(decided(&failed(1, Some(4000)), 60_000), Next::Wait(4499));
        assert_eq!(
            decided(&failed(1, Some(100)), 60_000),
            Next::Wait(125),
            "jitter stays small beside a short time"
        );
        assert_eq!(decided(&failed(1, Some(4000)), 4000), Next::GiveUp, "the deadline comes first");
        assert_eq!(decided(&failed(1, Some(31_000)), u64::MAX), Next::GiveUp, "too long to hold a call");
        assert_eq!(decided(&failed(WIRE_ATTEMPTS, None), 60_000), Next::GiveUp);
        let lasting = Failure { wire_attempts: 1, ..Failure::lasting(Reason::KeyRefused, "") };
        assert_eq!(decided(&lasting, 60_000), Next::GiveUp);
        let unknown = Failure { wire_attempts: 1, ..Failure::unknown(Reason::Cut, "") };
        assert_eq!(decided(&unknown, 60_000), Next::GiveUp, "it may have been paid for");
        let open = Failure::passing(Reason::CircuitOpen, "").after(Some(10));
        assert_eq!(decided(&open, 60_000), Next::GiveUp, "nobody was asked");
    }

    #[test]
    fn an_empty_budget_ends_it() {
        let mut budget = RetryBudget { saved_milli: 999 };
        assert_eq!(next(&failed(1, None), 60_000, 0, &mut budget), Next::GiveUp);
        assert_eq!(budget.saved_milli, 999);
    }
}
