//! Bodies of requests: bytes in, checked settings out. Pure, so that a fuzzer can call it.
//!
//! Fields that nobody knows are ignored, as OpenAI's clients expect. Fields that OpenAI knows and that would change
//! the answer are honoured or refused by name, never ignored.

mod chat;
mod pieces;
mod settings;

pub use chat::{Chat, Said, Tool, ToolCall, ToolChoice};
pub use pieces::Prompt;
pub use settings::{Form, Settings};

use super::error::Failure;
use serde::Deserialize;

/// Prompts of one request.
pub const PROMPTS_MAX: usize = 64;

/// A checked body of `POST /v1/completions`.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    pub model: Option<String>,
    /// At least one; each has its own answer.
    pub prompts: Vec<Prompt>,
    pub settings: Settings,
}

#[derive(Deserialize)]
struct CompletionFields {
    model: Option<String>,
    prompt: Option<pieces::Prompts>,
    suffix: Option<String>,
    echo: Option<bool>,
    logprobs: Option<u32>,
    best_of: Option<u32>,
}

impl Completion {
    /// Reads and checks a body.
    pub fn parse(body: &[u8]) -> Result<Completion, Failure> {
        let fields: CompletionFields = from_json(body)?;
        let mut settings = Settings::parse(body)?;
        if fields.echo == Some(true) {
            return Err(Failure::unsupported("echo", "the prompt is not echoed; put it in front yourself"));
        }
        if fields.suffix.is_some_and(|suffix| !suffix.is_empty()) {
            return Err(Failure::unsupported(
                "suffix",
                "text can't be inserted before a suffix; leave it out",
            ));
        }
        if fields.best_of.is_some_and(|best| best > 1) {
            return Err(Failure::unsupported("best_of", "one answer a prompt is made; leave best_of out"));
        }
        settings.logprobs = settings::checked_logprobs("logprobs", fields.logprobs)?;
        let prompts = fields.prompt.map_or_else(Vec::new, |prompts| prompts.0);
        if prompts.is_empty() || prompts.len() > PROMPTS_MAX {
            let why = format!("prompt must be a text, tokens, or 1 to {PROMPTS_MAX} of either");
            return Err(Failure::field("prompt", why));
        }
        Ok(Completion { model: fields.model, prompts, settings })
    }
}

/// Reads JSON; the error says where it is wrong.
pub(crate) fn from_json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        Failure::bad(format!(
            "the body is not the JSON that is expected here: {error}; correct it and send it again"
        ))
    })
}

#[cfg(test)]
mod body_test;
#[cfg(test)]
mod fuzz_test;
