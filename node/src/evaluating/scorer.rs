//! The engine as the one that scores: one context in its cache, and everything that is asked about it.

use super::bill::Meter;
use crate::engine_thread::real::LoadedModel;
use crate::engine_thread::{EngineThread, JobEvent, Scores};
use evaluate::{Call, Child, How, Observed, Scorer, Tokenised};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use worker_inference::text::TextModel;
use worker_inference::{Call as Tokens, Children, Engine, ScoreError, score_children};

/// Behind every class of tasks.
const CLASS: u8 = 4;

/// Why an engine gave no scores.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScoreFailure {
    #[error(transparent)]
    Score(#[from] ScoreError),
    #[error("{0}")]
    Refused(String),
    #[error("the engine ended without a word; try again")]
    Gone,
}

/// An engine that scores children of a call.
pub(crate) trait Ask {
    /// Blocks until they are there.
    fn ask(&mut self, call: Tokens, omits: Vec<Vec<Range<usize>>>) -> Result<Children, ScoreFailure>;
}

/// An engine of one's own, which nobody else asks.
impl Ask for Engine {
    fn ask(&mut self, call: Tokens, omits: Vec<Vec<Range<usize>>>) -> Result<Children, ScoreFailure> {
        Ok(score_children(self, call, &omits)?)
    }
}

/// The node's engine, which has other work as well: scores come last.
pub(crate) struct Shared {
    pub(crate) thread: EngineThread,
    pub(crate) meter: Meter,
    /// Ends what is under way.
    pub(crate) stop: CancellationToken,
}

impl Ask for Shared {
    fn ask(&mut self, call: Tokens, omits: Vec<Vec<Range<usize>>>) -> Result<Children, ScoreFailure> {
        let scores = Scores { call: Tokens { class: CLASS, ..call }, omits };
        let refused = |refused: crate::engine_thread::RefusedJob| ScoreFailure::Refused(refused.why);
        let mut running = self.thread.score(scores, &self.stop).map_err(refused)?;
        match running.events.blocking_recv() {
            Some(JobEvent::Scored(found)) => {
                self.meter.count(found.spent.all() as u64);
                Ok(*found)
            }
            Some(JobEvent::Refused(why)) => Err(refused(why)),
            Some(JobEvent::Token { .. } | JobEvent::End { .. }) | None => Err(ScoreFailure::Gone),
        }
    }
}

pub(crate) struct EngineScorer<A> {
    pub(super) engine: A,
    text: Arc<TextModel>,
    window: usize,
    sha256: String,
    /// What every context begins with, and belongs to no segment.
    pub(super) start: Vec<u32>,
    /// Whose keys and values are shared.
    pub(super) scope: [u8; 32],
}

impl EngineScorer<Engine> {
    /// `sha256` is that of the model's file.
    pub(crate) fn own(engine: Engine, sha256: String) -> Result<Self, ScoreFailure> {
        let (text, window) = (engine.text(), engine.info().window);
        let start = start(&text)?;
        Ok(EngineScorer { engine, text, window, sha256, start, scope: [0; 32] })
    }
}

impl EngineScorer<Shared> {
    /// `scope` separates what is kept for one project from another's.
    pub(crate) fn shared(
        model: &LoadedModel,
        sha256: String,
        scope: [u8; 32],
        meter: Meter,
        stop: CancellationToken,
    ) -> Result<Self, ScoreFailure> {
        let (text, window) = (model.text.clone(), model.window() as usize);
        let start = start(&text)?;
        let engine = Shared { thread: model.thread.clone(), meter, stop };
        Ok(EngineScorer { engine, text, window, sha256, start, scope })
    }
}

impl<A: Ask> EngineScorer<A> {
    fn ids(&self, text: &str) -> Result<Vec<u32>, ScoreFailure> {
        Ok(self.text.tokenizer.encode(text, false).map_err(ScoreError::from)?)
    }

    /// A context of these pieces, in this order.
    fn tokens(&self, call: &Tokenised, pieces: impl Iterator<Item = usize>) -> Tokens {
        let context = self.start.iter().chain(pieces.flat_map(|at| call.piece(at))).copied().collect();
        let (probe, action) = (call.probe.clone(), call.action.clone());
        Tokens { scope: self.scope, context, probe, action, ..Tokens::default() }
    }

    fn whole(&self, call: &Tokenised) -> Tokens {
        self.tokens(call, 0..call.segments.len())
    }

    fn exact(&mut self, call: &Tokenised, child: &Child) -> Result<f64, ScoreFailure> {
        let alone = self.tokens(call, child.kept(call.segments.len()).into_iter());
        Ok(self.engine.ask(alone, Vec::new())?.full.iter().sum())
    }
}

/// What every context begins with. Whatever stands first is leaned on by all that follows, more than its words deserve
/// ("attention sink"): were it a segment, leaving it out for the probe alone would not remove it.
const START: &str = "What follows is a record of messages. It begins here, and every message stands on a line of its own. \
    Nothing was said before. The weather is fine, the day is long, and there is nothing else to be told of it.\n\n";

fn start(text: &TextModel) -> Result<Vec<u32>, ScoreFailure> {
    let tokenizer = &text.tokenizer;
    let begins = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    let said = tokenizer.encode(START, false).map_err(ScoreError::from)?;
    Ok(begins.into_iter().chain(said).collect())
}

/// In hexadecimal digits. Reads the whole file.
pub(crate) fn sha256(file: &Path) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(file)?, &mut hash)?;
    let mut text = String::new();
    hash.finalize().iter().for_each(|byte| _ = write!(text, "{byte:02x}"));
    Ok(text)
}

/// Where each segment lies in a context that has all of them, one after another.
fn segments(start: usize, call: &Tokenised) -> Vec<Range<usize>> {
    let mut end = start;
    let place = |ids: &Vec<u32>| {
        let begin = end;
        end += ids.len();
        begin..end
    };
    call.segments.iter().map(place).collect()
}

impl<A: Ask> Scorer for EngineScorer<A> {
    type Error = ScoreFailure;

    fn model_sha256(&self) -> String {
        self.sha256.clone()
    }

    fn window(&self) -> usize {
        // The last token of the action is not read.
        (self.window + 1).saturating_sub(self.start.len())
    }

    fn tokenise(&mut self, call: &Call) -> Result<Tokenised, ScoreFailure> {
        let ids = |segments: &[evaluate::Segment]| -> Result<Vec<Vec<u32>>, ScoreFailure> {
            segments.iter().map(|segment| self.ids(&segment.text)).collect()
        };
        Ok(Tokenised {
            segments: ids(&call.segments)?,
            withheld: ids(call.withheld())?,
            probe: self.ids(&call.probe)?,
            action: self.ids(&call.action)?,
        })
    }

    fn score(&mut self, call: &Tokenised, children: &[Child]) -> Result<Vec<f64>, ScoreFailure> {
        let places = segments(self.start.len(), call);
        let masked: Vec<&Child> = children.iter().filter(|child| child.how == How::Masked).collect();
        let omit = |child: &&Child| -> Vec<Range<usize>> {
            child.omitted(places.len()).into_iter().map(|at| places[at].clone()).collect()
        };
        let omits: Vec<Vec<Range<usize>>> = masked.iter().map(omit).collect();
        let whole = self.whole(call);
        let found = match omits.is_empty() {
            true => Vec::new(),
            false => self.engine.ask(whole, omits)?.children,
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

    fn observe(&mut self, call: &Tokenised) -> Result<Observed, ScoreFailure> {
        let whole = Tokens { segments: segments(self.start.len(), call), bits: true, ..self.whole(call) };
        let found = self.engine.ask(whole, Vec::new())?;
        Ok(Observed { attention: Some(found.attention), bits: Some(found.bits) })
    }
}
