//! Answers on tape: one file for each request, so that tests of agents run without a provider.
//!
//! A file is named by the hash of its request's body and holds JSON lines: the request, the answer's head, then the
//! answer's body line by line. Prompts and answers are in it in clear; keys are not: request headers are never written,
//! and every line is searched for traces of the key. Only whole answers are kept. The same request gets the same answer
//! each time.

use crate::answer::{Failure, Reason};
use crate::bounds::CASSETTE_BYTES;
use crate::endpoint::Kind;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use types::Hash;

const FORMAT: u32 = 1;

/// An answer as it came.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Taped {
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    Request {
        format: u32,
        kind: String,
        body: Value,
    },
    Answer {
        content_type: String,
    },
    Line(String),
    /// A line that is no text.
    Base64(String),
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::OpenAi => "openai",
        Kind::Anthropic => "anthropic",
    }
}

/// Where the answer to a request is.
pub(crate) fn file(folder: &Path, kind: Kind, body: &str) -> PathBuf {
    let hash = Hash::of_parts(&[word(kind).as_bytes(), body.as_bytes()]).to_string();
    folder.join(format!("{}.jsonl", &hash[..32.min(hash.len())]))
}

/// Keeps an answer; `scrub` takes secrets out of a text.
pub(crate) fn record(
    file: &Path,
    kind: Kind,
    request: &str,
    taped: &Taped,
    scrub: &dyn Fn(&str) -> String,
) -> Result<(), Failure> {
    let body = serde_json::from_str(&scrub(request)).unwrap_or(Value::Null);
    let head = [
        Entry::Request { format: FORMAT, kind: word(kind).into(), body },
        Entry::Answer { content_type: scrub(&taped.content_type) },
    ];
    let lines = taped.body.split(|byte| *byte == b'\n').map(|line| match std::str::from_utf8(line) {
        Ok(text) => Entry::Line(scrub(text)),
        Err(_) => Entry::Base64(BASE64.encode(line)),
    });
    let mut text = String::new();
    for line in head.into_iter().chain(lines) {
        text.push_str(&serde_json::to_string(&line).map_err(|error| broken(file, &error.to_string()))?);
        text.push('\n');
    }
    write(file, text.as_bytes()).map_err(|error| broken(file, &error.to_string()))
}

/// Whole or not at all, and for this user's eyes only.
fn write(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let unfinished = file.with_extension(format!("{}.tmp", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&unfinished)?.write_all(bytes)?;
    std::fs::rename(&unfinished, file)
}

/// The answer on tape.
pub(crate) fn replay(file: &Path) -> Result<Taped, Failure> {
    let size = match std::fs::metadata(file) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(not_recorded(file)),
        Err(error) => return Err(broken(file, &error.to_string())),
    };
    if size > CASSETTE_BYTES {
        return Err(broken(file, "it is too large"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| broken(file, &error.to_string()))?;
    read(&text).map_err(|why| broken(file, &why))
}

fn read(text: &str) -> Result<Taped, String> {
    let mut content_type = None;
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        match serde_json::from_str(line).map_err(|error| format!("line {}: {error}", number + 1))? {
            Entry::Request { format, .. } if format != FORMAT => {
                return Err(format!("it has format {format}"));
            }
            Entry::Request { .. } => (),
            Entry::Answer { content_type: told } => content_type = Some(told),
            Entry::Line(text) => lines.push(text.into_bytes()),
            Entry::Base64(text) => {
                lines.push(BASE64.decode(text.as_bytes()).map_err(|error| error.to_string())?)
            }
        }
    }
    let content_type = content_type.ok_or("it holds no answer")?;
    Ok(Taped { content_type, body: lines.join(b"\n".as_slice()) })
}

fn not_recorded(file: &Path) -> Failure {
    let message = format!(
        "the cassette has no answer to this request: {} is missing; run once with cassette mode = \"record\", or see what \
         changed in the prompt, the tools or the settings",
        file.display()
    );
    Failure::lasting(Reason::NotRecorded, message)
}

fn broken(file: &Path, why: &str) -> Failure {
    let message =
        format!("the cassette {} cannot be used: {why}; delete it and record again", file.display());
    Failure::lasting(Reason::CassetteBroken, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_come_back_but_secrets_do_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = file(folder.path(), Kind::OpenAi, "{}");
        for body in [b"".as_slice(), b"a\nb", b"a\r\n\r\n", b"\xff\n\xfe\n", b"data: {}\n\ndata: [DONE]\n\n"]
        {
            let taped = Taped { content_type: "text/event-stream".into(), body: body.to_vec() };
            record(&path, Kind::OpenAi, "{}", &taped, &str::to_string).expect("written");
            assert!(replay(&path).expect("readable") == taped, "{body:?}");
        }
        let taped = Taped { content_type: "x".into(), body: b"the secret is out".to_vec() };
        record(&path, Kind::OpenAi, "{\"a\":\"secret\"}", &taped, &|text| text.replace("secret", "[key]"))
            .expect("written");
        let text = std::fs::read_to_string(&path).expect("readable");
        assert!(!text.contains("secret") && text.matches("[key]").count() == 2, "{text}");
    }

    #[test]
    fn what_is_missing_and_what_is_broken_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = file(folder.path(), Kind::Anthropic, "{}");
        assert_ne!(path, file(folder.path(), Kind::OpenAi, "{}"));
        let missing = replay(&path).err().expect("nothing there");
        assert!(
            missing.reason == Reason::NotRecorded && missing.message.contains(&path.display().to_string())
        );
        for wrong in
            ["", "no json", "{\"request\":{\"format\":2,\"kind\":\"x\",\"body\":null}}", "{\"line\":\"x\"}"]
        {
            std::fs::write(&path, wrong).expect("written");
            assert_eq!(replay(&path).err().expect("broken").reason, Reason::CassetteBroken, "{wrong}");
        }
    }
}
