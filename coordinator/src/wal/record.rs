//! How a change looks in a file.
//!
//! `crc32 u32 | payload length u32 | synced u64 | kind u8 | payload | zeros to a multiple of 8`, little endian.
//! The checksum covers everything behind it. `synced` says up to which byte of this file everything was durable
//! when the record was written. It tells a torn end from damage: bad bytes that a later record calls durable
//! were not torn, they were destroyed.

use super::{Change, EntryId, Vote};
use bytes::Bytes;
use std::ops::Range;
use types::{ClusterId, NodeId};

/// Bytes before the payload.
const PREFIX: usize = 17;
/// Records start at multiples of this, so that the search behind bad bytes is short.
const ALIGN: usize = 8;
/// A longer length is damage, not a reason to allocate: an entry, with room for a membership's addresses.
const PAYLOAD_MAX: usize = types::limits::ENTRY_BYTES + (256 << 10);

const HEAD: u8 = 1;
const VOTE: u8 = 2;
const ENTRY: u8 = 3;
const TRUNCATE: u8 = 4;
const PURGE: u8 = 5;
const COMMIT: u8 = 6;

/// The first record of a file: what a reader must know, and what older files said.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub(super) struct Head {
    #[n(0)]
    pub(super) format: u32,
    #[n(1)]
    pub(super) min_reader: u32,
    #[n(2)]
    pub(super) cluster: ClusterId,
    #[n(3)]
    pub(super) node: NodeId,
    #[n(4)]
    pub(super) sequence: u64,
    #[n(5)]
    pub(super) vote: Option<Vote>,
    #[n(6)]
    pub(super) purged: Option<EntryId>,
    #[n(7)]
    pub(super) committed: Option<EntryId>,
}

#[derive(minicbor::Encode, minicbor::Decode)]
struct EntryRecord {
    #[n(0)]
    id: EntryId,
    #[cbor(n(1), with = "minicbor::bytes")]
    body: Vec<u8>,
}

#[derive(minicbor::Encode, minicbor::Decode)]
struct TruncateRecord {
    #[n(0)]
    from: u64,
}

#[derive(minicbor::Encode, minicbor::Decode)]
struct CommitRecord {
    #[n(0)]
    id: Option<EntryId>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Record {
    Head(Head),
    Change(Change),
}

/// A record's borders, its checksum proven.
pub(super) struct Frame {
    kind: u8,
    payload: Range<usize>,
    synced: u64,
    /// Where the next record starts.
    pub(super) end: usize,
}

/// What is behind the last good record.
#[derive(Debug, PartialEq)]
pub(super) enum Tail {
    /// Zeros.
    Clean,
    /// Bytes of writes that were never called durable.
    Torn,
    /// Bytes that a record at this place calls durable.
    Damaged { witness: usize },
}

/// A change as bytes: kind and payload.
pub(super) fn encode(change: &Change) -> (u8, Vec<u8>) {
    match change {
        Change::Vote(vote) => (VOTE, types::encode(vote)),
        Change::Append { id, body } => (ENTRY, types::encode(&EntryRecord { id: *id, body: body.to_vec() })),
        Change::Truncate { from } => (TRUNCATE, types::encode(&TruncateRecord { from: *from })),
        Change::Purge(id) => (PURGE, types::encode(id)),
        Change::Commit(id) => (COMMIT, types::encode(&CommitRecord { id: *id })),
    }
}

pub(super) fn encode_head(head: &Head) -> (u8, Vec<u8>) {
    (HEAD, types::encode(head))
}

/// Bytes a record takes in the file.
pub(super) fn framed_len(payload: usize) -> usize {
    (PREFIX + payload).next_multiple_of(ALIGN)
}

/// Appends a record to a buffer that starts at an aligned place.
pub(super) fn frame(out: &mut Vec<u8>, kind: u8, payload: &[u8], synced: u64) {
    let start = out.len();
    out.extend([0; 4]);
    out.extend((payload.len() as u32).to_le_bytes());
    out.extend(synced.to_le_bytes());
    out.push(kind);
    out.extend(payload);
    let crc = crc32fast::hash(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    out.resize(start + framed_len(payload.len()), 0);
}

/// The record at a place, if there is a good one.
pub(super) fn frame_at(bytes: &[u8], at: usize) -> Option<Frame> {
    // A record cannot know of durable bytes behind itself.
    checked_frame(bytes, at).filter(|frame| frame.synced <= at as u64)
}

/// A record that was read out of its file.
pub(super) fn frame_moved(bytes: &[u8]) -> Option<Frame> {
    checked_frame(bytes, 0)
}

fn checked_frame(bytes: &[u8], at: usize) -> Option<Frame> {
    let prefix = bytes.get(at..at + PREFIX)?;
    let len = u32::from_le_bytes(prefix[4..8].try_into().ok()?) as usize;
    let synced = u64::from_le_bytes(prefix[8..16].try_into().ok()?);
    if len == 0 || len > PAYLOAD_MAX {
        return None;
    }
    let payload = at + PREFIX..at + PREFIX + len;
    let covered = bytes.get(at + 4..payload.end)?;
    let crc = u32::from_le_bytes(prefix[..4].try_into().ok()?);
    let good = crc32fast::hash(covered) == crc;
    good.then(|| Frame { kind: prefix[16], payload, synced, end: at + framed_len(len) })
}

impl Frame {
    /// What the record says; an error where the bytes are whole but make no sense to this reader.
    pub(super) fn decode(&self, bytes: &[u8]) -> Result<Record, String> {
        let payload = &bytes[self.payload.clone()];
        let text = |e: minicbor::decode::Error| e.to_string();
        Ok(Record::Change(match self.kind {
            HEAD => return types::decode(payload).map(Record::Head).map_err(text),
            VOTE => Change::Vote(types::decode(payload).map_err(text)?),
            ENTRY => {
                let entry: EntryRecord = types::decode(payload).map_err(text)?;
                Change::Append { id: entry.id, body: Bytes::from(entry.body) }
            }
            TRUNCATE => {
                let record: TruncateRecord = types::decode(payload).map_err(text)?;
                Change::Truncate { from: record.from }
            }
            PURGE => Change::Purge(types::decode(payload).map_err(text)?),
            COMMIT => {
                let record: CommitRecord = types::decode(payload).map_err(text)?;
                Change::Commit(record.id)
            }
            kind => return Err(format!("a record of unknown kind {kind}")),
        }))
    }
}

/// Judges what is behind the last good record.
pub(super) fn tail(bytes: &[u8], at: usize) -> Tail {
    let rest = bytes.get(at..).unwrap_or_default();
    if rest.iter().all(|b| *b == 0) {
        return Tail::Clean;
    }
    let behind = (at.next_multiple_of(ALIGN)..bytes.len()).step_by(ALIGN);
    let accuses = |place: &usize| claims(bytes, *place) > at as u64 && frame_at(bytes, *place).is_some();
    match behind.into_iter().find(accuses) {
        Some(witness) => Tail::Damaged { witness },
        None => Tail::Torn,
    }
}

/// What the bytes at a place would say is durable, were they a record: cheap to ask at every place.
fn claims(bytes: &[u8], place: usize) -> u64 {
    let field = bytes.get(place + 8..place + 16).and_then(|b| b.try_into().ok());
    field.map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u64) -> EntryId {
        EntryId { term: 3, node: 1, index }
    }

    fn file(synced: &[u64]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for (index, synced) in synced.iter().enumerate() {
            starts.push(bytes.len());
            let change = Change::Append { id: id(index as u64), body: Bytes::from(vec![7; 100]) };
            let (kind, payload) = encode(&change);
            frame(&mut bytes, kind, &payload, *synced);
        }
        bytes.resize(bytes.len() + 64, 0);
        (bytes, starts)
    }

    #[test]
    fn every_change_comes_back() {
        let vote = Vote { term: 1, node: 2, granted: true };
        let changes = [
            Change::Vote(vote),
            Change::Append { id: id(5), body: Bytes::from_static(b"body") },
            Change::Truncate { from: 9 },
            Change::Purge(id(4)),
            Change::Commit(Some(id(5))),
            Change::Commit(None),
        ];
        for change in changes {
            let mut bytes = Vec::new();
            let (kind, payload) = encode(&change);
            frame(&mut bytes, kind, &payload, 0);
            let found = frame_at(&bytes, 0).unwrap();
            assert_eq!((found.decode(&bytes), found.end), (Ok(Record::Change(change)), bytes.len()));
        }
    }

    #[test]
    fn any_flipped_bit_is_seen() {
        let (bytes, starts) = file(&[0]);
        let end = frame_at(&bytes, starts[0]).unwrap().payload.end;
        for byte in 0..end {
            let mut bad = bytes.clone();
            bad[byte] ^= 1;
            assert!(frame_at(&bad, 0).is_none(), "byte {byte}");
        }
    }

    #[test]
    fn a_torn_end_is_not_damage_and_damage_is_not_a_torn_end() {
        let (clean, starts) = file(&[0, 0, 0]);
        assert_eq!(tail(&clean, frame_at(&clean, starts[2]).unwrap().end), Tail::Clean);

        let mut torn = clean.clone();
        torn[starts[1] + 30] ^= 1;
        assert_eq!(tail(&torn, starts[1]), Tail::Torn, "the third record was part of the same batch");

        let (mut damaged, starts) = file(&[0, 0, 240]);
        damaged[starts[1] + 30] ^= 1;
        assert_eq!(tail(&damaged, starts[1]), Tail::Damaged { witness: starts[2] });
    }

    #[test]
    fn a_lying_length_allocates_nothing() {
        let mut bytes = vec![0xff; 64];
        assert!(frame_at(&bytes, 0).is_none());
        bytes[4..8].copy_from_slice(&40u32.to_le_bytes());
        assert!(frame_at(&bytes, 32).is_none() && frame_at(&bytes, 60).is_none());
    }
}
