//! Budgets that hold: what users of LiteLLM and of Envoy's AI gateway ran into, as tests by name. The cases are those of
//! the threads named; the rest are promises of our own.

use crate::bench::Bench;
use ledger::command::Next;
use ledger::command::Terms;
use ledger::keys::Amounts;
use ledger::reply::{Refusal, Reply};
use ledger::rows::{QuotaKey, Want};
use types::{Class, PauseReason, TaskState, TaskUid};

const PAUSED: TaskState = TaskState::Paused(PauseReason::Budget);
const DAY_MS: u64 = 86_400_000;

fn running(bench: &mut Bench, count: usize) -> Vec<TaskUid> {
    let uids: Vec<TaskUid> = (0..count).map(|_| bench.create("p", "agent", Class::Batch)).collect();
    uids.iter().for_each(|uid| drop(bench.start(*uid)));
    uids
}

fn fresh(tokens: u64) -> Want {
    Want { fresh_tokens: tokens, ..Want::default() }
}

/// litellm#34732: checking first and counting later lets parallel calls overrun.
#[test]
fn litellm_parallel_calls_do_not_overrun() {
    let mut bench = Bench::new(50, &["p"]);
    bench.set("projects/p", "tokens_total", Some(1000));
    let uids = running(&mut bench, 40);
    let granted: u64 = uids
        .iter()
        .map(|uid| match bench.reserve(*uid, 60, 60, fresh(10)) {
            Reply::Reserved(tokens) => tokens,
            _ => 0,
        })
        .sum();
    assert_eq!(granted, 960);
    assert_eq!(uids.iter().filter(|uid| bench.task(**uid).state == PAUSED).count(), 24);
    bench.check();
}

/// litellm#27639: reservations that leak make phantom refusals.
#[test]
fn litellm_no_reservation_outlives_its_lease() {
    let mut bench = Bench::new(50, &["p"]);
    bench.set("projects/p", "micro_usd_day", Some(1000));
    bench.price(1_000_000, 0, 1_000_000);
    for uid in running(&mut bench, 5) {
        bench.reserve(uid, 100, 100, fresh(50));
    }
    assert_eq!(bench.used("projects/p", "micro_usd_day"), 500);
    bench.apply(ledger::command::Command::NodeLost { node: crate::bench::NODE });
    assert_eq!(bench.used("projects/p", "micro_usd_day"), 0);
    assert_eq!(bench.used("projects/p", "requests_minute"), 0);
    bench.check();
}

/// litellm#30460: two sets of books drift apart. Here the sum over the tasks is checked after every command.
#[test]
fn litellm_the_books_are_the_sum_of_the_tasks() {
    let mut bench = Bench::new(50, &["p"]);
    bench.price(3, 1, 7);
    for (i, uid) in running(&mut bench, 20).into_iter().enumerate() {
        bench.reserve(uid, 10 + i as u64, 50, Want { known_tokens: 5, ..fresh(10) });
        bench.commit(uid, 10 + i as u64 / 2, i as u64 / 2, Amounts::NONE, i % 2 == 0);
        bench.check();
    }
    let tasks: u64 = bench.state.tasks().map(|row| row.settled_tokens).sum();
    let row = bench.state.quota("cluster").unwrap();
    assert_eq!((row.tokens_settled, row.tokens_reserved), (tasks, 0));
}

/// litellm#40002: five calls of 300k tokens, $0.60 spent on a key of $0.45.
#[test]
fn litellm_large_calls_stop_at_the_money() {
    let mut bench = Bench::new(50, &["p"]);
    bench.price(500_000, 0, 500_000);
    bench.set("projects/p", "micro_usd_total", Some(450_000));
    let uids = running(&mut bench, 5);
    let admitted: Vec<bool> = uids
        .iter()
        .map(|uid| matches!(bench.reserve(*uid, 300_000, 300_000, fresh(300_000)), Reply::Reserved(_)))
        .collect();
    assert_eq!(admitted, [true, true, true, false, false]);
    assert_eq!(bench.used("projects/p", "micro_usd_total"), 450_000);
}

/// litellm, pull request 26845: an estimate that is too large is cut to what is left, but the call is not. Here the
/// call gets as many tokens as the money buys, and a commit of more is refused.
#[test]
fn litellm_a_call_is_clamped_to_what_was_reserved() {
    let mut bench = Bench::new(50, &["p"]);
    bench.price(1_000_000, 0, 2_000_000);
    bench.set("projects/p", "micro_usd_total", Some(100));
    let uid = running(&mut bench, 1)[0];
    // 40 for the prompt, and 2 for each token of the answer.
    assert_eq!(bench.reserve(uid, 41, 10_000, fresh(40)), Reply::Reserved(40 + 30));
    assert!(matches!(
        bench.commit(uid, 71, 31, Amounts::NONE, false),
        Reply::Refused(Refusal::Invalid { .. })
    ));
    assert_eq!(bench.commit(uid, 70, 30, Amounts::NONE, false), Reply::Done);
    assert_eq!(bench.used("projects/p", "micro_usd_total"), 100);
    assert_eq!(bench.task(uid).spent.micro_usd, 100);
}

/// litellm#20615: a wrong price poisons the books until rows are deleted. Here a price can be changed, what was
/// reserved settles at the old one, and a mistyped one is refused.
#[test]
fn litellm_a_wrong_price_is_replaced() {
    let mut bench = Bench::new(50, &["p"]);
    assert!(matches!(bench.price(5_000_000_000, 0, 0), Reply::Refused(Refusal::Invalid { .. })));
    bench.price(900_000_000, 0, 0);
    bench.set("projects/p", "micro_usd_total", Some(1_000_000));
    let uids = running(&mut bench, 2);
    assert_eq!(bench.reserve(uids[0], 1000, 1000, fresh(1000)), Reply::Reserved(1000));
    bench.reserve(uids[1], 1000, 1000, fresh(1000));
    assert_eq!(bench.task(uids[1]).state, PAUSED);
    bench.price(1_000_000, 0, 0);
    assert_eq!(bench.task(uids[1]).state, TaskState::Pending, "the right price wakes it");
    bench.commit(uids[0], 1000, 0, Amounts::NONE, true);
    assert_eq!(bench.used("projects/p", "micro_usd_total"), 900_000, "settled as it was reserved");
    bench.check();
}

/// AlpacaTradingAgent#37 and litellm#20615: a model nobody priced silently costs nothing.
#[test]
fn litellm_an_unknown_price_is_refused_not_zero() {
    let mut bench = Bench::new(50, &["p"]);
    bench.set("cluster", "micro_usd_month", Some(1_000));
    let uid = running(&mut bench, 1)[0];
    let refused = bench.reserve(uid, 1, 1, fresh(1));
    assert_eq!(refused, Reply::Refused(Refusal::Unpriced { model: "m".into() }));
    assert_eq!((bench.task(uid).state, bench.task(uid).reason.as_str()), (PAUSED, "unknown_price"));
    bench.price(0, 0, 0);
    assert_eq!(bench.task(uid).state, TaskState::Pending, "zero can be said");
}

/// litellm#40095: the first requests of somebody unknown pass. Here limits above hold before a place was ever used.
#[test]
fn litellm_the_first_request_of_a_new_project_is_counted() {
    let mut bench = Bench::new(50, &["p", "p/new"]);
    bench.set("projects/p", "tokens_day", Some(100));
    let uid = bench.create("p/new", "agent", Class::Batch);
    bench.start(uid);
    assert!(matches!(bench.reserve(uid, 101, 200, fresh(1)), Reply::Refused(Refusal::OverQuota { .. })));
    assert_eq!(bench.task(uid).state, PAUSED);
}

/// Envoy AI gateway: streams end over the limit (1,200 tokens of 1,000).
#[test]
fn envoy_the_last_grant_ends_exactly_at_the_limit() {
    let mut bench = Bench::new(50, &["p"]);
    bench.set("projects/p", "tokens_total", Some(1000));
    let uid = running(&mut bench, 1)[0];
    for expected in [300, 300, 300, 100] {
        assert_eq!(bench.reserve(uid, 1, 300, fresh(1)), Reply::Reserved(expected));
        bench.commit(uid, expected, expected - 1, Amounts::NONE, false);
    }
    assert!(matches!(bench.reserve(uid, 1, 300, fresh(1)), Reply::Refused(_)));
    assert_eq!(bench.used("projects/p", "tokens_total"), 1000);
}

/// Envoy AI gateway#2469: no monthly window. And a call over midnight counts where it began.
#[test]
fn envoy_calendar_months_begin_anew() {
    let mut bench = Bench::new(50, &["p"]);
    // 2026-10-31T23:59:00Z.
    bench.now.wall_ms = 1_793_491_140_000;
    bench.set("projects/p", "tokens_month", Some(100));
    let uids = running(&mut bench, 2);
    assert_eq!(bench.reserve(uids[0], 100, 100, fresh(1)), Reply::Reserved(100));
    bench.reserve(uids[1], 1, 1, fresh(1));
    assert_eq!(bench.task(uids[1]).state, PAUSED);
    bench.wait(61_000);
    assert_eq!(bench.task(uids[1]).state, TaskState::Pending, "the new month wakes it");
    bench.commit(uids[0], 100, 99, Amounts::NONE, true);
    assert_eq!(bench.used("projects/p", "tokens_month"), 0, "October's call is October's");
    bench.check();
    bench.wait(28 * DAY_MS);
    bench.check();
}

/// wso2/api-platform#2936: a budget made of a bucket refills and is never reached. Ours is a budget: waiting gives
/// nothing back before the window ends.
#[test]
fn envoy_a_budget_does_not_refill() {
    let mut bench = Bench::new(50, &["p"]);
    // 2026-09-22T00:00:00Z.
    bench.now.wall_ms = 1_790_035_200_000;
    bench.set("projects/p", "tokens_day", Some(100));
    let uid = running(&mut bench, 1)[0];
    bench.step(uid, 50, 50, false);
    bench.wait(23 * 3_600_000);
    assert!(matches!(bench.reserve(uid, 1, 1, fresh(1)), Reply::Refused(_)));
}

/// software-agent-sdk#3845: a sub-agent inherited its parent's whole budget instead of the rest.
#[test]
fn a_child_spends_from_what_its_parent_has_left() {
    use ledger::command::{ChildSpec, Command};
    let mut bench = Bench::new(50, &["p"]);
    let terms = Terms { limits: vec![(QuotaKey::TokensTotal, 100)], ..Terms::default() };
    let Reply::Task(parent) = bench.ask("p", "agent", Class::Batch, Some(terms)) else { panic!() };
    bench.start(parent.uid);
    bench.step(parent.uid, 30, 30, false);
    let child = ChildSpec {
        agent: "agent".into(),
        inputs: vec![],
        background: vec![],
        home: vec![],
        limits: None,
        together: None,
        priority: None,
    };
    let epoch = bench.task(parent.uid).epoch.unwrap();
    let spawned = bench.apply(Command::Spawn {
        parent: parent.uid,
        epoch,
        node: crate::bench::NODE,
        step: 2,
        children: vec![child],
    });
    let Reply::Children(children) = spawned else { panic!("{spawned:?}") };
    bench.start(children[0]);
    assert_eq!(bench.reserve(children[0], 1, 500, fresh(1)), Reply::Reserved(40));
    bench.check();
}

/// OpenAI-style retries and lost answers: the same call reserved twice is one reservation, the same commit one charge.
#[test]
fn a_call_that_is_asked_for_again_is_charged_once() {
    let mut bench = Bench::new(50, &["p"]);
    bench.price(1_000_000, 0, 1_000_000);
    let uid = running(&mut bench, 1)[0];
    for _ in 0..3 {
        assert_eq!(bench.reserve(uid, 10, 50, fresh(10)), Reply::Reserved(50));
    }
    assert_eq!(bench.used("projects/p", "micro_usd_total"), 50);
    let task = bench.task(uid).clone();
    let commit = ledger::command::Command::CommitStep {
        task: uid,
        epoch: task.epoch.unwrap(),
        node: crate::bench::NODE,
        step: 1,
        head: types::Hash([1; 32]),
        home: vec![crate::bench::NODE],
        spent: types::Spent { generated_tokens: 20, ..Default::default() },
        billed_tokens: 30,
        next: ledger::command::Next::Continue,
        extra: None,
    };
    for _ in 0..3 {
        assert_eq!(bench.apply(commit.clone()), Reply::Done);
    }
    assert_eq!(bench.used("projects/p", "micro_usd_total"), 30);
}

/// A provider that used more than it was asked to: booked, shown, and in the way until it is covered.
#[test]
fn overage_is_booked_and_blocks_until_it_is_covered() {
    let mut bench = Bench::new(50, &["p"]);
    bench.set("projects/p", "tool_calls_total", Some(10));
    let uid = running(&mut bench, 1)[0];
    let calls = |tool_calls| Amounts { tool_calls, ..Amounts::NONE };
    bench.reserve(uid, 1, 1, Want { extra: calls(4), ..Want::default() });
    bench.commit(uid, 1, 1, calls(11), false);
    assert_eq!(bench.used("projects/p", "tool_calls_total"), 11);
    bench.reserve(uid, 1, 1, Want { extra: calls(1), ..Want::default() });
    assert_eq!((bench.task(uid).state, bench.task(uid).reason.as_str()), (PAUSED, "tool_calls_total"));
    bench.set("projects/p", "tool_calls_total", Some(12));
    assert_eq!(bench.task(uid).state, TaskState::Pending);
    bench.check();
}

/// Calls of tools begin only where every budget above the task has room for all of them.
#[test]
fn calls_of_tools_wait_for_their_budget() {
    let mut bench = Bench::new(50, &["p", "q"]);
    bench.set("projects/p", "tool_calls_total", Some(5));
    bench.set("cluster", "tool_calls_hour", Some(100));
    let uids = running(&mut bench, 2);
    assert_eq!(bench.begin_calls(uids[0], 3), Reply::Done);
    bench.reserve(uids[1], 10, 20, Want::default());
    let refused = bench.begin_calls(uids[1], 3);
    let Reply::Refused(Refusal::OverQuota { path, requested, available, limit, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((path.as_str(), requested, available, limit), ("projects/p", 3, 2, 5));
    let before = bench.task(uids[1]).clone();
    assert_eq!(
        (before.state, before.step, before.reserved_tokens),
        (TaskState::Running, 0, 20),
        "nothing changed"
    );
    assert_eq!(bench.used("projects/p", "tool_calls_total"), 3);

    // The step is made without them, what the model said is paid, and the calls wait.
    let waits = Next::WaitBudget { heard: 0, calls: 3 };
    assert_eq!(bench.commit_next(uids[1], 15, 5, Amounts::NONE, waits), Reply::Done);
    let row = bench.task(uids[1]);
    assert_eq!((row.state, row.reason.as_str(), row.settled_tokens), (PAUSED, "tool_calls_total", 15));
    assert!(row.epoch.is_none(), "it has no lease");
    bench.set("projects/p", "tool_calls_total", Some(6));
    assert_eq!(bench.task(uids[1]).state, TaskState::Pending, "a raise that is enough wakes it");
    bench.start(uids[1]);
    assert_eq!(bench.begin_calls(uids[1], 3), Reply::Done);
    assert_eq!(
        (bench.used("projects/p", "tool_calls_total"), bench.used("cluster", "tool_calls_hour")),
        (6, 6)
    );
    assert!(bench.task(uids[1]).want.is_none());
    bench.check();
}

/// What came free meanwhile is not waited for.
#[test]
fn calls_of_tools_do_not_wait_for_room_that_is_there() {
    let mut bench = Bench::new(50, &["p"]);
    bench.set("projects/p", "tool_calls_hour", Some(2));
    let uid = running(&mut bench, 1)[0];
    assert!(matches!(bench.begin_calls(uid, 3), Reply::Refused(Refusal::OverQuota { .. })));
    bench.set("projects/p", "tool_calls_hour", None);
    bench.commit_next(uid, 0, 0, Amounts::NONE, Next::WaitBudget { heard: 0, calls: 3 });
    assert_eq!(bench.task(uid).state, TaskState::Pending);
    bench.check();
}

/// A clock that is set an hour back or forth mints no rate: rates go by the ledger's clock.
#[test]
fn a_wall_clock_that_jumps_mints_nothing() {
    let mut bench = Bench::new(50, &["p"]);
    bench.set("projects/p", "tokens_minute", Some(60));
    bench.set("projects/p", "requests_minute", Some(2));
    let uids = running(&mut bench, 3);
    bench.step(uids[0], 30, 30, false);
    bench.now.wall_ms += 3_600_000;
    assert!(matches!(bench.reserve(uids[0], 1, 1, fresh(1)), Reply::Refused(_)));
    bench.now.wall_ms -= 7_200_000;
    assert!(matches!(bench.reserve(uids[1], 1, 1, fresh(1)), Reply::Refused(_)));
    bench.wait(30_000);
    assert_eq!(bench.task(uids[0]).state, TaskState::Pending, "half a minute gives half a minute's worth");
    bench.check();
}

/// Soft limits are told once each, in the audit log.
#[test]
fn shares_of_a_limit_are_told_in_the_audit_log() {
    let mut bench = Bench::new(50, &["p"]);
    bench.set("projects/p", "tokens_total", Some(100));
    let uid = running(&mut bench, 1)[0];
    for _ in 0..4 {
        bench.step(uid, 10, 15, false);
    }
    let told: Vec<String> = bench
        .state
        .audit_after(0, "projects/p")
        .filter(|row| row.action == "quota.crossed")
        .map(|row| row.change.clone())
        .collect();
    // A step sets its 25 aside before it settles them: each share is told when it is first reached.
    let marks = ["50 %: 50 of 100", "80 %: 100 of 100", "100 %: 100 of 100"];
    assert_eq!(told, marks.map(|mark| format!("tokens_total {mark}")));
}

#[test]
fn bad_limits_change_nothing() {
    let mut bench = Bench::new(50, &["p"]);
    bench.set("projects/p", "cpu_milli_guaranteed", Some(5));
    let before = bench.state.quota("projects/p");
    let uid = running(&mut bench, 1)[0];
    for (path, key, limit) in [
        ("projects/p", "cpu_milli_lend", 6),
        ("projects/p", "cpu_milli", 4),
        ("projects/p", "weight", 0),
        ("projects/p", "weight", 1001),
        ("cluster", "weight", 2),
        ("projects/p/../q", "running", 1),
        ("tasks/t_0000000000000000", "running", 1),
    ] {
        let reply = bench.set(path, key, Some(limit));
        assert!(matches!(reply, Reply::Refused(_)), "{path} {key}={limit}: {reply:?}");
    }
    let of_task = format!("tasks/{uid}");
    assert!(matches!(bench.set(&of_task, "running_guaranteed", Some(1)), Reply::Refused(_)));
    let after = bench.state.quota("projects/p");
    assert_eq!(before.map(|row| row.etag), after.map(|row| row.etag));
    bench.check();
}
