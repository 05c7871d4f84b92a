//! The loop: events in the order of their virtual time, and of their making where the times are equal.

use crate::agent::Call;
use crate::cluster::{Asker, COORDINATORS, Cluster, Pending};
use crate::counts::Counts;
use crate::leader::Office;
use crate::library::Library;
use crate::net::{Message, Net, Peer};
use crate::oracle::Oracle;
use crate::people::{PEOPLE, PROJECTS, Person, project};
use crate::plan::{Plant, Report, Size};
use crate::rng::Rng;
use crate::worker::Worker;
use ledger::command::{Command, RequestKey, Stamp};
use ledger::reply::Reply;
use ledger::rows::{AgentKind, Role};
use mind::Definition;
use std::collections::BTreeMap;
use types::{ClusterId, NodeId, TaskUid};

#[derive(Clone, Debug)]
pub(crate) enum Event {
    Deliver { from: Peer, to: Peer, number: u64, slow: bool, message: Message },
    Look,
    Flush,
    Commit { office: u64 },
    Elect,
    Follow { follower: usize },
    WorkerTick { worker: usize, boot: u64 },
    CallBegins { worker: usize, boot: u64, task: TaskUid, call: Call },
    CallEnds { worker: usize, boot: u64, task: TaskUid, call: u64 },
    PersonTick { who: usize },
    Fault,
    Thaw { worker: usize },
    Restart { worker: usize },
    Heal { peer: Peer },
    HealQuorum { office: u64 },
    Drained { worker: usize },
}

pub(crate) struct Sim {
    pub now_ms: u64,
    pub rng: Rng,
    events: BTreeMap<(u64, u64), Event>,
    numbers: u64,
    pub net: Net,
    pub cluster: Cluster,
    pub office: Option<Office>,
    /// A leader that its quorum has left, and that does not know that another leads.
    pub deposed: Option<Office>,
    pub office_number: u64,
    /// How far each coordinator's wall clock is off.
    pub jumps_ms: [i64; COORDINATORS],
    /// Whether nobody has refused the clock since it jumped.
    pub jumps_new: [bool; COORDINATORS],
    /// How often each question reached the ledger's door.
    pub asked: BTreeMap<u64, u32>,
    pub library: Library,
    /// Entries of the last leader that its successor commits.
    pub survivors: Vec<Pending>,
    pub workers: Vec<Worker>,
    /// A worker that crashed for good.
    pub gone: Option<usize>,
    pub people: Vec<Person>,
    pub oracle: Oracle,
    pub counts: Counts,
    pub plant: Option<Plant>,
    pub chaos: bool,
    pub size: Size,
    trace: String,
    first_broken: Option<String>,
}

const WORKERS: usize = 3;
const AGENT: &str =
    "name = \"reader\"\nmodel = \"m\"\nsystem = \"Be brief.\"\nmax_steps = 6\nmax_tokens = 80\n";
const TEAM: &str = "name = \"team\"\nbackground = \"House style.\"\n[fan_out]\nover = \"inputs\"\nagent = \"reader\"\n[then]\nagent = \"reader\"\n";

/// Runs one seed to its end, or to the first broken promise.
pub fn run(seed: u64, size: Size, plant: Option<Plant>) -> Report {
    let mut sim = Sim::new(seed, size, plant);
    sim.found();
    sim.chaos_then_heal();
    sim.report(seed)
}

impl Sim {
    fn new(seed: u64, size: Size, plant: Option<Plant>) -> Sim {
        Sim {
            now_ms: 0,
            rng: Rng::new(seed),
            events: BTreeMap::new(),
            numbers: 0,
            net: Net { loss: 2, doubling: 3, ..Net::default() },
            cluster: Cluster::new(),
            office: None,
            deposed: None,
            office_number: 0,
            jumps_ms: [0; COORDINATORS],
            jumps_new: [false; COORDINATORS],
            asked: BTreeMap::new(),
            library: Library::default(),
            survivors: vec![],
            workers: vec![],
            gone: None,
            people: (0..PEOPLE).map(|_| Person::default()).collect(),
            oracle: Oracle::default(),
            counts: Counts::default(),
            plant,
            chaos: true,
            size,
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
        for (number, name) in PROJECTS.into_iter().enumerate() {
            // The readers of every second project start together.
            let together = if number % 2 == 1 { "together = true\n[then]" } else { "[then]" };
            for text in [AGENT, &TEAM.replace("[then]", together)] {
                let definition = self.library.define(text);
                let segment = context::seal(&project(name), &definition.segment());
                self.library.keep([(segment.hash, segment.bytes)]);
                self.commit_alone(agent(name, &definition, segment.hash, self.home(0)));
            }
        }
        self.take_office(0);
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
        let stamp = Stamp { ledger_ms: 0, wall_ms: self.true_wall_ms() };
        let commands = vec![(Asker::Leader, command)];
        self.commit(&Pending { stamp, commands, written_ms: 0, slow: false }).replies.remove(0)
    }

    fn chaos_then_heal(&mut self) {
        let (mut look_ms, mut moved_ms, mut done) = (0, self.size.chaos_ms, (0, 0));
        while let Some(((at_ms, _), event)) = self.events.pop_first() {
            self.now_ms = at_ms;
            if self.chaos && at_ms >= self.size.chaos_ms {
                self.heal_all();
            }
            self.step(event);
            if self.first_broken.is_some() {
                return;
            }
            if !self.chaos && at_ms >= look_ms {
                look_ms = at_ms + 50;
                if self.all_ended() {
                    return self.check_end();
                }
                if done != self.done() {
                    (moved_ms, done) = (at_ms, self.done());
                }
            }
            if at_ms > moved_ms + self.size.patience_ms {
                return self.broken(format!("stuck: {}", self.open_tasks()));
            }
        }
    }

    fn step(&mut self, event: Event) {
        match &event {
            Event::WorkerTick { worker, .. }
            | Event::CallBegins { worker, .. }
            | Event::CallEnds { worker, .. }
            | Event::Deliver { to: Peer::Worker(worker), .. }
                if self.keeps_for_later(*worker, &event) => {}
            _ => self.happen(event),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, number, slow, message } => {
                self.came(from, to, number, slow);
                match to {
                    Peer::Coordinator(who) => self.at_coordinator(who, from, message),
                    Peer::Worker(worker) => self.at_worker(worker, message),
                    Peer::Person(who) => self.at_person(who, message),
                }
            }
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
                // Now and then a replica is busy with something else and falls behind.
                let pause_ms = if self.chaos && self.rng.percent(4) { 3_000 } else { 97 };
                self.after(pause_ms, Event::Follow { follower });
            }
            Event::WorkerTick { worker, boot } => self.worker_tick(worker, boot),
            Event::CallBegins { worker, boot, task, call } => self.call_begins(worker, boot, task, call),
            Event::CallEnds { worker, boot, task, call } => self.call_ends(worker, boot, task, call),
            Event::PersonTick { who } => self.person_tick(who),
            Event::Fault => self.fault(),
            Event::Thaw { worker } => self.thaw(worker),
            Event::Restart { worker } if self.workers[worker].up || self.gone == Some(worker) => {}
            Event::Restart { worker } => self.start_worker(worker),
            Event::Heal { peer } => self.heal(peer),
            Event::HealQuorum { office } => self.heal_quorum(office),
            Event::Drained { worker } => self.workers[worker].draining = false,
        }
    }

    fn all_ended(&self) -> bool {
        self.all_answered() && self.cluster.truth.tasks().all(|row| row.state.is_final())
    }

    /// What only grows, and not for ever: steps committed and tasks that ended.
    fn done(&self) -> (usize, usize) {
        (self.oracle.steps(), self.cluster.truth.tasks().filter(|row| row.state.is_final()).count())
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
            counts: self.counts,
            moves: self.oracle.moves.seen.clone(),
            commands: self.cluster.commands,
            entries: self.cluster.log.len() as u64,
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

fn agent(in_project: &str, definition: &Definition, segment: types::Hash, home: Vec<NodeId>) -> Command {
    Command::ApplyAgent {
        project: project(in_project),
        name: definition.name().into(),
        kind: if definition.model().is_some() { AgentKind::Agent } else { AgentKind::Team },
        model: definition.model().unwrap_or_default().into(),
        revision: definition.revision(),
        definition: segment,
        etag: None,
        home,
        request: RequestKey::default(),
        needs: None,
    }
}
