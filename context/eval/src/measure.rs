//! One call, measured: asks the scorer in few batches, keeps the answers and counts what they cost.

use crate::call::Call;
use crate::duplicates::Duplicates;
use crate::evaluate::EvaluateError;
use crate::judge::{self, Values};
use crate::plan::{self, Audit, Child, Meaning};
use crate::scorer::{Scorer, Tokenised};
use crate::trim::{self, Trim};
use std::collections::BTreeMap;

/// Tokens that an evaluation computed, by what for; none depends on what a cache held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Costs {
    /// Gate, necessity, sufficiency, clusters.
    pub scores: u64,
    /// The search for what can go.
    pub trim: u64,
    /// What was inserted or put back.
    pub withheld: u64,
    /// Exact removals.
    pub audit: u64,
}

impl Costs {
    /// All but the audit, which stands on a line of its own.
    pub fn spent(&self) -> u64 {
        self.scores + self.trim + self.withheld
    }
}

/// What an answer-based evaluation of the same question would compute: every segment left out once and nothing left out,
/// each four times because answers differ, with 64 tokens of an answer.
pub fn answer_based(segments: u64, context_tokens: u64) -> u64 {
    (segments + 1) * 4 * (context_tokens + 64)
}

/// The most that a call can cost, audit included, before anything of it is known but its tokens.
pub(crate) fn most(
    call: &Tokenised,
    clusters: usize,
    originals: &[(usize, Vec<usize>)],
    audit: Audit,
    scorer: &impl Scorer,
) -> u64 {
    let n = call.segments.len();
    let again = plan::gate().iter().map(|child| scorer.again(call, child)).max().unwrap_or(0);
    let pairs = (plan::PAIRED * (plan::PAIRED - 1) / 2) as u64;
    let masked = 2 + 2 * n as u64 + clusters as u64 + 1 + pairs + trim::most_children(n);
    let audited = if audit == Audit::Every { n } else { 2 * plan::AUDIT_TOP };
    let audits = audited as u64 * (call.context_tokens() + call.probe_tokens());
    let withheld: u64 = plan::withheld(call, originals).iter().map(|child| child.tokens(call)).sum();
    masked * (call.probe_tokens() + again) + audits + withheld
}

/// The necessity of one segment, found in both ways.
pub(crate) struct Audited {
    pub(crate) at: usize,
    pub(crate) masked: f64,
    pub(crate) exact: f64,
}

/// A call under measurement.
pub(crate) struct Measured<'a, S: Scorer> {
    pub(crate) call: &'a Call,
    pub(crate) tokens: &'a Tokenised,
    scorer: &'a mut S,
    scores: BTreeMap<Meaning, f64>,
    pub(crate) costs: Costs,
}

/// Which line of the costs pays.
type Line = fn(&mut Costs) -> &mut u64;
const SCORES: Line = |costs| &mut costs.scores;
const TRIM: Line = |costs| &mut costs.trim;
const WITHHELD: Line = |costs| &mut costs.withheld;
const AUDIT: Line = |costs| &mut costs.audit;

impl<'a, S: Scorer> Measured<'a, S> {
    /// Scores the gate.
    pub(crate) fn begin(
        call: &'a Call,
        tokens: &'a Tokenised,
        scorer: &'a mut S,
    ) -> Result<Self, EvaluateError<S::Error>> {
        let (scores, costs) = (BTreeMap::new(), Costs::default());
        let mut measured = Measured { call, tokens, scorer, scores, costs };
        measured.ask(&plan::gate(), SCORES)?;
        Ok(measured)
    }

    /// What the whole context is worth, in nats.
    pub(crate) fn gain(&self) -> f64 {
        self.full() - self.of(Meaning::None)
    }

    pub(crate) fn full(&self) -> f64 {
        self.of(Meaning::Full)
    }

    /// A score that was asked for. Only what was asked is ever looked up.
    pub(crate) fn of(&self, meaning: Meaning) -> f64 {
        self.scores[&meaning]
    }

    /// Necessity, sufficiency and clusters of every segment, and the threshold.
    pub(crate) fn values(
        &mut self,
        duplicates: &Duplicates,
        index: usize,
    ) -> Result<(Vec<Values>, f64), EvaluateError<S::Error>> {
        let clusters = duplicates.clusters(index);
        self.ask(&plan::children(self.tokens, &clusters), SCORES)?;
        let mut values: Vec<Values> = (0..self.tokens.segments.len()).map(|at| self.value(at)).collect();
        let filled = values.iter().enumerate().filter(|(at, _)| !self.tokens.segments[*at].is_empty());
        let necessities: Vec<f64> = filled.map(|(_, values)| values.necessity).collect();
        let tau = judge::tau(self.gain(), &necessities);
        for (at, members) in clusters.iter().enumerate() {
            let loss = self.full() - self.of(Meaning::WithoutCluster(at));
            judge::enter_cluster(&mut values, members, loss);
        }
        self.stand_ins(&mut values, tau)?;
        Ok((values, tau))
    }

    fn value(&self, at: usize) -> Values {
        if self.tokens.segments[at].is_empty() {
            return Values::default();
        }
        let necessity = self.full() - self.of(Meaning::Without(at));
        let sufficiency = self.of(Meaning::Alone(at)) - self.of(Meaning::None);
        Values { necessity, sufficiency, ..Values::default() }
    }

    /// Finds those that say the same in other words: enough alone, not missed one by one, missed together.
    fn stand_ins(&mut self, values: &mut [Values], tau: f64) -> Result<(), EvaluateError<S::Error>> {
        let candidates = judge::candidates(values, tau);
        self.ask(&plan::candidates(&candidates), SCORES)?;
        let Some(&without) = self.scores.get(&Meaning::WithoutCandidates) else { return Ok(()) };
        let together = self.full() - without;
        if together < tau {
            return Ok(());
        }
        self.ask(&plan::pairs(&candidates), SCORES)?;
        for (members, loss) in judge::stand_ins(&candidates, together, &self.pair_losses(), tau) {
            judge::enter_cluster(values, &members, loss);
        }
        Ok(())
    }

    fn pair_losses(&self) -> BTreeMap<(usize, usize), f64> {
        let pairs = self.scores.iter().filter_map(|(meaning, score)| match meaning {
            Meaning::WithoutPair(one, other) => Some(((*one, *other), self.full() - score)),
            _ => None,
        });
        pairs.collect()
    }

    /// What can go at a small loss, ascending.
    pub(crate) fn trim(&mut self, values: &[Values]) -> Result<Vec<usize>, EvaluateError<S::Error>> {
        let mut trim = Trim::new(trim::order(values), self.full());
        while let Some(child) = trim.next() {
            let score = self.try_one(child)?;
            trim.heard(score);
        }
        Ok(trim.dropped())
    }

    /// One more child of the search.
    pub(crate) fn try_one(&mut self, child: Child) -> Result<f64, EvaluateError<S::Error>> {
        let meaning = child.meaning;
        self.ask(&[child], TRIM)?;
        Ok(self.of(meaning))
    }

    pub(crate) fn withheld(
        &mut self,
        originals: &[(usize, Vec<usize>)],
    ) -> Result<(), EvaluateError<S::Error>> {
        self.ask(&plan::withheld(self.tokens, originals), WITHHELD)
    }

    /// Repeats some removals exactly.
    pub(crate) fn audit(
        &mut self,
        values: &[Values],
        every: bool,
    ) -> Result<Vec<Audited>, EvaluateError<S::Error>> {
        let mut ranked: Vec<usize> =
            (0..values.len()).filter(|&at| !self.tokens.segments[at].is_empty()).collect();
        ranked.sort_by(|&a, &b| values[b].necessity.total_cmp(&values[a].necessity).then(a.cmp(&b)));
        let children = plan::audit(self.call.chain(), &ranked, every);
        self.ask(&children, AUDIT)?;
        let audited = self.scores.iter().filter_map(|(meaning, score)| match meaning {
            Meaning::Audit(at) => {
                Some(Audited { at: *at, masked: values[*at].necessity, exact: self.full() - score })
            }
            _ => None,
        });
        Ok(audited.collect())
    }

    fn ask(&mut self, children: &[Child], line: Line) -> Result<(), EvaluateError<S::Error>> {
        if children.is_empty() {
            return Ok(());
        }
        let scores = self.scorer.score(self.tokens, children).map_err(EvaluateError::Scorer)?;
        if scores.len() != children.len() || !scores.iter().all(|score| score.is_finite()) {
            return Err(EvaluateError::Scores { call: self.call.name.clone() });
        }
        let tokens = |child: &Child| child.tokens(self.tokens) + self.scorer.again(self.tokens, child);
        *line(&mut self.costs) += children.iter().map(tokens).sum::<u64>();
        self.scores.extend(children.iter().map(|child| child.meaning).zip(scores));
        Ok(())
    }
}
