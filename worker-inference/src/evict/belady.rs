//! Belady's choice: the block that is needed again last. It must be told the future, so only replays can have it.

use std::collections::BTreeMap;

use super::order::{Order, PerSlot};
use super::{Eviction, Facts, Policy, Use, Victim};
use crate::prefix::Key;

/// A block that is never needed again.
const NEVER: u64 = u64::MAX;

/// The bound that no policy without knowledge of the future reaches.
#[derive(Debug, Clone)]
pub struct Belady {
    /// For every access of the trace, the number of the next one to the same content.
    next: std::sync::Arc<[u64]>,
    accesses: usize,
    /// Ranks grow with nearness: `NEVER` minus the number of the next access.
    line: Order,
    ranks: PerSlot<u64>,
}

impl Belady {
    /// `accesses` are the keys in the order in which blocks will be sealed or hit.
    pub fn new(accesses: &[Key]) -> Belady {
        let mut seen: BTreeMap<Key, u64> = BTreeMap::new();
        let numbered = accesses.iter().enumerate().rev();
        let mut next: Vec<u64> =
            numbered.map(|(number, key)| seen.insert(*key, number as u64).unwrap_or(NEVER)).collect();
        next.reverse();
        Belady { next: next.into(), accesses: 0, line: Order::default(), ranks: PerSlot::default() }
    }

    fn access(&mut self, slot: u32) {
        let next = self.next.get(self.accesses).copied().unwrap_or(NEVER);
        *self.ranks.get_mut(slot) = NEVER - next;
        self.accesses += 1;
    }
}

impl Policy for Belady {
    fn name(&self) -> &'static str {
        "belady"
    }

    fn sealed(&mut self, slot: u32, _facts: &Facts, _now_ms: u64) {
        self.access(slot);
    }

    fn hit(&mut self, slot: u32, _now_ms: u64) {
        self.access(slot);
    }

    fn rest(&mut self, _slot: u32, _call: &Use, _now_ms: u64) {}

    fn enter(&mut self, slot: u32, _now_ms: u64) {
        self.line.insert(*self.ranks.get_mut(slot), slot);
    }

    fn leave(&mut self, slot: u32) {
        self.line.remove(*self.ranks.get_mut(slot), slot);
    }

    fn victim(&mut self, _now_ms: u64) -> Option<Victim> {
        self.line.pop().map(|(worth, slot)| Victim { slot, reason: Eviction::Room, worth })
    }

    fn gone(&mut self, _slot: u32, _now_ms: u64) {}

    fn boxed(&self) -> Box<dyn Policy> {
        Box::new(self.clone())
    }
}
