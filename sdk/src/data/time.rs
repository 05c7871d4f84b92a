//! A moment, shown as people and programs both read it.

use serde::{Serialize, Serializer};
use std::fmt;

/// Milliseconds since 1970 in UTC. Shown and serialised as RFC 3339: `2026-03-01T12:00:00.250Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(pub u64);

impl Time {
    /// On the wire zero means "not set".
    pub(crate) fn set(ms: u64) -> Option<Time> {
        (ms != 0).then_some(Time(ms))
    }
}

/// Year, month and day of a day number since 1970-01-01, by the Gregorian calendar counted from March, so that the
/// leap day is the last of its year.
fn date(day: u64) -> (u64, u64, u64) {
    let days = day + 719_468; // from 0000-03-01
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, of_year - (153 * from_march + 2) / 5 + 1)
}

/// The day number of a date, the same way back.
fn day_number(year: u64, month: u64, day: u64) -> u64 {
    let (year, from_march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year / 4 - year / 100 + year / 400;
    365 * year + leaps + (153 * from_march + 2) / 5 + day - 1 - 719_468
}

impl std::str::FromStr for Time {
    type Err = String;

    /// Reads `2026-03-01T12:00:00Z`, with or without parts of a second, and `2026-03-01`. UTC only.
    fn from_str(text: &str) -> Result<Time, String> {
        let wrong =
            || format!("{text:?} is not a time: write it like 2026-03-01T12:00:00Z or 2026-03-01 (UTC)");
        let (date_text, clock) = text.split_once('T').unwrap_or((text, "00:00:00Z"));
        let numbers = |text: &str, split: char| -> Option<Vec<u64>> {
            let part = |part: &str| part.parse().ok().filter(|_| part.bytes().all(|b| b.is_ascii_digit()));
            text.split(split).map(part).collect()
        };
        let clock = clock.strip_suffix('Z').ok_or_else(wrong)?;
        let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
        let fraction_ms: u64 =
            format!("{fraction:0<3}").get(..3).and_then(|ms| ms.parse().ok()).ok_or_else(wrong)?;
        let days = numbers(date_text, '-').ok_or_else(wrong)?;
        let clock = numbers(clock, ':').ok_or_else(wrong)?;
        let (&[year, month, day], &[hour, minute, second]) = (days.as_slice(), clock.as_slice()) else {
            return Err(wrong());
        };
        if !(1970..=9999).contains(&year)
            || !(1..=12).contains(&month)
            || hour > 23
            || minute > 59
            || second > 59
        {
            return Err(wrong());
        }
        // A day that the month has not would come back as another date.
        let number = day_number(year, month, day.max(1));
        if date(number) != (year, month, day) {
            return Err(wrong());
        }
        Ok(Time(((number * 24 + hour) * 60 + minute) * 60_000 + second * 1_000 + fraction_ms))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ms) = (self.0 / 1_000, self.0 % 1_000);
        let (year, month, day) = date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::Time;

    #[test]
    fn moments_read_as_dates() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (ms, text) in cases {
            assert_eq!(Time(ms).to_string(), text);
            assert_eq!(text.parse(), Ok(Time(ms)));
        }
        assert_eq!("2000-02-29".parse(), Ok(Time(951_782_400_000)));
        assert_eq!("2000-02-29T00:00:00.5Z".parse(), Ok(Time(951_782_400_500)));
        for wrong in [
            "",
            "2001-02-29",
            "2001-13-01",
            "2001-01-00",
            "2001-01-01T00:00:00",
            "2001-01-01T24:00:00Z",
            "soon",
        ] {
            assert!(wrong.parse::<Time>().is_err(), "{wrong}");
        }
        assert!(!Time(u64::MAX).to_string().is_empty(), "any number is shown, none panics");
    }
}
