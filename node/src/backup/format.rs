//! The file: `magic`, then frames of `kind u8, length u32 LE, bytes`. First a head, then the ledger in pieces, then
//! segments in any order, and an end that counts them and holds the BLAKE3 of all bytes before it.

use super::BackupError;
use minicbor::{Decode, Encode};
use types::{ClusterId, Hash, ProjectName, limits};

pub(crate) const MAGIC: [u8; 8] = *b"QUORBAK\n";
/// Format written by this version, and the newest it can read.
pub(crate) const FORMAT: u32 = 1;
/// The oldest reader that understands what this version writes.
const MIN_READER: u32 = 1;
/// Bytes before a frame's own.
pub(crate) const FRAME_HEAD: usize = 5;
/// Head and end are a few hundred bytes.
const SMALL_BYTES: usize = 64 << 10;

/// What the file is of.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Head {
    #[n(0)]
    pub format: u32,
    #[n(1)]
    pub min_reader: u32,
    #[n(2)]
    pub cluster: ClusterId,
    #[n(3)]
    pub incarnation: u32,
    /// The last entry that is in the ledger of this file.
    #[n(4)]
    pub applied_index: u64,
    #[n(5)]
    pub state_hash: Hash,
    /// The ledger's own wall clock at that entry, Unix milliseconds.
    #[n(6)]
    pub wall_ms: u64,
    #[n(7)]
    pub ledger_bytes: u64,
    #[n(8)]
    pub ledger_hash: Hash,
    /// Of the program that wrote it.
    #[n(9)]
    pub version: String,
}

/// One segment with the project that its name belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Stored {
    #[n(0)]
    pub project: ProjectName,
    #[n(1)]
    pub hash: Hash,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

/// What came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct End {
    #[n(0)]
    pub tasks: u64,
    #[n(1)]
    pub segments: u64,
    /// Named by the ledger or a journal, and held by no node that could be reached.
    #[n(2)]
    pub missing: u64,
    /// Of every byte before this frame.
    #[n(3)]
    pub hash: Hash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Head,
    Ledger,
    Segment,
    End,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Kind::Head => 1,
            Kind::Ledger => 2,
            Kind::Segment => 3,
            Kind::End => 4,
        }
    }

    /// The most bytes of such a frame: a length in a file is never believed beyond it.
    fn limit(self) -> usize {
        match self {
            Kind::Head | Kind::End => SMALL_BYTES,
            Kind::Ledger => limits::CHUNK_BYTES,
            Kind::Segment => context::STORED_BYTES + SMALL_BYTES,
        }
    }
}

impl Head {
    pub(crate) fn of(state: &ledger::State, ledger: &[u8]) -> Head {
        Head {
            format: FORMAT,
            min_reader: MIN_READER,
            cluster: state.cluster_id().unwrap_or_default(),
            incarnation: state.incarnation(),
            applied_index: state.applied_index(),
            state_hash: state.state_hash(),
            wall_ms: state.wall_ms(),
            ledger_bytes: ledger.len() as u64,
            ledger_hash: Hash::of(ledger),
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// The first two fields are read alone, because a newer format may differ in all others.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Head, BackupError> {
        let damaged = |error: minicbor::decode::Error| BackupError::Damaged { at: 8, why: error.to_string() };
        let mut decoder = minicbor::Decoder::new(bytes);
        let first = (|| {
            decoder.array()?;
            decoder.u32()?;
            decoder.u32()
        })();
        match first.map_err(damaged)? {
            needs if needs > FORMAT => Err(BackupError::TooNew { needs, reads: FORMAT }),
            _ => types::decode(bytes).map_err(damaged),
        }
    }
}

/// A frame as it is written.
pub(crate) fn frame(kind: Kind, bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_HEAD + bytes.len());
    frame.push(kind.code());
    frame.extend((bytes.len() as u32).to_le_bytes());
    frame.extend(bytes);
    frame
}

/// Kind and length of the frame that begins so.
pub(crate) fn parse_head(head: [u8; FRAME_HEAD], at: u64) -> Result<(Kind, usize), BackupError> {
    let [code, length @ ..] = head;
    let length = u32::from_le_bytes(length) as usize;
    let kinds = [Kind::Head, Kind::Ledger, Kind::Segment, Kind::End];
    let kind = kinds.into_iter().find(|kind| kind.code() == code);
    match kind {
        Some(kind) if length <= kind.limit() => Ok((kind, length)),
        Some(_) => Err(BackupError::Damaged { at, why: format!("a part claims {length} bytes") }),
        None => Err(BackupError::Damaged { at, why: format!("no part has the kind {code}") }),
    }
}
