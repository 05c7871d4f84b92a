//! From log-likelihoods to numbers, and from numbers to a verdict. All in nats unless it says bits.

use std::collections::BTreeMap;

/// A context that helps by no more than this ranks noise: nothing is said about its segments.
pub const GATE_NATS: f64 = 1.0;
/// The least threshold: segments that don't matter were measured up to 0.8 nat, by exact removal as well.
pub const TAU_LEAST_NATS: f64 = 1.0;
/// Below so many segments median and spread say nothing about noise.
const SPREAD_SEGMENTS: usize = 8;
/// Loss that removing segments may cost in all.
pub const LOSS_NATS: f64 = 0.5;
/// Where masked and exact removal differ by more, masking can't be trusted here and the report is refused.
pub const AUDIT_NATS: f64 = 2.0;

/// What became of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Without it, what was done is less likely by tau or more.
    Essential,
    /// Would be, but others say the same.
    RedundantWith,
    /// Makes no difference, present or alone.
    Inert,
    /// Without it, what was done is *more* likely by tau or more.
    Harmful,
    /// Inert, and another's.
    ForeignInert,
    /// The context as a whole made no difference: nothing can be said.
    Blind,
}

impl Verdict {
    pub const ALL: [Verdict; 6] = [
        Verdict::Essential,
        Verdict::RedundantWith,
        Verdict::Inert,
        Verdict::Harmful,
        Verdict::ForeignInert,
        Verdict::Blind,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Verdict::Essential => "essential",
            Verdict::RedundantWith => "redundant-with",
            Verdict::Inert => "inert",
            Verdict::Harmful => "harmful",
            Verdict::ForeignInert => "foreign-inert",
            Verdict::Blind => "blind",
        }
    }

    /// Whether sending it was of use.
    pub fn mattered(self) -> bool {
        matches!(self, Verdict::Essential | Verdict::RedundantWith)
    }
}

/// What was measured of a segment.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Values {
    /// Loss when it alone is left out.
    pub necessity: f64,
    /// Gain over nothing when it alone is there.
    pub sufficiency: f64,
    /// Loss when all that say the same are left out; none where it is alone.
    pub cluster_out: Option<f64>,
    /// The others of the cluster that `cluster_out` was measured with.
    pub with: Vec<usize>,
}

impl Values {
    /// What the segment is worth to rank it: needed, or enough.
    pub fn worth(&self) -> f64 {
        self.necessity.max(self.sufficiency)
    }
}

/// The threshold: one nat, or what stands out of the noise of this call's necessities (median and six times the median
/// deviation), but never more than half of what the whole context is worth, so that where most segments matter they
/// don't pass for the noise.
pub fn tau(gain: f64, necessities: &[f64]) -> f64 {
    if necessities.len() < SPREAD_SEGMENTS {
        return TAU_LEAST_NATS;
    }
    let middle = median(necessities.to_vec());
    let deviation = median(necessities.iter().map(|value| (value - middle).abs()).collect());
    (middle + 6.0 * deviation).min(gain / 2.0).max(TAU_LEAST_NATS)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

/// The verdict on one segment of a call that passed the gate.
pub fn verdict(values: &Values, tau: f64, foreign: bool) -> Verdict {
    let covered = values.cluster_out.is_some_and(|out| out >= tau);
    match values {
        v if v.necessity >= tau => Verdict::Essential,
        v if v.necessity <= -tau => Verdict::Harmful,
        // Enough alone and not missed means that something else says it, found or not.
        v if v.sufficiency >= tau || (covered && !v.with.is_empty()) => Verdict::RedundantWith,
        _ if foreign => Verdict::ForeignInert,
        _ => Verdict::Inert,
    }
}

/// Segments that are enough alone and not missed: others must say the same. The most sufficient first.
pub(crate) fn candidates(values: &[Values], tau: f64) -> Vec<usize> {
    let stands_in = |v: &Values| v.necessity < tau && v.necessity > -tau && v.sufficiency >= tau;
    let covered = |v: &Values| v.cluster_out.is_some_and(|out| out >= tau);
    let mut found: Vec<usize> =
        (0..values.len()).filter(|&at| stands_in(&values[at]) && !covered(&values[at])).collect();
    found.sort_by(|&a, &b| values[b].sufficiency.total_cmp(&values[a].sufficiency).then(a.cmp(&b)));
    found
}

/// Enters a cluster and its loss into the values of its members.
pub(crate) fn enter_cluster(values: &mut [Values], members: &[usize], loss: f64) {
    for &at in members {
        values[at].cluster_out = Some(loss);
        values[at].with = members.iter().copied().filter(|other| *other != at).collect();
    }
}

/// Which candidates stand for each other: those that are missed in pairs, joined; without such a pair all of them, if they
/// are missed together. Each with the loss that says so.
pub(crate) fn stand_ins(
    candidates: &[usize],
    together: f64,
    pairs: &BTreeMap<(usize, usize), f64>,
    tau: f64,
) -> Vec<(Vec<usize>, f64)> {
    let place = |at: usize| candidates.iter().position(|c| *c == at).unwrap_or(0);
    let missed = pairs.iter().filter(|(_, loss)| **loss >= tau);
    let links: Vec<(usize, usize)> = missed.map(|(&(one, other), _)| (place(one), place(other))).collect();
    if links.is_empty() {
        let mut all = candidates.to_vec();
        all.sort_unstable();
        return vec![(all, together)];
    }
    let groups = crate::duplicates::joined(candidates.len(), links);
    groups.into_iter().map(|group| linked(candidates, &group, pairs)).collect()
}

fn linked(candidates: &[usize], group: &[usize], pairs: &BTreeMap<(usize, usize), f64>) -> (Vec<usize>, f64) {
    let mut members: Vec<usize> = group.iter().map(|&at| candidates[at]).collect();
    members.sort_unstable();
    let inside = pairs.iter().filter(|((a, b), _)| members.contains(a) && members.contains(b));
    let most = inside.map(|(_, loss)| *loss).fold(f64::NEG_INFINITY, f64::max);
    (members, most)
}

/// The part of what the originals were worth that their summary keeps: 1 is all, 0 nothing. None where they were worth
/// no more than the gate, so there was nothing to keep.
pub fn retention(summary: f64, originals: f64, neither: f64) -> Option<f64> {
    let worth = originals - neither;
    (worth > GATE_NATS).then(|| (summary - neither) / worth)
}
