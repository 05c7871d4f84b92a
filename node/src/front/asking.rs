//! What a request says of itself before it is read in earnest: the model it means, and how it begins.

use crate::openai::Failure;
use crate::openai::told::Kind;
use serde::Deserialize;
use serde_json::value::RawValue;
use types::{Hash, ProjectName};

/// Bytes of a completion's prompt between two marks.
const MARK_BYTES: usize = 1024;
/// Beginnings of one request that are remembered: the longest conversations are found by their last messages anyway.
const MARKS_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asking {
    pub(super) model: Option<String>,
    /// Names of its beginnings, from the shortest on: two requests with a mark in common begin alike up to there.
    pub(super) marks: Vec<Hash>,
}

#[derive(Deserialize)]
struct Fields<'a> {
    model: Option<String>,
    #[serde(borrow)]
    messages: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    prompt: Option<&'a RawValue>,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
}

impl Asking {
    /// # Errors
    /// What is no JSON object with these fields.
    pub(super) fn read(kind: Kind, body: &[u8], project: &ProjectName) -> Result<Asking, Failure> {
        let fields: Fields<'_> = crate::openai::body::from_json(body)?;
        let model = fields.model.clone().unwrap_or_default();
        let tools = fields.tools.map_or("", RawValue::get);
        let seed = Hash::of_parts(&[project.as_str().as_bytes(), model.as_bytes(), tools.as_bytes()]);
        let parts: Vec<&[u8]> = match kind {
            Kind::Chat => fields.messages.iter().flatten().map(|message| message.get().as_bytes()).collect(),
            Kind::Completion => {
                fields.prompt.map_or(&b""[..], |prompt| prompt.get().as_bytes()).chunks(MARK_BYTES).collect()
            }
        };
        Ok(Asking { model: fields.model, marks: marks(seed, &parts) })
    }
}

/// A chain of hashes; of long ones the last.
fn marks(seed: Hash, parts: &[&[u8]]) -> Vec<Hash> {
    let chain = parts.iter().scan(seed, |before, part| {
        *before = Hash::of_parts(&[&before.0, part]);
        Some(*before)
    });
    let all: Vec<Hash> = chain.collect();
    match all.len() > MARKS_MAX {
        // The first message is what strangers share.
        true => [&all[..1], &all[all.len() - MARKS_MAX + 1..]].concat(),
        false => all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Asking {
        Asking::read(Kind::Chat, body.as_bytes(), &ProjectName::default()).unwrap()
    }

    #[test]
    fn requests_that_begin_alike_have_marks_in_common() {
        let first =
            read(r#"{"model": "m", "messages": [{"role": "system"}, {"role": "user", "content": "a"}]}"#);
        let longer = read(
            r#"{"messages": [{"role": "system"}, {"role": "user", "content": "a"}, {"role": "assistant"}], "model": "m"}"#,
        );
        let other =
            read(r#"{"model": "m", "messages": [{"role": "system"}, {"role": "user", "content": "b"}]}"#);
        let model = read(r#"{"model": "n", "messages": [{"role": "system"}]}"#);
        assert_eq!((first.model.as_deref(), first.marks.len(), longer.marks.len()), (Some("m"), 2, 3));
        assert_eq!(first.marks[..], longer.marks[..2]);
        assert_eq!(first.marks[0], other.marks[0]);
        assert_ne!(first.marks[1], other.marks[1]);
        assert_ne!(first.marks[0], model.marks[0]);
        let elsewhere = ProjectName::parse("b").unwrap();
        let theirs =
            Asking::read(Kind::Chat, br#"{"model": "m", "messages": [{"role": "system"}]}"#, &elsewhere);
        assert_ne!(theirs.unwrap().marks[0], first.marks[0], "projects share nothing");
    }

    #[test]
    fn prompts_are_cut_and_long_ones_have_bounded_marks() {
        let long = format!(r#"{{"model": "m", "prompt": "{}"}}"#, "x".repeat(200 * MARK_BYTES));
        let asking = Asking::read(Kind::Completion, long.as_bytes(), &ProjectName::default()).unwrap();
        assert_eq!(asking.marks.len(), MARKS_MAX);
        assert!(Asking::read(Kind::Chat, b"[1", &ProjectName::default()).is_err());
        assert_eq!(read("{}"), Asking { model: None, marks: vec![] });
    }
}
