//! When a schedule is due. The ledger holds times only; the calendar is read here, in UTC.

use chrono::{DateTime, Utc};
use croner::Cron;
use std::str::FromStr;

/// The first time after `after_ms` (Unix milliseconds) that a pattern of minute, hour, day of the month, month and day
/// of the week names; `None` when it never comes.
///
/// # Errors
/// What is wrong with the pattern, and how one looks.
pub fn next_time(cron: &str, after_ms: u64) -> Result<Option<u64>, String> {
    let fields = cron.split_whitespace().count();
    let is_word = cron.starts_with('@');
    if fields != 5 && !is_word {
        return Err(format!(
            "{cron:?} has {fields} fields, a pattern has five, like \"0 6 * * MON-FRI\" (UTC)"
        ));
    }
    let pattern = Cron::from_str(cron).map_err(|error| {
        format!("{cron:?} is no pattern: {error}; write one like \"0 6 * * MON-FRI\" (UTC)")
    })?;
    let after = i64::try_from(after_ms).ok().and_then(DateTime::<Utc>::from_timestamp_millis);
    let after = after.ok_or_else(|| format!("{after_ms} is no time of our calendar"))?;
    let next = pattern.find_next_occurrence(&after, false).ok();
    Ok(next.and_then(|next| u64::try_from(next.timestamp_millis()).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-26 12:00:00 UTC, a Thursday.
    const NOON_MS: u64 = 1_795_694_400_000;
    const HOUR_MS: u64 = 3_600_000;

    #[test]
    fn the_next_time_is_after_the_last() {
        assert_eq!(next_time("0 * * * *", NOON_MS), Ok(Some(NOON_MS + HOUR_MS)));
        assert_eq!(next_time("0 * * * *", NOON_MS - 1), Ok(Some(NOON_MS)));
        assert_eq!(next_time("30 6 * * MON-FRI", NOON_MS), Ok(Some(NOON_MS + 18 * HOUR_MS + HOUR_MS / 2)));
        assert_eq!(next_time("0 0 1 1 *", NOON_MS).unwrap().map(|ms| ms > NOON_MS), Some(true));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["", "* * * *", "61 * * * *", "* * * * * *", "every day at six o", "0 6 * * NEVER"] {
            assert!(next_time(bad, NOON_MS).is_err(), "{bad:?}");
        }
        assert_eq!(next_time("0 0 30 2 *", NOON_MS), Ok(None), "a day that never comes");
    }
}
