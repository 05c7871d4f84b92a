//! Any state that random commands reach can be backed up, and begins again on new machines.

use super::*;
use ledger::Founder;

/// A backup of any state begins again as another cluster, on machines that hold everything and run nothing.
#[test]
fn any_state_begins_again_on_new_machines() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let founder = |name: &str, disk: u8| Founder {
        name: name.into(),
        internal_addr: format!("{name}:7401"),
        disk_id: [disk; 16],
    };
    // One name was in use before.
    let founders = [founder("one", 91), founder("x", 92), founder("y", 93)];
    let mut leases = 0;
    for _ in 0..60 {
        let mut world = World::new();
        for step in moves(90).new_tree(&mut runner).unwrap().current() {
            world.play(step);
        }
        let before = world.state.clone();
        leases += before.lease_counts().map(|(_, count)| count).sum::<usize>();
        let mut state = State::restore(&before.snapshot()).unwrap();
        assert_eq!(state.state_hash(), before.state_hash());
        let ids = state.begin_again(ClusterId([9; 16]), &founders);
        invariants::check(&state).unwrap();
        assert_eq!(state.nodes().map(|row| row.id).collect::<Vec<_>>(), ids);
        assert!(before.nodes().all(|row| !ids.contains(&row.id)), "an id was given twice");
        assert_eq!((state.incarnation(), state.cluster_id()), (2, Some(ClusterId([9; 16]))));
        assert_eq!(state.lease_counts().count(), 0);
        assert!(state.tasks().all(|row| row.home.iter().eq(&ids) && row.unaware.is_empty()));
        assert!(state.tasks().map(|row| row.uid).eq(before.tasks().map(|row| row.uid)));
        assert!(before.tasks().filter(|row| row.state.is_final()).all(|row| {
            state.task(row.uid).is_some_and(|now| (now.state, now.result) == (row.state, row.result))
        }));
        let mut twin = State::restore(&before.snapshot()).unwrap();
        twin.begin_again(ClusterId([9; 16]), &founders);
        assert_eq!(State::restore(&state.snapshot()).unwrap().state_hash(), twin.state_hash());

        // What comes next is placed behind, and what an old node brings is fenced.
        (world.index, world.state) = (state.applied_index(), state);
        world.watch = invariants::Watch::default();
        world.plan(3);
        let Reply::Node(next) = world.apply(&admit("four", 4)) else { panic!("not admitted") };
        assert!(ids.iter().all(|id| *id < next));
    }
    assert!(leases > 50, "{leases}");
}
