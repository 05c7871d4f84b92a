//! Limits and what is used of them.

use super::{AuditEvent, Time};
use serde::Serialize;
use std::collections::BTreeMap;

/// The limits of one place in the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quota {
    /// `cluster`, `projects/NAME`, `projects/NAME/agents/NAME`, `tasks/ID`.
    pub path: String,
    /// By key, as the tree's documentation lists them: `running`, `tokens_day`, `micro_usd_total`, …
    pub limits: BTreeMap<String, Limit>,
    pub etag: String,
    pub reason: String,
    pub author: String,
    pub update_time: Option<Time>,
    /// Of a change that was only tried: running tasks that would have to wait for room.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub would_wait: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
pub struct Limit {
    /// None means without limit.
    pub limit: Option<u64>,
    pub used: u64,
    pub reserved: u64,
    pub kind: LimitKind,
    /// Part of `used` that went beyond its reservation.
    pub overage: u64,
    /// Of budgets with a window of the calendar: its bounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_start: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_end: Option<Time>,
}

/// What a limit limits. A kind that only a newer cluster knows is `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    #[default]
    Unknown,
    /// Used up: reserved, then settled.
    Budget,
    /// So much a minute.
    Rate,
    /// Held while a task runs.
    Holding,
    /// A project's share among those that wait.
    Weight,
}

/// What a watcher of the tree hears.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaEvent {
    /// The place as it is now.
    Quota(Quota),
    Audit(AuditEvent),
}
