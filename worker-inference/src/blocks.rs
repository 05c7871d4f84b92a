//! Who holds which KV block. Pure bookkeeping: the bytes live elsewhere, blocks are numbers here.
//!
//! A block's life: free → mutable (one sequence fills it) → sealed (16 tokens, never written again, may be
//! shared) → idle (nobody uses it, kept because its key may be asked for) → evicted, that is free again. On its
//! way to another tier an evicted block is *demoting* until its bytes are copied; on its way back it is *fetching*
//! until they have arrived.
//!
//! Sealed blocks know their parents. A block that a resident block continues is never evicted before it, so what
//! is resident can always be found. Which of the others goes is the [`Policy`]'s choice. Free blocks are a stack;
//! everything else costs what the policy's order costs, O(log n).

mod accounts;

use std::collections::BTreeMap;

use crate::evict::{Facts, Hint, Lru, Owner, Policy, Use};
use crate::prefix::{Key, Scope};

pub use crate::evict::Eviction;
use accounts::Accounts;
pub use accounts::OwnerBlocks;

/// Tokens of one block; blocks sit at absolute multiples of it.
pub const BLOCK_TOKENS: usize = 16;

/// A block's number in the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockId(pub u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Mutable,
    Sealed { key: Option<Key> },
    Idle { key: Key },
    Demoting,
    Fetching,
}

#[derive(Debug, Clone)]
struct Slot {
    state: State,
    holders: u32,
    owner: Owner,
    /// The block that this one continues; `NONE` at the start of a chain, and when that one isn't resident.
    parent: u32,
    /// Resident blocks that continue this one.
    children: u32,
    depth: u32,
    /// When the last holder let go, counted in releases.
    rested: u64,
}

const NONE: u32 = u32::MAX;

/// A content that left the pool. Its bytes are in the block until somebody writes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    pub key: Key,
    pub owner: Owner,
    /// Blocks before it in its chain.
    pub depth: u32,
    pub reason: Eviction,
    /// What the policy thought of it; bigger is better. Comparable within one pool.
    pub worth: u64,
}

/// A block was taken; when it was idle before, the key it was kept for is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub block: BlockId,
    pub evicted: Option<Key>,
    /// More about what was evicted, for whoever keeps it in another tier.
    pub lost: Option<Lost>,
}

/// The states and holders of all blocks of one pool.
#[derive(Debug, Clone)]
pub struct Blocks {
    slots: Vec<Slot>,
    free: Vec<u32>,
    idle: usize,
    accounts: Accounts,
    policy: Box<dyn Policy>,
    evictions: BTreeMap<Eviction, u64>,
    now_ms: u64,
    releases: u64,
}

impl Blocks {
    /// All `count` blocks are free; the one that rests longest is evicted first.
    ///
    /// # Panics
    /// When `count` does not fit a block number.
    pub fn new(count: usize) -> Blocks {
        Blocks::with_policy(count, Box::new(Lru::default()))
    }

    /// All `count` blocks are free.
    ///
    /// # Panics
    /// When `count` does not fit a block number.
    pub fn with_policy(count: usize, policy: Box<dyn Policy>) -> Blocks {
        assert!(count < NONE as usize, "a pool has fewer than 2^32 - 1 blocks");
        let slot = Slot {
            state: State::Free,
            holders: 0,
            owner: Owner::default(),
            parent: NONE,
            children: 0,
            depth: 0,
            rested: 0,
        };
        Blocks {
            slots: vec![slot; count],
            // The lowest number is on top, so that a little used pool touches little memory.
            free: (0..count as u32).rev().collect(),
            idle: 0,
            accounts: Accounts::default(),
            policy,
            evictions: BTreeMap::new(),
            now_ms: 0,
            releases: 0,
        }
    }

    /// The time of everything that follows, in ms since any fixed moment. An earlier time than before is ignored.
    pub fn set_time(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    pub fn policy(&self) -> &dyn Policy {
        &*self.policy
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

    /// Blocks that a sequence holds, or whose bytes are on their way.
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

    /// Blocks by project and class. Bytes are these times the bytes of one block.
    pub fn by_owner(&self) -> &BTreeMap<Owner, OwnerBlocks> {
        self.accounts.by_owner()
    }

    /// Takes a block to fill, for nobody in particular.
    pub fn take(&mut self) -> Option<Taken> {
        self.take_for(Owner::default())
    }

    /// Takes a block to fill: a free one, else the idle one that the policy gives up.
    pub fn take_for(&mut self, owner: Owner) -> Option<Taken> {
        let (index, lost) = match self.free.pop() {
            Some(index) => (index, None),
            None => self.evict_one(Eviction::Room).map(|(index, lost)| (index, Some(lost)))?,
        };
        let slot = &mut self.slots[index as usize];
        (slot.state, slot.holders, slot.owner) = (State::Mutable, 1, owner);
        self.accounts.held(owner, 1);
        Some(Taken { block: BlockId(index), evicted: lost.map(|lost| lost.key), lost })
    }

    /// The block is full and will not be written again. Without a key nobody else can find it.
    pub fn seal(&mut self, block: BlockId, key: Option<Key>) {
        self.seal_in_chain(block, key, None, 0);
    }

    /// The same for a block that continues `parent`, and has `depth` blocks before it.
    pub fn seal_in_chain(&mut self, block: BlockId, key: Option<Key>, parent: Option<BlockId>, depth: u32) {
        let slot = self.slot_mut(block);
        let fetched = slot.state == State::Fetching;
        assert!(slot.state == State::Mutable || fetched, "only a block being filled is sealed");
        slot.state = State::Sealed { key };
        slot.depth = depth;
        let Some(key) = key else { return };
        let parent = parent.and_then(|parent| self.key(parent).map(|key| (parent, key)));
        if let Some((parent, _)) = parent {
            self.gain_child(parent.0);
            self.slot_mut(block).parent = parent.0;
        }
        let owner = self.slots[block.0 as usize].owner;
        let facts = Facts { key, parent: parent.map(|(_, key)| key), depth, owner };
        self.policy.sealed(block.0, &facts, self.now_ms);
    }

    /// One more sequence holds a sealed or idle block.
    pub fn hold(&mut self, block: BlockId) {
        match self.slot_mut(block).state {
            State::Sealed { .. } => self.slot_mut(block).holders += 1,
            State::Idle { key } => self.wake(block.0, key),
            _ => panic!("block {block:?} cannot be shared"),
        }
        // Without a key it will never be kept: the policy was not told of it.
        if self.key(block).is_some() {
            self.policy.hit(block.0, self.now_ms);
        }
    }

    /// A sequence lets go, and nothing is known of the call that used it.
    pub fn release(&mut self, block: BlockId) {
        self.release_after(block, &Use::default());
    }

    /// A sequence lets go. The last holder of a keyed block leaves it idle, of any other frees it.
    pub fn release_after(&mut self, block: BlockId, call: &Use) {
        let slot = self.slot_mut(block);
        assert!(slot.holders > 0, "block {block:?} is released more often than held");
        slot.holders -= 1;
        if slot.holders > 0 {
            return;
        }
        match slot.state {
            State::Sealed { key: Some(key) } => self.lay_down(block.0, key, call),
            State::Sealed { key: None } | State::Mutable | State::Fetching => self.set_free(block.0),
            State::Free | State::Idle { .. } | State::Demoting => panic!("block {block:?} had no holder"),
        }
    }

    /// Advice about an idle or sealed block; see [`Hint`].
    pub fn hint(&mut self, block: BlockId, hint: Hint) {
        if self.key(block).is_some() {
            self.policy.hint(block.0, hint, self.now_ms);
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

    /// The key of a sealed or idle block, if it has one.
    pub fn key(&self, block: BlockId) -> Option<Key> {
        match self.slots[block.0 as usize].state {
            State::Sealed { key } => key,
            State::Idle { key } => Some(key),
            State::Free | State::Mutable | State::Demoting | State::Fetching => None,
        }
    }

    /// Frees an idle block of the policy's choice, and says which key it was kept for.
    pub fn evict(&mut self, reason: Eviction) -> Option<Key> {
        let (index, lost) = self.evict_one(reason)?;
        self.free.push(index);
        Some(lost.key)
    }

    /// Frees the block of a project that rests longest. None when it has no idle one.
    pub fn evict_of(&mut self, project: &Scope, reason: Eviction) -> Option<(BlockId, Lost)> {
        let index = self.accounts.longest_resting(project)?;
        self.policy.leave(index);
        self.policy.gone(index, self.now_ms);
        let lost = self.lose(index, reason, 0);
        self.free.push(index);
        Some((BlockId(index), lost))
    }

    /// Evicts a block of the policy's choice whose bytes are to be copied elsewhere first; then comes
    /// [`Blocks::demoted`].
    pub fn demote(&mut self, reason: Eviction) -> Option<(BlockId, Lost)> {
        let (index, lost) = self.evict_one(reason)?;
        self.slots[index as usize].state = State::Demoting;
        Some((BlockId(index), lost))
    }

    /// The bytes are copied: the block is free.
    pub fn demoted(&mut self, block: BlockId) {
        assert_eq!(self.slot_mut(block).state, State::Demoting, "only a demoting block can be demoted");
        self.slot_mut(block).state = State::Free;
        self.free.push(block.0);
    }

    /// A block that was just taken waits for its bytes. Then it is sealed, or released when they don't come.
    pub fn fetch(&mut self, block: BlockId) {
        assert_eq!(self.slot_mut(block).state, State::Mutable, "only a block just taken is fetched into");
        self.slot_mut(block).state = State::Fetching;
    }

    fn evict_one(&mut self, reason: Eviction) -> Option<(u32, Lost)> {
        let victim = self.policy.victim(self.now_ms)?;
        let reason = if reason == Eviction::Room { victim.reason } else { reason };
        let lost = self.lose(victim.slot, reason, victim.worth);
        Some((victim.slot, lost))
    }

    /// Takes the content away from an idle block that has left the policy.
    fn lose(&mut self, index: u32, reason: Eviction, worth: u64) -> Lost {
        let slot = &mut self.slots[index as usize];
        let State::Idle { key } = slot.state else { panic!("block {index} may be evicted but is not idle") };
        assert_eq!(slot.children, 0, "block {index} may be evicted but a resident block continues it");
        slot.state = State::Free;
        let parent = std::mem::replace(&mut slot.parent, NONE);
        let (owner, depth, rested) = (slot.owner, slot.depth, slot.rested);
        self.idle -= 1;
        self.accounts.idle(owner, -1);
        self.accounts.unlist(&owner.project, rested, index);
        self.lose_child(parent);
        *self.evictions.entry(reason).or_default() += 1;
        Lost { key, owner, depth, reason, worth }
    }

    /// An idle block is held again.
    fn wake(&mut self, index: u32, key: Key) {
        let slot = &mut self.slots[index as usize];
        (slot.state, slot.holders) = (State::Sealed { key: Some(key) }, 1);
        let (owner, is_tail) = (slot.owner, slot.children == 0);
        self.idle -= 1;
        self.accounts.idle(owner, -1);
        self.accounts.held(owner, 1);
        if is_tail {
            self.unlist(index);
        }
    }

    /// A keyed block has lost its last holder.
    fn lay_down(&mut self, index: u32, key: Key, call: &Use) {
        self.releases += 1;
        let slot = &mut self.slots[index as usize];
        (slot.state, slot.rested) = (State::Idle { key }, self.releases);
        let (owner, is_tail) = (slot.owner, slot.children == 0);
        self.idle += 1;
        self.accounts.held(owner, -1);
        self.accounts.idle(owner, 1);
        self.policy.rest(index, call, self.now_ms);
        if is_tail {
            self.list(index);
        }
    }

    fn set_free(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.state = State::Free;
        self.accounts.held(slot.owner, -1);
        self.free.push(index);
    }

    fn gain_child(&mut self, parent: u32) {
        let slot = &mut self.slots[parent as usize];
        slot.children += 1;
        if slot.children == 1 && matches!(slot.state, State::Idle { .. }) {
            self.unlist(parent);
        }
    }

    fn lose_child(&mut self, parent: u32) {
        let Some(slot) = self.slots.get_mut(parent as usize) else { return };
        slot.children -= 1;
        if slot.children == 0 && matches!(slot.state, State::Idle { .. }) {
            self.list(parent);
        }
    }

    /// The block may be evicted from now on.
    fn list(&mut self, index: u32) {
        let Slot { owner, rested, .. } = self.slots[index as usize];
        self.accounts.list(owner.project, rested, index);
        self.policy.enter(index, self.now_ms);
    }

    fn unlist(&mut self, index: u32) {
        let Slot { owner, rested, .. } = self.slots[index as usize];
        self.accounts.unlist(&owner.project, rested, index);
        self.policy.leave(index);
    }

    fn slot_mut(&mut self, block: BlockId) -> &mut Slot {
        &mut self.slots[block.0 as usize]
    }
}

#[cfg(test)]
#[path = "blocks/blocks_test.rs"]
mod blocks_test;
