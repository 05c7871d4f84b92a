//! The agents of a worker: each asks for tokens, runs a call, offers its step, and goes on or ends. A team spawns,
//! waits and ends.

use crate::net::Message;
use crate::plan::Plant;
use crate::sim::{Event, Sim};
use ledger::command::{ChildSpec, Command, Next, Release};
use ledger::reply::{Refusal, Reply};
use ledger::rows::{AgentKind, TaskError, TaskRow};
use types::{Epoch, Hash, Spent, TaskUid};

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
    /// About to ask its first question.
    Begun,
    Asking(Box<Question>),
    /// A model call that ends by an event, unless it was cut short before.
    Calling(Call),
    /// Granted, but the node's lease is over for now.
    Held(u64),
}

#[derive(Clone)]
pub(crate) struct Question {
    pub id: u64,
    pub command: Command,
    pub asked_ms: u64,
    pub tries: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub number: u64,
    granted: u64,
}

impl Sim {
    pub(crate) fn begin(&mut self, worker: usize, row: TaskRow, epoch: Epoch) {
        let uid = row.uid;
        let (step, team) = (row.step, row.kind == AgentKind::Team);
        let agent = Agent { epoch, row, step, phase: Phase::Begun, ending: false, again: None };
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
            agent.phase =
                Phase::Asking(Box::new(Question { id, command: command.clone(), asked_ms, tries: 1 }));
            self.tell_leader(worker, Message::Ask { id, command: Box::new(command) });
        }
    }

    fn ask_spawn(&mut self, worker: usize, uid: TaskUid) {
        let Some(agent) = self.workers[worker].agents.get(&uid) else { return };
        let child = ChildSpec { agent: "reader".into(), inputs: vec![], background: vec![], home: vec![] };
        let children = vec![child; 2 + (uid.index % 2) as usize];
        let node = self.workers[worker].node;
        let command =
            Command::Spawn { parent: uid, epoch: agent.epoch, node, step: agent.step + 1, children };
        self.ask(worker, uid, command);
    }

    fn ask_reserve(&mut self, worker: usize, uid: TaskUid) {
        let Some(agent) = self.workers[worker].agents.get(&uid) else { return };
        let (task, node) = (uid, self.workers[worker].node);
        let (epoch, step) = (agent.epoch, agent.step + 1);
        let min_tokens = 3 + uid.index % 5;
        let command =
            Command::Reserve { task, epoch, node, step, min_tokens, max_tokens: min_tokens + 30, want: None };
        self.ask(worker, uid, command);
    }

    pub(crate) fn start_call(&mut self, worker: usize, uid: TaskUid, granted: u64) {
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
        // Some calls are longer than a lease.
        let longest_ms = if self.rng.percent(25) { 6_000 } else { 700 };
        let takes_ms = self.rng.between(30, longest_ms);
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
    pub(crate) fn offer(&mut self, worker: usize, uid: TaskUid, call: Call) {
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
        let epoch = agent.epoch;
        self.oracle.offered(head, node, epoch, call.map(|call| call.number));
        let spent = Spent { generated_tokens: billed_tokens, ..Spent::default() };
        let home = self.home(worker);
        let command = Command::CommitStep {
            task: uid,
            epoch,
            node,
            step,
            head,
            home,
            spent,
            billed_tokens,
            next,
            extra: None,
        };
        self.ask(worker, uid, command);
    }

    pub(crate) fn told_to_stop(&mut self, worker: usize, uid: TaskUid, epoch: Epoch) {
        self.let_go(worker, uid, epoch, Release::Stopped);
    }

    /// A former holder offers what it runs, and otherwise gives the lease back: the ledger knows better.
    pub(crate) fn revoked(&mut self, worker: usize, uid: TaskUid, epoch: Epoch) {
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
            return self.tell_leader(worker, Message::Ask { id, command: Box::new(command) });
        }
        let it = &mut self.workers[worker];
        let holds = it.agents.get(&uid).is_some_and(|agent| agent.epoch == epoch);
        if !holds {
            it.ended.insert(epoch);
            let id = self.number();
            return self.tell_leader(worker, Message::Ask { id, command: Box::new(command) });
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

    pub(crate) fn answered(&mut self, worker: usize, id: u64, reply: Reply) {
        let asked = |agent: &Agent| match &agent.phase {
            Phase::Asking(question) if question.id == id => Some(question.clone()),
            Phase::Begun | Phase::Asking(_) | Phase::Calling(_) | Phase::Held(_) => None,
        };
        let found = self.workers[worker].agents.iter().find_map(|(uid, agent)| Some((*uid, asked(agent)?)));
        let Some((uid, question)) = found else { return };
        match (&question.command, reply) {
            (Command::Reserve { .. }, Reply::Reserved(granted)) => self.granted(worker, uid, granted),
            (Command::Spawn { .. }, Reply::Children(_)) => self.ask_commit(worker, uid, None),
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
