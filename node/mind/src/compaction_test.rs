//! Which range goes.

use proptest::prelude::*;

use super::*;

fn piece(kind: Kind, tokens: u64, age_steps: u64) -> Piece {
    let attached = matches!(kind, Kind::ToolCall | Kind::ToolResult);
    Piece { kind, tokens, age_steps, superseded: false, input: false, attached, barrier: false }
}

fn rule() -> Rule {
    Rule { begin: 750, until: 400, keep_steps: 4, summary_tokens: 512, range_tokens: u64::MAX }
}

/// System, input, then `steps` steps of message, call and result.
fn history(steps: u64) -> Vec<Piece> {
    let mut pieces = vec![piece(Kind::System, 200, steps), piece(Kind::Message, 300, steps)];
    pieces[1].input = true;
    for age in (0..steps).rev() {
        pieces.push(piece(Kind::Message, 50, age));
        pieces.push(piece(Kind::ToolCall, 50, age));
        pieces.push(piece(Kind::ToolResult, 900, age));
    }
    pieces
}

#[test]
fn nothing_is_given_up_while_there_is_room() {
    assert_eq!(choose(&history(6), 10_000, &rule()), None);
    assert!(choose(&history(7), 10_000, &rule()).is_some(), "7,500 of 10,000 is the mark");
    assert_eq!(choose(&[], 10_000, &rule()), None);
}

#[test]
fn instruction_input_and_last_steps_stay() {
    let pieces = history(9);
    let plan = choose(&pieces, 10_000, &rule()).unwrap();
    assert_eq!(
        plan,
        Plan { range: 2..17, tokens: 5_000, freed: 4_488 },
        "five old steps of nine: all that may"
    );
    assert_eq!(pieces[plan.range.end].age_steps, 3);
}

#[test]
fn old_and_superseded_steps_go_first() {
    let pieces = history(40);
    let plan = choose(&pieces, 50_000, &rule()).unwrap();
    assert!(plan.range.start < 5, "{plan:?}: the oldest step");
    assert!(plan.freed >= 20_500 && plan.tokens < 22_500, "{plan:?}: no more than is wanted");
    let mut repeated = history(40);
    repeated[44..110].iter_mut().for_each(|piece| piece.superseded = true);
    let plan = choose(&repeated, 50_000, &rule()).unwrap();
    assert!(plan.range.start >= 44 && plan.range.end <= 110, "{plan:?}: by worth, not by age alone");
}

#[test]
fn a_summary_that_frees_nothing_is_not_made() {
    let mut pieces = vec![piece(Kind::System, 9_000, 9)];
    pieces.extend((0..5).map(|_| piece(Kind::Thought, 100, 9)));
    assert_eq!(choose(&pieces, 10_000, &rule()), None);
}

#[test]
fn a_range_is_no_longer_than_its_reader_can_read() {
    let short = Rule { range_tokens: 3_100, ..rule() };
    let plan = choose(&history(40), 50_000, &short).unwrap();
    assert_eq!((plan.tokens, plan.range.len()), (3_000, 9), "three steps: the most that can be read");
    assert_eq!(
        choose(&history(40), 50_000, &Rule { range_tokens: 900, ..rule() }),
        None,
        "not even one step"
    );
}

#[test]
fn no_range_reaches_across_a_barrier() {
    let mut pieces = history(9);
    pieces[8].barrier = true;
    let plan = choose(&pieces, 10_000, &rule()).unwrap();
    assert!(plan.range.end <= 8 || plan.range.start >= 8, "{plan:?}");
}

fn any_piece() -> impl Strategy<Value = Piece> {
    let kinds = vec![
        Kind::System,
        Kind::Background,
        Kind::Message,
        Kind::Thought,
        Kind::ToolCall,
        Kind::ToolResult,
        Kind::Summary,
        Kind::Artefact,
    ];
    let fields = (proptest::sample::select(kinds), 0u64..3000, 0u64..200, any::<bool>(), 0..20, 0..20);
    fields.prop_map(|(kind, tokens, age_steps, superseded, input, barrier)| Piece {
        superseded,
        input: input == 0,
        barrier: barrier == 0,
        ..piece(kind, tokens, age_steps)
    })
}

proptest! {
    #[test]
    fn what_must_stay_is_never_in_the_range(
        pieces in proptest::collection::vec(any_piece(), 0..120),
        window in 1_000u64..200_000,
        range_tokens in 1_000u64..50_000,
    ) {
        let rule = Rule { range_tokens, ..rule() };
        let total: u64 = pieces.iter().map(|piece| piece.tokens).sum();
        let plan = choose(&pieces, window, &rule);
        prop_assert!(plan.is_none() || total * 4 >= window * 3);
        if let Some(plan) = plan {
            let range = &pieces[plan.range.clone()];
            prop_assert!(!range.is_empty() && range.iter().all(|piece| may_go(piece, &rule)));
            prop_assert_eq!(range.iter().map(|piece| piece.tokens).sum::<u64>(), plan.tokens);
            prop_assert!(!parts_a_call(&pieces, plan.range.start) && !parts_a_call(&pieces, plan.range.end));
            prop_assert!(!range.iter().skip(1).any(|piece| piece.barrier) && plan.tokens <= range_tokens);
            prop_assert!(plan.freed > 0 && plan.freed + rule.summary_tokens == plan.tokens);
        }
    }
}
