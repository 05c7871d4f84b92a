//! What is remembered.

use super::Time;
use serde::Serialize;

/// An item of a scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    pub id: String,
    pub project: String,
    pub scope: String,
    pub text: String,
    pub tags: Vec<String>,
    pub source: Option<String>,
    pub author: String,
    pub create_time: Time,
    /// Ids of the items that it was made from, if it is a summary.
    pub replaces: Vec<String>,
    /// A summary is found instead of it.
    pub summarised: bool,
}

/// By what is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SearchKind {
    Words,
    Vectors,
    Both,
}

/// An item that was found, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemoryHit {
    pub item: Memory,
    /// Comparable within one answer only.
    pub score: f64,
    pub words_score: f64,
    pub cosine: Option<f32>,
    /// Words of the query that stand in it, as stems.
    pub words: Vec<String>,
}

/// The best hits of a scope.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    pub hits: Vec<MemoryHit>,
    /// What was compared: words alone where the node has no encoder.
    pub kind: SearchKind,
    pub items: u64,
    pub items_with_vectors: u64,
}
