//! The disk as an argument: what a log, a snapshot file and a content-addressed store need, and no more.
//!
//! [`RealDisk`] is a folder of the machine. [`CrashDisk`] is memory that forgets: at [`CrashDisk::crash`] it
//! keeps what was synced and a random part of what was not, which is what a power cut does. Code that is
//! given a disk instead of opening files itself can be tested for the writes it forgot to sync.
//!
//! Paths are relative to the disk's root, with `/` between parts, without `.` or `..`. The rules are those of
//! a POSIX file system and no kinder: bytes are durable after [`DiskFile::sync`]; a created, renamed or removed
//! name is durable after [`Disk::sync_dir`] of the folder it is in.

mod crash;
mod real;

use std::io;

pub use crash::CrashDisk;
pub use real::RealDisk;

/// A folder with everything below it.
pub trait Disk: Send + Sync {
    /// Makes a folder and those above it. Durable after `sync_dir` of each parent.
    fn create_dir_all(&self, dir: &str) -> io::Result<()>;
    /// The names of the files in a folder, sorted. Folders are not listed.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// A whole file.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;
    /// Opens a file for reading and writing. Makes it when it is missing, never empties it.
    fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Whether a file or folder of that name is there.
    fn exists(&self, path: &str) -> io::Result<bool>;
    /// Gives a file another name in one step, replacing a file that had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send {
    /// Reads at an offset; fewer bytes than asked only at the end of the file.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Writes all bytes at an offset, growing the file where needed.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything written so far durable. After an error nothing is known about any unsynced byte,
    /// and asking again would lie: the caller must stop using the file.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file, or grows it with zeros.
    fn set_len(&mut self, bytes: u64) -> io::Result<()>;
    /// The file's length in bytes.
    fn size(&self) -> io::Result<u64>;
}

/// Writes a whole file so that after a crash there is the old one or the new one, never a mixture:
/// to a temporary name, sync, rename, sync of the folder.
pub fn write_durably(disk: &dyn Disk, path: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = format!("{path}.tmp");
    let mut file = disk.open(&temporary)?;
    file.set_len(0)?;
    file.write_at(0, bytes)?;
    file.sync()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(parent(path))
}

/// Makes a folder and those above it, all durable when this returns.
pub fn create_dir_durably(disk: &dyn Disk, dir: &str) -> io::Result<()> {
    disk.create_dir_all(dir)?;
    let mut dir = dir;
    while !dir.is_empty() {
        dir = parent(dir);
        disk.sync_dir(dir)?;
    }
    Ok(())
}

/// The folder a path is in; the root is the empty path.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// Refuses paths that could leave the root.
fn check(path: &str) -> io::Result<()> {
    let good = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if path.is_empty() || path.split('/').all(good) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} is not a path inside this disk")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What both disks must agree on.
    fn behaves_like_a_disk(disk: &dyn Disk) {
        disk.create_dir_all("a/b").unwrap();
        let mut file = disk.open("a/b/one").unwrap();
        file.write_at(3, b"xyz").unwrap();
        file.set_len(5).unwrap();
        file.sync().unwrap();
        assert_eq!(disk.read("a/b/one").unwrap(), b"\0\0\0xy");
        assert_eq!((file.size().unwrap(), file.read_at(3, &mut [0; 8]).unwrap()), (5, 2));

        write_durably(disk, "a/b/two", b"second").unwrap();
        write_durably(disk, "a/b/two", b"2").unwrap();
        assert_eq!(disk.list("a/b").unwrap(), ["one", "two"]);
        assert_eq!(disk.list("a").unwrap(), Vec::<String>::new());
        assert_eq!(disk.read("a/b/two").unwrap(), b"2");

        disk.rename("a/b/one", "a/b/two").unwrap();
        assert_eq!(disk.list("a/b").unwrap(), ["two"]);
        disk.remove("a/b/two").unwrap();
        disk.sync_dir("a/b").unwrap();
        assert!(disk.exists("a/b").unwrap() && !disk.exists("a/b/two").unwrap());
        for error in [disk.remove("a/b/two").err(), disk.read("a/b/two").err(), disk.list("a/c").err()] {
            assert_eq!(error.unwrap().kind(), io::ErrorKind::NotFound);
        }
        for path in ["../x", "/etc/passwd", "a//b", "a/./b"] {
            assert_eq!(disk.read(path).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{path}");
        }
    }

    #[test]
    fn a_folder_of_the_machine() {
        let root = std::env::temp_dir().join(format!("quorate-disk-{}", std::process::id()));
        behaves_like_a_disk(&RealDisk::new(&root).unwrap());
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn memory_that_forgets() {
        behaves_like_a_disk(&CrashDisk::new());
    }
}
