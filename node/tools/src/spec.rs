//! What is known of a tool before it is called.

use serde_json::Value;

/// What may be done about a call of which nobody knows whether it happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// It is called again with the same operation id.
    Idempotent,
    /// It is never called again: a person says what happened.
    AtMostOnce,
    /// A person says what happened, or that it shall be called again.
    Ask,
}

/// One tool, as a model and an operator see it.
#[derive(Clone, PartialEq, Debug)]
pub struct ToolSpec {
    /// `SERVER.TOOL` for tools of MCP servers, otherwise a plain name like `http.get`.
    pub name: String,
    /// For the model; cleaned of control characters and cut at [`ToolSpec::DESCRIPTION_BYTES`].
    pub description: String,
    /// JSON schema of the arguments, which are always an object.
    pub parameters: Value,
    /// What the tool says of itself; an agent's definition may say otherwise.
    pub policy: Policy,
    /// A call that has not answered by then is given up, its outcome unknown.
    pub timeout_ms: u64,
    /// Longer answers are cut.
    pub output_bytes: usize,
}

impl ToolSpec {
    /// Descriptions go into every prompt: room for a page, not for a book.
    pub const DESCRIPTION_BYTES: usize = 8 << 10;
    /// A longer schema would not leave a small model any window.
    pub const SCHEMA_BYTES: usize = 256 << 10;
    /// Models' providers accept 64 characters and more; names are shown in tables.
    pub const NAME_BYTES: usize = types::limits::NAME_BYTES;
    /// Arguments of one call: a file's text, not a film.
    pub const ARGUMENTS_BYTES: usize = 2 << 20;
    /// When neither the tool's configuration nor the call says anything.
    pub const DEFAULT_TIMEOUT_MS: u64 = 60_000;
    pub const DEFAULT_OUTPUT_BYTES: usize = 64 << 10;
    /// No call may take longer, whoever asks: work of hours belongs into a task.
    pub const MAX_TIMEOUT_MS: u64 = 3_600_000;
    /// Less has no room for the mark of a cut and something to read.
    pub const MIN_OUTPUT_BYTES: usize = 256;
    /// An answer becomes a segment, and must fit one.
    pub const MAX_OUTPUT_BYTES: usize = types::limits::SEGMENT_BYTES / 2;

    /// Whether a tool may bear this name: what all providers of models accept, and dots.
    pub fn is_name(name: &str) -> bool {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        !name.is_empty() && name.len() <= Self::NAME_BYTES && name.chars().all(good)
    }
}
