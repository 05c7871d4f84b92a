//! S3-FIFO (Yang and others 2023): a small queue lets most blocks go early, a main queue gives those that were
//! asked for again a few more rounds.

use super::ghosts::Ghosts;
use super::order::{Order, PerSlot};
use super::{Eviction, Facts, Policy, Use, Victim};
use crate::prefix::Key;

/// Uses that are remembered of a block.
const USES_MAX: u8 = 3;

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: Key,
    rank: u64,
    uses: u8,
    is_main: bool,
}

impl Default for Slot {
    fn default() -> Slot {
        Slot { key: Key([0; 32]), rank: 0, uses: 0, is_main: false }
    }
}

/// Two queues in order of entry, and the names of what left the small one unused.
#[derive(Debug, Clone)]
pub struct S3Fifo {
    slots: PerSlot<Slot>,
    small: Order,
    main: Order,
    /// Resident blocks in the small queue, also those that may not go now.
    small_len: usize,
    small_max: usize,
    ghosts: Ghosts,
    ghosts_max: usize,
    clock: u64,
}

impl S3Fifo {
    /// For a pool of so many blocks: a tenth of it is the small queue.
    pub fn new(blocks: usize) -> S3Fifo {
        let small_max = (blocks / 10).max(1);
        S3Fifo {
            slots: PerSlot::default(),
            small: Order::default(),
            main: Order::default(),
            small_len: 0,
            small_max,
            ghosts: Ghosts::default(),
            ghosts_max: blocks.saturating_sub(small_max),
            clock: 0,
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn line(&mut self, is_main: bool) -> &mut Order {
        if is_main { &mut self.main } else { &mut self.small }
    }

    /// A block of the small queue that was asked for again goes to the main one; any other is given up.
    fn pop_small(&mut self) -> Option<(u64, u32)> {
        while let Some((rank, slot)) = self.small.pop() {
            let now = self.tick();
            let state = self.slots.get_mut(slot);
            if state.uses <= 1 {
                return Some((rank, slot));
            }
            (state.is_main, state.rank, state.uses) = (true, now, 0);
            self.small_len -= 1;
            self.main.insert(now, slot);
        }
        None
    }

    /// Every use is one more round.
    fn pop_main(&mut self) -> Option<(u64, u32)> {
        while let Some((rank, slot)) = self.main.pop() {
            let now = self.tick();
            let state = self.slots.get_mut(slot);
            if state.uses == 0 {
                return Some((rank, slot));
            }
            (state.rank, state.uses) = (now, state.uses - 1);
            self.main.insert(now, slot);
        }
        None
    }

    fn pop(&mut self) -> Option<(u64, u32)> {
        if self.small_len >= self.small_max || self.main.is_empty() {
            self.pop_small().or_else(|| self.pop_main())
        } else {
            self.pop_main().or_else(|| self.pop_small())
        }
    }
}

impl Policy for S3Fifo {
    fn name(&self) -> &'static str {
        "s3-fifo"
    }

    fn sealed(&mut self, slot: u32, facts: &Facts, _now_ms: u64) {
        let is_main = self.ghosts.remove(&facts.key);
        let rank = self.tick();
        *self.slots.get_mut(slot) = Slot { key: facts.key, rank, uses: 0, is_main };
        self.small_len += usize::from(!is_main);
    }

    fn hit(&mut self, slot: u32, _now_ms: u64) {
        let state = self.slots.get_mut(slot);
        state.uses = (state.uses + 1).min(USES_MAX);
    }

    fn rest(&mut self, _slot: u32, _call: &Use, _now_ms: u64) {}

    fn enter(&mut self, slot: u32, _now_ms: u64) {
        let Slot { rank, is_main, .. } = *self.slots.get_mut(slot);
        self.line(is_main).insert(rank, slot);
    }

    fn leave(&mut self, slot: u32) {
        let Slot { rank, is_main, .. } = *self.slots.get_mut(slot);
        self.line(is_main).remove(rank, slot);
    }

    fn victim(&mut self, now_ms: u64) -> Option<Victim> {
        let (worth, slot) = self.pop()?;
        self.gone(slot, now_ms);
        Some(Victim { slot, reason: Eviction::Room, worth })
    }

    fn gone(&mut self, slot: u32, _now_ms: u64) {
        let Slot { key, is_main, .. } = *self.slots.get_mut(slot);
        if !is_main {
            self.small_len -= 1;
            self.ghosts.insert(key);
            self.ghosts.trim(self.ghosts_max);
        }
    }

    fn boxed(&self) -> Box<dyn Policy> {
        Box::new(self.clone())
    }
}
