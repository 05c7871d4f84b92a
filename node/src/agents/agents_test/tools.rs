//! Agents with tools: what survives the death of a worker, what people are asked, what a cancel ends.

use super::fakes::beside;
use super::world::{NodeInWorld, SCRIPTED, World, start};
use super::{empty, scripted};
use crate::engine_thread::hints::Hint;
use ledger::reply::Reply;
use ledger::rows::{SignalKind, TaskRow};
use std::collections::BTreeSet;
use std::sync::Arc;
use types::{PauseReason, TaskState, TaskUid};

fn clerk(tools: &str) -> String {
    format!("name = 'clerk'\nmodel = '{SCRIPTED}'\nmax_steps = 64\ntools = [{tools}]\n")
}

/// So many calls, one after the other, and then an answer that has the last result in it.
fn turns(tool: &str, calls: usize) -> String {
    format!(
        "[[reply]]\nwhen_results_below = {calls}\ntext = 'I go on.'\n\
         calls = [{{ name = '{tool}', arguments = '{{\"n\": {{results}}}}' }}]\n\
         [[reply]]\ntext = 'The last was {{last}}.'\n"
    )
}

async fn world_of(script: &str, tools: &str, nodes: usize) -> (Arc<World>, Vec<NodeInWorld>, TaskUid) {
    let world = World::new(nodes + 1);
    let mut started = Vec::new();
    for id in world.nodes().into_iter().skip(1) {
        started.push(start(&world, id, scripted(script)).await);
    }
    world.apply_agent(&clerk(tools));
    let task = world.create("clerk", &[("q", "Put things away.")]);
    (world, started, task)
}

fn operations(world: &World) -> Vec<String> {
    world.tools.calls().into_iter().map(|call| call.operation).collect()
}

fn result(world: &World, row: &TaskRow) -> String {
    world.text(row.result.expect("it has a result"), row.home[0]).expect("it is kept")
}

#[tokio::test]
async fn a_task_uses_tools_and_answers() {
    let (world, nodes, task) = world_of(&turns("sink.put", 3), "'sink.*'", 1).await;
    let row = world.until_state(task, TaskState::Succeeded).await;
    assert_eq!(result(&world, &row), "The last was done {\"n\":2}.");
    let expected: Vec<String> = [1, 3, 5].map(|step| format!("{task}/{step}/0")).into();
    assert_eq!(operations(&world), expected);
    assert_eq!(row.step, 7, "three turns of two steps, and the answer");
    empty(&world, &nodes[0]).await;
}

#[tokio::test]
async fn the_engine_hears_of_pauses_and_of_the_end() {
    let world = World::new(2);
    let node = start(&world, world.nodes()[1], beside(&turns("sink.put", 1))).await;
    world.apply_agent(&format!("{}system = 'Keep things tidy.'\n", clerk("'sink.*'")));
    let task = world.create("clerk", &[("q", "Put things away.")]);
    world.until_state(task, TaskState::Succeeded).await;
    empty(&world, &node).await;
    // The scripted model writes its answers anew each time, so that the last step's words are superseded.
    let heard: Vec<_> = node
        .hinted
        .all()
        .into_iter()
        .filter(|(_, hint)| !matches!(hint, Hint::Drop { ended: false, .. }))
        .collect();
    let [(first, Hint::Retain { .. }), (head, Hint::Pin { .. }), (second, Hint::Drop { kept, ended: true })] =
        heard[..]
    else {
        panic!("{heard:?}")
    };
    assert!(0 < head && head < first && first < second, "{heard:?}");
    assert_eq!(kept, head, "other tasks of the agent begin like it");
}

#[tokio::test]
async fn a_worker_that_dies_again_and_again_changes_nothing_for_idempotent_tools() {
    let (world, mut nodes, task) = world_of(&turns("sink.put", 12), "'sink.*'", 2).await;
    for death in 0..8 {
        let step = world.row(task).step;
        let row = world.until("another step", || {
            Some(world.row(task)).filter(|row| row.step > step || row.state.is_final())
        });
        let row = row.await;
        let Some(holder) = row.node else { continue };
        let at = nodes.iter().position(|node| node.id == holder).expect("one of ours");
        let dead = nodes.remove(at);
        let id = dead.id;
        world.lose(id);
        dead.agents.stop().await;
        drop(dead);
        nodes.push(start(&world, id, scripted(&turns("sink.put", 12))).await);
        assert!(death < 8);
    }
    let row = world.until_state(task, TaskState::Succeeded).await;
    assert_eq!(result(&world, &row), "The last was done {\"n\":11}.");
    let seen: BTreeSet<String> = operations(&world).into_iter().collect();
    assert_eq!(seen.len(), 12, "one operation a turn, however often it was called: {seen:?}");
}

#[tokio::test]
async fn what_may_happen_once_is_asked_about_and_never_called_again() {
    let (world, mut nodes, task) = world_of(&turns("mail.hold", 1), "'mail.*'", 2).await;
    world.until("the call", || world.tools.calls().first().cloned()).await;
    let holder = world.row(task).node.expect("it is held");
    let at = nodes.iter().position(|node| node.id == holder).unwrap();
    let dead = nodes.remove(at);
    world.lose(holder);
    dead.agents.stop().await;
    let row = world.until_state(task, TaskState::WaitingInput).await;
    assert_eq!(row.reason, "UNKNOWN");
    let asks = row.talk.clone().expect("it asks").asks;
    assert_eq!((asks.len(), asks[0].id.as_str(), asks[0].about.as_str()), (1, "1.0", "mail.hold"));
    assert!(row.epoch.is_none(), "who waits for people holds no lease");
    let again = world.signal(task, SignalKind::Repeat, "1.0", None);
    assert!(matches!(again, Reply::Refused(_)), "at most once is at most once: {again:?}");
    world.signal(task, SignalKind::Answer, "1.0", Some("it was sent"));
    let row = world.until_state(task, TaskState::Succeeded).await;
    assert_eq!(result(&world, &row), "The last was it was sent.");
    assert_eq!(operations(&world).len(), 1);
}

#[tokio::test]
async fn calls_wait_for_approval_and_a_rejection_is_told_to_the_model() {
    let tools = "{ name = 'mail.send', approve = true }";
    let (world, nodes, task) = world_of(&turns("mail.send", 2), tools, 1).await;
    let row = world.until_state(task, TaskState::WaitingInput).await;
    assert_eq!((row.reason.as_str(), operations(&world).len()), ("approval", 0));
    let ask = row.talk.clone().unwrap().asks.remove(0);
    assert_eq!(
        world.text(ask.text.expect("the exact call"), nodes[0].id).unwrap(),
        "{\"arguments\":{\"n\":0},\"name\":\"mail.send\"}"
    );
    world.signal(task, SignalKind::Approve, &ask.id, None);
    let second = world.until("a second question", || {
        let row = world.row(task);
        row.talk.clone().and_then(|talk| talk.asks.first().cloned()).filter(|next| next.id != ask.id)
    });
    let second = second.await;
    assert_eq!(operations(&world), [format!("{task}/1/0")]);
    let twice = world.signal(task, SignalKind::Approve, &ask.id, None);
    assert!(matches!(twice, Reply::Refused(_)), "{twice:?}");
    world.signal(task, SignalKind::Reject, &second.id, None);
    let row = world.until_state(task, TaskState::Succeeded).await;
    assert_eq!(result(&world, &row), "The last was error: a person did not allow this call.");
    assert_eq!(operations(&world).len(), 1);
}

#[tokio::test]
async fn calls_beyond_their_budget_wait_and_nothing_said_is_lost() {
    let world = World::new(2);
    let node = start(&world, world.nodes()[1], scripted(&turns("sink.put", 4))).await;
    world.apply_agent(&clerk("'sink.*'"));
    world.limit("tool_calls_total", 2);
    let task = world.create("clerk", &[("q", "Put things away.")]);
    let row = world.until_state(task, TaskState::Paused(PauseReason::Budget)).await;
    assert_eq!((row.reason.as_str(), operations(&world).len()), ("tool_calls_total", 2));
    empty(&world, &node).await;
    assert_eq!(row.step, 5, "two turns of two steps, and what the model said third");
    world.limit("tool_calls_total", 3);
    let row = world.until("one more", || {
        let row = world.row(task);
        (row.step > 7 && row.state == TaskState::Paused(PauseReason::Budget)).then_some(row)
    });
    row.await;
    world.limit("tool_calls_total", 9);
    let row = world.until_state(task, TaskState::Succeeded).await;
    assert_eq!(result(&world, &row), "The last was done {\"n\":3}.");
    let seen: BTreeSet<String> = operations(&world).into_iter().collect();
    assert_eq!((operations(&world).len(), seen.len()), (4, 4), "no call was made twice");
    assert_eq!(world.settled_calls(), 4);
}

#[tokio::test]
async fn while_tools_work_the_slot_is_for_others_and_a_cancel_ends_the_call() {
    let (world, nodes, task) = world_of(&turns("sink.hold", 1), "'sink.*'", 1).await;
    world.until_state(task, TaskState::WaitingTool).await;
    world.until("one aside", || Some(()).filter(|()| nodes[0].agents.counters().aside() == 1)).await;
    world.until("the call", || world.tools.calls().first().cloned()).await;
    world.cancel(task);
    world.until_state(task, TaskState::Cancelled).await;
    empty(&world, &nodes[0]).await;
    world.until("none aside", || Some(()).filter(|()| nodes[0].agents.counters().aside() == 0)).await;
    assert_eq!(operations(&world).len(), 1);
}

#[tokio::test]
async fn a_node_without_its_lease_ends_its_tools() {
    let (world, nodes, task) = world_of(&turns("sink.hold", 1), "'sink.*'", 1).await;
    world.until("the call", || world.tools.calls().first().cloned()).await;
    let first = world.row(task).epoch;
    nodes[0].lease_valid.store(false, std::sync::atomic::Ordering::SeqCst);
    world.tell(nodes[0].id, crate::link::News::LeaseEnded).await;
    // The ledger of this world still takes commands: the lease is given back, and the task gets another one.
    world.until("another lease", || Some(()).filter(|()| world.row(task).epoch != first)).await;
    nodes[0].lease_valid.store(true, std::sync::atomic::Ordering::SeqCst);
    world.tell(nodes[0].id, crate::link::News::LeaseBack).await;
    world.until("called again", || Some(()).filter(|()| world.tools.calls().len() == 2)).await;
    world.tools.release();
    world.until_state(task, TaskState::Succeeded).await;
    let seen: BTreeSet<String> = operations(&world).into_iter().collect();
    assert_eq!(seen.len(), 1);
}

#[tokio::test]
async fn a_message_interrupts_what_the_model_says() {
    let script = "[[reply]]\nwhen_contains = 'shorter'\ntext = 'Yes.'\n\
                  [[reply]]\ntokens_per_second = 20\ntext = 'one two three four five six seven eight nine ten'\n";
    let world = World::new(2);
    let node = start(&world, world.nodes()[1], scripted(script)).await;
    world.apply_agent(&format!("name = 'guide'\nmodel = '{SCRIPTED}'\nconversation = true\n"));
    let task = world.create("guide", &[("q", "Count.")]);
    super::spoken(&world, &node, task, 8).await;
    let busy = world.signal(task, SignalKind::Message, "", Some("hello"));
    assert!(matches!(busy, Reply::Refused(ledger::reply::Refusal::Busy { .. })), "{busy:?}");
    world.signal(task, SignalKind::Interrupt, "", Some("shorter"));
    let row = world.until_state(task, TaskState::WaitingInput).await;
    let answer = row.talk.clone().unwrap().asks.remove(0).text.expect("the answer");
    assert_eq!(world.text(answer, node.id).unwrap(), "Yes.");
}

#[tokio::test]
async fn children_by_call_are_paid_from_their_own_limit_and_answer_as_tools_do() {
    let script = "[[reply]]\nwhen_agent = 'reader'\ntext = 'it is blue'\n\
                  [[reply]]\nwhen_results_below = 1\n\
                  calls = [{ name = 'spawn', arguments = '{\"agent\": \"reader\", \"input\": \"look\", \"tokens\": 500}' }]\n\
                  [[reply]]\ntext = 'Seen: {last}'\n";
    let world = World::new(2);
    let _node = start(&world, world.nodes()[1], scripted(script)).await;
    world.apply_agent(&super::agent("reader"));
    world.apply_agent(&clerk("'spawn'"));
    let task = world.create("clerk", &[("q", "Look at it.")]);
    let row = world.until_state(task, TaskState::Succeeded).await;
    assert_eq!(result(&world, &row), "Seen: it is blue");
    assert_eq!(row.children.len(), 1);
}
