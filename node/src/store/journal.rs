//! What makes small segments durable with one sync: a file that is overwritten in place, in which each group of puts is
//! one record. The segments' own files are written too, but synced later, many together; then the journal begins anew.
//! After a crash the records are written into files again before anything is read.
//!
//! A record is `length u32, generation u64, crc32 u32, bytes`. Records follow one another from the beginning as long as
//! they are whole and of the first one's generation; what lies behind is older and has its files.

use super::files::Item;
use bytes::Bytes;
use minicbor::{Decode, Encode};
use std::io;
use std::sync::Arc;
use sys::disk::{Disk, DiskFile, parent};
use types::{Hash, ProjectName};

const PATH: &str = "segments.journal";
/// In tests it is small, so that it begins anew often.
const CAPACITY: u64 = if cfg!(test) { 16 << 10 } else { 8 << 20 };
const HEAD: usize = 16;

/// A segment in a record.
#[derive(Encode, Decode)]
struct Kept {
    #[n(0)]
    project: ProjectName,
    #[n(1)]
    hash: Hash,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    bytes: Vec<u8>,
}

pub(super) struct Journal {
    file: Box<dyn DiskFile>,
    generation: u64,
    /// Where the next record goes.
    end: u64,
}

impl Journal {
    /// Opens the journal, or makes it, and answers what it holds: segments that may not be in their files.
    pub(super) fn open(disk: &Arc<dyn Disk>) -> io::Result<(Journal, Vec<Item>)> {
        let mut file = disk.open(PATH)?;
        if file.size()? != CAPACITY {
            wipe(file.as_mut())?;
            disk.sync_dir(parent(PATH))?;
        }
        let mut bytes = vec![0; CAPACITY as usize];
        read_exactly(file.as_ref(), &mut bytes)?;
        let mut journal = Journal { file, generation: 1, end: 0 };
        let Some((generation, mut kept, mut end)) = record(&bytes) else {
            // Nothing was written, or the first record of a generation was torn: the files of the one before are durable.
            wipe(journal.file.as_mut())?;
            return Ok((journal, Vec::new()));
        };
        let mut items = Vec::new();
        loop {
            items.append(&mut kept);
            match record(&bytes[end..]) {
                Some((next, more, length)) if next == generation => {
                    kept = more;
                    end += length;
                }
                _ => break,
            }
        }
        (journal.generation, journal.end) = (generation, end as u64);
        Ok((journal, items))
    }

    /// Whether a record of these fits behind the last one, and whether it ever would.
    pub(super) fn room(&self, record: &[u8]) -> Room {
        let length = record.len() as u64;
        match length {
            _ if self.end + length <= CAPACITY => Room::Here,
            _ if length <= CAPACITY / 2 => Room::Anew,
            _ => Room::Never,
        }
    }

    /// Makes a record durable.
    pub(super) fn append(&mut self, mut record: Vec<u8>) -> io::Result<()> {
        seal(&mut record, self.generation);
        self.file.write_at(self.end, &record)?;
        self.file.sync()?;
        self.end += record.len() as u64;
        Ok(())
    }

    /// The files of all records are durable: the next record is the first again.
    pub(super) fn begin_anew(&mut self) {
        self.generation += 1;
        self.end = 0;
    }

    /// The same, and no byte of any record stays.
    pub(super) fn wipe(&mut self) -> io::Result<()> {
        self.begin_anew();
        wipe(self.file.as_mut())
    }

    /// The same, and nothing of it comes back after a crash either: for what is removed.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        self.begin_anew();
        self.append(unsealed(&[]))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Here,
    /// When it begins anew.
    Anew,
    Never,
}

/// The record of a group, before it is known where it goes.
pub(super) fn unsealed(items: &[Item]) -> Vec<u8> {
    let kept: Vec<Kept> = items
        .iter()
        .map(|item| Kept { project: item.project.clone(), hash: item.hash, bytes: item.bytes.to_vec() })
        .collect();
    let mut record = vec![0; HEAD];
    record.extend(types::encode(&kept));
    let length = (record.len() - HEAD) as u32;
    record[..4].copy_from_slice(&length.to_le_bytes());
    record
}

fn seal(record: &mut [u8], generation: u64) {
    record[4..12].copy_from_slice(&generation.to_le_bytes());
    let crc = crc(&record[..12], &record[HEAD..]);
    record[12..HEAD].copy_from_slice(&crc.to_le_bytes());
}

fn crc(head: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head);
    crc.update(body);
    crc.finalize()
}

/// The whole record that bytes begin with: its generation, what is in it, its length.
fn record(bytes: &[u8]) -> Option<(u64, Vec<Item>, usize)> {
    let head = bytes.get(..HEAD)?;
    let length = u32::from_le_bytes(head[..4].try_into().ok()?) as usize;
    let body = bytes.get(HEAD..HEAD.checked_add(length)?)?;
    if u32::from_le_bytes(head[12..].try_into().ok()?) != crc(&head[..12], body) {
        return None;
    }
    let kept: Vec<Kept> = types::decode(body).ok()?;
    let item = |kept: Kept| Item { project: kept.project, hash: kept.hash, bytes: Bytes::from(kept.bytes) };
    let generation = u64::from_le_bytes(head[4..12].try_into().ok()?);
    Some((generation, kept.into_iter().map(item).collect(), HEAD + length))
}

/// Zeros all over, written and not only promised, so that syncs of what overwrites them write no metadata.
fn wipe(file: &mut dyn DiskFile) -> io::Result<()> {
    file.set_len(CAPACITY)?;
    let zeros = vec![0; 64 << 10];
    let mut done = 0;
    while done < CAPACITY {
        let length = (CAPACITY - done).min(zeros.len() as u64);
        file.write_at(done, &zeros[..length as usize])?;
        done += length;
    }
    file.sync()
}

fn read_exactly(file: &dyn DiskFile, into: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(done as u64, &mut into[done..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => done += read,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::disk::CrashDisk;

    fn item(text: &str) -> Item {
        let project = ProjectName::parse("a").unwrap();
        Item {
            hash: Hash::keyed("a", text.as_bytes()),
            project,
            bytes: Bytes::copy_from_slice(text.as_bytes()),
        }
    }

    fn texts(items: &[Item]) -> Vec<&str> {
        items.iter().map(|item| std::str::from_utf8(&item.bytes).unwrap()).collect()
    }

    #[test]
    fn records_come_back_and_older_ones_behind_them_do_not() {
        let disk: Arc<dyn Disk> = Arc::new(CrashDisk::new());
        let (mut journal, none) = Journal::open(&disk).unwrap();
        assert!(none.is_empty());
        for text in ["one", "two", "six"] {
            journal.append(unsealed(&[item(text)])).unwrap();
        }
        let (mut journal, found) = Journal::open(&disk).unwrap();
        assert_eq!(texts(&found), ["one", "two", "six"]);
        journal.begin_anew();
        // As long as the first old one, so that the second begins where a new one would.
        journal.append(unsealed(&[item("ten")])).unwrap();
        assert_eq!(texts(&Journal::open(&disk).unwrap().1), ["ten"]);
        journal.forget().unwrap();
        assert!(Journal::open(&disk).unwrap().1.is_empty());
    }

    #[test]
    fn a_torn_first_record_means_that_all_files_are_there() {
        let disk: Arc<dyn Disk> = Arc::new(CrashDisk::new());
        let (mut journal, _) = Journal::open(&disk).unwrap();
        journal.append(unsealed(&[item("one")])).unwrap();
        journal.append(unsealed(&[item("two")])).unwrap();
        journal.begin_anew();
        journal.file.write_at(0, b"torn").unwrap();
        let (mut journal, found) = Journal::open(&disk).unwrap();
        assert!(found.is_empty());
        journal.append(unsealed(&[item("new")])).unwrap();
        assert_eq!(texts(&Journal::open(&disk).unwrap().1), ["new"]);
    }
}
