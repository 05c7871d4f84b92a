//! ARC (Megiddo and Modha 2003): recency and frequency each have a list, and misses on what either list gave up
//! lately shift the border between them.

use super::ghosts::Ghosts;
use super::order::{Order, PerSlot};
use super::{Eviction, Facts, Policy, Use, Victim};
use crate::prefix::Key;

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: Key,
    rank: u64,
    is_frequent: bool,
}

impl Default for Slot {
    fn default() -> Slot {
        Slot { key: Key([0; 32]), rank: 0, is_frequent: false }
    }
}

/// The policy's lists. `recent` blocks were used once, `frequent` ones more often.
#[derive(Debug, Clone)]
pub struct Arc {
    slots: PerSlot<Slot>,
    recent: Order,
    frequent: Order,
    /// Resident blocks, also those that may not go now.
    recent_len: usize,
    frequent_len: usize,
    recent_gone: Ghosts,
    frequent_gone: Ghosts,
    /// How many blocks `recent` should have.
    target: usize,
    blocks: usize,
    clock: u64,
}

impl Arc {
    /// For a pool of so many blocks.
    pub fn new(blocks: usize) -> Arc {
        Arc {
            slots: PerSlot::default(),
            recent: Order::default(),
            frequent: Order::default(),
            recent_len: 0,
            frequent_len: 0,
            recent_gone: Ghosts::default(),
            frequent_gone: Ghosts::default(),
            target: 0,
            blocks,
            clock: 0,
        }
    }

    /// Whether the key was given up lately; moves the border.
    fn learn(&mut self, key: &Key) -> bool {
        let (recent, frequent) = (self.recent_gone.len(), self.frequent_gone.len());
        if self.recent_gone.remove(key) {
            self.target = self.blocks.min(self.target + (frequent / recent).max(1));
            true
        } else if self.frequent_gone.remove(key) {
            self.target = self.target.saturating_sub((recent / frequent).max(1));
            true
        } else {
            false
        }
    }

    fn lengthen(&mut self, is_frequent: bool, more: isize) {
        let len = if is_frequent { &mut self.frequent_len } else { &mut self.recent_len };
        *len = len.saturating_add_signed(more);
    }

    fn trim(&mut self) {
        self.recent_gone.trim(self.blocks.saturating_sub(self.recent_len));
        let kept = self.recent_len + self.frequent_len + self.recent_gone.len();
        self.frequent_gone.trim((2 * self.blocks).saturating_sub(kept));
    }

    fn line(&mut self, is_frequent: bool) -> &mut Order {
        if is_frequent { &mut self.frequent } else { &mut self.recent }
    }

    fn pop(&mut self) -> Option<(u64, u32)> {
        let from_frequent = self.recent.is_empty()
            || self.recent_len <= self.target && !self.frequent.is_empty() && self.frequent_len > 0;
        self.line(from_frequent).pop()
    }
}

impl Policy for Arc {
    fn name(&self) -> &'static str {
        "arc"
    }

    fn sealed(&mut self, slot: u32, facts: &Facts, _now_ms: u64) {
        let is_frequent = self.learn(&facts.key);
        *self.slots.get_mut(slot) = Slot { key: facts.key, rank: 0, is_frequent };
        self.lengthen(is_frequent, 1);
        self.trim();
    }

    fn hit(&mut self, slot: u32, _now_ms: u64) {
        let was_frequent = std::mem::replace(&mut self.slots.get_mut(slot).is_frequent, true);
        self.lengthen(was_frequent, -1);
        self.lengthen(true, 1);
    }

    fn rest(&mut self, slot: u32, _call: &Use, _now_ms: u64) {
        self.clock += 1;
        self.slots.get_mut(slot).rank = self.clock;
    }

    fn enter(&mut self, slot: u32, _now_ms: u64) {
        let Slot { rank, is_frequent, .. } = *self.slots.get_mut(slot);
        self.line(is_frequent).insert(rank, slot);
    }

    fn leave(&mut self, slot: u32) {
        let Slot { rank, is_frequent, .. } = *self.slots.get_mut(slot);
        self.line(is_frequent).remove(rank, slot);
    }

    fn victim(&mut self, now_ms: u64) -> Option<Victim> {
        let (worth, slot) = self.pop()?;
        self.gone(slot, now_ms);
        Some(Victim { slot, reason: Eviction::Room, worth })
    }

    fn gone(&mut self, slot: u32, _now_ms: u64) {
        let Slot { key, is_frequent, .. } = *self.slots.get_mut(slot);
        self.lengthen(is_frequent, -1);
        let ghosts = if is_frequent { &mut self.frequent_gone } else { &mut self.recent_gone };
        ghosts.insert(key);
        self.trim();
    }

    fn boxed(&self) -> Box<dyn Policy> {
        Box::new(self.clone())
    }
}
