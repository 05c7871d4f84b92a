//! The data folder: whose it is, what a write into it costs, how much room there is.

use crate::doctor::facts::{FolderFacts, IdentityFacts, SpaceFacts, SyncFacts, WriteFault};
use crate::store::DataLock;
use crate::store::identity::{Identity, IdentityError};
use rustix::fs::{statfs, statvfs};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Instant, UNIX_EPOCH};

/// Enough for a median.
const WRITES: usize = 16;
const WRITE_BYTES: usize = 4096;
/// The kernel's numbers for file systems in memory: tmpfs, ramfs.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];
/// What a look through the folder stops at.
const LOOKED_AT: usize = 2_000;

pub(super) fn identity(dir: &Path) -> Result<Option<Identity>, IdentityError> {
    match fs::read(dir.join("identity")) {
        Ok(bytes) => Identity::read(&bytes).map(Some),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn look(dir: &Path, identity: &Result<Option<Identity>, IdentityError>) -> FolderFacts {
    // A folder that is not there yet will be made in the first one above it that is.
    let there = existing(dir);
    FolderFacts {
        path: dir.display().to_string(),
        exists: dir.exists(),
        mode: dir.metadata().ok().map(|metadata| metadata.permissions().mode()),
        writes: try_writing(&there),
        space: space(&there),
        newest_s: newest_s(dir),
        used_by: DataLock::owner_of(dir),
        identity: match identity {
            Ok(None) => IdentityFacts::None,
            Ok(Some(identity)) => IdentityFacts::Name(identity.name.clone()),
            Err(error) => IdentityFacts::Unusable(error.to_string()),
        },
    }
}

fn existing(dir: &Path) -> PathBuf {
    let above = dir.ancestors().find(|folder| folder.exists());
    above.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf()
}

fn try_writing(dir: &Path) -> Result<SyncFacts, WriteFault> {
    if !dir.is_dir() {
        return Err(WriteFault::NotAFolder);
    }
    let path = dir.join(format!(".doctor-{}", std::process::id()));
    let tried =
        OpenOptions::new().create_new(true).write(true).open(&path).map_err(fault).and_then(time_writes);
    let _ = fs::remove_file(&path);
    let in_memory = statfs(dir).is_ok_and(|facts| IN_MEMORY.contains(&facts.f_type));
    tried.map(|times_us| SyncFacts { times_us, in_memory })
}

fn time_writes(mut file: File) -> Result<Vec<u64>, WriteFault> {
    let mut times_us = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        file.write_all(&[7; WRITE_BYTES]).map_err(fault)?;
        let begun = Instant::now();
        file.sync_data().map_err(|error| match fault(error) {
            WriteFault::Other(why) => WriteFault::Sync(why),
            known => known,
        })?;
        times_us.push(begun.elapsed().as_micros() as u64);
    }
    times_us.sort_unstable();
    Ok(times_us)
}

fn fault(error: io::Error) -> WriteFault {
    match error.kind() {
        ErrorKind::ReadOnlyFilesystem => WriteFault::ReadOnly,
        ErrorKind::PermissionDenied => WriteFault::Denied,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => WriteFault::Full,
        ErrorKind::NotADirectory => WriteFault::NotAFolder,
        _ => WriteFault::Other(error.to_string()),
    }
}

fn space(dir: &Path) -> Option<SpaceFacts> {
    let facts = statvfs(dir).ok()?;
    Some(SpaceFacts {
        free_bytes: facts.f_bavail.saturating_mul(facts.f_frsize),
        total_bytes: facts.f_blocks.saturating_mul(facts.f_frsize),
        free_files: facts.f_favail,
        total_files: facts.f_files,
    })
}

/// Of the files that a node writes: in the folder and two levels below it.
fn newest_s(dir: &Path) -> Option<i64> {
    let mut newest = None;
    let (mut folders, mut seen) = (vec![(dir.to_path_buf(), 0)], 0);
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            seen += 1;
            let Ok(metadata) = entry.metadata() else { continue };
            if seen > LOOKED_AT {
                return newest;
            }
            match metadata.is_dir() {
                true if depth < 2 => folders.push((entry.path(), depth + 1)),
                true => {}
                false => newest = newest.max(modified_s(&metadata)),
            }
        }
    }
    newest
}

fn modified_s(metadata: &fs::Metadata) -> Option<i64> {
    Some(metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_secs() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_leaves_nothing_and_finds_the_newest_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("raft/wal")).unwrap();
        let file = File::create(dir.path().join("raft/wal/log")).unwrap();
        let then = UNIX_EPOCH + std::time::Duration::from_secs(4_000_000_000);
        file.set_modified(then).unwrap();
        let facts = look(dir.path(), &Ok(None));
        assert_eq!(facts.newest_s, Some(4_000_000_000));
        assert_eq!(facts.writes.unwrap().times_us.len(), WRITES);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the small file is gone");
        assert_eq!(look(&dir.path().join("not/yet"), &Ok(None)).mode, None);
        let file = dir.path().join("raft/wal/log");
        assert_eq!(look(&file, &Ok(None)).writes, Err(WriteFault::NotAFolder));
    }
}
