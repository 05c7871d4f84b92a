//! Why a memory could not be read or changed.

use coordinator::ClientError;
use ledger::reply::Refusal;

#[derive(Debug, thiserror::Error)]
pub(crate) enum MemoryError {
    #[error("{0}")]
    Invalid(String),
    #[error(
        "the request id {0:?} was used for another text; use a new one, the same id only repeats the same request"
    )]
    RequestReused(String),
    #[error("item {item} is not in this memory; it was forgotten, or never remembered here")]
    Absent { item: String },
    #[error("what this request remembered was forgotten since; remember it with a new request id")]
    Forgotten,
    #[error("{0:?} is the beginning of several ids; give more of it")]
    Ambiguous(String),
    #[error(transparent)]
    Full(#[from] ::memory::ShelfError),
    #[error("too many write to this memory at the same time; try again with the same request id")]
    Busy,
    #[error("the memory cannot be read: {0}; `quorate node list` shows which nodes are down, then try again")]
    Lost(String),
    #[error("the memory is damaged: {0}")]
    Damaged(String),
    #[error("{0}")]
    NotDurable(String),
    #[error("the encoder failed: {0}; search by words")]
    Encoder(String),
    #[error(transparent)]
    Ledger(#[from] ClientError),
    #[error("{0}")]
    Refused(Refusal),
}
