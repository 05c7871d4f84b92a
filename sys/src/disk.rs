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
    /// Makes every file and every name durable that was written before, of closed files too: one wait where thousands
    /// would be asked for one by one. After an error nothing is known of any. Other programs' files on the same file
    /// system may be written, too.
    fn sync_all(&self) -> io::Result<()>;
    /// `sync` of many files, in any order and perhaps at the same time. After an error nothing is known of any.
    fn sync_files(&self, files: Vec<Box<dyn DiskFile>>) -> io::Result<()> {
        files.into_iter().try_for_each(|mut file| file.sync())
    }
    /// `sync_dir` of many folders, in the same way.
    fn sync_dirs(&self, dirs: &[String]) -> io::Result<()> {
        dirs.iter().try_for_each(|dir| self.sync_dir(dir))
    }
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
    /// Grows the file to at least so many bytes, of which the new ones are zero, and sets their room on the
    /// disk aside where the file system can do that: later writes below this length then do not find it full.
    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        if self.size()? < bytes { self.set_len(bytes) } else { Ok(()) }
    }
    /// Overwrites a range with zeros, or unmaps it so that it reads as zeros. It must lie inside the file.
    fn erase(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        write_zeros(self, offset, bytes)
    }
}

fn write_zeros(file: &mut (impl DiskFile + ?Sized), offset: u64, bytes: u64) -> io::Result<()> {
    let zeros = [0; 4096];
    let mut done = 0;
    while done < bytes {
        let len = (bytes - done).min(zeros.len() as u64);
        file.write_at(offset + done, &zeros[..len as usize])?;
        done += len;
    }
    Ok(())
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
        let mut room = disk.open("a/b/room").unwrap();
        room.write_at(0, &[7; 9000]).unwrap();
        room.reserve(10_000).unwrap();
        room.reserve(5).unwrap();
        room.erase(1, 8998).unwrap();
        let erased = disk.read("a/b/room").unwrap();
        assert_eq!((erased.len(), erased[0], erased[8999]), (10_000, 7, 7));
        assert!(erased[1..8999].iter().chain(&erased[9000..]).all(|&byte| byte == 0));
        disk.remove("a/b/room").unwrap();
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
    fn a_private_folder_has_one_user_and_one_program() {
        use std::os::unix::fs::PermissionsExt;
        let root = std::env::temp_dir().join(format!("quorate-private-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let disk = RealDisk::private(&root).unwrap();
        behaves_like_a_disk(&disk);
        drop(disk.open("file").unwrap());
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&root), mode(&root.join("file"))), (0o700, 0o600));
        let refused = RealDisk::private(&root).unwrap_err();
        assert!(refused.to_string().contains("in use"), "{refused}");
        drop(disk);
        RealDisk::private(&root).unwrap();
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn memory_that_forgets() {
        behaves_like_a_disk(&CrashDisk::new());
    }
}
