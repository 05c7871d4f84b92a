//! One file of the log: how it is made, replayed and read.

use super::index::Place;
use super::record::{self, Head, Record, Tail};
use super::{Change, READER, WalError, WalOptions};
use bytes::Bytes;
use std::io;
use sys::disk::{Disk, DiskFile};

/// The first bytes of every file, so that another kind of file is told from a damaged one.
const MAGIC: [u8; 8] = *b"QUORWAL\n";

/// A file open for writing.
pub(super) struct Active {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) sequence: u64,
    pub(super) capacity: u64,
    /// Where the next record goes.
    pub(super) end: u64,
    /// Everything before is durable.
    pub(super) synced: u64,
    /// The highest entry in the file; it may be dropped when that one is purged.
    pub(super) last_index: Option<u64>,
}

pub(super) fn path(dir: &str, sequence: u64) -> String {
    format!("{dir}/{sequence:016}.wal")
}

/// The sequence numbers of the files in a folder, ascending; left-overs of unfinished files are removed.
pub(super) fn list(disk: &dyn Disk, dir: &str) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for name in disk.list(dir)? {
        if name.ends_with(".wal.tmp") {
            disk.remove(&format!("{dir}/{name}"))?;
        } else if let Some(sequence) = name.strip_suffix(".wal").and_then(|n| n.parse().ok()) {
            found.push(sequence);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Makes a file full of zeros with a head, durable under its final name when this returns.
pub(super) fn create(disk: &dyn Disk, dir: &str, head: &Head, capacity: u64) -> io::Result<Active> {
    let mut start = MAGIC.to_vec();
    let (kind, payload) = record::encode_head(head);
    record::frame(&mut start, kind, &payload, 0);
    let end = start.len() as u64;
    let capacity = capacity.max(end);

    let path = path(dir, head.sequence);
    let temporary = format!("{path}.tmp");
    let mut file = disk.open(&temporary)?;
    file.set_len(0)?;
    fill(file.as_mut(), 0, capacity)?;
    file.write_at(0, &start)?;
    file.sync()?;
    disk.rename(&temporary, &path)?;
    disk.sync_dir(dir)?;
    Ok(Active { file, sequence: head.sequence, capacity, end, synced: end, last_index: None })
}

/// Room for a head, whatever it says, and one record.
pub(super) fn capacity_for(segment_bytes: u64, record_bytes: u64) -> u64 {
    const HEAD_ROOM: u64 = 256;
    segment_bytes.max(HEAD_ROOM + record_bytes)
}

/// Writes zeros rather than growing the file, so that its blocks exist and later syncs move only data.
fn fill(file: &mut dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; (256 << 10).min((to - from) as usize)];
    let mut at = from;
    while at < to {
        let part = zeros.len().min((to - at) as usize);
        file.write_at(at, &zeros[..part])?;
        at += part as u64;
    }
    Ok(())
}

/// Reads a file from its head to its end, calls `each` for every change, and opens it for writing.
///
/// Only the last file may have a torn end: a file is synced before the next one is made.
pub(super) fn replay(
    disk: &dyn Disk,
    options: &WalOptions,
    sequence: u64,
    is_last: bool,
    mut each: impl FnMut(Step<'_>) -> Result<(), String>,
) -> Result<Active, WalError> {
    let path = path(&options.dir, sequence);
    let bytes = disk.read(&path)?;
    let damaged = |offset: usize, detail: String| WalError::Damaged {
        file: path.clone(),
        offset: offset as u64,
        detail,
    };
    let (head, mut at) = head(&bytes).map_err(|detail| damaged(0, detail))?;
    check_head(&head, &path, options)?;
    if head.sequence != sequence {
        return Err(damaged(0, format!("it says it is file {}", head.sequence)));
    }
    each(Step::Head(&head)).map_err(|detail| damaged(0, detail))?;
    let mut last_index = None;
    while let Some(frame) = record::frame_at(&bytes, at) {
        let change = match frame.decode(&bytes) {
            Ok(Record::Change(change)) => change,
            Ok(Record::Head(_)) => return Err(damaged(at, "a second head".to_string())),
            Err(detail) => return Err(damaged(at, detail)),
        };
        if let Change::Append { id, .. } = &change {
            last_index = last_index.max(Some(id.index));
        }
        let place = Place { sequence, offset: at as u64, bytes: (frame.end - at) as u32 };
        each(Step::Change(change, place)).map_err(|detail| damaged(at, detail))?;
        at = frame.end;
    }
    let file = disk.open(&path)?;
    let capacity = bytes.len() as u64;
    let mut active = Active { file, sequence, capacity, end: at as u64, synced: 0, last_index };
    match record::tail(&bytes, at) {
        Tail::Clean => {}
        Tail::Torn if is_last => {
            tracing::warn!(file = %path, offset = at, "cut off the torn end of the raft log");
            fill(active.file.as_mut(), at as u64, capacity)?;
        }
        Tail::Torn => return Err(damaged(at, "bytes that are no record".to_string())),
        Tail::Damaged { witness } => {
            let detail = format!("bytes that are no record, though the record at {witness} proves they were");
            return Err(damaged(at, detail));
        }
    }
    if is_last {
        // After the crash of a program the records just read may be in the machine's memory only, and from
        // here on they count as durable.
        active.file.sync()?;
    }
    active.synced = active.end;
    Ok(active)
}

/// One thing found while replaying.
pub(super) enum Step<'a> {
    Head(&'a Head),
    Change(Change, Place),
}

fn head(bytes: &[u8]) -> Result<(Head, usize), String> {
    if !bytes.starts_with(&MAGIC) {
        return Err("it does not start as a raft log".to_string());
    }
    let frame = record::frame_at(bytes, MAGIC.len()).ok_or("its head is no record")?;
    match frame.decode(bytes)? {
        Record::Head(head) => Ok((head, frame.end)),
        Record::Change(_) => Err("its first record is no head".to_string()),
    }
}

fn check_head(head: &Head, path: &str, options: &WalOptions) -> Result<(), WalError> {
    if head.min_reader > READER {
        return Err(WalError::TooNew { file: path.to_string(), min_reader: head.min_reader });
    }
    if (head.cluster, head.node) != (options.cluster, options.node) {
        return Err(WalError::Owner {
            file: path.to_string(),
            found_cluster: head.cluster,
            found_node: head.node,
            cluster: options.cluster,
            node: options.node,
        });
    }
    Ok(())
}

/// Reads entries back from their files. The checksum is proven again: this is the only copy.
pub(super) fn read_bodies(disk: &dyn Disk, dir: &str, places: &[Place]) -> io::Result<Vec<Bytes>> {
    let mut open: Option<(u64, Box<dyn DiskFile>)> = None;
    let mut bodies = Vec::with_capacity(places.len());
    for place in places {
        if open.as_ref().is_none_or(|(sequence, _)| *sequence != place.sequence) {
            open = Some((place.sequence, disk.open(&path(dir, place.sequence))?));
        }
        let (_, file) = open.as_ref().expect("opened above");
        bodies.push(read_body(file.as_ref(), place)?);
    }
    Ok(bodies)
}

fn read_body(file: &dyn DiskFile, place: &Place) -> io::Result<Bytes> {
    let mut bytes = vec![0; place.bytes as usize];
    let read = file.read_at(place.offset, &mut bytes)?;
    // The frame was proven against the place it stood at; here it stands at zero, so only its checksum and
    // kind are of interest.
    let frame = record::frame_moved(&bytes[..read]);
    match frame.map(|f| f.decode(&bytes)) {
        Some(Ok(Record::Change(Change::Append { body, .. }))) => Ok(body),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("an entry of raft log file {} at byte {} is damaged", place.sequence, place.offset),
        )),
    }
}
