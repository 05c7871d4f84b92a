//! One command at work: the state, the command's place in the log, and the effects so far. The moves that several
//! commands share are here: entering a state, ending a lease, closing a task.

use crate::effect::Effect;
use crate::keys::Amounts;
use crate::reply::Refusal;
use crate::rows::{Event, EventKind, TaskRow};
use crate::state::{Place, State};
use types::{NodeId, TaskState, TaskUid, limits};

pub(crate) struct Change<'a> {
    pub state: &'a mut State,
    pub place: Place,
    effects: Vec<Effect>,
    replan: bool,
}

/// More nodes than this are not written into a home set.
const HOME_NODES: usize = 8;

impl<'a> Change<'a> {
    pub(crate) fn new(state: &'a mut State, place: Place) -> Self {
        Change { state, place, effects: Vec::new(), replan: false }
    }

    pub(crate) fn into_effects(mut self) -> Vec<Effect> {
        if self.replan {
            self.effects.push(Effect::Replan);
        }
        self.effects
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Something may start now. Said once a command, however often it is true.
    pub(crate) fn replan(&mut self) {
        self.replan = true;
    }

    pub(crate) fn find(&self, uid: TaskUid) -> Result<&TaskRow, Refusal> {
        self.state.task(uid).ok_or_else(|| not_found("task", &uid.to_string()))
    }

    /// A row that is known to exist.
    pub(crate) fn row(&self, uid: TaskUid) -> &TaskRow {
        self.state.task(uid).expect("the task's row exists")
    }

    /// Changes a row that is known to exist.
    pub(crate) fn update<R>(&mut self, uid: TaskUid, change: impl FnOnce(&mut TaskRow) -> R) -> R {
        self.state.tasks.update(uid, change).expect("the task's row exists")
    }

    /// Moves a task into a state and says so in its events.
    pub(crate) fn enter(&mut self, uid: TaskUid, state: TaskState, reason: &str) {
        let clock = self.state.clock();
        let row = self.row(uid);
        if state == TaskState::Pending && !matches!(row.state, TaskState::Pending | TaskState::Running) {
            let project = row.project.clone();
            self.state.lift_idle(&project);
        }
        let (node, epoch) = self.update(uid, |row| {
            row.state = state;
            row.reason = reason.into();
            if state == TaskState::Pending {
                row.queued_ms = clock.ledger_ms;
            }
            if state.is_final() {
                row.ended_ms = clock.wall_ms;
            }
            (row.node, row.epoch)
        });
        self.emit(uid, EventKind::State { state, reason: reason.to_string(), node, epoch });
        if state == TaskState::Pending {
            self.replan();
        }
    }

    /// Numbers an event, keeps it, and drops the one that is too old.
    pub(crate) fn emit(&mut self, uid: TaskUid, kind: EventKind) {
        let at_ms = self.state.wall_ms();
        let sequence = self.update(uid, |row| {
            row.sequence += 1;
            row.sequence
        });
        let event = Event { sequence, at_ms, kind };
        self.state.tasks.push_event(uid, &event);
        if let Some(old) = sequence.checked_sub(limits::EVENTS_PER_TASK as u64).filter(|old| *old > 0) {
            self.state.tasks.forget_events(uid, old);
        }
        self.effect(Effect::Event { task: uid, event });
    }

    /// Takes the lease and the running slot back, and what the lease had set aside. No effect when none is held.
    pub(crate) fn end_lease(&mut self, uid: TaskUid) {
        self.give_back_reserved(uid, Amounts::NONE);
        let row = self.row(uid);
        if row.epoch.is_none() {
            return;
        }
        if stands_again(row) {
            self.update(uid, |row| {
                let over = row.epoch;
                row.unaware.retain(|holder| over != Some(holder.epoch));
            });
        } else {
            self.give_slot_back(uid);
        }
        self.update(uid, |row| {
            row.node = None;
            row.epoch = None;
            row.aside = None;
            row.yield_by_ms = None;
        });
    }

    /// What a lease holds goes back, the lease stays. No effect when it holds nothing.
    pub(crate) fn give_slot_back(&mut self, uid: TaskUid) {
        let row = self.row(uid).clone();
        if holds_slot(&row) {
            self.state.free_slot(&row);
            self.refund(uid);
            self.replan();
        }
    }

    /// Ends a task for good. Children that are still open are stopped: their result has no reader any more.
    pub(crate) fn finish(&mut self, uid: TaskUid, state: TaskState, reason: &str) {
        self.enter(uid, state, reason);
        self.tell_followers(uid, state);
        let open: Vec<TaskUid> =
            if self.row(uid).children_open > 0 { self.row(uid).children.clone() } else { vec![] };
        if open.is_empty() {
            return self.close(uid);
        }
        for child in open {
            self.stop(child, "parent-ended");
        }
    }

    /// A task is closed when it and everything below it is final. Its parent counts it until then, so a parent that
    /// is CANCELLED has nothing left that could start.
    pub(crate) fn close(&mut self, uid: TaskUid) {
        let row = self.row(uid);
        let (true, 0, Some(origin)) = (row.state.is_final(), row.children_open, row.origin) else { return };
        let parent = origin.parent;
        let (state, open, leased) = self.update(parent, |row| {
            row.children_open -= 1;
            (row.state, row.children_open, row.epoch.is_some())
        });
        if open > 0 {
            return;
        }
        if state == TaskState::WaitingChild {
            self.enter(parent, TaskState::Pending, "children-final");
        } else if state == TaskState::Cancelling && !leased {
            self.finish_stop(parent);
        } else if state.is_final() {
            self.close(parent);
        }
    }

    /// Members among the nodes named, each once, in the order given.
    pub(crate) fn members(&self, nodes: &[NodeId]) -> Vec<NodeId> {
        let mut known: Vec<NodeId> = Vec::new();
        for node in nodes {
            if known.len() < HOME_NODES && !known.contains(node) && self.state.node(*node).is_some() {
                known.push(*node);
            }
        }
        known
    }

    /// The members among these nodes, if they are as many as a promise of durability needs.
    pub(crate) fn durable_home(&self, nodes: &[NodeId]) -> Result<Vec<NodeId>, Refusal> {
        let home = self.members(nodes);
        let (given, needed) = (home.len() as u32, self.state.copies());
        if given < needed { Err(Refusal::TooFewCopies { given, needed }) } else { Ok(home) }
    }
}

/// A lease takes a running slot, but not while the task waits for its tools, nor when it was taken away by a pause and
/// stands again only for a confirmation.
pub(crate) fn holds_slot(row: &TaskRow) -> bool {
    row.epoch.is_some() && row.aside.is_none() && !stands_again(row)
}

pub(crate) fn stands_again(row: &TaskRow) -> bool {
    row.unaware.iter().any(|holder| row.epoch == Some(holder.epoch))
}

pub(crate) fn not_found(what: &str, name: &str) -> Refusal {
    Refusal::NotFound { what: what.to_string(), name: name.chars().take(limits::NAME_BYTES).collect() }
}

pub(crate) fn invalid(what: &str, why: impl Into<String>) -> Refusal {
    Refusal::Invalid { what: what.to_string(), why: why.into() }
}

/// A name that people give: not empty, not too long, no control characters.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(invalid(what, "is empty; give it a name"));
    }
    check_text(what, name)
}

/// Like a name, but may be empty.
pub(crate) fn check_text(what: &str, text: &str) -> Result<(), Refusal> {
    if text.len() > limits::NAME_BYTES {
        return Err(invalid(
            what,
            format!("has {} bytes, at most {} are allowed", text.len(), limits::NAME_BYTES),
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid(what, "contains control characters"));
    }
    Ok(())
}
