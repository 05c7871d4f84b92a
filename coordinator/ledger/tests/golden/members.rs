//! What the fifth form knows of members and levels: who removed a node, and that a level begins by command.

use super::*;
use ledger::command::Removal;

fn removal(id: &str) -> Removal {
    Removal { reason: "burnt".into(), request: request(id) }
}

fn commands() -> Vec<Command> {
    vec![
        Command::RaiseLevel { level: 5, reason: "all are upgraded".into(), request: request("raise") },
        Command::RemoveNode { node: NodeId(1), wish: Some(removal("remove")) },
    ]
}

fn founded() -> State {
    let mut state = State::new();
    state.apply_entry(1, &encode_entry(STAMP, &admit())).unwrap();
    state
}

#[test]
fn an_entry_about_members_is_read_and_written_as_then() {
    let golden = kept("entry-5-members.cbor", &encode_entry(STAMP, &commands()));
    let entry: Entry = types::decode(&golden).unwrap();
    assert_eq!((entry.format, entry.min_reader), (5, 5));
    assert_eq!(entry.commands, commands());
    assert_eq!(encode_entry(entry.stamp, &entry.commands), golden);
    // Without who and why it keeps its form, and older versions read it.
    let plain = vec![Command::RemoveNode { node: NodeId(1), wish: None }];
    let older: Entry = types::decode(&encode_entry(STAMP, &plain)).unwrap();
    assert_eq!((older.format, older.commands), (2, plain));
}

#[test]
fn a_snapshot_with_members_that_left_is_read_and_written_as_then() {
    let mut state = founded();
    let applied = state.apply_entry(2, &encode_entry(STAMP, &commands())).unwrap();
    assert_eq!(applied.replies, [Reply::Done, Reply::Node(NodeId(1))]);
    let golden = kept("snapshot-5-members.cbor", &state.snapshot());
    let restored = State::restore(&golden).unwrap();
    assert_eq!(restored.snapshot(), golden);
    assert_eq!(restored.state_hash(), state.state_hash());
    assert_eq!(state.snapshot(), golden);
    let audit: Vec<(String, String)> =
        restored.audit_after(0, "").map(|row| (row.action.clone(), row.change.clone())).collect();
    let wanted = [("cluster.raise-level", "level -> 5"), ("node.remove", "one -> removed")];
    assert_eq!(audit, wanted.map(|(action, change)| (action.to_string(), change.to_string())));
    ledger::invariants::check(&restored).unwrap();
}

#[test]
fn a_level_begins_by_command_alone_and_a_removal_once() {
    let mut state = founded();
    assert_eq!(state.form_allowed(), 3);
    let mut apply = |index, command| {
        let applied = state.apply_entry(index, &encode_entry(STAMP, &[command])).unwrap();
        (applied.replies.into_iter().next().unwrap(), state.form_allowed())
    };
    let raise = Command::RaiseLevel { level: 5, reason: String::new(), request: RequestKey::default() };
    assert_eq!(apply(2, raise), (Reply::Done, 5));
    let remove = |node, id| Command::RemoveNode { node: NodeId(node), wish: Some(removal(id)) };
    assert_eq!(apply(3, remove(1, "once")).0, Reply::Node(NodeId(1)));
    // The same request again, by a caller whose name for the node leads nowhere by now.
    assert_eq!(apply(4, remove(0, "once")).0, Reply::Node(NodeId(1)));
    assert!(matches!(apply(5, remove(1, "twice")).0, Reply::Refused(_)));
}
