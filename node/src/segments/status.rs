//! Our errors as gRPC statuses, and back: `Unavailable` and `ResourceExhausted` may be tried again, the rest not.

use tonic::{Code, Status};

use super::parcel::ParcelError;
use crate::live::TooManyWatchers;
use crate::models::ModelError;
use crate::store::StoreError;

pub(super) fn from_parcel(error: ParcelError) -> Status {
    let code = match error {
        ParcelError::OtherCluster { .. } => Code::FailedPrecondition,
        ParcelError::OtherProject { .. } | ParcelError::Malformed(_) => Code::InvalidArgument,
        ParcelError::WrongName(_) => Code::DataLoss,
    };
    Status::new(code, error.to_string())
}

pub(super) fn from_store(error: StoreError) -> Status {
    let code = match error {
        StoreError::WrongName { .. } => Code::DataLoss,
        StoreError::Size { .. } => Code::InvalidArgument,
        StoreError::Full { .. } => Code::ResourceExhausted,
        StoreError::Forgotten { .. } => Code::FailedPrecondition,
        StoreError::Failed { .. }
        | StoreError::Index { .. }
        | StoreError::Unreadable { .. }
        | StoreError::Closed => Code::Unavailable,
    };
    Status::new(code, error.to_string())
}

pub(super) fn from_model(error: ModelError) -> Status {
    Status::unavailable(error.to_string())
}

pub(super) fn from_watchers(error: TooManyWatchers) -> Status {
    Status::resource_exhausted(error.to_string())
}

/// Whether another try, here or at another node, may succeed.
pub(super) fn is_retriable(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::ResourceExhausted
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
    )
}
