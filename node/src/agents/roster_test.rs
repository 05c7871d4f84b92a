//! Readable cases: news in, orders out.

use super::*;
use ledger::rows::Seldom;
use types::{Class, NodeId, ProjectName};

fn epoch(index: u64) -> Epoch {
    Epoch { incarnation: 1, index, position: 0 }
}

fn task(index: u64) -> TaskUid {
    TaskUid { index, position: 0 }
}

fn lease(of: u64, at: u64) -> LeaseName {
    LeaseName { project: ProjectName::default(), task: task(of), epoch: epoch(at) }
}

fn row(of: u64, at: u64) -> TaskRow {
    TaskRow {
        uid: task(of),
        agent: "a".into(),
        model: "m".into(),
        class: Class::Batch,
        priority: 5,
        state: TaskState::Running,
        home: vec![NodeId(1)].into(),
        rare: Seldom { node: Some(NodeId(1)), epoch: Some(epoch(at)), ..Seldom::default() }.into(),
        ..TaskRow::empty()
    }
}

fn assigned(of: u64, at: u64) -> News {
    News::Assigned(Box::new(row(of, at)))
}

fn full_set(leases: &[(u64, u64)]) -> News {
    News::FullSet { leases: leases.iter().map(|(of, at)| row(*of, *at)).collect(), term: 1 }
}

/// Orders in short words.
fn say(orders: Vec<Order>) -> Vec<String> {
    let word = |order: &Order| match order {
        Order::Start(row) => format!("start {} at {}", row.uid.index, row.epoch.unwrap().index),
        Order::Tell(task, tell) => format!("tell {} {tell:?}", task.index),
        Order::Release(lease, why) => {
            format!("release {} at {} {why:?}", lease.task.index, lease.epoch.index)
        }
        Order::RestartIn { task, wait_ms, .. } => format!("restart {} in {wait_ms}", task.index),
    };
    orders.iter().map(word).collect()
}

fn running(leases: &[(u64, u64)]) -> Roster {
    let mut roster = Roster::new(100);
    roster.on_news(full_set(leases));
    roster
}

#[test]
fn the_difference_is_acted_on() {
    let mut roster = running(&[(1, 10), (2, 11)]);
    assert_eq!(roster.leases(), [lease(1, 10), lease(2, 11)]);
    assert_eq!(say(roster.on_news(full_set(&[(2, 11), (3, 12)]))), ["tell 1 Revoke", "start 3 at 12"]);
    assert_eq!(say(roster.on_news(full_set(&[(2, 11), (3, 12)]))), ["tell 1 Revoke"], "until it has ended");
    assert!(roster.ended(task(1), epoch(10)).is_empty());
    assert!(roster.on_news(full_set(&[(2, 11), (3, 12)])).is_empty());
}

#[test]
fn late_and_repeated_news_do_nothing() {
    let mut roster = running(&[(1, 10)]);
    assert!(roster.on_news(assigned(1, 10)).is_empty(), "it runs");
    roster.ended(task(1), epoch(10));
    assert!(roster.on_news(assigned(1, 10)).is_empty(), "it ended here");
    assert!(roster.on_news(full_set(&[(1, 10)])).is_empty(), "the set was made before it ended");
    assert!(roster.on_news(News::Revoked(lease(1, 10))).is_empty());
    assert_eq!(say(roster.on_news(assigned(1, 20))), ["start 1 at 20"], "a new lease is a new lease");
    assert!(roster.on_news(assigned(1, 15)).is_empty(), "older than what runs");
    assert!(roster.on_news(News::Revoked(lease(1, 10))).is_empty(), "about another lease");
}

#[test]
fn a_newer_lease_of_the_same_task_waits_for_the_end_of_the_old_one() {
    let mut roster = running(&[(1, 10)]);
    assert_eq!(say(roster.on_news(assigned(1, 20))), ["tell 1 Revoke"]);
    assert_eq!(say(roster.ended(task(1), epoch(10))), ["start 1 at 20"]);
    // The same when the old one fails instead of ending.
    assert_eq!(say(roster.on_news(assigned(1, 30))), ["tell 1 Revoke"]);
    assert_eq!(say(roster.failed(task(1), epoch(20), 0)), ["release 1 at 20 Yielded"]);
    assert_eq!(say(roster.released(task(1), epoch(20))), ["start 1 at 30"]);
}

#[test]
fn failures_rest_longer_and_longer_and_then_give_up() {
    let mut roster = running(&[(1, 10), (2, 11)]);
    let mut said = Vec::new();
    for failure in 0..6 {
        said.extend(say(roster.failed(task(1), epoch(10), failure * 1_000)));
        roster.restart_due(task(1), epoch(10));
    }
    let rests = [100, 200, 400, 800, 1600].map(|ms| format!("restart 1 in {ms}"));
    assert_eq!(said[..5], rests);
    assert_eq!(said[5], "release 1 at 10 Broken");
    assert!(roster.restart_due(task(1), epoch(10)).is_empty(), "its lease is on the way back");
    roster.released(task(1), epoch(10));
    assert_eq!(roster.leases(), [lease(2, 11)], "the sibling is still there");
}

#[test]
fn failures_of_an_hour_ago_are_forgiven() {
    let mut roster = running(&[(1, 10)]);
    for failure in 0..20 {
        assert_eq!(say(roster.failed(task(1), epoch(10), failure * 61_000)), ["restart 1 in 100"]);
        assert_eq!(say(roster.restart_due(task(1), epoch(10))), ["start 1 at 10"]);
    }
}

#[test]
fn what_hangs_is_started_again_twice_and_then_given_up() {
    let mut roster = running(&[(1, 10)]);
    let hour_ms = 3_600_000;
    assert_eq!(say(roster.stuck(task(1), epoch(10), 0)), ["restart 1 in 100"]);
    roster.restart_due(task(1), epoch(10));
    assert_eq!(say(roster.stuck(task(1), epoch(10), 2 * hour_ms)), ["restart 1 in 200"]);
    roster.restart_due(task(1), epoch(10));
    // The first was more than six hours ago.
    assert_eq!(say(roster.stuck(task(1), epoch(10), 7 * hour_ms)), ["restart 1 in 200"]);
    roster.restart_due(task(1), epoch(10));
    assert_eq!(say(roster.stuck(task(1), epoch(10), 7 * hour_ms + 1)), ["release 1 at 10 Stuck"]);
    assert!(roster.stuck(task(2), epoch(11), 0).is_empty(), "nobody of that name");
}

#[test]
fn a_cancel_is_confirmed_whatever_stands_here() {
    let mut roster = running(&[(1, 10), (2, 11)]);
    assert_eq!(say(roster.on_news(News::Cancel(lease(1, 10)))), ["tell 1 Cancel"]);
    roster.failed(task(2), epoch(11), 0);
    assert_eq!(
        say(roster.on_news(News::Cancel(lease(2, 11)))),
        ["release 2 at 11 Stopped"],
        "between restarts"
    );
    assert!(roster.on_news(News::Cancel(lease(2, 11))).is_empty(), "it is on its way");
    assert!(roster.restart_due(task(2), epoch(11)).is_empty());
    assert_eq!(
        say(roster.on_news(News::Cancel(lease(3, 12)))),
        ["release 3 at 12 Stopped"],
        "never seen here"
    );
    assert!(roster.on_news(assigned(3, 12)).is_empty(), "after the confirmation nothing starts");
}

fn cancelling(of: u64, at: u64) -> News {
    let row = TaskRow { state: TaskState::Cancelling, ..row(of, at) };
    News::FullSet { leases: vec![row], term: 1 }
}

#[test]
fn a_full_set_brings_cancels_too() {
    let mut roster = Roster::new(100);
    assert_eq!(say(roster.on_news(cancelling(4, 13))), ["release 4 at 13 Stopped"], "never seen here");
    assert_eq!(say(roster.on_news(cancelling(4, 13))), ["release 4 at 13 Stopped"], "the answer was lost");
    roster.on_news(assigned(5, 14));
    assert_eq!(say(roster.on_news(cancelling(5, 14))), ["tell 5 Cancel"]);
    roster.ended(task(5), epoch(14));
    assert_eq!(
        say(roster.on_news(cancelling(5, 14))),
        ["release 5 at 14 Stopped"],
        "it ended, and nobody noticed"
    );
}

#[test]
fn a_cancel_of_a_newer_lease_waits_for_the_older_agent() {
    let mut roster = running(&[(1, 10)]);
    assert_eq!(say(roster.on_news(News::Cancel(lease(1, 20)))), ["tell 1 Cancel"]);
    assert_eq!(say(roster.ended(task(1), epoch(10))), ["release 1 at 20 Stopped"]);
    assert!(roster.on_news(assigned(1, 20)).is_empty());
    assert_eq!(say(roster.on_news(News::Cancel(lease(1, 5)))), ["release 1 at 5 Stopped"]);
}

#[test]
fn a_revoke_for_what_never_began_is_answered_once() {
    let mut roster = Roster::new(100);
    assert_eq!(say(roster.on_news(News::Revoked(lease(1, 10)))), ["release 1 at 10 Yielded"]);
    assert!(roster.on_news(News::Revoked(lease(1, 10))).is_empty());
    assert!(roster.on_news(assigned(1, 10)).is_empty(), "it never begins");
}

#[test]
fn draining_starts_nothing_and_gives_everything_back() {
    let mut roster = running(&[(1, 10), (2, 11)]);
    roster.failed(task(2), epoch(11), 0);
    assert_eq!(say(roster.drain()), ["tell 1 Drain", "release 2 at 11 Yielded"]);
    assert_eq!(say(roster.on_news(assigned(3, 12))), ["release 3 at 12 Yielded"]);
    assert_eq!(say(roster.drain_now()), ["tell 1 DrainNow"]);
    roster.ended(task(1), epoch(10));
    roster.released(task(2), epoch(11));
    roster.released(task(3), epoch(12));
    assert!(roster.is_empty());
}

#[test]
fn the_lease_is_told_to_all_that_run() {
    let mut roster = running(&[(1, 10), (2, 11)]);
    roster.failed(task(2), epoch(11), 0);
    assert_eq!(say(roster.on_news(News::LeaseEnded)), ["tell 1 Lease { valid: false }"]);
    assert_eq!(say(roster.on_news(News::LeaseBack)), ["tell 1 Lease { valid: true }"]);
}
