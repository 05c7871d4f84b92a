//! A folder as messages, and messages as a folder. Nothing here follows a symlink or leaves the folder.

mod put;
mod take;

pub(crate) use put::{Put, remove};
pub(crate) use take::{Seen, TakeError, changed, whole};

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Entries of one folder with everything below. More is no work folder but a mistake.
pub(crate) const ENTRIES: usize = 100_000;
const DEPTH: usize = 64;
const PATH_BYTES: usize = 4096;

/// The folder itself, to be named in every call below.
pub(crate) fn open(folder: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    Ok(rustix::fs::open(folder, flags, Mode::empty())?)
}

/// A path that stays below its folder: plain names only.
fn inside(path: &[u8]) -> io::Result<PathBuf> {
    let path = PathBuf::from(OsStr::from_bytes(path));
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let depth = path.components().count();
    if !plain || depth == 0 || depth > DEPTH || path.as_os_str().len() > PATH_BYTES {
        return Err(io::Error::other(format!("{} is not a path inside the folder", path.display())));
    }
    Ok(path)
}

/// Whether a symlink at `path` (relative to the folder) that says `target` stays in the folder, whatever
/// other links there are: those of the way are checked by the same rule.
fn stays(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count() as i64 - 1;
    target.components().all(|part| {
        match part {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth -= 1,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return false,
        }
        depth >= 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_must_stay_inside() {
        assert_eq!(inside(b"a/b").expect("plain"), PathBuf::from("a/b"));
        for path in [&b""[..], b"/etc/shadow", b"../x", b"a/../../x", b"a/..", b"."] {
            assert!(inside(path).is_err(), "{}", String::from_utf8_lossy(path));
        }
        assert!(inside("a/".repeat(100).as_bytes()).is_err());
    }

    #[test]
    fn links_must_stay_inside() {
        let stays = |path: &str, target: &str| stays(Path::new(path), Path::new(target));
        assert!(stays("a", "b"));
        assert!(stays("d/a", "../b"));
        assert!(!stays("a", "../b"));
        assert!(!stays("a", "/etc/shadow"));
        assert!(!stays("d/a", "../x/../../b"));
    }
}
