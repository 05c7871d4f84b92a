//! The traces, line by line. They are input from outside: a line that cannot be read is an error with its number.

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use std::io::BufRead;

/// Tokens of one of Mooncake's blocks.
pub(crate) const BLOCK_TOKENS: u64 = 512;
/// More tokens in one request are taken for a damaged line.
const TOKENS_MAX: u64 = 1 << 24;

/// A request of Mooncake's traces: a prompt as a chain of blocks.
#[derive(Clone, Debug, Deserialize)]
pub struct Prompt {
    #[serde(rename = "timestamp")]
    pub at_ms: u64,
    #[serde(rename = "input_length")]
    pub tokens: u64,
    #[serde(rename = "hash_ids")]
    pub blocks: Vec<u64>,
}

impl Prompt {
    /// Tokens of the blocks from `first` on.
    pub fn tokens_from(&self, first: usize) -> u64 {
        self.tokens.saturating_sub(first as u64 * BLOCK_TOKENS)
    }
}

/// A request of Azure's traces: when, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub at_ms: u64,
    pub context_tokens: u64,
    pub generated_tokens: u64,
}

/// Reads `{"timestamp", "input_length", "hash_ids", …}`, one request a line, in order of arrival.
pub fn read_mooncake(from: impl BufRead) -> anyhow::Result<Vec<Prompt>> {
    let mut prompts = Vec::new();
    for (number, line) in (1..).zip(from.lines()) {
        let prompt: Prompt = serde_json::from_str(&line?).with_context(|| format!("line {number}"))?;
        let blocks = prompt.tokens.div_ceil(BLOCK_TOKENS);
        let fits = prompt.tokens <= TOKENS_MAX && blocks == prompt.blocks.len() as u64;
        ensure!(fits, "line {number}: {} tokens, {} blocks", prompt.tokens, prompt.blocks.len());
        prompts.push(prompt);
    }
    ensure!(!prompts.is_empty(), "no requests in it; is it the right file?");
    prompts.sort_by_key(|prompt| prompt.at_ms);
    Ok(prompts)
}

/// Reads `TIMESTAMP,ContextTokens,GeneratedTokens`; times are counted from the first request.
pub fn read_azure(from: impl BufRead) -> anyhow::Result<Vec<Call>> {
    let mut calls = Vec::new();
    for (number, line) in (1..).zip(from.lines()) {
        let line = line?;
        if number > 1 || !line.starts_with("TIMESTAMP") {
            calls.push(call(&line).with_context(|| format!("line {number}: {line:?}"))?);
        }
    }
    calls.sort_by_key(|call| call.at_ms);
    let first_ms = calls.first().context("no requests in it; is it the right file?")?.at_ms;
    calls.iter_mut().for_each(|call| call.at_ms -= first_ms);
    Ok(calls)
}

fn call(line: &str) -> anyhow::Result<Call> {
    let fields: Vec<&str> = line.trim().split(',').collect();
    let &[time, context, generated] = fields.as_slice() else { bail!("it has not three fields") };
    let tokens = |text: &str| {
        let tokens: u64 = text.parse()?;
        ensure!(tokens <= TOKENS_MAX, "{tokens} tokens are more than {TOKENS_MAX}");
        Ok(tokens)
    };
    Ok(Call { at_ms: time_ms(time)?, context_tokens: tokens(context)?, generated_tokens: tokens(generated)? })
}

/// Milliseconds since the first of the month: the trace lies within one.
fn time_ms(text: &str) -> anyhow::Result<u64> {
    let (date, clock) = text.split_once(' ').context("a time like 2023-11-16 18:17:03.97")?;
    let day: u64 = date.rsplit('-').next().context("a date")?.parse()?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let parts: Vec<u64> = clock.split(':').map(str::parse).collect::<Result<_, _>>()?;
    let &[hour, minute, second] = parts.as_slice() else { bail!("a clock like 18:17:03") };
    let millis: String = fraction.chars().chain("000".chars()).take(3).collect();
    Ok(((day * 24 + hour) * 3600 + minute * 60 + second) * 1000 + millis.parse::<u64>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_lines_are_read_and_bad_ones_named() {
        let good = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 23:59:59.97,10,2\n2023-11-17 00:00:01.5,3,4\n";
        let calls = read_azure(good.as_bytes()).unwrap();
        assert_eq!(calls[1], Call { at_ms: 1530, context_tokens: 3, generated_tokens: 4 });
        for bad in [
            "2023-11-16 10:00:00,1",
            "2023-11-16,1,2",
            "2023-11-16 10:00:00,x,2",
            "",
            "2023-11-16 1:1:1,99999999999,1",
        ] {
            assert!(read_azure(bad.as_bytes()).is_err(), "{bad}");
        }
        let line = r#"{"timestamp": 5, "input_length": 600, "output_length": 1, "hash_ids": [1, 2]}"#;
        let prompts = read_mooncake(line.as_bytes()).unwrap();
        assert_eq!((prompts[0].tokens_from(1), prompts[0].tokens_from(2)), (88, 0));
        let short = line.replace("[1, 2]", "[1]");
        assert!(read_mooncake(short.as_bytes()).unwrap_err().to_string().starts_with("line 1"));
    }
}
