//! What would be: commands applied to a copy of the state, and one task explained there. The cluster hears nothing of it.

use crate::coordinator::{Coordinator, ReadError};
use ledger::command::{Command, Stamp};
use ledger::explain::explain;
use ledger::query::Explanation;
use ledger::reply::Reply;
use ledger::{Place, Soft, State};
use types::{ProjectName, TaskUid};

/// Tasks up to which a state is copied: some 10 MiB, and a few milliseconds in which nothing is applied.
const TASKS: usize = 10_000;

/// What commands would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Supposed {
    /// One a command, in order.
    pub replies: Vec<Reply>,
    /// None where there is no such task.
    pub explanation: Option<Explanation>,
}

/// `task`: a task's id or uid; empty: the task that the commands make.
pub(crate) fn suppose(
    mut state: State,
    soft: &Soft,
    stamp: Stamp,
    commands: &[Command],
    (project, task): (&ProjectName, &str),
) -> Supposed {
    let index = state.applied_index() + 1;
    let apply = |(position, command)| state.apply(Place { index, position }, stamp, command).reply;
    let replies: Vec<Reply> = (0u32..).zip(commands).map(apply).collect();
    let uid =
        if task.is_empty() { made(&replies) } else { state.find_task(project, task).map(|row| row.uid) };
    Supposed { explanation: uid.and_then(|uid| explain(&state, soft, uid)), replies }
}

fn made(replies: &[Reply]) -> Option<TaskUid> {
    replies.iter().rev().find_map(|reply| match reply {
        Reply::Task(row) => Some(row.uid),
        _ => None,
    })
}

impl Coordinator {
    /// At the leader, from what was committed before the call. None: the state is too large to be copied.
    pub async fn suppose(
        &self,
        commands: &[Command],
        project: &ProjectName,
        task: &str,
    ) -> Result<Option<Supposed>, ReadError> {
        // One at a time, so that many askers do not make many copies.
        let _turn = self.inner.supposing.lock().await;
        self.barrier().await?;
        let Some(state) = self.small_copy() else { return Ok(None) };
        let (soft, stamp) = (self.soft(), self.stamp());
        Ok(Some(suppose(state, &soft, stamp, commands, (project, task))))
    }

    fn small_copy(&self) -> Option<State> {
        let machine = self.locked();
        let small = machine.state.tasks().nth(TASKS).is_none();
        small.then(|| machine.state.clone())
    }
}
