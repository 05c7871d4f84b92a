//! The text behind a task.

use serde::Serialize;

/// The committed chain of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Context {
    pub task: String,
    pub head: String,
    pub segments: Vec<Segment>,
    /// Steps for which one of several models was chosen, in their order.
    pub routes: Vec<RoutedStep>,
}

/// Which of an agent's models a step called, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RoutedStep {
    pub step: u64,
    pub model: String,
    /// A stable word, such as `CHEAPER`.
    pub reason: String,
    /// Every model of the agent, in the agent's order.
    pub candidates: Vec<RouteCandidate>,
}

/// What a call was expected to cost and take at one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteCandidate {
    pub model: String,
    pub expected_micro_usd: u64,
    pub expected_ms: u64,
    /// `FITS`, `LATE`, or why it could not be taken, such as `CLOSED`.
    pub verdict: String,
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

/// One model call, as it was recorded: what an agent read, what it was asked last, what it did then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedCall {
    /// For people; its place where empty.
    pub name: String,
    /// In the order in which they were read.
    pub segments: Vec<RecordedSegment>,
    /// The agent that read them.
    pub reader: String,
    pub probe: String,
    pub action: String,
    /// What others had and the reader did not get.
    pub withheld: Vec<RecordedSegment>,
}

/// A piece of what an agent read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedSegment {
    /// Unique in its call; the same id with the same text in several calls is one segment.
    pub id: String,
    /// Who wrote it.
    pub owner: String,
    pub kind: String,
    pub text: String,
    /// Of a summary: ids of the withheld segments that it stands for.
    pub replaces: Vec<String>,
}

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evaluation {
    /// JSON, as docs/evaluation.md has it: the same bytes for the same calls and model.
    pub report: String,
    /// JSON, one object a call, where they were asked for.
    pub suggestions: Vec<String>,
    /// The report as lines for people, then the suggestions.
    pub table: String,
    pub suggested: String,
    /// One page of HTML, where it was asked for. It holds the texts.
    pub page: String,
    /// Which model scored, and on which node.
    pub model: String,
    pub node: String,
    /// Everything that was computed, audit included.
    pub tokens_spent: u64,
}
