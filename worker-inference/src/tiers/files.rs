//! Performs the disk tier's jobs on its files, one after the other.
//!
//! Nothing is synced: a cache that loses blocks at a power cut loses time, never data. What the drive did not
//! write, or wrote in part, has a wrong sum and counts as absent. What a killed process wrote is in the
//! kernel's hands and survives it.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use sys::disk::{Disk, DiskFile};

use super::buffers::Buffer;
use super::check;
use super::format::{HEADER_BYTES, Header, Shape};
use super::io::{Done, Failure, Job};
use super::slots::Slot;

/// An open file of the disk tier.
pub(super) struct Opened {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) slots: u32,
}

pub(super) struct Files {
    disk: Box<dyn Disk>,
    shape: Shape,
    open: BTreeMap<u32, Opened>,
}

/// The name of a file.
pub(super) fn name(file: u32) -> String {
    format!("kv-{file:08}.blocks")
}

/// The number of a file with such a name.
pub(super) fn number(name: &str) -> Option<u32> {
    let found = name.strip_prefix("kv-")?.strip_suffix(".blocks")?.parse().ok()?;
    (self::name(found) == name).then_some(found)
}

impl Files {
    pub(super) fn new(disk: Box<dyn Disk>, shape: Shape, open: BTreeMap<u32, Opened>) -> Files {
        Files { disk, shape, open }
    }

    pub(super) fn perform(&mut self, job: Job) -> Done {
        let start = Instant::now();
        match job {
            Job::Create { file, slots } => {
                let result = self.create(file, slots).map_err(Failure::from);
                Done::Created { file, result }
            }
            Job::Write { slot, mut header, known_sum, bytes } => {
                header.sum = known_sum.unwrap_or_else(|| check::sum(&header.key, &header.meta, &bytes));
                let result = self.write(slot, &header, &bytes);
                Done::Written {
                    slot,
                    key: header.key,
                    sum: header.sum,
                    bytes,
                    result,
                    spent: start.elapsed(),
                }
            }
            Job::Read { slot, header, mut bytes } => {
                let result = self.read(slot, &header, &mut bytes);
                Done::Read { slot, key: header.key, bytes, result, spent: start.elapsed() }
            }
            Job::Erase { slot } => Done::Erased { slot, result: self.erase(slot) },
            Job::Remove { name } => Done::Removed { result: self.remove(&name).map_err(Failure::from) },
        }
    }

    fn create(&mut self, number: u32, slots: u32) -> io::Result<()> {
        let name = name(number);
        match self.disk.open(&name).and_then(|file| self.prepare(file, slots)) {
            Ok(opened) => {
                self.open.insert(number, opened);
                Ok(())
            }
            Err(cause) => {
                // Half a file would take room for nothing. That it can't be removed either changes nothing.
                self.disk.remove(&name).ok();
                Err(cause)
            }
        }
    }

    /// Its room is set aside now, so that no later write finds the disk full.
    fn prepare(&self, mut file: Box<dyn DiskFile>, slots: u32) -> io::Result<Opened> {
        file.set_len(0)?;
        file.reserve(self.shape.file_bytes(slots))?;
        file.write_at(0, &self.shape.file_header(slots))?;
        Ok(Opened { file, slots })
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open.retain(|file, _| self::name(*file) != name);
        match self.disk.remove(name) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn write(&mut self, slot: Slot, header: &Header, bytes: &Buffer) -> Result<(), Failure> {
        let shape = self.shape;
        let Opened { file, slots } = self.open.get_mut(&slot.file).ok_or(Failure::NoFile)?;
        let header_at = Shape::header_at(slot.slot);
        file.write_at(header_at, &[0; HEADER_BYTES])?;
        file.write_at(shape.payload_at(*slots, slot.slot), bytes)?;
        file.write_at(header_at, &header.encode(&shape))?;
        Ok(())
    }

    fn read(&mut self, slot: Slot, header: &Header, bytes: &mut Buffer) -> Result<(), Failure> {
        let Opened { file, slots } = self.open.get(&slot.file).ok_or(Failure::NoFile)?;
        let len = file.read_at(self.shape.payload_at(*slots, slot.slot), bytes)?;
        let good = len == bytes.len() && check::sum(&header.key, &header.meta, bytes) == header.sum;
        if good { Ok(()) } else { Err(Failure::Corrupt) }
    }

    /// Nothing of the block can be read afterwards.
    fn erase(&mut self, slot: Slot) -> Result<(), Failure> {
        let shape = self.shape;
        let Opened { file, slots } = self.open.get_mut(&slot.file).ok_or(Failure::NoFile)?;
        file.write_at(Shape::header_at(slot.slot), &[0; HEADER_BYTES])?;
        file.erase(shape.payload_at(*slots, slot.slot), shape.block_bytes as u64)?;
        Ok(())
    }
}
