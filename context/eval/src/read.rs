//! Recorded calls from files of lines. Input from outside: an error names the line and the field, and no length that
//! a file brings along is believed.

mod calls;
mod openai;

use crate::call::{Call, Flaw};
use std::io::BufRead;

/// Bytes of one line: 4 MiB of text in each of a few segments, or a window of a million tokens, escaped.
pub const LINE_BYTES: usize = 64 << 20;
/// Calls of one file: a team of 64 agents with 500 steps each, three times over.
pub const CALLS: usize = 100_000;

/// The form of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `{"segments":[{"id","owner","kind","text"}],"reader","probe","action"}` a line; `withheld` may name what the
    /// reader did not get, `replaces` what a summary stands for.
    Calls,
    /// `{"messages":[…],"response":{…}}` a line, as OpenAI's chat API has them: one segment a message.
    OpenAi,
}

/// A line that is no recorded call.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("line {line}: {source}")]
    Io { line: usize, source: std::io::Error },
    #[error(
        "line {line}: not JSON of the expected form: {reason}; one recorded call a line, as docs/evaluation.md has it"
    )]
    Json { line: usize, reason: String },
    #[error("line {line}: {flaw}")]
    Flaw { line: usize, flaw: Flaw },
    #[error("line {line}: longer than {LINE_BYTES} bytes; cut the call into shorter ones")]
    TooLong { line: usize },
    #[error("line {line}: more than {CALLS} calls; evaluate a part of the file")]
    TooMany { line: usize },
    #[error("no recorded call in the file; one a line is expected")]
    Nothing,
}

/// Reads all calls of a file. Empty lines are passed over; a call is named after its line, counted from 1.
///
/// # Errors
/// The first line that is not a usable call.
pub fn read(mut lines: impl BufRead, form: Form) -> Result<Vec<Call>, ReadError> {
    let mut calls = Vec::new();
    let mut line = 0;
    while let Some(text) = next_line(&mut lines, line + 1)? {
        line += 1;
        if text.trim_ascii().is_empty() {
            continue;
        }
        if calls.len() == CALLS {
            return Err(ReadError::TooMany { line });
        }
        calls.push(one(&text, line, form)?);
    }
    if calls.is_empty() { Err(ReadError::Nothing) } else { Ok(calls) }
}

fn next_line(lines: &mut impl BufRead, line: usize) -> Result<Option<Vec<u8>>, ReadError> {
    let mut text = Vec::new();
    let mut bounded = std::io::Read::take(lines, LINE_BYTES as u64 + 1);
    let read = bounded.read_until(b'\n', &mut text).map_err(|source| ReadError::Io { line, source })?;
    match read {
        0 => Ok(None),
        _ if text.len() > LINE_BYTES => Err(ReadError::TooLong { line }),
        _ => Ok(Some(text)),
    }
}

fn one(text: &[u8], line: usize, form: Form) -> Result<Call, ReadError> {
    let json = |error: serde_json::Error| ReadError::Json { line, reason: reason(&error) };
    let value: serde_json::Value = serde_json::from_slice(text).map_err(json)?;
    let name = line.to_string();
    let call = match form {
        Form::Calls => calls::call(&value, name),
        Form::OpenAi => openai::call(&value, name),
    };
    let checked = call.and_then(|call| call.check().map(|()| call));
    checked.map_err(|flaw| ReadError::Flaw { line, flaw })
}

/// Without serde's own line number, which is always 1 here.
fn reason(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column", " at column")
}

/// Fields of a JSON value by path, with flaws that name the path.
mod field {
    use crate::call::Flaw;
    use serde_json::Value;

    pub(super) fn array<'v>(value: &'v Value, name: &str) -> Result<&'v [Value], Flaw> {
        match value.get(name) {
            None => Err(Flaw::new(name, "is missing; a list is expected")),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(Flaw::new(name, "must be a list")),
        }
    }

    pub(super) fn text(value: &Value, at: &str, name: &str) -> Result<String, Flaw> {
        let path = if at.is_empty() { name.to_string() } else { format!("{at}.{name}") };
        match value.get(name) {
            None | Some(Value::Null) => Err(Flaw::new(path, "is missing; a text is expected")),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(Flaw::new(path, "must be a text")),
        }
    }

    /// Refuses names that nobody reads, so that a mistyped one is not passed over.
    pub(super) fn only(value: &Value, at: &str, known: &[&str]) -> Result<(), Flaw> {
        let here = if at.is_empty() { "the line" } else { at };
        let Value::Object(fields) = value else {
            return Err(Flaw::new(here, "must be an object"));
        };
        match fields.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => {
                let what = format!("has the unknown field {name:?}; known are {}", known.join(", "));
                Err(Flaw::new(here, what))
            }
            None => Ok(()),
        }
    }
}
