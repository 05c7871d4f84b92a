//! The fourth form: children that start together, model calls without a task.

use super::*;

/// Model calls without a task.
fn call_commands() -> Vec<Command> {
    let (project, node) = (ProjectName::parse("a/b").unwrap(), NodeId(1));
    let begin = |call| Command::BeginCall {
        call,
        project: ProjectName::parse("a/b").unwrap(),
        model: "smollm2".into(),
        author: "ann@a/b".into(),
        node,
        min_tokens: 5,
        max_tokens: 9,
        want: Want {
            fresh_tokens: 4,
            known_tokens: 0,
            extra: Amounts { cached_tokens: 4, kv_block_seconds: 2, ..Amounts::NONE },
        },
        lives_ms: 30_000,
        needs: vec![(Holding::Connections("api.example.com".into()), 1)],
    };
    let (under_way, over) = (CallId([5; 16]), CallId([6; 16]));
    vec![
        begin(under_way),
        begin(over),
        Command::RenewCalls { node, calls: vec![(project.clone(), under_way)], lives_ms: 40_000 },
        Command::EndCall {
            project,
            call: over,
            fresh_tokens: 1,
            known_tokens: 3,
            generated_tokens: 2,
            extra: Amounts { kv_block_seconds: 1, ..Amounts::NONE },
        },
    ]
}

/// Children that start together, with a place of their own in the queue, and one that hung.
fn team_commands() -> Vec<Command> {
    let node = NodeId(1);
    let uid = |nth: u32| TaskUid { index: 5, position: nth };
    let epoch = Epoch { incarnation: 1, index: 5, position: 2 };
    let child = ChildSpec {
        agent: "reader".into(),
        inputs: vec![],
        background: vec![],
        home: vec![],
        limits: None,
        priority: Some(0),
        together: Some(true),
    };
    let Command::CreateTask { project, inputs, labels, class, priority, home, .. } =
        create("reader", Class::Batch)
    else {
        unreachable!()
    };
    vec![
        Command::SetQuota {
            path: "cluster".into(),
            changes: vec![(QuotaKey::Running, None)],
            etag: None,
            reason: String::new(),
            request: request("room"),
        },
        Command::CreateTask {
            project,
            agent: "reader".into(),
            inputs,
            task_id: None,
            labels,
            class,
            priority,
            deadline_ms: 0,
            home,
            request: request("together"),
            terms: None,
        },
        Command::Assign { task: uid(256), node },
        Command::Spawn { parent: uid(256), epoch, node, step: 1, children: vec![child; 2] },
        Command::AssignTogether { leases: vec![(uid(3 * 256), node), (uid(3 * 256 + 1), node)] },
        Command::Release {
            task: uid(3 * 256),
            epoch: Epoch { position: 4, ..epoch },
            node,
            why: Release::Stuck,
        },
    ]
}

/// What form 4 has more.
pub(super) fn fourth_commands() -> Vec<Command> {
    [team_commands(), call_commands()].concat()
}

#[test]
fn an_entry_of_the_fourth_form_is_read_and_written_as_then() {
    let golden = kept("entry-4.cbor", &encode_entry(STAMP, &fourth_commands()));
    let entry: Entry = types::decode(&golden).unwrap();
    assert_eq!((entry.format, entry.min_reader), (4, 4));
    assert_eq!(entry.commands, fourth_commands());
    assert_eq!(encode_entry(entry.stamp, &entry.commands), golden);
    // What says nothing new keeps its form, and older versions read it.
    let older: Entry = types::decode(&encode_entry(STAMP, &newest_commands())).unwrap();
    assert_eq!((older.format, older.min_reader), (3, 3));
}

#[test]
fn a_snapshot_of_the_fourth_form_is_read_and_written_as_then() {
    let mut state = State::new();
    state.apply_entry(1, &encode_entry(STAMP, &admit())).unwrap();
    state.apply_entry(2, &encode_entry(STAMP, &every_command())).unwrap();
    state.apply_entry(3, &encode_entry(STAMP, &newer_commands())).unwrap();
    state.apply_entry(4, &encode_entry(STAMP, &newest_commands())).unwrap();
    let applied = state.apply_entry(5, &encode_entry(STAMP, &fourth_commands())).unwrap();
    assert!(!applied.replies.iter().any(|reply| matches!(reply, Reply::Refused(_))), "{:?}", applied.replies);
    let golden = kept("snapshot-4.cbor", &state.snapshot());
    let restored = State::restore(&golden).unwrap();
    assert_eq!(restored.snapshot(), golden);
    // The same log must still make the same state, or replicas of two versions would part.
    assert_eq!(restored.state_hash(), state.state_hash());
    assert_eq!(state.snapshot(), golden);
    assert_eq!(restored.calls().count(), 1);
    ledger::invariants::check(&restored).unwrap();
}
