//! A folder of the machine.

use super::{Disk, DiskFile, check};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A folder of the machine, through `std::fs`.
#[derive(Debug, Clone)]
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// Opens a folder as a disk; makes it when it is missing.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        fs::create_dir_all(&root).map_err(|e| named(e, "create", &root))?;
        Ok(RealDisk { root })
    }

    fn at(&self, path: &str) -> io::Result<PathBuf> {
        check(path)?;
        Ok(self.root.join(path))
    }
}

/// The standard library's errors do not say which file.
fn named(error: io::Error, verb: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {verb} {}: {error}", path.display()))
}

impl Disk for RealDisk {
    fn create_dir_all(&self, dir: &str) -> io::Result<()> {
        let path = self.at(dir)?;
        fs::create_dir_all(&path).map_err(|e| named(e, "create", &path))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let path = self.at(dir)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(|e| named(e, "list", &path))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort();
        Ok(names)
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let path = self.at(path)?;
        fs::read(&path).map_err(|e| named(e, "read", &path))
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let path = self.at(path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(|e| named(e, "open", &path))?;
        Ok(Box::new(RealFile { file, path }))
    }

    fn exists(&self, path: &str) -> io::Result<bool> {
        self.at(path)?.try_exists()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let from = self.at(from)?;
        fs::rename(&from, self.at(to)?).map_err(|e| named(e, "rename", &from))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let path = self.at(path)?;
        fs::remove_file(&path).map_err(|e| named(e, "remove", &path))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let path = self.at(dir)?;
        File::open(&path).and_then(|d| d.sync_all()).map_err(|e| named(e, "sync", &path))
    }
}

struct RealFile {
    file: File,
    path: PathBuf,
}

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match self.file.read_at(&mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(named(e, "read", &self.path)),
            }
        }
        Ok(done)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|e| named(e, "write", &self.path))
    }

    /// `fdatasync`: the bytes and the length, without the time stamps.
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data().map_err(|e| named(e, "sync", &self.path))
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes).map_err(|e| named(e, "resize", &self.path))
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata().map_err(|e| named(e, "measure", &self.path))?.len())
    }
}
