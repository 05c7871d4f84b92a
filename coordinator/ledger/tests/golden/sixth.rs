//! The sixth form: calls that one of several models answers.

use super::*;
use ledger::command::Route;
use ledger::rows::{Event, EventKind, StepRoute};

fn at_level_6() -> Vec<Command> {
    let raise = Command::RaiseLevel { level: 6, reason: "all upgraded".into(), request: request("raise") };
    admit().into_iter().chain([raise]).collect()
}

/// A task of its own, so that nothing of the older forms is touched.
fn before() -> Vec<Command> {
    let (project, home) = (ProjectName::default(), vec![NodeId(1)]);
    let price = |model: &str, input| Command::SetPrice {
        model: model.into(),
        price: Price { input, cached: input / 10, output: 3 * input },
        etag: None,
        reason: String::new(),
        request: request(model),
    };
    let create = Command::CreateTask {
        project,
        agent: "chooser".into(),
        inputs: vec![],
        task_id: None,
        labels: vec![],
        class: Class::Batch,
        priority: 5,
        deadline_ms: 0,
        home,
        request: request("routed"),
        terms: None,
    };
    let limit = Command::SetQuota {
        path: "cluster".into(),
        changes: vec![(QuotaKey::parse("micro_usd_total").unwrap(), Some(1_000))],
        etag: None,
        reason: String::new(),
        request: request("limit"),
    };
    vec![
        price("cheap", 1_000_000),
        price("dear", 10_000_000),
        limit,
        agent("chooser", AgentKind::Agent),
        create,
    ]
}

fn wish(epoch: Epoch, model: &str, turn: u32, others: bool) -> Command {
    Command::Reserve {
        task: uid_at(2, 4),
        epoch,
        node: NodeId(1),
        step: 1,
        min_tokens: 101,
        max_tokens: 200,
        want: Some(Want { fresh_tokens: 100, ..Want::default() }),
        route: Some(Route { model: model.into(), reason: "IN_TIME".into(), turn, others }),
    }
}

/// The dear model is over the budget, the cheap one is not.
fn sixth_commands(epoch: Epoch) -> Vec<Command> {
    let done = Next::Done { result: hash("result"), bytes: 6 };
    let commit = Command::CommitStep {
        task: uid_at(2, 4),
        epoch,
        node: NodeId(1),
        step: 1,
        head: hash("head"),
        home: vec![NodeId(1)],
        spent: Spent { prompt_tokens: 100, cached_tokens: 0, generated_tokens: 20, micro_usd: 0 },
        billed_tokens: 120,
        next: done,
        extra: None,
    };
    vec![wish(epoch, "dear", 1, true), wish(epoch, "cheap", 2, false), commit]
}

fn applied() -> (State, Vec<Command>, Vec<Reply>) {
    let mut state = State::new();
    for (index, commands) in (1u64..).zip([at_level_6(), before()]) {
        let applied = state.apply_entry(index, &encode_entry(STAMP, &commands)).unwrap();
        assert!(
            applied.replies.iter().all(|reply| !matches!(reply, Reply::Refused(_))),
            "{:?}",
            applied.replies
        );
    }
    let assign = Command::Assign { task: uid_at(2, 4), node: NodeId(1) };
    let assigned = state.apply_entry(3, &encode_entry(STAMP, &[assign])).unwrap();
    let [Reply::Assigned(epoch)] = assigned.replies[..] else { panic!("{:?}", assigned.replies) };
    let commands = sixth_commands(epoch);
    let replies = state.apply_entry(4, &encode_entry(STAMP, &commands)).unwrap().replies;
    (state, commands, replies)
}

#[test]
fn an_entry_of_the_sixth_form_is_read_and_written_as_then() {
    let (_, commands, _) = applied();
    let golden = kept("entry-6.cbor", &encode_entry(STAMP, &commands));
    let entry: Entry = types::decode(&golden).unwrap();
    assert_eq!((entry.format, entry.min_reader), (6, 6));
    assert_eq!(entry.commands, commands);
    assert_eq!(encode_entry(entry.stamp, &entry.commands), golden);
}

#[test]
fn a_snapshot_of_the_sixth_form_is_read_and_written_as_then() {
    let (state, _, replies) = applied();
    assert!(matches!(replies[0], Reply::Refused(_)), "{replies:?}");
    assert_eq!(replies[1..], [Reply::Reserved(200), Reply::Done]);
    let golden = kept("snapshot-6.cbor", &state.snapshot());
    let restored = State::restore(&golden).unwrap();
    assert_eq!(restored.snapshot(), golden);
    assert_eq!(restored.state_hash(), state.state_hash());
    assert_eq!(state.snapshot(), golden);
    let route = Box::new(StepRoute { model: "cheap".into(), reason: "IN_TIME".into() });
    let by = |event: Event| match &event.kind {
        EventKind::Step { route, spent, .. } => Some((route.clone(), spent.micro_usd)),
        EventKind::State { .. } => None,
    };
    let steps: Vec<_> = restored.events_from(uid_at(2, 4), 0).filter_map(by).collect();
    assert_eq!(steps, [(Some(route), 100 + 60)], "settled at the price of the model that answered");
    ledger::invariants::check(&restored).unwrap();
}
