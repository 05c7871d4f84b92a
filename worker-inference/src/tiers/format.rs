//! The stored form of the disk tier. All numbers are little-endian.
//!
//! ```text
//! file   page 0        magic 8 | format u16 | min_reader u16 | slots u32 | block bytes u64 | numerics id 32 | sum 16
//!        header table  one header of 256 bytes for each slot, filled up to a whole page
//!        payloads      one block for each slot, each on a page border
//! header stamp u64 | key 32 | parent 32 (zeros: none) | tokens 16 x u32 | project 32 | class u8, 7 zeros |
//!        rank u64 | sum of the block 16 | sum of this header 16 | zeros
//! ```
//!
//! Headers lie together so that a folder is indexed by one read a file. A header is zeroed before its payload is
//! written over and written after it, so a process that dies between leaves a free slot. Whatever else happens
//! to a file (a power cut, another program), the sums tell.

use types::Hash;

use super::check::{self, SUM_BYTES, Sum};
use super::meta::Meta;
use crate::prefix::{BlockTokens, Key};

const MAGIC: &[u8; 8] = b"QuorKVb\n";
const FORMAT: u16 = 1;
/// The oldest reader that understands what this one writes.
const MIN_READER: u16 = 1;
/// Bytes at the beginning of a file that say what it is.
pub(super) const FILE_HEADER_BYTES: usize = 72;
pub(super) const HEADER_BYTES: usize = 256;
const PAGE: u64 = 4096;
/// A file has about this size: small enough to appear and go quickly, large enough for few of them.
const FILE_BYTES: u64 = 64 << 20;
/// No file has more slots; its table is then at most 16 MiB.
pub(super) const SLOTS_MAX: u32 = 1 << 16;

/// What all blocks of one engine have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) numerics: Hash,
    pub(super) block_bytes: usize,
}

impl Shape {
    /// Bytes from one payload to the next.
    fn stride(&self) -> u64 {
        (self.block_bytes as u64).next_multiple_of(PAGE)
    }

    pub(super) fn header_at(slot: u32) -> u64 {
        PAGE + u64::from(slot) * HEADER_BYTES as u64
    }

    pub(super) fn payload_at(&self, slots: u32, slot: u32) -> u64 {
        Self::header_at(slots).next_multiple_of(PAGE) + u64::from(slot) * self.stride()
    }

    /// The size of a file of so many slots.
    pub(super) fn file_bytes(&self, slots: u32) -> u64 {
        self.payload_at(slots, slots)
    }

    /// Slots of a new file when `room` bytes are left; 0 when not even one fits.
    pub(super) fn slots_within(&self, room: u64) -> u32 {
        let room = room.min(FILE_BYTES.max(self.file_bytes(1)));
        let most = (room / self.stride()).min(u64::from(SLOTS_MAX)) as u32;
        (0..=most).rev().find(|&slots| slots == 0 || self.file_bytes(slots) <= room).unwrap_or(0)
    }

    pub(super) fn file_header(&self, slots: u32) -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = [0; FILE_HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[10..12].copy_from_slice(&MIN_READER.to_le_bytes());
        bytes[12..16].copy_from_slice(&slots.to_le_bytes());
        bytes[16..24].copy_from_slice(&(self.block_bytes as u64).to_le_bytes());
        bytes[24..56].copy_from_slice(&self.numerics.0);
        let sum = check::header_sum(&[&bytes[..56]]);
        bytes[56..].copy_from_slice(&sum);
        bytes
    }

    /// The number of slots of a file that begins like this; None when it is not one of ours. The bytes must be
    /// exactly what this version would write: any other format, block size or numerics id is foreign.
    pub(super) fn read_file_header(&self, bytes: &[u8]) -> Option<u32> {
        let slots = u32::from_le_bytes(*bytes.get(12..16)?.first_chunk()?);
        let good =
            (1..=SLOTS_MAX).contains(&slots) && bytes.get(..FILE_HEADER_BYTES)? == self.file_header(slots);
        good.then_some(slots)
    }
}

/// What a slot says about its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Grows with every block written, so that a restart knows which are the latest.
    pub(super) stamp: u64,
    pub(super) key: Key,
    pub(super) meta: Meta,
    pub(super) sum: Sum,
}

impl Header {
    pub(super) fn encode(&self, shape: &Shape) -> [u8; HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend(self.stamp.to_le_bytes());
        bytes.extend(self.key.0);
        bytes.extend(self.meta.parent.map_or([0; 32], |parent| parent.0));
        self.meta.tokens.iter().for_each(|token| bytes.extend(token.to_le_bytes()));
        bytes.extend(self.meta.project);
        bytes.extend([self.meta.class, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(self.meta.rank.to_le_bytes());
        bytes.extend(self.sum);
        bytes.extend(header_sum(shape, &bytes));
        bytes.resize(HEADER_BYTES, 0);
        bytes.try_into().expect("just made this long")
    }

    /// None: the slot is free, or its header is damaged, which is the same.
    pub(super) fn decode(shape: &Shape, bytes: &[u8; HEADER_BYTES]) -> Option<Header> {
        let mut rest = Fields(bytes);
        let stamp = u64::from_le_bytes(rest.next());
        let key = Key(rest.next());
        let parent: [u8; 32] = rest.next();
        let tokens: BlockTokens = std::array::from_fn(|_| u32::from_le_bytes(rest.next()));
        let project = rest.next();
        let [class, ..]: [u8; 8] = rest.next();
        let rank = u64::from_le_bytes(rest.next());
        let sum = rest.next();
        let parent = (parent != [0; 32]).then_some(Key(parent));
        let header = Header { stamp, key, meta: Meta { parent, tokens, project, class, rank }, sum };
        // Written again it must be the same, its sum included, so that no byte is left unchecked.
        (header.encode(shape) == *bytes).then_some(header)
    }
}

fn header_sum(shape: &Shape, fields: &[u8]) -> Sum {
    check::header_sum(&[&shape.numerics.0, &(shape.block_bytes as u64).to_le_bytes(), fields])
}

/// Takes fields of fixed sizes from a header.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn next<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("the fields are shorter than a header");
        self.0 = rest;
        *field
    }
}

const _: () = assert!(8 + 32 + 32 + 64 + 32 + 8 + 8 + 2 * SUM_BYTES <= HEADER_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { numerics: Hash([1; 32]), block_bytes: 368_640 };

    fn header() -> Header {
        let tokens = std::array::from_fn(|index| 1000 + index as u32);
        let meta = Meta { parent: Some(Key([3; 32])), tokens, project: [4; 32], class: 2, rank: 77 };
        Header { stamp: 5, key: Key([2; 32]), meta, sum: [6; SUM_BYTES] }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes
            .chunks(32)
            .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n")
            .collect()
    }

    /// A change here is a new format: give it a number, and keep the old file.
    #[test]
    fn the_first_format_is_as_it_was() {
        let written = [hex(&SHAPE.file_header(181)), hex(&header().encode(&SHAPE))].concat();
        assert_eq!(written, include_str!("golden/format1.hex"));
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Header::decode(&SHAPE, &header().encode(&SHAPE)), Some(header()));
        assert_eq!(Header::decode(&SHAPE, &[0; HEADER_BYTES]), None);
        let other = Shape { block_bytes: 368_641, ..SHAPE };
        assert_eq!(Header::decode(&other, &header().encode(&SHAPE)), None);
        assert_eq!(SHAPE.read_file_header(&SHAPE.file_header(181)), Some(181));
        assert_eq!(other.read_file_header(&SHAPE.file_header(181)), None);
        assert_eq!(SHAPE.read_file_header(&[]), None);
        assert_eq!(SHAPE.read_file_header(&SHAPE.file_header(SLOTS_MAX + 1)), None);
    }

    #[test]
    fn files_fit_their_room() {
        for shape in [SHAPE, Shape { block_bytes: 1, ..SHAPE }, Shape { block_bytes: 100 << 20, ..SHAPE }] {
            assert_eq!(shape.slots_within(shape.file_bytes(1) - 1), 0);
            for slots in [1, 2, 17, 181] {
                let (room, most) = (shape.file_bytes(slots), shape.slots_within(u64::MAX));
                assert_eq!(shape.slots_within(room), slots.min(most));
                assert_eq!(shape.payload_at(slots, 0) % PAGE, 0);
            }
            assert!((1..=SLOTS_MAX).contains(&shape.slots_within(u64::MAX)));
        }
    }
}
