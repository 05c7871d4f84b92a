//! What commands are made of: a task's terms, children, what comes after a step, why a lease is given back.

use super::RequestKey;
use crate::keys::{Amounts, Holding, QuotaKey};
use crate::rows::{Ask, CallId, Fork, InputRef, TaskError, Want};
use minicbor::{Decode, Encode};
use types::{Hash, NodeId, ProjectName, TaskUid};

/// When a task may begin, and limits of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Terms {
    /// Limits of the task and everything below it, at `tasks/ID`.
    #[n(0)]
    pub limits: Vec<(QuotaKey, u64)>,
    /// Not before this time, Unix milliseconds; 0: at once.
    #[n(1)]
    pub not_before_ms: u64,
    /// Tasks of the project that have to succeed first. Where one doesn't, this one is cancelled.
    #[n(2)]
    pub after: Vec<TaskUid>,
    /// It goes on from a step of another task.
    #[n(3)]
    pub fork: Option<Fork>,
}

/// What a child is: an agent of the same project on some inputs.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ChildSpec {
    #[n(0)]
    pub agent: String,
    #[n(1)]
    pub inputs: Vec<InputRef>,
    #[n(2)]
    pub background: Vec<Hash>,
    #[n(3)]
    pub home: Vec<NodeId>,
    /// Limits of the child and everything below it.
    #[n(4)]
    pub limits: Option<Vec<(QuotaKey, u64)>>,
    /// Within its class, 0 to 9; none: as its parent.
    #[n(5)]
    pub priority: Option<u8>,
    /// It starts together with the step's other children that say so, or not at all.
    #[n(6)]
    pub together: Option<bool>,
}

impl ChildSpec {
    pub(super) fn form(&self) -> u16 {
        match self {
            ChildSpec { together: Some(_), .. } | ChildSpec { priority: Some(_), .. } => 4,
            ChildSpec { limits: Some(_), .. } => 3,
            _ => 2,
        }
    }
}

/// What a task does after a committed step.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Next {
    /// Keeps its lease and goes on.
    #[n(0)]
    Continue,
    /// Gives its lease back until every child is final.
    #[n(1)]
    WaitChildren,
    #[n(2)]
    Done {
        #[n(0)]
        result: Hash,
        #[n(1)]
        bytes: u64,
    },
    #[n(3)]
    Failed {
        #[n(0)]
        error: TaskError,
    },
    /// Stands still until someone resumes it.
    #[n(4)]
    PausedError {
        #[n(0)]
        error: TaskError,
    },
    /// Keeps its lease and goes on; signals up to this number were heard.
    #[n(5)]
    GoOn {
        #[n(0)]
        heard: u64,
    },
    /// Keeps its lease, gives its slot back and waits for its tools.
    #[n(6)]
    WaitTool {
        #[n(0)]
        heard: u64,
        /// What people can answer meanwhile.
        #[n(1)]
        asks: Vec<Ask>,
        /// So many calls begin with this step, which is refused where a budget has no room for all of them.
        #[n(2)]
        begun: Option<u64>,
    },
    /// Gives its lease back until somebody answers.
    #[n(7)]
    WaitInput {
        #[n(0)]
        heard: u64,
        #[n(1)]
        asks: Vec<Ask>,
    },
    /// Gives its lease back for so long.
    #[n(8)]
    WaitFor {
        #[n(0)]
        heard: u64,
        #[n(1)]
        ms: u64,
    },
    /// Gives its lease back until every budget has room for so many calls of tools.
    #[n(9)]
    WaitBudget {
        #[n(0)]
        heard: u64,
        #[n(1)]
        calls: u64,
    },
}

impl Next {
    pub(super) fn form(&self) -> u16 {
        match self {
            Next::Continue
            | Next::WaitChildren
            | Next::Done { .. }
            | Next::Failed { .. }
            | Next::PausedError { .. } => 2,
            Next::GoOn { .. }
            | Next::WaitTool { .. }
            | Next::WaitInput { .. }
            | Next::WaitFor { .. }
            | Next::WaitBudget { .. } => 3,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Release {
    /// Everything of the cancelled task has stopped here.
    #[n(0)]
    Stopped,
    /// The node shuts down or cannot run it (its model is gone, say): back to the queue.
    #[n(1)]
    Yielded,
    /// The agent failed to start too often here: PAUSED(ERROR).
    #[n(2)]
    Broken,
    /// The agent hung too often here: PAUSED(ERROR).
    #[n(3)]
    Stuck,
}

/// Who takes a member out, and why.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Removal {
    #[n(0)]
    pub reason: String,
    #[n(1)]
    pub request: RequestKey,
}

/// One of the models that may answer a call of a task.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Route {
    /// The price is that of this model.
    #[n(0)]
    pub model: String,
    /// A word for why it is this one.
    #[n(1)]
    pub reason: String,
    /// Rises with each wish of one lease, so that one that comes late is known as such.
    #[n(2)]
    pub turn: u32,
    /// Refused, another model is tried next: the task is not paused.
    #[n(3)]
    pub others: bool,
}

/// One turn of a slice: a part of the quotas above a project that a node gives to requests without asking for each.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SliceTurn {
    #[n(0)]
    pub project: ProjectName,
    /// Random; its node chooses it.
    #[n(1)]
    pub slice: CallId,
    #[n(2)]
    pub model: String,
    /// Who asks; a subject, never a secret.
    #[n(3)]
    pub author: String,
    #[n(4)]
    pub node: NodeId,
    /// What each request holds beside a running slot.
    #[n(5)]
    pub needs: Vec<(Holding, u64)>,
    /// 1 opens it, then one more each turn.
    #[n(6)]
    pub seq: u64,
    /// Everything that its requests used since it was opened.
    #[n(7)]
    pub spent: Amounts,
    /// Requests since it was opened.
    #[n(8)]
    pub drawn: u64,
    /// What is promised to requests under way.
    #[n(9)]
    pub keep: Amounts,
    /// Requests under way; without any, a request that waits and spare slots the slice is closed.
    #[n(10)]
    pub keep_slots: u64,
    /// A request that waits.
    #[n(11)]
    pub want: Option<Wanted>,
    /// Slices of others were recalled for it before.
    #[n(12)]
    pub recalled: bool,
    /// For requests to come: all of it, or none.
    #[n(13)]
    pub spare: Option<Spare>,
    /// It is lost after this time, and everything it holds used, unless it takes a turn or is renewed.
    #[n(14)]
    pub lives_ms: u64,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Wanted {
    #[n(0)]
    pub min_tokens: u64,
    #[n(1)]
    pub max_tokens: u64,
    #[n(2)]
    pub want: Want,
}

/// What requests to come are likely to ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Spare {
    /// The most that each may use.
    #[n(0)]
    pub each: Wanted,
    #[n(1)]
    pub requests: u64,
    /// So many of them at the same time.
    #[n(2)]
    pub slots: u64,
}
