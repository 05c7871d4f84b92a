//! What can happen to a mind.

use crate::Finish;
use context::Segment;
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
    },
    /// The model call, the spawn, the loading or the asking could not be done. `message` carries the numbers.
    ModelFailed { reason: String, message: String, retriable: bool },
    /// The ledger paused the task for want of budget; nothing more to do here.
    BudgetRefused,
    /// Answers [`Effect::Spawn`](crate::Effect::Spawn): the children, in the order of the plan.
    Spawned { children: Vec<TaskUid> },
    /// Answers [`Effect::AskChildren`](crate::Effect::AskChildren), in any order.
    Children(Vec<ChildOutcome>),
    /// The step is durable. May come twice.
    Committed { step: u64 },
    /// Someone else holds the task: stop silently.
    Fenced,
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
