//! Names of contents that are gone, oldest first: what adaptive policies learn from.

use std::collections::BTreeMap;

use crate::prefix::Key;

/// At most so many keys as its owner trims it to.
#[derive(Debug, Clone, Default)]
pub(super) struct Ghosts {
    by_key: BTreeMap<Key, u64>,
    by_age: BTreeMap<u64, Key>,
    clock: u64,
}

impl Ghosts {
    pub(super) fn insert(&mut self, key: Key) {
        self.remove(&key);
        self.clock += 1;
        self.by_key.insert(key, self.clock);
        self.by_age.insert(self.clock, key);
    }

    pub(super) fn remove(&mut self, key: &Key) -> bool {
        let Some(age) = self.by_key.remove(key) else { return false };
        self.by_age.remove(&age);
        true
    }

    pub(super) fn trim(&mut self, max: usize) {
        while self.len() > max {
            let Some((_, key)) = self.by_age.pop_first() else { return };
            self.by_key.remove(&key);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }
}
