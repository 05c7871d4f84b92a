//! Cancel, pause, resume, and the end of patience. A cancel reaches the whole tree: what holds no lease ends at once,
//! what holds one is CANCELLING until its holder confirmed or its lease ended, and a parent waits for everything
//! below it. So CANCELLED is a proof: nothing of the tree starts any more.

use crate::change::{Change, invalid};
use crate::command::RequestKey;
use crate::effect::Effect;
use crate::reply::{Refusal, Reply};
use crate::requests::Memory;
use crate::rows::{Holder, TaskRow};
use types::{Epoch, PauseReason, ProjectName, TaskState, TaskUid};

/// The reason of a task whose deadline passed: its end is EXPIRED and not CANCELLED.
pub(crate) const DEADLINE: &str = "deadline";

/// Former holders who do not know yet; each answers, or is lost within its node's lease.
const UNAWARE_HOLDERS: usize = 8;

type Outcome = Result<Reply, Refusal>;

pub(crate) fn cancel(
    change: &mut Change<'_>,
    project: &ProjectName,
    uid: TaskUid,
    request: &RequestKey,
) -> Outcome {
    once(change, project, uid, request, |change| {
        change.stop(uid, "user");
        Ok(())
    })
}

/// Paused tasks keep what they have; a running one loses its lease at once and its holder is told.
pub(crate) fn pause(
    change: &mut Change<'_>,
    project: &ProjectName,
    uid: TaskUid,
    request: &RequestKey,
) -> Outcome {
    once(change, project, uid, request, |change| match change.row(uid).state {
        TaskState::Paused(PauseReason::User) => Ok(()),
        TaskState::Running | TaskState::WaitingTool if change.row(uid).unaware.len() >= UNAWARE_HOLDERS => {
            Err(invalid(
                "task",
                "was paused too often in a row, its former holders have not answered yet; wait a moment",
            ))
        }
        TaskState::Pending
        | TaskState::Running
        | TaskState::WaitingTool
        | TaskState::WaitingInput
        | TaskState::Paused(_) => {
            revoke(change, uid);
            change.enter(uid, TaskState::Paused(PauseReason::User), "user");
            Ok(())
        }
        other => Err(wrong_state(other)),
    })
}

pub(crate) fn resume(
    change: &mut Change<'_>,
    project: &ProjectName,
    uid: TaskUid,
    request: &RequestKey,
) -> Outcome {
    once(change, project, uid, request, |change| match change.row(uid).state {
        TaskState::Paused(_) => {
            change.update(uid, |row| row.error = None);
            change.enter(uid, TaskState::Pending, "resumed");
            Ok(())
        }
        state if state.is_final() || state == TaskState::Cancelling => Err(wrong_state(state)),
        _ => Ok(()),
    })
}

pub(crate) fn wrong_state(state: TaskState) -> Refusal {
    Refusal::WrongState { state: state.name().to_string() }
}

/// Finds the task in its project, does the work once for each request id, and answers with the task as it is now.
fn once(
    change: &mut Change<'_>,
    project: &ProjectName,
    uid: TaskUid,
    request: &RequestKey,
    work: impl FnOnce(&mut Change<'_>) -> Result<(), Refusal>,
) -> Outcome {
    let scope = format!("projects/{project}");
    if let Some(reply) = change.recall(request, &scope)? {
        return Ok(reply);
    }
    if change.find(uid)?.project != *project {
        return Err(crate::change::not_found("task", &uid.to_string()));
    }
    work(change)?;
    change.remember(request, &scope, Memory::Task(uid));
    Ok(Reply::Task(Box::new(change.row(uid).clone())))
}

/// Asks a running task to make room. Another lease than the one meant is left alone.
pub(crate) fn preempt(change: &mut Change<'_>, uid: TaskUid, epoch: Epoch, grace_ms: u64) -> Outcome {
    let row = change.find(uid)?;
    if row.state == TaskState::Running && row.epoch == Some(epoch) && row.yield_by_ms.is_none() {
        let by_ms = change.state.ledger_ms().saturating_add(grace_ms);
        change.update(uid, |row| row.yield_by_ms = Some(by_ms));
    }
    Ok(Reply::Done)
}

/// Ends a lease that its holder does not know to be over.
fn revoke(change: &mut Change<'_>, uid: TaskUid) {
    if let Some((project, node, epoch)) = lease_of(change.row(uid)) {
        change.end_lease(uid);
        change.update(uid, |row| row.unaware.push(Holder { node, epoch }));
        change.effect(Effect::Revoked { project, task: uid, node, epoch });
    }
}

fn lease_of(row: &TaskRow) -> Option<(ProjectName, types::NodeId, types::Epoch)> {
    Some((row.project.clone(), row.node?, row.epoch?))
}

impl Change<'_> {
    /// A step is committed and the task goes on, but for one that was asked to make room.
    pub(crate) fn go_on(&mut self, uid: TaskUid) {
        if self.row(uid).aside.is_some() {
            return self.come_back(uid);
        }
        let row = self.row(uid);
        if row.state == TaskState::Running && row.yield_by_ms.is_some() {
            self.make_room(uid);
        }
    }

    /// A running task goes back to the queue and its holder is told.
    pub(crate) fn make_room(&mut self, uid: TaskUid) {
        // Too many holders who haven't answered yet: it keeps its lease until they have.
        if self.row(uid).unaware.len() >= UNAWARE_HOLDERS {
            return self.update(uid, |row| row.yield_by_ms = None);
        }
        revoke(self, uid);
        self.enter(uid, TaskState::Pending, "preempted");
    }

    /// The task waits for its tools: its lease stays, its slot is for others.
    pub(crate) fn step_aside(&mut self, uid: TaskUid) {
        // Whom it is to make room for needs no room now: it goes when its tools are done.
        if self.row(uid).aside.is_none() {
            self.give_slot_back(uid);
            self.update(uid, |row| row.aside = Some(true));
        }
        if self.row(uid).state != TaskState::WaitingTool {
            self.enter(uid, TaskState::WaitingTool, "tools");
        }
    }

    /// Its tools are done: it takes a slot where one is free under every limit, else it waits in the queue like all.
    fn come_back(&mut self, uid: TaskUid) {
        let row = self.row(uid).clone();
        if row.state == TaskState::Cancelling {
            return;
        }
        if row.yield_by_ms.is_some() {
            return self.make_room(uid);
        }
        if self.state.check_slot(&row).is_err() && row.unaware.len() < UNAWARE_HOLDERS {
            revoke(self, uid);
            return self.enter(uid, TaskState::Pending, "tools-done");
        }
        self.update(uid, |row| row.aside = None);
        let row = self.row(uid).clone();
        self.state.take_slot(&row);
        self.start_of(row.class);
        self.charge(uid);
        self.enter(uid, TaskState::Running, "tools-done");
    }

    /// What waits for a task that ended: ready where it succeeded, stopped where it did not.
    pub(crate) fn tell_followers(&mut self, uid: TaskUid, state: TaskState) {
        let followers = self.state.tasks.index().waiting_for.get(&uid).cloned().unwrap_or_default();
        for follower in followers {
            if state == TaskState::Succeeded {
                self.ready(follower, |row| {
                    row.after.as_mut().into_iter().for_each(|after| after.retain(|other| *other != uid));
                    row.after.take_if(|after| after.is_empty());
                });
            } else {
                self.stop(follower, "dependency-failed");
            }
        }
    }

    /// Something a pending task waited for is there; when it was the last, the task enters the queue.
    pub(crate) fn ready(&mut self, uid: TaskUid, change: impl FnOnce(&mut TaskRow)) {
        let project = self.row(uid).project.clone();
        let pending = self.row(uid).state == TaskState::Pending;
        self.state.lift_idle(&project);
        let waits = self.update(uid, |row| {
            change(row);
            row.after.is_some() || row.not_before_ms.is_some()
        });
        if pending && !waits {
            self.enter(uid, TaskState::Pending, "ready");
        }
    }

    /// Stops a task and everything below it. No effect on a task that is final or stopping already.
    pub(crate) fn stop(&mut self, uid: TaskUid, reason: &str) {
        let row = self.row(uid);
        if row.state.is_final() || row.state == TaskState::Cancelling {
            return;
        }
        let (children, open) = (row.children.clone(), row.children_open);
        self.call_back(uid);
        let lease = lease_of(self.row(uid));
        if lease.is_none() && open == 0 {
            return self.finish(uid, stopped_state(reason), reason);
        }
        self.enter(uid, TaskState::Cancelling, reason);
        if let Some((project, node, epoch)) = lease {
            self.effect(Effect::Stop { project, task: uid, node, epoch });
        }
        for child in children {
            self.stop(child, reason);
        }
    }

    /// The holder of a CANCELLING task confirmed, or its lease ended.
    pub(crate) fn confirm_stop(&mut self, uid: TaskUid) {
        self.end_lease(uid);
        self.call_back(uid);
        if let Some((project, node, epoch)) = lease_of(self.row(uid)) {
            return self.effect(Effect::Stop { project, task: uid, node, epoch });
        }
        if self.row(uid).children_open == 0 {
            self.finish_stop(uid);
        }
    }

    /// The lease of an earlier holder who may not know that it is over stands again, until it says that it stopped.
    /// It allows nothing and takes no slot.
    fn call_back(&mut self, uid: TaskUid) {
        self.update(uid, |row| {
            if let (None, Some(holder)) = (row.epoch, row.unaware.first().copied()) {
                row.node = Some(holder.node);
                row.epoch = Some(holder.epoch);
            }
        });
    }

    /// A former holder came with its old epoch: it hears that it is over, and starts nothing more.
    pub(crate) fn made_aware(&mut self, uid: TaskUid, holder: Holder) {
        if !self.row(uid).unaware.contains(&holder) {
            return;
        }
        if self.row(uid).epoch == Some(holder.epoch) {
            return self.confirm_stop(uid);
        }
        self.update(uid, |row| row.unaware.retain(|other| *other != holder));
    }

    pub(crate) fn finish_stop(&mut self, uid: TaskUid) {
        let reason = self.row(uid).reason.clone();
        self.finish(uid, stopped_state(&reason), &reason);
    }
}

fn stopped_state(reason: &str) -> TaskState {
    if reason == DEADLINE { TaskState::Expired } else { TaskState::Cancelled }
}
