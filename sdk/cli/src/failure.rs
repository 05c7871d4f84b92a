//! What a verb says when it fails, and the number it ends with.

use crate::output::Format;
use quorate_sdk::{Code, Error};
use serde::Serialize;
use std::io::{self, Write};
use std::process::ExitCode;

/// How a verb ended, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Denied = 4,
    /// Nobody answered, or nobody knows whether it took effect.
    Unavailable = 5,
    Conflict = 6,
    Quota = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

impl Exit {
    /// Some reasons say more than their code: a reused request id is a conflict, whatever gRPC calls it.
    pub fn of(error: &Error) -> Exit {
        match (error.reason.as_str(), error.code) {
            ("REQUEST_ID_REUSED", _) => Exit::Conflict,
            ("REQUEST_TOO_LARGE", _) => Exit::Usage,
            ("UNKNOWN_OUTCOME", _) => Exit::Unavailable,
            (_, Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented) => Exit::Usage,
            (_, Code::NotFound) => Exit::NotFound,
            (_, Code::PermissionDenied | Code::Unauthenticated) => Exit::Denied,
            (_, Code::Unavailable | Code::DeadlineExceeded) => Exit::Unavailable,
            (_, Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition) => Exit::Conflict,
            (_, Code::ResourceExhausted) => Exit::Quota,
            (_, Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss) => Exit::Failed,
        }
    }
}

/// Why a verb ended early.
#[derive(Debug)]
pub enum Failure {
    Error(Box<Error>),
    /// The task ended, but not well: exit 1, whatever the words say.
    TaskFailed(Box<Error>),
    /// Whoever read our output has gone; that is no failure of ours.
    NobodyReads,
}

impl Failure {
    /// A verb that ran on this machine alone failed: exit 1. Such messages say themselves what to do.
    pub fn here(message: String, cause: Option<String>) -> Failure {
        let reason = "FAILED".to_string();
        let error = Error { code: Code::Internal, reason, message, cause, next: None, retry_after_ms: None };
        Failure::Error(Box::new(error))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Error(Box::new(error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::NobodyReads;
        }
        let next = "check where the output goes, such as the disk's free space";
        failed(Code::Internal, "OUTPUT", format!("the output could not be written: {error}"), next)
    }
}

pub(crate) fn failed(code: Code, reason: &str, message: impl Into<String>, next: &str) -> Failure {
    Error::local(code, reason, message, next).into()
}

pub(crate) fn usage(reason: &str, message: impl Into<String>, next: &str) -> Failure {
    failed(Code::InvalidArgument, reason, message, next)
}

pub(crate) fn no_runtime(error: io::Error) -> Failure {
    let next = "check the limits on threads and open files (ulimit -a)";
    failed(Code::Internal, "NO_RUNTIME", format!("this process can do no network IO: {error}"), next)
}

/// Prints what happened, why, and what to do next. In JSON for whoever asked for JSON.
pub fn report(failure: &Failure, format: Format, stderr: &mut dyn Write) -> Exit {
    let (error, exit) = match failure {
        Failure::NobodyReads => return Exit::Ok,
        Failure::Error(error) => (error, Exit::of(error)),
        Failure::TaskFailed(error) => (error, Exit::Failed),
    };
    // When stderr is closed too, the exit code still speaks.
    let _ = match format {
        Format::Table | Format::Csv => stderr.write_all(in_words(error).as_bytes()),
        Format::Json | Format::Jsonl => writeln!(stderr, "{}", in_json(error)),
    };
    exit
}

fn in_words(error: &Error) -> String {
    let mut text = format!("error: {}\n", error.message);
    if let Some(cause) = error.cause.as_ref().filter(|cause| **cause != error.message) {
        text += &format!("  why:  {cause}\n");
    }
    if let Some(next) = &error.next {
        text += &format!("  next: {next}\n");
    }
    crate::output::printable_lines(&text)
}

fn in_json(error: &Error) -> String {
    #[derive(Serialize)]
    struct Wrapped<'a> {
        error: &'a Error,
    }
    serde_json::to_string(&Wrapped { error })
        .unwrap_or_else(|why| format!("{{\"error\":{{\"message\":\"{why}\"}}}}"))
}

/// Ends a run whose arguments could not be read: help and version go to stdout, the rest is a usage error.
pub fn usage_error(error: &clap::Error, wants_json: bool) -> ExitCode {
    use clap::error::ErrorKind;
    let asked = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if asked || !wants_json {
        let _ = error.print();
        return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
    }
    let words = error.to_string();
    let message = words.lines().next().unwrap_or_default().trim_start_matches("error: ");
    let failure = usage("USAGE", message, "`quorate help` and `quorate NOUN --help` show what there is");
    report(&failure, Format::Json, &mut io::stderr()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn error(code: Code, reason: &str) -> Error {
        Error::local(code, reason, "what", "next")
    }

    #[test]
    fn every_exit_code_is_reachable() {
        let mut seen: BTreeSet<Exit> =
            Code::ALL.iter().map(|code| Exit::of(&error(*code, code.name()))).collect();
        seen.insert(report(&Failure::NobodyReads, Format::Table, &mut io::sink()));
        let all = [
            Exit::Ok,
            Exit::Failed,
            Exit::Usage,
            Exit::NotFound,
            Exit::Denied,
            Exit::Unavailable,
            Exit::Conflict,
            Exit::Quota,
        ];
        assert_eq!(seen, BTreeSet::from(all));
        assert_eq!(all.map(|exit| exit as u8), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn what_users_meet_has_the_exit_code_they_expect() {
        let cases = [
            (Code::NotFound, "NOT_FOUND", Exit::NotFound),
            (Code::InvalidArgument, "REQUEST_ID_REUSED", Exit::Conflict),
            (Code::Aborted, "WRONG_ETAG", Exit::Conflict),
            (Code::AlreadyExists, "TASK_ID_TAKEN", Exit::Conflict),
            (Code::ResourceExhausted, "QUOTA_EXCEEDED", Exit::Quota),
            (Code::ResourceExhausted, "REQUEST_TOO_LARGE", Exit::Usage),
            (Code::Unavailable, "UNREACHABLE", Exit::Unavailable),
            (Code::DeadlineExceeded, "UNKNOWN_OUTCOME", Exit::Unavailable),
            (Code::Unauthenticated, "UNAUTHENTICATED", Exit::Denied),
            (Code::InvalidArgument, "INVALID_ARGUMENT", Exit::Usage),
        ];
        for (code, reason, exit) in cases {
            assert_eq!(Exit::of(&error(code, reason)), exit, "{reason}");
        }
    }

    #[test]
    fn a_failed_task_is_1_and_says_so() {
        let failure = Failure::TaskFailed(Box::new(error(Code::NotFound, "X")));
        assert_eq!(report(&failure, Format::Table, &mut io::sink()), Exit::Failed);
    }

    #[test]
    fn both_forms_say_what_why_and_what_next() {
        let mut error = error(Code::Unavailable, "UNREACHABLE");
        error.cause = Some("refused\u{1b}[31m".into());
        error.retry_after_ms = Some(500);
        let failure = Failure::Error(Box::new(error));
        let mut out = vec![];
        assert_eq!(report(&failure, Format::Table, &mut out), Exit::Unavailable);
        report(&failure, Format::Json, &mut out);
        insta::assert_snapshot!(String::from_utf8(out).unwrap());
    }
}
