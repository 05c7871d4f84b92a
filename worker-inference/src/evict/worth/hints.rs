//! What the runtime said of single blocks, and the order of those that are not judged by what was learned.

use std::collections::{BTreeMap, BTreeSet};

use crate::evict::{Eviction, Hint};

/// This part of the pool may be pinned: an eighth of it.
const PINNED_PART: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Doomed(Eviction),
    /// Worth as the bits of a positive float: returns for each ms of keeping.
    Retained {
        until_ms: u64,
        worth: u64,
    },
    Pinned {
        until_ms: u64,
    },
    /// It was retained or pinned, and nobody came in time.
    Over,
}

/// Hints in force, at most one for a slot.
#[derive(Debug, Clone)]
pub(super) struct Hints {
    said: BTreeMap<u32, Said>,
    ends: BTreeSet<(u64, u32)>,
    pinned: usize,
    pinned_max: usize,
    /// Slots that may go, by what was said of them.
    doomed: BTreeMap<u32, Eviction>,
    retained: BTreeSet<(u64, u32)>,
    held_back: BTreeSet<u32>,
}

impl Hints {
    pub(super) fn new(blocks: usize) -> Hints {
        Hints {
            said: BTreeMap::new(),
            ends: BTreeSet::new(),
            pinned: 0,
            pinned_max: blocks / PINNED_PART,
            doomed: BTreeMap::new(),
            retained: BTreeSet::new(),
            held_back: BTreeSet::new(),
        }
    }

    /// Whether a hint, and not what was learned, gives the slot its place.
    pub(super) fn ranks(&self, slot: u32) -> bool {
        matches!(self.said.get(&slot), Some(Said::Doomed(_) | Said::Retained { .. } | Said::Pinned { .. }))
    }

    /// The slot may go. False when nothing was said that gives it a place here.
    pub(super) fn list(&mut self, slot: u32) -> bool {
        match self.said.get(&slot) {
            Some(&Said::Doomed(reason)) => drop(self.doomed.insert(slot, reason)),
            Some(&Said::Retained { worth, .. }) => drop(self.retained.insert((worth, slot))),
            Some(Said::Pinned { .. }) => drop(self.held_back.insert(slot)),
            Some(Said::Over) | None => return false,
        }
        true
    }

    /// The slot may not go any more. False when it had no place here.
    pub(super) fn unlist(&mut self, slot: u32) -> bool {
        match self.said.get(&slot) {
            Some(Said::Doomed(_)) => drop(self.doomed.remove(&slot)),
            Some(&Said::Retained { worth, .. }) => drop(self.retained.remove(&(worth, slot))),
            Some(Said::Pinned { .. }) => drop(self.held_back.remove(&slot)),
            Some(Said::Over) | None => return false,
        }
        true
    }

    /// A new hint takes the place of the old one. Call it while the slot is not listed.
    pub(super) fn set(&mut self, slot: u32, hint: Hint, now_ms: u64) {
        self.forget(slot);
        let said = match hint {
            Hint::Superseded => Said::Doomed(Eviction::Superseded),
            Hint::Dead => Said::Doomed(Eviction::DeadChild),
            Hint::Retain { until_ms, permille } => {
                let wait_ms = until_ms.saturating_sub(now_ms).max(1);
                let chance = f64::from(permille.min(1000)) / 1000.0;
                Said::Retained { until_ms, worth: (chance / wait_ms as f64).to_bits() }
            }
            Hint::Pin { until_ms } if self.pinned < self.pinned_max => Said::Pinned { until_ms },
            Hint::Pin { .. } | Hint::None => return,
        };
        if let Said::Retained { until_ms, .. } | Said::Pinned { until_ms } = said {
            self.ends.insert((until_ms, slot));
        }
        self.pinned += usize::from(matches!(said, Said::Pinned { .. }));
        self.said.insert(slot, said);
    }

    /// Nothing is known of the slot any more. Call it while the slot is not listed.
    pub(super) fn forget(&mut self, slot: u32) {
        match self.said.remove(&slot) {
            Some(Said::Pinned { until_ms }) => {
                self.pinned -= 1;
                self.ends.remove(&(until_ms, slot));
            }
            Some(Said::Retained { until_ms, .. }) => drop(self.ends.remove(&(until_ms, slot))),
            Some(Said::Doomed(_) | Said::Over) | None => {}
        }
    }

    /// It is in use again: whatever was said of its rest is over, except a pin.
    pub(super) fn came_back(&mut self, slot: u32) {
        if !matches!(self.said.get(&slot), Some(Said::Pinned { .. })) {
            self.forget(slot);
        }
    }

    /// Slots whose time is over.
    pub(super) fn expired(&self, now_ms: u64) -> Vec<u32> {
        self.ends.iter().take_while(|(until_ms, _)| *until_ms <= now_ms).map(|(_, slot)| *slot).collect()
    }

    pub(super) fn expire(&mut self, slot: u32) {
        self.forget(slot);
        self.said.insert(slot, Said::Over);
    }

    pub(super) fn has_expired(&self, slot: u32) -> bool {
        self.said.get(&slot) == Some(&Said::Over)
    }

    pub(super) fn doomed(&self) -> Option<(u32, Eviction)> {
        self.doomed.first_key_value().map(|(slot, reason)| (*slot, *reason))
    }

    pub(super) fn least_retained(&self) -> Option<(u64, u32)> {
        self.retained.first().copied()
    }

    /// A slot that is pinned and could go if nothing else can.
    pub(super) fn pinned(&self) -> Option<u32> {
        self.held_back.first().copied()
    }
}
