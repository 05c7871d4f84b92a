//! A disk that tells the metrics how long its syncs take. Rooms without a clock use it without knowing.

use crate::telemetry::names;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use sys::disk::{Disk, DiskFile};

/// The same disk, measured under a name such as `log`.
pub(crate) struct Measured {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) what: &'static str,
}

struct MeasuredFile {
    file: Box<dyn DiskFile>,
    what: &'static str,
}

fn timed(what: &'static str, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let start = Instant::now();
    let synced = sync();
    metrics::histogram!(names::FSYNC_SECONDS, "what" => what).record(start.elapsed().as_secs_f64());
    synced
}

impl Disk for Measured {
    fn create_dir_all(&self, dir: &str) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        self.disk.read(path)
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.disk.open(path)?;
        Ok(Box::new(MeasuredFile { file, what: self.what }))
    }

    fn exists(&self, path: &str) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        timed(self.what, || self.disk.sync_dir(dir))
    }

    fn sync_all(&self) -> io::Result<()> {
        timed(self.what, || self.disk.sync_all())
    }
}

impl DiskFile for MeasuredFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, into)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        timed(self.what, || self.file.sync())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
}
