//! One agent's step machine: an event comes in, effects come out.
//!
//! A mind decides what its task does next: call the model, continue an answer that a budget cut, start children, wait,
//! finish, give up. It performs nothing and knows no clock; whoever drives it (an actor) performs the effects and
//! answers with events. What was decided is in the journal of step records: replaying them gives the same mind,
//! which is how a task goes on after a crash, on another node.
//!
//! It is not the ledger: the next move it asks for becomes true when the ledger says so. It holds no texts but those
//! of an answer that is being continued.
//!
//! Read: `definition` (what users write), `event` and `effect` (the border), `record` (the journal's form),
//! `journal` (what is committed), `mind` (the machine), `agent` and `team` (what each kind decides), `turn` and `calls`
//! (tools), `compaction` and `condense` (a window that is nearly full), `typed` (results with a form), `draft` and `opening` (how it is written down).

mod agent;
mod calls;
mod compaction;
mod condense;
mod definition;
mod draft;
mod effect;
mod event;
mod journal;
mod mind;
mod opening;
mod record;
mod team;
mod turn;
mod typed;

pub use crate::mind::{Mind, Observed, TaskFacts};
pub use calls::question_of;
pub use context::{ChainItem, Part, Reader, Segment};
pub use definition::{
    AgentDefinition, Compaction, Definition, DefinitionError, Limits, Policy, TeamDefinition, ToolChoice,
    ToolRule,
};
pub use effect::{Ask, AskKind, ChildPlan, Effect, NextMove, Routes};
pub use event::{CallOutcome, ChildOutcome, Event, Measured, SaidCall, Signal, SignalKind};
pub use journal::ReplayError;
pub use record::{CallEnd, Decision, Finish, How, MIND_VERSION, Route, RouteCandidate, StepRecord, ToolCall};

/// Calls to the model (or to the ledger, for a spawn) of one step, before the task stands still and asks for help.
pub const CALLS_PER_STEP: u32 = 4;
