//! One choice of an answer as it grows: its text, what of it was told, how it ended.

use super::super::error::Failure;
use super::Told;
use crate::engine_thread::{JobEnd, JobEvent};
use worker_inference::{CallFormat, TokenLogprobs, ToolCall, text_before_calls, tool_calls};

/// What the text of a choice may be besides text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tooling {
    None,
    /// The model may call tools, in the way that it was taught.
    Free(CallFormat),
    /// A grammar made all of it one call.
    Forced,
}

pub(super) struct Choice {
    pub(super) index: usize,
    tooling: Tooling,
    text: String,
    /// Characters of the text.
    characters: usize,
    /// Bytes of the text that went out.
    told: usize,
    /// Of tokens that did not go out.
    likelihoods: Vec<Likelihood>,
    end: Option<JobEnd>,
    /// Calls that were told apart from the text.
    calls: Vec<ToolCall>,
    pub(super) usage: Usage,
}

/// How likely one token was.
pub(super) struct Likelihood {
    pub(super) token: u32,
    /// Where its text begins in the answer's, in characters.
    pub(super) offset: usize,
    pub(super) logprobs: TokenLogprobs,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) prompt: u64,
    pub(crate) cached: u64,
    pub(crate) generated: u64,
}

/// Something to be told now.
pub(super) struct News {
    pub(super) text: String,
    pub(super) likelihoods: Vec<Likelihood>,
}

impl News {
    pub(super) fn nothing() -> News {
        News { text: String::new(), likelihoods: Vec::new() }
    }
}

/// How a choice ended, and what is left to be told.
pub(super) struct Ending {
    pub(super) news: News,
    pub(super) calls: Vec<ToolCall>,
    pub(super) finish: &'static str,
}

impl Choice {
    pub(super) fn new(index: usize, tooling: Tooling) -> Choice {
        Choice {
            index,
            tooling,
            text: String::new(),
            characters: 0,
            told: 0,
            likelihoods: Vec::new(),
            end: None,
            calls: Vec::new(),
            usage: Usage::default(),
        }
    }

    /// One more event of its job.
    pub(super) fn take(&mut self, event: Told) -> Result<(), Failure> {
        match event {
            Told::Job(event) => return self.take_job(event),
            Told::Failed(failure) => return Err(failure),
            Told::Ended { why, text, calls, usage } => {
                self.text = text;
                self.calls = calls;
                self.usage = usage;
                self.end = Some(why);
            }
        }
        Ok(())
    }

    fn take_job(&mut self, event: JobEvent) -> Result<(), Failure> {
        match event {
            JobEvent::Token { token, text, logprobs } => {
                let offset = self.characters;
                let likelihood =
                    |logprobs: Box<TokenLogprobs>| Likelihood { token, offset, logprobs: *logprobs };
                self.likelihoods.extend(logprobs.map(likelihood));
                self.characters += text.chars().count();
                self.text.push_str(&text);
            }
            JobEvent::End { why: JobEnd::Cancelled, .. } => {
                return Err(Failure::gone("the server stops; send the request again when it is back"));
            }
            JobEvent::End { why, text, tokens, prompt_tokens, cached_tokens, .. } => {
                self.text = text;
                self.end = Some(why);
                let generated = tokens.len() as u64;
                self.usage = Usage { prompt: prompt_tokens, cached: cached_tokens, generated };
            }
            JobEvent::Refused(refused) => return Err(refused.into()),
            JobEvent::Scored(_) => {
                return Err(Failure::bug(
                    "the engine scored what was to be answered; this is a bug, report it",
                ));
            }
        }
        Ok(())
    }

    pub(super) fn is_over(&self) -> bool {
        self.end.is_some()
    }

    /// What is sure to be text and was not told yet.
    pub(super) fn news(&mut self) -> Option<News> {
        let sure = match self.tooling {
            Tooling::None => self.text.len(),
            Tooling::Free(format) => text_before_calls(&self.text, format),
            Tooling::Forced => 0,
        };
        let text = self.text.get(self.told..sure).unwrap_or_default().to_owned();
        if text.is_empty() {
            return None;
        }
        self.told = sure;
        Some(News { text, likelihoods: std::mem::take(&mut self.likelihoods) })
    }

    /// The end, once the job ended.
    pub(super) fn ending(mut self) -> (Ending, Usage) {
        let (content, calls) = match self.tooling {
            Tooling::None if self.calls.is_empty() => (self.text.clone(), Vec::new()),
            Tooling::None => (self.text.trim_start().to_owned(), std::mem::take(&mut self.calls)),
            Tooling::Free(format) => tool_calls(&self.text, format),
            // All of it is JSON, as Llama 3 calls.
            Tooling::Forced => tool_calls(&self.text, CallFormat::Llama3),
        };
        let told = &self.text[..self.told];
        // Beside calls the text is trimmed, also of what was told in front of it.
        let told = if calls.is_empty() { told } else { told.trim_start() };
        let text = content.get(told.len()..).unwrap_or_default().to_owned();
        let finish = match self.end {
            // Cut in the middle of a call: nothing that can be run.
            Some(JobEnd::Length) => "length",
            _ if !calls.is_empty() => "tool_calls",
            _ => "stop",
        };
        let news = News { text, likelihoods: std::mem::take(&mut self.likelihoods) };
        (Ending { news, calls, finish }, self.usage)
    }
}
