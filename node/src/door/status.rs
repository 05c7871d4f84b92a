//! The only place of the door that makes a `tonic::Status`: what happened, why, what to do next, and a stable reason.

use coordinator::ClientError;
use ledger::reply::Refusal;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

const DOMAIN: &str = "quorate";

/// An error with a stable reason and the next step.
pub(crate) fn error(code: Code, reason: &str, message: &str, next: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, [("next".to_string(), next.to_string())]);
    if code == Code::Unavailable {
        details.set_retry_info(Some(Duration::from_millis(500)));
    }
    Status::with_error_details(code, message, details)
}

/// A field of the request that cannot be used.
pub(crate) fn invalid(field: &str, why: &str) -> Status {
    error(
        Code::InvalidArgument,
        "INVALID_ARGUMENT",
        &format!("{field}: {why}"),
        "correct the field and send it again",
    )
}

pub(crate) fn not_found(what: &str, name: &str, list: &str) -> Status {
    let message = format!("there is no {what} {name:?}");
    error(Code::NotFound, "NOT_FOUND", &message, &format!("`{list}` shows what there is"))
}

pub(crate) fn from_client(failed: ClientError) -> Status {
    let text = failed.to_string();
    match failed {
        ClientError::Unavailable { .. } => error(
            Code::Unavailable,
            "NO_LEADER",
            &text,
            "try again with the same request id; check `quorate cluster status`",
        ),
        ClientError::TooLarge { .. } => error(
            Code::ResourceExhausted,
            "REQUEST_TOO_LARGE",
            &text,
            "send fewer or shorter names, labels and inputs",
        ),
        ClientError::Refused(_) => error(Code::FailedPrecondition, "REFUSED", &text, "see the message"),
    }
}

pub(crate) fn from_refusal(refusal: Refusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        Refusal::AlreadyInitialised => error(
            Code::FailedPrecondition,
            "ALREADY_INITIALISED",
            &text,
            "join further nodes with `join` in their config",
        ),
        Refusal::NotInitialised => error(
            Code::FailedPrecondition,
            "NOT_INITIALISED",
            &text,
            "run `quorate cluster init` on the first node",
        ),
        Refusal::NameTaken { .. } => error(
            Code::AlreadyExists,
            "NODE_NAME_TAKEN",
            &text,
            "give the node another name, or bring its old disk back; a lost disk never returns under its old id",
        ),
        Refusal::NotFound { what, name } => not_found(&what, &name, &format!("quorate {what} list")),
        Refusal::TaskIdTaken { .. } => error(
            Code::AlreadyExists,
            "TASK_ID_TAKEN",
            &text,
            "choose another task id, or look at the task that has it",
        ),
        Refusal::RequestIdReused { .. } => error(
            Code::InvalidArgument,
            "REQUEST_ID_REUSED",
            &text,
            "use a new request id for a new request; the same id only repeats the same request",
        ),
        Refusal::RequestIdExpired { .. } => error(
            Code::FailedPrecondition,
            "REQUEST_ID_EXPIRED",
            &text,
            "look whether the change happened, then use a new id",
        ),
        Refusal::WrongEtag { .. } => error(
            Code::Aborted,
            "WRONG_ETAG",
            &text,
            "read it again, look at what changed, and send the new etag",
        ),
        Refusal::Fenced { .. } => {
            error(Code::Aborted, "STALE_EPOCH", &text, "nothing to do: another node runs the task")
        }
        Refusal::WrongState { .. } => error(
            Code::FailedPrecondition,
            "WRONG_STATE",
            &text,
            "`quorate task get` shows its state; final tasks stay as they are",
        ),
        Refusal::OverQuota { .. } => {
            let mut details = ErrorDetails::new();
            details.set_error_info(
                "QUOTA_EXCEEDED",
                DOMAIN,
                [("next".to_string(), "raise the limit with `quorate quota set`, or wait".to_string())],
            );
            details.add_quota_failure_violation("quota", text.clone());
            Status::with_error_details(Code::ResourceExhausted, text, details)
        }
        Refusal::WrongHead { .. } => error(
            Code::Aborted,
            "WRONG_HEAD",
            &text,
            "read the chain again and repeat the change behind its new head",
        ),
        Refusal::Answered { .. } => error(
            Code::FailedPrecondition,
            "ALREADY_ANSWERED",
            &text,
            "nothing to do: the first answer counts; `quorate task get` shows what is still open",
        ),
        Refusal::Busy { .. } => error(
            Code::FailedPrecondition,
            "TASK_BUSY",
            &text,
            "wait until it is WAITING_INPUT, or say what is to happen: enqueue, interrupt or rollback",
        ),
        Refusal::Unpriced { .. } => error(
            Code::FailedPrecondition,
            "UNKNOWN_PRICE",
            &text,
            "set it with `quorate price set MODEL input=… cached=… output=…`; 0 is a price, too",
        ),
        Refusal::Invalid { what, why } => invalid(&what, &why),
        Refusal::TooFewCopies { .. } => error(
            Code::Unavailable,
            "TOO_FEW_COPIES",
            &text,
            "bring a second store back; `quorate node list` shows which are up",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_reason_and_a_next_step() {
        let status = from_refusal(Refusal::WrongEtag { given: 1, current: 2 });
        let info = status.get_error_details().error_info().cloned().expect("error info");
        assert_eq!((status.code(), info.reason.as_str()), (Code::Aborted, "WRONG_ETAG"));
        assert!(info.metadata["next"].contains("read it again"));
    }
}
