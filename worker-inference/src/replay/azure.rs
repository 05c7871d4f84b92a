//! Azure's traces (`TIMESTAMP,ContextTokens,GeneratedTokens`): when requests arrived and how long they were. They
//! tell nothing of their content, so every request is taken for a chain of its own: no block is ever shared, and
//! what is measured is the queue.

use std::collections::BTreeSet;
use std::io::BufRead;

use super::drive::{Answer, Call, Costs, Drive, Prompt, Setup, WAITING_MAX};
use super::lines::each_line;
use super::{ReplayError, Row};
use crate::blocks::BLOCK_TOKENS;
use crate::scheduler::Limits;

/// Tokens of one request; more is taken for a damaged line.
const REQUEST_MAX: usize = 1 << 18;

/// Sequences that run at the same time.
const RUNNING: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Request {
    at_us: u64,
    context: usize,
    generated: usize,
}

/// A trace in order of arrival.
#[derive(Debug, Clone)]
pub struct Trace {
    requests: Vec<Request>,
}

impl Trace {
    /// Reads one request a line after the heading; `what` names the source in errors.
    pub fn read(from: impl BufRead, what: &str) -> Result<Trace, ReplayError> {
        let mut requests = Vec::new();
        each_line(from, what, |line, text| {
            if line > 1 || !text.starts_with("TIMESTAMP") {
                requests.push(request(text)?);
            }
            Ok(())
        })?;
        if requests.is_empty() {
            return Err(ReplayError::Empty { what: what.to_owned() });
        }
        requests.sort_by_key(|request| request.at_us);
        Ok(Trace { requests })
    }

    /// Replays it with a pool of so many blocks of 16 tokens under LRU and ours.
    pub fn replay(&self, blocks: usize, costs: Costs) -> Result<Vec<Row>, ReplayError> {
        costs.check()?;
        let calls: Vec<Call> = self.requests.iter().map(call).collect();
        let due: BTreeSet<(u64, usize)> =
            self.requests.iter().enumerate().map(|(number, request)| (request.at_us, number)).collect();
        let setup = Setup { limits: limits(), costs, host_blocks: 0, disk_blocks: 0, hints: false };
        ["lru", "ours"]
            .into_iter()
            .map(|name| Drive::new(&calls, due.clone(), setup.clone(), super::pool(name, blocks)?).run(name))
            .collect()
    }

    /// Blocks that let the largest request of the trace run beside others.
    pub fn blocks(&self) -> usize {
        let tokens = |request: &Request| request.context + request.generated;
        let most = self.requests.iter().map(tokens).max().unwrap_or(0);
        most.div_ceil(BLOCK_TOKENS).saturating_mul(16)
    }
}

fn call(request: &Request) -> Call {
    let answer = Answer::Any(request.generated);
    Call { prompt: Prompt::Unique(request.context), answer, then: None, paused_us: None }
}

fn limits() -> Limits {
    Limits { step_tokens: 512, chunk_tokens: 256, running: RUNNING, waiting: WAITING_MAX, window: usize::MAX }
}

fn request(text: &str) -> Result<Request, String> {
    let mut fields = text.split(',');
    let (Some(time), Some(context), Some(generated), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err("it does not have the three fields TIMESTAMP,ContextTokens,GeneratedTokens".to_owned());
    };
    let context = tokens(context)?;
    if context == 0 {
        return Err("a request without context tokens can't run".to_owned());
    }
    Ok(Request { at_us: time_us(time)?, context, generated: tokens(generated)? })
}

fn tokens(text: &str) -> Result<usize, String> {
    let number: usize = text.trim().parse().map_err(|_| format!("{text:?} is not a number of tokens"))?;
    if number > REQUEST_MAX {
        return Err(format!("{number} tokens are more than {REQUEST_MAX}"));
    }
    Ok(number)
}

/// µs since the first of the month 0000-01 of `2023-11-16 18:17:03.9799600`. Only differences matter.
fn time_us(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a time like 2023-11-16 18:17:03.9799600");
    let (date, time) = text.trim().split_once(' ').ok_or_else(bad)?;
    let [year, month, day] = numbers(date, '-').ok_or_else(bad)?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(clock, ':').ok_or_else(bad)?;
    let in_range = (1..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !in_range || fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let micros: u64 = digits.parse().map_err(|_| bad())?;
    let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Ok(seconds * 1_000_000 + micros)
}

fn numbers(text: &str, between: char) -> Option<[u64; 3]> {
    let parts: Vec<u64> = text.split(between).map(|part| part.parse().ok()).collect::<Option<_>>()?;
    parts.try_into().ok()
}

/// Days since a fixed day, by the calendar in use.
fn days(year: u64, month: u64, day: u64) -> u64 {
    // The year begins in March, so that the leap day is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_apart_as_on_the_calendar() {
        let at = |text: &str| time_us(text).expect("a time");
        assert_eq!(at("2024-03-01 00:00:00.5") - at("2024-02-28 23:59:59"), 86_401_500_000);
        assert_eq!(at("2023-03-01 00:00:00") - at("2023-02-28 00:00:00"), 86_400_000_000);
        assert_eq!(at("2024-01-01 00:00:00") - at("2023-12-31 00:00:00"), 86_400_000_000);
        for bad in ["", "2023-11-16", "2023-13-16 00:00:00", "2023-11-16 18:17:xx", "2023-11-16 18:17:03.9a"]
        {
            assert!(time_us(bad).is_err(), "{bad}");
        }
    }
}
