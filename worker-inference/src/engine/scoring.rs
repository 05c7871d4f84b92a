//! Requests for the likelihood of tokens that are known.

use std::ops::Range;
use std::sync::Arc;

use super::parts::Parts;
use super::{Engine, Purpose};
use crate::prefix::Scope;
use crate::scheduler::SubmitError;
use crate::sequence::{SequenceId, Work};

/// Tokens whose likelihood is asked for, after others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScoreRequest {
    /// Only requests of the same scope share cached prefixes.
    pub scope: Scope,
    /// At least one token. Its last one asks for the continuation.
    pub prefix: Vec<u32>,
    pub continuation: Vec<u32>,
    /// So many tokens at the beginning of the continuation are read and not scored: they cost less.
    pub unscored: usize,
    /// Positions in the prefix, before its last token, that the tokens from that one on do not see. The rest of the
    /// prefix stays as it was computed with them, and is seen as if it had moved up to where they were.
    pub omit: Vec<Range<usize>>,
    /// Positions whose share of the scored tokens' attention is told with the answer.
    pub segments: Arc<[Range<usize>]>,
    /// Smaller is more urgent.
    pub class: u8,
}

impl ScoreRequest {
    fn check(&self) -> Result<(), SubmitError> {
        if self.prefix.is_empty() || self.continuation.is_empty() {
            return Err(SubmitError::Empty);
        }
        if self.unscored >= self.continuation.len() {
            return Err(SubmitError::Request("no token is left to be scored; give a longer continuation"));
        }
        let first = self.prefix.len() - 1;
        if self.omit.iter().any(|range| range.start > range.end || range.end > first) {
            return Err(SubmitError::Request(
                "tokens to leave out must lie before the prefix's last token; correct the ranges",
            ));
        }
        let is_outside = |range: &Range<usize>| range.start > range.end || range.end > self.prefix.len();
        if self.segments.iter().any(is_outside) {
            return Err(SubmitError::Request("segments must lie in the prefix; correct the ranges"));
        }
        Ok(())
    }
}

/// What a scoring sequence wants to know, and what it knows so far.
#[derive(Debug)]
pub(super) struct Scoring {
    /// The row at this position tells about the first target, and so on.
    pub(super) asks_from: usize,
    pub(super) targets: Vec<u32>,
    pub(super) found: Vec<f64>,
    /// Positions that its private rows do not see.
    pub(super) omit: Vec<Range<usize>>,
    /// What it reads beside its own tokens.
    parts: Option<Parts>,
    pub(super) segments: Arc<[Range<usize>]>,
    /// Shares of attention, summed over the rows so far.
    mass: Vec<f64>,
}

impl Scoring {
    /// Nothing is found yet, nothing left out.
    fn new(asks_from: usize, targets: Vec<u32>) -> Scoring {
        Scoring {
            asks_from,
            targets,
            found: Vec::new(),
            omit: Vec::new(),
            parts: None,
            segments: [].into(),
            mass: Vec::new(),
        }
    }

    /// For tokens behind parts that lie elsewhere.
    pub(super) fn behind(parts: Parts, asks_from: usize, targets: Vec<u32>) -> Scoring {
        Scoring { parts: Some(parts), ..Scoring::new(asks_from, targets) }
    }

    pub(super) fn parts(&self) -> Option<&Parts> {
        self.parts.as_ref()
    }

    pub(super) fn target(&self, position: usize) -> usize {
        self.targets[position - self.asks_from] as usize
    }

    /// Adds the shares of some rows, in their order: sums must not depend on where a chunk ends.
    pub(super) fn add_mass(&mut self, rows: &[f64]) {
        for row in rows.chunks_exact(self.segments.len()) {
            self.mass.iter_mut().zip(row).for_each(|(sum, share)| *sum += share);
        }
    }

    /// Mean shares over all rows that asked.
    pub(super) fn mean_mass(&self) -> Vec<f64> {
        self.mass.iter().map(|sum| sum / self.targets.len() as f64).collect()
    }
}

impl Engine {
    /// Asks for the log-likelihood of `continuation` after `prefix`; answered by [`super::Event::Scored`].
    pub fn submit_score(
        &mut self,
        scope: Scope,
        prefix: &[u32],
        continuation: &[u32],
        class: u8,
    ) -> Result<SequenceId, SubmitError> {
        self.submit_score_without(scope, prefix, continuation, &[], class)
    }

    /// Like [`Engine::submit_score`], as if the `omit`ted tokens of the prefix were not there: the continuation
    /// doesn't see them. The rest of the prefix stays as it was computed with them, moved up. `omit` are
    /// positions in the prefix, none of which may be its last token: that one asks for the continuation.
    ///
    /// With a cached prefix it costs the rows of the continuation.
    pub fn submit_score_without(
        &mut self,
        scope: Scope,
        prefix: &[u32],
        continuation: &[u32],
        omit: &[Range<usize>],
        class: u8,
    ) -> Result<SequenceId, SubmitError> {
        let (prefix, continuation, omit) = (prefix.to_vec(), continuation.to_vec(), omit.to_vec());
        self.submit_scoring(ScoreRequest {
            scope,
            prefix,
            continuation,
            omit,
            class,
            ..ScoreRequest::default()
        })
    }

    /// Puts any scoring request in line; answered by [`super::Event::Scored`].
    pub fn submit_scoring(&mut self, request: ScoreRequest) -> Result<SequenceId, SubmitError> {
        request.check()?;
        self.check_tokens(&request.continuation)?;
        let ScoreRequest { scope, mut prefix, continuation, unscored, mut omit, segments, class } = request;
        let first = prefix.len() - 1;
        // The last token is only a target: no row needs to run for it.
        prefix.extend(&continuation[..continuation.len() - 1]);
        omit.retain(|range| !range.is_empty());
        let private_from = if omit.is_empty() { usize::MAX } else { first };
        let logits_from = first + unscored;
        let work = Work { logits_from, private_from, class, ..self.work(prefix, scope) };
        let mass = vec![0.0; segments.len()];
        let targets = continuation[unscored..].to_vec();
        let scoring = Scoring { omit, segments, mass, ..Scoring::new(logits_from, targets) };
        self.submit_work(work, Purpose::Score(Box::new(scoring)))
    }
}
