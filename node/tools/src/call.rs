//! One call, and what came of it.

use serde_json::Value;
use std::path::PathBuf;
use types::ProjectName;

/// One call of one tool.
#[derive(Clone, Debug)]
pub struct Call {
    /// `TASKUID/STEP/INDEX`: the same over crashes and nodes. Tools that can, deduplicate by it.
    pub operation: String,
    /// How often the operation was tried; for tracing only.
    pub attempt: u32,
    pub project: ProjectName,
    /// A name as [`crate::ToolSpec::name`] has it.
    pub tool: String,
    /// An object that fits the tool's schema; anything else is refused.
    pub arguments: Value,
    /// Less or more time than the tool's own, in ms.
    pub timeout_ms: Option<u64>,
    /// Less or more output than the tool's own.
    pub output_bytes: Option<usize>,
    /// The task's own work folder; made when a tool needs it. Must be the node's to name, never a model's.
    pub folder: PathBuf,
}

/// What came of a call. Messages say what happened, why, and what to do next; they may be shown to a model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The tool answered, perhaps that it failed. `text` is clean of control characters and within the call's bytes;
    /// `cut_bytes` says how many bytes of it are missing.
    Answered { text: String, is_error: bool, cut_bytes: usize },
    /// Nothing happened, for certain: the call may be made again, or changed and made.
    Refused { reason: &'static str, message: String },
    /// It may or may not have happened.
    Unknown { reason: &'static str, message: String },
}

impl Outcome {
    pub fn answered(text: impl Into<String>) -> Outcome {
        Outcome::Answered { text: text.into(), is_error: false, cut_bytes: 0 }
    }

    pub fn failed(text: impl Into<String>) -> Outcome {
        Outcome::Answered { text: text.into(), is_error: true, cut_bytes: 0 }
    }

    pub fn refused(reason: &'static str, message: impl Into<String>) -> Outcome {
        Outcome::Refused { reason, message: message.into() }
    }

    pub fn unknown(reason: &'static str, message: impl Into<String>) -> Outcome {
        Outcome::Unknown { reason, message: message.into() }
    }

    /// The reason, where there is one.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Outcome::Answered { .. } => None,
            Outcome::Refused { reason, .. } | Outcome::Unknown { reason, .. } => Some(reason),
        }
    }

    /// What a model or a person is shown.
    pub fn text(&self) -> &str {
        match self {
            Outcome::Answered { text, .. } => text,
            Outcome::Refused { message, .. } | Outcome::Unknown { message, .. } => message,
        }
    }
}

/// The stable words of refusals and unknown outcomes.
pub mod reason {
    /// No such tool here, or not among those the operator allows.
    pub const TOOL_NOT_FOUND: &str = "TOOL_NOT_FOUND";
    /// The arguments do not fit the tool's schema.
    pub const INVALID_ARGUMENTS: &str = "INVALID_ARGUMENTS";
    /// The tool's server cannot be started or reached.
    pub const TOOL_UNAVAILABLE: &str = "TOOL_UNAVAILABLE";
    /// Too many calls of it run; this one did not begin within its time.
    pub const TOOL_BUSY: &str = "TOOL_BUSY";
    /// No answer within the call's time.
    pub const TOOL_TIMEOUT: &str = "TOOL_TIMEOUT";
    /// The caller stopped it.
    pub const TOOL_STOPPED: &str = "TOOL_STOPPED";
    /// The server ended, or the connection to it was lost, while the call ran.
    pub const TOOL_CRASHED: &str = "TOOL_CRASHED";
    /// The address is not on the operator's list, or not a public one.
    pub const EGRESS_DENIED: &str = "EGRESS_DENIED";
    /// The address cannot be reached; nothing was sent.
    pub const UNREACHABLE: &str = "UNREACHABLE";
    /// The path leads out of the task's folder, or to something that is no file.
    pub const PATH_DENIED: &str = "PATH_DENIED";
    /// The file, or what was asked of it, is too large.
    pub const FILE_TOO_LARGE: &str = "FILE_TOO_LARGE";
    /// The work folder cannot be read or written.
    pub const FOLDER_ERROR: &str = "FOLDER_ERROR";
}
