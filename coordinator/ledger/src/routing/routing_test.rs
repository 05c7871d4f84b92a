//! What the record remembers, and where prompts go because of it.

use super::{Chain, Fleet, Lot, Routes, Wish};
use std::collections::BTreeMap;
use types::{Hash, NodeId, TaskUid};

const MODEL: Option<&str> = Some("m");

/// A prompt of parts of 1,000 tokens each.
fn prompt(parts: &[u64]) -> Chain {
    Chain::of(parts.iter().map(|part| (Hash::of(&part.to_le_bytes()), 1000)))
}

fn lot(slots: u64, used: u64) -> Lot {
    Lot { slots, used, ..Lot::default() }
}

fn fleet<'a>(routes: &'a Routes, lots: &[Lot]) -> Fleet<'a> {
    let mut fleet = Fleet::new(routes, 0);
    for (id, lot) in (1..).zip(lots) {
        fleet.add(NodeId(id), lot.clone(), ["m"]);
    }
    fleet
}

fn wish<'w>(chain: &'w Chain) -> Wish<'w> {
    Wish { chain, model: MODEL, keepers: &[], team: None }
}

fn best(routes: &Routes, lots: &[Lot], chain: &Chain) -> Option<u64> {
    fleet(routes, lots).best(&wish(chain)).map(|node| node.0)
}

#[test]
fn a_node_holds_the_beginnings_of_what_it_was_given() {
    let mut routes = Routes::default();
    assert_eq!(routes.note(NodeId(1), &prompt(&[1, 2, 3]), 0), 0);
    assert_eq!(routes.matched(NodeId(1), &prompt(&[1, 2, 9, 3])), 2000);
    assert_eq!(routes.matched(NodeId(1), &prompt(&[2, 3])), 0, "the middle of a prompt is no beginning");
    assert_eq!(routes.matched(NodeId(2), &prompt(&[1])), 0);
    assert_eq!(routes.note(NodeId(1), &prompt(&[1, 2]), 0), 2000);
    routes.forget(NodeId(1));
    assert_eq!(routes, Routes::default(), "nothing is left of a node that is forgotten");
}

#[test]
fn a_full_node_forgets_ends_first_and_the_oldest_before_others() {
    let mut routes = Routes::default();
    routes.resize(NodeId(1), 5000);
    routes.learn(NodeId(1), &prompt(&[1, 2, 3]));
    routes.learn(NodeId(1), &prompt(&[1, 7, 8]));
    assert_eq!(routes.matched(NodeId(1), &prompt(&[1, 2, 3])), 3000, "five parts fit");
    routes.learn(NodeId(1), &prompt(&[1, 9]));
    assert_eq!(routes.matched(NodeId(1), &prompt(&[1, 2, 3])), 2000, "its end went");
    assert_eq!(routes.matched(NodeId(1), &prompt(&[1, 7, 8])), 3000);
    routes.learn(NodeId(1), &prompt(&[20, 21, 22, 23, 24, 25]));
    assert_eq!(routes.matched(NodeId(1), &prompt(&[20, 21, 22, 23, 24, 25])), 5000, "longer than the cache");
}

#[test]
fn the_record_is_bounded_however_much_is_noted() {
    let mut routes = Routes::default();
    for number in 0..20_000 {
        routes.learn(NodeId(1), &prompt(&[number, number + 1]));
    }
    let kept = (0..20_000).filter(|number| routes.matched(NodeId(1), &prompt(&[*number])) > 0).count();
    assert_eq!(kept, 4096, "8,192 parts, two for each prompt");
}

#[test]
fn a_worker_that_had_less_than_thought_is_believed_to_keep_less() {
    let mut routes = Routes::default();
    routes.resize(NodeId(1), 8000);
    let eight = prompt(&[1, 2, 3, 4, 5, 6, 7, 8]);
    routes.learn(NodeId(1), &eight);
    routes.correct(NodeId(1), 8000, 1000);
    routes.learn(NodeId(1), &eight);
    assert_eq!(routes.matched(NodeId(1), &eight), 7000);
    let task = TaskUid { index: 5, position: 0 };
    routes.place(task, NodeId(1), &eight, 0);
    routes.hear(task, 7000);
    routes.hear(task, 0);
    routes.learn(NodeId(1), &eight);
    assert_eq!(routes.matched(NodeId(1), &eight), 8000, "trust comes back; a step is heard once");
}

#[test]
fn recent_work_fades() {
    let mut routes = Routes::default();
    routes.note(NodeId(1), &prompt(&[1, 2, 3, 4]), 5_000);
    assert_eq!(routes.work(NodeId(1), 5_000), 4000);
    assert_eq!(routes.work(NodeId(1), 12_000), 3500);
    assert!(routes.work(NodeId(1), 60_000) < 2200);
    assert_eq!(routes.work(NodeId(1), u64::MAX), 0);
}

#[test]
fn a_prompt_goes_where_it_costs_least() {
    let mut routes = Routes::default();
    routes.learn(NodeId(2), &prompt(&[1, 2, 3]));
    routes.learn(NodeId(3), &prompt(&[1, 2]));
    let free = [lot(4, 0), lot(4, 0), lot(4, 0)];
    assert_eq!(best(&routes, &free, &prompt(&[1, 2, 3, 4])), Some(2));
    assert_eq!(best(&routes, &free, &prompt(&[1, 2, 4])), Some(2), "equal: the lower id");
    assert_eq!(best(&routes, &free, &prompt(&[8])), Some(1), "nobody knows it");
    assert_eq!(best(&routes, &[lot(4, 0), lot(4, 4), lot(4, 0)], &prompt(&[1, 2, 3])), Some(3), "2 is full");
    assert_eq!(best(&routes, &[lot(4, 0), lot(4, 2), lot(4, 0)], &prompt(&[1, 2, 3])), Some(2));
    assert_eq!(
        best(&routes, &[lot(4, 0), lot(4, 3), lot(4, 3)], &prompt(&[1, 2, 3])),
        Some(1),
        "too far ahead"
    );
    assert_eq!(best(&routes, &[lot(2, 2)], &prompt(&[1])), None);
}

#[test]
fn slots_are_compared_by_share() {
    let routes = Routes::default();
    assert_eq!(
        best(&routes, &[lot(2, 1), lot(16, 4)], &prompt(&[1])),
        Some(2),
        "a quarter is less than a half"
    );
}

/// Many prompts that all begin alike, one after the other, none of them running for long.
fn shares(nodes: u64, choose: impl Fn(&Routes, &Chain, u64) -> NodeId) -> BTreeMap<NodeId, u64> {
    let mut routes = Routes::default();
    let mut given = BTreeMap::new();
    for number in 0..400 {
        let chain = prompt(&[1, 2, 1000 + number % 40, 5000 + number]);
        let node = choose(&routes, &chain, number * 100);
        assert!((1..=nodes).contains(&node.0));
        routes.note(node, &chain, number * 100);
        *given.entry(node).or_default() += 1;
    }
    given
}

#[test]
fn the_longest_prefix_alone_sends_all_to_one_node_and_ours_does_not() {
    let longest = |routes: &Routes, chain: &Chain, _| {
        let rank = |id: &u64| (routes.matched(NodeId(*id), chain), u64::MAX - id);
        NodeId((1..=4).max_by_key(rank).unwrap())
    };
    assert_eq!(shares(4, longest).len(), 1, "the trap");
    let ours = |routes: &Routes, chain: &Chain, now_ms| {
        let mut fleet = Fleet::new(routes, now_ms);
        (1..=4).for_each(|id| fleet.add(NodeId(id), lot(4, 0), ["m"]));
        fleet.best(&wish(chain)).unwrap()
    };
    let given = shares(4, ours);
    let most = given.values().copied().max().unwrap();
    assert!(given.len() == 4 && most <= 140, "100 each would be even: {given:?}");
}

#[test]
fn a_node_over_its_share_is_left_for_one_that_computes_the_prefix_too() {
    let mut routes = Routes::default();
    let hot = prompt(&(0..300).collect::<Vec<_>>());
    for number in 0..40 {
        routes.note(NodeId(1), &prompt(&[900 + number, 800]), 0);
    }
    routes.note(NodeId(1), &hot, 0);
    assert_eq!(best(&routes, &[lot(4, 0), lot(4, 0)], &hot), Some(2), "300,000 tokens and yet");
    let views = fleet(&routes, &[lot(4, 0), lot(4, 0)]).views(&wish(&hot));
    assert_eq!(views[0].matched_tokens, 300_000);
    assert!(views[0].why_not.starts_with("was given 380000 tokens lately"), "{}", views[0].why_not);
    routes.note(NodeId(2), &hot, 0);
    assert_eq!(routes.matched(NodeId(2), &hot), 300_000, "now two hold it");
}

#[test]
fn a_node_under_pressure_comes_last_but_comes() {
    let mut routes = Routes::default();
    routes.learn(NodeId(1), &prompt(&[1, 2, 3]));
    let pressed = Lot { pressed: true, ..lot(4, 0) };
    assert_eq!(best(&routes, &[pressed.clone(), lot(4, 3)], &prompt(&[1, 2, 3])), Some(2));
    assert_eq!(best(&routes, &[pressed, lot(4, 4)], &prompt(&[1, 2, 3])), Some(1));
}

#[test]
fn what_has_to_be_thrown_away_counts() {
    let mut routes = Routes::default();
    routes.learn(NodeId(1), &prompt(&[1]));
    let room = |free_kv_tokens| Lot { kv_tokens: 9000, free_kv_tokens, ..lot(4, 0) };
    let chain = prompt(&[1, 2, 3, 4]);
    assert_eq!(best(&routes, &[room(3000), room(9000)], &chain), Some(1));
    assert_eq!(best(&routes, &[room(1000), room(9000)], &chain), Some(2), "3,000 + 2,000 against 4,000");
}

#[test]
fn children_of_one_parent_spread_where_others_are_equal() {
    let routes = Routes::default();
    let parent = |index| Some(TaskUid { index, position: 0 });
    let mut fleet = fleet(&routes, &[lot(8, 0), lot(8, 0)]);
    let (mine, other) = (prompt(&[1]), prompt(&[2]));
    let as_child = |chain, team| Wish { team, ..wish(chain) };
    // The first node runs a child of this parent, the second one of another, of the same size.
    fleet.take(NodeId(1), &as_child(&mine, parent(1)));
    fleet.take(NodeId(2), &as_child(&other, parent(2)));
    let stranger = prompt(&[3]);
    assert_eq!(fleet.best(&as_child(&stranger, parent(1))), Some(NodeId(2)));
    assert_eq!(fleet.best(&as_child(&stranger, parent(2))), Some(NodeId(1)));
    assert_eq!(
        fleet.best(&as_child(&mine, parent(1))),
        Some(NodeId(1)),
        "1,000 tokens are more than comfort"
    );
}

#[test]
fn a_keeper_is_preferred_among_equals_and_models_decide_first() {
    let routes = Routes::default();
    let mut fleet = Fleet::new(&routes, 0);
    fleet.add(NodeId(1), lot(2, 0), ["m"]);
    fleet.add(NodeId(2), lot(2, 0), ["m", "big"]);
    let chain = prompt(&[1]);
    let keepers = [NodeId(2)];
    assert_eq!(fleet.best(&Wish { keepers: &keepers, ..wish(&chain) }), Some(NodeId(2)));
    assert_eq!(fleet.best(&Wish { model: Some("big"), ..wish(&chain) }), Some(NodeId(2)));
    assert_eq!(fleet.best(&Wish { model: Some("none"), ..wish(&chain) }), None);
    assert_eq!(fleet.best(&Wish { model: None, ..wish(&chain) }), Some(NodeId(1)), "teams run anywhere");
    let views = fleet.views(&Wish { model: Some("big"), ..wish(&chain) });
    assert_eq!(views[0].why_not, "has not loaded the model big");
    assert_eq!(views[1].why_not, "");
}

#[test]
fn a_plan_fills_slots_to_the_last_and_no_further() {
    let routes = Routes::default();
    let mut fleet = fleet(&routes, &[lot(3, 1), lot(2, 0), lot(4, 4)]);
    let chain = prompt(&[1]);
    let mut given = BTreeMap::new();
    while let Some(node) = fleet.best(&wish(&chain)) {
        fleet.take(node, &wish(&chain));
        *given.entry(node.0).or_insert(0) += 1;
    }
    assert_eq!(given, BTreeMap::from([(1, 2), (2, 2)]));
    assert!(fleet.is_full());
    assert_eq!(fleet.views(&wish(&chain))[2].why_not, "all 4 slots are taken");
    fleet.lift(NodeId(3));
    assert_eq!(fleet.best(&wish(&chain)), Some(NodeId(3)), "explanations look past full slots");
}
