//! The blocks of one tier and the order in which they go: leaves first, because a block is found only through
//! its parent; among leaves the lowest rank, then the one used longest ago.

use std::collections::{BTreeMap, BTreeSet};

use super::meta::Meta;
use crate::prefix::{Key, Scope};

/// Where a block stands in line: the first goes first.
type Turn = (u64, u64, Key);

#[derive(Debug)]
struct Entry<T> {
    meta: Meta,
    used: u64,
    pins: u32,
    item: T,
}

/// Blocks with an item each: their bytes, or their slot on disk.
#[derive(Debug)]
pub(super) struct Shelf<T> {
    entries: BTreeMap<Key, Entry<T>>,
    /// Blocks that may go: unpinned, and no child of theirs is here.
    line: BTreeSet<Turn>,
    /// How many blocks here have this parent, whether it is here or not.
    children: BTreeMap<Key, u32>,
    counts: BTreeMap<(Scope, u8), usize>,
    clock: u64,
}

impl<T> Default for Shelf<T> {
    fn default() -> Shelf<T> {
        Shelf {
            entries: BTreeMap::new(),
            line: BTreeSet::new(),
            children: BTreeMap::new(),
            counts: BTreeMap::new(),
            clock: 0,
        }
    }
}

impl<T> Shelf<T> {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn get(&self, key: &Key) -> Option<(&Meta, &T)> {
        self.entries.get(key).map(|entry| (&entry.meta, &entry.item))
    }

    pub(super) fn item_mut(&mut self, key: &Key) -> Option<&mut T> {
        self.entries.get_mut(key).map(|entry| &mut entry.item)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = (&Key, &Meta)> {
        self.entries.iter().map(|(key, entry)| (key, &entry.meta))
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&Key, &T)> {
        self.entries.iter().map(|(key, entry)| (key, &entry.item))
    }

    /// Blocks by project and class.
    pub(super) fn counts(&self) -> &BTreeMap<(Scope, u8), usize> {
        &self.counts
    }

    /// Adds a block as the one used last. The key must not be here.
    pub(super) fn insert(&mut self, key: Key, meta: Meta, item: T) {
        self.clock += 1;
        *self.counts.entry((meta.project, meta.class)).or_default() += 1;
        if let Some(parent) = meta.parent {
            self.step_out(&parent);
            *self.children.entry(parent).or_default() += 1;
        }
        let before = self.entries.insert(key, Entry { meta, used: self.clock, pins: 0, item });
        assert!(before.is_none(), "{key:?} is here already");
        self.line_up(&key);
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<(Meta, T)> {
        self.step_out(key);
        let Entry { meta, item, .. } = self.entries.remove(key)?;
        self.uncount((meta.project, meta.class));
        if let Some(parent) = meta.parent {
            self.lose_child(&parent);
        }
        Some((meta, item))
    }

    fn uncount(&mut self, whose: (Scope, u8)) {
        if let Some(count) = self.counts.get_mut(&whose) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&whose);
            }
        }
    }

    /// The block is the one used last.
    pub(super) fn touch(&mut self, key: &Key) {
        self.step_out(key);
        self.clock += 1;
        if let Some(entry) = self.entries.get_mut(key) {
            entry.used = self.clock;
        }
        self.line_up(key);
    }

    pub(super) fn set_rank(&mut self, key: &Key, rank: u64) {
        self.step_out(key);
        if let Some(entry) = self.entries.get_mut(key) {
            entry.meta.rank = rank;
        }
        self.line_up(key);
    }

    /// The block does not go until it is unpinned as often.
    pub(super) fn pin(&mut self, key: &Key) {
        self.step_out(key);
        if let Some(entry) = self.entries.get_mut(key) {
            entry.pins += 1;
        }
    }

    pub(super) fn unpin(&mut self, key: &Key) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.pins = entry.pins.saturating_sub(1);
        }
        self.line_up(key);
    }

    /// The block whose turn it is to go, with its rank.
    pub(super) fn coldest(&self) -> Option<(Key, u64)> {
        match self.line.first() {
            Some((rank, _, key)) => Some((*key, *rank)),
            None => self.coldest_parent(),
        }
    }

    /// Who makes room for a new block: nobody who is worth more, and not its own parent, without which the new
    /// block could not be found.
    pub(super) fn victim(&self, new: &Meta) -> Option<Key> {
        let (key, rank) = self.coldest()?;
        (rank <= new.rank && new.parent != Some(key)).then_some(key)
    }

    /// When every leaf is pinned, or files that were tampered with claim parents in a circle.
    fn coldest_parent(&self) -> Option<(Key, u64)> {
        let loose = self.entries.iter().filter(|(_, entry)| entry.pins == 0);
        loose
            .min_by_key(|(_, entry)| (entry.meta.rank, entry.used))
            .map(|(key, entry)| (*key, entry.meta.rank))
    }

    fn turn(&self, key: &Key) -> Option<Turn> {
        self.entries.get(key).map(|entry| (entry.meta.rank, entry.used, *key))
    }

    fn step_out(&mut self, key: &Key) {
        if let Some(turn) = self.turn(key) {
            self.line.remove(&turn);
        }
    }

    fn line_up(&mut self, key: &Key) {
        let free = self.entries.get(key).is_some_and(|entry| entry.pins == 0);
        if free && !self.children.contains_key(key) {
            self.line.extend(self.turn(key));
        }
    }

    fn lose_child(&mut self, parent: &Key) {
        if let Some(count) = self.children.get_mut(parent) {
            *count -= 1;
            if *count == 0 {
                self.children.remove(parent);
                self.line_up(parent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> Key {
        Key([number; 32])
    }

    fn meta(parent: Option<u8>, rank: u64) -> Meta {
        Meta { parent: parent.map(key), tokens: [0; 16], project: [7; 32], class: 1, rank }
    }

    /// Takes everything out in order.
    fn drained(mut shelf: Shelf<()>) -> Vec<u8> {
        let mut order = Vec::new();
        while let Some((key, _)) = shelf.coldest() {
            shelf.remove(&key);
            order.push(key.0[0]);
        }
        assert!(shelf.counts().is_empty() && shelf.children.is_empty() && shelf.line.is_empty());
        order
    }

    #[test]
    fn the_one_used_longest_ago_goes_first() {
        let mut shelf = Shelf::default();
        (1..=4).for_each(|number| shelf.insert(key(number), meta(None, 0), ()));
        shelf.touch(&key(1));
        assert_eq!(shelf.counts()[&([7; 32], 1)], 4);
        assert_eq!(drained(shelf), [2, 3, 4, 1]);
    }

    #[test]
    fn leaves_go_before_their_parents_whichever_came_first() {
        let mut shelf = Shelf::default();
        shelf.insert(key(1), meta(None, 0), ());
        shelf.insert(key(2), meta(Some(1), 0), ());
        shelf.insert(key(4), meta(Some(3), 0), ());
        shelf.insert(key(3), meta(Some(2), 0), ());
        shelf.insert(key(5), meta(Some(2), 0), ());
        assert_eq!(drained(shelf), [4, 3, 5, 2, 1]);
    }

    #[test]
    fn rank_comes_before_use() {
        let mut shelf = Shelf::default();
        shelf.insert(key(1), meta(None, 5), ());
        shelf.insert(key(2), meta(None, 0), ());
        shelf.insert(key(3), meta(None, 1), ());
        shelf.set_rank(&key(2), 9);
        assert_eq!(drained(shelf), [3, 1, 2]);
    }

    #[test]
    fn what_is_pinned_stays() {
        let mut shelf = Shelf::default();
        shelf.insert(key(1), meta(None, 0), ());
        shelf.insert(key(2), meta(Some(1), 0), ());
        shelf.pin(&key(2));
        shelf.touch(&key(2));
        assert_eq!(shelf.coldest(), Some((key(1), 0)));
        shelf.pin(&key(1));
        assert_eq!(shelf.coldest(), None);
        shelf.unpin(&key(2));
        assert_eq!(shelf.coldest(), Some((key(2), 0)));
    }

    #[test]
    fn parents_in_a_circle_can_go_too() {
        let mut shelf = Shelf::default();
        shelf.insert(key(1), meta(Some(2), 0), ());
        shelf.insert(key(2), meta(Some(1), 0), ());
        shelf.insert(key(3), meta(Some(3), 0), ());
        assert_eq!(drained(shelf).len(), 3);
    }
}
