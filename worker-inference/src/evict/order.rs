//! Slots in order of a number: what most policies are made of.

use std::collections::BTreeSet;

/// Slots with a rank each; the lowest rank goes first.
#[derive(Debug, Clone, Default)]
pub(super) struct Order {
    line: BTreeSet<(u64, u32)>,
}

impl Order {
    pub(super) fn insert(&mut self, rank: u64, slot: u32) {
        self.line.insert((rank, slot));
    }

    pub(super) fn remove(&mut self, rank: u64, slot: u32) -> bool {
        self.line.remove(&(rank, slot))
    }

    pub(super) fn pop(&mut self) -> Option<(u64, u32)> {
        self.line.pop_first()
    }

    pub(super) fn len(&self) -> usize {
        self.line.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }
}

/// A value for each slot, made when it is first asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct PerSlot<T> {
    values: Vec<T>,
}

impl<T: Clone + Default> PerSlot<T> {
    pub(super) fn get(&self, slot: u32) -> Option<&T> {
        self.values.get(slot as usize)
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> &mut T {
        let index = slot as usize;
        if index >= self.values.len() {
            self.values.resize(index + 1, T::default());
        }
        &mut self.values[index]
    }
}
