//! How a task may move from state to state, and which moves were seen. The list is what the ledger's rules allow:
//! a move outside of it is a violation, and a run that has not seen each of them has not tested the ledger.

use std::collections::BTreeMap;
use types::PauseReason::{Budget, Error, User};
use types::TaskState::{
    self, Cancelled, Cancelling, Expired, Failed, Paused, Pending, Running, Succeeded, WaitingChild,
};
use types::TaskUid;

/// From where (`None`: it was not there) to where.
pub type Move = (Option<TaskState>, TaskState);

/// Every legal move. `WAITING_TOOL`, `WAITING_INPUT` and `PAUSED(DRAIN)` are not entered by this ledger.
pub const LEGAL: &[Move] = &[
    (None, Pending),
    // Assigned, paused, stopped: by someone whose holder or children must confirm, at once, or by its deadline.
    (Some(Pending), Running),
    (Some(Pending), Paused(User)),
    (Some(Pending), Cancelling),
    (Some(Pending), Cancelled),
    (Some(Pending), Expired),
    // Given back or lost, and every way in which a step ends.
    (Some(Running), Pending),
    (Some(Running), WaitingChild),
    (Some(Running), Paused(User)),
    (Some(Running), Paused(Budget)),
    (Some(Running), Paused(Error)),
    (Some(Running), Cancelling),
    (Some(Running), Succeeded),
    (Some(Running), Failed),
    (Some(WaitingChild), Pending),
    (Some(WaitingChild), Cancelling),
    (Some(Paused(User)), Pending),
    (Some(Paused(User)), Cancelling),
    (Some(Paused(User)), Cancelled),
    (Some(Paused(User)), Expired),
    (Some(Paused(Budget)), Pending),
    (Some(Paused(Budget)), Paused(User)),
    (Some(Paused(Budget)), Cancelling),
    (Some(Paused(Budget)), Cancelled),
    (Some(Paused(Budget)), Expired),
    (Some(Paused(Error)), Pending),
    (Some(Paused(Error)), Paused(User)),
    (Some(Paused(Error)), Cancelling),
    (Some(Paused(Error)), Cancelled),
    (Some(Paused(Error)), Expired),
    (Some(Cancelling), Cancelled),
    (Some(Cancelling), Expired),
];

/// A move in words.
pub fn shown((from, to): Move) -> String {
    let name = |state: TaskState| match state {
        Paused(reason) => format!("PAUSED({})", format!("{reason:?}").to_uppercase()),
        other => other.name().to_string(),
    };
    format!("{} -> {}", from.map_or("new".to_string(), name), name(to))
}

/// Where every task stands, and how often each move was made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moves {
    at: BTreeMap<TaskUid, TaskState>,
    pub seen: BTreeMap<Move, u64>,
}

impl Moves {
    /// A task entered a state.
    pub(crate) fn moved(&mut self, uid: TaskUid, to: TaskState) -> Result<(), String> {
        let step = (self.at.insert(uid, to), to);
        *self.seen.entry(step).or_default() += 1;
        if LEGAL.contains(&step) { Ok(()) } else { Err(format!("{uid} went {}", shown(step))) }
    }
}
