//! The answer of one sequence as it grows: text from tokens, stop strings, and the cut at the end.

use crate::sampler::Sampling;
use crate::stop::{Passed, StopWatch};
use crate::tokenizer::{Detokenizer, Tokenizer};

/// One generating sequence's settings and output so far.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) sampling: Sampling,
    pub(super) ignore_eos: bool,
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

    /// Whether the next token may be the model's end.
    pub(super) fn may_end(&self) -> bool {
        self.tokens.len() >= self.min_new
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
