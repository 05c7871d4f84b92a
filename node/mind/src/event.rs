//! What can happen to a mind.

use crate::{Finish, Route};
use context::{Kind, Segment};
use types::{Hash, Spent, TaskState, TaskUid};

/// Repeated and late events do no harm: they give no effects, or `Stop` after the end.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The journal is replayed; what now?
    Begin,
    /// Answers [`Effect::Load`](crate::Effect::Load).
    Loaded { segments: Vec<(Hash, Segment)> },
    /// The model answered, as far as it could.
    Generated {
        text: String,
        token_ids: Vec<u32>,
        tokenizer: Hash,
        finish: Finish,
        spent: Spent,
        billed_tokens: u64,
        /// Tokens of the whole chain, the new ones included.
        chain_tokens: u64,
        /// Numerics id of the engine that generated them, where it has one.
        numerics: Option<Hash>,
        /// Tool calls, where the provider says them apart from the text; else they are read from the text.
        calls: Option<Vec<SaidCall>>,
        /// Which of several models it was, and why.
        route: Option<Box<Route>>,
    },
    /// The model was not called: the chain takes more of the window than the call allowed. One measure for each piece
    /// of the chain, in its order.
    NearlyFull { window_tokens: u64, pieces: Vec<Measured> },
    /// The model call, the spawn, the loading or the asking could not be done. `message` carries the numbers.
    ModelFailed { reason: String, message: String, retriable: bool },
    /// The ledger paused the task for want of budget; nothing more to do here.
    BudgetRefused,
    /// No budget has room for the tool calls that the step was to begin; it was not committed.
    CallsRefused,
    /// Answers [`Effect::Spawn`](crate::Effect::Spawn): the children, in the order of the plan.
    Spawned { children: Vec<TaskUid> },
    /// Answers [`Effect::AskChildren`](crate::Effect::AskChildren), in any order.
    Children(Vec<ChildOutcome>),
    /// Answers [`Effect::ListTools`](crate::Effect::ListTools): a JSON list, as `crate::tools` says.
    Tools { specs: String },
    /// Answers [`Effect::CallTool`](crate::Effect::CallTool).
    CallEnded { step: u64, index: u32, outcome: CallOutcome },
    /// Answers [`Effect::CheckResult`](crate::Effect::CheckResult): what is wrong; empty where it fits.
    Checked { wrong: String },
    /// What people said and the journal has not. The same signal may come twice.
    Signals(Vec<Signal>),
    /// The step is durable. May come twice.
    Committed { step: u64 },
    /// Someone else holds the task: stop silently.
    Fenced,
}

/// A piece of a chain in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    pub kind: Kind,
    pub tokens: u64,
}

/// A tool call as a provider said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaidCall {
    pub name: String,
    /// JSON.
    pub arguments: String,
}

/// How a tool call ended, as far as the node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// The tool said something, perhaps an error of its own.
    Answered { text: String, is_error: bool },
    /// It certainly had no effect.
    Refused { reason: String, message: String },
    /// It may have had one.
    Unknown { reason: String, message: String },
}

/// Something that a person or program said to the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Counts from 1.
    pub number: u64,
    pub kind: SignalKind,
    /// The question that it answers; empty for a message.
    pub ask: String,
    pub text: Option<Hash>,
    pub author: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalKind {
    Approve,
    Reject,
    Answer,
    /// Make the call again.
    Repeat,
    Message,
    /// A message that stops what the task does now, and keeps it.
    Interrupt,
    /// A message in place of what the task did since the last one.
    Rollback,
}

/// How a child stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildOutcome {
    pub uid: TaskUid,
    pub agent: String,
    pub state: TaskState,
    pub result: Option<Hash>,
    pub result_bytes: u64,
    /// What the child's result is called, where it has a name of its own; else empty.
    pub result_name: String,
    pub error: Option<String>,
}

impl SignalKind {
    pub(crate) fn is_message(self) -> bool {
        matches!(self, SignalKind::Message | SignalKind::Interrupt | SignalKind::Rollback)
    }

    /// A message that does not wait for its turn.
    pub(crate) fn stops(self) -> bool {
        matches!(self, SignalKind::Interrupt | SignalKind::Rollback)
    }
}
