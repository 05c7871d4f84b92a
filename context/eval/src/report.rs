//! What an evaluation says. The same bytes for the same calls, settings and scores.

mod html;
mod table;

use crate::judge::Verdict;
use crate::measure::{Costs, answer_based};
use serde::{Serialize, Serializer};

pub use html::html;
pub use table::table;

/// The whole report, in the order of its JSON.
#[derive(Clone, Debug, PartialEq, Default, Serialize)]
pub struct Report {
    pub model_sha256: String,
    pub calls: Vec<CallReport>,
    pub pairs: Vec<Pair>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
}

/// One call. Figures that a gated call does not have are null.
#[derive(Clone, Debug, PartialEq, Default, Serialize)]
pub struct CallReport {
    pub call: String,
    /// The context helped by no more than a nat: nothing is said about its segments.
    pub gated: bool,
    /// What the whole context was worth, in nats.
    pub gain_nats: f64,
    /// The threshold of the verdicts, in nats.
    pub tau: Option<f64>,
    /// By how much masked and exact removal differed at most; none when not audited.
    pub audit_max_nats: Option<f64>,
    /// What exact removal computed, beside `tokens_spent`. Only where every segment was removed exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_tokens: Option<u64>,
    /// Without the audit and without reading the context once.
    pub tokens_spent: u64,
    /// Tokens that can go together at a loss of at most half a nat.
    pub removable_tokens: Option<u64>,
    pub segments: Vec<SegmentReport>,
    /// Only where the call says what its reader did not get.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<WithheldReport>,
    /// Only where the call has summaries with their originals.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub summaries: Vec<SummaryReport>,
    /// The place of the call among those that were given.
    #[serde(skip)]
    pub index: usize,
    #[serde(skip)]
    pub reader: String,
    #[serde(skip)]
    pub looked_for_withheld: bool,
    /// Tokens of probe and action.
    #[serde(skip)]
    pub probe_tokens: u64,
    #[serde(skip)]
    pub costs: Costs,
}

impl CallReport {
    pub fn context_tokens(&self) -> u64 {
        self.segments.iter().map(|segment| segment.tokens).sum()
    }

    /// Tokens of an answer-based evaluation of this call.
    pub fn answer_based_tokens(&self) -> u64 {
        let filled = self.segments.iter().filter(|segment| segment.tokens > 0).count();
        answer_based(filled as u64, self.context_tokens())
    }
}

/// One segment of a call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SegmentReport {
    pub id: String,
    pub owner: String,
    pub kind: String,
    pub tokens: u64,
    /// The first segment that says the same; `CALL/ID` where the id alone would mean another.
    pub dup_of: Option<String>,
    pub attention: Option<f64>,
    pub bits: Option<f64>,
    pub necessity: Option<f64>,
    pub sufficiency: Option<f64>,
    pub cluster_out: Option<f64>,
    /// The necessity as exact removal finds it. Only where every segment was removed exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<f64>,
    #[serde(serialize_with = "verdict")]
    pub verdict: Verdict,
    /// Only at `redundant-with`: who says the same, where that was found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redundant_with: Vec<String>,
}

/// A segment that its reader did not get.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WithheldReport {
    pub id: String,
    pub owner: String,
    pub tokens: u64,
    /// By how much it would have made the action likelier.
    pub gain_nats: f64,
    /// By tau or more.
    pub mattered: bool,
}

/// What a summary kept of its originals: 1 is all. None where they were worth no more than a nat.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SummaryReport {
    pub id: String,
    pub tokens: u64,
    pub retention: Option<f64>,
    pub per_100_tokens: Option<f64>,
}

/// What one agent gave another. Null where there was nothing to judge.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    pub from: String,
    pub to: String,
    /// Of the tokens that were received, the part in essential and redundant segments.
    pub precision: Option<f64>,
    /// Of the segments that matter, the part that was received; null where nobody looked at what was withheld.
    pub recall: Option<f64>,
}

/// A call that was not evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    pub call: String,
    pub why: String,
    #[serde(skip)]
    pub over: Over,
}

/// What a call was too long for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Over {
    /// The model's window.
    #[default]
    Window,
    /// What was left of the evaluation's own budget.
    Budget,
}

impl Report {
    /// The report as JSON, with a line's end.
    pub fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

fn verdict<S: Serializer>(verdict: &Verdict, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(verdict.name())
}

/// Four places behind the point; never a negative zero.
pub(crate) fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4 + 0.0
}
