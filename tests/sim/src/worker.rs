//! A worker: its process, its node's lease, and one short agent for each task it was given.
//!
//! The node's lease counts from the sending of the last acknowledged beat. Without it nothing starts, and what runs is
//! cut short and offered. Every question is asked again until it is answered: a timeout means unknown.

use crate::agent::{Agent, Phase};
use crate::counts::Kind;
use crate::net::{Message, Peer};
use crate::plan::Plant;
use crate::sim::{Event, Sim};
use ledger::rows::TaskRow;
use std::collections::{BTreeMap, BTreeSet};
use types::{Epoch, NodeId, TaskState, TaskUid, limits};

pub(crate) struct Worker {
    pub node: NodeId,
    /// Changes with every start of the process.
    pub boot: u64,
    pub up: bool,
    pub frozen: bool,
    /// It takes no new tasks, and gives back those it has at their next step.
    pub draining: bool,
    /// It gave a lease back since it drains.
    pub gave_back: bool,
    /// How much faster its clock runs than the leader's, in thousandths: below one in a hundred, as the margin allows.
    drift: i64,
    /// It woke after its lease with work at hand, and nothing was refused since.
    woke_late: bool,
    /// What happened while it was frozen.
    inbox: Vec<Event>,
    leader: usize,
    office: Option<u64>,
    heard_ms: u64,
    hello_ms: u64,
    beat_ms: u64,
    /// The node's lease, as the node counts it.
    lease_until_ms: u64,
    had_lease: bool,
    pub agents: BTreeMap<TaskUid, Agent>,
    pub ended: BTreeSet<Epoch>,
}

const ASK_AGAIN_MS: u64 = 600;
const HELLO_AGAIN_MS: u64 = 250;
/// Silence after which a worker looks for another leader.
const SILENCE_MS: u64 = 1_200;

impl Worker {
    pub(crate) fn new(node: NodeId) -> Self {
        Worker {
            node,
            boot: 0,
            up: false,
            frozen: false,
            draining: false,
            gave_back: false,
            drift: 0,
            woke_late: false,
            inbox: vec![],
            leader: 0,
            office: None,
            heard_ms: 0,
            hello_ms: 0,
            beat_ms: 0,
            lease_until_ms: 0,
            had_lease: false,
            agents: BTreeMap::new(),
            ended: BTreeSet::new(),
        }
    }
}

impl Sim {
    pub(crate) fn node_of(&self, peer: Peer) -> Option<NodeId> {
        match peer {
            Peer::Worker(worker) => Some(self.workers[worker].node),
            Peer::Coordinator(_) | Peer::Person(_) => None,
        }
    }

    pub(crate) fn worker_of(&self, node: NodeId) -> Option<usize> {
        self.workers.iter().position(|worker| worker.node == node)
    }

    pub(crate) fn lease_valid(&self, worker: usize) -> bool {
        let worker = &self.workers[worker];
        self.plant == Some(Plant::IgnoreLease) || self.now_ms < worker.lease_until_ms
    }

    pub(crate) fn start_worker(&mut self, worker: usize) {
        let node = self.workers[worker].node;
        let (boot, drift) = (self.number(), self.rng.between(0, 19) as i64 - 9);
        let draining = self.workers[worker].draining;
        self.workers[worker] = Worker { boot, up: true, drift, draining, ..Worker::new(node) };
        self.after(1, Event::WorkerTick { worker, boot });
    }

    pub(crate) fn crash_worker(&mut self, worker: usize) {
        self.workers[worker].up = false;
        self.workers[worker].frozen = false;
        self.workers[worker].agents.clear();
    }

    pub(crate) fn thaw(&mut self, worker: usize) {
        if !self.workers[worker].frozen {
            return;
        }
        self.workers[worker].frozen = false;
        let it = &self.workers[worker];
        if it.had_lease && self.now_ms >= it.lease_until_ms {
            self.counts.effective(Kind::WorkerFrozen);
        }
        if self.now_ms >= it.lease_until_ms && !it.agents.is_empty() {
            self.workers[worker].woke_late = true;
            self.counts.fired(Kind::StaleWakeUp);
        }
        for event in std::mem::take(&mut self.workers[worker].inbox) {
            self.after(0, event);
        }
    }

    /// A frozen worker sees events when it wakes, a crashed one never.
    pub(crate) fn keeps_for_later(&mut self, worker: usize, event: &Event) -> bool {
        if self.workers[worker].frozen {
            self.workers[worker].inbox.push(event.clone());
        }
        self.workers[worker].frozen || !self.workers[worker].up
    }

    /// Every tenth of a second: attach, beat, look at the lease, ask again.
    pub(crate) fn worker_tick(&mut self, worker: usize, boot: u64) {
        if self.workers[worker].boot != boot {
            return;
        }
        self.after(100, Event::WorkerTick { worker, boot });
        self.attach_or_beat(worker);
        self.look_at_lease(worker);
        self.ask_again(worker);
    }

    fn attach_or_beat(&mut self, worker: usize) {
        let now_ms = self.now_ms;
        // Machines set their clocks by one another, to a fraction of a second.
        let wall_ms = self.true_wall_ms() + 90 * worker as u64;
        let it = &mut self.workers[worker];
        let boot = it.boot;
        if it.office.is_some() && now_ms > it.heard_ms + SILENCE_MS {
            it.office = None;
            it.leader = (it.leader + 1) % crate::cluster::COORDINATORS;
        }
        match it.office {
            None if now_ms >= it.hello_ms + HELLO_AGAIN_MS => {
                it.hello_ms = now_ms;
                self.tell_leader(worker, Message::Hello { boot, wall_ms });
            }
            Some(office) if now_ms >= it.beat_ms + limits::NODE_RENEW_MS => {
                it.beat_ms = now_ms;
                self.tell_leader(worker, Message::Beat { boot, office, sent_ms: now_ms, wall_ms });
            }
            _ => {}
        }
    }

    pub(crate) fn tell_leader(&mut self, worker: usize, message: Message) {
        let to = Peer::Coordinator(self.workers[worker].leader);
        self.send(Peer::Worker(worker), to, message);
    }

    fn look_at_lease(&mut self, worker: usize) {
        let valid = self.lease_valid(worker);
        let had = std::mem::replace(&mut self.workers[worker].had_lease, valid);
        if had && !valid {
            self.lease_ended(worker);
        }
        let uids: Vec<TaskUid> = self.workers[worker].agents.keys().copied().collect();
        for uid in uids {
            match self.workers[worker].agents.get(&uid).map(|agent| agent.phase.clone()) {
                Some(Phase::Calling(call)) if !valid => self.offer(worker, uid, call, false),
                Some(Phase::Held(call)) if valid => self.start_call(worker, uid, call),
                _ => {}
            }
        }
    }

    fn lease_ended(&mut self, worker: usize) {
        let it = &self.workers[worker];
        let calling = it.agents.values().any(|agent| matches!(agent.phase, Phase::Calling(_)));
        self.counts.count(Kind::LeaseEnded, calling);
        self.counts.count(Kind::ClockDrift, it.drift != 0 && !it.agents.is_empty());
    }

    /// Whether it believes that its lease is over.
    pub(crate) fn lapsed(&self, worker: usize) -> bool {
        let it = &self.workers[worker];
        it.up && it.lease_until_ms > 0 && self.now_ms >= it.lease_until_ms
    }

    /// A command of this node was refused as fenced.
    pub(crate) fn fenced(&mut self, worker: usize) {
        if std::mem::take(&mut self.workers[worker].woke_late) {
            self.counts.effective(Kind::StaleWakeUp);
        }
    }

    fn ask_again(&mut self, worker: usize) {
        let now_ms = self.now_ms;
        let mut asks = vec![];
        for agent in self.workers[worker].agents.values_mut() {
            if let Phase::Asking(question) = &mut agent.phase
                && now_ms >= question.asked_ms + ASK_AGAIN_MS
            {
                question.asked_ms = now_ms;
                question.tries += 1;
                asks.push((question.id, question.command.clone()));
            }
        }
        for (id, command) in asks {
            self.tell_leader(worker, Message::Ask { id, command: Box::new(command) });
        }
    }

    pub(crate) fn at_worker(&mut self, worker: usize, message: Message) {
        let now_ms = self.now_ms;
        let it = &mut self.workers[worker];
        match message {
            Message::FullSet { boot, office, leases } if boot == it.boot => {
                (it.office, it.heard_ms) = (Some(office), now_ms);
                self.full_set(worker, leases);
            }
            Message::BeatAck { boot, office, sent_ms } if boot == it.boot && it.office == Some(office) => {
                it.heard_ms = now_ms;
                // A fast clock ends it early, a slow one late.
                let lease_ms = limits::NODE_LEASE_MS.saturating_add_signed(-3 * it.drift);
                it.lease_until_ms = it.lease_until_ms.max(sent_ms + lease_ms);
            }
            Message::Moved { leader } => {
                it.office = None;
                it.leader = leader.unwrap_or((it.leader + 1) % crate::cluster::COORDINATORS);
            }
            Message::Assigned { row } => self.hold(worker, *row),
            Message::Stop { task, epoch } => self.told_to_stop(worker, task, epoch),
            Message::Revoked { task, epoch } => self.revoked(worker, task, epoch),
            Message::Answer { id, reply } => self.answered(worker, id, *reply),
            Message::FullSet { .. } | Message::BeatAck { .. } => {}
            Message::Hello { .. } | Message::Beat { .. } | Message::Ask { .. } => {}
        }
    }

    fn full_set(&mut self, worker: usize, leases: Vec<TaskRow>) {
        if self.plant == Some(Plant::NoFullSets) {
            return;
        }
        let named: BTreeSet<(TaskUid, Epoch)> =
            leases.iter().filter_map(|row| Some((row.uid, row.epoch?))).collect();
        let held: Vec<(TaskUid, Epoch)> =
            self.workers[worker].agents.iter().map(|(uid, agent)| (*uid, agent.epoch)).collect();
        for (uid, epoch) in held {
            if !named.contains(&(uid, epoch)) {
                self.revoked(worker, uid, epoch);
            }
        }
        leases.into_iter().for_each(|row| self.hold(worker, row));
    }

    /// The ledger says that this node holds this lease.
    fn hold(&mut self, worker: usize, row: TaskRow) {
        let (Some(epoch), uid) = (row.epoch, row.uid) else { return };
        let it = &self.workers[worker];
        if row.node != Some(it.node) {
            return;
        }
        if row.state == TaskState::Cancelling {
            return self.told_to_stop(worker, uid, epoch);
        }
        let newer = it.agents.get(&uid).is_some_and(|agent| agent.epoch >= epoch);
        if it.ended.contains(&epoch) || newer {
            return;
        }
        if let Some(old) = it.agents.get(&uid).map(|agent| agent.epoch) {
            self.workers[worker].ended.insert(old);
            self.workers[worker].agents.remove(&uid);
        }
        self.begin(worker, row, epoch);
    }
}
