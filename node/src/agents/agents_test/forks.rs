//! Tasks that go on from a step of another one.

use super::world::{SCRIPTED, World, start};
use super::{scripted, slow_text};
use context::Segment;
use std::time::Duration;
use types::{TaskState, limits};

const ONE: &str = "[[reply]]\ntokens_per_second = 200\ntext = '''";

#[tokio::test]
async fn a_fork_goes_on_when_the_tree_it_came_from_has_expired() {
    let world = World::new(3);
    let ids = world.nodes();
    let script = format!("{ONE}{}'''\n", slow_text());
    let first = start(&world, ids[1], scripted(&script)).await;
    world.apply_agent(&format!("name = 'reader'\nmodel = '{SCRIPTED}'\nsystem = 'You read.'\n"));
    world.apply_agent(
        "name = 'team'\n[fan_out]\nover = 'inputs'\nagent = 'reader'\n[then]\nagent = 'reader'\n",
    );
    let team = world.create("team", &[("a.md", "first")]);
    let reader = world.until("a reader", || world.row(team).children.first().copied()).await;
    world.until("some text", || Some(()).filter(|()| !first.live.of(reader).0.is_empty())).await;
    // What there is when a node is drained is a step of its own.
    world.detach(first.id);
    first.agents.drain(Duration::from_millis(100)).await;
    let second = start(&world, ids[2], scripted(&script)).await;
    let row = world.until_state(reader, TaskState::Succeeded).await;
    world.until_state(team, TaskState::Succeeded).await;
    let one = world.journal(reader)[1].prev;
    world.detach(second.id);

    let fork = world.fork(reader, 1, one);
    world.pass(limits::FINISHED_MS + 1);
    assert!(!world.knows(reader) && !world.knows(team), "they have expired");
    start(&world, ids[1], scripted(&script)).await;
    let forked = world.until_state(fork, TaskState::Succeeded).await;
    let read = |row: &ledger::rows::TaskRow| -> Segment { world.segment(row.result.unwrap(), row.home[0]) };
    assert_eq!((read(&row).text, read(&forked).text), (slow_text(), slow_text()));
    assert_eq!(read(&forked).tree, team.to_string(), "it is in the tree that it came from");
}
