//! People: they create, cancel, pause and resume, one moves the budgets. Each asks again until answered, under the
//! same request id. In the heal phase they lift the limits and resume what is paused.

use crate::net::{Message, Peer};
use crate::sim::{Event, Sim};
use ledger::command::{Command, RequestKey};
use ledger::reply::Reply;
use ledger::rows::QuotaKey;
use types::{Class, Hash, PauseReason, ProjectName, TaskState, TaskUid};

#[derive(Default)]
pub(crate) struct Person {
    leader: usize,
    open: Option<Asked>,
    made: Vec<TaskUid>,
    /// Paused a moment ago, and perhaps cancelled next: the worst moment for a holder who has not heard.
    paused: Option<TaskUid>,
    /// Requests asked so far.
    count: u64,
}

struct Asked {
    id: u64,
    command: Command,
    asked_ms: u64,
}

pub(crate) const PEOPLE: usize = 3;
const PROJECTS: [&str; 2] = ["a", "a/b"];

impl Sim {
    /// Every twentieth of a second: ask something new, or again.
    pub(crate) fn person_tick(&mut self, who: usize) {
        self.after(50, Event::PersonTick { who });
        let now_ms = self.now_ms;
        match &mut self.people[who].open {
            Some(asked) if now_ms >= asked.asked_ms + 500 => {
                asked.asked_ms = now_ms;
                let (id, command) = (asked.id, asked.command.clone());
                self.people[who].leader = (self.people[who].leader + 1) % crate::cluster::COORDINATORS;
                self.faults.asked_again += 1;
                self.ask_coordinator(who, id, command);
            }
            Some(_) => {}
            None if self.chaos && self.rng.percent(12) => {
                let command = self.wish(who);
                self.ask_as(who, command);
            }
            None if self.chaos => {}
            None => {
                if let Some(command) = self.remedy(who) {
                    self.ask_as(who, command);
                }
            }
        }
    }

    fn ask_as(&mut self, who: usize, command: Command) {
        let (id, asked_ms) = (self.number(), self.now_ms);
        self.people[who].open = Some(Asked { id, command: command.clone(), asked_ms });
        self.ask_coordinator(who, id, command);
    }

    fn ask_coordinator(&mut self, who: usize, id: u64, command: Command) {
        let to = Peer::Coordinator(self.people[who].leader);
        self.send(Peer::Person(who), to, Message::Ask { id, command: Box::new(command) });
    }

    fn request(&mut self, who: usize) -> RequestKey {
        self.people[who].count += 1;
        let request_id = format!("r{}", self.people[who].count);
        RequestKey { author: format!("person{who}"), body: Hash::of(request_id.as_bytes()), request_id }
    }

    fn wish(&mut self, who: usize) -> Command {
        if let Some(task) = self.people[who].paused.take().filter(|_| self.rng.percent(60)) {
            return Command::CancelTask { project: self.project(task), task, request: self.request(who) };
        }
        let made = &self.people[who].made;
        let some = if made.is_empty() { None } else { Some(made[self.rng.below(made.len())]) };
        match (self.rng.below(10), some) {
            (0 | 1, Some(task)) => {
                Command::CancelTask { project: self.project(task), task, request: self.request(who) }
            }
            (2 | 3, Some(task)) => {
                Command::PauseTask { project: self.project(task), task, request: self.request(who) }
            }
            (4, Some(task)) => {
                Command::ResumeTask { project: self.project(task), task, request: self.request(who) }
            }
            (5 | 6, _) if who == 0 => self.budget(),
            _ => self.new_task(who),
        }
    }

    fn project(&self, task: TaskUid) -> ProjectName {
        self.cluster.truth.task(task).map_or_else(ProjectName::default, |row| row.project.clone())
    }

    fn new_task(&mut self, who: usize) -> Command {
        let agent = if self.rng.percent(20) { "team" } else { "reader" };
        let soon = self.rng.percent(10);
        let home = self.home(who);
        Command::CreateTask {
            project: project(PROJECTS[self.rng.below(2)]),
            agent: agent.into(),
            inputs: vec![],
            task_id: None,
            labels: vec![],
            class: Class::ALL[self.rng.below(4)],
            priority: self.rng.below(10) as u8,
            deadline_ms: if soon { 1_000_000 + self.now_ms + self.rng.between(500, 6_000) } else { 0 },
            home,
            request: self.request(who),
            terms: None,
        }
    }

    fn budget(&mut self) -> Command {
        let path = ["cluster", "projects/a", "projects/a/b"][self.rng.below(3)].to_string();
        let change = match self.rng.below(4) {
            0 => (QuotaKey::Running, Some(self.rng.between(0, 6))),
            1 => (QuotaKey::TokensTotal, Some(self.rng.between(0, 600))),
            2 => (QuotaKey::TokensMinute, Some(self.rng.between(30, 900))),
            _ => (QuotaKey::TokensTotal, None),
        };
        let request = self.request(0);
        Command::SetQuota { path, changes: vec![change], etag: None, reason: "sim".into(), request }
    }

    /// In the heal phase: lift every limit, then resume what people or errors hold.
    fn remedy(&mut self, who: usize) -> Option<Command> {
        if who != 0 {
            return None;
        }
        let limited = ["cluster", "projects/a", "projects/a/b"].into_iter().find(|path| {
            let row = self.cluster.truth.quota(path);
            row.is_some_and(|row| (row.running, row.tokens_total, row.tokens_minute) != (None, None, None))
        });
        if let Some(path) = limited {
            let changes = [QuotaKey::Running, QuotaKey::TokensTotal, QuotaKey::TokensMinute]
                .map(|key| (key, None))
                .to_vec();
            let (path, request) = (path.to_string(), self.request(who));
            return Some(Command::SetQuota { path, changes, etag: None, reason: "heal".into(), request });
        }
        let held = |state| matches!(state, TaskState::Paused(PauseReason::User | PauseReason::Error));
        let task = self.cluster.truth.tasks().find(|row| held(row.state))?.uid;
        Some(Command::ResumeTask { project: self.project(task), task, request: self.request(who) })
    }

    pub(crate) fn at_person(&mut self, who: usize, message: Message) {
        match message {
            Message::Answer { id, reply } => self.told(who, id, *reply),
            Message::Moved { leader: Some(leader) } if self.people[who].leader != leader => {
                self.people[who].leader = leader;
                if let Some(asked) = &self.people[who].open {
                    let (id, command) = (asked.id, asked.command.clone());
                    self.ask_coordinator(who, id, command);
                }
            }
            _ => {}
        }
    }

    fn told(&mut self, who: usize, id: u64, reply: Reply) {
        let Some(asked) = self.people[who].open.take_if(|asked| asked.id == id) else { return };
        if let (Command::CreateTask { request, .. }, Reply::Task(row)) = (&asked.command, &reply) {
            self.people[who].made.push(row.uid);
            self.oracle.acknowledged_task(request, row.uid);
        }
        if let (Command::PauseTask { .. }, Reply::Task(row)) = (&asked.command, &reply) {
            self.people[who].paused = Some(row.uid);
        }
        if let (Command::CancelTask { .. }, Reply::Task(row)) = (&asked.command, &reply)
            && row.state == TaskState::Cancelling
        {
            self.faults.cancels += 1;
            self.oracle.acknowledged_cancel(row.uid);
        }
    }

    pub(crate) fn all_answered(&self) -> bool {
        self.people.iter().all(|person| person.open.is_none())
    }
}

pub(crate) fn project(name: &str) -> ProjectName {
    ProjectName::parse(name).expect("a constant name")
}
