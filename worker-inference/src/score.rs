//! How likely a model finds a text: per token after a cached prefix, and as the perplexity of a whole file.

mod children;
mod parts;

use std::ops::Range;

pub use children::{Call, Children, ChildrenRun, Removed, Spent, score_children, score_removed};
pub use parts::{Parted, score_parts};

use crate::engine::{Engine, Event};
use crate::prefix::Scope;
use crate::scheduler::SubmitError;
use crate::sequence::SequenceId;

/// The figures of one text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TextScore {
    /// Tokens that were scored.
    pub tokens: usize,
    /// Mean natural logarithm of their probabilities.
    pub mean_log_likelihood: f64,
    /// e to the negative mean.
    pub perplexity: f64,
}

/// Why a text could not be scored.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    #[error(transparent)]
    Submit(#[from] SubmitError),
    #[error(transparent)]
    Text(#[from] crate::tokenizer::TokenizerError),
    #[error("a window of {window} tokens with {skip} skipped leaves nothing to score; skip fewer")]
    Window { window: usize, skip: usize },
    #[error(
        "the text has {tokens} tokens, two windows need {needed}; give a longer text or a smaller window"
    )]
    TooShort { tokens: usize, needed: usize },
    #[error("the call's {part} is empty; give at least one token of it")]
    NoTokens { part: &'static str },
    #[error(
        "the call has {tokens} tokens, context, probe and action together, and the model's window is {window}; use a \
         model with a longer window, or skip this call"
    )]
    TooLong { tokens: usize, window: usize },
    #[error("the range {start}..{end} does not lie in the context of {context} tokens; correct it")]
    Outside { start: usize, end: usize, context: usize },
    #[error(
        "the range {start}..{end} begins before {before}, where the one before it ends; sort ranges and join \
         those that overlap"
    )]
    Order { start: usize, end: usize, before: usize },
    #[error(
        "the parts of this call do not fit into the pool of {blocks} KV blocks together; raise engine.kv_bytes"
    )]
    Parts { blocks: usize },
    #[error("the scoring was cancelled before its end; ask again")]
    Cancelled,
}

/// The log-likelihood of each token of `continuation` after `prefix`, using whatever part of the prefix is
/// cached. Other sequences go on meanwhile; their events come with the next [`Engine::step`].
pub fn score(
    engine: &mut Engine,
    scope: Scope,
    prefix: &[u32],
    continuation: &[u32],
) -> Result<Vec<f64>, SubmitError> {
    score_without(engine, scope, prefix, continuation, &[])
}

/// Like [`score`], as if the `omit`ted tokens of the prefix were not there; see [`Engine::submit_score_without`].
pub fn score_without(
    engine: &mut Engine,
    scope: Scope,
    prefix: &[u32],
    continuation: &[u32],
    omit: &[Range<usize>],
) -> Result<Vec<f64>, SubmitError> {
    let id = engine.submit_score_without(scope, prefix, continuation, omit, 0)?;
    match run_until(engine, id) {
        Event::Scored { log_likelihood, .. } => Ok(log_likelihood),
        other => unreachable!("a scoring request is answered by a score, not {other:?}"),
    }
}

/// The logits after the last of `tokens`.
pub fn last_logits(engine: &mut Engine, scope: Scope, tokens: &[u32]) -> Result<Vec<f32>, SubmitError> {
    let id = engine.submit_logits(scope, tokens.to_vec(), 0)?;
    match run_until(engine, id) {
        Event::Logits { logits, .. } => Ok(logits),
        other => unreachable!("a request for logits is answered by logits, not {other:?}"),
    }
}

/// Scores a text in windows of `window` tokens, each beginning anew, of which the first `skip` tokens and
/// the one after them only serve as context: with `skip` = `window` / 2 these are the windows of
/// `llama-perplexity -c window`. As there, one line end at the end of the text is dropped, the tokens that
/// don't fill a window are left out, and a model that wants BOS gets it in place of each window's first token.
pub fn perplexity(
    engine: &mut Engine,
    text: &str,
    window: usize,
    skip: usize,
) -> Result<TextScore, ScoreError> {
    if skip + 1 >= window {
        return Err(ScoreError::Window { window, skip });
    }
    let model = engine.text();
    let mut tokens = model.tokenizer.encode(text.strip_suffix('\n').unwrap_or(text), false)?;
    let bos = model.tokenizer.bos().filter(|_| model.tokenizer.adds_bos());
    tokens.splice(0..0, bos);
    if tokens.len() < 2 * window {
        return Err(ScoreError::TooShort { tokens: tokens.len(), needed: 2 * window });
    }
    let mut sum = 0.0;
    let mut count = 0;
    for part in tokens.chunks_exact(window) {
        let mut part = part.to_vec();
        part[0] = bos.unwrap_or(part[0]);
        let (prefix, continuation) = part.split_at(skip + 1);
        let likelihoods = score(engine, [0; 32], prefix, continuation)?;
        count += likelihoods.len();
        sum += likelihoods.iter().sum::<f64>();
    }
    let mean = sum / count as f64;
    Ok(TextScore { tokens: count, mean_log_likelihood: mean, perplexity: (-mean).exp() })
}

/// Steps until the sequence has its answer; events of others are kept for the next step.
fn run_until(engine: &mut Engine, id: SequenceId) -> Event {
    let mut others = Vec::new();
    loop {
        let (mut mine, theirs): (Vec<Event>, Vec<Event>) =
            engine.step().into_iter().partition(|event| event.id() == id);
        others.extend(theirs);
        if let Some(event) = mine.pop() {
            engine.keep_events(others);
            return event;
        }
    }
}
