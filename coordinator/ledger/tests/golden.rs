//! The stored forms, kept as files from the first day: today's code reads what the first version wrote and writes
//! it back the same. A new form gets new files beside these; these stay. `UPDATE=1` writes missing files only.

mod fifth;
mod fourth;
mod members;
mod seventh;
mod sixth;

use ledger::command::{ChildSpec, Command, Entry, Next, Release, RequestKey, Stamp, Terms};
use ledger::keys::{Amounts, Bound, Budget, Holding, Window};
use ledger::reply::Reply;
use ledger::rows::{
    AgentKind, Ask, AskKind, CallId, Closed, Fork, InputRef, Price, QuotaKey, Role, ScheduleRow, SignalKind,
    TaskError, Want,
};
use ledger::{State, encode_entry};
use std::fs;
use std::path::PathBuf;
use types::{Class, ClusterId, Epoch, Hash, NodeId, ProjectName, Spent, TaskUid};

const STAMP: Stamp = Stamp { ledger_ms: 5_000, wall_ms: 1_700_000_000_000 };

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The kept bytes; written now if they are missing and `UPDATE` is set.
fn kept(name: &str, today: &[u8]) -> Vec<u8> {
    if std::env::var_os("UPDATE").is_some() && !file(name).exists() {
        fs::write(file(name), today).unwrap();
    }
    fs::read(file(name)).unwrap_or_else(|error| panic!("{name}: {error}; UPDATE=1 writes missing files"))
}

fn hash(text: &str) -> Hash {
    Hash::of(text.as_bytes())
}

fn request(id: &str) -> RequestKey {
    RequestKey { author: "ann".into(), request_id: id.into(), body: hash("body") }
}

fn uid(position: u32) -> TaskUid {
    uid_at(2, position)
}

fn uid_at(index: u64, position: u32) -> TaskUid {
    TaskUid { index, position: position * 256 }
}

fn epoch(position: u32) -> Epoch {
    Epoch { incarnation: 1, index: 2, position }
}

fn admit() -> Vec<Command> {
    vec![
        Command::InitCluster { cluster_id: ClusterId([9; 16]) },
        Command::AdmitNode {
            name: "one".into(),
            roles: vec![Role::Coordinator, Role::Worker],
            client_addr: "127.0.0.1:7400".into(),
            internal_addr: "127.0.0.1:7401".into(),
            disk_id: [3; 16],
            version: "0.1.0".into(),
        },
    ]
}

fn agent(name: &str, kind: AgentKind) -> Command {
    Command::ApplyAgent {
        project: ProjectName::default(),
        name: name.into(),
        kind,
        model: "smollm2".into(),
        revision: hash(name),
        definition: hash(name),
        etag: Some(0),
        home: vec![NodeId(1)],
        request: request(name),
        needs: None,
    }
}

fn create(agent: &str, class: Class) -> Command {
    Command::CreateTask {
        project: ProjectName::default(),
        agent: agent.into(),
        inputs: vec![InputRef { name: "a.md".into(), segment: hash("a"), bytes: 12 }],
        task_id: Some(format!("{agent}-{}", class.name())),
        labels: vec![("team".into(), "x".into())],
        class,
        priority: 7,
        deadline_ms: STAMP.wall_ms + 60_000,
        home: vec![NodeId(1)],
        request: request(class.name()),
        terms: None,
    }
}

fn commit(task: u32, lease: u32, next: Next) -> Command {
    Command::CommitStep {
        task: uid(task),
        epoch: epoch(lease),
        node: NodeId(1),
        step: 1,
        head: hash("head"),
        home: vec![NodeId(1)],
        spent: Spent { prompt_tokens: 9, cached_tokens: 4, generated_tokens: 3, micro_usd: 1 },
        billed_tokens: 0,
        next,
        extra: None,
    }
}

/// What form 2 has more.
fn newer_commands() -> Vec<Command> {
    let node = NodeId(1);
    let keys = [
        QuotaKey::Weight,
        QuotaKey::RequestsMinute,
        QuotaKey::Budget(Budget::MicroUsd, Window::Month),
        QuotaKey::Holding(Holding::Connections("api.example.com".into()), Bound::Borrow),
    ];
    let needs = Some(vec![(Holding::CpuMilli, 500)]);
    let terms =
        Terms { limits: vec![(QuotaKey::TokensTotal, 9)], not_before_ms: 0, after: vec![], fork: None };
    let Command::ApplyAgent { project, kind, model, home, .. } = agent("needy", AgentKind::Agent) else {
        unreachable!()
    };
    let needy = Command::ApplyAgent {
        project: project.clone(),
        name: "needy".into(),
        kind,
        model,
        revision: hash("needy"),
        definition: hash("needy"),
        etag: None,
        home,
        request: request("needy"),
        needs,
    };
    let Command::CreateTask { inputs, labels, class, priority, deadline_ms, home, .. } =
        create("needy", Class::System)
    else {
        unreachable!()
    };
    let task = Command::CreateTask {
        project,
        agent: "needy".into(),
        inputs,
        task_id: None,
        labels,
        class,
        priority,
        deadline_ms,
        home,
        request: request("needy task"),
        terms: Some(terms),
    };
    let want = Want { fresh_tokens: 2, known_tokens: 7, extra: Amounts { tool_calls: 1, ..Amounts::NONE } };
    let (task_uid, lease) = (uid_at(3, 2), Epoch { index: 3, ..epoch(5) });
    vec![
        Command::SetQuota {
            path: "projects/default".into(),
            changes: keys.map(|key| (key, Some(1000))).into(),
            etag: None,
            reason: "more".into(),
            request: request("keys"),
        },
        needy,
        task,
        Command::SetPrice {
            model: "smollm2".into(),
            price: Price { input: 1_000_000, cached: 100_000, output: 3_000_000 },
            etag: Some(0),
            reason: "book".into(),
            request: request("price"),
        },
        Command::CloseNode {
            node,
            closed: Some(Closed::Cordoned),
            grace_ms: 0,
            reason: "disk".into(),
            request: request("close"),
        },
        Command::Assign { task: task_uid, node },
        Command::Reserve {
            task: task_uid,
            epoch: lease,
            node,
            step: 1,
            min_tokens: 4,
            max_tokens: 9,
            want: Some(want),
            route: None,
        },
        Command::Preempt { task: task_uid, epoch: lease, grace_ms: 100 },
    ]
}

/// What form 3 has more: signals, questions, forks, limits of children, named chains, schedules.
fn newest_commands() -> Vec<Command> {
    let (project, node) = (ProjectName::default(), NodeId(1));
    let ask = |kind| Ask { id: "1.0".into(), kind, about: "mail.send".into(), text: Some(hash("call")) };
    let lease = |position| Epoch { index: 4, ..epoch(position) };
    let step = |step, position, next| Command::CommitStep {
        task: uid_at(4, 0),
        epoch: lease(position),
        node,
        step,
        head: hash("head"),
        home: vec![node],
        spent: Spent::default(),
        billed_tokens: 0,
        next,
        extra: None,
    };
    let signal = |kind, ask: &str, id: &str| Command::Signal {
        project: ProjectName::default(),
        task: uid_at(4, 0),
        kind,
        ask: ask.into(),
        text: Some(hash("said")),
        home: vec![NodeId(1)],
        request: request(id),
    };
    let Command::CreateTask { agent, inputs, labels, class, priority, deadline_ms, home, .. } =
        create("reader", Class::Batch)
    else {
        unreachable!()
    };
    let fork = Fork { task: uid(3), step: 1, head: Some(hash("head")) };
    let child = ChildSpec {
        agent: "reader".into(),
        inputs: vec![],
        background: vec![],
        home: vec![],
        limits: Some(vec![(QuotaKey::TokensTotal, 50)]),
        together: None,
        priority: None,
    };
    let schedule = ScheduleRow {
        project: project.clone(),
        name: "nightly".into(),
        cron: "0 6 * * *".into(),
        agent: "reader".into(),
        inputs: inputs.clone(),
        class,
        priority: 5,
        home: vec![node],
        next_ms: STAMP.wall_ms,
        last_task: None,
        last_error: String::new(),
        fired: 0,
        author: String::new(),
    };
    vec![
        Command::CreateTask {
            project: project.clone(),
            agent,
            inputs,
            task_id: None,
            labels,
            class,
            priority,
            deadline_ms,
            home,
            request: request("forked"),
            terms: Some(Terms { fork: Some(fork), ..Terms::default() }),
        },
        Command::Assign { task: uid_at(4, 0), node },
        step(2, 1, Next::WaitTool { heard: 0, asks: vec![ask(AskKind::Approval)], begun: Some(2) }),
        signal(SignalKind::Approve, "1.0", "approve"),
        signal(SignalKind::Enqueue, "", "later"),
        step(3, 1, Next::GoOn { heard: 1 }),
        Command::Spawn { parent: uid_at(4, 0), epoch: lease(1), node, step: 4, children: vec![child] },
        step(4, 1, Next::WaitInput { heard: 1, asks: vec![ask(AskKind::UnknownMayRepeat)] }),
        signal(SignalKind::Repeat, "1.0", "repeat"),
        Command::Assign { task: uid_at(4, 0), node },
        step(5, 9, Next::WaitFor { heard: 3, ms: 1000 }),
        Command::MoveHead {
            project: project.clone(),
            path: "memory".into(),
            after: None,
            head: hash("record"),
            home: vec![node],
            forget: vec![hash("secret")],
            request: request("head"),
        },
        Command::SetSchedule { row: Box::new(schedule), request: request("schedule") },
        Command::FireSchedule {
            project,
            name: "nightly".into(),
            due_ms: STAMP.wall_ms,
            next_ms: STAMP.wall_ms + 9,
        },
    ]
}

/// Every kind of command, and every kind of `Next` and `Release`. Positions are part of uids and epochs.
fn every_command() -> Vec<Command> {
    let (project, node) = (ProjectName::default(), NodeId(1));
    let error = TaskError { reason: "MODEL_GONE".into(), text: Some(hash("text")) };
    let child = ChildSpec {
        agent: "reader".into(),
        inputs: vec![],
        background: vec![hash("shared")],
        home: vec![NodeId(1)],
        limits: None,
        together: None,
        priority: None,
    };
    let limits = vec![
        (QuotaKey::Running, Some(10)),
        (QuotaKey::TokensMinute, Some(1000)),
        (QuotaKey::TokensTotal, Some(5000)),
    ];
    vec![
        agent("reader", AgentKind::Agent),
        agent("team", AgentKind::Team),
        create("team", Class::System),
        create("reader", Class::Interactive),
        create("reader", Class::Batch),
        create("reader", Class::BestEffort),
        Command::SetQuota {
            path: "projects/default".into(),
            changes: limits,
            etag: Some(0),
            reason: "start".into(),
            request: request("quota"),
        },
        Command::HoldModels { node, models: vec![("smollm2".into(), hash("file"), 145)] },
        Command::Assign { task: uid(2), node },
        Command::Assign { task: uid(3), node },
        Command::Assign { task: uid(4), node },
        Command::Assign { task: uid(5), node },
        Command::Spawn {
            parent: uid(2),
            epoch: epoch(8),
            node,
            step: 1,
            children: vec![child.clone(), child],
        },
        commit(2, 8, Next::WaitChildren),
        Command::Reserve {
            task: uid(3),
            epoch: epoch(9),
            node,
            step: 1,
            min_tokens: 5,
            max_tokens: 50,
            want: None,
            route: None,
        },
        commit(3, 9, Next::Continue),
        commit(4, 10, Next::PausedError { error: error.clone() }),
        commit(5, 11, Next::Done { result: hash("result"), bytes: 6 }),
        Command::ResumeTask { project: project.clone(), task: uid(4), request: request("resume") },
        Command::Assign { task: uid(4), node },
        commit(4, 19, Next::Failed { error }),
        Command::PauseTask { project: project.clone(), task: uid(3), request: request("pause") },
        Command::Release { task: uid(3), epoch: epoch(9), node, why: Release::Stopped },
        Command::Release { task: uid(3), epoch: epoch(9), node, why: Release::Yielded },
        Command::Release { task: uid(3), epoch: epoch(9), node, why: Release::Broken },
        Command::CancelTask { project, task: uid(3), request: request("cancel") },
        Command::NodeLost { node: NodeId(77) },
        Command::RemoveNode { node: NodeId(78), wish: None },
        Command::Tick,
    ]
}

#[test]
fn an_entry_of_the_first_form_is_read_and_written_as_then() {
    let today = encode_entry(STAMP, &every_command());
    let golden = kept("entry-1.cbor", &today);
    let entry: Entry = types::decode(&golden).unwrap();
    assert_eq!(entry.commands, every_command());
    assert_eq!(types::encode(&entry), golden);
}

#[test]
fn an_entry_of_the_second_form_is_read_and_written_as_then() {
    let golden = kept("entry-2.cbor", &encode_entry(STAMP, &newer_commands()));
    let entry: Entry = types::decode(&golden).unwrap();
    assert_eq!(entry.commands, newer_commands());
    assert_eq!(encode_entry(entry.stamp, &entry.commands), golden);
}

/// An entry as the first version wrote it.
fn first_form(commands: Vec<Command>) -> Vec<u8> {
    types::encode(&Entry { format: 1, min_reader: 1, stamp: STAMP, commands })
}

#[test]
fn a_snapshot_of_the_first_form_is_read_and_written_as_then() {
    let mut state = State::new();
    state.apply_entry(1, &first_form(admit())).unwrap();
    let applied = state.apply_entry(2, &first_form(every_command())).unwrap();
    assert!(!applied.replies.iter().any(|reply| matches!(reply, Reply::Refused(_))), "{:?}", applied.replies);
    let golden = kept("snapshot-1.cbor", &state.snapshot());
    let mut restored = State::restore(&golden).unwrap();
    assert_eq!(restored.snapshot(), golden);
    // The same log must still make the same state, or replicas of two versions would part.
    assert_eq!(restored.state_hash(), state.state_hash());
    assert_eq!(state.snapshot(), golden);
    // Both count finely from the first entry of form 2 on, and stay the same.
    for state in [&mut restored, &mut state] {
        state.apply_entry(3, &encode_entry(STAMP, &[Command::Tick])).unwrap();
        ledger::invariants::check(state).unwrap();
    }
    assert_eq!(restored.snapshot(), state.snapshot());
}

#[test]
fn a_snapshot_of_the_second_form_is_read_and_written_as_then() {
    let mut state = State::new();
    state.apply_entry(1, &encode_entry(STAMP, &admit())).unwrap();
    state.apply_entry(2, &encode_entry(STAMP, &every_command())).unwrap();
    let applied = state.apply_entry(3, &encode_entry(STAMP, &newer_commands())).unwrap();
    assert!(!applied.replies.iter().any(|reply| matches!(reply, Reply::Refused(_))), "{:?}", applied.replies);
    let golden = kept("snapshot-2.cbor", &state.snapshot());
    let restored = State::restore(&golden).unwrap();
    assert_eq!(restored.snapshot(), golden);
    // The same log must still make the same state, or replicas of two versions would part.
    assert_eq!(restored.state_hash(), state.state_hash());
    assert_eq!(state.snapshot(), golden);
}

#[test]
fn an_entry_of_the_third_form_is_read_and_written_as_then() {
    let golden = kept("entry-3.cbor", &encode_entry(STAMP, &newest_commands()));
    let entry: Entry = types::decode(&golden).unwrap();
    assert_eq!((entry.format, entry.min_reader), (3, 3));
    assert_eq!(entry.commands, newest_commands());
    assert_eq!(encode_entry(entry.stamp, &entry.commands), golden);
    // What says nothing new keeps its form, and older versions read it.
    let older: Entry = types::decode(&encode_entry(STAMP, &newer_commands())).unwrap();
    assert_eq!((older.format, older.min_reader), (2, 2));
}

#[test]
fn a_snapshot_of_the_third_form_is_read_and_written_as_then() {
    let mut state = State::new();
    state.apply_entry(1, &encode_entry(STAMP, &admit())).unwrap();
    state.apply_entry(2, &encode_entry(STAMP, &every_command())).unwrap();
    state.apply_entry(3, &encode_entry(STAMP, &newer_commands())).unwrap();
    let applied = state.apply_entry(4, &encode_entry(STAMP, &newest_commands())).unwrap();
    assert!(!applied.replies.iter().any(|reply| matches!(reply, Reply::Refused(_))), "{:?}", applied.replies);
    let golden = kept("snapshot-3.cbor", &state.snapshot());
    let restored = State::restore(&golden).unwrap();
    assert_eq!(restored.snapshot(), golden);
    // The same log must still make the same state, or replicas of two versions would part.
    assert_eq!(restored.state_hash(), state.state_hash());
    assert_eq!(state.snapshot(), golden);
    ledger::invariants::check(&restored).unwrap();
}

#[test]
fn what_is_not_understood_halts_with_the_reason() {
    let golden = encode_entry(STAMP, &[Command::Tick]);
    let mut state = State::new();
    let mut halt = |bytes: &[u8]| state.apply_entry(1, bytes).unwrap_err().to_string();
    let mut newer: Entry = types::decode(&golden).unwrap();
    newer.min_reader = ledger::READER + 1;
    assert!(halt(&types::encode(&newer)).contains("upgrade quorate"));
    // The variant's number, far beyond the last.
    let mut unknown = golden.clone();
    let at = unknown.iter().rposition(|byte| *byte == 16).unwrap();
    unknown.splice(at..=at, [0x18, 99]);
    assert!(halt(&unknown).contains("cannot be read"), "{}", halt(&unknown));
    assert!(halt(&golden[..golden.len() - 1]).contains("cannot be read"));
    assert!(halt(&[]).contains("damaged"));
    let many = Entry { commands: vec![Command::Tick; 257], ..types::decode(&golden).unwrap() };
    assert!(halt(&types::encode(&many)).contains("at most 256"));
    state.apply_entry(5, &golden).unwrap();
    assert!(state.apply_entry(5, &golden).unwrap_err().to_string().contains("out of order"));
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let mut state = State::new();
    state.apply_entry(1, &encode_entry(STAMP, &admit())).unwrap();
    let snapshot = state.snapshot();
    let name = snapshot.windows(3).position(|bytes| bytes == b"one").unwrap();
    let mut damaged = snapshot.clone();
    damaged[name] = b'O';
    let halt = State::restore(&damaged).unwrap_err().to_string();
    assert!(halt.contains("state hash"), "{halt}");
    assert!(State::restore(&snapshot[..snapshot.len() - 1]).is_err());
    let mut newer = snapshot;
    newer[2] = 9;
    assert!(State::restore(&newer).unwrap_err().to_string().contains("upgrade"));
}
