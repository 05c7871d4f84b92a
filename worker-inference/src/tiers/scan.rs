//! Makes the index of the disk tier again from what lies in its folder. Headers alone are read; a block's bytes
//! are checked when it is fetched. Nothing found is trusted further than its sum goes, and no length in a file
//! decides how much is read.

use std::collections::BTreeMap;
use std::io;

use sys::disk::{Disk, DiskFile};

use super::files::{self, Opened};
use super::format::{FILE_HEADER_BYTES, HEADER_BYTES, Header, Shape};
use super::slots::{Foreign, Slot};

/// What a folder holds.
#[derive(Default)]
pub(super) struct Found {
    pub(super) files: BTreeMap<u32, Opened>,
    /// Ascending by stamp: the block written last comes last.
    pub(super) blocks: Vec<(Slot, Header)>,
    pub(super) foreign: Vec<Foreign>,
    pub(super) next_file: u32,
}

impl Found {
    /// The slots of a file that hold no block.
    pub(super) fn free(&self, file: u32) -> Vec<u32> {
        let taken = self.blocks.iter().map(|(slot, _)| slot).filter(|slot| slot.file == file);
        let taken: std::collections::BTreeSet<u32> = taken.map(|slot| slot.slot).collect();
        let slots = self.files.get(&file).map_or(0, |opened| opened.slots);
        (0..slots).rev().filter(|slot| !taken.contains(slot)).collect()
    }
}

/// Reads a folder. Files with other names are not ours and are left alone. Files beyond `bound` bytes are
/// removed, foreign ones first.
pub(super) fn scan(disk: &dyn Disk, shape: &Shape, bound: u64) -> io::Result<Found> {
    let mut found = Found::default();
    for name in disk.list("")? {
        if let Some(number) = files::number(&name) {
            found.next_file = found.next_file.max(number.saturating_add(1));
            look_at(disk, shape, &mut found, name, number)?;
        }
    }
    trim(disk, shape, &mut found, bound)?;
    found.blocks.sort_by_key(|(_, header)| header.stamp);
    keep_latest(&mut found.blocks);
    Ok(found)
}

fn look_at(disk: &dyn Disk, shape: &Shape, found: &mut Found, name: String, number: u32) -> io::Result<()> {
    let file = disk.open(&name)?;
    let bytes = file.size()?;
    // A file that can't be read is no better than a foreign one.
    match index(file.as_ref(), shape, bytes).unwrap_or(None) {
        Some(Indexed { slots, headers }) => {
            let place = |(slot, header)| (Slot { file: number, slot }, header);
            found.blocks.extend(headers.into_iter().map(place));
            found.files.insert(number, Opened { file, slots });
        }
        None => found.foreign.push(Foreign { name, bytes }),
    }
    Ok(())
}

/// A file of ours: its slots, and the headers that can be read.
struct Indexed {
    slots: u32,
    headers: Vec<(u32, Header)>,
}

/// None when the file is not ours.
fn index(file: &dyn DiskFile, shape: &Shape, bytes: u64) -> io::Result<Option<Indexed>> {
    let mut start = [0; FILE_HEADER_BYTES];
    let len = file.read_at(0, &mut start)?;
    let Some(slots) = shape.read_file_header(&start[..len]) else { return Ok(None) };
    if bytes < shape.payload_at(slots, 0) {
        return Ok(None);
    }
    // The file is at least as long as the table, so this allocates no more than is really there.
    let mut table = vec![0; slots as usize * HEADER_BYTES];
    let len = file.read_at(Shape::header_at(0), &mut table)?;
    let (headers, _) = table[..len].as_chunks::<HEADER_BYTES>();
    let whole = |slot: u32| shape.payload_at(slots, slot) + shape.block_bytes as u64 <= bytes;
    let read = (0..slots).zip(headers).filter(|(slot, _)| whole(*slot));
    let headers = read.filter_map(|(slot, bytes)| Some((slot, Header::decode(shape, bytes)?))).collect();
    Ok(Some(Indexed { slots, headers }))
}

/// Of two slots with the same key, the one written later counts.
fn keep_latest(blocks: &mut Vec<(Slot, Header)>) {
    let mut seen = std::collections::BTreeSet::new();
    blocks.reverse();
    blocks.retain(|(_, header)| seen.insert(header.key));
    blocks.reverse();
}

/// Removes files until the rest fits, because the bound may be smaller than last time.
fn trim(disk: &dyn Disk, shape: &Shape, found: &mut Found, bound: u64) -> io::Result<()> {
    let foreign: u64 = found.foreign.iter().map(|file| file.bytes).sum();
    let ours: u64 = found.files.values().map(|opened| shape.file_bytes(opened.slots)).sum();
    let mut excess = (foreign + ours).saturating_sub(bound);
    while excess > 0 {
        let Some(Foreign { name, bytes }) = found.foreign.pop() else { break };
        disk.remove(&name)?;
        excess = excess.saturating_sub(bytes);
    }
    while excess > 0 {
        let Some((number, opened)) = found.files.pop_first() else { break };
        found.blocks.retain(|(slot, _)| slot.file != number);
        disk.remove(&files::name(number))?;
        excess = excess.saturating_sub(shape.file_bytes(opened.slots));
    }
    Ok(())
}
