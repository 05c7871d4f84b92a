//! What agents gave each other: how much of it was of use, and how much of what would have been was given.

use crate::report::{CallReport, Pair, round};
use std::collections::BTreeMap;

#[derive(Default)]
struct Given {
    tokens: u64,
    useful_tokens: u64,
    /// Segments that matter in calls where somebody looked at what was withheld: received, and not.
    useful: u64,
    missed: u64,
}

/// Per pair of owner and reader, over all calls that passed the gate.
pub(crate) fn pairs(calls: &[CallReport]) -> Vec<Pair> {
    let mut given: BTreeMap<(&str, &str), Given> = BTreeMap::new();
    for call in calls.iter().filter(|call| !call.gated) {
        received(call, &mut given);
        missed(call, &mut given);
    }
    given.into_iter().map(|((from, to), given)| pair(from, to, &given)).collect()
}

fn received<'c>(call: &'c CallReport, given: &mut BTreeMap<(&'c str, &'c str), Given>) {
    for segment in call.segments.iter().filter(|segment| segment.owner != call.reader) {
        let entry = given.entry((&segment.owner, &call.reader)).or_default();
        entry.tokens += segment.tokens;
        if segment.verdict.mattered() {
            entry.useful_tokens += segment.tokens;
            entry.useful += u64::from(call.looked_for_withheld);
        }
    }
}

fn missed<'c>(call: &'c CallReport, given: &mut BTreeMap<(&'c str, &'c str), Given>) {
    for withheld in call.withheld.iter().filter(|withheld| withheld.owner != call.reader) {
        let entry = given.entry((&withheld.owner, &call.reader)).or_default();
        entry.missed += u64::from(withheld.mattered);
    }
}

fn pair(from: &str, to: &str, given: &Given) -> Pair {
    let share = |part: u64, of: u64| (of > 0).then(|| round(part as f64 / of as f64));
    Pair {
        from: from.to_string(),
        to: to.to_string(),
        precision: share(given.useful_tokens, given.tokens),
        recall: share(given.useful, given.useful + given.missed),
    }
}
