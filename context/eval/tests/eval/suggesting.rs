//! The smallest chain, and rules that give exactly it.

use crate::fake::{Fact, Fake, among, call, fact, segment, trivia};
use evaluate::{Call, NoSuggestion, Rule, Segment, Settings, Suggestion, suggest};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn facts() -> Vec<Fact> {
    vec![fact(&[&["4711"]], 8.0), fact(&[&["north"]], 5.0)]
}

fn suggested(call: &Call, fake: &mut Fake) -> Suggestion {
    suggest(call, &Settings::default(), fake).expect("scores").expect("a suggestion")
}

#[test]
fn only_what_matters_stays() {
    let call = call(among(20, &[(3, "go north"), (11, "take 4711")]));
    let suggestion = suggested(&call, &mut Fake::new(facts()));
    assert_eq!(suggestion.kept, ["s3", "s11"]);
    assert_eq!((suggestion.tokens_before, suggestion.tokens_after), (18 * 20 + 4, 4));
    assert_eq!(suggestion.loss_nats, 0.0);
}

#[test]
fn small_losses_do_not_add_up_unseen() {
    // Each word is worth 0.3 nat: one may go, two may not.
    let facts = vec![fact(&[&["a"]], 0.3), fact(&[&["b"]], 0.3), fact(&[&["c"]], 0.3), fact(&[&["d"]], 3.0)];
    let segments = ["a", "b", "c", "d"].map(|word| segment(word, "w", word)).to_vec();
    let suggestion = suggested(&call(segments), &mut Fake::new(facts));
    assert_eq!(suggestion.dropped.len(), 1);
    assert_eq!(suggestion.loss_nats, 0.3);
}

#[test]
fn what_masking_hides_is_put_back() {
    // Masked, five nats less look like two more; computed anew they are missed.
    let mut fake = Fake { mask_error_nats: 7.0, ..Fake::new(facts()) };
    let suggestion = suggested(&call(among(8, &[(2, "go north"), (5, "take 4711")])), &mut fake);
    assert_eq!(suggestion.kept, ["s2", "s5"]);
    assert_eq!(suggestion.loss_nats, 0.0);
}

#[test]
fn rules_speak_of_owners_kinds_ages_and_copies() {
    let tool = |id: &str, text: &str| Segment::new(id, "reader", "tool result", text);
    let copy = trivia("copy", 30) + " 4711";
    let segments = vec![
        Segment::new("p1", "planner", "system", trivia("p1", 9)),
        Segment::new("p2", "planner", "message", trivia("p2", 9)),
        tool("t1", &trivia("t1", 9)),
        tool("t2", &trivia("t2", 9)),
        tool("t3", "go north"),
        segment("c1", "reader", &copy),
        segment("c2", "reader", &copy),
    ];
    let suggestion = suggested(&call(segments), &mut Fake::new(facts()));
    assert_eq!(
        suggestion.rules,
        [
            Rule::Hide { owner: "planner".into(), reader: "reader".into() },
            Rule::KeepLast { kind: "tool result".into(), last: 1 },
            Rule::SendOnce { ids: vec!["c2".into()] },
        ]
    );
    let said: Vec<String> = suggestion.rules.iter().map(Rule::describe).collect();
    assert_eq!(said[1], "compaction: of each tool result keep the last 1");
}

#[test]
fn a_blind_call_has_no_suggestion() {
    let answer = suggest(&call(among(5, &[])), &Settings::default(), &mut Fake::new(facts()));
    assert_eq!(answer.expect("scores"), Err(NoSuggestion::Blind));
    let mut small = Fake { window: 10, ..Fake::new(facts()) };
    let answer = suggest(&call(among(5, &[])), &Settings::default(), &mut small).expect("scores");
    assert!(matches!(answer, Err(NoSuggestion::Window { window: 10, .. })));
}

proptest! {
    #[test]
    fn rules_drop_exactly_what_is_dropped(
        parts in prop::collection::vec(("reader|anna|bert", "message|tool result", "([a-f] ){1,5}"), 1..14), seed in any::<u64>(),
    ) {
        let segments = parts.iter().enumerate();
        let segments = segments.map(|(at, (owner, kind, text))| Segment::new(at.to_string(), owner, kind, text));
        let call = call(segments.collect());
        let facts = vec![fact(&[&["a"], &["b", "c"]], 6.0), fact(&[&["d"]], 2.0)];
        let answer = suggest(&call, &Settings::default(), &mut Fake::noisy(facts, seed, 0.4)).expect("scores");
        let Ok(suggestion) = answer else { return Ok(()) };
        let by_rules: BTreeSet<usize> = suggestion.rules.iter().flat_map(|rule| rule.drops(&call)).collect();
        let dropped: BTreeSet<usize> = suggestion.dropped.iter().map(|id| id.parse().expect("a place")).collect();
        prop_assert_eq!(by_rules, dropped);
        prop_assert!(suggestion.loss_nats <= 0.5);
        prop_assert_eq!(suggestion.kept.len() + suggestion.dropped.len(), call.segments.len());
    }
}
