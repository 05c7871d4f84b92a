//! What requests of slices have used at most, on the disk: after a crash it says what of a lost slice is to be given back.
//! A mark is durable before anything beyond it is used, so it never says less than was used. Where there is none,
//! nothing comes back.

use ledger::keys::Amounts;
use ledger::rows::CallId;
use minicbor::{Decode, Encode};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use sys::disk::{Disk, write_durably};
use tokio::sync::Mutex;
use types::ProjectName;

/// In the node's data folder.
const PATH: &str = "slices";
const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Stored {
    #[n(0)]
    format: u32,
    #[n(1)]
    min_reader: u32,
    #[n(2)]
    marks: Vec<Mark>,
}

/// A slice, and what is used of it at most since it was opened.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Mark {
    #[n(0)]
    pub(super) project: ProjectName,
    #[n(1)]
    pub(super) slice: CallId,
    #[n(2)]
    pub(super) spent: Amounts,
}

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct SpendRecord(Arc<Inner>);

struct Inner {
    disk: Arc<dyn Disk>,
    marks: std::sync::Mutex<BTreeMap<CallId, Mark>>,
    /// One write at a time, each of everything.
    writing: Mutex<()>,
    broken: AtomicBool,
}

impl SpendRecord {
    /// What was written down before, and a record that keeps it until it is forgotten. One that can't be read is no
    /// record: what it was about counts in full.
    pub(super) fn open(disk: Arc<dyn Disk>) -> (SpendRecord, Vec<Mark>) {
        let marks = read(disk.as_ref()).unwrap_or_else(|why| {
            tracing::warn!(
                why,
                "the record of what slices used can't be read; nothing of lost ones comes back"
            );
            Vec::new()
        });
        let known = marks.iter().map(|mark| (mark.slice, mark.clone())).collect();
        let (writing, broken) = (Mutex::default(), AtomicBool::new(false));
        (SpendRecord(Arc::new(Inner { disk, marks: std::sync::Mutex::new(known), writing, broken })), marks)
    }

    /// Whether a mark is durable now.
    pub(super) async fn write(&self, project: &ProjectName, slice: CallId, spent: Amounts) -> bool {
        let _one_at_a_time = self.0.writing.lock().await;
        self.marks().insert(slice, Mark { project: project.clone(), slice, spent });
        let marks = self.marks().values().cloned().collect();
        let bytes = types::encode(&Stored { format: FORMAT, min_reader: FORMAT, marks });
        let disk = self.0.disk.clone();
        let written = tokio::task::spawn_blocking(move || write_durably(disk.as_ref(), PATH, &bytes)).await;
        match written.map_err(std::io::Error::other).flatten() {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the record of what slices used can't be written; requests take entries of their own");
                self.0.broken.store(true, Ordering::Relaxed);
                false
            }
        }
    }

    /// It could not be written once: whoever takes more than a request needs could not give it back.
    pub(super) fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::Relaxed)
    }

    /// The slice is over. The file says so with the next mark: until then it is about nothing.
    pub(super) fn forget(&self, slice: CallId) {
        self.marks().remove(&slice);
    }

    fn marks(&self) -> std::sync::MutexGuard<'_, BTreeMap<CallId, Mark>> {
        self.0.marks.lock().expect("no panic while held")
    }
}

fn read(disk: &dyn Disk) -> Result<Vec<Mark>, String> {
    if !disk.exists(PATH).map_err(|error| error.to_string())? {
        return Ok(Vec::new());
    }
    let bytes = disk.read(PATH).map_err(|error| error.to_string())?;
    let stored: Stored = types::decode(&bytes).map_err(|error| error.to_string())?;
    match stored.min_reader <= FORMAT {
        true => Ok(stored.marks),
        false => Err(format!("it has form {}, this version reads {FORMAT}", stored.format)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::disk::CrashDisk;

    fn tokens(tokens: u64) -> Amounts {
        Amounts { tokens, ..Amounts::NONE }
    }

    fn ids(marks: &[Mark]) -> Vec<(u8, u64)> {
        marks.iter().map(|mark| (mark.slice.0[0], mark.spent.tokens)).collect()
    }

    /// What is answered as durable is there after any crash; a write that was cut off left the mark before it.
    #[tokio::test]
    async fn marks_survive_a_crash() {
        let (project, one, two) = (ProjectName::default(), CallId([1; 16]), CallId([2; 16]));
        for seed in 0..20 {
            let disk = Arc::new(CrashDisk::new());
            let (record, before) = SpendRecord::open(disk.clone());
            assert!(before.is_empty());
            assert!(record.write(&project, one, tokens(5)).await);
            assert!(record.write(&project, two, tokens(7)).await);
            assert!(record.write(&project, one, tokens(9)).await);
            disk.crash(seed);
            let (record, marks) = SpendRecord::open(disk.clone());
            assert_eq!(ids(&marks), [(1, 9), (2, 7)]);
            record.forget(one);
            assert!(record.write(&project, two, tokens(8)).await);
            disk.crash(seed);
            assert_eq!(ids(&SpendRecord::open(disk).1), [(2, 8)]);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_no_record() {
        let disk = Arc::new(CrashDisk::new());
        write_durably(disk.as_ref(), PATH, b"\x83\x18").unwrap();
        assert!(SpendRecord::open(disk.clone()).1.is_empty());
        let newer = types::encode(&Stored { format: 9, min_reader: 9, marks: vec![] });
        write_durably(disk.as_ref(), PATH, &newer).unwrap();
        let (record, marks) = SpendRecord::open(disk.clone());
        assert!(marks.is_empty() && !record.is_broken());
        assert!(record.write(&ProjectName::default(), CallId([3; 16]), tokens(1)).await);
        assert_eq!(ids(&SpendRecord::open(disk).1), [(3, 1)]);
    }
}
