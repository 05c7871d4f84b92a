//! Reads a folder: the whole, or what changed since it was seen.

use super::{DEPTH, ENTRIES, stays};
use crate::wire::{Entry, News, PIECE_BYTES, Piece};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    #[error("the folder holds more than {0} bytes, its disk_bytes: raise the limit or remove files")]
    TooLarge(u64),
    #[error("the folder holds more than {ENTRIES} entries or {DEPTH} levels: remove some")]
    TooMany,
    #[error("cannot read the folder: {0}")]
    Io(#[from] io::Error),
}

/// What tells a changed file from an untouched one. The change time can't be set by a program; the time of the last
/// write is that of the original, so that a write right after the copy is seen where clocks are coarse.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark {
    inode: u64,
    changed_s: i64,
    changed_ns: i64,
    modified_s: i64,
    modified_ns: i64,
    mode: u32,
}

/// The state of a folder at one moment.
pub(crate) struct Seen(BTreeMap<PathBuf, Mark>);

struct Found {
    path: PathBuf,
    stat: Stat,
}

impl Seen {
    pub(crate) fn now(root: &OwnedFd) -> Result<Seen, TakeError> {
        Ok(Seen(walk(root, true)?.into_iter().map(|found| (found.path, mark(&found.stat))).collect()))
    }
}

/// Every entry, parents first. Devices, sockets and pipes are left out.
pub(crate) fn whole(
    root: &OwnedFd,
    limit_bytes: u64,
    give: &mut dyn FnMut(Entry) -> io::Result<()>,
) -> Result<(), TakeError> {
    let mut left_bytes = limit_bytes;
    for found in walk(root, false)? {
        let size = size(&found.stat);
        left_bytes = left_bytes.checked_sub(size).ok_or(TakeError::TooLarge(limit_bytes))?;
        entry(root, &found, give)?;
    }
    Ok(())
}

/// What is other than `before`; what may not leave is told as refused.
pub(crate) fn changed(
    root: &OwnedFd,
    before: &Seen,
    limit_bytes: u64,
    give: &mut dyn FnMut(News) -> io::Result<()>,
) -> Result<(), TakeError> {
    let now = walk(root, true)?;
    for path in before.0.keys().filter(|path| now.binary_search_by(|found| found.path.cmp(path)).is_err()) {
        give(News::Gone(path.as_os_str().as_bytes().to_vec()))?;
    }
    let mut left_bytes = limit_bytes;
    for found in now.iter().filter(|found| before.0.get(&found.path) != Some(&mark(&found.stat))) {
        match refusal(root, found, left_bytes) {
            Some(why) => give(News::Refused(found.path.as_os_str().as_bytes().to_vec(), why))?,
            None => {
                left_bytes -= size(&found.stat);
                entry(root, found, &mut |entry| give(News::Changed(entry)))?;
            }
        }
    }
    Ok(())
}

fn refusal(root: &OwnedFd, found: &Found, left_bytes: u64) -> Option<String> {
    match FileType::from_raw_mode(found.stat.st_mode) {
        FileType::Directory => None,
        FileType::RegularFile if size(&found.stat) > left_bytes => {
            Some("the changed files are larger than disk_bytes together".into())
        }
        FileType::RegularFile => None,
        FileType::Symlink => match target(root.as_fd(), &found.path) {
            Ok(target) if stays(&found.path, Path::new(OsStr::from_bytes(&target))) => None,
            _ => Some("the symlink leads out of the folder".into()),
        },
        _ => Some("neither a file nor a folder nor a symlink".into()),
    }
}

fn size(stat: &Stat) -> u64 {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => u64::try_from(stat.st_size).unwrap_or(u64::MAX),
        _ => 0,
    }
}

fn mark(stat: &Stat) -> Mark {
    // A folder's times change with every name in it; its names are compared by themselves.
    let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let time = |value: i64| if is_folder { 0 } else { value };
    Mark {
        inode: stat.st_ino,
        changed_s: time(stat.st_ctime),
        changed_ns: time(stat.st_ctime_nsec as i64),
        modified_s: time(stat.st_mtime),
        modified_ns: time(stat.st_mtime_nsec as i64),
        mode: stat.st_mode,
    }
}

/// Everything below, ordered by path. `is_ours`: what its owner closed to itself is opened.
fn walk(root: &OwnedFd, is_ours: bool) -> Result<Vec<Found>, TakeError> {
    let mut all = Vec::new();
    below(root.as_fd(), Path::new(""), is_ours, &mut all)?;
    all.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(all)
}

fn below(folder: BorrowedFd<'_>, at: &Path, is_ours: bool, all: &mut Vec<Found>) -> Result<(), TakeError> {
    if at.components().count() >= DEPTH {
        return Err(TakeError::TooMany);
    }
    for name in names(folder)? {
        let stat = rustix::fs::statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)?;
        let path = at.join(OsStr::from_bytes(&name));
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_ours {
            open_up(folder, &name, &stat).map_err(io::Error::from)?;
        }
        all.push(Found { path: path.clone(), stat });
        if all.len() > ENTRIES {
            return Err(TakeError::TooMany);
        }
        if is_folder {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inner = rustix::fs::openat(folder, &name, flags, Mode::empty()).map_err(io::Error::from)?;
            below(inner.as_fd(), &path, is_ours, all)?;
        }
    }
    Ok(())
}

/// So that a file or folder without rights for its owner can be read and told like any other.
fn open_up(folder: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> rustix::io::Result<()> {
    let needed = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => 0o700,
        FileType::RegularFile => 0o600,
        _ => return Ok(()),
    };
    if stat.st_mode & needed == needed {
        return Ok(());
    }
    let mode = Mode::from_raw_mode(stat.st_mode & 0o777 | needed);
    rustix::fs::chmodat(folder, name, mode, AtFlags::empty())
}

fn names(folder: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let entries = Dir::read_from(folder)?.collect::<Result<Vec<_>, _>>()?;
    let names = entries.into_iter().map(|entry| entry.file_name().to_bytes().to_vec());
    Ok(names.filter(|name| name != b"." && name != b"..").collect())
}

fn entry(root: &OwnedFd, found: &Found, give: &mut dyn FnMut(Entry) -> io::Result<()>) -> io::Result<()> {
    let path = found.path.as_os_str().as_bytes().to_vec();
    let mode = found.stat.st_mode & 0o777;
    match FileType::from_raw_mode(found.stat.st_mode) {
        FileType::Directory => give(Entry::Folder { path, mode }),
        FileType::Symlink => give(Entry::Link { path, target: target(root.as_fd(), &found.path)? }),
        FileType::RegularFile => pieces(root, found, give),
        _ => Ok(()),
    }
}

fn target(root: BorrowedFd<'_>, path: &Path) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(root, path, Vec::new())?.into_bytes())
}

fn pieces(root: &OwnedFd, found: &Found, give: &mut dyn FnMut(Entry) -> io::Result<()>) -> io::Result<()> {
    let (path, mode) = (&found.path, found.stat.st_mode & 0o777);
    let (modified_s, modified_ns) = (found.stat.st_mtime, found.stat.st_mtime_nsec as i64);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = super::put::open_below(root, path, flags, Mode::empty())?;
    let mut offset = 0;
    loop {
        let mut bytes = vec![0; PIECE_BYTES];
        let count = rustix::io::pread(&file, &mut bytes[..], offset)?;
        if count == 0 && offset > 0 {
            return Ok(());
        }
        bytes.truncate(count);
        let path = path.as_os_str().as_bytes().to_vec();
        give(Entry::Piece(Piece { path, mode, offset, bytes, modified_s, modified_ns }))?;
        if count == 0 {
            return Ok(());
        }
        offset += count as u64;
    }
}
