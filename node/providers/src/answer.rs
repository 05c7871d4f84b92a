//! What comes out of a call: pieces as they are said, then an answer or a failure.

use crate::request::ToolCall;
use crate::usage::Usage;

/// A part of an answer while it is being said.
#[derive(Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text, never empty.
    Text(String),
    /// A call that is complete.
    Call(ToolCall),
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// By itself, or at a stop string.
    Stop,
    /// At `max_tokens`, or at the end of the window.
    Length,
    /// To have tools called.
    Calls,
    /// The provider would not say more.
    Filtered,
}

/// What was said.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Heard {
    pub text: String,
    pub calls: Vec<ToolCall>,
    /// Bytes that the model wrote and that are not in `text` and `calls`: thinking that the provider shows.
    pub unseen_bytes: u64,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub heard: Heard,
    pub finish: Finish,
    pub usage: Usage,
    /// Requests on the wire, with those that were refused.
    pub wire_attempts: u32,
    /// The provider's own id of this answer, for its support.
    pub provider_id: Option<String>,
}

/// No whole answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Failure {
    pub reason: Reason,
    /// What happened, why, what to do next. No key, no prompt.
    pub message: String,
    /// The same call may succeed later.
    pub retriable: bool,
    /// Not before so long.
    pub retry_after_ms: Option<u64>,
    /// The provider may have worked for this call and may charge for it: settle what was set aside at its maximum.
    pub unknown: bool,
    /// Requests on the wire, with those that found no connection; 0: the provider was not asked.
    pub wire_attempts: u32,
    /// What was said before the cut; already shown as pieces.
    pub heard: Option<Box<Heard>>,
}

/// Why there is no answer: stable words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The request is not what the provider takes.
    BadRequest,
    ContextTooLong,
    /// The provider does not take the key.
    KeyRefused,
    /// The key cannot be read here.
    NoKey,
    /// The key may not use this model.
    Forbidden,
    /// The account is out of money or quota.
    NoCredit,
    NoSuchModel,
    /// The endpoint is configured without tools.
    NoTools,
    /// The provider points elsewhere; nobody follows, because the key would.
    Redirected,
    RateLimited,
    Overloaded,
    /// 500 and the like.
    ProviderError,
    Unreachable,
    /// No word, or no next word, for too long.
    TimedOut,
    /// The call's deadline passed.
    DeadlineExceeded,
    /// The stream ended before the answer did.
    Cut,
    /// What came is not an answer.
    BrokenAnswer,
    /// More came than any answer has.
    TooLarge,
    /// Nobody is asked for a while after many failures.
    CircuitOpen,
    /// Too many calls wait already.
    Busy,
    /// Stopped from outside.
    Stopped,
    /// Nothing is recorded for this request.
    NotRecorded,
    /// The recording cannot be read or written.
    CassetteBroken,
}

impl Reason {
    pub const ALL: [Reason; 23] = [
        Reason::BadRequest,
        Reason::ContextTooLong,
        Reason::KeyRefused,
        Reason::NoKey,
        Reason::Forbidden,
        Reason::NoCredit,
        Reason::NoSuchModel,
        Reason::NoTools,
        Reason::Redirected,
        Reason::RateLimited,
        Reason::Overloaded,
        Reason::ProviderError,
        Reason::Unreachable,
        Reason::TimedOut,
        Reason::DeadlineExceeded,
        Reason::Cut,
        Reason::BrokenAnswer,
        Reason::TooLarge,
        Reason::CircuitOpen,
        Reason::Busy,
        Reason::Stopped,
        Reason::NotRecorded,
        Reason::CassetteBroken,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Reason::BadRequest => "BAD_REQUEST",
            Reason::ContextTooLong => "CONTEXT_TOO_LONG",
            Reason::KeyRefused => "KEY_REFUSED",
            Reason::NoKey => "NO_KEY",
            Reason::Forbidden => "FORBIDDEN",
            Reason::NoCredit => "NO_CREDIT",
            Reason::NoSuchModel => "NO_SUCH_MODEL",
            Reason::NoTools => "NO_TOOLS",
            Reason::Redirected => "REDIRECTED",
            Reason::RateLimited => "RATE_LIMITED",
            Reason::Overloaded => "OVERLOADED",
            Reason::ProviderError => "PROVIDER_ERROR",
            Reason::Unreachable => "UNREACHABLE",
            Reason::TimedOut => "TIMED_OUT",
            Reason::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Reason::Cut => "CUT",
            Reason::BrokenAnswer => "BROKEN_ANSWER",
            Reason::TooLarge => "TOO_LARGE",
            Reason::CircuitOpen => "CIRCUIT_OPEN",
            Reason::Busy => "BUSY",
            Reason::Stopped => "STOPPED",
            Reason::NotRecorded => "NOT_RECORDED",
            Reason::CassetteBroken => "CASSETTE_BROKEN",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Failure {
    /// Nothing was charged, and trying again as it is does not help.
    pub(crate) fn lasting(reason: Reason, message: impl Into<String>) -> Self {
        Failure {
            reason,
            message: message.into(),
            retriable: false,
            retry_after_ms: None,
            unknown: false,
            wire_attempts: 0,
            heard: None,
        }
    }

    /// Nothing was charged; later it may work.
    pub(crate) fn passing(reason: Reason, message: impl Into<String>) -> Self {
        Failure { retriable: true, ..Failure::lasting(reason, message) }
    }

    /// The provider may have worked.
    pub(crate) fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Failure { unknown: true, ..Failure::passing(reason, message) }
    }

    pub(crate) fn after(self, retry_after_ms: Option<u64>) -> Self {
        Failure { retry_after_ms, ..self }
    }
}

impl Heard {
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.calls.is_empty() && self.unseen_bytes == 0
    }

    /// Bytes that the model wrote.
    pub(crate) fn bytes(&self) -> u64 {
        let calls = self.calls.iter().map(|call| (call.name.len() + call.arguments.len()) as u64);
        self.text.len() as u64 + calls.sum::<u64>() + self.unseen_bytes
    }
}

// Answers are not logged: sizes are.

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Piece::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Piece::Call(call) => write!(f, "Call({call:?})"),
        }
    }
}

impl std::fmt::Debug for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Heard({} bytes, {:?}, {} unseen)", self.text.len(), self.calls, self.unseen_bytes)
    }
}
