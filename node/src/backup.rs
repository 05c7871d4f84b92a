//! Backups: the ledger at one entry and every segment that it names, in one file; and clusters that begin from one.
//!
//! Nothing here runs in a cluster but [`write::archive`], which any node's door serves. Reading a file again needs no
//! cluster: [`read::verify`] looks at every byte, [`restore::restore`] makes a node's empty folder a member's.
//!
//! Read: `format` (the file), `write`, `read`, `restore`.

pub(crate) mod format;
pub(crate) mod read;
pub(crate) mod restore;
#[cfg(test)]
mod tests;
pub(crate) mod write;

use crate::segments::PeerError;
use crate::store::StoreError;
use context::SegmentError;
use mind::StepRecord;
use types::{Hash, ProjectName};

/// Why there is no backup, or nothing to begin from.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    #[error("{file}: {why}")]
    Unreadable { file: String, why: String },
    #[error("the archive is damaged at byte {at}: {why}; take another backup, this one cannot be trusted")]
    Damaged { at: u64, why: String },
    #[error("the archive ends after {at} bytes, before its end mark: it was cut off; take another backup")]
    CutOff { at: u64 },
    #[error(
        "the archive needs a reader of form {needs}, this version reads up to {reads}: use the newer version"
    )]
    TooNew { needs: u32, reads: u32 },
    #[error("this is no archive of `quorate cluster snapshot`")]
    NoArchive,
    #[error("{0}")]
    Refused(String),
    #[error("the ledger cannot be had: {0}")]
    Ledger(String),
    #[error(
        "a segment cannot be had: {0}; start the nodes that hold it, or say --allow-missing and go on without it"
    )]
    Segment(#[from] PeerError),
    #[error("this node's store: {0}")]
    Store(#[from] StoreError),
    #[error("the disk under data_dir: {0}")]
    Disk(#[from] std::io::Error),
    /// Whoever asked has gone.
    #[error("nobody reads the backup any more")]
    NobodyReads,
}

/// What a segment of a backup is. Records name more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Is {
    Text,
    Step,
    Memory,
    Board,
}

/// What a segment names, and the record of its kind before it.
pub(crate) fn named_by(
    is: Is,
    project: &ProjectName,
    hash: Hash,
    bytes: &[u8],
) -> Result<(Vec<Hash>, Option<Hash>), SegmentError> {
    match is {
        Is::Text => Ok((Vec::new(), None)),
        Is::Step => StepRecord::open(project, hash, bytes).map(|record| (record.names(), record.prev)),
        Is::Board => {
            let sheet = context::open(project, hash, bytes)?;
            Ok((crate::boards::named_by(&sheet.text), None))
        }
        Is::Memory => memory::Record::open(project, hash, bytes).map(|record| (record.names(), record.prev)),
    }
}
