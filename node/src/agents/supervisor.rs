//! The supervisor of this node's agents: drives a [`Roster`].

use super::agent::{Agent, Heard, Sign, Stuck, ToAgent};
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
    /// Look whether every agent lives.
    Beat,
    Observe(oneshot::Sender<Vec<AgentObserved>>),
}

pub(crate) struct Supervisor;

pub(crate) struct Nursery {
    shared: Arc<Shared>,
    held: HeldLeases,
    roster: Roster,
    agents: BTreeMap<TaskUid, Ward>,
    leases: BTreeMap<ActorId, (TaskUid, Epoch)>,
    emptied: Vec<oneshot::Sender<()>>,
    started: Instant,
}

/// An agent, and what its supervisor knows of its life.
struct Ward {
    actor: ActorRef<ToAgent>,
    sign: Sign,
    /// Beats that were sent, and when the oldest was that has no answer.
    beats: u64,
    asked: Instant,
}

impl Ward {
    /// Sends a beat where the last was answered; says how long the last has none.
    fn beat(&mut self) -> Duration {
        if self.sign.answered() < self.beats {
            return self.asked.elapsed();
        }
        (self.beats, self.asked) = (self.beats + 1, Instant::now());
        // One that has just ended needs no beat; its end is on the way here.
        let _ = self.actor.send_message(Heard::Beat.into());
        Duration::ZERO
    }
}

impl Actor for Supervisor {
    type Msg = ToSupervisor;
    type State = Nursery;
    type Arguments = (Arc<Shared>, HeldLeases);

    async fn pre_start(
        &self,
        me: ActorRef<ToSupervisor>,
        (shared, held): Self::Arguments,
    ) -> Result<Nursery, ActorProcessingErr> {
        let roster = Roster::new(shared.config.restart_ms);
        me.send_interval(Duration::from_millis(shared.config.silence.beat_ms), || ToSupervisor::Beat);
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
            ToSupervisor::Beat => nursery.beat(),
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
            SupervisionEvent::ActorFailed(who, why) => nursery.failed(who.get_id(), &why),
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

    fn failed(&mut self, who: ActorId, why: &ActorProcessingErr) -> Vec<Order> {
        let Some((task, epoch)) = self.forget(who) else { return Vec::new() };
        tracing::warn!(%task, %epoch, %why, "an agent failed");
        if why.is::<Stuck>() {
            return self.stuck(task, epoch);
        }
        self.roster.failed(task, epoch, self.now_ms())
    }

    fn stuck(&mut self, task: TaskUid, epoch: Epoch) -> Vec<Order> {
        self.shared.counters.stuck();
        self.roster.stuck(task, epoch, self.now_ms())
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// An actor that does not answer is given up: what it still does is cut off, and another takes its place.
    fn beat(&mut self) -> Vec<Order> {
        let most = Duration::from_millis(self.shared.config.silence.actor_ms);
        let silent: Vec<TaskUid> =
            self.agents.iter_mut().filter_map(|(task, ward)| (ward.beat() > most).then_some(*task)).collect();
        silent.into_iter().flat_map(|task| self.give_up(task)).collect()
    }

    fn give_up(&mut self, task: TaskUid) -> Vec<Order> {
        let Some(ward) = self.agents.get(&task) else { return Vec::new() };
        ward.sign.gone.cancel();
        ward.actor.kill();
        let Some((task, epoch)) = self.forget(ward.actor.get_id()) else { return Vec::new() };
        tracing::warn!(%task, %epoch, "an agent does not answer; another takes its place");
        self.stuck(task, epoch)
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
        let sign = Sign::default();
        // Quick: an agent's start only spawns its first work.
        let arguments = (self.shared.clone(), lease, sign.clone());
        let started = Actor::spawn_linked(None, Agent, arguments, me.get_cell()).await;
        let (agent, _) = started?;
        self.leases.insert(agent.get_id(), (task, epoch));
        self.agents.insert(task, Ward { actor: agent, sign, beats: 0, asked: Instant::now() });
        Ok(())
    }

    fn tell(&self, task: TaskUid, tell: Tell) {
        if let Some(agent) = self.agents.get(&task) {
            // One that has just ended needs no telling; its end is on the way here.
            let _ = agent.actor.send_message(Heard::Told(tell).into());
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
