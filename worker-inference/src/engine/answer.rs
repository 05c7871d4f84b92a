//! The answer of one sequence as it grows: text from tokens, stop strings, and the cut at the end.

use std::borrow::Cow;

use crate::grammar::{Grammar, Next};
use crate::sampler::Sampling;
use crate::stop::{Passed, StopWatch};
use crate::tokenizer::{Detokenizer, Tokenizer};

/// One generating sequence's settings and output so far.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) sampling: Sampling,
    pub(super) ignore_eos: bool,
    /// Likeliest tokens to tell beside each chosen one.
    pub(super) logprobs: Option<usize>,
    grammar: Option<Grammar>,
    min_new: usize,
    detokenizer: Detokenizer,
    stop: StopWatch,
    tokens: Vec<u32>,
    /// After each token: bytes of text that were complete then; None in the middle of a character.
    borders: Vec<Option<usize>>,
    /// Text that left the detokenizer, shown or held back.
    decoded: usize,
    /// Bytes of text that were shown.
    shown: String,
}

/// What one more token did.
pub(super) struct Grown {
    pub(super) text: String,
    pub(super) stopped: bool,
}

impl Answer {
    pub(super) fn new(sampling: Sampling, stop: Vec<String>, ignore_eos: bool) -> Answer {
        Answer {
            sampling,
            ignore_eos,
            logprobs: None,
            grammar: None,
            min_new: 0,
            detokenizer: Detokenizer::default(),
            stop: StopWatch::new(stop),
            tokens: Vec::new(),
            borders: Vec::new(),
            decoded: 0,
            shown: String::new(),
        }
    }

    /// Neither end tokens nor stop strings end it before so many tokens.
    pub(super) fn at_least(mut self, min_new: usize) -> Answer {
        self.min_new = min_new;
        self
    }

    /// It has the form that the grammar describes.
    pub(super) fn in_the_form_of(mut self, grammar: Option<Grammar>) -> Answer {
        self.grammar = grammar;
        self
    }

    /// Each token is told with its probability and that of so many others.
    pub(super) fn with_logprobs(mut self, top: Option<usize>) -> Answer {
        self.logprobs = top;
        self
    }

    /// The next token is the likeliest of all, and nobody asks how likely it is.
    pub(super) fn wants_the_likeliest(&self) -> bool {
        self.sampling.temperature == 0.0
            && !self.sampling.has_penalties()
            && self.logprobs.is_none()
            && self.grammar.is_none()
            && self.tokens.len() >= self.min_new
    }

    /// The logits to choose from, with what may not come at minus infinity; the model's own where all may come as
    /// it is. None when the grammar can't go on.
    pub(super) fn choices<'a>(&mut self, logits: &'a [f32], ends: &[u32]) -> Option<Cow<'a, [f32]>> {
        let mut choices = Cow::Borrowed(logits);
        if self.sampling.has_penalties() {
            self.sampling.penalise(choices.to_mut(), &self.tokens);
        }
        if self.tokens.len() < self.min_new {
            forbid(choices.to_mut(), ends.iter().copied());
        }
        let Some(grammar) = &mut self.grammar else { return Some(choices) };
        let Next::Some(allowed) = grammar.next() else { return None };
        let choices_left = choices.to_mut();
        let all = 0..choices_left.len() as u32;
        forbid(choices_left, all.filter(|&token| !allowed.is_allowed(token)));
        // The grammar may want the end before `min_new` allows it.
        if choices_left.iter().all(|&logit| logit == f32::NEG_INFINITY) {
            let allowed = ends.iter().filter(|&&end| allowed.is_allowed(end));
            allowed.for_each(|&end| choices_left[end as usize] = logits[end as usize]);
        }
        Some(choices)
    }

    /// Whether the model's end ends it. A grammar lets an end through only where the answer is whole.
    pub(super) fn ends_at_end(&self) -> bool {
        !self.ignore_eos || self.grammar.is_some()
    }

    /// The grammar takes the newest token. False when it can't go on.
    pub(super) fn follow(&mut self, token: u32) -> bool {
        self.grammar.as_mut().is_none_or(|grammar| grammar.take(token))
    }

    /// The grammar lets nothing follow.
    pub(super) fn is_whole(&self) -> bool {
        self.grammar.as_ref().is_some_and(Grammar::is_over)
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn push(&mut self, token: u32, tokenizer: &Tokenizer) -> Grown {
        let decoded = self.detokenizer.push(tokenizer.bytes(token));
        self.decoded += decoded.len();
        self.tokens.push(token);
        self.borders.push(self.detokenizer.is_between_characters().then_some(self.decoded));
        let passed = match self.tokens.len() <= self.min_new {
            true => Passed { text: decoded, stopped: false },
            false => self.stop.push(&decoded),
        };
        self.shown.push_str(&passed.text);
        Grown { text: passed.text, stopped: passed.stopped }
    }

    /// Ends the answer without a stop string: the tokens, and the text that was held back.
    pub(super) fn finish(mut self) -> (Vec<u32>, String) {
        let held = self.stop.finish();
        (self.tokens, held + &self.detokenizer.finish())
    }

    /// Ends the answer before a stop string: tokens that decode to exactly the text that was shown. When the
    /// stop string begins inside a token, the part before it is tokenised anew.
    pub(super) fn finish_before_stop(mut self, tokenizer: &Tokenizer) -> Vec<u32> {
        let fits = |border: &Option<usize>| border.is_some_and(|end| end <= self.shown.len());
        let kept = self.borders.iter().rposition(fits).map_or(0, |last| last + 1);
        let end = if kept == 0 { 0 } else { self.borders[kept - 1].unwrap_or(0) };
        self.tokens.truncate(kept);
        // Encoding plain text that came out of the tokenizer cannot fail; the whole tokens stay in any case.
        self.tokens.extend(tokenizer.encode(&self.shown[end..], false).unwrap_or_default());
        self.tokens
    }
}

fn forbid(logits: &mut [f32], tokens: impl Iterator<Item = u32>) {
    for token in tokens {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}
