//! What went wrong, in words a person can act on.

use serde::Serialize;
use std::time::Duration;
use tonic_types::StatusExt;

/// A failed call: what (`message`), why (`cause`), what to do next (`next`).
///
/// `reason` is a stable word for programs, such as `REQUEST_ID_REUSED`; where the server gave none it is the code's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub code: Code,
    pub reason: String,
    pub message: String,
    pub cause: Option<String>,
    pub next: Option<String>,
    /// How long to wait before asking again, where the server said so.
    pub retry_after_ms: Option<u64>,
}

/// The kinds of failure, named as in gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    Cancelled,
    Unknown,
    InvalidArgument,
    /// Nobody knows whether the call took effect: ask again with the same request id.
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl Code {
    pub const ALL: [Code; 16] = [
        Code::Cancelled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Code::Cancelled => "CANCELLED",
            Code::Unknown => "UNKNOWN",
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Code::NotFound => "NOT_FOUND",
            Code::AlreadyExists => "ALREADY_EXISTS",
            Code::PermissionDenied => "PERMISSION_DENIED",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::FailedPrecondition => "FAILED_PRECONDITION",
            Code::Aborted => "ABORTED",
            Code::OutOfRange => "OUT_OF_RANGE",
            Code::Unimplemented => "UNIMPLEMENTED",
            Code::Internal => "INTERNAL",
            Code::Unavailable => "UNAVAILABLE",
            Code::DataLoss => "DATA_LOSS",
            Code::Unauthenticated => "UNAUTHENTICATED",
        }
    }

    fn from_grpc(code: tonic::Code) -> Code {
        match code {
            tonic::Code::Cancelled => Code::Cancelled,
            tonic::Code::InvalidArgument => Code::InvalidArgument,
            tonic::Code::DeadlineExceeded => Code::DeadlineExceeded,
            tonic::Code::NotFound => Code::NotFound,
            tonic::Code::AlreadyExists => Code::AlreadyExists,
            tonic::Code::PermissionDenied => Code::PermissionDenied,
            tonic::Code::ResourceExhausted => Code::ResourceExhausted,
            tonic::Code::FailedPrecondition => Code::FailedPrecondition,
            tonic::Code::Aborted => Code::Aborted,
            tonic::Code::OutOfRange => Code::OutOfRange,
            tonic::Code::Unimplemented => Code::Unimplemented,
            tonic::Code::Internal => Code::Internal,
            tonic::Code::Unavailable => Code::Unavailable,
            tonic::Code::DataLoss => Code::DataLoss,
            tonic::Code::Unauthenticated => Code::Unauthenticated,
            tonic::Code::Unknown | tonic::Code::Ok => Code::Unknown,
        }
    }

    /// What to do when the server gave no advice of its own.
    fn advice(self) -> Option<&'static str> {
        match self {
            Code::InvalidArgument | Code::OutOfRange => Some("correct the request; nothing was changed"),
            Code::NotFound => Some("check the name and the project"),
            Code::AlreadyExists | Code::Aborted => Some("read the current state, then decide again"),
            Code::FailedPrecondition => Some("read the current state; nothing was changed"),
            Code::PermissionDenied => Some("ask an admin of the project for the role this needs"),
            Code::Unauthenticated => Some("connect with credentials that the cluster knows"),
            Code::ResourceExhausted => Some("wait, or have the quota raised: `quorate quota tree` shows it"),
            Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled => {
                Some("the outcome is unknown: repeat with the same request id")
            }
            Code::Unimplemented => {
                Some("the node runs another version: compare `quorate --version` on both sides")
            }
            Code::Internal | Code::DataLoss => Some("look at the log of the node that answered"),
        }
    }
}

impl Error {
    /// An error made on this side, before anything was sent.
    pub fn local(code: Code, reason: &str, message: impl Into<String>, next: impl Into<String>) -> Error {
        Error {
            code,
            reason: reason.to_string(),
            message: message.into(),
            cause: None,
            next: Some(next.into()),
            retry_after_ms: None,
        }
    }

    pub(crate) fn with_cause(mut self, cause: impl Into<String>) -> Error {
        self.cause = Some(cause.into());
        self
    }

    /// Reads code and details of an answer. The server puts `cause` and `next` into the metadata of `ErrorInfo`.
    pub(crate) fn from_status(status: &tonic::Status) -> Error {
        let code = Code::from_grpc(status.code());
        let info = status.get_details_error_info();
        let told =
            |key: &str| info.as_ref().and_then(|i| i.metadata.get(key)).filter(|v| !v.is_empty()).cloned();
        Error {
            code,
            reason: info
                .as_ref()
                .map(|i| i.reason.clone())
                .filter(|r| !r.is_empty())
                .unwrap_or(code.name().into()),
            message: message_of(status, code),
            cause: told("cause").or_else(|| cause_of(status)),
            next: told("next").or_else(|| code.advice().map(String::from)),
            retry_after_ms: retry_after(status).map(|d| d.as_millis() as u64),
        }
    }
}

fn message_of(status: &tonic::Status, code: Code) -> String {
    if status.message().is_empty() {
        format!("the cluster answered {}", code.name())
    } else {
        status.message().into()
    }
}

fn retry_after(status: &tonic::Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}

/// The standard details that name what was wrong, as one line.
fn cause_of(status: &tonic::Status) -> Option<String> {
    let quota = status.get_details_quota_failure().map(|d| d.violations).unwrap_or_default();
    let state = status.get_details_precondition_failure().map(|d| d.violations).unwrap_or_default();
    let fields = status.get_details_bad_request().map(|d| d.field_violations).unwrap_or_default();
    let lines: Vec<String> = quota
        .into_iter()
        .map(|v| (v.subject, v.description))
        .chain(state.into_iter().map(|v| (v.subject, v.description)))
        .chain(fields.into_iter().map(|v| (v.field, v.description)))
        .map(|(what, why)| if what.is_empty() { why } else { format!("{what}: {why}") })
        .collect();
    if lines.is_empty() { None } else { Some(lines.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn details_become_fields() {
        let mut details = ErrorDetails::new();
        let told =
            [("cause".to_string(), "because".to_string()), ("next".to_string(), "do this".to_string())];
        details.set_error_info("OVER_QUOTA", "quorate", told);
        details.set_retry_info(Some(Duration::from_millis(1500)));
        let status = tonic::Status::with_error_details(tonic::Code::ResourceExhausted, "over", details);
        let expected = Error {
            code: Code::ResourceExhausted,
            reason: "OVER_QUOTA".into(),
            message: "over".into(),
            cause: Some("because".into()),
            next: Some("do this".into()),
            retry_after_ms: Some(1500),
        };
        assert_eq!(Error::from_status(&status), expected);
    }

    #[test]
    fn a_bare_status_still_says_what_to_do() {
        for code in Code::ALL {
            let error = Error::from_status(&tonic::Status::new(tonic::Code::from_i32(number(code)), ""));
            assert_eq!(error.code, code);
            assert_eq!(error.reason, code.name());
            assert!(!error.message.is_empty() && error.next.is_some(), "{code:?}");
        }
    }

    #[test]
    fn standard_violations_become_the_cause() {
        let mut details = ErrorDetails::new();
        details.add_quota_failure_violation("projects/default", "running 4 of 4");
        details.add_bad_request_violation("priority", "is 12, at most 9");
        let status = tonic::Status::with_error_details(tonic::Code::ResourceExhausted, "over", details);
        let cause = Error::from_status(&status).cause.unwrap();
        assert_eq!(cause, "projects/default: running 4 of 4; priority: is 12, at most 9");
    }

    fn number(code: Code) -> i32 {
        Code::ALL.iter().position(|c| *c == code).unwrap() as i32 + 1
    }
}
