//! People: they create, cancel, pause and resume, one moves the budgets. Each asks again until answered, under the
//! same request id, and sometimes once more later, or with another body. In the heal phase they lift the limits and
//! resume what is paused.

use crate::clock::BEGAN_MS;
use crate::net::{Message, Peer};
use crate::sim::{Event, Sim};
use ledger::command::{Command, RequestKey};
use ledger::reply::Reply;
use ledger::rows::{InputRef, QuotaKey, QuotaRow, TaskRow};
use std::collections::VecDeque;
use types::{Class, Hash, PauseReason, ProjectName, TaskState, TaskUid};

#[derive(Default)]
pub(crate) struct Person {
    leader: usize,
    open: Option<Asked>,
    /// The newest requests that were answered with a yes.
    done: VecDeque<Command>,
    /// Paused or resumed a moment ago, and perhaps resumed or cancelled next: the worst moment for a holder who has not
    /// heard.
    grip: Option<(TaskUid, bool)>,
    /// Requests asked so far.
    count: u64,
}

struct Asked {
    id: u64,
    command: Command,
    asked_ms: u64,
}

pub(crate) const PEOPLE: usize = 4;
pub(crate) const PROJECTS: [&str; 3] = ["a", "a/b", "c"];
const PATHS: [&str; 4] = ["cluster", "projects/a", "projects/a/b", "projects/c"];
/// Far fewer than the ledger remembers.
const REMEMBERED: usize = 8;

impl Sim {
    /// Every twentieth of a second: ask something new, or again.
    pub(crate) fn person_tick(&mut self, who: usize) {
        self.after(50, Event::PersonTick { who });
        let now_ms = self.now_ms;
        let grips = self.people[who].grip.is_some();
        match &mut self.people[who].open {
            Some(asked) if now_ms >= asked.asked_ms + 500 => {
                asked.asked_ms = now_ms;
                let (id, command) = (asked.id, asked.command.clone());
                self.people[who].leader = (self.people[who].leader + 1) % crate::cluster::COORDINATORS;
                self.ask_coordinator(who, id, command);
            }
            Some(_) => {}
            None if self.chaos && (grips || self.rng.percent(18)) => {
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
        if let Some((task, paused)) = self.people[who].grip.take() {
            let (project, request) = (self.project(task), self.request(who));
            return match self.rng.below(10) {
                0..=3 => Command::CancelTask { project, task, request },
                4..=8 if paused => Command::ResumeTask { project, task, request },
                _ => self.new_task(who),
            };
        }
        match self.rng.below(20) {
            0 => self.about_a_task(who, |row| !row.state.is_final()),
            1 | 2 => self.about_a_task(who, |row| row.state == TaskState::Running),
            3 => self.about_a_task(who, |row| matches!(row.state, TaskState::Paused(_))),
            4 => self.about_a_task(who, |row| row.state == TaskState::Paused(PauseReason::Error)),
            5 => self.about_a_task(who, is_delicate),
            6 | 7 => self.repetition(who),
            8..=10 if who == 0 => self.budget(),
            _ => self.new_task(who),
        }
    }

    /// Cancels, pauses or resumes one of the newest tasks of a kind.
    fn about_a_task(&mut self, who: usize, suits: impl Fn(&TaskRow) -> bool) -> Command {
        let newest = self.cluster.truth.tasks().rev().take(120);
        let tasks: Vec<TaskUid> = newest.filter(|row| suits(row)).map(|row| row.uid).collect();
        if tasks.is_empty() {
            return self.new_task(who);
        }
        let task = tasks[self.rng.below(tasks.len())];
        let (project, request) = (self.project(task), self.request(who));
        match self.rng.below(5) {
            0 | 1 => Command::PauseTask { project, task, request },
            2 => Command::ResumeTask { project, task, request },
            _ => Command::CancelTask { project, task, request },
        }
    }

    fn project(&self, task: TaskUid) -> ProjectName {
        self.cluster.truth.task(task).map_or_else(ProjectName::default, |row| row.project.clone())
    }

    /// Something that was answered already, asked again; or another body under its request id.
    fn repetition(&mut self, who: usize) -> Command {
        let done = &self.people[who].done;
        if done.is_empty() {
            return self.new_task(who);
        }
        let at = self.rng.below(done.len());
        let mut command = self.people[who].done[at].clone();
        let rewrite = self.rng.percent(40);
        if let (true, Some(request)) = (rewrite, request_of_mut(&mut command)) {
            request.body = Hash::of(b"another body");
        }
        command
    }

    fn new_task(&mut self, who: usize) -> Command {
        let team = self.rng.percent(18);
        let name = PROJECTS[self.rng.below(PROJECTS.len())];
        let soon = self.rng.percent(12);
        let inputs = if team { 1 + self.rng.below(3) } else { 1 };
        let input =
            |n| InputRef { name: format!("input {n}").into(), segment: Hash::of(b"an input"), bytes: 8 };
        let home = self.home(who);
        Command::CreateTask {
            project: project(name),
            agent: if team { "team" } else { "reader" }.into(),
            inputs: (0..inputs).map(input).collect(),
            task_id: None,
            labels: vec![],
            class: Class::ALL[self.rng.below(4)],
            priority: self.rng.below(10) as u8,
            deadline_ms: if soon { BEGAN_MS + self.now_ms + self.rng.between(500, 6_000) } else { 0 },
            home,
            request: self.request(who),
            terms: None,
        }
    }

    /// Limits near what is used, so that cuts fall below it and raises free somebody.
    fn budget(&mut self) -> Command {
        let path = PATHS[self.rng.below(PATHS.len())];
        let row = self.cluster.truth.quota(path);
        let used = row.as_ref().map_or(0, |row| row.tokens_settled + row.tokens_reserved);
        let used_of_minute = row.as_ref().map_or(2_000, used_of_minute);
        let change = match self.rng.below(9) {
            0 | 1 => (QuotaKey::Running, Some(self.rng.between(0, 6))),
            2 => (QuotaKey::Running, None),
            3 => (QuotaKey::TokensTotal, Some(used.saturating_sub(self.rng.between(0, 300)))),
            4 => (QuotaKey::TokensTotal, Some(used + self.rng.between(0, 900))),
            5 => (QuotaKey::TokensMinute, Some(self.rng.between(1, used_of_minute.max(2)))),
            6 => (QuotaKey::TokensMinute, Some(self.rng.between(100, 3_000))),
            _ => (QuotaKey::TokensTotal, None),
        };
        let request = self.request(0);
        let path = path.to_string();
        Command::SetQuota { path, changes: vec![change], etag: None, reason: "sim".into(), request }
    }

    /// In the heal phase: lift every limit, then resume what people or errors hold.
    fn remedy(&mut self, who: usize) -> Option<Command> {
        if who != 0 {
            return None;
        }
        let limited = PATHS.into_iter().find(|path| {
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
        if matches!(reply, Reply::Refused(_)) {
            return;
        }
        match (&asked.command, &reply) {
            (Command::CreateTask { request, .. }, Reply::Task(row)) => {
                self.oracle.acknowledged_task(request, row.uid);
            }
            (Command::PauseTask { .. }, Reply::Task(row)) => self.people[who].grip = Some((row.uid, true)),
            (Command::ResumeTask { .. }, Reply::Task(row)) if self.chaos => {
                self.people[who].grip = Some((row.uid, false));
            }
            (Command::CancelTask { .. }, Reply::Task(row)) if row.state == TaskState::Cancelling => {
                self.oracle.acknowledged_cancel(row.uid);
            }
            _ => {}
        }
        let done = &mut self.people[who].done;
        done.push_back(asked.command);
        if done.len() > REMEMBERED {
            done.pop_front();
        }
    }

    pub(crate) fn all_answered(&self) -> bool {
        self.people.iter().all(|person| person.open.is_none())
    }
}

/// Somebody may be at work on it without a lease, or below it.
fn is_delicate(row: &TaskRow) -> bool {
    let quiet = matches!(row.state, TaskState::Pending | TaskState::Paused(_));
    quiet && (!row.unaware.is_empty() || row.children_open > 0)
}

fn used_of_minute(row: &QuotaRow) -> u64 {
    row.tokens_minute.map_or(2_000, |limit| limit.saturating_sub(row.bucket_millitokens / 1_000))
}

/// The request behind a command of a person.
pub(crate) fn request_of(command: &Command) -> Option<&RequestKey> {
    match command {
        Command::CreateTask { request, .. }
        | Command::CancelTask { request, .. }
        | Command::PauseTask { request, .. }
        | Command::ResumeTask { request, .. }
        | Command::SetQuota { request, .. } => Some(request).filter(|request| !request.request_id.is_empty()),
        _ => None,
    }
}

fn request_of_mut(command: &mut Command) -> Option<&mut RequestKey> {
    match command {
        Command::CreateTask { request, .. }
        | Command::CancelTask { request, .. }
        | Command::PauseTask { request, .. }
        | Command::ResumeTask { request, .. }
        | Command::SetQuota { request, .. } => Some(request),
        _ => None,
    }
}

pub(crate) fn project(name: &str) -> ProjectName {
    ProjectName::parse(name).expect("a constant name")
}
