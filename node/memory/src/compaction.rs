//! What a window that fills up gives up: which range is summarised, and what the summary agent is told.
//!
//! Decided from numbers alone. Nothing is deleted: a summary names what it replaces, and the originals stay.

use std::ops::Range;

use context::Kind;
use types::Hash;

/// The standing instruction of the summary agent: an ordinary task of low priority, with a budget.
pub const SUMMARY_INSTRUCTION: &str = include_str!("compaction/instruction.md");

/// One segment of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub hash: Hash,
    pub kind: Kind,
    pub tokens: u64,
    /// Steps since it joined; 0 is the step that is going on.
    pub age_steps: u64,
    /// A later piece says the same or newer: a file read again, a state written again.
    pub superseded: bool,
    /// The task's own input, which is never given up.
    pub input: bool,
}

/// When to act and how far to go, in thousandths of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Above this the range is chosen: early enough that the summary is there before the window is full.
    pub begin: u64,
    /// What is wanted after it.
    pub until: u64,
    /// Steps at the end that stay as they are: what the agent is working with.
    pub keep_steps: u64,
    /// The longest summary, in tokens.
    pub summary_tokens: u64,
}

impl Default for Rule {
    fn default() -> Rule {
        Rule { begin: 750, until: 400, keep_steps: 4, summary_tokens: 512 }
    }
}

/// A range to summarise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Places in the chain. All between may be replaced.
    pub range: Range<usize>,
    /// What stands there now, and what is freed when the summary has its full length.
    pub tokens: u64,
    pub freed: u64,
}

/// Chooses what to summarise, or nothing: below the mark, or when nothing would be freed.
///
/// Among the ranges that bring the chain down to `until` it takes the one that loses the least
/// ([`worth`]); when none does, the one that frees the most. A range holds no instruction, no task input and nothing of
/// the last steps, so it lies between two of those.
pub fn choose(pieces: &[Piece], window_tokens: u64, rule: &Rule) -> Option<Plan> {
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
        match runs.last_mut().filter(|run| run.end == at) {
            Some(run) => run.end = at + 1,
            None => runs.push(at..at + 1),
        }
    }
    runs
}

/// The shortest range from every place of a run that frees what is wanted, and the whole run.
fn candidates(pieces: &[Piece], run: Range<usize>, wanted: u64, rule: &Rule) -> Vec<Plan> {
    let plan = |range: Range<usize>| {
        let tokens = pieces[range.clone()].iter().map(|piece| piece.tokens).sum::<u64>();
        Plan { range, tokens, freed: tokens.saturating_sub(rule.summary_tokens) }
    };
    let cuts: Vec<usize> = (run.start..=run.end).filter(|at| !parts_a_call(pieces, *at)).collect();
    let (Some(first), Some(last)) = (cuts.first(), cuts.last()) else { return Vec::new() };
    let mut plans = vec![plan(*first..*last)];
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
    plans
}

/// A cut here would leave a tool's result without its call.
fn parts_a_call(pieces: &[Piece], at: usize) -> bool {
    at > 0 && pieces.get(at).is_some_and(|piece| piece.kind == Kind::ToolResult)
}

#[cfg(test)]
#[path = "compaction_test.rs"]
mod tests;
