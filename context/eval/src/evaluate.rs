//! From recorded calls to a report: the order of things. Everything that computes is behind [`Scorer`].

use crate::call::Call;
use crate::duplicates::Duplicates;
use crate::judge::{self, AUDIT_NATS, GATE_NATS, Values, Verdict};
use crate::measure::{self, Audited, Measured};
use crate::plan::{Audit, Meaning};
use crate::report::{CallReport, Over, Report, SegmentReport, Skipped, SummaryReport, WithheldReport, round};
use crate::scorer::{Observed, Scorer, Tokenised};
use crate::sharing;
use std::collections::BTreeMap;

/// What the caller of an evaluation decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    pub audit: Audit,
    /// Refuse the report where masked and exact removal differ by more. Infinite to measure by how much they do.
    pub audit_limit_nats: f64,
    /// At most so many computed tokens, audit included; calls beyond it are listed as skipped.
    pub budget_tokens: Option<u64>,
    /// Of an action so many tokens are scored: long ones dilute what mattered.
    pub action_tokens: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let audit = Audit::default();
        Settings { audit, audit_limit_nats: AUDIT_NATS, budget_tokens: None, action_tokens: 64 }
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError<E: std::error::Error + 'static> {
    #[error(transparent)]
    Scorer(E),
    #[error(
        "call {call}: the engine answered with scores that are missing or no numbers; this is a bug of the engine"
    )]
    Scores { call: String },
    #[error(
        "call {call}: the tokens don't belong to its segments, or probe or action have none; this is a bug of the engine"
    )]
    Tokens { call: String },
    #[error(
        "call {call}: leaving out segment {segment:?} costs {masked:.2} nats by masking and {exact:.2} nats when the \
         rest is computed anew; masking can't be trusted here, so there is no report; evaluate this call with another model, \
         or leave it out"
    )]
    Refused { call: String, segment: String, masked: f64, exact: f64 },
}

/// Evaluates calls in their order. What of it is said depends on the calls, the settings and the scorer's answers alone.
///
/// # Errors
/// The scorer's, or a report that its own audit refuses.
pub fn evaluate<S: Scorer>(
    calls: &[Call],
    settings: &Settings,
    scorer: &mut S,
) -> Result<Report, EvaluateError<S::Error>> {
    let tokens = calls.iter().map(|call| tokenise(call, settings, scorer));
    let tokens = tokens.collect::<Result<Vec<Tokenised>, _>>()?;
    let duplicates = Duplicates::find(calls, &tokens);
    let mut report = Report { model_sha256: scorer.model_sha256(), ..Report::default() };
    let mut left = settings.budget_tokens;
    for (index, call) in calls.iter().enumerate() {
        if let Some((over, why)) =
            unfit(call, &tokens[index], &duplicates, index, scorer, (settings.audit, left))
        {
            report.skipped.push(Skipped { call: call.name.clone(), why, over });
            continue;
        }
        let one = One { calls, tokens: &tokens, duplicates: &duplicates, index, settings };
        let done = one.evaluate(scorer)?;
        left = left.map(|left| left.saturating_sub(done.costs.spent() + done.costs.audit));
        report.calls.push(done);
    }
    report.pairs = sharing::pairs(&report.calls);
    Ok(report)
}

/// The tokens of a call, checked, its action cut to what is scored.
pub(crate) fn tokenise<S: Scorer>(
    call: &Call,
    settings: &Settings,
    scorer: &mut S,
) -> Result<Tokenised, EvaluateError<S::Error>> {
    let mut tokens = scorer.tokenise(call).map_err(EvaluateError::Scorer)?;
    tokens.action.truncate(settings.action_tokens.max(1));
    let fits = tokens.segments.len() == call.segments.len() && tokens.withheld.len() == call.withheld().len();
    let usable = fits && !tokens.action.is_empty() && !tokens.probe.is_empty();
    if usable { Ok(tokens) } else { Err(EvaluateError::Tokens { call: call.name.clone() }) }
}

/// Why a call is not evaluated: it doesn't fit the window, or what is left of the budget.
fn unfit(
    call: &Call,
    tokens: &Tokenised,
    duplicates: &Duplicates,
    index: usize,
    scorer: &impl Scorer,
    (audit, left): (Audit, Option<u64>),
) -> Option<(Over, String)> {
    let (needed, window) = (needed(call, tokens), scorer.window());
    if needed > window as u64 {
        let why = format!(
            "{needed} tokens, the model's window is {window}; evaluate it with a model of a longer window"
        );
        return Some((Over::Window, why));
    }
    let most = measure::most(tokens, duplicates.clusters(index).len(), &originals(call), audit, scorer);
    let left = left.filter(|left| most > *left)?;
    let why = format!("may cost {most} tokens, {left} are left of the budget; raise the budget");
    Some((Over::Budget, why))
}

/// Tokens of the longest child.
pub(crate) fn needed(call: &Call, tokens: &Tokenised) -> u64 {
    let size = |at: &usize| tokens.withheld[*at].len() as u64;
    let put_back = originals(call).iter().map(|(_, of)| of.iter().map(size).sum::<u64>()).max();
    let inserted = tokens.withheld.iter().map(|ids| ids.len() as u64).max();
    tokens.context_tokens() + tokens.probe_tokens() + put_back.max(inserted).unwrap_or(0)
}

/// The place of each summary, and which withheld segments it stands for.
fn originals(call: &Call) -> Vec<(usize, Vec<usize>)> {
    let places: BTreeMap<&str, usize> =
        call.withheld().iter().enumerate().map(|(at, segment)| (segment.id.as_str(), at)).collect();
    let summaries = call.segments.iter().enumerate().filter(|(_, segment)| !segment.replaces.is_empty());
    summaries
        .map(|(at, segment)| {
            (at, segment.replaces.iter().filter_map(|id| places.get(id.as_str()).copied()).collect())
        })
        .collect()
}

/// One of the calls.
struct One<'a> {
    calls: &'a [Call],
    tokens: &'a [Tokenised],
    duplicates: &'a Duplicates,
    index: usize,
    settings: &'a Settings,
}

impl One<'_> {
    fn call(&self) -> &Call {
        &self.calls[self.index]
    }

    fn evaluate<S: Scorer>(&self, scorer: &mut S) -> Result<CallReport, EvaluateError<S::Error>> {
        let tokens = &self.tokens[self.index];
        // First: it reads the whole context, and leaves it in the engine's cache.
        let seen = scorer.observe(tokens).map_err(EvaluateError::Scorer)?;
        let mut measured = Measured::begin(self.call(), tokens, scorer)?;
        let mut report = self.bare(&seen);
        report.gain_nats = round(measured.gain());
        report.gated = measured.gain() <= GATE_NATS;
        if !report.gated {
            self.judge(&mut measured, &mut report)?;
        }
        report.costs = measured.costs;
        report.tokens_spent = measured.costs.spent();
        let every = self.settings.audit == Audit::Every;
        report.audit_tokens = report.audit_max_nats.filter(|_| every).map(|_| measured.costs.audit);
        Ok(report)
    }

    fn judge<S: Scorer>(
        &self,
        measured: &mut Measured<'_, S>,
        report: &mut CallReport,
    ) -> Result<(), EvaluateError<S::Error>> {
        let (values, tau) = measured.values(self.duplicates, self.index)?;
        report.tau = Some(round(tau));
        for (segment, values) in report.segments.iter_mut().zip(&values) {
            self.enter(segment, values, tau);
        }
        let dropped = measured.trim(&values)?;
        let tokens = &self.tokens[self.index].segments;
        report.removable_tokens = Some(dropped.iter().map(|&at| tokens[at].len() as u64).sum());
        self.withheld(measured, report, tau)?;
        self.audit(measured, report, &values)
    }

    fn enter(&self, segment: &mut SegmentReport, values: &Values, tau: f64) {
        segment.verdict = judge::verdict(values, tau, segment.owner != self.call().reader);
        segment.necessity = Some(round(values.necessity));
        segment.sufficiency = Some(round(values.sufficiency));
        segment.cluster_out = values.cluster_out.map(round);
        if segment.verdict == Verdict::RedundantWith && values.cluster_out.is_some_and(|out| out >= tau) {
            let ids = values.with.iter().map(|&at| self.call().segments[at].id.clone());
            segment.redundant_with = ids.collect();
        }
    }

    fn withheld<S: Scorer>(
        &self,
        measured: &mut Measured<'_, S>,
        report: &mut CallReport,
        tau: f64,
    ) -> Result<(), EvaluateError<S::Error>> {
        let originals = originals(self.call());
        measured.withheld(&originals)?;
        let compacted = |at: &usize| originals.iter().any(|(_, of)| of.contains(at));
        let tokens = &self.tokens[self.index];
        let looked =
            (0..tokens.withheld.len()).filter(|at| !compacted(at) && !tokens.withheld[*at].is_empty());
        report.withheld = looked.map(|at| self.inserted(measured, at, tau)).collect();
        report.summaries = originals.iter().map(|(at, _)| self.summary(measured, *at)).collect();
        Ok(())
    }

    fn inserted<S: Scorer>(&self, measured: &Measured<'_, S>, at: usize, tau: f64) -> WithheldReport {
        let gain = measured.of(Meaning::Inserted(at)) - measured.full();
        let segment = &self.call().withheld()[at];
        WithheldReport {
            id: segment.id.clone(),
            owner: segment.owner.clone(),
            tokens: self.tokens[self.index].withheld[at].len() as u64,
            gain_nats: round(gain),
            mattered: gain >= tau,
        }
    }

    fn summary<S: Scorer>(&self, measured: &Measured<'_, S>, at: usize) -> SummaryReport {
        let (originals, neither) =
            (measured.of(Meaning::Originals(at)), measured.of(Meaning::WithoutSummary(at)));
        let tokens = self.tokens[self.index].segments[at].len() as u64;
        let retention = judge::retention(measured.full(), originals, neither);
        let per_100_tokens = retention.filter(|_| tokens > 0).map(|kept| round(kept * 100.0 / tokens as f64));
        let id = self.call().segments[at].id.clone();
        SummaryReport { id, tokens, retention: retention.map(round), per_100_tokens }
    }

    fn audit<S: Scorer>(
        &self,
        measured: &mut Measured<'_, S>,
        report: &mut CallReport,
        values: &[Values],
    ) -> Result<(), EvaluateError<S::Error>> {
        if !self.settings.audit.covers(self.call().chain()) {
            return Ok(());
        }
        let every = self.settings.audit == Audit::Every;
        for Audited { at, masked, exact } in measured.audit(values, every)? {
            let differ = (masked - exact).abs();
            report.segments[at].exact = every.then(|| round(exact));
            if differ > self.settings.audit_limit_nats && !every {
                let (call, segment) = (self.call().name.clone(), self.call().segments[at].id.clone());
                return Err(EvaluateError::Refused { call, segment, masked, exact });
            }
            let most = report.audit_max_nats.unwrap_or(0.0).max(round(differ));
            report.audit_max_nats = Some(most);
        }
        Ok(())
    }

    /// What is known before anything is judged.
    fn bare(&self, seen: &Observed) -> CallReport {
        let call = self.call();
        let segments = (0..call.segments.len()).map(|at| self.bare_segment(at, seen)).collect();
        CallReport {
            call: call.name.clone(),
            index: self.index,
            reader: call.reader.clone(),
            looked_for_withheld: call.withheld.is_some(),
            probe_tokens: self.tokens[self.index].probe_tokens(),
            segments,
            ..CallReport::default()
        }
    }

    fn bare_segment(&self, at: usize, seen: &Observed) -> SegmentReport {
        let segment = &self.call().segments[at];
        let figure =
            |figures: &Option<Vec<f64>>| figures.as_ref().and_then(|f| f.get(at)).copied().map(round);
        SegmentReport {
            id: segment.id.clone(),
            owner: segment.owner.clone(),
            kind: segment.kind.clone(),
            tokens: self.tokens[self.index].segments[at].len() as u64,
            dup_of: self.duplicates.repeats((self.index, at)).map(|place| self.name(place)),
            attention: figure(&seen.attention),
            bits: figure(&seen.bits),
            necessity: None,
            sufficiency: None,
            cluster_out: None,
            exact: None,
            verdict: Verdict::Blind,
            redundant_with: Vec::new(),
        }
    }

    /// A segment's id; with its call where this call means another segment by it.
    fn name(&self, (call, at): (usize, usize)) -> String {
        let id = &self.calls[call].segments[at].id;
        let taken = self.call().segments.iter().any(|segment| segment.id == *id);
        if call != self.index && taken { format!("{}/{id}", self.calls[call].name) } else { id.clone() }
    }
}
