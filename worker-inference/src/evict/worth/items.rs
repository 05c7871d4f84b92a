//! Contents that are in the pool or were there lately, and what is remembered of them.

use std::collections::{BTreeMap, VecDeque};

use super::kinds::Kind;
use crate::evict::order::PerSlot;
use crate::prefix::Key;

const NOWHERE: u32 = u32::MAX;

/// One content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    key: Key,
    slot: u32,
    pub(super) kind: Kind,
    pub(super) age: usize,
    /// The number of its last rest; never used twice.
    pub(super) stamp: u64,
    pub(super) rested_ms: u64,
    /// More than one call has used it.
    pub(super) is_again: bool,
    /// Nobody uses it: it ages.
    pub(super) is_resting: bool,
    /// The pool may give it up.
    pub(super) is_listed: bool,
}

/// All of them, by number.
#[derive(Debug, Clone)]
pub(super) struct Items {
    items: Vec<Item>,
    unused: Vec<u32>,
    slots: PerSlot<Option<u32>>,
    ghosts: BTreeMap<Key, u32>,
    /// Ghosts in the order in which they went, with their stamps.
    line: VecDeque<(u32, u64)>,
    ghosts_max: usize,
}

impl Items {
    pub(super) fn new(ghosts_max: usize) -> Items {
        Items {
            items: Vec::new(),
            unused: Vec::new(),
            slots: PerSlot::default(),
            ghosts: BTreeMap::new(),
            line: VecDeque::new(),
            ghosts_max,
        }
    }

    pub(super) fn get(&self, number: u32) -> &Item {
        &self.items[number as usize]
    }

    pub(super) fn get_mut(&mut self, number: u32) -> &mut Item {
        &mut self.items[number as usize]
    }

    /// # Panics
    /// When the slot holds nothing.
    pub(super) fn of_slot(&self, slot: u32) -> u32 {
        self.slots.get(slot).copied().flatten().expect("the pool has sealed this slot")
    }

    /// None for a content that is gone.
    pub(super) fn slot_of(&self, number: u32) -> Option<u32> {
        let slot = self.get(number).slot;
        (slot != NOWHERE).then_some(slot)
    }

    /// A content comes into the pool. Its number, if it was there lately.
    pub(super) fn put(&mut self, slot: u32, key: Key) -> Option<u32> {
        let ghost = self.ghosts.remove(&key);
        let number = ghost.unwrap_or_else(|| self.add(key));
        let item = self.get_mut(number);
        (item.slot, item.is_listed) = (slot, false);
        *self.slots.get_mut(slot) = Some(number);
        ghost
    }

    fn add(&mut self, key: Key) -> u32 {
        let item = Item {
            key,
            slot: NOWHERE,
            kind: Kind::default(),
            age: 0,
            stamp: 0,
            rested_ms: 0,
            is_again: false,
            is_resting: false,
            is_listed: false,
        };
        match self.unused.pop() {
            Some(number) => {
                self.items[number as usize] = item;
                number
            }
            None => {
                self.items.push(item);
                self.items.len() as u32 - 1
            }
        }
    }

    /// The slot's content leaves the pool. Returns the contents that are forgotten for it.
    pub(super) fn give_up(&mut self, slot: u32) -> Vec<(u32, Item)> {
        let number = self.of_slot(slot);
        *self.slots.get_mut(slot) = None;
        let item = self.get_mut(number);
        item.slot = NOWHERE;
        let (key, stamp) = (item.key, item.stamp);
        self.ghosts.insert(key, number);
        self.line.push_back((number, stamp));
        let over = self.line.len().saturating_sub(self.ghosts_max);
        (0..over).filter_map(|_| self.forget_oldest()).collect()
    }

    fn forget_oldest(&mut self) -> Option<(u32, Item)> {
        let (number, stamp) = self.line.pop_front()?;
        let item = *self.get(number);
        let is_ghost = item.stamp == stamp && self.ghosts.get(&item.key) == Some(&number);
        if !is_ghost {
            return None;
        }
        self.ghosts.remove(&item.key);
        self.unused.push(number);
        Some((number, item))
    }
}
