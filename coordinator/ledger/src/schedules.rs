//! Tasks that are created again and again. When one is due next is worked out by the leader, which can read a calendar;
//! here it is only a time, and each time fires once, whoever leads.

use crate::change::{Change, check_name, check_text, invalid, not_found};
use crate::command::RequestKey;
use crate::create::{NewTask, task};
use crate::reply::{Refusal, Reply};
use crate::requests::Memory;
use crate::rows::InputRef;
use crate::state::State;
use minicbor::{Decode, Encode};
use types::{Class, Hash, NodeId, ProjectName, TaskUid, limits};

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ScheduleRow {
    #[n(0)]
    pub project: ProjectName,
    #[n(1)]
    pub name: String,
    /// Minute, hour, day of the month, month, day of the week, in UTC.
    #[n(2)]
    pub cron: String,
    #[n(3)]
    pub agent: String,
    #[n(4)]
    pub inputs: Vec<InputRef>,
    #[n(5)]
    pub class: Class,
    #[n(6)]
    pub priority: u8,
    /// Nodes that hold the inputs.
    #[n(7)]
    pub home: Vec<NodeId>,
    /// When it is due, Unix milliseconds; 0: never again.
    #[n(8)]
    pub next_ms: u64,
    #[n(9)]
    pub last_task: Option<TaskUid>,
    /// Why the last time made no task; empty when it made one.
    #[n(10)]
    pub last_error: String,
    #[n(11)]
    pub fired: u64,
    #[n(12)]
    pub author: String,
}

/// Puts a schedule, in place of the one that had its name.
pub(crate) fn set(
    change: &mut Change<'_>,
    row: &ScheduleRow,
    request: &RequestKey,
) -> Result<Reply, Refusal> {
    let scope = format!("projects/{}", row.project);
    if let Some(reply) = change.recall(request, &scope)? {
        return Ok(reply);
    }
    check_name("schedule", &row.name)?;
    check_text("cron", &row.cron)?;
    if row.priority > 9 {
        return Err(invalid("priority", format!("is {}; it goes from 0 to 9, higher first", row.priority)));
    }
    if row.inputs.len() > limits::TASK_INPUTS {
        return Err(invalid(
            "inputs",
            format!("{} given, at most {}", row.inputs.len(), limits::TASK_INPUTS),
        ));
    }
    if change.state.agent(&row.project, &row.agent).is_none() {
        return Err(not_found("agent", &row.agent));
    }
    let home = change.durable_home(&row.home)?;
    let key = (row.project.clone(), row.name.clone());
    let known = change.state.schedules.contains(&key);
    if !known && change.state.schedules_of(&row.project).count() >= limits::SCHEDULES_PER_PROJECT {
        return Err(invalid(
            "schedule",
            format!("the project has {} already", limits::SCHEDULES_PER_PROJECT),
        ));
    }
    let row = ScheduleRow { home, author: request.author.clone(), ..row.clone() };
    change.state.schedules.insert(key, row.clone());
    change.audit(&request.author, "schedule.set", &row.name, &row.cron, "");
    let reply = Reply::Schedule(Box::new(row));
    change.remember(request, &scope, Memory::Reply(Box::new(reply.clone())));
    Ok(reply)
}

pub(crate) fn drop(
    change: &mut Change<'_>,
    project: &ProjectName,
    name: &str,
    request: &RequestKey,
) -> Result<Reply, Refusal> {
    let scope = format!("projects/{project}");
    if let Some(reply) = change.recall(request, &scope)? {
        return Ok(reply);
    }
    let removed = change.state.schedules.remove(&(project.clone(), name.to_string()));
    removed.ok_or_else(|| not_found("schedule", name))?;
    change.audit(&request.author, "schedule.drop", name, "", "");
    change.remember(request, &scope, Memory::Reply(Box::new(Reply::Done)));
    Ok(Reply::Done)
}

/// Makes the task of a time that has come. A time that is not the row's makes none.
pub(crate) fn fire(
    change: &mut Change<'_>,
    project: &ProjectName,
    name: &str,
    due_ms: u64,
    next_ms: u64,
) -> Result<Reply, Refusal> {
    let key = (project.clone(), name.to_string());
    let row = change.state.schedules.get(&key).cloned().ok_or_else(|| not_found("schedule", name))?;
    if row.next_ms != due_ms || due_ms == 0 || due_ms > change.state.wall_ms() {
        return Ok(Reply::Done);
    }
    let request_id = format!("{name}/{due_ms}");
    let request =
        RequestKey { author: row.author.clone(), body: Hash::of(request_id.as_bytes()), request_id };
    let labels = [("schedule".to_string(), name.to_string())];
    let made = task(
        change,
        &NewTask {
            project,
            agent: &row.agent,
            inputs: &row.inputs,
            task_id: &None,
            labels: &labels,
            class: row.class,
            priority: row.priority,
            deadline_ms: 0,
            home: &row.home,
            request: &request,
            terms: None,
        },
    );
    change.state.schedules.update(&key, |row| {
        row.next_ms = next_ms;
        row.fired += 1;
        (row.last_task, row.last_error) = match &made {
            Ok(Reply::Task(task)) => (Some(task.uid), String::new()),
            Ok(_) => (row.last_task, String::new()),
            Err(refusal) => (row.last_task, shortened(refusal.to_string())),
        };
    });
    made
}

fn shortened(text: String) -> String {
    text.chars().take(limits::NAME_BYTES).collect()
}

impl State {
    pub(crate) fn schedules_of(&self, project: &ProjectName) -> impl Iterator<Item = &ScheduleRow> {
        let from = (project.clone(), String::new());
        let project = project.clone();
        self.schedules.range(from..).map(|(_, row)| row).take_while(move |row| row.project == project)
    }

    /// Schedules whose time has come.
    pub fn schedules_due(&self, wall_ms: u64) -> impl Iterator<Item = &ScheduleRow> {
        self.schedules.values().filter(move |row| row.next_ms > 0 && row.next_ms <= wall_ms)
    }
}
