//! The supervisor of this node's agents: drives a [`Roster`].

use super::agent::{Agent, Heard, ToAgent};
use super::hands::{Lease, release};
use super::roster::{Order, Roster, Tell};
use super::{AgentObserved, HeldLeases, Shared};
use crate::link::{LeaseName, News};
use ledger::command::Release;
use ledger::rows::TaskRow;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use types::{Epoch, TaskUid};

/// What can reach the supervisor.
pub(crate) enum ToSupervisor {
    /// From the leader; the permit bounds how many wait.
    News(News, OwnedSemaphorePermit),
    /// A rest between restarts is over.
    RestartDue {
        task: TaskUid,
        epoch: Epoch,
    },
    /// The ledger took a lease back.
    Released {
        task: TaskUid,
        epoch: Epoch,
    },
    /// Give every lease back at step boundaries; say when none is held.
    Drain {
        emptied: oneshot::Sender<()>,
    },
    /// Do not wait for step boundaries any more.
    DrainNow,
    Observe(oneshot::Sender<Vec<AgentObserved>>),
}

pub(crate) struct Supervisor;

pub(crate) struct Nursery {
    shared: Arc<Shared>,
    held: HeldLeases,
    roster: Roster,
    agents: BTreeMap<TaskUid, ActorRef<ToAgent>>,
    leases: BTreeMap<ActorId, (TaskUid, Epoch)>,
    emptied: Vec<oneshot::Sender<()>>,
    started: Instant,
}

impl Actor for Supervisor {
    type Msg = ToSupervisor;
    type State = Nursery;
    type Arguments = (Arc<Shared>, HeldLeases);

    async fn pre_start(
        &self,
        _me: ActorRef<ToSupervisor>,
        (shared, held): Self::Arguments,
    ) -> Result<Nursery, ActorProcessingErr> {
        let roster = Roster::new(shared.config.restart_ms);
        Ok(Nursery {
            shared,
            held,
            roster,
            agents: BTreeMap::new(),
            leases: BTreeMap::new(),
            emptied: Vec::new(),
            started: Instant::now(),
        })
    }

    async fn handle(
        &self,
        me: ActorRef<ToSupervisor>,
        message: ToSupervisor,
        nursery: &mut Nursery,
    ) -> Result<(), ActorProcessingErr> {
        let orders = match message {
            ToSupervisor::News(news, _permit) => nursery.roster.on_news(news),
            ToSupervisor::RestartDue { task, epoch } => nursery.restart_due(task, epoch),
            ToSupervisor::Released { task, epoch } => nursery.roster.released(task, epoch),
            ToSupervisor::Drain { emptied } => nursery.drain(emptied),
            ToSupervisor::DrainNow => nursery.roster.drain_now(),
            ToSupervisor::Observe(answer) => nursery.observe(answer),
        };
        nursery.perform(&me, orders).await
    }

    /// An agent's end is news, never the supervisor's end.
    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<ToSupervisor>,
        event: SupervisionEvent,
        nursery: &mut Nursery,
    ) -> Result<(), ActorProcessingErr> {
        let orders = match event {
            SupervisionEvent::ActorTerminated(who, _, _) => nursery.ended(who.get_id()),
            SupervisionEvent::ActorFailed(who, why) => nursery.failed(who.get_id(), &why.to_string()),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => Vec::new(),
        };
        nursery.perform(&me, orders).await
    }
}

impl Nursery {
    fn ended(&mut self, who: ActorId) -> Vec<Order> {
        let Some((task, epoch)) = self.forget(who) else { return Vec::new() };
        self.shared.seams.live.end(task);
        self.roster.ended(task, epoch)
    }

    fn failed(&mut self, who: ActorId, why: &str) -> Vec<Order> {
        let Some((task, epoch)) = self.forget(who) else { return Vec::new() };
        tracing::warn!(%task, %epoch, why, "an agent failed");
        self.roster.failed(task, epoch, self.started.elapsed().as_millis() as u64)
    }

    fn forget(&mut self, who: ActorId) -> Option<(TaskUid, Epoch)> {
        let lease = self.leases.remove(&who)?;
        self.agents.remove(&lease.0);
        Some(lease)
    }

    fn restart_due(&mut self, task: TaskUid, epoch: Epoch) -> Vec<Order> {
        let orders = self.roster.restart_due(task, epoch);
        if !orders.is_empty() {
            self.shared.counters.restart();
        }
        orders
    }

    fn drain(&mut self, emptied: oneshot::Sender<()>) -> Vec<Order> {
        self.emptied.push(emptied);
        self.roster.drain()
    }

    fn observe(&self, answer: oneshot::Sender<Vec<AgentObserved>>) -> Vec<Order> {
        // Whoever asked may be gone.
        let _ = answer.send(self.roster.observe());
        Vec::new()
    }

    async fn perform(
        &mut self,
        me: &ActorRef<ToSupervisor>,
        orders: Vec<Order>,
    ) -> Result<(), ActorProcessingErr> {
        for order in orders {
            match order {
                Order::Start(row) => self.start(me, row).await?,
                Order::Tell(task, tell) => self.tell(task, tell),
                Order::Release(lease, why) => self.release(me, lease, why),
                Order::RestartIn { task, epoch, wait_ms } => {
                    me.send_after(Duration::from_millis(wait_ms), move || ToSupervisor::RestartDue {
                        task,
                        epoch,
                    });
                }
            }
        }
        self.held.set(self.roster.leases());
        if self.roster.is_empty() {
            for emptied in self.emptied.drain(..) {
                // Whoever waited may have given up.
                let _ = emptied.send(());
            }
        }
        Ok(())
    }

    async fn start(
        &mut self,
        me: &ActorRef<ToSupervisor>,
        row: Box<TaskRow>,
    ) -> Result<(), ActorProcessingErr> {
        let Some(lease) = Lease::of(*row) else { return Ok(()) };
        let (task, epoch) = (lease.task, lease.epoch);
        tracing::info!(%task, %epoch, "an agent starts");
        // Quick: an agent's start only spawns its first work.
        let started = Actor::spawn_linked(None, Agent, (self.shared.clone(), lease), me.get_cell()).await;
        let (agent, _) = started?;
        self.leases.insert(agent.get_id(), (task, epoch));
        self.agents.insert(task, agent);
        Ok(())
    }

    fn tell(&self, task: TaskUid, tell: Tell) {
        if let Some(agent) = self.agents.get(&task) {
            // One that has just ended needs no telling; its end is on the way here.
            let _ = agent.send_message(Heard::Told(tell).into());
        }
    }

    /// Asks the ledger in the background, for agents that are not there.
    fn release(&self, me: &ActorRef<ToSupervisor>, lease: LeaseName, why: Release) {
        let (shared, me) = (self.shared.clone(), me.clone());
        tokio::spawn(async move {
            let (task, epoch) = (lease.task, lease.epoch);
            release(&shared, task, epoch, why).await;
            // The supervisor may be gone: then the node goes down.
            let _ = me.send_message(ToSupervisor::Released { task, epoch });
        });
    }
}
