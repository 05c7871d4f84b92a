//! Least recently used: the block that rests longest goes first.

use super::order::{Order, PerSlot};
use super::{Eviction, Facts, Policy, Use, Victim};

/// The classic, and what this engine is compared with.
#[derive(Debug, Clone, Default)]
pub struct Lru {
    line: Order,
    rested: PerSlot<u64>,
    clock: u64,
}

impl Policy for Lru {
    fn name(&self) -> &'static str {
        "lru"
    }

    fn sealed(&mut self, _slot: u32, _facts: &Facts, _now_ms: u64) {}

    fn hit(&mut self, _slot: u32, _now_ms: u64) {}

    fn rest(&mut self, slot: u32, _call: &Use, _now_ms: u64) {
        self.clock += 1;
        *self.rested.get_mut(slot) = self.clock;
    }

    fn enter(&mut self, slot: u32, _now_ms: u64) {
        self.line.insert(*self.rested.get_mut(slot), slot);
    }

    fn leave(&mut self, slot: u32) {
        self.line.remove(*self.rested.get_mut(slot), slot);
    }

    fn victim(&mut self, _now_ms: u64) -> Option<Victim> {
        self.line.pop().map(|(worth, slot)| Victim { slot, reason: Eviction::Room, worth })
    }

    fn gone(&mut self, _slot: u32, _now_ms: u64) {}

    fn boxed(&self) -> Box<dyn Policy> {
        Box::new(self.clone())
    }
}
