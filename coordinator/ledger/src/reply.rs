//! What a command answers. A refusal is a reply, because it must be the same on every replica.

use crate::rows::{AgentRow, HeadRow, Price, PriceRow, QuotaRow, ScheduleRow, TaskRow};
use minicbor::{Decode, Encode};
use types::{Epoch, Hash, NodeId, TaskUid};

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    #[n(0)]
    Done,
    #[n(1)]
    Node(#[n(0)] NodeId),
    #[n(2)]
    Agent(#[n(0)] AgentRow),
    #[n(3)]
    Task(#[n(0)] Box<TaskRow>),
    #[n(4)]
    Children(#[n(0)] Vec<TaskUid>),
    #[n(5)]
    Assigned(#[n(0)] Epoch),
    /// Tokens set aside, between the min and max asked for.
    #[n(6)]
    Reserved(#[n(0)] u64),
    #[n(7)]
    Quota(#[n(0)] QuotaRow),
    #[n(8)]
    Refused(#[n(0)] Refusal),
    #[n(9)]
    Price(#[n(0)] PriceRow),
    #[n(10)]
    Head(#[n(0)] HeadRow),
    #[n(11)]
    Schedule(#[n(0)] Box<ScheduleRow>),
    #[n(12)]
    Slice(#[n(0)] Box<SliceAnswer>),
}

/// What a turn of a slice brought. What it settled and gave back it settled and gave back in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct SliceAnswer {
    /// Tokens for the request that waits, between the min and max asked for; 0: none.
    #[n(0)]
    pub granted: u64,
    /// The slice holds the spare asked for, too: all of it.
    #[n(1)]
    pub spare: bool,
    /// What it settles at.
    #[n(2)]
    pub price: Option<Price>,
    /// After so many milliseconds an hour is over, and what is not promised belongs to it no more.
    #[n(3)]
    pub closes_in_ms: u64,
    /// Why the request that waits got nothing.
    #[n(4)]
    pub short: Option<Refusal>,
    /// Other slices may hold what is missing. They were recalled: the same is to be asked again.
    #[n(5)]
    pub recalled: bool,
    /// Its hour is over or its price another one: it grows no more, another one has to be opened.
    #[n(6)]
    pub retired: bool,
}

/// Why a command changed nothing (except where it says so).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum Refusal {
    #[n(0)]
    #[error("the cluster is initialised already")]
    AlreadyInitialised,
    #[n(1)]
    #[error("the cluster is not initialised")]
    NotInitialised,
    /// The name belongs to a node with another disk.
    #[n(2)]
    #[error("the name {name:?} belongs to {node}, whose disk was another one")]
    NameTaken {
        #[n(0)]
        name: String,
        #[n(1)]
        node: NodeId,
    },
    #[n(3)]
    #[error("there is no {what} {name:?}")]
    NotFound {
        #[n(0)]
        what: String,
        #[n(1)]
        name: String,
    },
    #[n(4)]
    #[error("the task id {task_id:?} is taken by {task}")]
    TaskIdTaken {
        #[n(0)]
        task_id: String,
        #[n(1)]
        task: TaskUid,
    },
    #[n(5)]
    #[error("the request id {request_id:?} was used with another body")]
    RequestIdReused {
        #[n(0)]
        request_id: String,
    },
    #[n(6)]
    #[error("the request id {request_id:?} is older than what is remembered")]
    RequestIdExpired {
        #[n(0)]
        request_id: String,
    },
    #[n(7)]
    #[error("the etag is {current}, not {given}")]
    WrongEtag {
        #[n(0)]
        given: u64,
        #[n(1)]
        current: u64,
    },
    /// The epoch is stale: someone else holds the task, or nobody. Counted on the node's row.
    #[n(8)]
    #[error("fenced: the lease {given} is not in force ({})", in_force(current))]
    Fenced {
        #[n(0)]
        given: Epoch,
        #[n(1)]
        current: Option<Epoch>,
    },
    /// The move is not allowed from the task's state.
    #[n(9)]
    #[error("the task is {state}")]
    WrongState {
        #[n(0)]
        state: String,
    },
    #[n(10)]
    #[error("over {resource} of {path}: {requested} requested, {available} available of {limit}")]
    OverQuota {
        #[n(0)]
        path: String,
        #[n(1)]
        resource: String,
        #[n(2)]
        requested: u64,
        #[n(3)]
        available: u64,
        #[n(4)]
        limit: u64,
    },
    /// A bound of `types::limits` or a malformed field.
    #[n(11)]
    #[error("{what}: {why}")]
    Invalid {
        #[n(0)]
        what: String,
        #[n(1)]
        why: String,
    },
    /// A commit, a new task or a definition without enough durable copies.
    #[n(12)]
    #[error("{given} durable copies, {needed} needed")]
    TooFewCopies {
        #[n(0)]
        given: u32,
        #[n(1)]
        needed: u32,
    },
    /// Money is limited above the task, and its model is not in the price book.
    /// The chain was moved by somebody else meanwhile.
    #[n(14)]
    #[error("the head of {path} is another one by now; read it again")]
    WrongHead {
        #[n(0)]
        path: String,
        #[n(1)]
        head: Option<Hash>,
    },
    /// The open question was answered before.
    #[n(15)]
    #[error("{ask:?} was answered already")]
    Answered {
        #[n(0)]
        ask: String,
    },
    /// A message came while the task was at work, and it was not to disturb.
    #[n(16)]
    #[error("the task is {state} and takes no message now")]
    Busy {
        #[n(0)]
        state: String,
    },
    #[n(13)]
    #[error("money is limited here and {model} has no price; set one, 0 included")]
    Unpriced {
        #[n(0)]
        model: String,
    },
}

fn in_force(current: &Option<Epoch>) -> String {
    current.map_or("nobody holds one now".to_string(), |epoch| format!("now it is {epoch}"))
}
