//! One process a data folder: two daemons on the same files would destroy them.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Held for the life of the process. The kernel lets go of it when the process dies, however it dies.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

/// Why the folder is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error(
        "the data folder {dir} is in use by another process ({owner}); stop that one, or give this node its \
         own data_dir"
    )]
    Taken { dir: PathBuf, owner: String },
    #[error("cannot use the data folder {dir}: {cause}; {}", next(.cause))]
    Io { dir: PathBuf, cause: std::io::Error },
}

fn next(cause: &std::io::Error) -> &'static str {
    match cause.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "make room on that disk and start again: nothing that was acknowledged is lost"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "the file system is mounted read-only: look into the kernel's log for errors of the disk, mount it for \
             writing, or choose another data_dir"
        }
        ErrorKind::PermissionDenied => {
            "run as the user that the folder belongs to, or give the folder to this user"
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => "set data_dir to a folder of this node's own",
        _ => "check the path, and the disk below it",
    }
}

impl DataLock {
    /// Takes the folder, making it if needed.
    pub fn take(dir: &Path) -> Result<DataLock, LockError> {
        let failed = |cause| LockError::Io { dir: dir.to_path_buf(), cause };
        // Prompts and answers are kept there in clear: other users of the machine have no business in it.
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let path = dir.join("LOCK");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Taken { dir: dir.to_path_buf(), owner: owner(&mut file) });
            }
            Err(TryLockError::Error(cause)) => return Err(failed(cause)),
        }
        sign(&mut file).map_err(failed)?;
        Ok(DataLock { _file: file })
    }

    /// Who uses the folder now, such as `process 4711`; None when nobody does. Changes nothing.
    pub fn owner_of(dir: &Path) -> Option<String> {
        let mut file = File::open(dir.join("LOCK")).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(owner(&mut file)),
            _ => None,
        }
    }
}

/// Leaves our process id for the message above.
fn sign(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())
}

fn owner(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(20).read_to_string(&mut text) {
        Ok(n) if n > 0 => format!("process {text}"),
        _ => "process unknown".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_new_folder_is_its_owners_alone_and_a_file_is_none() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("data");
        drop(DataLock::take(&dir).unwrap());
        assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let refused = DataLock::take(&dir.join("LOCK")).unwrap_err().to_string();
        assert!(refused.contains("a folder of this node's own"), "{refused}");
    }

    #[test]
    fn the_second_owner_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataLock::take(dir.path()).unwrap();
        let refused = DataLock::take(dir.path()).unwrap_err().to_string();
        let owner = format!("process {}", std::process::id());
        assert!(refused.contains(&owner), "{refused}");
        assert_eq!(DataLock::owner_of(dir.path()), Some(owner));
        drop(first);
        assert_eq!(DataLock::owner_of(dir.path()), None);
        DataLock::take(dir.path()).unwrap();
    }
}
