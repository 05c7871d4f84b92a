//! Writes into a folder what messages say, and not outside of it.

use super::{ENTRIES, inside, stays};
use crate::wire::{Entry, Piece};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A folder that takes so many bytes and entries.
pub(crate) struct Put {
    root: OwnedFd,
    left_bytes: u64,
    left_entries: usize,
    /// Symlinks that lead out are an error.
    closed: bool,
}

impl Put {
    /// `closed`: refuse symlinks that lead out of the folder.
    pub(crate) fn new(root: OwnedFd, limit_bytes: u64, closed: bool) -> Self {
        Put { root, left_bytes: limit_bytes, left_entries: ENTRIES, closed }
    }

    /// Makes or replaces one entry; says its path where it is whole or begins.
    pub(crate) fn entry(&mut self, entry: Entry) -> io::Result<Option<PathBuf>> {
        match entry {
            Entry::Folder { path, mode } => self.folder(&inside(&path)?, mode).map(Some),
            Entry::Link { path, target } => self.link(&inside(&path)?, &target).map(Some),
            Entry::Piece(piece) => self.piece(&inside(&piece.path)?, &piece),
        }
    }

    fn folder(&mut self, path: &Path, mode: u32) -> io::Result<PathBuf> {
        self.count()?;
        let mode = Mode::from_raw_mode(mode & 0o777);
        let (parent, name) = parent(&self.root, path)?;
        match kind(&parent, &name) {
            Some(FileType::Directory) => {}
            Some(_) => rustix::fs::unlinkat(&parent, &name, AtFlags::empty())?,
            None => {}
        }
        match rustix::fs::mkdirat(&parent, &name, mode) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        // The owner must be able to go in, to fill it.
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(&parent, &name, flags, Mode::empty())?;
        rustix::fs::fchmod(&folder, mode | Mode::RWXU)?;
        Ok(path.to_path_buf())
    }

    fn link(&mut self, path: &Path, target: &[u8]) -> io::Result<PathBuf> {
        self.count()?;
        if self.closed && !stays(path, Path::new(OsStr::from_bytes(target))) {
            return Err(io::Error::other(format!("{} leads out of the folder", path.display())));
        }
        let (parent, name) = self.clear(path)?;
        rustix::fs::symlinkat(target, &parent, &name)?;
        Ok(path.to_path_buf())
    }

    fn piece(&mut self, path: &Path, piece: &Piece) -> io::Result<Option<PathBuf>> {
        let count = piece.bytes.len() as u64;
        let over = || io::Error::other("more bytes than disk_bytes");
        self.left_bytes = self.left_bytes.checked_sub(count).ok_or_else(over)?;
        let write = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if piece.offset > 0 {
            fill(&open_below(&self.root, path, write, Mode::empty())?, piece)?;
            return Ok(None);
        }
        self.count()?;
        let (parent, name) = self.clear(path)?;
        let make = write | OFlags::CREATE | OFlags::EXCL;
        let file = rustix::fs::openat(&parent, &name, make, Mode::RUSR | Mode::WUSR)?;
        // Not through the umask, and without setuid and setgid.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(piece.mode & 0o777) | Mode::WUSR | Mode::RUSR)?;
        fill(&file, piece)?;
        Ok(Some(path.to_path_buf()))
    }

    fn clear(&self, path: &Path) -> io::Result<(OwnedFd, PathBuf)> {
        remove(&self.root, path.as_os_str().as_bytes())?;
        parent(&self.root, path)
    }

    fn count(&mut self) -> io::Result<()> {
        let over = || io::Error::other(format!("more than {ENTRIES} entries"));
        self.left_entries = self.left_entries.checked_sub(1).ok_or_else(over)?;
        Ok(())
    }
}

/// Removes one entry with everything below it; it may be gone already.
pub(crate) fn remove(root: &OwnedFd, path: &[u8]) -> io::Result<()> {
    let path = inside(path)?;
    let (parent, name) = match parent(root, &path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    match kind(&parent, &name) {
        None => Ok(()),
        Some(FileType::Directory) => remove_folder(&parent, &name),
        Some(_) => Ok(rustix::fs::unlinkat(&parent, &name, AtFlags::empty())?),
    }
}

fn remove_folder(parent: &OwnedFd, name: &Path) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            remove(&folder, name)?;
        }
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// Opens `path` below `root` without following any symlink.
pub(super) fn open_below(root: &OwnedFd, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    Ok(rustix::fs::openat2(root, path, flags, mode, resolve)?)
}

fn parent(root: &OwnedFd, path: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let name = path.file_name().ok_or_else(|| io::Error::other("no name"))?;
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok((open_below(root, above, flags, Mode::empty())?, PathBuf::from(name)))
}

fn kind(parent: &OwnedFd, name: &Path) -> Option<FileType> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(FileType::from_raw_mode(stat.st_mode))
}

fn fill(file: &OwnedFd, piece: &Piece) -> io::Result<()> {
    let (mut bytes, mut offset) = (piece.bytes.as_slice(), piece.offset);
    while !bytes.is_empty() {
        let count = rustix::io::pwrite(file, bytes, offset)?;
        bytes = &bytes[count..];
        offset += count as u64;
    }
    let last_modification = Timespec { tv_sec: piece.modified_s, tv_nsec: piece.modified_ns };
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    Ok(rustix::fs::futimens(file, &Timestamps { last_access, last_modification })?)
}
