//! Amounts of limits and prices, with the units that fit their key.

/// A unit's name, and how many of the key's own units it is.
type Unit = (&'static str, u128);

const BYTES: [Unit; 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];
const MONEY: [Unit; 3] = [("usd", 1_000_000), ("cent", 10_000), ("microusd", 1)];
const CPU: [Unit; 2] = [("cpu", 1_000), ("m", 1)];
const COUNTS: [Unit; 3] = [("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)];

/// The units of a quota key.
fn units(key: &str) -> &'static [Unit] {
    let base = key.split(':').next().unwrap_or_default();
    match base {
        _ if base.contains("bytes") => &BYTES,
        _ if base.starts_with("micro_usd") => &MONEY,
        _ if base.starts_with("cpu_milli") => &CPU,
        _ if base.contains("tokens") || base.starts_with("kv_block_seconds") => &COUNTS,
        _ => &[],
    }
}

/// Micro-dollars: `3_000_000`, `3usd`, `0.25usd`.
pub(crate) fn money(text: &str) -> Result<u64, String> {
    amount(text, &MONEY)
}

/// The amount of a quota key: `4GiB` of `memory_bytes`, `2.5usd` of `micro_usd_day`, `1_000` of all.
pub(crate) fn of_key(key: &str, text: &str) -> Result<u64, String> {
    amount(text, units(key))
}

fn amount(text: &str, units: &[Unit]) -> Result<u64, String> {
    let refuse = || format!("{text:?} is not an amount: {}", example(units));
    let of_number = |c: char| c.is_ascii_digit() || matches!(c, '_' | '.');
    let (number, unit) = text.split_at(text.find(|c| !of_number(c)).unwrap_or(text.len()));
    if number.is_empty() {
        return Err(refuse());
    }
    let factor = match units.iter().find(|(name, _)| *name == unit) {
        _ if unit.is_empty() => 1,
        Some((_, factor)) => *factor,
        None => return Err(format!("{text:?} has an unknown unit {unit:?}: {}", example(units))),
    };
    let (parts, scale) = decimal(&number.replace('_', "")).ok_or_else(refuse)?;
    let scaled = parts.checked_mul(factor).ok_or_else(refuse)?;
    if scaled % scale != 0 {
        return Err(format!("{text:?} is no whole amount of its key's own unit: {}", example(units)));
    }
    u64::try_from(scaled / scale).map_err(|_| format!("{text:?} is too large: at most {}", u64::MAX))
}

/// `2.5` as 25 tenths.
fn decimal(number: &str) -> Option<(u128, u128)> {
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if (1..=9).contains(&fraction.len()) => (whole, fraction),
        Some(_) => return None,
        None => (number, ""),
    };
    let scale = 10u128.pow(fraction.len() as u32);
    let parse = |digits: &str| digits.parse::<u128>().ok();
    let parts = parse(whole)?.checked_mul(scale)?.checked_add(parse(&format!("0{fraction}"))?)?;
    Some((parts, scale))
}

fn example(units: &[Unit]) -> String {
    let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
    match names.is_empty() {
        true => "write a whole number such as 0 or 100_000".to_string(),
        false => format!("write a number such as 100_000, or one with {}", names.join(", ")),
    }
}

/// `2.500000 usd` of micro-dollars.
pub(crate) fn usd(micro_usd: u64) -> String {
    format!("{}.{:06} usd", micro_usd / 1_000_000, micro_usd % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_the_units_of_their_key() {
        let cases = [
            ("running", "1_000", 1_000),
            ("memory_bytes", "4GiB", 4 << 30),
            ("memory_bytes_guaranteed", "1.5MiB", 3 << 19),
            ("storage_bytes", "2GB", 2_000_000_000),
            ("micro_usd_total", "2.5usd", 2_500_000),
            ("micro_usd_day", "0.000001usd", 1),
            ("micro_usd_day", "7", 7),
            ("cpu_milli", "2cpu", 2_000),
            ("cpu_milli_borrow", "250m", 250),
            ("tokens_day", "60k", 60_000),
            ("tokens_total", "18446744073709551615", u64::MAX),
            ("connections:api.example.com", "3", 3),
        ];
        for (key, text, amount) in cases {
            assert_eq!(of_key(key, text), Ok(amount), "{key}={text}");
        }
        assert_eq!(usd(2_500_000), "2.500000 usd");
    }

    #[test]
    fn wrong_amounts_say_what_is_right() {
        let wrong = [
            ("running", "-1", "whole number"),
            ("running", "2.5", "no whole amount"),
            ("running", "4GiB", "unknown unit \"GiB\": write a whole number"),
            ("memory_bytes", "4GiBs", "KiB"),
            ("memory_bytes", "", "is not an amount"),
            ("memory_bytes", "0.3B", "no whole amount"),
            ("micro_usd_total", "2.5eur", "unknown unit \"eur\""),
            ("micro_usd_total", "0.0000001usd", "no whole amount"),
            ("tokens_total", "1.2.3k", "is not an amount"),
            ("tokens_total", "1.k", "is not an amount"),
            ("tokens_total", "99999999999999999G", "too large"),
            ("tokens_total", "99999999999999999999999999999999999999999", "is not an amount"),
            ("running", "٣", "is not an amount"),
        ];
        for (key, text, words) in wrong {
            let said = of_key(key, text).expect_err(text);
            assert!(said.contains(words), "{key}={text}: {said}");
        }
    }
}
