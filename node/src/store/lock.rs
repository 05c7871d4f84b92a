//! One process a data folder: two daemons on the same files would destroy them.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
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
    #[error(
        "cannot use the data folder {dir}: {cause}; check that it exists and that this user may write to it"
    )]
    Io { dir: PathBuf, cause: std::io::Error },
}

impl DataLock {
    /// Takes the folder, making it if needed.
    pub fn take(dir: &Path) -> Result<DataLock, LockError> {
        let failed = |cause| LockError::Io { dir: dir.to_path_buf(), cause };
        fs::create_dir_all(dir).map_err(failed)?;
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

    #[test]
    fn the_second_owner_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataLock::take(dir.path()).unwrap();
        let refused = DataLock::take(dir.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        DataLock::take(dir.path()).unwrap();
    }
}
