//! Tasks, and why they wait.

use super::Time;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use types::Class;

/// One run of an agent or a team.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Task {
    /// The user's task id where one was given, else the uid.
    pub id: String,
    pub project: String,
    pub agent: String,
    /// Hash of the definition the task was created with.
    pub revision: String,
    pub labels: BTreeMap<String, String>,
    pub state: TaskState,
    pub state_reason: String,
    /// The node that holds the lease.
    pub node: Option<String>,
    /// The lease's epoch.
    pub epoch: Option<String>,
    /// Committed steps.
    pub step: u64,
    /// Sequence of the newest committed event.
    pub sequence: u64,
    /// Durable copies of its context.
    pub copies: u32,
    pub usage: Usage,
    /// Small results, here; larger ones through [`crate::Tasks::result`].
    pub result: Option<String>,
    pub error: Option<String>,
    pub pending: Vec<Blocker>,
    pub create_time: Time,
    pub end_time: Option<Time>,
    pub uid: String,
    pub result_hash: Option<String>,
    pub parent: Option<String>,
    pub children: Vec<String>,
    #[serde(serialize_with = "class_name")]
    pub class: Class,
    /// 0 to 9; higher runs earlier within its class.
    pub priority: u32,
    /// Hash of the newest step record.
    pub head: Option<String>,
    pub deadline_time: Option<Time>,
    /// What it waits for people to say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub asks: Vec<Ask>,
    /// The task that its first steps came from, and how many those are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub forked_steps: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An open question of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ask {
    /// To be given back with the answer.
    pub id: String,
    pub kind: AskKind,
    /// The tool that it is about; empty for a message.
    pub tool: String,
    /// The exact call as JSON, the question, or the answer that was given last. Only where one task was asked for.
    pub text: Option<String>,
}

/// What is asked. A kind that only a newer cluster knows is `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AskKind {
    /// May this call be made?
    Approval,
    Question,
    /// The call was made and nobody knows how it ended. It is never made again.
    Unknown,
    /// The same, of a call that is made again if a person says so.
    UnknownMayRepeat,
    /// The task has answered and waits for the next message.
    NextMessage,
    Other,
}

impl AskKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Approval => "APPROVAL",
            Self::Question => "QUESTION",
            Self::Unknown => "UNKNOWN",
            Self::UnknownMayRepeat => "UNKNOWN_MAY_REPEAT",
            Self::NextMessage => "NEXT_MESSAGE",
            Self::Other => "OTHER",
        }
    }
}

/// A task that is created again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Schedule {
    pub name: String,
    /// Minute, hour, day of the month, month, day of the week, in UTC.
    pub cron: String,
    pub agent: String,
    #[serde(serialize_with = "class_name")]
    pub class: Class,
    pub priority: u32,
    /// None: never again.
    pub next_time: Option<Time>,
    pub last_task: Option<String>,
    pub last_error: Option<String>,
    pub fired: u64,
}

fn class_name<S: Serializer>(class: &Class, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(class.name())
}

/// The life of a task. A state that only a newer cluster knows is `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskState {
    Pending,
    Running,
    WaitingTool,
    WaitingChild,
    WaitingInput,
    Paused,
    Cancelling,
    Succeeded,
    Failed,
    Cancelled,
    Expired,
    Unknown,
}

impl TaskState {
    /// True when nothing more will ever happen to the task.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::WaitingTool => "WAITING_TOOL",
            Self::WaitingChild => "WAITING_CHILD",
            Self::WaitingInput => "WAITING_INPUT",
            Self::Paused => "PAUSED",
            Self::Cancelling => "CANCELLING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::Expired => "EXPIRED",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// What model calls used. `cached_tokens` is part of `prompt_tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
pub struct Usage {
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub generated_tokens: u64,
    pub micro_usd: u64,
}

/// One reason why a task does not run; all of them together keep it waiting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Blocker {
    pub reason: String,
    /// The resource and whose limit it is, such as `projects/default running`.
    pub resource: String,
    pub requested: u64,
    pub available: u64,
    pub limit: u64,
    pub message: String,
    /// Who holds more of it than they are guaranteed, the greediest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub borrowed_by: Vec<Borrower>,
}

/// A place of the quota tree that holds more than its guarantee.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Borrower {
    pub path: String,
    pub amount: u64,
}

/// A limit that is assumed to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhatIf {
    pub path: String,
    pub key: String,
    /// None: without limit.
    pub limit: Option<u64>,
}

/// Why a task waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub task: Task,
    pub blockers: Vec<Blocker>,
    pub tasks_ahead: u64,
    /// Its place in the queue, from 1; None when it is in none.
    pub position: Option<u64>,
    /// When it will start if tasks go on starting as they did, in milliseconds from now.
    pub eta_ms: Option<u64>,
    /// How far off that may be.
    pub eta_error_ms: Option<u64>,
    pub nodes: Vec<NodeVerdict>,
}

/// Whether one node could run the task, and why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeVerdict {
    pub node: String,
    pub eligible: bool,
    pub reason: String,
}

/// Part of a list, and the token of the next part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next_page_token: Option<String>,
}
