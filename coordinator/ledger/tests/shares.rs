//! Who gets how much: weights between projects, classes and their bound of patience, guarantees lent and borrowed.

use crate::bench::Bench;
use ledger::command::Command;
use ledger::reply::Reply;
use std::collections::BTreeMap;
use types::{Class, TaskState, TaskUid};

/// Steps of different length, the same in every run.
fn tokens(at: u64) -> (u64, u64) {
    (20 + at * 37 % 90, 5 + at * 53 % 40)
}

/// Plays saturated projects until so many steps are committed; answers the cost units of each.
fn saturate(bench: &mut Bench, projects: &[&str], steps_a_task: u64, steps: u64) -> BTreeMap<String, u64> {
    let mut cost: BTreeMap<String, u64> = BTreeMap::new();
    let mut done = 0;
    for project in projects {
        for _ in 0..16 {
            bench.create(project, "agent", Class::Batch);
        }
    }
    while done < steps {
        bench.plan();
        let running: Vec<TaskUid> =
            bench.state.tasks().filter(|row| row.state == TaskState::Running).map(|row| row.uid).collect();
        for uid in running {
            let (fresh, generated) = tokens(done);
            let project = bench.task(uid).project.to_string();
            let last = bench.task(uid).step + 1 == steps_a_task;
            bench.step(uid, fresh, generated, last);
            *cost.entry(project.clone()).or_default() += fresh * 10 + generated * 20;
            done += 1;
            bench.wait(10);
            if last {
                bench.create(&project, "agent", Class::Batch);
            }
        }
    }
    bench.check();
    cost
}

fn assert_shares(cost: &BTreeMap<String, u64>, weights: &[(&str, u64)]) {
    let (all, weight): (u64, u64) = (cost.values().sum(), weights.iter().map(|(_, weight)| weight).sum());
    for (project, share) in weights {
        let (got, due) = (cost[*project] * weight, all * share);
        let off_percent = got.abs_diff(due) * 1000 / due;
        println!("{project}: {} units, {}.{} % off its share", cost[*project], off_percent / 10, off_percent % 10);
        assert!(off_percent <= 50, "{project} is {off_percent} thousandths off its share: {cost:?}");
    }
}

#[test]
fn saturated_projects_get_their_weights_within_five_percent() {
    for (slots, steps_a_task) in [(3, 1), (8, 1), (8, 5), (2, 9)] {
        let mut bench = Bench::new(slots, &["a", "b", "c"]);
        bench.set("projects/b", "weight", Some(2));
        bench.set("projects/c", "weight", Some(4));
        let cost = saturate(&mut bench, &["a", "b", "c"], steps_a_task, 2000);
        println!("{slots} slots, {steps_a_task} steps a task:");
        assert_shares(&cost, &[("a", 1), ("b", 2), ("c", 4)]);
    }
}

#[test]
fn a_project_that_comes_back_saves_nothing_up() {
    let mut bench = Bench::new(4, &["a", "b"]);
    saturate(&mut bench, &["a"], 1, 400);
    let cost = saturate(&mut bench, &["b"], 1, 200);
    let share = cost["b"] * 100 / cost.values().sum::<u64>();
    assert!((40..=60).contains(&share), "b was away and got {share} % of what came then: {cost:?}");
}

#[test]
fn a_new_weight_counts_from_now_on() {
    let mut bench = Bench::new(4, &["a", "b"]);
    saturate(&mut bench, &["a", "b"], 1, 500);
    bench.set("projects/b", "weight", Some(3));
    let cost = saturate(&mut bench, &["a", "b"], 1, 1500);
    assert_shares(&cost, &[("a", 1), ("b", 3)]);
}

#[test]
fn the_lowest_class_ends_within_the_ageing_bound() {
    // Urgent work never ends; a best-effort task came at the start.
    let mut bench = Bench::new(2, &["a", "b"]);
    let humble = bench.create("b", "agent", Class::BestEffort);
    const BOUND_MS: u64 = 3 * 30 * 60_000 + 60_000;
    while bench.now.ledger_ms < BOUND_MS && bench.task(humble).state != TaskState::Succeeded {
        for _ in 0..4 {
            bench.create("a", "agent", Class::System);
            bench.create("b", "agent", Class::Interactive);
        }
        for uid in bench.plan() {
            bench.step(uid, 10, 10, true);
        }
        bench.wait(60_000);
    }
    assert_eq!(bench.task(humble).state, TaskState::Succeeded, "still waits after {} ms", bench.now.ledger_ms);
    assert!(bench.now.ledger_ms > 30 * 60_000, "rank let it before urgent work at once");
}

#[test]
fn every_class_has_its_slice_of_many_slots() {
    let mut bench = Bench::new(40, &["a"]);
    for _ in 0..60 {
        bench.create("a", "agent", Class::Interactive);
        bench.create("a", "agent", Class::Batch);
        bench.create("a", "agent", Class::BestEffort);
    }
    let mut running: BTreeMap<Class, u32> = BTreeMap::new();
    for uid in bench.plan() {
        *running.entry(bench.task(uid).class).or_default() += 1;
    }
    assert_eq!(running, [(Class::Interactive, 35), (Class::Batch, 4), (Class::BestEffort, 1)].into());
}

/// As many tasks of a project as fit, each with one CPU.
fn fill(bench: &mut Bench, project: &str) -> u64 {
    let mut started = 0;
    loop {
        let uid = bench.create(project, "agent", Class::Batch);
        match bench.start(uid) {
            Reply::Assigned(_) => started += 1,
            Reply::Refused(_) => return started,
            other => panic!("{other:?}"),
        }
    }
}

fn two_teams() -> Bench {
    let mut bench = Bench::new(100, &[]);
    for team in ["team-a", "team-b"] {
        bench.agent(team, "agent", &[("cpu_milli", 1)]);
    }
    bench.set("projects/team-a", "cpu_milli_guaranteed", Some(9));
    bench.set("projects/team-b", "cpu_milli_guaranteed", Some(12));
    bench
}

/// Kueue's documentation of cluster queues: "team-a … 9 CPUs, team-b … 12"; with both it may use 21.
#[test]
fn kueue_an_idle_cohort_lends_everything() {
    assert_eq!(fill(&mut two_teams(), "team-a"), 21);
}

/// The same page: with a borrowing limit of 1 team-a gets 10.
#[test]
fn kueue_a_borrowing_limit_bounds_what_is_borrowed() {
    let mut bench = two_teams();
    bench.set("projects/team-a", "cpu_milli_borrow", Some(1));
    assert_eq!(fill(&mut bench, "team-a"), 10);
    assert_eq!(fill(&mut bench, "team-b"), 11, "team-b has what is left of its own");
}

/// The same page: team-b lends 1 at most, so team-a gets 10, and 11 stay for team-b whatever happens.
#[test]
fn kueue_a_lending_limit_bounds_what_is_lent() {
    let mut bench = two_teams();
    bench.set("projects/team-b", "cpu_milli_lend", Some(1));
    assert_eq!(fill(&mut bench, "team-a"), 10);
    assert_eq!(fill(&mut bench, "team-b"), 11);
    bench.check();
}

#[test]
fn guarantees_nest_and_a_hard_limit_is_above_all() {
    let mut bench = Bench::new(100, &["a/x", "a/y", "b"]);
    bench.set("projects/a", "running_guaranteed", Some(2));
    bench.set("projects/a/x", "running_guaranteed", Some(3));
    bench.set("projects/a/x", "running_lend", Some(1));
    bench.set("projects/b", "running_guaranteed", Some(4));
    bench.set("cluster", "running_guaranteed", Some(1));
    // Of x's 3 two stay local: b sees 4 + 1 + 2 of a + 1 of x.
    assert_eq!(fill(&mut bench, "b"), 8);
    assert_eq!(fill(&mut bench, "a/y"), 0);
    assert_eq!(fill(&mut bench, "a/x"), 2);
    let mut bench = two_teams();
    bench.set("cluster", "running", Some(5));
    assert_eq!(fill(&mut bench, "team-a"), 5);
}

#[test]
fn a_guarantee_comes_back_at_a_step_boundary() {
    let mut bench = Bench::new(4, &["a", "b"]);
    bench.set("projects/a", "running_guaranteed", Some(2));
    bench.set("projects/b", "running_guaranteed", Some(2));
    for _ in 0..4 {
        bench.create("a", "agent", Class::Batch);
    }
    let borrowed = bench.plan();
    assert_eq!(borrowed.len(), 4);
    let owed = bench.create("b", "agent", Class::Batch);
    assert!(bench.plan().is_empty());
    let asked: Vec<TaskUid> =
        borrowed.iter().copied().filter(|uid| bench.task(*uid).yield_by_ms.is_some()).collect();
    assert_eq!(asked, [borrowed[3]], "one task is owed a place: the youngest lease makes room");
    assert!(bench.plan().is_empty(), "and nobody else is asked for the same");
    bench.step(asked[0], 10, 10, false);
    assert_eq!(bench.task(asked[0]).state, TaskState::Pending);
    assert_eq!(bench.task(asked[0]).step, 1, "its step is kept");
    assert_eq!(bench.plan(), [owed]);
    bench.check();
}

#[test]
fn who_does_not_come_to_a_step_boundary_has_a_grace() {
    let mut bench = Bench::new(2, &["a", "b"]);
    bench.set("projects/a", "running_guaranteed", Some(1));
    bench.set("projects/b", "running_guaranteed", Some(1));
    for _ in 0..2 {
        bench.create("a", "agent", Class::Batch);
    }
    bench.plan();
    let owed = bench.create("b", "agent", Class::Batch);
    bench.plan();
    bench.wait(9_000);
    assert!(bench.plan().is_empty());
    bench.wait(1_500);
    assert_eq!(bench.plan(), [owed]);
    bench.check();
}

#[test]
fn what_waits_for_time_or_for_others_is_not_in_the_queue() {
    use ledger::command::Terms;
    let mut bench = Bench::new(4, &["a"]);
    let first = bench.create("a", "agent", Class::Batch);
    let terms = Terms { after: vec![first], ..Terms::default() };
    let Reply::Task(second) = bench.ask("a", "agent", Class::Batch, Some(terms)) else { panic!() };
    let at_ms = bench.now.wall_ms + 5_000;
    let terms = Terms { not_before_ms: at_ms, ..Terms::default() };
    let Reply::Task(later) = bench.ask("a", "agent", Class::Batch, Some(terms)) else { panic!() };
    assert_eq!(bench.plan(), [first]);
    bench.step(first, 1, 1, true);
    assert_eq!(bench.plan(), [second.uid]);
    bench.wait(4_999);
    assert!(bench.plan().is_empty());
    bench.wait(1);
    assert_eq!(bench.plan(), [later.uid]);
    // Who waits for a task that is cancelled is cancelled.
    let terms = Terms { after: vec![later.uid], ..Terms::default() };
    let Reply::Task(never) = bench.ask("a", "agent", Class::Batch, Some(terms)) else { panic!() };
    bench.apply(Command::CancelTask {
        project: never.project.clone(),
        task: later.uid,
        request: Default::default(),
    });
    bench.apply(Command::NodeLost { node: crate::bench::NODE });
    assert_eq!(bench.task(never.uid).state, TaskState::Cancelled);
    bench.check();
}
