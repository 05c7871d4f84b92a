//! What the cluster says, as plain values. Their JSON form is the public one: `-o json` prints these.

mod agent;
mod cluster;
mod context;
mod event;
mod memory;
mod price;
mod quota;
mod task;
mod time;

pub use agent::Agent;
pub use cluster::{AuditEvent, ClusterStatus, Device, Engine, Gpu, Kv, Model, Node, Snapshot};
pub use context::{Context, Evaluation, RecordedCall, RecordedSegment, RouteCandidate, RoutedStep, Segment};
pub use event::{Event, EventKind, StepRoute};
pub use memory::{Found, Memory, MemoryHit, SearchKind};
pub use price::{CostGroup, CostLine, CostReport, Price};
pub use quota::{Limit, LimitKind, Quota, QuotaEvent};
pub use task::{
    Ask, AskKind, Blocker, Borrower, Explanation, NodeVerdict, Page, Schedule, Task, TaskState, Usage, WhatIf,
};
pub use time::Time;
