//! A file as read-only bytes, without reading it.

use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// A whole file mapped read-only. Pages come in when touched and cost no memory of their own.
///
/// The file must not be truncated or rewritten in place while it is mapped (replace it by rename):
/// the kernel answers a read beyond a new end with SIGBUS. Model files are never written in place.
#[derive(Debug)]
pub struct Mapped {
    map: memmap2::Mmap,
    path: PathBuf,
}

/// Why a file could not be mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    #[error("cannot open {path}: {cause}; check the path and that this user may read it")]
    Open { path: PathBuf, cause: std::io::Error },
    #[error("{path} is not a regular file; give the path of the file itself")]
    NotAFile { path: PathBuf },
    #[error("{path} is empty; copy or download it again")]
    Empty { path: PathBuf },
    #[error("cannot map {path} ({bytes} bytes): {cause}; check the address space limit (ulimit -v)")]
    Map { path: PathBuf, bytes: u64, cause: std::io::Error },
}

impl Mapped {
    /// Maps the whole file.
    pub fn open(path: impl AsRef<Path>) -> Result<Mapped, MapError> {
        let path = path.as_ref().to_path_buf();
        let open_failed = |cause| MapError::Open { path: path.clone(), cause };
        let file = File::open(&path).map_err(open_failed)?;
        let metadata = file.metadata().map_err(open_failed)?;
        if !metadata.is_file() {
            return Err(MapError::NotAFile { path });
        }
        if metadata.len() == 0 {
            return Err(MapError::Empty { path });
        }
        // SAFETY: the map is read-only and private to us; that nobody shrinks the file is the documented
        // condition of this type, and the bytes carry no invariant that a concurrent write could break
        // (every reader checks them as hostile input).
        let map = unsafe { memmap2::Mmap::map(&file) };
        let map = map.map_err(|cause| MapError::Map { path: path.clone(), bytes: metadata.len(), cause })?;
        Ok(Mapped { map, path })
    }

    /// The path it was opened with, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells the kernel that the pages will be read once, from front to back. Advice: failing changes nothing.
    pub fn will_read_in_order(&self) {
        let _advice_only = self.map.advise(memmap2::Advice::Sequential);
        let _advice_only = self.map.advise(memmap2::Advice::WillNeed);
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_bytes_of_the_file() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("file");
        std::fs::write(&path, b"hello").expect("write");
        let mapped = Mapped::open(&path).expect("map");
        mapped.will_read_in_order();
        assert_eq!(&*mapped, b"hello");
        assert_eq!(mapped.path(), path);
    }

    #[test]
    fn refuses_what_is_not_a_file_with_bytes() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let empty = folder.path().join("empty");
        std::fs::write(&empty, b"").expect("write");
        assert!(matches!(Mapped::open(&empty), Err(MapError::Empty { .. })));
        assert!(matches!(Mapped::open(folder.path()), Err(MapError::NotAFile { .. })));
        assert!(matches!(Mapped::open(folder.path().join("none")), Err(MapError::Open { .. })));
    }
}
