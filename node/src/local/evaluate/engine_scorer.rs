//! The engine as the one that scores: one context in its cache, and everything that is asked about it.

use anyhow::Context;
use evaluate::{Call, Child, How, Observed, Scorer, Tokenised};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use worker_inference::{Call as Tokens, Engine, ScoreError, score_children};

pub(super) struct EngineScorer {
    engine: Engine,
    sha256: String,
    /// What every context begins with, and belongs to no segment.
    start: u32,
}

impl EngineScorer {
    pub(super) fn new(engine: Engine, model: &Path) -> anyhow::Result<EngineScorer> {
        let sha256 = sha256(model).with_context(|| format!("reading {}", model.display()))?;
        let start = start(&engine)?;
        Ok(EngineScorer { engine, sha256, start })
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>, ScoreError> {
        Ok(self.engine.text().tokenizer.encode(text, false)?)
    }

    /// A context of these pieces, in this order.
    fn tokens(&self, call: &Tokenised, pieces: impl Iterator<Item = usize>) -> Tokens {
        let pieces = pieces.flat_map(|at| call.piece(at).iter().copied());
        let context = std::iter::once(self.start).chain(pieces).collect();
        Tokens { context, probe: call.probe.clone(), action: call.action.clone(), ..Tokens::default() }
    }

    fn whole(&self, call: &Tokenised) -> Tokens {
        self.tokens(call, 0..call.segments.len())
    }

    fn exact(&mut self, call: &Tokenised, child: &Child) -> Result<f64, ScoreError> {
        let alone = self.tokens(call, child.kept(call.segments.len()).into_iter());
        Ok(score_children(&mut self.engine, alone, &[])?.full.iter().sum())
    }
}

/// Where models have no token for the beginning, a line's end stands in for it.
fn start(engine: &Engine) -> anyhow::Result<u32> {
    let tokenizer = &engine.text().tokenizer;
    let begins = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    let line = tokenizer.encode("\n", false)?;
    begins.or(line.first().copied()).context("the model's tokenizer has no token for the end of a line")
}

fn sha256(file: &Path) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(file)?, &mut hash)?;
    let mut text = String::new();
    hash.finalize().iter().for_each(|byte| _ = write!(text, "{byte:02x}"));
    Ok(text)
}

/// Where each segment lies in a context that has all of them.
fn places(call: &Tokenised) -> Vec<Range<usize>> {
    let mut end = 1;
    let place = |ids: &Vec<u32>| {
        let begin = end;
        end += ids.len();
        begin..end
    };
    call.segments.iter().map(place).collect()
}

impl Scorer for EngineScorer {
    type Error = ScoreError;

    fn model_sha256(&self) -> String {
        self.sha256.clone()
    }

    fn window(&self) -> usize {
        // One token is the start, and the last one of the action is not read.
        self.engine.info().window
    }

    fn tokenise(&mut self, call: &Call) -> Result<Tokenised, ScoreError> {
        let ids = |segments: &[evaluate::Segment]| -> Result<Vec<Vec<u32>>, ScoreError> {
            segments.iter().map(|segment| self.ids(&segment.text)).collect()
        };
        Ok(Tokenised {
            segments: ids(&call.segments)?,
            withheld: ids(call.withheld())?,
            probe: self.ids(&call.probe)?,
            action: self.ids(&call.action)?,
        })
    }

    fn score(&mut self, call: &Tokenised, children: &[Child]) -> Result<Vec<f64>, ScoreError> {
        let places = places(call);
        let masked: Vec<&Child> = children.iter().filter(|child| child.how == How::Masked).collect();
        let omit = |child: &&Child| -> Vec<Range<usize>> {
            child.omitted(places.len()).into_iter().map(|at| places[at].clone()).collect()
        };
        let omits: Vec<Vec<Range<usize>>> = masked.iter().map(omit).collect();
        let whole = self.whole(call);
        let found = match omits.is_empty() {
            true => Vec::new(),
            false => score_children(&mut self.engine, whole, &omits)?.children,
        };
        let mut found = found.into_iter().map(|likelihoods| likelihoods.iter().sum());
        let mut scores = Vec::with_capacity(children.len());
        for child in children {
            scores.push(match child.how {
                How::Masked => found.next().unwrap_or(f64::NAN),
                How::Exact => self.exact(call, child)?,
            });
        }
        Ok(scores)
    }

    fn observe(&mut self, call: &Tokenised) -> Result<Observed, ScoreError> {
        let whole = Tokens { segments: places(call), bits: true, ..self.whole(call) };
        let found = score_children(&mut self.engine, whole, &[])?;
        Ok(Observed { attention: Some(found.attention), bits: Some(found.bits) })
    }
}
