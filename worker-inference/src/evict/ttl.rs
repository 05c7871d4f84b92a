//! A fixed life from the moment a block was written, whatever is done with it.

use super::order::{Order, PerSlot};
use super::{Eviction, Facts, Policy, Use, Victim};

/// Blocks go in the order in which they were written. The reason tells whether their time was over.
#[derive(Debug, Clone)]
pub struct Ttl {
    line: Order,
    written: PerSlot<(u64, u64)>,
    life_ms: u64,
    clock: u64,
}

impl Ttl {
    /// Blocks live `life_ms` after they were written, if there is room.
    pub fn new(life_ms: u64) -> Ttl {
        Ttl { line: Order::default(), written: PerSlot::default(), life_ms, clock: 0 }
    }
}

impl Policy for Ttl {
    fn name(&self) -> &'static str {
        "ttl"
    }

    fn sealed(&mut self, slot: u32, _facts: &Facts, now_ms: u64) {
        self.clock += 1;
        *self.written.get_mut(slot) = (self.clock, now_ms);
    }

    fn hit(&mut self, _slot: u32, _now_ms: u64) {}

    fn rest(&mut self, _slot: u32, _call: &Use, _now_ms: u64) {}

    fn enter(&mut self, slot: u32, _now_ms: u64) {
        self.line.insert(self.written.get_mut(slot).0, slot);
    }

    fn leave(&mut self, slot: u32) {
        self.line.remove(self.written.get_mut(slot).0, slot);
    }

    fn victim(&mut self, now_ms: u64) -> Option<Victim> {
        let (worth, slot) = self.line.pop()?;
        let is_over = self.written.get_mut(slot).1.saturating_add(self.life_ms) <= now_ms;
        let reason = if is_over { Eviction::Expired } else { Eviction::Room };
        Some(Victim { slot, reason, worth })
    }

    fn gone(&mut self, _slot: u32, _now_ms: u64) {}

    fn boxed(&self) -> Box<dyn Policy> {
        Box::new(self.clone())
    }
}
