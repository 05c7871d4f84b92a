//! Random commands from several simulated nodes and people: most of them sensible, some stale, many sent twice.

mod calls;
mod homes;
mod restored;
mod slices;
mod world;

use ledger::command::{Command, RequestKey, Stamp};
use ledger::query::{Answer, Query};
use ledger::reply::Reply;
use ledger::{State, encode_entry, invariants};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeSet;
use types::{ClusterId, Epoch, ProjectName, TaskUid};
use world::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_commands_keep_the_invariants_and_the_replicas_equal(moves in moves(90), cut in 0usize..90) {
        let mut world = World::new();
        for step in moves {
            world.play(step);
        }
        // Another replica joins by a snapshot taken somewhere and the tail of the log; a third has the whole log.
        let cut = cut.min(world.log.len());
        let mut whole = State::new();
        let mut joined = State::new();
        for (i, (index, entry)) in world.log.iter().enumerate() {
            if i == cut {
                joined = State::restore(&whole.snapshot()).unwrap();
            }
            let a = whole.apply_entry(*index, entry).unwrap();
            if i >= cut {
                prop_assert_eq!(a, joined.apply_entry(*index, entry).unwrap());
            }
        }
        prop_assert_eq!(whole.state_hash(), world.state.state_hash());
        prop_assert_eq!(whole.snapshot(), world.state.snapshot());
        if cut < world.log.len() {
            prop_assert_eq!(joined.state_hash(), whole.state_hash());
        }
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), flip in any::<u16>()) {
        let mut state = State::new();
        let _ = state.apply_entry(1, &bytes);
        prop_assert!(State::restore(&bytes).is_err());
        let mut snapshot = World::new().state.snapshot();
        let at = flip as usize % snapshot.len();
        snapshot[at] ^= 1 + (flip % 255) as u8;
        // Any change is found, or is none.
        if let Ok(restored) = State::restore(&snapshot) {
            prop_assert_eq!(restored.state_hash(), World::new().state.state_hash());
        }
    }
}

#[test]
fn random_commands_reach_what_they_should() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut refusals = BTreeSet::new();
    let mut states = BTreeSet::new();
    for _ in 0..60 {
        let mut world = World::new();
        for step in moves(220).new_tree(&mut runner).unwrap().current() {
            world.play(step);
            states.extend(world.state.tasks().map(|row| row.state.name()));
        }
        refusals.extend(world.kinds);
    }
    for kind in [
        "not found",
        "task id",
        "request id",
        "fenced",
        "state",
        "quota",
        "invalid",
        "copies",
        "name",
        "price",
        "head",
        "busy",
        "home moved",
        "head dropped",
        "call",
        "slice",
        "spare",
        "recall",
        "refund",
    ] {
        assert!(refusals.contains(kind), "no {kind} in {refusals:?}");
    }
    for state in [
        "RUNNING",
        "WAITING_TOOL",
        "WAITING_INPUT",
        "WAITING_CHILD",
        "PAUSED",
        "CANCELLING",
        "SUCCEEDED",
        "FAILED",
        "CANCELLED",
        "EXPIRED",
    ] {
        assert!(states.contains(state), "no task was {state}, only {states:?}");
    }
}

#[test]
fn many_commands_in_one_entry_have_their_own_uids_and_epochs() {
    let mut world = World::new();
    let request = RequestKey::default();
    let commands: Vec<Command> =
        (0..200).map(|i| create(0, 0, i, &request, Stamp::default(), world.home(0))).collect();
    let applied = world.state.apply_entry(1000, &encode_entry(Stamp::default(), &commands)).unwrap();
    let uids: BTreeSet<TaskUid> = world.state.tasks().map(|row| row.uid).collect();
    // Fifty task ids, two hundred creations.
    assert_eq!(uids.len(), 50);
    assert_eq!(applied.replies.iter().filter(|reply| matches!(reply, Reply::Task(_))).count(), 50);
    let node = world.node(0);
    let assigns: Vec<Command> = uids.into_iter().map(|task| Command::Assign { task, node }).collect();
    world.state.apply_entry(1001, &encode_entry(Stamp::default(), &assigns)).unwrap();
    let epochs: BTreeSet<Epoch> = world.state.leases_of(node).filter_map(|row| row.epoch).collect();
    assert_eq!(epochs.len(), 50);
    invariants::check(&world.state).unwrap();
}

#[test]
fn pages_and_events_are_cut_where_they_should() {
    let mut world = World::new();
    for i in 0..7 {
        let home = world.home(0);
        world.apply(&create(0, 0, i, &RequestKey::default(), Stamp::default(), home));
    }
    let project = ProjectName::parse("a").unwrap();
    let page =
        |after| Query::Tasks { project: project.clone(), filter: "state=PENDING".into(), after, limit: 3 };
    let mut seen = vec![];
    loop {
        let Answer::Tasks { rows, more } = world.state.answer(&page(seen.last().copied()), None) else {
            panic!()
        };
        seen.extend(rows.iter().map(|row| row.uid));
        if !more {
            break;
        }
        assert_eq!(rows.len(), 3);
    }
    assert_eq!(seen.len(), 7);
    let (node, uid) = (world.node(0), seen[0]);
    for _ in 0..50 {
        world.apply(&Command::Assign { task: uid, node });
        world.apply(&Command::NodeLost { node });
    }
    let Answer::Events { events, first_kept, ended } =
        world.state.answer(&Query::Events { uid, from: 90 }, None)
    else {
        panic!()
    };
    assert_eq!((first_kept, ended, events.len()), (101 - 63, false, 12));
}
