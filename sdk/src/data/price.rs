//! What models cost, and what was spent.

use super::{Time, Usage};
use serde::Serialize;

/// A model's place in the price book, in micro-dollars a million tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Price {
    pub model: String,
    /// New tokens of the prompt.
    pub input: u64,
    /// Tokens of the prompt that were in the chain before.
    pub cached: u64,
    pub output: u64,
    pub etag: String,
    pub reason: String,
    pub author: String,
    pub update_time: Option<Time>,
}

/// What the lines of a cost report sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CostGroup {
    #[default]
    Project,
    Agent,
    Model,
    Task,
    /// Days of UTC.
    Day,
}

/// What some tasks used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CostLine {
    /// A quota path, a model's name, or a day.
    pub key: String,
    pub tasks: u64,
    pub steps: u64,
    pub usage: Usage,
    /// What budgets counted.
    pub new_tokens: u64,
    pub known_tokens: u64,
    pub kv_block_seconds: u64,
    pub tool_calls: u64,
}

/// Sums over the tasks that the cluster still keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CostReport {
    pub lines: Vec<CostLine>,
    pub total: CostLine,
}
