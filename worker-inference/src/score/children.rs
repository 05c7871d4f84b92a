//! What one recorded call owes to each part of its context: the call's action scored with parts left out, all over
//! one set of keys and values.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::ScoreError;
use crate::engine::{Engine, Event, ScoreRequest, Usage};
use crate::prefix::Scope;
use crate::scheduler::SubmitError;
use crate::sequence::SequenceId;

/// A call that an agent has made, in tokens: `context`, then `probe`, then `action` is what the model read and wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    /// Only calls of the same scope share cached keys and values.
    pub scope: Scope,
    /// Everything whose worth is asked for; at least one token.
    pub context: Vec<u32>,
    /// What every child reads after it, such as the instruction; at least one token.
    pub probe: Vec<u32>,
    /// What the agent did: the tokens that are scored; at least one.
    pub action: Vec<u32>,
    /// The context's segments, ascending, for [`Children::attention`] and [`Children::bits`]; may have gaps, may be
    /// empty, and none need be given.
    pub segments: Vec<Range<usize>>,
    /// Whether [`Children::bits`] are wanted: one pass over the context, which leaves its keys and values behind.
    pub bits: bool,
    /// Smaller is more urgent.
    pub class: u8,
}

/// What came of a call and its children. Log-likelihoods are natural logarithms, one a token of the action.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Children {
    /// After the whole context.
    pub full: Vec<f64>,
    /// After the context without what each child leaves out, in the order asked.
    pub children: Vec<Vec<f64>>,
    /// The share of each segment in the attention of the action after the whole context: the softmax weights of its
    /// tokens, as a mean over the rows that ask for a token of the action, over query heads and over the last quarter
    /// of the layers. Shares of all that a row sees add up to 1. A hint for triage, not evidence.
    pub attention: Vec<f64>,
    /// Bits of each segment given what stands before: the sum of `-log2 p` of its tokens. The context's first token
    /// stands after nothing and counts 0. Empty when nobody asked.
    pub bits: Vec<f64>,
    pub spent: Spent,
}

/// Rows that were computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// For the bits of segments.
    pub bits: usize,
    /// For the call with its whole context: more than its action where that was not cached.
    pub full: usize,
    pub children: usize,
}

impl Spent {
    pub fn all(&self) -> usize {
        self.bits + self.full + self.children
    }
}

/// The exact removal of some tokens: as if the call had been made without them.
#[derive(Debug, Clone, PartialEq)]
pub struct Removed {
    /// One a token of the action.
    pub log_likelihood: Vec<f64>,
    /// Rows that were computed: all behind the removed tokens.
    pub computed: usize,
}

/// Scores a call and its children; each child leaves `omits[i]` of the context out, ascending ranges. Others'
/// sequences go on meanwhile; their events come with the next [`Engine::step`].
///
/// The context is computed once, or found. A child costs the rows of probe and action but the last, and at most three of
/// the context where what is left out ends it. Probe and action see what a child keeps without gaps, as if it had moved
/// up: a gap is worth nats that no segment is. What was computed behind the left out part still knows of it; what ends the
/// context is removed exactly. The bits of the results don't depend on the cache, on other work, on how many children run
/// together or on threads: each child's are those of [`super::score_without`], with the first token of the probe as the
/// prefix's last.
pub fn score_children(
    engine: &mut Engine,
    call: Call,
    omits: &[Vec<Range<usize>>],
) -> Result<Children, ScoreError> {
    let mut run = ChildrenRun::new(engine, call, omits)?;
    let mut others = Vec::new();
    let ended = loop {
        if run.is_done() {
            break Ok(());
        }
        let stepped = run.submit(engine).and_then(|()| {
            engine.step().into_iter().try_for_each(|event| run.take(event).map(|event| others.extend(event)))
        });
        if stepped.is_err() {
            run.cancel(engine);
            break stepped;
        }
    };
    engine.keep_events(others);
    ended.map(|()| run.finish())
}

/// Scores a call anew without some tokens of its context: those behind them move up and are computed without having
/// seen them. What [`score_children`] finds by leaving tokens out is measured against this.
pub fn score_removed(
    engine: &mut Engine,
    call: &Call,
    removed: &[Range<usize>],
) -> Result<Removed, ScoreError> {
    call.check(engine)?;
    check_ranges(removed, call.context.len())?;
    let mut kept = Vec::new();
    let mut from = 0;
    for range in removed {
        kept.extend(&call.context[from..range.start]);
        from = range.end;
    }
    kept.extend(&call.context[from..]);
    let request = Call { context: kept, segments: Vec::new(), ..call.clone() }.request(&[], &[].into());
    let id = engine.submit_scoring(request)?;
    match super::run_until(engine, id) {
        Event::Scored { log_likelihood, usage, .. } => {
            Ok(Removed { log_likelihood, computed: usage.computed })
        }
        _ => Err(ScoreError::Cancelled),
    }
}

impl Call {
    fn check(&self, engine: &Engine) -> Result<(), ScoreError> {
        for (part, tokens) in [("context", &self.context), ("probe", &self.probe), ("action", &self.action)] {
            if tokens.is_empty() {
                return Err(ScoreError::NoTokens { part });
            }
        }
        let tokens = self.context.len() + self.probe.len() + self.action.len();
        let window = engine.info().window;
        // The last token is not read.
        if tokens - 1 > window {
            return Err(ScoreError::TooLong { tokens, window });
        }
        check_ranges(&self.segments, self.context.len())
    }

    fn request(&self, omit: &[Range<usize>], segments: &Arc<[Range<usize>]>) -> ScoreRequest {
        let (omit, end) = closed_up(omit, self.context.len());
        // The first token of the probe asks: so any of the context may be left out.
        ScoreRequest {
            scope: self.scope,
            prefix: [&self.context[..end], &self.probe[..1]].concat(),
            continuation: [&self.probe[1..], &self.action[..]].concat(),
            unscored: self.probe.len() - 1,
            omit: omit.to_vec(),
            segments: Arc::clone(segments),
            class: self.class,
        }
    }

    /// The context given its own beginning; None for a context of one token, which has nothing before it.
    fn bits_request(&self) -> Option<ScoreRequest> {
        let (first, rest) = self.context.split_at(1);
        let (prefix, continuation) = (first.to_vec(), rest.to_vec());
        let (scope, class) = (self.scope, self.class);
        let request = ScoreRequest { scope, prefix, continuation, class, ..ScoreRequest::default() };
        (self.bits && !rest.is_empty()).then_some(request)
    }
}

/// What is left out at the end of a context is cut off: nothing behind it knows of it.
fn closed_up(omit: &[Range<usize>], context: usize) -> (&[Range<usize>], usize) {
    let (mut inside, mut end) = (omit, context);
    while let Some((last, before)) = inside.split_last() {
        if last.end < end && !last.is_empty() {
            break;
        }
        inside = before;
        end = if last.is_empty() { end } else { last.start };
    }
    (inside, end)
}

fn check_ranges(ranges: &[Range<usize>], context: usize) -> Result<(), ScoreError> {
    let mut before = 0;
    for range in ranges {
        let Range { start, end } = *range;
        if start > end || end > context {
            return Err(ScoreError::Outside { start, end, context });
        }
        if start < before {
            return Err(ScoreError::Order { start, end, before });
        }
        before = end;
    }
    Ok(())
}

/// What one sequence of a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Bits,
    Full,
    Child(usize),
}

/// A call and its children on their way through an engine that somebody else steps: [`ChildrenRun::submit`] before
/// each step, [`ChildrenRun::take`] for each event after it, until [`ChildrenRun::is_done`].
#[derive(Debug)]
pub struct ChildrenRun {
    call: Call,
    omits: Vec<Vec<Range<usize>>>,
    segments: Arc<[Range<usize>]>,
    /// What is still to be submitted, first things first.
    next: VecDeque<Part>,
    running: BTreeMap<SequenceId, Part>,
    /// Sequences that run at the same time.
    together: usize,
    found: Children,
}

impl ChildrenRun {
    /// Checks everything that can be known before anything runs.
    pub fn new(engine: &Engine, call: Call, omits: &[Vec<Range<usize>>]) -> Result<ChildrenRun, ScoreError> {
        call.check(engine)?;
        omits.iter().try_for_each(|omit| check_ranges(omit, call.context.len()))?;
        let bits = call.bits.then_some(Part::Bits);
        let next = bits.into_iter().chain([Part::Full]).chain((0..omits.len()).map(Part::Child));
        let found = Children { children: vec![Vec::new(); omits.len()], ..Children::default() };
        Ok(ChildrenRun {
            segments: call.segments.clone().into(),
            next: next.collect(),
            omits: omits.to_vec(),
            running: BTreeMap::new(),
            together: engine.running_at_most(),
            call,
            found,
        })
    }

    /// Puts in line what may run now: the passes over the whole context one by one, so that the next finds what the
    /// one before has computed, then as many children as the engine runs together.
    pub fn submit(&mut self, engine: &mut Engine) -> Result<(), ScoreError> {
        while let Some(&part) = self.next.front() {
            let is_child = matches!(part, Part::Child(_));
            let waits = self.running.values().any(|running| !is_child || !matches!(running, Part::Child(_)));
            if waits || self.running.len() >= self.together {
                return Ok(());
            }
            match self.request(part).map(|request| engine.submit_scoring(request)) {
                Some(Ok(id)) => _ = self.running.insert(id, part),
                // Others fill the line: later.
                Some(Err(SubmitError::Busy { .. })) => return Ok(()),
                Some(Err(error)) => return Err(error.into()),
                None => self.found.bits = vec![0.0; self.segments.len()],
            }
            self.next.pop_front();
        }
        Ok(())
    }

    fn request(&self, part: Part) -> Option<ScoreRequest> {
        match part {
            Part::Bits => self.call.bits_request(),
            Part::Full => Some(self.call.request(&[], &self.segments)),
            Part::Child(child) => Some(self.call.request(&self.omits[child], &[].into())),
        }
    }

    /// Takes an event if it is about this run; gives others' back.
    pub fn take(&mut self, event: Event) -> Result<Option<Event>, ScoreError> {
        let Some(part) = self.running.remove(&event.id()) else { return Ok(Some(event)) };
        let Event::Scored { log_likelihood, attention, usage, .. } = event else {
            return Err(ScoreError::Cancelled);
        };
        self.keep(part, log_likelihood, attention, usage);
        Ok(None)
    }

    fn keep(&mut self, part: Part, log_likelihood: Vec<f64>, attention: Vec<f64>, usage: Usage) {
        let spent = &mut self.found.spent;
        match part {
            Part::Bits => {
                spent.bits += usage.computed;
                self.found.bits =
                    self.segments.iter().map(|segment| bits(&log_likelihood, segment)).collect();
            }
            Part::Full => {
                spent.full += usage.computed;
                (self.found.full, self.found.attention) = (log_likelihood, attention);
            }
            Part::Child(child) => {
                spent.children += usage.computed;
                self.found.children[child] = log_likelihood;
            }
        }
    }

    /// Nothing is left to run.
    pub fn is_done(&self) -> bool {
        self.next.is_empty() && self.running.is_empty()
    }

    /// What was found; whole once it is done.
    pub fn finish(self) -> Children {
        self.found
    }

    /// Ends what runs. Their last events are still to come: nobody knows them any more.
    pub fn cancel(&mut self, engine: &mut Engine) {
        self.next.clear();
        for id in std::mem::take(&mut self.running).into_keys() {
            engine.cancel(id);
        }
    }
}

/// Bits of a segment, from the log-likelihoods of all tokens but the first.
fn bits(log_likelihood: &[f64], segment: &Range<usize>) -> f64 {
    let (from, to) = (segment.start.saturating_sub(1), segment.end.saturating_sub(1));
    log_likelihood[from..to].iter().map(|value| -value / std::f64::consts::LN_2).sum::<f64>() + 0.0
}
