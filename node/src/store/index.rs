//! What an index of segments does, and the one in memory.
//!
//! An entry means that the file is durable. The index may know less than the disk (it is then completed at the
//! next start), never more: entries are removed durably before files are.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use minicbor::{Decode, Encode};
use types::{Hash, ProjectName};

/// One durable segment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub project: ProjectName,
    pub hash: Hash,
    pub bytes: u64,
}

/// Says whether the index can be believed at the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Stamp {
    /// The disk whose files it describes.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub disk_id: [u8; 16],
    /// Set when the store was closed in order, so that index and files agree.
    #[n(1)]
    pub complete: bool,
}

/// The index could not be read or written. It is a cache: the store goes on without it where it can.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct IndexError(pub String);

/// Which segments are held durably. Calls may block for a moment.
pub trait Index: Send + Sync {
    /// The length of a held segment.
    fn get(&self, project: &ProjectName, hash: &Hash) -> Result<Option<u64>, IndexError>;
    fn put(&self, entries: &[Entry]) -> Result<(), IndexError>;
    fn remove(&self, project: &ProjectName, hashes: &[Hash]) -> Result<(), IndexError>;
    /// Every entry; ones that cannot be read are left out.
    fn all(&self) -> Result<Vec<Entry>, IndexError>;
    /// The first entries behind one, by project and hash.
    fn page(&self, after: Option<&(ProjectName, Hash)>, most: usize) -> Result<Vec<Entry>, IndexError> {
        let mut all = self.all()?;
        all.sort();
        let behind =
            |entry: &Entry| after.is_none_or(|after| (&entry.project, &entry.hash) > (&after.0, &after.1));
        Ok(all.into_iter().filter(behind).take(most).collect())
    }
    fn stamp(&self) -> Result<Option<Stamp>, IndexError>;
    fn set_stamp(&self, stamp: Stamp) -> Result<(), IndexError>;
    /// Makes everything so far durable.
    fn barrier(&self) -> Result<(), IndexError>;
}

/// An index that is gone with the process: for tests and for `--ephemeral`.
#[derive(Default)]
pub struct MemoryIndex {
    state: Mutex<MemoryState>,
}

type MemoryState = (BTreeMap<(ProjectName, Hash), u64>, Option<Stamp>);

impl MemoryIndex {
    fn lock(&self) -> MutexGuard<'_, MemoryState> {
        self.state.lock().expect("no index operation panics")
    }
}

impl Index for MemoryIndex {
    fn get(&self, project: &ProjectName, hash: &Hash) -> Result<Option<u64>, IndexError> {
        Ok(self.lock().0.get(&(project.clone(), *hash)).copied())
    }

    fn put(&self, entries: &[Entry]) -> Result<(), IndexError> {
        let rows = entries.iter().map(|entry| ((entry.project.clone(), entry.hash), entry.bytes));
        self.lock().0.extend(rows);
        Ok(())
    }

    fn remove(&self, project: &ProjectName, hashes: &[Hash]) -> Result<(), IndexError> {
        let mut state = self.lock();
        for hash in hashes {
            state.0.remove(&(project.clone(), *hash));
        }
        Ok(())
    }

    fn all(&self) -> Result<Vec<Entry>, IndexError> {
        let entry = |((project, hash), bytes): (&(ProjectName, Hash), &u64)| Entry {
            project: project.clone(),
            hash: *hash,
            bytes: *bytes,
        };
        Ok(self.lock().0.iter().map(entry).collect())
    }

    fn stamp(&self) -> Result<Option<Stamp>, IndexError> {
        Ok(self.lock().1)
    }

    fn set_stamp(&self, stamp: Stamp) -> Result<(), IndexError> {
        self.lock().1 = Some(stamp);
        Ok(())
    }

    fn barrier(&self) -> Result<(), IndexError> {
        Ok(())
    }
}
