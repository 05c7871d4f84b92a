//! The smallest chain that keeps what was done as likely, and the rules that would give it.

use crate::call::{Call, Segment};
use crate::duplicates::Duplicates;
use crate::evaluate::{EvaluateError, Settings, needed, tokenise};
use crate::judge::{GATE_NATS, LOSS_NATS, Values};
use crate::measure::{Costs, Measured};
use crate::plan::{Child, Meaning};
use crate::report::round;
use crate::scorer::Scorer;
use crate::trim::{self, Trim};
use serde::Serialize;
use std::collections::BTreeSet;

/// Segments that are tried one by one after the halves: bounds the cost of a long chain.
const TRIED: usize = 32;

/// What a call could have done without.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Suggestion {
    pub call: String,
    /// Ids, in the order of the chain.
    pub kept: Vec<String>,
    pub dropped: Vec<String>,
    pub tokens_before: u64,
    pub tokens_after: u64,
    /// What is lost, computed exactly: at most half a nat.
    pub loss_nats: f64,
    /// Together they drop what is dropped, and nothing else.
    pub rules: Vec<Rule>,
    pub tokens_spent: u64,
}

impl Suggestion {
    /// As lines for a terminal.
    pub fn lines(&self) -> String {
        let Suggestion { call, tokens_before, tokens_after, loss_nats, rules, .. } = self;
        let head = format!(
            "call {call}: {tokens_after} of {tokens_before} tokens are enough, at a loss of {loss_nats:.2} nats\n"
        );
        rules.iter().fold(head, |lines, rule| lines + &format!("  {}\n", rule.describe()))
    }
}

/// A rule of compaction or visibility.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum Rule {
    /// Visibility: this reader does not get segments of this owner.
    Hide { owner: String, reader: String },
    /// Visibility: nor those of one kind.
    HideKind { owner: String, kind: String, reader: String },
    /// Compaction: of a kind only the last `last` stay.
    KeepLast { kind: String, last: usize },
    /// Compaction: these say what others say.
    SendOnce { ids: Vec<String> },
    /// Compaction: these, by name.
    LeaveOut { ids: Vec<String> },
}

impl Rule {
    /// What it drops of a call, as places.
    pub fn drops(&self, call: &Call) -> BTreeSet<usize> {
        let places = |test: &dyn Fn(&Segment) -> bool| -> BTreeSet<usize> {
            (0..call.segments.len()).filter(|&at| test(&call.segments[at])).collect()
        };
        match self {
            Rule::Hide { owner, .. } => places(&|segment| segment.owner == *owner),
            Rule::HideKind { owner, kind, .. } => {
                places(&|segment| segment.owner == *owner && segment.kind == *kind)
            }
            Rule::KeepLast { kind, last } => {
                let all: Vec<usize> = places(&|segment| segment.kind == *kind).into_iter().collect();
                all[..all.len().saturating_sub(*last)].iter().copied().collect()
            }
            Rule::SendOnce { ids } | Rule::LeaveOut { ids } => places(&|segment| ids.contains(&segment.id)),
        }
    }

    /// As a sentence.
    pub fn describe(&self) -> String {
        match self {
            Rule::Hide { owner, reader } => format!("visibility: hide what {owner} writes from {reader}"),
            Rule::HideKind { owner, kind, reader } => {
                format!("visibility: hide each {kind} of {owner} from {reader}")
            }
            Rule::KeepLast { kind, last } => format!("compaction: of each {kind} keep the last {last}"),
            Rule::SendOnce { ids } => format!("compaction: send once what is repeated in {}", ids.join(", ")),
            Rule::LeaveOut { ids } => format!("compaction: leave out {}", ids.join(", ")),
        }
    }
}

/// Why nothing is suggested for a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSuggestion {
    #[error(
        "blind here: the context is worth no more than {GATE_NATS} nat, so every removal would look free"
    )]
    Blind,
    #[error("{needed} tokens, the model's window is {window}; take a model of a longer window")]
    Window { needed: u64, window: u64 },
}

/// Finds the smallest chain of one call: the least worth first, in halves, then one by one; then exactly, putting back
/// what masking hid.
///
/// # Errors
/// The scorer's. A call that can't be judged is answered with the reason instead.
pub fn suggest<S: Scorer>(
    call: &Call,
    settings: &Settings,
    scorer: &mut S,
) -> Result<Result<Suggestion, NoSuggestion>, EvaluateError<S::Error>> {
    let tokens = tokenise(call, settings, scorer)?;
    let (needed, window) = (needed(call, &tokens), scorer.window() as u64);
    if needed > window {
        return Ok(Err(NoSuggestion::Window { needed, window }));
    }
    let duplicates = Duplicates::find(std::slice::from_ref(call), std::slice::from_ref(&tokens));
    let mut measured = Measured::begin(call, &tokens, scorer)?;
    if measured.gain() <= GATE_NATS {
        return Ok(Err(NoSuggestion::Blind));
    }
    let (values, _) = measured.values(&duplicates, 0)?;
    let order = trim::order(&values);
    let halves = measured.trim(&values)?;
    let dropped = one_by_one(&mut measured, &order, halves)?;
    let (dropped, loss) = exactly(&mut measured, &order, dropped)?;
    let sizes: Vec<u64> = tokens.segments.iter().map(|ids| ids.len() as u64).collect();
    Ok(Ok(suggestion(call, &values, &dropped, loss, &sizes, measured.costs)))
}

/// Tries what the halves left, the least worth first; the loss of all together counts.
fn one_by_one<S: Scorer>(
    measured: &mut Measured<'_, S>,
    order: &[usize],
    mut dropped: Vec<usize>,
) -> Result<Vec<usize>, EvaluateError<S::Error>> {
    let left: Vec<usize> = order.iter().copied().filter(|at| !dropped.contains(at)).take(TRIED).collect();
    for at in left {
        let tried: Vec<usize> = dropped.iter().copied().chain([at]).collect();
        let score = measured.try_one(Child::without(Meaning::Trimmed, tried.clone()))?;
        if measured.full() - score <= LOSS_NATS {
            dropped = tried;
        }
    }
    Ok(dropped)
}

/// Computes the rest anew. Where masking hid a loss, the most worth comes back, in halves, until the loss is small.
fn exactly<S: Scorer>(
    measured: &mut Measured<'_, S>,
    order: &[usize],
    dropped: Vec<usize>,
) -> Result<(Vec<usize>, f64), EvaluateError<S::Error>> {
    let loss = exact_loss(measured, Child::without(Meaning::Trimmed, dropped.clone()))?;
    if loss <= LOSS_NATS {
        return Ok((dropped, loss));
    }
    let ranked: Vec<usize> = order.iter().copied().filter(|at| dropped.contains(at)).collect();
    let mut trim = Trim::new(ranked, measured.full());
    let mut kept_loss = 0.0;
    while let Some(child) = trim.next() {
        let loss = exact_loss(measured, child)?;
        trim.heard(measured.full() - loss);
        if loss <= LOSS_NATS {
            kept_loss = loss;
        }
    }
    Ok((trim.dropped(), kept_loss))
}

fn exact_loss<S: Scorer>(
    measured: &mut Measured<'_, S>,
    child: Child,
) -> Result<f64, EvaluateError<S::Error>> {
    let score = measured.try_one(child.exact())?;
    Ok(measured.full() - score)
}

fn suggestion(
    call: &Call,
    values: &[Values],
    dropped: &[usize],
    loss: f64,
    sizes: &[u64],
    costs: Costs,
) -> Suggestion {
    let dropped: BTreeSet<usize> = dropped.iter().copied().collect();
    let ids = |kept: bool| -> Vec<String> {
        let those = (0..sizes.len()).filter(|at| dropped.contains(at) != kept);
        those.map(|at| call.segments[at].id.clone()).collect()
    };
    let before: u64 = sizes.iter().sum();
    Suggestion {
        call: call.name.clone(),
        kept: ids(true),
        dropped: ids(false),
        tokens_before: before,
        tokens_after: before - dropped.iter().map(|&at| sizes[at]).sum::<u64>(),
        loss_nats: round(loss),
        rules: rules(call, values, &dropped),
        tokens_spent: costs.spent(),
    }
}

/// The fewest rules that a person would write: by owner, by owner and kind, by age within a kind, by repetition, by name.
fn rules(call: &Call, values: &[Values], dropped: &BTreeSet<usize>) -> Vec<Rule> {
    let mut left = dropped.clone();
    let mut rules = Vec::new();
    for rule in general(call) {
        let drops = rule.drops(call);
        let new = drops.iter().filter(|at| left.contains(at)).count();
        if new > 1 && drops.is_subset(dropped) {
            left = left.difference(&drops).copied().collect();
            rules.push(rule);
        }
    }
    let copy = |at: &usize| values[*at].with.iter().any(|other| !dropped.contains(other));
    let (repeated, named): (Vec<usize>, Vec<usize>) = left.into_iter().partition(copy);
    let ids = |places: Vec<usize>| places.into_iter().map(|at| call.segments[at].id.clone()).collect();
    if !repeated.is_empty() {
        rules.push(Rule::SendOnce { ids: ids(repeated) });
    }
    if !named.is_empty() {
        rules.push(Rule::LeaveOut { ids: ids(named) });
    }
    rules
}

/// Every rule that speaks of more than names, the widest first.
fn general(call: &Call) -> Vec<Rule> {
    let others = || call.segments.iter().filter(|segment| segment.owner != call.reader);
    let reader = || call.reader.clone();
    let owners: BTreeSet<&str> = others().map(|segment| segment.owner.as_str()).collect();
    let kinds: BTreeSet<(&str, &str)> =
        others().map(|segment| (segment.owner.as_str(), segment.kind.as_str())).collect();
    let hide = owners.into_iter().map(|owner| Rule::Hide { owner: owner.into(), reader: reader() });
    let hide_kind = kinds.into_iter().map(|(owner, kind)| Rule::HideKind {
        owner: owner.into(),
        kind: kind.into(),
        reader: reader(),
    });
    hide.chain(hide_kind).chain(keep_last(call)).collect()
}

fn keep_last(call: &Call) -> impl Iterator<Item = Rule> {
    let all: BTreeSet<&str> = call.segments.iter().map(|segment| segment.kind.as_str()).collect();
    all.into_iter().flat_map(|kind| {
        let many = call.segments.iter().filter(|segment| segment.kind == kind).count().min(TRIED);
        (1..many).map(move |last| Rule::KeepLast { kind: kind.into(), last })
    })
}
