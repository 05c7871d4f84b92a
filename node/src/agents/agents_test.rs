//! Whole agents over the real ledger, the real mind and scripted models, in one process.

mod bench;
mod budgets;
mod condense;
mod fakes;
mod forks;
mod routes;
mod stuck;
mod tools;
mod typed;
mod world;

use crate::link::{LeaseName, News};
use fakes::{Trouble, scripted};
use ledger::command::{Command, Release};
use std::sync::atomic::Ordering;
use std::time::Duration;
use types::{NodeId, PauseReason, TaskState, TaskUid};
use world::{NodeInWorld, SCRIPTED, World, project, start};

const QUICK: &str = "[[reply]]\ntext = 'It is a test of nothing but itself.'\n";
/// Forty words, 20 ms each: time to interfere.
const SLOW: &str = "[[reply]]\ntokens_per_second = 50\ntext = '''\
    one two three four five six seven eight nine ten one two three four five six seven eight nine ten \
    one two three four five six seven eight nine ten one two three four five six seven eight nine last'''\n";

fn slow_text() -> String {
    let line = "one two three four five six seven eight nine ten ";
    line.repeat(4).trim_end_matches("ten ").to_string() + "last"
}

fn agent(name: &str) -> String {
    format!("name = '{name}'\nmodel = '{SCRIPTED}'\nsystem = 'You are {name}.'\n")
}

async fn one_node(script: &str) -> (std::sync::Arc<World>, NodeInWorld) {
    let world = World::new(2);
    let node = world.nodes()[1];
    let node = start(&world, node, scripted(script)).await;
    (world, node)
}

fn lease(world: &World, task: TaskUid) -> LeaseName {
    LeaseName { project: project(), task, epoch: world.row(task).epoch.expect("it runs") }
}

async fn spoken(world: &World, node: &NodeInWorld, task: TaskUid, bytes: usize) {
    world.until("some text", || Some(()).filter(|()| node.live.of(task).0.len() >= bytes)).await;
}

async fn empty(world: &World, node: &NodeInWorld) {
    world.until("no lease held", || Some(()).filter(|()| node.agents.held().count() == 0)).await;
}

#[tokio::test]
async fn an_agent_answers_and_everything_is_kept_twice() {
    let (world, node) = one_node(QUICK).await;
    world.apply_agent(&agent("writer"));
    let task = world.create("writer", &[("question", "What is this?")]);
    let row = world.until_state(task, TaskState::Succeeded).await;
    assert_eq!(world.text(row.result.unwrap(), node.id).unwrap(), "It is a test of nothing but itself.");
    assert_eq!(row.home.len(), 2);
    for keeper in &row.home {
        assert!(world.holds(*keeper, row.head.unwrap()) && world.holds(*keeper, row.result.unwrap()));
        assert!(world.holds(*keeper, *row.definition) && world.holds(*keeper, row.inputs[0].segment));
    }
    empty(&world, &node).await;
    let counted = node.agents.counters().observe();
    assert_eq!((counted.steps, counted.restarts, counted.fenced), (1, 0, 0));
    assert!(counted.context_bytes_full > 0);
    assert_eq!(node.live.of(task), ("It is a test of nothing but itself.".into(), true));
    assert_eq!(row.spent.generated_tokens, 8);
    assert_eq!(world.settled_tokens(), row.spent.prompt_tokens + row.spent.generated_tokens);
}

#[tokio::test]
async fn a_team_fans_out_and_merges_on_two_nodes() {
    let world = World::new(3);
    let script = "[[reply]]\nwhen_agent = 'writer'\nwhen_contains = 'seen'\ntext = 'merged'\n\
                  [[reply]]\nwhen_agent = 'reader'\ntext = 'seen'\n";
    let mut nodes = Vec::new();
    for id in world.nodes().into_iter().skip(1) {
        nodes.push(start(&world, id, scripted(script)).await);
    }
    world.apply_agent(&agent("reader"));
    world.apply_agent(&agent("writer"));
    world.apply_agent(
        "name = 'team'\nbackground = 'Be short.'\n[fan_out]\nover = 'inputs'\nagent = 'reader'\n[then]\nagent = 'writer'\n",
    );
    let task = world.create("team", &[("a.md", "first"), ("b.md", "second"), ("c.md", "third")]);
    let row = world.until_state(task, TaskState::Succeeded).await;
    assert_eq!(row.children.len(), 4);
    for keeper in &row.home {
        assert_eq!(world.text(row.result.unwrap(), *keeper).unwrap(), "merged");
    }
    for node in &nodes {
        empty(&world, node).await;
    }
    let steps: u64 = nodes.iter().map(|node| node.agents.counters().observe().steps).sum();
    assert!(steps >= 7, "three readers, a writer, and three moves of the team: {steps}");
}

#[tokio::test]
async fn a_team_with_an_unknown_agent_fails_with_its_name() {
    let (world, node) = one_node(QUICK).await;
    world.apply_agent(
        "name = 'team'\n[fan_out]\nover = 'inputs'\nagent = 'nobody'\n[then]\nagent = 'nobody'\n",
    );
    let task = world.create("team", &[("a.md", "first")]);
    let row = world.until_state(task, TaskState::Failed).await;
    let error = row.error.clone().unwrap();
    assert_eq!(error.reason, "NO_SUCH_AGENT");
    assert!(world.text(error.text.unwrap(), node.id).unwrap().contains("nobody"));
}

#[tokio::test]
async fn a_panicking_agent_is_restarted_and_its_sibling_notices_nothing() {
    let world = World::new(2);
    let model = Trouble::new(SLOW, "bad", 3);
    let node = start(&world, world.nodes()[1], model.clone()).await;
    world.apply_agent(&agent("writer"));
    let good = world.create("writer", &[("q", "good")]);
    spoken(&world, &node, good, 4).await;
    let bad = world.create("writer", &[("q", "bad")]);
    let rows = [
        world.until_state(good, TaskState::Succeeded).await,
        world.until_state(bad, TaskState::Succeeded).await,
    ];
    assert!(rows.iter().all(|row| row.step == 1), "one step each, none twice");
    assert_eq!(node.agents.counters().observe().restarts, 3);
    assert_eq!(
        model.asked.load(Ordering::SeqCst),
        5,
        "the sibling was asked once, the other three times in vain"
    );
}

#[tokio::test]
async fn an_agent_that_always_panics_is_given_back_as_broken() {
    let world = World::new(2);
    let node = start(&world, world.nodes()[1], Trouble::new(QUICK, "bad", usize::MAX)).await;
    world.apply_agent(&agent("writer"));
    let bad = world.create("writer", &[("q", "bad")]);
    world.until_state(bad, TaskState::Paused(PauseReason::Error)).await;
    assert_eq!(node.agents.counters().observe().restarts, 5);
    let good = world.create("writer", &[("q", "good")]);
    world.until_state(good, TaskState::Succeeded).await;
    empty(&world, &node).await;
}

#[tokio::test]
async fn cancelled_means_that_the_call_has_stopped() {
    let (world, node) = one_node(SLOW).await;
    world.apply_agent(&agent("writer"));
    let task = world.create("writer", &[("q", "go")]);
    spoken(&world, &node, task, 4).await;
    world.cancel(task);
    world.until_state(task, TaskState::Cancelled).await;
    let (at_the_proof, _) = node.live.of(task);
    empty(&world, &node).await;
    assert_eq!(node.live.of(task).0, at_the_proof, "no token after CANCELLED");
    assert!(at_the_proof.len() < slow_text().len());
    let log = world.log();
    assert!(matches!(log.last(), Some(Command::Release { why: Release::Stopped, .. })), "{log:?}");
}

#[tokio::test]
async fn a_cancel_for_a_lease_that_nobody_runs_is_confirmed() {
    let world = World::new(2);
    world.apply_agent(&agent("writer"));
    let node = world.nodes()[1];
    let task = world.create("writer", &[("q", "go")]);
    world.propose(Command::Assign { task, node });
    world.cancel(task);
    assert_eq!(world.row(task).state, TaskState::Cancelling);
    let _node = start(&world, node, scripted(SLOW)).await;
    world.until_state(task, TaskState::Cancelled).await;
}

#[tokio::test]
async fn a_frozen_node_offers_its_step_is_fenced_and_stops() {
    let world = World::new(3);
    let ids = world.nodes();
    let frozen = start(&world, ids[1], scripted(SLOW)).await;
    world.apply_agent(&agent("writer"));
    let task = world.create("writer", &[("q", "go")]);
    spoken(&world, &frozen, task, 8).await;
    let old = lease(&world, task);
    // The node stands still, its lease ends, the task goes on elsewhere.
    frozen.lease_valid.store(false, Ordering::SeqCst);
    let back = world.lose(frozen.id);
    let other = start(&world, ids[2], scripted(SLOW)).await;
    world.until("another lease", || world.row(task).epoch.filter(|epoch| *epoch > old.epoch)).await;
    assert_eq!(world.row(task).node, Some(other.id));
    // The node is back and hears what it holds: nothing.
    back.send(News::LeaseEnded).await.unwrap();
    back.send(News::FullSet { leases: Vec::new(), term: 1 }).await.unwrap();
    frozen.lease_valid.store(true, Ordering::SeqCst);
    back.send(News::LeaseBack).await.unwrap();
    empty(&world, &frozen).await;
    assert_eq!(world.fenced_commits(frozen.id), 1);
    assert_eq!(frozen.agents.counters().observe().fenced, 1);
    let row = world.until_state(task, TaskState::Succeeded).await;
    assert_eq!(world.text(row.result.unwrap(), other.id).unwrap(), slow_text());
    assert_eq!(row.step, 1, "the fenced step left no trace");
}

#[tokio::test]
async fn stale_news_of_a_revoke_costs_a_step_boundary_and_nothing_else() {
    let (world, node) = one_node(SLOW).await;
    world.apply_agent(&agent("writer"));
    let task = world.create("writer", &[("q", "go")]);
    spoken(&world, &node, task, 8).await;
    world.tell(node.id, News::Revoked(lease(&world, task))).await;
    let row = world.until_state(task, TaskState::Succeeded).await;
    assert_eq!(world.text(row.result.unwrap(), node.id).unwrap(), slow_text());
    assert_eq!(row.step, 2, "what there was was committed, then it went on");
    assert_eq!(node.agents.counters().observe().fenced, 0);
    let words = slow_text().split(' ').count() as u64;
    assert_eq!(row.spent.generated_tokens, words, "no token was paid for twice");
}

#[tokio::test]
async fn a_paused_task_is_let_go_and_goes_on_when_it_is_resumed() {
    let (world, node) = one_node(SLOW).await;
    world.apply_agent(&agent("writer"));
    let task = world.create("writer", &[("q", "go")]);
    spoken(&world, &node, task, 8).await;
    world.pause(task);
    assert_eq!(world.row(task).state, TaskState::Paused(PauseReason::User));
    empty(&world, &node).await;
    let row = world.row(task);
    assert!(row.unaware.is_empty(), "the ledger knows that the agent has stopped");
    assert_eq!((row.step, world.fenced_commits(node.id)), (0, 1));
    world.resume(task);
    let row = world.until_state(task, TaskState::Succeeded).await;
    assert_eq!(world.text(row.result.unwrap(), node.id).unwrap(), slow_text());
}

#[tokio::test]
async fn nothing_starts_without_the_nodes_lease() {
    let (world, node) = one_node(QUICK).await;
    world.apply_agent(&agent("writer"));
    node.lease_valid.store(false, Ordering::SeqCst);
    let task = world.create("writer", &[("q", "go")]);
    world.until("the agent runs", || Some(()).filter(|()| node.agents.held().count() == 1)).await;
    // Loading is not starting; give it the time to go wrong.
    let reserved = world.until("a reservation", || world.log().into_iter().find(is_reserve));
    assert!(tokio::time::timeout(Duration::from_millis(150), reserved).await.is_err());
    node.lease_valid.store(true, Ordering::SeqCst);
    world.until_state(task, TaskState::Succeeded).await;
}

fn is_reserve(command: &Command) -> bool {
    matches!(command, Command::Reserve { .. })
}

#[tokio::test]
async fn a_budget_ends_at_exactly_its_token_and_a_raise_goes_on_there() {
    let (world, node) = one_node(SLOW.replace("tokens_per_second = 50\n", "").as_str()).await;
    world.apply_agent(&agent("writer"));
    world.limit_tokens(30);
    let task = world.create("writer", &[("q", "go")]);
    world.until_state(task, TaskState::Paused(PauseReason::Budget)).await;
    assert_eq!(world.settled_tokens(), 30);
    empty(&world, &node).await;
    world.limit_tokens(1_000);
    let row = world.until_state(task, TaskState::Succeeded).await;
    assert_eq!(world.text(row.result.unwrap(), node.id).unwrap(), slow_text());
    assert_eq!(row.spent.generated_tokens, slow_text().split(' ').count() as u64);
}

#[tokio::test]
async fn a_keeper_that_does_not_answer_is_replaced_and_given_everything() {
    let world = World::new(3);
    let ids = world.nodes();
    world.apply_agent(&agent("writer"));
    let node = start(&world, ids[1], scripted(SLOW)).await;
    let task = world.create("writer", &[("q", "go")]);
    spoken(&world, &node, task, 8).await;
    world.silence(ids[0]);
    let row = world.until_state(task, TaskState::Succeeded).await;
    assert_eq!(row.home[..2], [ids[1], ids[2]]);
    for hash in [*row.definition, row.inputs[0].segment, row.head.unwrap(), row.result.unwrap()] {
        assert!(world.holds(ids[2], hash));
    }
}

#[tokio::test]
async fn a_commit_waits_for_a_second_copy() {
    let (world, node) = one_node(SLOW).await;
    world.apply_agent(&agent("writer"));
    let keeper: NodeId = world.nodes()[0];
    let task = world.create("writer", &[("q", "go")]);
    spoken(&world, &node, task, 1).await;
    world.silence(keeper);
    spoken(&world, &node, task, slow_text().len()).await;
    assert_eq!((world.row(task).step, world.row(task).state), (0, TaskState::Running));
    assert!(!world.log().iter().any(|command| matches!(command, Command::CommitStep { .. })));
    world.speak(keeper);
    world.until_state(task, TaskState::Succeeded).await;
}

#[tokio::test]
async fn draining_commits_what_there_is_and_gives_the_lease_back() {
    let world = World::new(3);
    let ids = world.nodes();
    let leaving = start(&world, ids[1], scripted(SLOW)).await;
    world.apply_agent(&agent("writer"));
    let task = world.create("writer", &[("q", "go")]);
    spoken(&world, &leaving, task, 8).await;
    let staying = start(&world, ids[2], scripted(SLOW)).await;
    world.detach(leaving.id);
    leaving.agents.drain(Duration::from_millis(100)).await;
    assert_eq!(leaving.agents.held().count(), 0);
    let row = world.until_state(task, TaskState::Succeeded).await;
    assert_eq!((row.step, row.home[0]), (2, staying.id));
    assert_eq!(world.text(row.result.unwrap(), staying.id).unwrap(), slow_text());
    leaving.agents.stop().await;
    assert_eq!(world.fenced_commits(leaving.id), 0);
}
