//! What goes into an engine and what comes out.

use crate::grammar::Grammar;
use crate::prefix::Scope;
use crate::sampler::Sampling;
use crate::sequence::SequenceId;

/// Tokens to go on from.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub tokens: Vec<u32>,
    /// Only requests of the same scope share cached prefixes.
    pub scope: Scope,
    /// Tokens to generate at most; at least 1.
    pub max_new: usize,
    /// Neither the model's end tokens nor stop strings end it before so many.
    pub min_new: usize,
    pub sampling: Sampling,
    /// Generation ends when one of these appears; it is not part of the text.
    pub stop: Vec<String>,
    /// Go on after the model's own end token.
    pub ignore_eos: bool,
    /// Tell each token's log-probability, and those of so many likeliest tokens beside it; at most 20.
    pub logprobs: Option<usize>,
    /// Only answers that it accepts are generated.
    pub grammar: Option<Grammar>,
    /// Smaller is more urgent.
    pub class: u8,
}

impl Default for Request {
    /// No tokens, and one greedy token asked for.
    fn default() -> Self {
        Request {
            tokens: Vec::new(),
            scope: [0; 32],
            max_new: 1,
            min_new: 0,
            sampling: Sampling::default(),
            stop: Vec::new(),
            ignore_eos: false,
            logprobs: None,
            grammar: None,
            class: 0,
        }
    }
}

/// A sequence that begins like a running one.
#[derive(Debug, Clone, PartialEq)]
pub struct ForkRequest {
    /// How many of the parent's tokens it keeps; all when None.
    pub keep: Option<usize>,
    /// Tokens after them.
    pub append: Vec<u32>,
    pub max_new: usize,
    pub sampling: Sampling,
    pub stop: Vec<String>,
    pub ignore_eos: bool,
    pub class: u8,
}

/// How likely the model itself found a token: natural logarithms, before temperature, penalties and grammar.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// Of the chosen token.
    pub chosen: f64,
    /// The likeliest tokens, likeliest first, the lower id first among equals.
    pub top: Vec<(u32, f64)>,
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model said so.
    Eos,
    /// `max_new` tokens were generated.
    Length,
    /// The grammar became too complex to be followed further; the answer is cut there.
    Grammar,
    StopString,
    Cancelled,
}

/// What a sequence cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens it began with.
    pub prompt: usize,
    /// Positions that needed no computing.
    pub cached: usize,
    /// Tokens in its answer.
    pub generated: usize,
    /// Rows that were computed, prompt and answer together.
    pub computed: usize,
    /// Milliseconds in line before it ran first.
    pub waited_ms: u64,
}

/// Something that a step brought about.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// One more token. `text` is what became certain with it: it may be empty (half a character, or the
    /// possible beginning of a stop string). `offset` counts generated tokens from 0.
    Token {
        id: SequenceId,
        token: u32,
        text: String,
        offset: usize,
        /// What the request's `logprobs` asked for.
        logprobs: Option<Box<TokenLogprobs>>,
    },
    /// The last event of a request. `rest` is text that was held back until now. `tokens` decode to all text
    /// that was handed out: without the end token, and cut before a stop string.
    Finished { id: SequenceId, reason: FinishReason, usage: Usage, tokens: Vec<u32>, rest: String },
    /// The answer to a scoring request: natural logarithms, one per scored token, and the share of attention of each
    /// segment that it named (see [`crate::score::Children::attention`]).
    Scored { id: SequenceId, log_likelihood: Vec<f64>, attention: Vec<f64>, usage: Usage },
    /// The answer to a request for logits: those after the last token.
    Logits { id: SequenceId, logits: Vec<f32>, usage: Usage },
}

impl Event {
    /// The sequence that it is about.
    pub fn id(&self) -> SequenceId {
        match self {
            Event::Token { id, .. }
            | Event::Finished { id, .. }
            | Event::Scored { id, .. }
            | Event::Logits { id, .. } => *id,
        }
    }
}
