//! The agents of a worker. What each does next is decided by the real `mind`; here is the short copy of the hands
//! that perform it: questions to the ledger, model calls that take time, and what a lease's end does to both.

use crate::net::Message;
use crate::plan::Plant;
use crate::sim::{Event, Sim};
use ledger::command::{ChildSpec, Command, Next, Release};
use ledger::reply::{Refusal, Reply};
use ledger::rows::{InputRef, TaskError, TaskRow};
use mind::{ChildPlan, Effect, Event as Happened, Mind, NextMove, TaskFacts};
use types::{Epoch, ProjectName, TaskUid};

pub(crate) struct Agent {
    pub epoch: Epoch,
    pub project: ProjectName,
    pub mind: Mind,
    pub phase: Phase,
    ending: bool,
    /// The planted mistake: a call to be billed again.
    again: Option<u64>,
}

#[derive(Clone)]
pub(crate) enum Phase {
    Idle,
    /// Before the repetition of a call.
    Waiting(u64),
    Asking(Box<Question>),
    /// A model call that ends by an event, unless it was cut short before.
    Calling(Call),
    /// Granted, but the node's lease is over for now.
    Held(Call),
}

#[derive(Clone)]
pub(crate) struct Question {
    pub id: u64,
    pub command: Command,
    pub asked_ms: u64,
    pub tries: u32,
    /// The call that the command is about.
    pub call: Option<Call>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub number: u64,
    /// How often this step called before.
    pub nth: u32,
    pub max_tokens: u64,
    /// Tokens of the prompt that are billed.
    pub prompt: u64,
    pub granted: u64,
}

impl Sim {
    pub(crate) fn begin(&mut self, worker: usize, row: TaskRow, epoch: Epoch) {
        let uid = row.uid;
        let (project, head, step) = (row.project.clone(), row.head, row.step);
        // Rarely, but often where somebody else may still be at it, or children are.
        let delicate = !row.unaware.is_empty() || row.children_open > 0;
        let mut mind = Mind::new(self.facts(row, epoch));
        let journal = match self.library.journal(&project, head) {
            Ok(journal) => journal,
            Err(broken) => return self.broken(format!("{uid}'s journal is broken: {broken}")),
        };
        for (hash, record) in &journal {
            if let Err(broken) = mind.replay(*hash, record) {
                return self.broken(format!("{uid}'s journal is broken: {broken}"));
            }
        }
        if mind.observe().step != step {
            return self.broken(format!("{uid} has {step} steps and {} records", mind.observe().step));
        }
        let agent = Agent { epoch, project, mind, phase: Phase::Idle, ending: false, again: None };
        self.workers[worker].agents.insert(uid, agent);
        if self.chaos && self.rng.percent(if delicate { 30 } else { 1 }) {
            return self.give_up(worker, uid, Release::Broken);
        }
        self.think(worker, uid, Happened::Begin);
    }

    fn facts(&self, row: TaskRow, epoch: Epoch) -> TaskFacts {
        let mut tree = row.uid;
        while let Some(origin) = self.cluster.truth.task(tree).and_then(|row| row.origin) {
            tree = origin.parent;
        }
        TaskFacts {
            uid: row.uid,
            project: row.project.clone(),
            agent: row.agent.to_string(),
            tree,
            background: row.background.clone(),
            inputs: row.inputs.iter().map(|input| (input.name.to_string(), input.segment)).collect(),
            definition: self.library.definition(*row.revision),
            seed: row.uid.index,
            epoch,
            inbox: vec![],
        }
    }

    /// Something happened to an agent: its mind says what to do about it.
    pub(crate) fn think(&mut self, worker: usize, uid: TaskUid, happened: Happened) {
        let Some(agent) = self.workers[worker].agents.get_mut(&uid) else { return };
        agent.phase = Phase::Idle;
        for effect in agent.mind.on(happened) {
            self.perform_for(worker, uid, effect, None);
        }
    }

    fn perform_for(&mut self, worker: usize, uid: TaskUid, effect: Effect, call: Option<Call>) {
        let Some(agent) = self.workers[worker].agents.get(&uid) else { return };
        let (epoch, node, project) = (agent.epoch, self.workers[worker].node, agent.project.clone());
        match effect {
            Effect::Load { hashes } => {
                let segments = hashes.into_iter().filter_map(|hash| {
                    self.library.segment(&project, hash).ok().map(|segment| (hash, segment))
                });
                let segments = segments.collect();
                self.think(worker, uid, Happened::Loaded { segments });
            }
            Effect::Infer { call, max_tokens, wait_ms, .. } => {
                self.call_later(worker, uid, call, max_tokens, wait_ms);
            }
            Effect::Spawn { step, children, new_segments } => {
                self.library.keep(new_segments);
                let home = self.home(worker);
                let children = children.into_iter().map(|plan| spec(plan, &home)).collect();
                self.ask(worker, uid, Command::Spawn { parent: uid, epoch, node, step, children }, None);
            }
            Effect::AskChildren => {
                let outcomes = self.outcomes(uid);
                self.think(worker, uid, Happened::Children(outcomes));
            }
            Effect::Commit { step, head, segments, spent, billed_tokens, next, .. } => {
                self.library.keep(segments);
                self.oracle.offered(head, node, epoch, call.map(|call| call.number));
                let (home, next) = (self.home(worker), translate(next));
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
                self.ask(worker, uid, command, call);
            }
            Effect::ListTools { .. }
            | Effect::CallTool { .. }
            | Effect::CutShort
            | Effect::CheckResult { .. } => {
                unreachable!("agents of the simulator have no tools")
            }
            Effect::Stop => self.end(worker, uid),
        }
    }

    pub(crate) fn ask(&mut self, worker: usize, uid: TaskUid, command: Command, call: Option<Call>) {
        let (id, asked_ms) = (self.number(), self.now_ms);
        if let Some(agent) = self.workers[worker].agents.get_mut(&uid) {
            let question = Question { id, command: command.clone(), asked_ms, tries: 1, call };
            agent.phase = Phase::Asking(Box::new(question));
            self.tell_leader(worker, Message::Ask { id, command: Box::new(command) });
        }
    }

    pub(crate) fn start_call(&mut self, worker: usize, uid: TaskUid, call: Call) {
        if !self.lease_valid(worker) {
            if let Some(agent) = self.workers[worker].agents.get_mut(&uid) {
                agent.phase = Phase::Held(call);
            }
            return;
        }
        self.started(worker, uid);
        let boot = self.workers[worker].boot;
        if let Some(agent) = self.workers[worker].agents.get_mut(&uid) {
            agent.phase = Phase::Calling(call);
        }
        // Some calls are longer than a lease.
        let longest_ms = match self.rng.below(100) {
            0..=3 if self.chaos => 12_000,
            0..=19 => 5_000,
            _ => 500,
        };
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
            self.offer(worker, uid, call, true);
        }
    }

    /// Tells the mind what a call gave, all of it or what was there when it was cut short, and commits what follows.
    pub(crate) fn offer(&mut self, worker: usize, uid: TaskUid, call: Call, whole: bool) {
        let happened = self.generated(worker, uid, call, whole);
        let Some(agent) = self.workers[worker].agents.get_mut(&uid) else { return };
        agent.phase = Phase::Idle;
        for effect in agent.mind.on(happened) {
            self.perform_for(worker, uid, effect, Some(call));
        }
    }

    pub(crate) fn told_to_stop(&mut self, worker: usize, uid: TaskUid, epoch: Epoch) {
        self.let_go(worker, uid, epoch, Release::Stopped);
    }

    /// A former holder offers what it runs, and otherwise gives the lease back: the ledger knows better.
    pub(crate) fn revoked(&mut self, worker: usize, uid: TaskUid, epoch: Epoch) {
        let agent = self.workers[worker].agents.get(&uid).filter(|agent| agent.epoch == epoch);
        match agent.map(|agent| agent.phase.clone()) {
            Some(Phase::Calling(call)) => self.offer(worker, uid, call, false),
            Some(Phase::Asking(question)) if matches!(question.command, Command::CommitStep { .. }) => {}
            Some(_) => self.let_go(worker, uid, epoch, Release::Yielded),
            None => {}
        }
    }

    /// Stops whatever runs under the lease and says so. True also when nothing runs, as nothing will start later.
    fn let_go(&mut self, worker: usize, uid: TaskUid, epoch: Epoch, why: Release) {
        let node = self.workers[worker].node;
        let command = Command::Release { task: uid, epoch, node, why };
        if self.plant == Some(Plant::ConfirmEarly) && why == Release::Stopped {
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
            self.ask(worker, uid, command, None);
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
            Phase::Idle | Phase::Waiting(_) | Phase::Asking(_) | Phase::Calling(_) | Phase::Held(_) => None,
        };
        let found = self.workers[worker].agents.iter().find_map(|(uid, agent)| Some((*uid, asked(agent)?)));
        let Some((uid, question)) = found else { return };
        if let Reply::Refused(Refusal::Fenced { .. }) = reply {
            self.fenced(worker);
        }
        match (&question.command, reply) {
            (Command::Reserve { .. }, Reply::Reserved(granted)) => {
                self.granted(worker, uid, granted, question.call)
            }
            (Command::Spawn { .. }, Reply::Children(children)) => {
                self.think(worker, uid, Happened::Spawned { children });
            }
            (Command::CommitStep { step, next, .. }, Reply::Done) => {
                self.oracle.acknowledged(uid, *step);
                self.committed(worker, uid, *step, *next == Next::Continue, &question);
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

    fn granted(&mut self, worker: usize, uid: TaskUid, granted: u64, call: Option<Call>) {
        let again = self.workers[worker].agents.get_mut(&uid).and_then(|agent| agent.again.take());
        if let Some(call) = call.map(|call| Call { granted, ..call }) {
            match again {
                Some(number) => self.offer(worker, uid, Call { number, ..call }, true),
                None => self.start_call(worker, uid, call),
            }
        }
    }

    fn committed(&mut self, worker: usize, uid: TaskUid, step: u64, goes_on: bool, question: &Question) {
        let Some(agent) = self.workers[worker].agents.get_mut(&uid) else { return };
        if self.plant == Some(Plant::BillTwice) && question.tries > 1 {
            agent.again = question.call.map(|call| call.number);
        }
        if goes_on && self.workers[worker].draining {
            return self.give_up(worker, uid, Release::Yielded);
        }
        self.think(worker, uid, Happened::Committed { step });
    }
}

fn spec(plan: ChildPlan, home: &[types::NodeId]) -> ChildSpec {
    let input = |(name, segment): (String, _)| InputRef { name: name.into(), segment, bytes: 1 };
    ChildSpec {
        agent: plan.agent,
        inputs: plan.inputs.into_iter().map(input).collect(),
        background: plan.background,
        home: home.to_vec(),
        limits: None,
        together: plan.together.then_some(true),
        priority: plan.priority,
    }
}

fn translate(next: NextMove) -> Next {
    let error = |reason, message| TaskError { reason, text: Some(message) };
    match next {
        NextMove::Continue => Next::Continue,
        NextMove::WaitChildren => Next::WaitChildren,
        NextMove::Done { result, bytes } => Next::Done { result, bytes },
        NextMove::Failed { reason, message } => Next::Failed { error: error(reason, message) },
        NextMove::PausedError { reason, message } => Next::PausedError { error: error(reason, message) },
        NextMove::GoOn { .. }
        | NextMove::WaitTool { .. }
        | NextMove::WaitInput { .. }
        | NextMove::WaitFor { .. }
        | NextMove::WaitBudget { .. } => unreachable!("agents of the simulator have no tools"),
    }
}
