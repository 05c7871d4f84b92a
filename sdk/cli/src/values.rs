//! Values as people write them on a command line.

mod amount;

pub(crate) use amount::usd;

use crate::failure::{Failure, failed};
use quorate_sdk::{Class, Code, Time};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// `500ms`, `30s`, `5m`, `2h`, `1d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("{text:?} is not a time: write it like 500ms, 30s, 5m, 2h or 1d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(refuse)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refuse())?;
    let (_, ms) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refuse)?;
    number.checked_mul(*ms).filter(|ms| *ms > 0).map(Duration::from_millis).ok_or_else(refuse)
}

/// `KEY=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

/// `KEY=AMOUNT` or `KEY=none`; the amount may have a unit that fits the key.
pub(crate) fn limit(text: &str) -> Result<(String, Option<u64>), String> {
    let (key, value) = pair(text)?;
    if value == "none" {
        return Ok((key, None));
    }
    match amount::of_key(&key, &value) {
        Ok(limit) => Ok((key, Some(limit))),
        Err(why) => Err(format!("{key}: {why}; `none` takes the limit away")),
    }
}

/// `KEY=AMOUNT`.
pub(crate) fn own_limit(text: &str) -> Result<(String, u64), String> {
    let (key, value) = pair(text)?;
    amount::of_key(&key, &value).map(|limit| (key.clone(), limit)).map_err(|why| format!("{key}: {why}"))
}

/// What a price is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PriceOf {
    Input,
    Cached,
    Output,
}

/// `input=3usd`.
pub(crate) fn price(text: &str) -> Result<(PriceOf, u64), String> {
    let (key, value) = pair(text)?;
    let of = match key.as_str() {
        "input" => PriceOf::Input,
        "cached" => PriceOf::Cached,
        "output" => PriceOf::Output,
        _ => return Err(format!("{key:?} has no price: it is one of input, cached, output")),
    };
    amount::money(&value).map(|amount| (of, amount)).map_err(|why| format!("{key}: {why}"))
}

/// A moment: so long from now (or before), or a time of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    In(Duration),
    At(Time),
}

/// `30m` or `2026-03-01T12:00:00Z`.
pub(crate) fn when(text: &str) -> Result<When, String> {
    duration(text)
        .map(When::In)
        .or_else(|_| text.parse().map(When::At))
        .map_err(|_: String| format!("{text:?} is no time: write it like 30m, 7d or 2026-03-01T12:00:00Z"))
}

impl When {
    pub(crate) fn until_ms(self) -> Result<u64, Failure> {
        match self {
            When::In(wait) => Ok(now_ms()?.saturating_add(wait.as_millis() as u64)),
            When::At(time) => Ok(time.0),
        }
    }

    pub(crate) fn ago_ms(self) -> Result<u64, Failure> {
        match self {
            When::In(ago) => Ok(now_ms()?.saturating_sub(ago.as_millis() as u64)),
            When::At(time) => Ok(time.0),
        }
    }
}

/// Unix milliseconds.
pub(crate) fn now_ms() -> Result<u64, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let wrong = |_| failed(Code::Internal, "CLOCK", "this machine's clock is before 1970", "set the clock");
    Ok(u64::try_from(now.map_err(wrong)?.as_millis()).unwrap_or(u64::MAX))
}

/// `3m 20s`, `2h 5m`, `4d 1h`.
pub(crate) fn age(ms: u64) -> String {
    let seconds = ms / 1_000;
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let at = units.iter().position(|(length, _)| seconds >= *length).unwrap_or(3);
    let (length, name) = units[at];
    let rest = units.get(at + 1).map(|(next, name)| (seconds % length / next, name)).filter(|(n, _)| *n > 0);
    let rest = rest.map(|(n, name)| format!(" {n}{name}")).unwrap_or_default();
    format!("{}{name}{rest}", seconds / length)
}

pub(crate) fn class(text: &str) -> Result<Class, String> {
    let names: Vec<&str> = Class::ALL.iter().map(|class| class.name()).collect();
    Class::parse(text).ok_or_else(|| format!("{text:?} is not a class: it is one of {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in
            ["", "5", "s", "5 s", "0s", "-1s", "1y", "99999999999999999999d", "18446744073709551615d", "٣s"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_are_numbers_or_none() {
        assert_eq!(limit("running=0"), Ok(("running".into(), Some(0))));
        assert_eq!(limit("tokens_total=1_000"), Ok(("tokens_total".into(), Some(1000))));
        assert_eq!(limit("running=none"), Ok(("running".into(), None)));
        assert_eq!(limit("micro_usd_day=2.5usd"), Ok(("micro_usd_day".into(), Some(2_500_000))));
        for bad in ["running", "=3", "running=", "running=-1", "running=2.5", "memory_bytes=4apples"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
        assert!(own_limit("tokens_total=none").is_err(), "a task's own limit is one");
        assert_eq!(own_limit("tokens_total=2k"), Ok(("tokens_total".into(), 2_000)));
    }

    #[test]
    fn prices_and_moments() {
        assert_eq!(price("input=3usd"), Ok((PriceOf::Input, 3_000_000)));
        assert!(price("speed=3usd").unwrap_err().contains("cached"));
        assert_eq!(when("30m"), Ok(When::In(Duration::from_secs(1800))));
        assert_eq!(when("2000-02-29T00:00:00Z"), Ok(When::At(Time(951_782_400_000))));
        assert!(when("soon").unwrap_err().contains("7d"));
        assert_eq!(When::At(Time(7)).ago_ms().unwrap(), 7);
        for (ms, text) in
            [(0, "0s"), (59_999, "59s"), (200_000, "3m 20s"), (7_500_000, "2h 5m"), (86_400_000, "1d")]
        {
            assert_eq!(age(ms), text);
        }
    }

    #[test]
    fn classes_and_labels() {
        assert_eq!(class("best-effort"), Ok(Class::BestEffort));
        assert!(class("urgent").unwrap_err().contains("interactive"));
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(pair("a").is_err());
    }
}
