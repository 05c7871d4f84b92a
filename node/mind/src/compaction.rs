//! What a window that fills up gives up: which range is summarised.
//!
//! Decided from numbers alone. Nothing is deleted: a summary names what it replaces, and the originals stay.

use context::Kind;
use std::ops::Range;

/// One segment of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) kind: Kind,
    pub(crate) tokens: u64,
    /// Model calls since it joined; 0 is the one that is to be made.
    pub(crate) age_steps: u64,
    /// A later piece says the same or newer: a file read again, a state written again.
    pub(crate) superseded: bool,
    /// The task's own input, or the newest message to it, which are never given up.
    pub(crate) input: bool,
    /// Stands with the piece before it: a call with its message, a result with its call.
    pub(crate) attached: bool,
    /// A rollback comes back to the place in front of it, so no range reaches across.
    pub(crate) barrier: bool,
}

/// When to act and how far to go, in thousandths of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Above this the range is chosen: early enough that the summary is there before the window is full.
    pub(crate) begin: u64,
    /// What is wanted after it.
    pub(crate) until: u64,
    /// Model calls at the end that stay as they are: what the agent is working with.
    pub(crate) keep_steps: u64,
    /// The longest summary, in tokens.
    pub(crate) summary_tokens: u64,
    /// The longest range: whoever summarises has to read it.
    pub(crate) range_tokens: u64,
}

/// A range to summarise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Places in the chain. All between may be replaced.
    pub(crate) range: Range<usize>,
    /// What stands there now, and what is freed when the summary has its full length.
    pub(crate) tokens: u64,
    pub(crate) freed: u64,
}

/// Chooses what to summarise, or nothing: below the mark, or when nothing would be freed.
///
/// Among the ranges that bring the chain down to `until` it takes the one that loses the least
/// ([`worth`]); when none does, the one that frees the most. A range holds no instruction, no task input and nothing of
/// the last steps, so it lies between two of those.
pub(crate) fn choose(pieces: &[Piece], window_tokens: u64, rule: &Rule) -> Option<Plan> {
    let total: u64 = pieces.iter().map(|piece| piece.tokens).sum();
    if total * 1000 < window_tokens * rule.begin {
        return None;
    }
    let wanted = total.saturating_sub(window_tokens * rule.until / 1000);
    let plans = runs(pieces, rule).into_iter().flat_map(|run| candidates(pieces, run, wanted, rule));
    let loss = |plan: &Plan| pieces[plan.range.clone()].iter().map(worth).sum::<u64>();
    plans.filter(|plan| plan.freed > 0).min_by_key(|plan| {
        let short = wanted.saturating_sub(plan.freed);
        (short, loss(plan), plan.range.start)
    })
}

/// What is lost when a piece is only summarised: its tokens, weighed by kind and age. Evidence: dropping old tool
/// output costs agents nothing, and a repeated or outdated text has no worth at all.
fn worth(piece: &Piece) -> u64 {
    if piece.superseded {
        return 0;
    }
    let weight = match piece.kind {
        Kind::ToolResult => 1,
        Kind::Thought => 2,
        Kind::ToolCall | Kind::Summary => 3,
        Kind::Message | Kind::Artefact => 4,
        Kind::Background | Kind::TaskState => 8,
        Kind::System | Kind::Tools | Kind::Definition | Kind::Record => 16,
    };
    // Halved every 16 steps. Integers, so that every node chooses alike.
    let halvings = (piece.age_steps / 16).min(6) as u32;
    (piece.tokens * weight * 64) >> halvings
}

fn may_go(piece: &Piece, rule: &Rule) -> bool {
    let standing = matches!(
        piece.kind,
        Kind::System | Kind::Tools | Kind::Background | Kind::TaskState | Kind::Definition | Kind::Record
    );
    !standing && !piece.input && piece.age_steps >= rule.keep_steps
}

/// Longest ranges of pieces that may go. A call and its results are not parted.
fn runs(pieces: &[Piece], rule: &Rule) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for at in (0..pieces.len()).filter(|at| may_go(&pieces[*at], rule)) {
        match runs.last_mut().filter(|run| run.end == at && !pieces[at].barrier) {
            Some(run) => run.end = at + 1,
            None => runs.push(at..at + 1),
        }
    }
    runs
}

/// The shortest range from every place of a run that frees what is wanted, and the longest one from its begin.
fn candidates(pieces: &[Piece], run: Range<usize>, wanted: u64, rule: &Rule) -> Vec<Plan> {
    let plan = |range: Range<usize>| {
        let tokens = pieces[range.clone()].iter().map(|piece| piece.tokens).sum::<u64>();
        Plan { range, tokens, freed: tokens.saturating_sub(rule.summary_tokens) }
    };
    let cuts: Vec<usize> = (run.start..=run.end).filter(|at| !parts_a_call(pieces, *at)).collect();
    let Some(first) = cuts.first() else { return Vec::new() };
    let longest = *first..longest(pieces, &cuts, rule.range_tokens);
    let mut plans: Vec<Plan> = if longest.is_empty() { Vec::new() } else { vec![plan(longest)] };
    let (mut end, mut tokens) = (0, 0);
    for (place, start) in cuts.iter().enumerate() {
        end = end.max(place);
        while tokens < wanted + rule.summary_tokens && end + 1 < cuts.len() {
            tokens += pieces[cuts[end]..cuts[end + 1]].iter().map(|piece| piece.tokens).sum::<u64>();
            end += 1;
        }
        if tokens < wanted + rule.summary_tokens {
            break;
        }
        plans.push(plan(*start..cuts[end]));
        tokens -= pieces[*start..cuts[place + 1]].iter().map(|piece| piece.tokens).sum::<u64>();
    }
    plans.retain(|plan| plan.tokens <= rule.range_tokens);
    plans
}

/// Where the longest range that begins with the first cut ends.
fn longest(pieces: &[Piece], cuts: &[usize], most_tokens: u64) -> usize {
    let (mut end, mut tokens) = (cuts[0], 0);
    for next in &cuts[1..] {
        tokens += pieces[end..*next].iter().map(|piece| piece.tokens).sum::<u64>();
        if tokens > most_tokens {
            break;
        }
        end = *next;
    }
    end
}

/// A cut here would leave a tool's result without its call, or a call without its message.
fn parts_a_call(pieces: &[Piece], at: usize) -> bool {
    at > 0 && pieces.get(at).is_some_and(|piece| piece.attached)
}

#[cfg(test)]
#[path = "compaction_test.rs"]
mod tests;
