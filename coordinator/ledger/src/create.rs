//! New tasks: asked for by people, or spawned by a running task.

use crate::change::{Change, check_name, check_text, invalid, not_found};
use crate::command::{ChildSpec, RequestKey, Terms};
use crate::reply::{Refusal, Reply};
use crate::rows::{AgentRow, Fork, InputRef, Nodes, Origin, Seldom, TaskRow};
use crate::state::State;
use crate::steps::{Lease, Stale};
use crate::stop::wrong_state;
use types::{Class, NodeId, ProjectName, TaskState, TaskUid, limits};

type Outcome = Result<Reply, Refusal>;

pub(crate) struct NewTask<'a> {
    pub project: &'a ProjectName,
    pub agent: &'a str,
    pub inputs: &'a [InputRef],
    pub task_id: &'a Option<String>,
    pub labels: &'a [(String, String)],
    pub class: Class,
    pub priority: u8,
    pub deadline_ms: u64,
    pub home: &'a [NodeId],
    pub request: &'a RequestKey,
    pub terms: Option<&'a Terms>,
}

pub(crate) fn task(change: &mut Change<'_>, new: &NewTask<'_>) -> Outcome {
    crate::requests::check(new.request)?;
    if let Some(reply) = repeated(change.state, new)? {
        return Ok(reply);
    }
    check_new(change.state, new)?;
    let agent = find_agent(change.state, new.project, new.agent)?;
    change.durable_home(new.home)?;
    let not_before_ms = new.terms.map(|terms| terms.not_before_ms);
    let after = new.terms.map(|terms| unfinished(change.state, &terms.after));
    let row = TaskRow {
        task_id: new.task_id.as_deref().map(Into::into),
        inputs: new.inputs.into(),
        labels: new.labels.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect(),
        class: new.class,
        priority: new.priority,
        author: (&new.request.author).into(),
        deadline_ms: new.deadline_ms,
        request_id: new.request.request_id.as_str().into(),
        body: new.request.body,
        rare: Seldom {
            not_before_ms: not_before_ms.filter(|ms| *ms > change.state.wall_ms()),
            after: after.filter(|after| !after.is_empty()),
            needs: agent.needs.clone(),
            ..Seldom::default()
        }
        .into(),
        ..blank(change, change.place.uid(0), &agent, new.home)
    };
    let uid = insert(change, row);
    if let Some(terms) = new.terms {
        crate::quota::limit_task(change, uid, &terms.limits)?;
        go_on_from(change, uid, terms.fork.as_ref());
    }
    Ok(Reply::Task(Box::new(change.row(uid).clone())))
}

/// The first steps of the other task are this one's: they are paid for, and neither repeated nor counted.
fn go_on_from(change: &mut Change<'_>, uid: TaskUid, fork: Option<&Fork>) {
    let Some(fork) = fork else { return };
    let other = change.row(fork.task).clone();
    change.update(uid, |row| {
        // The other task's revision, too: its journal was decided by it.
        (row.kind, row.model, row.needs) = (other.kind, other.model.clone(), other.needs.clone());
        (row.revision, row.definition) = (other.revision.clone(), other.definition.clone());
        row.background = other.background.clone();
        (row.step, row.head) = (fork.step, fork.head);
        row.fork = Some(Box::new(fork.clone()));
    });
}

/// The task that this request made before, if it did.
fn repeated(state: &State, new: &NewTask<'_>) -> Result<Option<Reply>, Refusal> {
    let request = new.request;
    let made = state.tasks.by_request(new.project, &request.author, &request.request_id);
    let Some(row) = made else { return Ok(None) };
    if row.body != request.body {
        return Err(Refusal::RequestIdReused { request_id: request.request_id.clone() });
    }
    Ok(Some(Reply::Task(Box::new(row.clone()))))
}

fn check_new(state: &State, new: &NewTask<'_>) -> Result<(), Refusal> {
    check_inputs(new.inputs)?;
    check_labels(new.labels)?;
    check_priority(new.priority)?;
    if let Some(task_id) = new.task_id {
        check_task_id(state, new.project, task_id)?;
    }
    if let Some(terms) = new.terms {
        check_terms(state, new.project, terms)?;
    }
    check_room(state, new.project, 1)
}

fn check_priority(priority: u8) -> Result<(), Refusal> {
    match priority <= 9 {
        true => Ok(()),
        false => Err(invalid("priority", format!("is {priority}; it goes from 0 to 9, higher first"))),
    }
}

fn check_terms(state: &State, project: &ProjectName, terms: &Terms) -> Result<(), Refusal> {
    crate::quota::check_task_limits(&terms.limits)?;
    if let Some(fork) = &terms.fork {
        check_fork(state, project, fork)?;
    }
    if terms.after.len() > limits::TASK_AFTER {
        return Err(invalid("after", format!("{} given, at most {}", terms.after.len(), limits::TASK_AFTER)));
    }
    for uid in &terms.after {
        let row = state.task(*uid).filter(|row| row.project == *project);
        let row = row.ok_or_else(|| not_found("task", &uid.to_string()))?;
        let failed = row.state.is_final() && row.state != TaskState::Succeeded;
        if failed || row.state == TaskState::Cancelling {
            return Err(invalid("after", format!("{uid} is {} and will not succeed", row.state.name())));
        }
    }
    Ok(())
}

fn check_fork(state: &State, project: &ProjectName, fork: &Fork) -> Result<(), Refusal> {
    let row = state.task(fork.task).filter(|row| row.project == *project);
    let row = row.ok_or_else(|| not_found("task", &fork.task.to_string()))?;
    if fork.step > row.step {
        return Err(invalid("fork", format!("{} is at step {}, not at {}", fork.task, row.step, fork.step)));
    }
    if fork.head.is_none() != (fork.step == 0) {
        return Err(invalid("fork", "a step has a record, and the beginning has none"));
    }
    Ok(())
}

/// Those of the tasks that have not succeeded yet, each once.
fn unfinished(state: &State, after: &[TaskUid]) -> Vec<TaskUid> {
    let open = |uid: &&TaskUid| state.task(**uid).is_some_and(|row| row.state != TaskState::Succeeded);
    let open: std::collections::BTreeSet<TaskUid> = after.iter().filter(open).copied().collect();
    open.into_iter().collect()
}

fn check_inputs(inputs: &[InputRef]) -> Result<(), Refusal> {
    if inputs.len() > limits::TASK_INPUTS {
        return Err(invalid("inputs", format!("{} given, at most {}", inputs.len(), limits::TASK_INPUTS)));
    }
    inputs.iter().try_for_each(|input| check_text("input name", &input.name))
}

fn check_labels(labels: &[(String, String)]) -> Result<(), Refusal> {
    if labels.len() > limits::TASK_LABELS {
        return Err(invalid("labels", format!("{} given, at most {}", labels.len(), limits::TASK_LABELS)));
    }
    for (i, (key, value)) in labels.iter().enumerate() {
        check_name("label", key)?;
        check_text("label value", value)?;
        if labels[..i].iter().any(|(earlier, _)| earlier == key) {
            return Err(invalid("labels", format!("{key:?} is given twice")));
        }
    }
    Ok(())
}

fn check_task_id(state: &State, project: &ProjectName, task_id: &str) -> Result<(), Refusal> {
    check_name("task_id", task_id)?;
    if task_id.starts_with("t_") {
        return Err(invalid("task_id", "must not begin with t_, which is how uids begin"));
    }
    match state.tasks.by_task_id(project, task_id) {
        Some(row) => Err(Refusal::TaskIdTaken { task_id: task_id.to_string(), task: row.uid }),
        None => Ok(()),
    }
}

fn check_room(state: &State, project: &ProjectName, more: usize) -> Result<(), Refusal> {
    let held = state.tasks.index().by_project.get(project).map_or(0, |uids| uids.len());
    if held + more > limits::TASKS_PER_PROJECT {
        let why = format!(
            "holds {held} tasks of at most {}; finished ones leave after {} days",
            limits::TASKS_PER_PROJECT,
            limits::FINISHED_MS / 86_400_000
        );
        return Err(invalid("project", why));
    }
    Ok(())
}

fn find_agent(state: &State, project: &ProjectName, name: &str) -> Result<AgentRow, Refusal> {
    state.agent(project, name).cloned().ok_or_else(|| not_found("agent", name))
}

/// A fresh row of the agent's revision in force. The definition is pulled from where the agent is kept, so those
/// nodes are part of the first home set.
fn blank(change: &Change<'_>, uid: TaskUid, agent: &AgentRow, home: &[NodeId]) -> TaskRow {
    let keepers: Vec<NodeId> = home.iter().chain(&agent.home).copied().collect();
    let keepers = Nodes::from(change.members(&keepers));
    TaskRow {
        uid,
        project: agent.project.clone(),
        agent: (&agent.name).into(),
        kind: agent.kind,
        model: (&agent.model).into(),
        revision: agent.revision.into(),
        definition: agent.definition.into(),
        created_ms: change.state.wall_ms(),
        home: keepers.clone(),
        queued_ms: change.state.ledger_ms(),
        keepers,
        ..TaskRow::empty()
    }
}

fn insert(change: &mut Change<'_>, row: TaskRow) -> TaskUid {
    let (uid, waits) = (row.uid, row.not_before_ms.is_some() || row.after.is_some());
    if !waits {
        change.state.lift_idle(&row.project);
    }
    change.state.tasks.insert(row);
    change.enter(uid, TaskState::Pending, if waits { "scheduled" } else { "created" });
    uid
}

pub(crate) struct Brood<'a> {
    pub lease: Lease,
    pub step: u64,
    pub children: &'a [ChildSpec],
}

/// Children belong to (parent, step, index): spawning again gives the ones that are there and makes only what is
/// missing.
pub(crate) fn spawn(change: &mut Change<'_>, brood: &Brood<'_>) -> Outcome {
    let parent = brood.lease.task;
    change.check_lease(brood.lease, Stale::Spawn)?;
    let row = change.row(parent).clone();
    if row.state == TaskState::Cancelling {
        return Err(wrong_state(row.state));
    }
    let known = known_children(change.state, &row, brood.step);
    let missing: Vec<u32> =
        (0u32..brood.children.len() as u32).filter(|i| !known.iter().any(|k| k.0 == *i)).collect();
    check_brood(change.state, &row, brood, missing.len())?;
    let agents = missing_agents(change.state, &row.project, brood.children, &missing)?;
    let mut uids = known;
    for (index, agent) in missing.into_iter().zip(agents) {
        uids.push((index, bear(change, &row, brood, index, &agent)));
    }
    uids.sort_unstable();
    uids.retain(|(index, _)| (*index as usize) < brood.children.len());
    Ok(Reply::Children(uids.into_iter().map(|(_, uid)| uid).collect()))
}

/// Index and uid of the children that a step of the parent has already.
fn known_children(state: &State, parent: &TaskRow, step: u64) -> Vec<(u32, TaskUid)> {
    let origins = parent.children.iter().filter_map(|uid| Some((state.task(*uid)?.origin?, *uid)));
    origins.filter(|(origin, _)| origin.step == step).map(|(origin, uid)| (origin.index, uid)).collect()
}

fn check_brood(state: &State, parent: &TaskRow, brood: &Brood<'_>, missing: usize) -> Result<(), Refusal> {
    if missing > 0 && brood.step != parent.step + 1 {
        let why = format!("is {}, but the task's next step is {}", brood.step, parent.step + 1);
        return Err(invalid("step", why));
    }
    if parent.children.len() + missing > limits::TASK_CHILDREN {
        let why =
            format!("{} there, {missing} more, at most {}", parent.children.len(), limits::TASK_CHILDREN);
        return Err(invalid("children", why));
    }
    if missing > 0 && parent.depth + 1 > limits::TASK_DEPTH {
        return Err(invalid("depth", format!("children may not be deeper than {}", limits::TASK_DEPTH)));
    }
    brood.children.iter().try_for_each(check_child)?;
    check_room(state, &parent.project, missing)
}

fn check_child(child: &ChildSpec) -> Result<(), Refusal> {
    if child.background.len() > limits::TASK_INPUTS {
        return Err(invalid(
            "background",
            format!("{} given, at most {}", child.background.len(), limits::TASK_INPUTS),
        ));
    }
    if let Some(limits) = &child.limits {
        crate::quota::check_task_limits(limits)?;
    }
    check_priority(child.priority.unwrap_or(0))?;
    check_inputs(&child.inputs)
}

fn missing_agents(
    state: &State,
    project: &ProjectName,
    children: &[ChildSpec],
    missing: &[u32],
) -> Result<Vec<AgentRow>, Refusal> {
    missing.iter().map(|index| find_agent(state, project, &children[*index as usize].agent)).collect()
}

fn bear(
    change: &mut Change<'_>,
    parent: &TaskRow,
    brood: &Brood<'_>,
    index: u32,
    agent: &AgentRow,
) -> TaskUid {
    let spec = &brood.children[index as usize];
    // A child without a home of its own was cut from what its parent has.
    let home: &[NodeId] = if spec.home.is_empty() { &parent.home } else { &spec.home };
    let row = TaskRow {
        inputs: spec.inputs.as_slice().into(),
        labels: parent.labels.clone(),
        class: parent.class,
        priority: spec.priority.unwrap_or(parent.priority),
        author: parent.author.clone(),
        rare: Seldom {
            background: spec.background.clone(),
            origin: Some(Origin { parent: parent.uid, step: brood.step, index }),
            depth: parent.depth + 1,
            needs: agent.needs.clone(),
            together: spec.together.filter(|together| *together),
            ..Seldom::default()
        }
        .into(),
        ..blank(change, change.place.uid(index), agent, home)
    };
    let uid = insert(change, row);
    // Checked before; what a child may use stays within its parent's places, which it counts against, too.
    if let Some(limits) = &spec.limits {
        let limited = crate::quota::limit_task(change, uid, limits);
        debug_assert!(limited.is_ok(), "limits are checked before any child is born");
    }
    change.update(parent.uid, |row| {
        row.children.push(uid);
        row.children_open += 1;
    });
    uid
}
