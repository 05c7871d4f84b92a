//! Windows of the calendar. All in UTC, from the wall clock that is in the log entry's stamp.

use crate::keys::Window;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// When the window around a time opens and when it closes, Unix milliseconds.
pub(crate) fn bounds(window: Window, wall_ms: u64) -> (u64, u64) {
    let steps = |length: u64| {
        let opens = wall_ms / length * length;
        (opens, opens.saturating_add(length))
    };
    match window {
        Window::Hour => steps(HOUR_MS),
        Window::Day => steps(DAY_MS),
        Window::Month => month(wall_ms),
        Window::Total => (0, u64::MAX),
    }
}

fn month(wall_ms: u64) -> (u64, u64) {
    let (year, month) = year_and_month(wall_ms / DAY_MS);
    let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    (first_day(year, month).saturating_mul(DAY_MS), first_day(next_year, next_month).saturating_mul(DAY_MS))
}

/// Days from 1970-01-01 to the first of a month of the Gregorian calendar. Years begin in March here, so that the day
/// a leap year has more comes last.
fn first_day(year: u64, month: u64) -> u64 {
    let (year, since_march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year / 4 - year / 100 + year / 400;
    let days = year * 365 + leaps + (since_march * 153 + 2) / 5;
    days - DAYS_TO_1970
}

/// Days from the first of March of the year 0 to 1970-01-01.
const DAYS_TO_1970: u64 = 719_468;

fn year_and_month(days: u64) -> (u64, u64) {
    // A guess that is never late, then forward month by month: at most a year of them.
    let mut year = 1970 + days / 366;
    while first_day(year + 1, 1) <= days {
        year += 1;
    }
    let month = (1..=12).rev().find(|month| first_day(year, *month) <= days);
    (year, month.expect("the first of January is not later"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_those_of_the_calendar() {
        // 2024-02-29T12:00:00Z lies in a leap year's February, 2026-12-31T23:59:59.999Z at a year's end.
        let feb = bounds(Window::Month, 1_709_208_000_000);
        assert_eq!(feb, (1_706_745_600_000, 1_709_251_200_000));
        assert_eq!(bounds(Window::Month, 1_798_761_599_999), (1_796_083_200_000, 1_798_761_600_000));
        assert_eq!(bounds(Window::Month, 0), (0, 31 * DAY_MS));
    }

    #[test]
    fn windows_meet_without_gap_or_overlap() {
        for window in [Window::Hour, Window::Day, Window::Month] {
            let mut at = 1_582_934_400_000; // 2020-02-29
            for _ in 0..100 {
                let (opens, closes) = bounds(window, at);
                assert!(opens <= at && at < closes);
                assert_eq!(bounds(window, closes).0, closes);
                assert_eq!(bounds(window, closes - 1), (opens, closes));
                at = closes;
            }
        }
    }
}
