//! Agents as actors, under one supervision tree:
//!
//! ```text
//!   link ──news──► pump ──permit──► supervisor          one per node; looks at every agent each 5 s
//!                                     │  restarts: a failed agent after 100 ms, 200 ms, … five times in a minute,
//!                                     │  then the lease is given back as broken; its siblings don't notice. One that
//!                                     │  hangs the same, three times in six hours, then as stuck
//!                                     ├── agent          one per lease; linked, dies alone
//!                                     │     └─ hands     spawned work of that agent: load, model call, commit, …
//!                                     ├── agent               every piece answers with one message; a panic there
//!                                     └── agent               fails the agent
//! ```
//!
//! The supervisor itself is started by the node, which stops when it ends: an agent's end never ends it.
//!
//! Who decides what: `roster` says which agents run here (from the leader's news), `course` says what one agent does
//! next (its lease, cancels, and its `mind`), `vigil` what has been silent for too long. All are plain structs, tested without an actor. `supervisor` and
//! `agent` are the actors that drive them: translate, decide, perform. `hands` performs for an agent; it reaches the
//! world only through `seams`, and `real` is the one file that puts the real world behind them.
//!
//! Mailboxes of actors are unbounded, so every way in from outside takes a permit first: the pump holds one permit
//! per message until it is handled. An agent's mailbox is bounded by its senders: its supervisor (one message per
//! news of its lease) and its own hands (one message per piece of work, one piece at a time).
//!
//! This is not the place where tasks are decided (that is `mind` for one, `ledger` for all), and actors never cross
//! the network: that is `link`.

mod agent;
pub mod counters;
mod course;
mod hands;
pub mod real;
mod roster;
pub mod seams;
mod supervisor;
mod vigil;

#[cfg(test)]
mod agents_test;

use crate::gateway::Gateway;
use crate::link::{LeaseName, News};
use crate::traces::Traces;
use counters::Counters;
use ractor::{Actor, ActorRef};
use seams::Seams;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use supervisor::{Supervisor, ToSupervisor};
use tokio::sync::{Semaphore, mpsc, oneshot};
use types::{Epoch, NodeId, TaskUid};
pub use vigil::Silence;

/// News in the supervisor's mailbox at the same time. Handling one takes microseconds.
const NEWS_PERMITS: usize = 64;

/// What agents are given.
#[derive(Clone)]
pub struct AgentsConfig {
    pub node: NodeId,
    /// Model calls under way at the same time.
    pub slots: usize,
    /// First pause before a failed agent is started again; doubles.
    pub restart_ms: u64,
    /// How long what may be silent.
    pub silence: Silence,
    pub traces: Traces,
}

impl AgentsConfig {
    pub fn new(node: NodeId, slots: usize) -> Self {
        AgentsConfig {
            node,
            slots: slots.max(1),
            restart_ms: 100,
            silence: Silence::default(),
            traces: Traces::default(),
        }
    }
}

/// Everything that agents share.
pub(crate) struct Shared {
    pub(crate) config: AgentsConfig,
    pub(crate) seams: Seams,
    pub(crate) gateway: Gateway,
    pub(crate) counters: Arc<Counters>,
    /// One permit for each slot: who comes back from its tools waits here where the others left no room.
    pub(crate) slots: Semaphore,
}

/// Leases that run here, readable without asking the supervisor: the link says them at every attach.
#[derive(Clone, Default)]
pub struct HeldLeases(Arc<Mutex<Vec<LeaseName>>>);

impl HeldLeases {
    pub fn get(&self) -> Vec<LeaseName> {
        self.lock().clone()
    }

    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn set(&self, leases: Vec<LeaseName>) {
        *self.lock() = leases;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<LeaseName>> {
        self.0.lock().expect("nothing panics while it holds the leases")
    }
}

/// One agent at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentObserved {
    pub task: TaskUid,
    pub epoch: Epoch,
    /// `running`, `resting` between restarts, or `releasing`.
    pub phase: &'static str,
    /// Failures in the last minute.
    pub failures: usize,
}

/// A handle to the supervision tree. Cheap to clone.
#[derive(Clone)]
pub struct Agents {
    supervisor: ActorRef<ToSupervisor>,
    held: HeldLeases,
    counters: Arc<Counters>,
}

impl Agents {
    /// Starts the tree and feeds it the link's news. `held` and `counters` are made before the link, which reads them.
    pub async fn start(
        config: AgentsConfig,
        seams: Seams,
        gateway: Gateway,
        news: mpsc::Receiver<News>,
        held: HeldLeases,
        counters: Arc<Counters>,
    ) -> Result<Agents, ractor::SpawnErr> {
        let slots = Semaphore::new(config.slots);
        let shared = Arc::new(Shared { config, seams, gateway, counters: counters.clone(), slots });
        // Without a name: the registry of names is one for the process, and tests run several nodes in one.
        let (supervisor, _) = Actor::spawn(None, Supervisor, (shared, held.clone())).await?;
        tokio::spawn(pump(news, supervisor.clone()));
        Ok(Agents { supervisor, held, counters })
    }

    /// What runs here; empty when the tree has ended.
    pub async fn observe(&self) -> Vec<AgentObserved> {
        let (answer, answered) = oneshot::channel();
        let _ = self.supervisor.send_message(ToSupervisor::Observe(answer));
        answered.await.unwrap_or_default()
    }

    /// Resolves when the tree has ended.
    pub async fn ended(&self) {
        let _ = self.supervisor.wait(None).await;
    }

    pub fn held(&self) -> &HeldLeases {
        &self.held
    }

    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Stops at step boundaries and gives every lease back to the queue. Agents that are inside a step are cut
    /// `patience` later: what they have is committed. Answers when no lease is held, or after `patience` again.
    pub async fn drain(&self, patience: Duration) {
        let (emptied, empty) = oneshot::channel();
        let _ = self.supervisor.send_message(ToSupervisor::Drain { emptied });
        let mut empty = std::pin::pin!(empty);
        if tokio::time::timeout(patience, &mut empty).await.is_err() {
            let _ = self.supervisor.send_message(ToSupervisor::DrainNow);
            let _ = tokio::time::timeout(patience, &mut empty).await;
        }
    }

    /// Ends the tree. Leases that are still held end by themselves.
    pub async fn stop(&self) {
        let _ = self.supervisor.stop_children_and_wait(None, Some(Duration::from_secs(2))).await;
        let _ = self.supervisor.stop_and_wait(None, Some(Duration::from_secs(2))).await;
    }
}

/// Moves news into the supervisor's mailbox, never more than it has permits for.
async fn pump(mut news: mpsc::Receiver<News>, supervisor: ActorRef<ToSupervisor>) {
    let permits = Arc::new(Semaphore::new(NEWS_PERMITS));
    while let Some(news) = news.recv().await {
        let permit = permits.clone().acquire_owned().await.expect("the permits are never closed");
        if supervisor.send_message(ToSupervisor::News(news, permit)).is_err() {
            return;
        }
    }
}
