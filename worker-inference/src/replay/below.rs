//! Host and disk tiers as lists of names: what is where, and how many bytes were brought back. Which block leaves a
//! tier is the least worth, as in the real one.

use std::collections::{BTreeMap, BTreeSet};

use crate::blocks::BlockId;
use crate::prefix::{BlockTokens, Key};
use crate::scheduler::{Below, Bytes, Whole};

/// One tier: bounded, the content put there longest ago goes first.
#[derive(Debug, Clone, Default)]
struct Shelf {
    contents: BTreeMap<Key, u64>,
    line: BTreeSet<(u64, Key)>,
    blocks_max: usize,
}

impl Shelf {
    fn remove(&mut self, key: &Key) -> bool {
        let Some(number) = self.contents.remove(key) else { return false };
        self.line.remove(&(number, *key))
    }

    /// Puts a content there; returns the one that has to go for it.
    fn put(&mut self, key: Key, number: u64) -> Option<Key> {
        self.remove(&key);
        self.contents.insert(key, number);
        self.line.insert((number, key));
        if self.line.len() <= self.blocks_max {
            return None;
        }
        let (_, gone) = self.line.pop_first()?;
        self.contents.remove(&gone);
        Some(gone)
    }
}

/// Both tiers.
#[derive(Debug, Clone, Default)]
pub(super) struct Shelves {
    host: Shelf,
    disk: Shelf,
    clock: u64,
    pub(super) restored_blocks: u64,
}

impl Shelves {
    pub(super) fn new(host_blocks: usize, disk_blocks: usize) -> Shelves {
        let shelf = |blocks_max| Shelf { blocks_max, ..Shelf::default() };
        Shelves { host: shelf(host_blocks), disk: shelf(disk_blocks), ..Shelves::default() }
    }

    fn put(&mut self, key: Key) {
        self.clock += 1;
        self.disk.remove(&key);
        if let Some(pushed) = self.host.put(key, self.clock) {
            self.disk.put(pushed, self.clock);
        }
    }
}

impl Bytes for Shelves {
    fn find(&mut self, key: &Key) -> Below {
        let is_there = self.host.contents.contains_key(key) || self.disk.contents.contains_key(key);
        if is_there { Below::Ready } else { Below::Absent }
    }

    fn restore(&mut self, key: &Key, _tokens: &BlockTokens, _to: BlockId) -> bool {
        let is_there = self.find(key) == Below::Ready;
        if is_there {
            self.restored_blocks += 1;
            self.put(*key);
        }
        is_there
    }

    fn demote(&mut self, leaving: Whole<'_>) {
        self.put(*leaving.key);
    }

    fn copy(&mut self, _from: BlockId, _to: BlockId, _tokens: usize) {}
}
