//! Agents that hang: they are found by their silence, started anew, and given up after a few times.

use super::fakes::scripted;
use super::world::{World, start_with};
use super::{QUICK, SLOW, agent, spoken};
use crate::agents::Silence;
use crate::gateway::{Ask, ModelFailure, Prompt, Provider, ProviderFacts, Said};
use context::Message;
use futures::future::BoxFuture;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use types::{PauseReason, TaskState};

/// Half a second of silence is too much of everything.
const SHORT: Silence = Silence { beat_ms: 20, actor_ms: 500, call_ms: 500, tool_grace_ms: 500, ask_ms: 500 };

/// A model that says nothing at its first calls, and keeps the line open.
struct Mute {
    script: Arc<dyn Provider>,
    left: AtomicUsize,
    lines: Mutex<Vec<mpsc::Sender<Said>>>,
}

impl Mute {
    fn new(times: usize) -> Arc<Mute> {
        Arc::new(Mute { script: scripted(QUICK), left: AtomicUsize::new(times), lines: Mutex::default() })
    }

    /// Calls whose caller still listens.
    fn held(&self) -> usize {
        self.lines.lock().unwrap().iter().filter(|line| !line.is_closed()).count()
    }
}

impl Provider for Mute {
    fn facts(&self) -> ProviderFacts {
        self.script.facts()
    }

    fn prompt<'a>(
        &'a self,
        messages: &'a Arc<Vec<Message>>,
        tools: Option<&'a Arc<str>>,
    ) -> BoxFuture<'a, Result<Prompt, ModelFailure>> {
        self.script.prompt(messages, tools)
    }

    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<mpsc::Receiver<Said>, ModelFailure>> {
        let take_one = |left: usize| left.checked_sub(1);
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take_one).is_err() {
            return self.script.answer(ask);
        }
        let (line, heard) = mpsc::channel(1);
        self.lines.lock().unwrap().push(line);
        Box::pin(std::future::ready(Ok(heard)))
    }
}

#[tokio::test]
async fn a_call_that_hangs_is_dropped_and_made_again() {
    let world = World::new(2);
    let mute = Mute::new(2);
    let node = start_with(&world, world.nodes()[1], mute.clone(), SHORT).await;
    world.apply_agent(&agent("writer"));
    let task = world.create("writer", &[("q", "go")]);
    let row = world.until_state(task, TaskState::Succeeded).await;
    assert_eq!(node.agents.counters().observe().restarts, 2);
    assert_eq!(mute.held(), 0, "nobody waits for the calls that hung");
    assert_eq!(world.settled_tokens(), row.spent.prompt_tokens + row.spent.generated_tokens, "paid once");
}

#[tokio::test]
async fn what_hangs_again_and_again_stands_still_with_the_reason() {
    let world = World::new(2);
    let _node = start_with(&world, world.nodes()[1], Mute::new(usize::MAX), SHORT).await;
    world.apply_agent(&agent("writer"));
    let task = world.create("writer", &[("q", "go")]);
    let row = world.until_state(task, TaskState::Paused(PauseReason::Error)).await;
    assert_eq!((&*row.reason, row.epoch), ("stuck", None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_actor_that_does_not_answer_is_replaced_and_its_siblings_notice_nothing() {
    let world = World::new(2);
    let node = start_with(&world, world.nodes()[1], scripted(SLOW), SHORT).await;
    world.apply_agent(&agent("writer"));
    let tasks = [(); 3].map(|()| world.create("writer", &[("q", "go")]));
    for task in tasks {
        spoken(&world, &node, task, 8).await;
    }
    let thaw = node.freeze_one();
    for task in tasks {
        assert_eq!(world.until_state(task, TaskState::Succeeded).await.step, 1);
    }
    assert_eq!(node.agents.counters().observe().restarts, 1);
    drop(thaw);
}
