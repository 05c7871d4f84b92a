//! Values as people write them on a command line.

use quorate_sdk::Class;
use std::time::Duration;

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

/// `KEY=NUMBER` or `KEY=none`.
pub(crate) fn limit(text: &str) -> Result<(String, Option<u64>), String> {
    let (key, value) = pair(text)?;
    if value == "none" {
        return Ok((key, None));
    }
    let number = value.replace('_', "").parse();
    number.map(|limit| (key, Some(limit))).map_err(|_| {
        format!("{value:?} is not a limit: write a whole number such as 0 or 100_000, or `none` to take the limit away")
    })
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
        for bad in ["running", "=3", "running=", "running=-1", "running=2.5"] {
            assert!(limit(bad).is_err(), "{bad}");
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
