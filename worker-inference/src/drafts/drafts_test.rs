//! Guesses, the odds of them, and when they pay.

use std::time::Duration;

use super::*;

const ONE: SequenceId = SequenceId(1);
const OURS: Scope = [1; 32];
const THEIRS: Scope = [2; 32];

/// Numbers that look random and are the same in every run.
fn numbers(seed: u64, count: usize, below: u64) -> Vec<u32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % below) as u32
    };
    (0..count).map(|_| next()).collect()
}

/// The longest match, looked for in the plainest way: of equally long ones the newest.
fn plainly(history: &[u32], end: &[u32]) -> Option<(usize, usize)> {
    let common = |at: usize| {
        let pairs = history[..at].iter().rev().zip(end.iter().rev()).take(32);
        pairs.take_while(|(one, other)| one == other).count()
    };
    let places = (1..history.len()).map(|at| (common(at), at)).filter(|(matched, _)| *matched >= 3);
    places.max().map(|(matched, at)| (at, matched))
}

#[test]
fn the_longest_and_newest_match_is_found_as_in_a_plain_search() {
    // Few enough places for all to be looked at, often enough the same for long matches.
    for seed in 0..300 {
        let tokens = numbers(seed, 60 + seed as usize, 3 + seed % 6);
        let mut history = History::default();
        for piece in tokens.chunks(1 + seed as usize % 7) {
            history.extend(piece);
            let known = &tokens[..history.len()];
            let found = history.longest(known).map(|found| (found.at, found.matched));
            let expected = plainly(known, known);
            let looked_at = known.windows(3).filter(|gram| known.ends_with(gram)).count();
            if looked_at <= 16 {
                assert_eq!(found, expected, "{known:?}");
            }
        }
    }
}

#[test]
fn what_followed_is_guessed_and_a_loop_goes_on() {
    let mut drafts = Drafts::default();
    let quoted = [5, 6, 7, 8, 9, 10, 11, 50, 51, 5, 6, 7];
    let draft = drafts.draft(ONE, &OURS, &quoted, 4);
    assert_eq!(draft, Draft { tokens: vec![8, 9, 10, 11], matched: 3 });
    let repeated = [1, 2, 3, 1, 2, 3, 1, 2, 3];
    let draft = drafts.draft(SequenceId(2), &OURS, &repeated, 7);
    assert_eq!(draft, Draft { tokens: vec![1, 2, 3, 1, 2, 3, 1], matched: 6 });
    assert_eq!(drafts.draft(SequenceId(3), &OURS, &[1, 2], 7), Draft::default());
    assert_eq!(drafts.draft(SequenceId(4), &OURS, &numbers(1, 200, 1 << 30), 7), Draft::default());
}

#[test]
fn a_project_is_guessed_for_by_its_own_answers_only() {
    let mut drafts = Drafts::default();
    drafts.end(ONE, &OURS, &[100, 1, 2, 3, 4, 5, 6], 1);
    let end = [70, 71, 1, 2, 3];
    assert_eq!(drafts.draft(SequenceId(2), &OURS, &end, 2).tokens, [4, 5]);
    assert_eq!(drafts.draft(SequenceId(3), &THEIRS, &end, 2), Draft::default());
    // Not the prompt but its very end is known.
    drafts.end(ONE, &THEIRS, &[40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 60, 61], 10);
    assert_eq!(drafts.draft(SequenceId(4), &THEIRS, &[47, 48, 49], 2).tokens, [60, 61]);
    assert_eq!(drafts.draft(SequenceId(5), &THEIRS, &[9, 40, 41, 42], 2), Draft::default());
    drafts.clear();
    assert_eq!(drafts.draft(SequenceId(6), &OURS, &end, 2), Draft::default());
}

#[test]
fn a_longer_match_in_old_answers_wins() {
    let mut drafts = Drafts::default();
    drafts.end(ONE, &OURS, &[0, 10, 11, 12, 13, 14, 15], 1);
    let tokens = [12, 13, 14, 99, 50, 10, 11, 12, 13, 14];
    assert_eq!(drafts.draft(SequenceId(2), &OURS, &tokens, 3), Draft { tokens: vec![15], matched: 5 });
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let mut drafts = Drafts::default();
    let answer = |seed| numbers(seed, 3000, 1 << 20);
    for seed in 0..40 {
        drafts.end(ONE, &OURS, &answer(seed), 0);
    }
    let newest = answer(39);
    assert_eq!(drafts.draft(ONE, &OURS, &newest[100..120], 2).tokens, newest[120..122]);
    let oldest = answer(0);
    assert_eq!(drafts.draft(SequenceId(2), &OURS, &oldest[100..120], 2), Draft::default());
    let one_project = drafts.bytes();
    assert!(one_project < 1 << 20, "{one_project}");
    for project in 0..200 {
        let scope = [project as u8; 32];
        (0..20).for_each(|seed| drafts.end(ONE, &scope, &answer(project * 100 + seed), 0));
        drafts.draft(SequenceId(project), &scope, &answer(project), 2);
    }
    assert!(drafts.bytes() < 64 << 20, "{}", drafts.bytes());
    // Who was away longest is forgotten.
    assert_eq!(drafts.draft(SequenceId(900), &[3; 32], &answer(300)[100..120], 2), Draft::default());
    assert_eq!(drafts.draft(SequenceId(901), &[199; 32], &answer(19919)[100..120], 1).tokens.len(), 1);
}

#[test]
fn odds_follow_what_came_true_and_fade_back() {
    let mut odds = Odds::default();
    assert!(odds.chance(30) > odds.chance(3), "{odds:?}");
    let first = odds.chance(3);
    (0..20).for_each(|_| odds.learn(3, 1, 0));
    assert!(odds.chance(3) < 0.1 && odds.chance(30) > 0.9, "{odds:?}");
    (0..1000).for_each(|_| odds.fade(3));
    assert!((odds.chance(3) - first).abs() < 0.01, "{odds:?}");
    // What was guessed behind a wrong token was never tried.
    let before = odds.chance(12);
    odds.learn(3, 12, 2);
    assert_eq!(odds.chance(12), before);
}

fn costs(seconds: impl Fn(usize) -> f64) -> Costs {
    let mut costs = Costs::default();
    (1..=ROWS_MAX).for_each(|rows| costs.learn(rows, Duration::from_secs_f64(seconds(rows))));
    costs
}

#[test]
fn a_guess_is_as_long_as_it_pays() {
    let worth = |costs: &Costs, rows, chance| {
        costs.worth(rows, rows as f64, std::iter::repeat_n(chance, ROWS_MAX)).guesses
    };
    // Rows that cost nothing are all taken, rows at the full price none.
    assert_eq!(worth(&costs(|_| 0.002), 1, 0.9), ROWS_MAX - 1);
    assert_eq!(worth(&costs(|rows| 0.002 * rows as f64), 1, 0.9), 0);
    // The surer, the longer.
    let real = costs(|rows| 0.002 + 0.0004 * (rows - 1) as f64);
    let lengths: Vec<usize> = [0.1, 0.5, 0.8, 0.95].map(|chance| worth(&real, 1, chance)).into();
    assert!(lengths.is_sorted() && lengths[0] == 0 && lengths[3] > 6, "{lengths:?}");
    // Where passes with more rows are dear, more sequences make guesses worth less.
    let steep = costs(|rows| if rows <= 4 { 0.002 } else { 0.0005 * rows as f64 });
    assert!(worth(&steep, 1, 0.9) == 3 && worth(&steep, 4, 0.9) == 0);
    assert_eq!(Costs::default().worth(1, 1.0, std::iter::repeat(1.0)).guesses, 0, "nothing is known yet");
}

#[test]
fn what_was_measured_long_ago_is_tried_again() {
    let mut costs = costs(|rows| if rows == 1 { 0.002 } else { 1.0 });
    let guesses = |costs: &Costs| costs.worth(1, 1.0, std::iter::repeat_n(0.9, 8)).guesses;
    assert_eq!(guesses(&costs), 0);
    (0..2000).for_each(|_| costs.learn(1, Duration::from_millis(2)));
    assert!(guesses(&costs) > 0);
}
