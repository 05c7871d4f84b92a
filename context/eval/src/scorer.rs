//! What an engine must do for an evaluation. Implemented where engines are; tests implement it with a rule.

use crate::call::Call;
use crate::plan::Child;

/// A call as token ids of one model.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Tokenised {
    /// One list a segment of the call, in its order; empty for an empty text.
    pub segments: Vec<Vec<u32>>,
    /// One list a withheld segment.
    pub withheld: Vec<Vec<u32>>,
    pub probe: Vec<u32>,
    pub action: Vec<u32>,
}

impl Tokenised {
    /// Tokens of all segments.
    pub fn context_tokens(&self) -> u64 {
        self.segments.iter().map(|ids| ids.len() as u64).sum()
    }

    /// Tokens that each child computes: probe and action.
    pub fn probe_tokens(&self) -> u64 {
        (self.probe.len() + self.action.len()) as u64
    }

    /// Tokens of a piece: a segment, or behind the segments a withheld one.
    pub fn piece(&self, at: usize) -> &[u32] {
        let n = self.segments.len();
        if at < n { &self.segments[at] } else { &self.withheld[at - n] }
    }
}

/// What an engine sees for free while it reads the whole context once.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Observed {
    /// Share of the probe's attention that lies on each segment, 0 to 1.
    pub attention: Option<Vec<f64>>,
    /// What each segment was worth in bits, given what stands before it.
    pub bits: Option<Vec<f64>>,
}

/// Scores actions. No generation, no sampling: the same question always has the same answer, to the bit.
pub trait Scorer {
    type Error: std::error::Error + 'static;

    /// SHA-256 of the model's file, in hexadecimal digits.
    fn model_sha256(&self) -> String;

    /// Tokens that fit into one context, with probe and action.
    fn window(&self) -> usize;

    /// The ids of every text of a call, each by itself: equal texts must have equal ids. What stands at the beginning
    /// of every context (a BOS token) belongs to no segment and is in every child.
    fn tokenise(&mut self, call: &Call) -> Result<Tokenised, Self::Error>;

    /// For each child the natural logarithm of the probability of `call.action`, after what the child keeps and
    /// `call.probe`. Answers in the order of the children, one each. How they are batched must not change a bit.
    fn score(&mut self, call: &Tokenised, children: &[Child]) -> Result<Vec<f64>, Self::Error>;

    /// Tokens of its context that a child computes for itself, beside what [`Child::tokens`] says. A rule: the same for a cold
    /// cache.
    fn again(&self, call: &Tokenised, child: &Child) -> u64 {
        let _ = (call, child);
        0
    }

    /// Attention and bits, where the engine has them. Called once a call, before its scores.
    fn observe(&mut self, call: &Tokenised) -> Result<Observed, Self::Error> {
        let _ = call;
        Ok(Observed::default())
    }
}

/// Whoever it is.
impl<S: Scorer + ?Sized> Scorer for Box<S> {
    type Error = S::Error;

    fn model_sha256(&self) -> String {
        (**self).model_sha256()
    }

    fn window(&self) -> usize {
        (**self).window()
    }

    fn tokenise(&mut self, call: &Call) -> Result<Tokenised, S::Error> {
        (**self).tokenise(call)
    }

    fn score(&mut self, call: &Tokenised, children: &[Child]) -> Result<Vec<f64>, S::Error> {
        (**self).score(call, children)
    }

    fn again(&self, call: &Tokenised, child: &Child) -> u64 {
        (**self).again(call, child)
    }

    fn observe(&mut self, call: &Tokenised) -> Result<Observed, S::Error> {
        (**self).observe(call)
    }
}
