//! Children that start together or not at all: a team whose members need one another is no use by halves.
//!
//! Those of one step of one parent that were born for it and never ran are a gang. It starts when there is a slot for
//! each of them, in one command. Whoever ran once starts again alone: after a loss the others are at work already.
//!
//! Slots become free one at a time, and tasks behind take them. So a gang that has waited long has them kept: nothing
//! behind it starts until it fits, if it can ever fit on the nodes that are there.

use crate::change::{Change, invalid};
use crate::command::Command;
use crate::placement::Board;
use crate::quota::Claims;
use crate::reply::{Refusal, Reply};
use crate::rows::{Origin, TaskRow};
use crate::state::State;
use crate::steps::{check_start, lease};
use std::collections::BTreeSet;
use types::{NodeId, TaskState, TaskUid};

/// How long others pass a gang for which there are too few free slots.
const PATIENCE_MS: u64 = 30_000;

/// Whether the task may not start alone.
pub(crate) fn starts_together(row: &TaskRow) -> bool {
    row.together.is_some() && row.last_epoch.is_none() && !row.state.is_final()
}

/// Whether they are of one gang.
pub(crate) fn start_together(one: &TaskRow, other: &TaskRow) -> bool {
    let of = |row: &TaskRow| row.origin.map(|origin| (origin.parent, origin.step));
    starts_together(one) && starts_together(other) && of(one) == of(other)
}

/// The children of one step that have not started.
pub(crate) struct Gang<'a> {
    /// The parent and its step.
    pub of: (TaskUid, u64),
    members: Vec<&'a TaskRow>,
}

/// Tasks that start, and where.
pub(crate) struct Start<'a>(pub Vec<(&'a TaskRow, NodeId)>);

/// What one look at the queue knows of gangs.
#[derive(Default)]
pub(crate) struct Gangs {
    pub passed: BTreeSet<(TaskUid, u64)>,
    pub started: BTreeSet<TaskUid>,
    /// Free slots are kept for a gang that is behind us.
    pub saving: bool,
}

/// A place for each member, and what is left.
pub(crate) struct Fitted<'a> {
    pub start: Start<'a>,
    pub board: Board<'a>,
    pub claims: Claims<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// By a limit, or because a member cannot start now.
    Held,
    /// There are enough slots for all, and some are taken.
    NoSlots,
    /// More than all nodes have.
    TooMany,
}

impl Start<'_> {
    pub(crate) fn command(&self) -> Command {
        match self.0.as_slice() {
            [(row, node)] if !starts_together(row) => Command::Assign { task: row.uid, node: *node },
            many => {
                Command::AssignTogether { leases: many.iter().map(|(row, node)| (row.uid, *node)).collect() }
            }
        }
    }
}

impl<'a> Gang<'a> {
    pub(crate) fn of(state: &'a State, row: &TaskRow) -> Gang<'a> {
        let origin = row.origin.unwrap_or(Origin { parent: row.uid, step: 0, index: 0 });
        let parent = state.task(origin.parent);
        let siblings = parent.into_iter().flat_map(|parent| parent.children.iter());
        let born_with = |row: &TaskRow| row.origin.is_some_and(|other| other.step == origin.step);
        let members = siblings
            .filter_map(|uid| state.task(*uid))
            .filter(|row| starts_together(row) && born_with(row))
            .collect();
        Gang { of: (origin.parent, origin.step), members }
    }

    /// Who starts with the task; none where it starts alone.
    pub(crate) fn others(state: &'a State, row: &TaskRow) -> Vec<&'a TaskRow> {
        if !starts_together(row) {
            return vec![];
        }
        let members = Gang::of(state, row).members;
        members.into_iter().filter(|member| member.uid != row.uid).collect()
    }

    /// Those of them that cannot start now.
    pub(crate) fn absent(state: &'a State, row: &TaskRow) -> impl Iterator<Item = &'a TaskRow> {
        Gang::others(state, row).into_iter().filter(|other| !waits(other))
    }

    /// A place for each member after everything that was given away so far.
    pub(crate) fn fit(
        &self,
        board: &Board<'a>,
        claims: &Claims<'a>,
        first_fit: bool,
    ) -> Result<Fitted<'a>, Misfit> {
        if !self.members.iter().all(|row| waits(row)) {
            return Err(Misfit::Held);
        }
        let (mut board, mut claims) = (board.clone(), claims.clone());
        let mut start = vec![];
        for row in &self.members {
            if claims.held_back(row).is_some() {
                return Err(Misfit::Held);
            }
            let node = board.node_for(row, first_fit).ok_or_else(|| self.misfit(&board, row))?;
            board.take(row, node);
            claims.take(row);
            start.push((*row, node));
        }
        Ok(Fitted { start: Start(start), board, claims })
    }

    fn misfit(&self, board: &Board<'a>, row: &TaskRow) -> Misfit {
        let (_, all) = board.slots(row);
        if all >= self.members.len() as u64 { Misfit::NoSlots } else { Misfit::TooMany }
    }

    pub(crate) fn is_impatient(&self, now_ms: u64) -> bool {
        let since_ms = self.members.iter().map(|row| row.queued_ms).max();
        since_ms.is_some_and(|since_ms| since_ms.saturating_add(PATIENCE_MS) <= now_ms)
    }
}

fn waits(row: &TaskRow) -> bool {
    row.state == TaskState::Pending
}

/// Gives every member of a gang its lease, or none.
pub(crate) fn assign(change: &mut Change<'_>, leases: &[(TaskUid, NodeId)]) -> Result<Reply, Refusal> {
    check_gang(change.state, leases)?;
    let mut rows = vec![];
    for (uid, node) in leases {
        rows.push(check_start(change, *uid, *node)?.clone());
    }
    change.state.check_slots(&rows)?;
    for (nth, (uid, node)) in (0u32..).zip(leases) {
        lease(change, *uid, *node, nth);
    }
    Ok(Reply::Done)
}

/// Exactly the members of one gang, each once.
fn check_gang(state: &State, leases: &[(TaskUid, NodeId)]) -> Result<(), Refusal> {
    let first = leases.first().and_then(|(uid, _)| state.task(*uid)).filter(|row| starts_together(row));
    let members = first.map(|row| Gang::of(state, row).members).unwrap_or_default();
    let wanted: BTreeSet<TaskUid> = members.iter().map(|row| row.uid).collect();
    let given: BTreeSet<TaskUid> = leases.iter().map(|(uid, _)| *uid).collect();
    if wanted.is_empty() || wanted != given || given.len() != leases.len() {
        return Err(invalid("leases", "are not those that start together".to_string()));
    }
    Ok(())
}
