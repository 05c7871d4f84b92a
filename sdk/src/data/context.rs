//! The text behind a task.

use serde::Serialize;

/// The committed chain of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Context {
    pub task: String,
    pub head: String,
    pub segments: Vec<Segment>,
}

/// One immutable piece of context, named by its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Segment {
    pub hash: String,
    pub kind: String,
    pub author: String,
    pub visibility: String,
    pub bytes: u64,
    /// Empty unless asked for.
    pub text: String,
}
