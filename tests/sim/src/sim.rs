//! The loop: events in the order of their virtual time, and of their making where the times are equal.

use crate::cluster::{Asker, Cluster, Pending};
use crate::leader::Office;
use crate::net::{Message, Net, Peer};
use crate::oracle::Oracle;
use crate::people::{PEOPLE, Person, project};
use crate::plan::{Faults, Plant, Report};
use crate::rng::Rng;
use crate::worker::Worker;
use ledger::command::{Command, RequestKey, Stamp};
use ledger::reply::Reply;
use ledger::rows::{AgentKind, Role};
use std::collections::BTreeMap;
use types::{ClusterId, Hash, NodeId, TaskUid};

#[derive(Clone, Debug)]
pub(crate) enum Event {
    Deliver { from: Peer, to: Peer, message: Message },
    Look,
    Flush,
    Commit { office: u64 },
    Elect,
    Follow { follower: usize },
    WorkerTick { worker: usize, boot: u64 },
    CallEnds { worker: usize, boot: u64, task: TaskUid, call: u64 },
    PersonTick { who: usize },
    Fault,
    Thaw { worker: usize },
    Restart { worker: usize },
    Heal { peer: Peer },
}

pub(crate) struct Sim {
    pub now_ms: u64,
    pub rng: Rng,
    events: BTreeMap<(u64, u64), Event>,
    numbers: u64,
    pub net: Net,
    pub cluster: Cluster,
    pub office: Option<Office>,
    pub office_number: u64,
    /// Entries of the last leader that its successor commits.
    pub survivors: Vec<Pending>,
    pub workers: Vec<Worker>,
    /// A worker that crashed for good.
    pub gone: Option<usize>,
    pub people: Vec<Person>,
    pub oracle: Oracle,
    pub faults: Faults,
    pub plant: Option<Plant>,
    pub chaos: bool,
    trace: String,
    first_broken: Option<String>,
}

const WORKERS: usize = 3;
const CHAOS_MS: u64 = 15_000;
/// What the heal phase may take: many leases, steps and failovers.
const PATIENCE_MS: u64 = 90_000;

/// Runs one seed to its end, or to the first broken promise.
pub fn run(seed: u64, plant: Option<Plant>) -> Report {
    let mut sim = Sim::new(seed, plant);
    sim.found();
    sim.chaos_then_heal();
    sim.report(seed)
}

impl Sim {
    fn new(seed: u64, plant: Option<Plant>) -> Sim {
        Sim {
            now_ms: 0,
            rng: Rng::new(seed),
            events: BTreeMap::new(),
            numbers: 0,
            net: Net { loss: 2, doubling: 3, ..Net::default() },
            cluster: Cluster::new(),
            office: None,
            office_number: 0,
            survivors: vec![],
            workers: vec![],
            gone: None,
            people: (0..PEOPLE).map(|_| Person::default()).collect(),
            oracle: Oracle::default(),
            faults: Faults::default(),
            plant,
            chaos: true,
            trace: String::new(),
            first_broken: None,
        }
    }

    pub(crate) fn after(&mut self, delay_ms: u64, event: Event) {
        let number = self.number();
        self.events.insert((self.now_ms + delay_ms, number), event);
    }

    /// A number that was never given before.
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(crate) fn trace(&mut self, line: &str) {
        self.trace.push_str(&format!("{:>6} {line}\n", self.now_ms));
    }

    pub(crate) fn broken(&mut self, what: String) {
        self.trace(&format!("BROKEN: {what}"));
        self.first_broken.get_or_insert(what);
    }

    /// The cluster as it is before anything goes wrong.
    fn found(&mut self) {
        self.commit_alone(Command::InitCluster { cluster_id: ClusterId([5; 16]) });
        for i in 0..WORKERS {
            let reply = self.commit_alone(admit(i));
            if let Reply::Node(node) = reply {
                self.workers.push(Worker::new(node));
            }
        }
        for name in ["a", "a/b"] {
            self.commit_alone(agent(name, "reader", AgentKind::Agent, self.home(0)));
            self.commit_alone(agent(name, "team", AgentKind::Team, self.home(0)));
        }
        self.elect();
        (0..WORKERS).for_each(|worker| self.start_worker(worker));
        (0..PEOPLE).for_each(|who| self.after(who as u64, Event::PersonTick { who }));
        for event in [Event::Look, Event::Flush, Event::Fault] {
            self.after(1, event);
        }
        (0..self.cluster.followers.len()).for_each(|follower| self.after(1, Event::Follow { follower }));
    }

    /// Two members, as a promise of durability needs: this worker's node and the next one's.
    pub(crate) fn home(&self, worker: usize) -> Vec<NodeId> {
        [worker, worker + 1].map(|i| self.workers[i % self.workers.len()].node).to_vec()
    }

    fn commit_alone(&mut self, command: Command) -> Reply {
        let pending = Pending { stamp: Stamp::default(), commands: vec![(Asker::Leader, command)] };
        self.commit(&pending).0.remove(0)
    }

    fn chaos_then_heal(&mut self) {
        while let Some(((at_ms, _), event)) = self.events.pop_first() {
            self.now_ms = at_ms;
            if self.chaos && at_ms >= CHAOS_MS {
                self.heal_all();
            }
            self.step(event);
            if self.first_broken.is_some() {
                return;
            }
            if !self.chaos && self.all_ended() {
                return self.check_end();
            }
            if at_ms > CHAOS_MS + PATIENCE_MS {
                return self.broken(format!("stuck: {}", self.open_tasks()));
            }
        }
    }

    fn step(&mut self, event: Event) {
        match &event {
            Event::WorkerTick { worker, .. }
            | Event::CallEnds { worker, .. }
            | Event::Deliver { to: Peer::Worker(worker), .. }
                if self.keeps_for_later(*worker, &event) => {}
            _ => self.happen(event),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to: Peer::Coordinator(who), message } => {
                self.at_coordinator(who, from, message)
            }
            Event::Deliver { to: Peer::Worker(worker), message, .. } => self.at_worker(worker, message),
            Event::Deliver { to: Peer::Person(who), message, .. } => self.at_person(who, message),
            Event::Look => {
                self.look();
                self.after(50, Event::Look);
            }
            Event::Flush => {
                self.flush();
                self.after(4, Event::Flush);
            }
            Event::Commit { office } => self.commit_written(office),
            Event::Elect => self.elect(),
            Event::Follow { follower } => {
                let most = self.rng.below(30);
                self.follow(follower, most);
                self.after(97, Event::Follow { follower });
            }
            Event::WorkerTick { worker, boot } => self.worker_tick(worker, boot),
            Event::CallEnds { worker, boot, task, call } => self.call_ends(worker, boot, task, call),
            Event::PersonTick { who } => self.person_tick(who),
            Event::Fault => self.fault(),
            Event::Thaw { worker } => self.thaw(worker),
            Event::Restart { worker } if self.workers[worker].up || self.gone == Some(worker) => {}
            Event::Restart { worker } => self.start_worker(worker),
            Event::Heal { peer } => drop(self.net.cut_off.remove(&peer)),
        }
    }

    fn all_ended(&self) -> bool {
        self.all_answered() && self.cluster.truth.tasks().all(|row| row.state.is_final())
    }

    fn open_tasks(&self) -> String {
        let open = self.cluster.truth.tasks().filter(|row| !row.state.is_final());
        open.map(|row| format!("{} {:?} ({}) on {:?}", row.uid, row.state, row.reason, row.node))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn report(self, seed: u64) -> Report {
        Report {
            seed,
            trace: self.trace,
            broken: self.first_broken,
            faults: self.faults,
            tasks: self.cluster.truth.tasks().count(),
            steps: self.oracle.steps(),
            ended_ms: self.now_ms,
        }
    }
}

fn admit(i: usize) -> Command {
    Command::AdmitNode {
        name: format!("node{i}"),
        roles: vec![Role::Coordinator, Role::Worker],
        client_addr: String::new(),
        internal_addr: "sim:1".into(),
        disk_id: [i as u8 + 1; 16],
        version: "sim".into(),
    }
}

fn agent(in_project: &str, name: &str, kind: AgentKind, home: Vec<NodeId>) -> Command {
    Command::ApplyAgent {
        project: project(in_project),
        name: name.into(),
        kind,
        model: if kind == AgentKind::Agent { "m".into() } else { String::new() },
        revision: Hash::of(name.as_bytes()),
        definition: Hash::of(name.as_bytes()),
        etag: None,
        home,
        request: RequestKey::default(),
        needs: None,
    }
}
