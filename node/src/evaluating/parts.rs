//! The engine as one that reads every segment by itself: none has seen another, and to leave one out is to remove it.

use super::scorer::{EngineScorer, ScoreFailure};
use evaluate::{Call, Child, Observed, Scorer, Tokenised};
use worker_inference::{Engine, PartsRequest, ScoreError, score, score_parts};

pub(crate) struct PartsScorer {
    whole: EngineScorer<Engine>,
    /// So many tokens of each segment but the first are read once more, behind all before it.
    again: usize,
}

impl PartsScorer {
    /// `sha256` is that of the model's file.
    pub(crate) fn own(engine: Engine, sha256: String, again: usize) -> Result<Self, ScoreFailure> {
        Ok(PartsScorer { whole: EngineScorer::own(engine, sha256)?, again })
    }

    fn parted(&self, call: &Tokenised) -> PartsRequest {
        PartsRequest {
            scope: self.whole.scope,
            start: self.whole.start.clone(),
            parts: call.segments.iter().chain(&call.withheld).cloned().collect(),
            again: self.again,
            probe: call.probe.clone(),
            action: call.action.clone(),
            class: 0,
        }
    }
}

impl Scorer for PartsScorer {
    type Error = ScoreFailure;

    fn model_sha256(&self) -> String {
        self.whole.model_sha256()
    }

    fn window(&self) -> usize {
        self.whole.window()
    }

    fn tokenise(&mut self, call: &Call) -> Result<Tokenised, ScoreFailure> {
        self.whole.tokenise(call)
    }

    /// Masked and exact children are the same here.
    fn score(&mut self, call: &Tokenised, children: &[Child]) -> Result<Vec<f64>, ScoreFailure> {
        let kept: Vec<Vec<usize>> = children.iter().map(|child| child.kept(call.segments.len())).collect();
        let parted = self.parted(call);
        let found = score_parts(&mut self.whole.engine, &parted, &kept)?.children;
        Ok(found.into_iter().map(|likelihoods| likelihoods.iter().sum()).collect())
    }

    fn again(&self, call: &Tokenised, child: &Child) -> u64 {
        let kept = child.kept(call.segments.len());
        let filled = kept.into_iter().map(|at| call.piece(at).len()).filter(|tokens| *tokens > 0);
        filled.skip(1).map(|tokens| tokens.min(self.again) as u64).sum()
    }

    /// Bits are those of each segment behind the start alone; how attention is spread is told of whole contexts only.
    fn observe(&mut self, call: &Tokenised) -> Result<Observed, ScoreFailure> {
        let PartsScorer { whole, .. } = self;
        let mut bits = |segment: &Vec<u32>| -> Result<f64, ScoreFailure> {
            if segment.is_empty() {
                return Ok(0.0);
            }
            let each =
                score(&mut whole.engine, whole.scope, &whole.start, segment).map_err(ScoreError::from)?;
            Ok(each.iter().map(|nats| -nats / std::f64::consts::LN_2).sum())
        };
        let bits = call.segments.iter().map(&mut bits).collect::<Result<Vec<f64>, ScoreFailure>>()?;
        Ok(Observed { attention: None, bits: Some(bits) })
    }
}
