//! A folder of the machine.

use super::{Disk, DiskFile, check, write_zeros};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Who may open the files of a private folder: their owner.
const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_FOLDER: u32 = 0o700;
/// The file whose lock says that a private folder is in use.
const LOCK: &str = "lock";

/// A folder of the machine, through `std::fs`.
#[derive(Debug, Clone)]
pub struct RealDisk {
    root: PathBuf,
    /// The folder itself. It stays open, because the kernel tells each open file of failed writes since it was opened.
    folder: Arc<File>,
    /// Held as long as any clone of a private disk lives; the kernel lets go of it when the process dies.
    private: Option<Arc<File>>,
}

impl RealDisk {
    /// Opens a folder as a disk; makes it when it is missing.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        fs::create_dir_all(&root).map_err(|e| named(e, "create", &root))?;
        let folder = open_folder(&root)?;
        Ok(RealDisk { root, folder, private: None })
    }

    /// As `new`, for one program at a time and only for its user: the folder gets mode 0700, files made in it
    /// 0600. An error when another program, or this one, has it open already.
    pub fn private(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(PRIVATE_FOLDER).create(&root).map_err(|e| named(e, "create", &root))?;
        let modes = fs::Permissions::from_mode(PRIVATE_FOLDER);
        fs::set_permissions(&root, modes).map_err(|e| named(e, "protect", &root))?;
        let lock = lock(&root.join(LOCK))?;
        let folder = open_folder(&root)?;
        Ok(RealDisk { root, folder, private: Some(Arc::new(lock)) })
    }

    fn at(&self, path: &str) -> io::Result<PathBuf> {
        check(path)?;
        Ok(self.root.join(path))
    }
}

/// Syncs that are under way together. The file system writes its journal once for all that wait for it, and the drive
/// empties its cache once: one after the other they would be written out one by one.
const SYNCS: usize = 16;

/// Does something with each item on a few threads; the first error, when all are done.
fn at_once<T: Send>(items: Vec<T>, act: impl Fn(T) -> io::Result<()> + Sync) -> io::Result<()> {
    if items.len() < 2 {
        return items.into_iter().try_for_each(act);
    }
    let (threads, items) = (items.len().min(SYNCS), Mutex::new(items.into_iter()));
    let next = || items.lock().expect("taking an item does not panic").next();
    let work = || std::iter::from_fn(next).try_for_each(&act);
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let joined = others.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread that syncs panicked")))
        });
        joined.fold(own, |first, next| first.and(next))
    })
}

/// The standard library's errors do not say which file.
fn named(error: io::Error, verb: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {verb} {}: {error}", path.display()))
}

fn open_folder(root: &Path) -> io::Result<Arc<File>> {
    File::open(root).map(Arc::new).map_err(|e| named(e, "open", root))
}

fn lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(PRIVATE_FILE);
    let file = options.open(path).map_err(|e| named(e, "open", path))?;
    file.try_lock().map_err(|e| {
        let why = format!("{} is in use by another program ({e}); give each its own folder", path.display());
        io::Error::new(io::ErrorKind::ResourceBusy, why)
    })?;
    Ok(file)
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
        if self.private.is_some() {
            options.mode(PRIVATE_FILE);
        }
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

    /// `syncfs`, which says since Linux 5.8 whether a write failed.
    fn sync_all(&self) -> io::Result<()> {
        // SAFETY: the descriptor belongs to an open file that this disk holds.
        match unsafe { libc::syncfs(self.folder.as_raw_fd()) } {
            0 => Ok(()),
            _ => Err(named(io::Error::last_os_error(), "sync all of", &self.root)),
        }
    }

    fn sync_files(&self, files: Vec<Box<dyn DiskFile>>) -> io::Result<()> {
        at_once(files, |mut file| file.sync())
    }

    fn sync_dirs(&self, dirs: &[String]) -> io::Result<()> {
        at_once(dirs.iter().collect(), |dir| self.sync_dir(dir))
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

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        match self.allocate(0, 0, bytes) {
            Ok(()) => Ok(()),
            Err(e) if is_unsupported(&e) && self.size()? < bytes => self.set_len(bytes),
            Err(e) if is_unsupported(&e) => Ok(()),
            Err(e) => Err(named(e, "reserve room for", &self.path)),
        }
    }

    fn erase(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        match self.allocate(libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE, offset, bytes) {
            Err(e) if is_unsupported(&e) => write_zeros(self, offset, bytes),
            result => result.map_err(|e| named(e, "erase in", &self.path)),
        }
    }
}

/// The file system has no such call.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

impl RealFile {
    fn allocate(&self, mode: libc::c_int, offset: u64, bytes: u64) -> io::Result<()> {
        let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let offset = libc::off_t::try_from(offset).map_err(too_large)?;
        let bytes = libc::off_t::try_from(bytes).map_err(too_large)?;
        if bytes == 0 {
            return Ok(());
        }
        loop {
            // SAFETY: the descriptor is open as long as `self.file` lives; no memory is involved.
            let answer = unsafe { libc::fallocate(self.file.as_raw_fd(), mode, offset, bytes) };
            match io::Error::last_os_error() {
                _ if answer == 0 => return Ok(()),
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            }
        }
    }
}
