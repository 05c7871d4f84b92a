//! What a committed command asks the world to do. Wake-ups only: the truth is the state, and dropping every effect
//! loses nothing but time.

use crate::rows::Event;
use types::{Epoch, NodeId, ProjectName, TaskUid};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell the node that it holds a lease.
    Assigned { task: TaskUid, node: NodeId, epoch: Epoch },
    /// Tell the node to stop a cancelled task and to confirm.
    Stop { project: ProjectName, task: TaskUid, node: NodeId, epoch: Epoch },
    /// Tell the node that its lease is no longer in force (paused, requeued).
    Revoked { project: ProjectName, task: TaskUid, node: NodeId, epoch: Epoch },
    /// Tell the node that somebody said something to the task.
    Signalled { task: TaskUid, node: NodeId, epoch: Epoch },
    /// A new event of a task, for watchers on every replica.
    Event { task: TaskUid, event: Event },
    /// Tell the node that what its slices hold and no request of theirs needs is wanted elsewhere. `answer`: somebody waits
    /// until it says so.
    Recall { node: NodeId, answer: bool },
    /// Something may start now: plan again.
    Replan,
    /// A member was admitted, moved or removed: consensus membership may have to follow.
    Members,
}
