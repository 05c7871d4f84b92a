//! Who holds which KV block. Pure bookkeeping: the bytes live elsewhere, blocks are numbers here.
//!
//! A block's life: free → mutable (one sequence fills it) → sealed (16 tokens, never written again, may be
//! shared) → idle (nobody uses it, kept because its key may be asked for) → evicted, that is free again.
//! Every step is O(1): free blocks are a stack, idle blocks a doubly linked list in order of release.

use std::collections::BTreeMap;

use crate::prefix::Key;

/// Tokens of one block; blocks sit at absolute multiples of it.
pub const BLOCK_TOKENS: usize = 16;

/// A block's number in the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// Why an idle block was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Eviction {
    /// A sequence needed a block and no free one was left.
    Room,
    /// The owner asked for the cache to be emptied.
    Cleared,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Mutable,
    Sealed { key: Option<Key> },
    Idle { key: Key },
}

#[derive(Debug, Clone)]
struct Slot {
    state: State,
    holders: u32,
    /// Neighbours in the idle list; `NONE` at its ends and for all other states.
    older: u32,
    newer: u32,
}

const NONE: u32 = u32::MAX;

/// A block was taken; when it was idle before, the key it was kept for is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub block: BlockId,
    pub evicted: Option<Key>,
}

/// The states and holders of all blocks of one pool.
#[derive(Debug, Clone)]
pub struct Blocks {
    slots: Vec<Slot>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
    idle: usize,
    evictions: BTreeMap<Eviction, u64>,
}

impl Blocks {
    /// All `count` blocks are free.
    ///
    /// # Panics
    /// When `count` does not fit a block number.
    pub fn new(count: usize) -> Blocks {
        assert!(count < NONE as usize, "a pool has fewer than 2^32 - 1 blocks");
        let slot = Slot { state: State::Free, holders: 0, older: NONE, newer: NONE };
        Blocks {
            slots: vec![slot; count],
            // The lowest number is on top, so that a little used pool touches little memory.
            free: (0..count as u32).rev().collect(),
            oldest: NONE,
            newest: NONE,
            idle: 0,
            evictions: BTreeMap::new(),
        }
    }

    pub fn total(&self) -> usize {
        self.slots.len()
    }

    pub fn free(&self) -> usize {
        self.free.len()
    }

    pub fn idle(&self) -> usize {
        self.idle
    }

    /// Blocks that a sequence holds.
    pub fn used(&self) -> usize {
        self.total() - self.free() - self.idle
    }

    /// Blocks that can be taken now: free ones, and idle ones after eviction.
    pub fn available(&self) -> usize {
        self.free() + self.idle
    }

    pub fn evictions(&self) -> &BTreeMap<Eviction, u64> {
        &self.evictions
    }

    /// Takes a block to fill: a free one, else the idle one released longest ago.
    pub fn take(&mut self) -> Option<Taken> {
        let (index, evicted) = match self.free.pop() {
            Some(index) => (index, None),
            None => self.evict_oldest(Eviction::Room).map(|(index, key)| (index, Some(key)))?,
        };
        let slot = &mut self.slots[index as usize];
        slot.state = State::Mutable;
        slot.holders = 1;
        Some(Taken { block: BlockId(index), evicted })
    }

    /// The block is full and will not be written again. Without a key nobody else can find it.
    pub fn seal(&mut self, block: BlockId, key: Option<Key>) {
        let slot = self.slot_mut(block);
        assert_eq!(slot.state, State::Mutable, "only a block being filled is sealed");
        slot.state = State::Sealed { key };
    }

    /// One more sequence holds a sealed or idle block.
    pub fn hold(&mut self, block: BlockId) {
        match self.slot_mut(block).state {
            State::Sealed { .. } => self.slot_mut(block).holders += 1,
            State::Idle { key } => {
                self.unlink(block.0);
                let slot = self.slot_mut(block);
                slot.state = State::Sealed { key: Some(key) };
                slot.holders = 1;
            }
            State::Free | State::Mutable => panic!("block {block:?} cannot be shared"),
        }
    }

    /// A sequence lets go. The last holder of a keyed block leaves it idle, of any other frees it.
    pub fn release(&mut self, block: BlockId) {
        let slot = self.slot_mut(block);
        assert!(slot.holders > 0, "block {block:?} is released more often than held");
        slot.holders -= 1;
        if slot.holders > 0 {
            return;
        }
        match slot.state {
            State::Sealed { key: Some(key) } => {
                slot.state = State::Idle { key };
                self.link_newest(block.0);
            }
            State::Sealed { key: None } | State::Mutable => {
                slot.state = State::Free;
                self.free.push(block.0);
            }
            State::Free | State::Idle { .. } => panic!("block {block:?} had no holder"),
        }
    }

    /// Whether nobody holds the block and it is only kept for its key.
    pub fn is_idle(&self, block: BlockId) -> bool {
        matches!(self.slots[block.0 as usize].state, State::Idle { .. })
    }

    /// How many sequences hold the block.
    pub fn holders(&self, block: BlockId) -> u32 {
        self.slots[block.0 as usize].holders
    }

    /// Whether one sequence is filling the block.
    pub fn is_mutable(&self, block: BlockId) -> bool {
        self.slots[block.0 as usize].state == State::Mutable
    }

    /// Frees the oldest idle block, and says which key it was kept for.
    pub fn evict(&mut self, reason: Eviction) -> Option<Key> {
        let (index, key) = self.evict_oldest(reason)?;
        self.slots[index as usize].state = State::Free;
        self.free.push(index);
        Some(key)
    }

    fn evict_oldest(&mut self, reason: Eviction) -> Option<(u32, Key)> {
        let index = self.oldest;
        if index == NONE {
            return None;
        }
        let State::Idle { key } = self.slots[index as usize].state else {
            panic!("block {index} is in the idle list but not idle")
        };
        self.unlink(index);
        *self.evictions.entry(reason).or_default() += 1;
        Some((index, key))
    }

    fn slot_mut(&mut self, block: BlockId) -> &mut Slot {
        &mut self.slots[block.0 as usize]
    }

    fn link_newest(&mut self, index: u32) {
        let newest = self.newest;
        self.slots[index as usize].older = newest;
        match newest {
            NONE => self.oldest = index,
            neighbour => self.slots[neighbour as usize].newer = index,
        }
        self.newest = index;
        self.idle += 1;
    }

    fn unlink(&mut self, index: u32) {
        let Slot { older, newer, .. } = self.slots[index as usize];
        match older {
            NONE => self.oldest = newer,
            neighbour => self.slots[neighbour as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            neighbour => self.slots[neighbour as usize].older = older,
        }
        let slot = &mut self.slots[index as usize];
        (slot.older, slot.newer) = (NONE, NONE);
        self.idle -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> Key {
        Key([number; 32])
    }

    fn sealed(blocks: &mut Blocks, number: u8) -> BlockId {
        let taken = blocks.take().expect("a block");
        blocks.seal(taken.block, Some(key(number)));
        taken.block
    }

    #[test]
    fn a_block_lives_its_life() {
        let mut blocks = Blocks::new(2);
        let block = sealed(&mut blocks, 1);
        blocks.hold(block);
        blocks.release(block);
        assert_eq!((blocks.used(), blocks.idle(), blocks.free()), (1, 0, 1));
        blocks.release(block);
        assert_eq!((blocks.used(), blocks.idle(), blocks.free()), (0, 1, 1));
        blocks.hold(block);
        assert_eq!((blocks.used(), blocks.idle()), (1, 0));
        blocks.release(block);
        assert!(blocks.is_idle(block));
        assert_eq!(blocks.evict(Eviction::Cleared), Some(key(1)));
        assert_eq!(blocks.free(), 2);
    }

    #[test]
    fn the_idle_block_released_longest_ago_goes_first() {
        let mut blocks = Blocks::new(3);
        let held: Vec<BlockId> = (1..=3).map(|number| sealed(&mut blocks, number)).collect();
        for index in [1, 0, 2] {
            blocks.release(held[index]);
        }
        blocks.hold(held[0]);
        blocks.release(held[0]);
        let evicted: Vec<Option<Key>> = (0..3).map(|_| blocks.take().expect("a block").evicted).collect();
        assert_eq!(evicted, [Some(key(2)), Some(key(3)), Some(key(1))]);
        assert_eq!(blocks.take(), None);
        assert_eq!(blocks.evictions().get(&Eviction::Room), Some(&3));
    }

    #[test]
    fn without_a_key_a_block_is_free_at_once() {
        let mut blocks = Blocks::new(1);
        let taken = blocks.take().expect("a block");
        blocks.seal(taken.block, None);
        blocks.release(taken.block);
        let taken = blocks.take().expect("a block");
        blocks.release(taken.block);
        assert_eq!((blocks.free(), blocks.idle()), (1, 0));
    }

    #[test]
    #[should_panic(expected = "more often than held")]
    fn a_double_release_is_our_mistake() {
        let mut blocks = Blocks::new(1);
        let taken = blocks.take().expect("a block");
        blocks.release(taken.block);
        blocks.release(taken.block);
    }

    #[test]
    fn random_lives_keep_the_counts() {
        let mut blocks = Blocks::new(20);
        let mut held: Vec<BlockId> = Vec::new();
        let mut seed = 7_u64;
        let mut next = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        for round in 0..20_000_u32 {
            match next(3) {
                0 => {
                    if let Some(taken) = blocks.take() {
                        let key = (next(2) == 0).then(|| key(round as u8));
                        blocks.seal(taken.block, key);
                        held.push(taken.block);
                    }
                }
                1 if !held.is_empty() => {
                    let block = held[next(held.len())];
                    blocks.hold(block);
                    held.push(block);
                }
                _ if !held.is_empty() => {
                    let index = next(held.len());
                    blocks.release(held.swap_remove(index));
                }
                _ => {}
            }
            let mut distinct = held.clone();
            distinct.sort();
            distinct.dedup();
            assert_eq!(blocks.used(), distinct.len());
            assert_eq!(blocks.used() + blocks.free() + blocks.idle(), blocks.total());
        }
        assert!(blocks.evictions().get(&Eviction::Room).is_some_and(|&count| count > 100));
    }
}
