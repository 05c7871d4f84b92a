//! The fifth form: homes that move, chains that end with their task.

use super::fourth::fourth_commands;
use super::*;
use ledger::query::{Answer, Query};
use ledger::rows::Kept;

/// A board of a task that never was.
fn board() -> (ProjectName, String, Hash) {
    (ProjectName::default(), format!("boards/{}", uid_at(9, 0)), hash("sheet"))
}

/// What has to be there before homes can move: a board, and another member.
fn before() -> Vec<Command> {
    let (project, path, head) = board();
    let Some(Command::AdmitNode { roles, client_addr, internal_addr, version, .. }) = admit().pop() else {
        unreachable!()
    };
    vec![
        Command::MoveHead {
            project,
            path,
            after: None,
            head,
            home: vec![NodeId(1)],
            forget: vec![],
            request: request("board"),
        },
        Command::AdmitNode {
            name: "two".into(),
            roles,
            client_addr,
            internal_addr,
            disk_id: [4; 16],
            version,
        },
    ]
}

/// Everything that one member keeps is short of a copy when there are two.
fn short(state: &State) -> Vec<Kept> {
    let short = |ended| {
        let (holder, gone, unproved, after) = (NodeId(1), vec![], false, None);
        let query = Query::Short { holder, gone, unproved, ended, after, limit: 1000 };
        let Answer::Short { rows, .. } = state.answer(&query, None) else { unreachable!() };
        rows
    };
    [short(false), short(true)].concat()
}

/// What form 5 has more.
fn fifth_commands(short: Vec<Kept>) -> Vec<Command> {
    let (project, path, head) = board();
    let moved = short.into_iter().map(|row| Command::MoveHome {
        chain: row.chain,
        was: row.keepers,
        mark: row.mark,
        home: vec![NodeId(1), NodeId(6)],
    });
    moved.chain([Command::DropHead { project, path, head }]).collect()
}

fn state_before() -> State {
    let mut state = State::new();
    let entries =
        [admit(), every_command(), newer_commands(), newest_commands(), fourth_commands(), before()];
    for (index, commands) in (1u64..).zip(entries) {
        let applied = state.apply_entry(index, &encode_entry(STAMP, &commands)).unwrap();
        assert!(index < 5 || applied.replies.iter().all(|reply| !matches!(reply, Reply::Refused(_))));
    }
    state
}

#[test]
fn an_entry_of_the_fifth_form_is_read_and_written_as_then() {
    let commands = fifth_commands(short(&state_before()));
    for kind in ["Agent", "Schedule", "Head", "Task"] {
        let of_kind = |command: &Command| format!("{command:?}").contains(&format!("chain: {kind}"));
        assert!(commands.iter().any(of_kind), "no home of a {kind} moves");
    }
    let golden = kept("entry-5.cbor", &encode_entry(STAMP, &commands));
    let entry: Entry = types::decode(&golden).unwrap();
    assert_eq!((entry.format, entry.min_reader), (5, 5));
    assert_eq!(entry.commands, commands);
    assert_eq!(encode_entry(entry.stamp, &entry.commands), golden);
    // What says nothing new keeps its form, and older versions read it.
    let older: Entry = types::decode(&encode_entry(STAMP, &fourth_commands())).unwrap();
    assert_eq!((older.format, older.min_reader), (4, 4));
}

#[test]
fn a_snapshot_of_the_fifth_form_is_read_and_written_as_then() {
    let mut state = state_before();
    let commands = fifth_commands(short(&state));
    let applied = state.apply_entry(7, &encode_entry(STAMP, &commands)).unwrap();
    assert!(applied.replies.iter().all(|reply| *reply == Reply::Done), "{:?}", applied.replies);
    let golden = kept("snapshot-5.cbor", &state.snapshot());
    let restored = State::restore(&golden).unwrap();
    assert_eq!(restored.snapshot(), golden);
    // The same log must still make the same state, or replicas of two versions would part.
    assert_eq!(restored.state_hash(), state.state_hash());
    assert_eq!(state.snapshot(), golden);
    assert_eq!(short(&restored), []);
    assert_eq!(restored.heads_outlived().count(), 0);
    ledger::invariants::check(&restored).unwrap();
}
