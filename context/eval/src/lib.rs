//! What of a context mattered: recorded calls come in, a report goes out.
//!
//! A recorded call is what an agent read (segments), what it was asked last (the probe) and what it then did (the action).
//! The question is how likely the action is with a segment left out, with it alone, and with all left out that say
//! the same. Nothing is generated and nobody judges, so the same calls have the same report.
//!
//! It is no engine: who scores is a trait. It knows no file, no clock and no randomness; where something is
//! picked, the chain's hash picks it.
//!
//! Read: `call` (what comes in; `read` for files of it), `scorer` (what an engine must do), `duplicates` (what needs no
//! model), `plan` (which contexts are scored), `judge` (numbers and verdicts), `trim` (what can go), `evaluate` with
//! `measure` (the order of things), `sharing`, `suggest`, `report`.

mod call;
mod duplicates;
mod evaluate;
mod judge;
mod measure;
mod plan;
mod read;
mod report;
mod scorer;
mod sharing;
mod suggest;
mod trim;

pub use call::{Call, Flaw, SEGMENTS, Segment, WITHHELD, fill_withheld, shorten_probe};
pub use duplicates::{Duplicates, Place, fingerprints, groups};
pub use evaluate::{EvaluateError, Settings, evaluate};
pub use judge::{AUDIT_NATS, GATE_NATS, LOSS_NATS, TAU_LEAST_NATS, Values, Verdict, retention, tau, verdict};
pub use measure::{Costs, answer_based};
pub use plan::{AUDITED, Audit, Child, How, Meaning, Pieces};
pub use read::{CALLS, Form, LINE_BYTES, ReadError, read};
pub use report::{
    CallReport, Over, Pair, Report, SegmentReport, Skipped, SummaryReport, WithheldReport, html, table,
};
pub use scorer::{Observed, Scorer, Tokenised};
pub use suggest::{NoSuggestion, Rule, Suggestion, suggest};
pub use trim::{Trim, order};
