//! What templates expect of their renderer besides plain Jinja: the names that Python's renderers define.

use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Value};

pub(super) fn register(environment: &mut Environment<'_>) {
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
    environment.add_filter("tojson", to_json);
    environment.add_test("iterable", is_iterable);
}

/// `strftime_now`, with a time that the caller gives: templates get no clock.
pub(super) fn strftime_now(now_unix_s: i64) -> Value {
    Value::from_function(move |format: &str| strftime(format, now_unix_s))
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// In Python a text can be iterated and `None` can't; templates that test for it rely on that.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// JSON as Python's `json.dumps` writes it inside these templates: with spaces, not escaped for HTML.
fn to_json(value: &Value, indent: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let _python_has_it_and_we_always_keep_unicode: Option<bool> = kwargs.get("ensure_ascii")?;
    let json = minijinja::filters::tojson(value, indent, kwargs)?;
    Ok(Value::from_safe_string(without_html_escapes(json.as_str().unwrap_or_default())))
}

/// Undoes the four escapes that the filter makes for HTML; all other escapes stay.
fn without_html_escapes(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let plain = [("\\u003c", "<"), ("\\u003e", ">"), ("\\u0026", "&"), ("\\u0027", "'")];
        match plain.iter().find(|(escape, _)| rest[at..].starts_with(escape)) {
            Some((escape, character)) => {
                text.push_str(character);
                rest = &rest[at + escape.len()..];
            }
            None => {
                let end = (at + 2).min(rest.len());
                text.push_str(&rest[at..end]);
                rest = &rest[end..];
            }
        }
    }
    text + rest
}

const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Seconds since 1970 (UTC) in the manner of C's `strftime`; a letter that is not known stays as it is.
fn strftime(format: &str, unix_s: i64) -> String {
    let (day, second) = (unix_s.div_euclid(86_400), unix_s.rem_euclid(86_400));
    let (year, month, date) = civil(day);
    let month_name = MONTHS[month as usize - 1];
    let day_name = DAYS[day.rem_euclid(7) as usize];
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('Y') => text += &format!("{year}"),
            Some('y') => text += &format!("{:02}", year.rem_euclid(100)),
            Some('m') => text += &format!("{month:02}"),
            Some('d') => text += &format!("{date:02}"),
            Some('e') => text += &format!("{date:2}"),
            Some('B') => text += month_name,
            Some('b') => text += &month_name[..3],
            Some('A') => text += day_name,
            Some('a') => text += &day_name[..3],
            Some('H') => text += &format!("{:02}", second / 3600),
            Some('M') => text += &format!("{:02}", second / 60 % 60),
            Some('S') => text += &format!("{:02}", second % 60),
            Some('F') => text += &format!("{year}-{month:02}-{date:02}"),
            Some('-') => text += &strftime_bare(letters.next(), month, date),
            Some('%') => text.push('%'),
            Some(other) => text.extend(['%', other]),
            None => text.push('%'),
        }
    }
    text
}

/// `%-d` and `%-m`: without the leading zero.
fn strftime_bare(letter: Option<char>, month: i64, date: i64) -> String {
    match letter {
        Some('d') => date.to_string(),
        Some('m') => month.to_string(),
        Some(other) => format!("%-{other}"),
        None => "%-".into(),
    }
}

/// Year, month (1 to 12) and day of the month of a day number, 0 being 1970-01-01, in the Gregorian calendar.
fn civil(day: i64) -> (i64, i64, i64) {
    // Counted from 0000-03-01, so that the leap day is the last of its year; 146,097 days are 400 years.
    let day = day.saturating_add(719_468);
    let (era, day_of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let date = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01 Thu 00:00:00"),
            (951_782_400, "2000-02-29 Tue 00:00:00"),
            (1_721_952_000, "2024-07-26 Fri 00:00:00"),
            (4_107_542_399, "2100-02-28 Sun 23:59:59"),
            (4_107_542_400, "2100-03-01 Mon 00:00:00"),
            (-1, "1969-12-31 Wed 23:59:59"),
        ];
        for (unix_s, expected) in cases {
            assert_eq!(strftime("%Y-%m-%d %a %H:%M:%S", unix_s), expected);
        }
        assert_eq!(
            strftime("%d %b %Y|%-d %B|%A|%y%%|%Q|%", 1_721_952_000),
            "26 Jul 2024|26 July|Friday|24%|%Q|%"
        );
        for unix_s in [i64::MIN, i64::MAX] {
            assert!(!strftime("%F", unix_s).is_empty());
        }
    }
}
