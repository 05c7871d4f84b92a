//! A worker: its process, its node's lease, and one short agent for each task it was given.
//!
//! The node's lease counts from the sending of the last acknowledged beat. Without it nothing starts, and what runs is
//! cut short and offered. Every question is asked again until it is answered: a timeout means unknown.

use crate::net::{Message, Peer};
use crate::plan::Plant;
use crate::sim::{Event, Sim};
use ledger::command::{ChildSpec, Command, Next, Release};
use ledger::reply::{Refusal, Reply};
use ledger::rows::{AgentKind, TaskError, TaskRow};
use std::collections::{BTreeMap, BTreeSet};
use types::{Epoch, Hash, NodeId, Spent, TaskState, TaskUid, limits};

pub(crate) struct Worker {
    pub node: NodeId,
    /// Changes with every start of the process.
    pub boot: u64,
    pub up: bool,
    pub frozen: bool,
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
    ended: BTreeSet<Epoch>,
}

pub(crate) struct Agent {
    pub epoch: Epoch,
    row: TaskRow,
    step: u64,
    pub phase: Phase,
    ending: bool,
    /// The planted mistake: a call to be billed again.
    again: Option<Call>,
}

#[derive(Clone)]
pub(crate) enum Phase {
    Asking(Question),
    /// A model call that ends by an event, unless it was cut short before.
    Calling(Call),
    /// Granted, but the node's lease is over for now.
    Held(u64),
}

#[derive(Clone)]
pub(crate) struct Question {
    id: u64,
    command: Command,
    asked_ms: u64,
    tries: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub number: u64,
    granted: u64,
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
        let boot = self.number();
        self.workers[worker] = Worker { boot, up: true, ..Worker::new(node) };
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
        let it = &mut self.workers[worker];
        let boot = it.boot;
        if it.office.is_some() && now_ms > it.heard_ms + SILENCE_MS {
            it.office = None;
            it.leader = (it.leader + 1) % crate::cluster::COORDINATORS;
        }
        match it.office {
            None if now_ms >= it.hello_ms + HELLO_AGAIN_MS => {
                it.hello_ms = now_ms;
                self.to_leader(worker, Message::Hello { boot });
            }
            Some(office) if now_ms >= it.beat_ms + limits::NODE_RENEW_MS => {
                it.beat_ms = now_ms;
                self.to_leader(worker, Message::Beat { boot, office, sent_ms: now_ms });
            }
            _ => {}
        }
    }

    fn to_leader(&mut self, worker: usize, message: Message) {
        let to = Peer::Coordinator(self.workers[worker].leader);
        self.send(Peer::Worker(worker), to, message);
    }

    fn look_at_lease(&mut self, worker: usize) {
        let valid = self.lease_valid(worker);
        let had = std::mem::replace(&mut self.workers[worker].had_lease, valid);
        if had && !valid {
            self.faults.lease_ends += 1;
        }
        let uids: Vec<TaskUid> = self.workers[worker].agents.keys().copied().collect();
        for uid in uids {
            match self.workers[worker].agents.get(&uid).map(|agent| agent.phase.clone()) {
                Some(Phase::Calling(call)) if !valid => self.offer(worker, uid, call),
                Some(Phase::Held(granted)) if valid => self.start_call(worker, uid, granted),
                _ => {}
            }
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
            self.faults.asked_again += 1;
            self.to_leader(worker, Message::Ask { id, command: Box::new(command) });
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
                it.lease_until_ms = it.lease_until_ms.max(sent_ms + limits::NODE_LEASE_MS);
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

    fn begin(&mut self, worker: usize, row: TaskRow, epoch: Epoch) {
        let uid = row.uid;
        let (step, team) = (row.step, row.kind == AgentKind::Team);
        let question = Question { id: 0, command: Command::Tick, asked_ms: 0, tries: 0 };
        let agent = Agent { epoch, row, step, phase: Phase::Asking(question), ending: false, again: None };
        self.workers[worker].agents.insert(uid, agent);
        match (team, step) {
            (true, 0) => self.ask_spawn(worker, uid),
            (true, _) => self.ask_commit(worker, uid, None),
            (false, _) => self.ask_reserve(worker, uid),
        }
    }

    fn ask(&mut self, worker: usize, uid: TaskUid, command: Command) {
        let (id, asked_ms) = (self.number(), self.now_ms);
        if let Some(agent) = self.workers[worker].agents.get_mut(&uid) {
            agent.phase = Phase::Asking(Question { id, command: command.clone(), asked_ms, tries: 1 });
            self.to_leader(worker, Message::Ask { id, command: Box::new(command) });
        }
    }

    fn ask_spawn(&mut self, worker: usize, uid: TaskUid) {
        let Some(agent) = self.workers[worker].agents.get(&uid) else { return };
        let child = ChildSpec { agent: "reader".into(), inputs: vec![], background: vec![], home: vec![] };
        let children = vec![child; 2 + (uid.index % 2) as usize];
        let node = self.workers[worker].node;
        let command = Command::Spawn { parent: uid, epoch: agent.epoch, node, step: agent.step + 1, children };
        self.ask(worker, uid, command);
    }

    fn ask_reserve(&mut self, worker: usize, uid: TaskUid) {
        let Some(agent) = self.workers[worker].agents.get(&uid) else { return };
        let (task, node) = (uid, self.workers[worker].node);
        let (epoch, step) = (agent.epoch, agent.step + 1);
        let min_tokens = 3 + uid.index % 5;
        let command = Command::Reserve { task, epoch, node, step, min_tokens, max_tokens: min_tokens + 30 };
        self.ask(worker, uid, command);
    }

    fn start_call(&mut self, worker: usize, uid: TaskUid, granted: u64) {
        if !self.lease_valid(worker) {
            if let Some(agent) = self.workers[worker].agents.get_mut(&uid) {
                agent.phase = Phase::Held(granted);
            }
            return;
        }
        let call = Call { number: self.number(), granted };
        self.started(worker, uid);
        let boot = self.workers[worker].boot;
        if let Some(agent) = self.workers[worker].agents.get_mut(&uid) {
            agent.phase = Phase::Calling(call);
        }
        let takes_ms = self.rng.between(30, 900);
        self.after(takes_ms, Event::CallEnds { worker, boot, task: uid, call: call.number });
    }

    pub(crate) fn call_ends(&mut self, worker: usize, boot: u64, uid: TaskUid, number: u64) {
        let it = &self.workers[worker];
        if it.boot != boot {
            return;
        }
        if let Some(Phase::Calling(call)) = it.agents.get(&uid).map(|agent| agent.phase.clone())
            && call.number == number
        {
            self.offer(worker, uid, call);
        }
    }

    /// Commits what a call gave, all of it or what was there when it was cut short.
    fn offer(&mut self, worker: usize, uid: TaskUid, call: Call) {
        self.ask_commit(worker, uid, Some(call));
    }

    fn ask_commit(&mut self, worker: usize, uid: TaskUid, call: Option<Call>) {
        let Some(agent) = self.workers[worker].agents.get(&uid) else { return };
        let node = self.workers[worker].node;
        let step = agent.step + 1;
        let billed_tokens = call.map_or(0, |call| call.granted - call.granted % 3);
        let number = call.map_or_else(|| self.number(), |call| call.number);
        let Some(agent) = self.workers[worker].agents.get(&uid) else { return };
        let head = Hash::of_parts(&[&types::encode(&uid), &step.to_le_bytes(), &number.to_le_bytes()]);
        let next = next_of(&agent.row, step);
        let keeper = self.workers[(worker + 1) % self.workers.len()].node;
        let epoch = agent.epoch;
        self.oracle.offered(head, node, epoch, call.map(|call| call.number));
        let spent = Spent { generated_tokens: billed_tokens, ..Spent::default() };
        let home = vec![node, keeper];
        let command = Command::CommitStep { task: uid, epoch, node, step, head, home, spent, billed_tokens, next };
        self.ask(worker, uid, command);
    }

    fn told_to_stop(&mut self, worker: usize, uid: TaskUid, epoch: Epoch) {
        self.let_go(worker, uid, epoch, Release::Stopped);
    }

    /// A former holder offers what it runs, and otherwise gives the lease back: the ledger knows better.
    fn revoked(&mut self, worker: usize, uid: TaskUid, epoch: Epoch) {
        let agent = self.workers[worker].agents.get(&uid).filter(|agent| agent.epoch == epoch);
        match agent.map(|agent| agent.phase.clone()) {
            Some(Phase::Calling(call)) => self.offer(worker, uid, call),
            Some(Phase::Asking(question)) if matches!(question.command, Command::CommitStep { .. }) => {}
            Some(_) => self.let_go(worker, uid, epoch, Release::Yielded),
            None => {}
        }
    }

    /// Stops whatever runs under the lease and says so. True also when nothing runs, as nothing will start later.
    fn let_go(&mut self, worker: usize, uid: TaskUid, epoch: Epoch, why: Release) {
        let node = self.workers[worker].node;
        let command = Command::Release { task: uid, epoch, node, why };
        if self.plant == Some(Plant::ConfirmEarly) {
            let id = self.number();
            return self.to_leader(worker, Message::Ask { id, command: Box::new(command) });
        }
        let it = &mut self.workers[worker];
        let holds = it.agents.get(&uid).is_some_and(|agent| agent.epoch == epoch);
        if !holds {
            it.ended.insert(epoch);
            let id = self.number();
            return self.to_leader(worker, Message::Ask { id, command: Box::new(command) });
        }
        let ending = it.agents.get_mut(&uid).is_some_and(|agent| std::mem::replace(&mut agent.ending, true));
        if !ending {
            self.ask(worker, uid, command);
        }
    }

    fn end(&mut self, worker: usize, uid: TaskUid) {
        if let Some(agent) = self.workers[worker].agents.remove(&uid) {
            self.workers[worker].ended.insert(agent.epoch);
        }
    }

    fn answered(&mut self, worker: usize, id: u64, reply: Reply) {
        let asked = |agent: &Agent| match &agent.phase {
            Phase::Asking(question) if question.id == id => Some(question.clone()),
            Phase::Asking(_) | Phase::Calling(_) | Phase::Held(_) => None,
        };
        let found = self.workers[worker].agents.iter().find_map(|(uid, agent)| Some((*uid, asked(agent)?)));
        let Some((uid, question)) = found else { return };
        match (&question.command, reply) {
            (Command::Reserve { .. }, Reply::Reserved(granted)) => self.granted(worker, uid, granted),
            (Command::Spawn { .. }, Reply::Children(_)) => {
                self.started(worker, uid);
                self.ask_commit(worker, uid, None);
            }
            (Command::CommitStep { next: Next::Continue, step, .. }, Reply::Done) => {
                self.oracle.acknowledged(uid, *step);
                self.go_on(worker, uid, &question);
            }
            (Command::CommitStep { step, .. }, Reply::Done) => {
                self.oracle.acknowledged(uid, *step);
                self.end(worker, uid);
            }
            (Command::Release { .. }, _) => self.end(worker, uid),
            (_, Reply::Refused(Refusal::Fenced { .. } | Refusal::OverQuota { .. })) => self.end(worker, uid),
            (_, Reply::Refused(Refusal::WrongState { .. })) => self.give_up(worker, uid, Release::Stopped),
            // Another process of this node was faster; the journal has to be read anew.
            (_, Reply::Refused(Refusal::Invalid { .. })) => self.give_up(worker, uid, Release::Yielded),
            (command, reply) => self.broken(format!("{command:?} was answered with {reply:?}")),
        }
    }

    fn give_up(&mut self, worker: usize, uid: TaskUid, why: Release) {
        if let Some(epoch) = self.workers[worker].agents.get(&uid).map(|agent| agent.epoch) {
            self.let_go(worker, uid, epoch, why);
        }
    }

    fn granted(&mut self, worker: usize, uid: TaskUid, granted: u64) {
        let again = self.workers[worker].agents.get_mut(&uid).and_then(|agent| agent.again.take());
        match again {
            Some(call) => self.ask_commit(worker, uid, Some(Call { granted, ..call })),
            None => self.start_call(worker, uid, granted),
        }
    }

    fn go_on(&mut self, worker: usize, uid: TaskUid, question: &Question) {
        let Some(agent) = self.workers[worker].agents.get_mut(&uid) else { return };
        agent.step += 1;
        if self.plant == Some(Plant::BillTwice) && question.tries > 1 {
            agent.again = self.oracle.call_of(&question.command).map(|number| Call { number, granted: 0 });
        }
        self.ask_reserve(worker, uid);
    }
}

/// What a task does after a step: agents take one to three, a team spawns, waits and ends.
fn next_of(row: &TaskRow, step: u64) -> Next {
    let last = 1 + row.uid.index % 3;
    let failure = row.uid.index.is_multiple_of(11);
    match row.kind {
        AgentKind::Team if step == 1 => Next::WaitChildren,
        AgentKind::Agent if step < last => Next::Continue,
        AgentKind::Agent if failure => {
            Next::Failed { error: TaskError { reason: "SCRIPTED".into(), text: None } }
        }
        AgentKind::Team | AgentKind::Agent => Next::Done { result: Hash::of(b"result"), bytes: 6 },
    }
}
