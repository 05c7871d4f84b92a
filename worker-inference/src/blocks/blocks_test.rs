//! The pool under made-up lives.

use super::*;
use crate::evict::{POLICIES, policy};

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
    for name in POLICIES {
        random_lives(Blocks::with_policy(20, policy(name, 20).expect("a known name")));
    }
}

fn random_lives(mut blocks: Blocks) {
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
                    let mut key = Key([0; 32]);
                    key.0[..4].copy_from_slice(&round.to_le_bytes());
                    // Without a key: its content is known already, in another block.
                    blocks.seal(taken.block, (next(2) == 0).then_some(key));
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

/// A pool whose blocks form chains, and what must hold of it at any time.
struct Chains {
    blocks: Blocks,
    /// Blocks held, each with all its ancestors before it.
    held: Vec<Vec<BlockId>>,
    next_key: u64,
}

impl Chains {
    fn new(policy: Box<dyn Policy>) -> Chains {
        Chains { blocks: Blocks::with_policy(40, policy), held: Vec::new(), next_key: 0 }
    }

    fn fresh_key(&mut self) -> Key {
        self.next_key += 1;
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.next_key.to_le_bytes());
        Key(key)
    }

    /// Shares the first blocks of a held chain and adds new ones.
    fn grow(&mut self, from: Option<usize>, shared: usize, new: usize) {
        let mut chain: Vec<BlockId> =
            from.map_or_else(Vec::new, |from| self.held[from].iter().copied().take(shared).collect());
        chain.iter().for_each(|&block| self.blocks.hold(block));
        for _ in 0..new {
            let project = [(chain.len() % 2) as u8; 32];
            let Some(taken) = self.blocks.take_for(Owner { project, class: 1 }) else { break };
            let key = self.fresh_key();
            self.blocks.seal_in_chain(taken.block, Some(key), chain.last().copied(), chain.len() as u32);
            chain.push(taken.block);
        }
        self.held.push(chain);
    }

    fn drop_chain(&mut self, index: usize) {
        let chain = self.held.swap_remove(index);
        for (after, &block) in chain.iter().rev().enumerate() {
            self.blocks.release_after(block, &Use { after: after as u32, ..Use::default() });
        }
    }

    fn check(&self) {
        let blocks = &self.blocks;
        let mut distinct: Vec<BlockId> = self.held.iter().flatten().copied().collect();
        distinct.sort();
        distinct.dedup();
        assert_eq!(blocks.used(), distinct.len());
        assert_eq!(blocks.used() + blocks.free() + blocks.idle(), blocks.total());
        let by_owner = blocks.by_owner().values();
        let (held, idle) = by_owner.fold((0, 0), |sum, one| (sum.0 + one.held, sum.1 + one.idle));
        assert_eq!((held, idle), (blocks.used(), blocks.idle()));
        for (index, slot) in blocks.slots.iter().enumerate() {
            let children = blocks.slots.iter().filter(|child| child.parent == index as u32).count();
            assert_eq!(slot.children as usize, children);
            assert!(children == 0 || blocks.key(BlockId(index as u32)).is_some(), "a parent is resident");
        }
    }
}

fn random_chains(policy: Box<dyn Policy>) {
    let mut chains = Chains::new(policy);
    let mut seed = 11_u64;
    let mut next = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below.max(1)
    };
    for round in 0..4_000 {
        chains.blocks.set_time(round * 50);
        let held = chains.held.len();
        match next(8) {
            0..=2 => chains.grow((held > 0).then(|| next(held)), next(6), next(6)),
            3..=5 if held > 0 => chains.drop_chain(next(held)),
            6 => drop(chains.blocks.evict_of(&[next(2) as u8; 32], Eviction::ProjectLimit)),
            _ => {
                let hint = [Hint::Dead, Hint::Superseded, Hint::Pin { until_ms: 400 }, Hint::None][next(4)];
                chains.blocks.hint(BlockId(next(40) as u32), hint);
            }
        }
        chains.check();
    }
    while !chains.held.is_empty() {
        chains.drop_chain(0);
    }
    let idle = chains.blocks.idle();
    let cleared = std::iter::from_fn(|| chains.blocks.evict(Eviction::Cleared)).count();
    assert_eq!((cleared, chains.blocks.free()), (idle, 40), "every idle block can be had");
    chains.check();
}

#[test]
fn chains_keep_their_beginnings() {
    for name in crate::evict::POLICIES {
        random_chains(crate::evict::policy(name, 40).expect("a known name"));
    }
}

#[test]
fn a_parent_outlives_its_children() {
    let mut chains = Chains::new(Box::new(Lru::default()));
    chains.grow(None, 0, 3);
    let chain = chains.held[0].clone();
    // From the front: the order in which the policy hears of them must not matter.
    chain.iter().for_each(|&block| chains.blocks.release(block));
    let keys: Vec<Option<Key>> = chain.iter().map(|&block| chains.blocks.key(block)).collect();
    let gone: Vec<Option<Key>> = (0..3).map(|_| chains.blocks.evict(Eviction::Cleared)).collect();
    assert_eq!(gone, [keys[2], keys[1], keys[0]]);
}

#[test]
fn bytes_on_their_way_hold_their_block() {
    let mut blocks = Blocks::new(1);
    let block = sealed(&mut blocks, 1);
    blocks.release(block);
    let (demoting, lost) = blocks.demote(Eviction::Room).expect("an idle block");
    assert_eq!((demoting, lost.key), (block, key(1)));
    assert_eq!((blocks.available(), blocks.take()), (0, None));
    blocks.demoted(block);
    let block = blocks.take().expect("a block").block;
    blocks.fetch(block);
    assert_eq!((blocks.is_mutable(block), blocks.available()), (false, 0));
    blocks.seal(block, Some(key(1)));
    blocks.release(block);
    assert_eq!((blocks.idle(), blocks.key(block)), (1, Some(key(1))));
    blocks.hold(block);
    blocks.release(block);
    let block = blocks.take().expect("a block").block;
    blocks.fetch(block);
    blocks.release(block);
    assert_eq!(blocks.free(), 1, "the bytes did not come");
}
