//! Where segments lie on the disk, and in which order things are synced.
//!
//! `segments/PROJECT/ab/HASH`, with `/` inside a project's name written as `+`, and one empty file
//! `segments/PROJECT.project` a project, because a disk lists files but not folders. A file gets its name only
//! when its bytes are durable, there or in the journal, so what has a name is whole or mended at the next start; the
//! name is durable when its folder was synced, or by the journal.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::journal::{self, Journal, Room};
use bytes::Bytes;
use sys::disk::{Disk, parent};
use types::{Hash, ProjectName};

const ROOT: &str = "segments";
/// Groups of so many bytes go through the journal; larger ones gain nothing by being written twice.
const JOURNALED: usize = 1 << 20;
/// Files that wait for their sync at the most.
const UNSYNCED: usize = 8192;
/// Groups in which a crash's journal is brought into files again.
const REPLAYED: usize = 256;
/// So many files are synced each by itself; for more the whole disk is asked once, whoever else writes to it. In tests
/// both happen often.
const ONE_BY_ONE: usize = if cfg!(test) { 4 } else { 64 };
const MARKER: &str = ".project";
const TEMPORARY: &str = ".tmp";
const DAMAGED: &str = ".damaged";

/// One segment on its way to the disk.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) project: ProjectName,
    pub(super) hash: Hash,
    pub(super) bytes: Bytes,
}

/// A segment found on the disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    pub(super) project: ProjectName,
    pub(super) hash: Hash,
}

/// Why a batch is not durable.
pub(super) enum WriteError {
    /// No room; nothing was promised and nothing is in doubt.
    Full(io::Error),
    /// Anything else: what is on the disk is unknown from here on.
    Broken(io::Error),
}

/// The layout over a disk. Owned by the one thread that writes.
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    /// Folders whose names this process has made durable. A folder that was merely there may have been
    /// made by a process that was killed before its sync.
    durable_dirs: BTreeSet<String>,
    /// Makes small segments durable before their files are.
    journal: Option<Journal>,
    /// Segments that are durable by the journal alone: neither their files nor the folders of these are synced.
    unsynced: BTreeSet<Found>,
    /// Folders that are there, durable or not.
    made_dirs: BTreeSet<String>,
}

pub(super) fn path(project: &ProjectName, hash: &Hash) -> String {
    format!("{}/{hash}", shard_dir(project, hash))
}

fn project_dir(project: &ProjectName) -> String {
    format!("{ROOT}/{}", project.as_str().replace('/', "+"))
}

fn shard_dir(project: &ProjectName, hash: &Hash) -> String {
    format!("{}/{:02x}", project_dir(project), hash.0[0])
}

impl Files {
    /// Without a journal every file is synced at once.
    fn new(disk: Arc<dyn Disk>) -> Self {
        Files {
            disk,
            durable_dirs: BTreeSet::new(),
            journal: None,
            unsynced: BTreeSet::new(),
            made_dirs: BTreeSet::new(),
        }
    }

    /// Brings what a crash left in the journal into its files.
    ///
    /// # Errors
    /// When it cannot be read, or there is no room for what was promised.
    pub(super) fn open(disk: Arc<dyn Disk>) -> io::Result<Self> {
        let (mut journal, left) = Journal::open(&disk)?;
        let mut files = Files::new(disk);
        for group in left.chunks(REPLAYED) {
            files.write(group).map_err(|error| match error {
                WriteError::Full(cause) | WriteError::Broken(cause) => cause,
            })?;
        }
        if !left.is_empty() {
            journal.forget()?;
        }
        files.journal = Some(journal);
        Ok(files)
    }

    /// Writes segments; when this answers Ok all of them are durable.
    pub(super) fn write(&mut self, items: &[Item]) -> Result<(), WriteError> {
        let small = items.iter().map(|item| item.bytes.len()).sum::<usize>() <= JOURNALED;
        let record = (small && self.journal.is_some()).then(|| journal::unsealed(items));
        let room = |files: &Files, record: &Vec<u8>| files.journal.as_ref().map(|j| j.room(record));
        match record {
            Some(record) if room(self, &record) == Some(Room::Here) => self.write_journaled(items, record),
            Some(record) if room(self, &record) == Some(Room::Anew) => {
                self.settle().map_err(WriteError::Broken)?;
                self.write_journaled(items, record)
            }
            _ => self.write_synced(items),
        }
    }

    /// The files get their names when the journal has them, so that a name without whole bytes is always mended.
    fn write_journaled(&mut self, items: &[Item], record: Vec<u8>) -> Result<(), WriteError> {
        for item in items {
            let shard = shard_dir(&item.project, &item.hash);
            if !self.made_dirs.contains(&shard) {
                self.disk.create_dir_all(&shard).map_err(WriteError::Broken)?;
                self.made_dirs.insert(shard);
            }
            if let Err(cause) = self.write_temporary(item) {
                return Err(self.give_up(items, cause));
            }
        }
        let journal = self.journal.as_mut().expect("the record has room in it");
        journal.append(record).map_err(WriteError::Broken)?;
        for item in items {
            let path = path(&item.project, &item.hash);
            self.disk.rename(&temporary(item), &path).map_err(WriteError::Broken)?;
            self.unsynced.insert(Found { project: item.project.clone(), hash: item.hash });
        }
        if self.unsynced.len() >= UNSYNCED {
            self.settle().map_err(WriteError::Broken)?;
        }
        Ok(())
    }

    /// Makes every file durable by itself; the journal begins anew.
    fn settle(&mut self) -> io::Result<()> {
        let unsynced: Vec<Found> = std::mem::take(&mut self.unsynced).into_iter().collect();
        self.make_dirs(unsynced.iter().map(|found| (&found.project, &found.hash)))?;
        match unsynced.len() <= ONE_BY_ONE {
            true => self.sync_each(&unsynced)?,
            false => self.disk.sync_all()?,
        }
        if let Some(journal) = &mut self.journal {
            journal.begin_anew();
        }
        Ok(())
    }

    fn sync_each(&self, unsynced: &[Found]) -> io::Result<()> {
        let open = |found: &Found| self.disk.open(&path(&found.project, &found.hash));
        self.disk.sync_files(unsynced.iter().map(open).collect::<Result<_, _>>()?)?;
        let shards = unsynced.iter().map(|found| shard_dir(&found.project, &found.hash));
        let shards: BTreeSet<String> = shards.collect();
        self.disk.sync_dirs(&shards.into_iter().collect::<Vec<_>>())
    }

    /// The same, and the journal is empty after a crash, too.
    pub(super) fn settle_for_good(&mut self) -> io::Result<()> {
        self.settle()?;
        self.journal.as_mut().map_or(Ok(()), Journal::forget)
    }

    /// The same, and no byte of what was in the journal is on the disk for it.
    pub(super) fn settle_and_wipe(&mut self) -> io::Result<()> {
        self.settle()?;
        self.journal.as_mut().map_or(Ok(()), Journal::wipe)
    }

    fn write_synced(&mut self, items: &[Item]) -> Result<(), WriteError> {
        let names = items.iter().map(|item| (&item.project, &item.hash));
        self.make_dirs(names).map_err(WriteError::Broken)?;
        let mut open = Vec::with_capacity(items.len());
        for item in items {
            match self.write_temporary(item) {
                Ok(file) => open.push(file),
                Err(cause) => return Err(self.give_up(items, cause)),
            }
        }
        // All bytes are handed over before the first sync, so that the drive can take them together.
        self.disk.sync_files(open).map_err(WriteError::Broken)?;
        self.name(items).map_err(WriteError::Broken)
    }

    fn write_temporary(&self, item: &Item) -> io::Result<Box<dyn sys::disk::DiskFile>> {
        let mut file = self.disk.open(&temporary(item))?;
        file.set_len(0)?;
        file.write_at(0, &item.bytes)?;
        Ok(file)
    }

    fn name(&self, items: &[Item]) -> io::Result<()> {
        for item in items {
            self.disk.rename(&temporary(item), &path(&item.project, &item.hash))?;
        }
        let dirs: BTreeSet<String> = items.iter().map(|item| shard_dir(&item.project, &item.hash)).collect();
        self.disk.sync_dirs(&dirs.into_iter().collect::<Vec<_>>())
    }

    fn give_up(&self, items: &[Item], cause: io::Error) -> WriteError {
        if !matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return WriteError::Broken(cause);
        }
        for item in items {
            // Half of them may not exist; one that stays is removed at the next start.
            let _left_for_the_next_start = self.disk.remove(&temporary(item));
        }
        WriteError::Full(cause)
    }

    /// Makes the folders of a batch, and syncs the parent of each new one once.
    fn make_dirs<'a>(&mut self, names: impl Iterator<Item = (&'a ProjectName, &'a Hash)>) -> io::Result<()> {
        let mut new = BTreeSet::new();
        for (project, hash) in names {
            let (project, shard) = (project_dir(project), shard_dir(project, hash));
            if self.is_new(&shard, &new) {
                self.disk.create_dir_all(&shard)?;
            }
            if self.is_new(&project, &new) {
                self.disk.open(&format!("{project}{MARKER}"))?.sync()?;
            }
            new.extend(
                [ROOT.to_string(), project, shard].into_iter().filter(|dir| !self.durable_dirs.contains(dir)),
            );
        }
        let parents: BTreeSet<&str> = new.iter().map(|dir| parent(dir)).collect();
        parents.into_iter().try_for_each(|dir| self.disk.sync_dir(dir))?;
        self.durable_dirs.extend(new);
        Ok(())
    }

    fn is_new(&self, dir: &str, new: &BTreeSet<String>) -> bool {
        !self.durable_dirs.contains(dir) && !new.contains(dir)
    }

    /// Every whole segment on the disk. Leftovers of interrupted writes are removed, and every name that is
    /// reported is durable: the folders are synced, because a killed process may not have got that far.
    pub(super) fn scan(&mut self) -> io::Result<BTreeSet<Found>> {
        let mut found = BTreeSet::new();
        self.disk.create_dir_all(ROOT)?;
        self.disk.sync_dir("")?;
        for name in self.disk.list(ROOT)? {
            let project = name.strip_suffix(MARKER).map(|name| ProjectName::parse(&name.replace('+', "/")));
            if let Some(Ok(project)) = project {
                self.scan_project(&project, &mut found)?;
            }
        }
        self.disk.sync_dir(ROOT)?;
        Ok(found)
    }

    fn scan_project(&mut self, project: &ProjectName, found: &mut BTreeSet<Found>) -> io::Result<()> {
        let dir = project_dir(project);
        if !self.disk.exists(&dir)? {
            return Ok(());
        }
        self.disk.sync_dir(&dir)?;
        for first in 0..=u8::MAX {
            let shard = format!("{dir}/{first:02x}");
            if self.disk.exists(&shard)? {
                self.scan_shard(project, &shard, found)?;
            }
        }
        Ok(())
    }

    fn scan_shard(&self, project: &ProjectName, shard: &str, found: &mut BTreeSet<Found>) -> io::Result<()> {
        for name in self.disk.list(shard)? {
            if name.ends_with(TEMPORARY) {
                self.disk.remove(&format!("{shard}/{name}"))?;
            }
            if let Ok(hash) = Hash::parse(&name) {
                found.insert(Found { project: project.clone(), hash });
            }
        }
        self.disk.sync_dir(shard)
    }

    /// The length of a stored segment.
    pub(super) fn size(&self, found: &Found) -> io::Result<u64> {
        self.disk.open(&path(&found.project, &found.hash))?.size()
    }

    /// Removes a segment's file. One that is not there is as good as removed.
    pub(super) fn remove(&self, project: &ProjectName, hash: &Hash) -> io::Result<()> {
        match self.disk.remove(&path(project, hash)) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Whether there is a file of a segment, whole or not.
    pub(super) fn has_any(&self, project: &ProjectName, hash: &Hash) -> io::Result<bool> {
        for path in all_paths(project, hash) {
            if self.disk.exists(&path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes what interrupted writes and damage left of a segment.
    pub(super) fn remove_leftovers(&self, project: &ProjectName, hash: &Hash) -> io::Result<()> {
        for path in all_paths(project, hash).into_iter().skip(1) {
            match self.disk.remove(&path) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes removals durable.
    pub(super) fn sync_shards(&self, project: &ProjectName, hashes: &[Hash]) -> io::Result<()> {
        let dirs: BTreeSet<String> = hashes.iter().map(|hash| shard_dir(project, hash)).collect();
        dirs.iter()
            .filter(|dir| self.disk.exists(dir).unwrap_or(true))
            .try_for_each(|d| self.disk.sync_dir(d))
    }

    /// Moves a damaged file out of the way, and keeps it for whoever wants to know what happened.
    pub(super) fn set_aside(&mut self, project: &ProjectName, hash: &Hash) -> io::Result<()> {
        let path = path(project, hash);
        self.unsynced.remove(&Found { project: project.clone(), hash: *hash });
        self.disk.rename(&path, &format!("{path}{DAMAGED}"))
    }
}

/// Where bytes of a segment may lie: its file, one that was not finished, one that was damaged.
fn all_paths(project: &ProjectName, hash: &Hash) -> [String; 3] {
    let path = path(project, hash);
    [path.clone(), format!("{path}{TEMPORARY}"), format!("{path}{DAMAGED}")]
}

fn temporary(item: &Item) -> String {
    format!("{}{TEMPORARY}", path(&item.project, &item.hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_inside_the_project() {
        let project = ProjectName::parse("research/vision").unwrap();
        let hash = Hash([0xab; 32]);
        assert_eq!(path(&project, &hash), format!("segments/research+vision/ab/{hash}"));
    }
}
