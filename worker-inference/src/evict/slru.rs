//! Segmented LRU: what was used again is kept apart from what was only seen once.

use super::order::{Order, PerSlot};
use super::{Eviction, Facts, Policy, Use, Victim};

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    rank: u64,
    is_protected: bool,
    was_hit: bool,
    is_listed: bool,
}

/// Blocks used once are on probation, those used again are protected; four fifths of the pool at most are.
#[derive(Debug, Clone)]
pub struct Slru {
    slots: PerSlot<Slot>,
    probation: Order,
    protected: Order,
    /// All protected blocks, also those that may not go now.
    all_protected: Order,
    protected_max: usize,
    clock: u64,
}

impl Slru {
    /// For a pool of so many blocks.
    pub fn new(blocks: usize) -> Slru {
        Slru {
            slots: PerSlot::default(),
            probation: Order::default(),
            protected: Order::default(),
            all_protected: Order::default(),
            protected_max: blocks / 5 * 4,
            clock: 0,
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn line(&mut self, is_protected: bool) -> &mut Order {
        if is_protected { &mut self.protected } else { &mut self.probation }
    }

    /// The protected block used longest ago gets a second life on probation.
    fn demote(&mut self) {
        let Some((rank, slot)) = self.all_protected.pop() else { return };
        let now = self.tick();
        let state = self.slots.get_mut(slot);
        (state.is_protected, state.rank) = (false, now);
        if state.is_listed {
            self.protected.remove(rank, slot);
            self.probation.insert(now, slot);
        }
    }

    fn forget(&mut self, slot: u32) {
        let Slot { rank, is_protected, .. } = std::mem::take(self.slots.get_mut(slot));
        if is_protected {
            self.all_protected.remove(rank, slot);
        }
    }
}

impl Policy for Slru {
    fn name(&self) -> &'static str {
        "slru"
    }

    fn sealed(&mut self, slot: u32, _facts: &Facts, _now_ms: u64) {
        *self.slots.get_mut(slot) = Slot::default();
    }

    fn hit(&mut self, slot: u32, _now_ms: u64) {
        self.slots.get_mut(slot).was_hit = true;
    }

    fn rest(&mut self, slot: u32, _call: &Use, _now_ms: u64) {
        let now = self.tick();
        let Slot { rank, is_protected, was_hit, .. } = *self.slots.get_mut(slot);
        if is_protected {
            self.all_protected.remove(rank, slot);
        }
        *self.slots.get_mut(slot) = Slot { rank: now, is_protected: was_hit, was_hit, is_listed: false };
        if was_hit {
            self.all_protected.insert(now, slot);
        }
        while self.all_protected.len() > self.protected_max {
            self.demote();
        }
    }

    fn enter(&mut self, slot: u32, _now_ms: u64) {
        let state = self.slots.get_mut(slot);
        state.is_listed = true;
        let Slot { rank, is_protected, .. } = *state;
        self.line(is_protected).insert(rank, slot);
    }

    fn leave(&mut self, slot: u32) {
        let state = self.slots.get_mut(slot);
        state.is_listed = false;
        let Slot { rank, is_protected, .. } = *state;
        self.line(is_protected).remove(rank, slot);
    }

    fn victim(&mut self, _now_ms: u64) -> Option<Victim> {
        let (worth, slot) = self.probation.pop().or_else(|| self.protected.pop())?;
        self.forget(slot);
        Some(Victim { slot, reason: Eviction::Room, worth })
    }

    fn gone(&mut self, slot: u32, _now_ms: u64) {
        self.forget(slot);
    }

    fn boxed(&self) -> Box<dyn Policy> {
        Box::new(self.clone())
    }
}
