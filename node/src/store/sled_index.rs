//! The index on sled 0.34, used the way it is safe.
//!
//! What sled does that we must live with: `flush` is not an fsync; a kill while it writes a snapshot leaves a
//! `.generating` file that makes the next open fail; recovery may bring back an older state without saying so;
//! a damaged file may panic. Hence: leftovers are deleted before opening, a database that does not open is
//! moved aside and built again from the files, values are small and framed, and where durability is promised
//! we fsync the file ourselves.

use std::fs::{self, File};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};
use types::{Hash, ProjectName};

use super::frame;
use super::index::{Entry, Index, IndexError, Stamp};

/// sled's default cache is 1 GiB; our values are a few bytes each.
const CACHE_BYTES: u64 = 16 << 20;
/// Without the periodic flusher sled never collects garbage.
const FLUSH_EVERY_MS: u64 = 500;
const SCHEMA_KEY: &[u8] = b"!schema";
const STAMP_KEY: &[u8] = b"!stamp";
const SCHEMA: &[u8] = b"segments 1";
/// First byte of the keys of segments.
const SEGMENT: u8 = b's';

#[derive(Encode, Decode)]
struct Value {
    #[n(0)]
    bytes: u64,
}

/// The sled index in one folder.
pub struct SledIndex {
    db: sled::Db,
    dir: PathBuf,
}

fn failed(error: impl std::fmt::Display) -> IndexError {
    IndexError(error.to_string())
}

impl SledIndex {
    /// Opens the index, or starts an empty one where there is none or it is damaged; the store then fills it
    /// from the files.
    pub fn open(dir: &Path) -> Result<SledIndex, IndexError> {
        prepare(dir).map_err(failed)?;
        match try_open(dir) {
            Ok(index) => Ok(index),
            Err(reason) => {
                tracing::warn!(dir = %dir.display(), %reason, "the segment index is damaged; it is built again");
                move_aside(dir).map_err(failed)?;
                prepare(dir).map_err(failed)?;
                try_open(dir)
            }
        }
    }
}

/// Makes the folder and removes what an interrupted snapshot left.
fn prepare(dir: &Path) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "generating") {
            fs::remove_file(path)?;
        }
    }
    File::open(dir)?.sync_all()?;
    dir.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn try_open(dir: &Path) -> Result<SledIndex, IndexError> {
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(CACHE_BYTES)
        .mode(sled::Mode::HighThroughput)
        .flush_every_ms(Some(FLUSH_EVERY_MS));
    let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
    let db = opened.map_err(|_| IndexError("sled panicked while opening".into()))?.map_err(failed)?;
    let index = SledIndex { db, dir: dir.to_path_buf() };
    index.check_schema()?;
    Ok(index)
}

/// Keeps one damaged index for inspection; an older one is dropped.
fn move_aside(dir: &Path) -> std::io::Result<()> {
    let mut aside = dir.as_os_str().to_os_string();
    aside.push(".corrupt");
    match fs::remove_dir_all(&aside) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    fs::rename(dir, aside)
}

impl SledIndex {
    fn check_schema(&self) -> Result<(), IndexError> {
        match self.db.get(SCHEMA_KEY).map_err(failed)? {
            Some(found) if frame::unwrap(&found) == Some(SCHEMA) => Ok(()),
            None if self.db.is_empty() => {
                self.db.insert(SCHEMA_KEY, frame::wrap(SCHEMA)).map(|_| ()).map_err(failed)
            }
            _ => Err(IndexError("it was written by another version".into())),
        }
    }
}

fn key(project: &ProjectName, hash: &Hash) -> Vec<u8> {
    [&[SEGMENT], project.as_str().as_bytes(), &[0], &hash.0].concat()
}

fn parse(key: &[u8], framed: &[u8]) -> Option<Entry> {
    let (name, hash) = key.strip_prefix(&[SEGMENT])?.split_last_chunk::<32>()?;
    let project = ProjectName::parse(std::str::from_utf8(name.strip_suffix(&[0])?).ok()?).ok()?;
    Some(Entry { project, hash: Hash(*hash), bytes: length(framed)? })
}

fn length(framed: &[u8]) -> Option<u64> {
    types::decode::<Value>(frame::unwrap(framed)?).ok().map(|value| value.bytes)
}

impl Index for SledIndex {
    fn get(&self, project: &ProjectName, hash: &Hash) -> Result<Option<u64>, IndexError> {
        let found = self.db.get(key(project, hash)).map_err(failed)?;
        Ok(found.and_then(|framed| length(&framed)))
    }

    fn put(&self, entries: &[Entry]) -> Result<(), IndexError> {
        let mut batch = sled::Batch::default();
        for entry in entries {
            let value = frame::wrap(&types::encode(&Value { bytes: entry.bytes }));
            batch.insert(key(&entry.project, &entry.hash), value);
        }
        self.db.apply_batch(batch).map_err(failed)
    }

    fn remove(&self, project: &ProjectName, hashes: &[Hash]) -> Result<(), IndexError> {
        let mut batch = sled::Batch::default();
        hashes.iter().for_each(|hash| batch.remove(key(project, hash)));
        self.db.apply_batch(batch).map_err(failed)
    }

    fn all(&self) -> Result<Vec<Entry>, IndexError> {
        let mut entries = Vec::new();
        for row in self.db.scan_prefix([SEGMENT]) {
            let (key, framed) = row.map_err(failed)?;
            entries.extend(parse(&key, &framed));
        }
        Ok(entries)
    }

    fn page(&self, after: Option<&(ProjectName, Hash)>, most: usize) -> Result<Vec<Entry>, IndexError> {
        let from = match after {
            Some((project, hash)) => Bound::Excluded(key(project, hash)),
            None => Bound::Included(vec![SEGMENT]),
        };
        let mut entries = Vec::new();
        for row in self.db.range::<Vec<u8>, _>((from, Bound::Excluded(vec![SEGMENT + 1]))) {
            if entries.len() == most {
                break;
            }
            let (key, framed) = row.map_err(failed)?;
            entries.extend(parse(&key, &framed));
        }
        Ok(entries)
    }

    fn stamp(&self) -> Result<Option<Stamp>, IndexError> {
        let found = self.db.get(STAMP_KEY).map_err(failed)?;
        Ok(found.and_then(|framed| types::decode(frame::unwrap(&framed)?).ok()))
    }

    fn set_stamp(&self, stamp: Stamp) -> Result<(), IndexError> {
        self.db.insert(STAMP_KEY, frame::wrap(&types::encode(&stamp))).map(|_| ()).map_err(failed)
    }

    fn barrier(&self) -> Result<(), IndexError> {
        self.db.flush().map_err(failed)?;
        File::open(self.dir.join("db")).and_then(|file| file.sync_all()).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Entry {
        let project = ProjectName::parse("a/b").unwrap();
        Entry { hash: Hash::keyed("a/b", text.as_bytes()), project, bytes: text.len() as u64 }
    }

    #[test]
    fn entries_and_stamp_survive_a_reopen() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (entry("one"), entry("three"));
        let stamp = Stamp { disk_id: [3; 16], complete: true };
        {
            let index = SledIndex::open(dir.path()).unwrap();
            index.put(&[one.clone(), two.clone()]).unwrap();
            index.remove(&one.project, &[one.hash]).unwrap();
            index.set_stamp(stamp).unwrap();
            index.barrier().unwrap();
        }
        fs::write(dir.path().join("snap.0000.generating"), b"half a snapshot").unwrap();
        let index = SledIndex::open(dir.path()).unwrap();
        assert_eq!(index.all().unwrap(), std::slice::from_ref(&two));
        assert_eq!(index.get(&two.project, &two.hash).unwrap(), Some(5));
        assert_eq!(index.stamp().unwrap(), Some(stamp));
    }

    #[test]
    fn pages_are_every_entry_once_by_project_and_hash() {
        let dir = tempfile::tempdir().unwrap();
        let (sled, memory) = (SledIndex::open(dir.path()).unwrap(), super::super::MemoryIndex::default());
        let projects = ["b", "a", "a/b", "a-b"].map(|name| ProjectName::parse(name).unwrap());
        let entries: Vec<Entry> = (0..40u64)
            .map(|n| Entry {
                project: projects[n as usize % 4].clone(),
                hash: Hash::of(&[n as u8]),
                bytes: n,
            })
            .collect();
        let mut sorted = entries.clone();
        sorted.sort();
        let indexes: [&dyn Index; 2] = [&sled, &memory];
        for index in indexes {
            index.put(&entries).unwrap();
            let (mut paged, mut after) = (Vec::new(), None);
            loop {
                let page = index.page(after.as_ref(), 7).unwrap();
                let Some(last) = page.last() else { break };
                assert!(page.len() <= 7);
                after = Some((last.project.clone(), last.hash));
                paged.extend(page);
            }
            assert_eq!(paged, sorted);
        }
    }

    #[test]
    fn a_damaged_database_starts_empty_and_is_kept_aside() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("index");
        for round in 0..2 {
            drop(SledIndex::open(&dir).unwrap());
            fs::write(dir.join("conf"), format!("nonsense {round}")).unwrap();
            let index = SledIndex::open(&dir).unwrap();
            assert_eq!(index.stamp().unwrap(), None);
            assert!(root.path().join("index.corrupt").exists());
        }
    }
}
