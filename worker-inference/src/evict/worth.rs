//! Our policy: the block that is worth least goes first. Worth is the chance that somebody asks for the block
//! again, for the time it has to be kept until then.
//!
//! Without hints that chance is learned: blocks are sorted into a few kinds (`kinds`) by what is known of the
//! call that used them last, and for each kind and age it is counted how many came back (`returns`), also after
//! they were given up. Hints come before: what is superseded or dead goes first, what a session will come back
//! for is worth what the hint says until its time is over, and a bounded part of the pool can be pinned.

mod ages;
mod hints;
mod items;
mod kinds;
mod returns;

use std::collections::BTreeSet;

use super::{Eviction, Facts, Hint, Policy, Use, Victim};
use ages::AGES;
use hints::Hints;
use items::{Item, Items};
use kinds::{KINDS, Kind};
use returns::Returns;

/// Calls' ends between two looks at what was learned.
const REFRESH: u64 = 512;
/// Contents remembered after they are gone, for each block of the pool.
const GHOSTS_PER_BLOCK: usize = 8;
/// But at least and at most so many: small pools see little of what comes back, and a ghost takes 200 bytes.
const GHOSTS: std::ops::RangeInclusive<usize> = 1 << 15..=1 << 18;

/// Blocks of one kind and age: they are worth the same.
type Group = usize;

/// The state of our policy for one pool.
#[derive(Debug, Clone)]
pub struct Worth {
    items: Items,
    /// Resting contents by age, in order of their last use.
    aging: Vec<BTreeSet<(u64, u32)>>,
    /// Blocks that may go, by group, in order of their last use.
    groups: Vec<BTreeSet<(u64, u32)>>,
    /// Groups that are not empty, the least worth first. Worths are the bits of positive floats.
    line: BTreeSet<(u64, Group)>,
    worths: Vec<u64>,
    returns: Returns,
    hints: Hints,
    clock: u64,
    /// The moment up to which everything has aged; None after a hint, which may have ended already.
    aged_ms: Option<u64>,
}

impl Worth {
    /// For a pool of so many blocks.
    pub fn new(blocks: usize) -> Worth {
        let mut policy = Worth {
            items: Items::new(blocks.saturating_mul(GHOSTS_PER_BLOCK).clamp(*GHOSTS.start(), *GHOSTS.end())),
            aging: vec![BTreeSet::new(); AGES],
            groups: vec![BTreeSet::new(); KINDS * AGES],
            line: BTreeSet::new(),
            worths: vec![0; KINDS * AGES],
            returns: Returns::default(),
            hints: Hints::new(blocks),
            clock: 0,
            aged_ms: None,
        };
        policy.refresh();
        policy
    }

    /// Looks at what was learned: groups change places in line.
    fn refresh(&mut self) {
        for kind in Kind::all() {
            let worths = self.returns.worths(kind);
            for (age, worth) in worths.into_iter().enumerate() {
                self.worths[kind.index() * AGES + age] = worth.to_bits();
            }
        }
        let filled = (0..self.groups.len()).filter(|&group| !self.groups[group].is_empty());
        self.line = filled.map(|group| (self.worths[group], group)).collect();
    }

    /// Whatever has reached its next age did not come back at the last one.
    fn age(&mut self, now_ms: u64) {
        // A fork hits hundreds of blocks in one moment.
        if self.aged_ms.replace(now_ms) == Some(now_ms) {
            return;
        }
        for age in 0..AGES - 1 {
            while let Some(&(stamp, number)) = self.aging[age].first() {
                let item = self.items.get(number);
                if ages::age(now_ms.saturating_sub(item.rested_ms)) <= age {
                    break;
                }
                let (kind, is_listed) = (item.kind, item.is_listed);
                self.returns.stayed_away(kind, age);
                self.aging[age].remove(&(stamp, number));
                self.regroup(number, is_listed, age + 1);
                self.aging[age + 1].insert((stamp, number));
            }
        }
        for slot in self.hints.expired(now_ms) {
            self.relist(slot, |hints| hints.expire(slot));
        }
    }

    fn regroup(&mut self, number: u32, is_listed: bool, age: usize) {
        let in_group = is_listed && self.items.slot_of(number).is_some_and(|slot| !self.hints.ranks(slot));
        if in_group {
            self.leave_group(number);
        }
        self.items.get_mut(number).age = age;
        if in_group {
            self.enter_group(number);
        }
    }

    fn enter_group(&mut self, number: u32) {
        let Item { kind, age, stamp, .. } = *self.items.get(number);
        let group = kind.index() * AGES + age;
        if self.groups[group].is_empty() {
            self.line.insert((self.worths[group], group));
        }
        self.groups[group].insert((stamp, number));
    }

    fn leave_group(&mut self, number: u32) {
        let Item { kind, age, stamp, .. } = *self.items.get(number);
        let group = kind.index() * AGES + age;
        self.groups[group].remove(&(stamp, number));
        if self.groups[group].is_empty() {
            self.line.remove(&(self.worths[group], group));
        }
    }

    /// A listed slot's place may depend on hints; `change` changes them.
    fn relist(&mut self, slot: u32, change: impl FnOnce(&mut Hints)) {
        let number = self.items.of_slot(slot);
        let is_listed = self.items.get(number).is_listed;
        if is_listed {
            self.unlist(slot, number);
        }
        change(&mut self.hints);
        if is_listed {
            self.list(slot, number);
        }
    }

    fn list(&mut self, slot: u32, number: u32) {
        self.items.get_mut(number).is_listed = true;
        if !self.hints.list(slot) {
            self.enter_group(number);
        }
    }

    fn unlist(&mut self, slot: u32, number: u32) {
        self.items.get_mut(number).is_listed = false;
        if !self.hints.unlist(slot) {
            self.leave_group(number);
        }
    }

    /// Somebody asked for a content, resident or not.
    fn came_back(&mut self, number: u32) {
        let item = self.items.get_mut(number);
        item.is_again = true;
        if std::mem::take(&mut item.is_resting) {
            let Item { kind, age, stamp, .. } = *item;
            self.aging[age].remove(&(stamp, number));
            self.returns.came_back(kind, age);
        }
    }

    /// What the slot holds is gone from the pool, but not from memory.
    fn forget_slot(&mut self, slot: u32) {
        self.hints.forget(slot);
        for (number, item) in self.items.give_up(slot) {
            self.aging[item.age].remove(&(item.stamp, number));
        }
    }

    /// The group worth least, and its block used longest ago.
    fn least(&self) -> Option<(u64, u32)> {
        let &(worth, group) = self.line.first()?;
        let &(_, number) = self.groups[group].first()?;
        self.items.slot_of(number).map(|slot| (worth, slot))
    }

    fn choose(&mut self, now_ms: u64) -> Option<Victim> {
        self.age(now_ms);
        if let Some((slot, reason)) = self.hints.doomed() {
            return Some(Victim { slot, reason, worth: 0 });
        }
        let learned = self.least();
        let hinted = self.hints.least_retained();
        let (worth, slot) = match (learned, hinted) {
            (Some(learned), Some(hinted)) => learned.min(hinted),
            (learned, hinted) => match learned.or(hinted) {
                Some(least) => least,
                None => return self.hints.pinned().map(unpinned),
            },
        };
        let reason = if self.hints.has_expired(slot) { Eviction::Expired } else { Eviction::Room };
        Some(Victim { slot, reason, worth })
    }
}

/// Nothing else was left.
fn unpinned(slot: u32) -> Victim {
    Victim { slot, reason: Eviction::Unpinned, worth: u64::MAX }
}

impl Policy for Worth {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn sealed(&mut self, slot: u32, facts: &Facts, now_ms: u64) {
        self.age(now_ms);
        self.hints.forget(slot);
        if let Some(ghost) = self.items.put(slot, facts.key) {
            self.came_back(ghost);
        }
    }

    fn hit(&mut self, slot: u32, now_ms: u64) {
        self.age(now_ms);
        self.hints.came_back(slot);
        self.came_back(self.items.of_slot(slot));
    }

    fn rest(&mut self, slot: u32, call: &Use, now_ms: u64) {
        self.clock += 1;
        if self.clock.is_multiple_of(REFRESH) {
            self.refresh();
        }
        let number = self.items.of_slot(slot);
        let stamp = self.clock;
        let item = self.items.get_mut(number);
        item.kind = Kind::new(item.is_again, call);
        (item.age, item.stamp, item.rested_ms, item.is_resting) = (0, stamp, now_ms, true);
        self.aging[0].insert((stamp, number));
    }

    fn enter(&mut self, slot: u32, _now_ms: u64) {
        self.list(slot, self.items.of_slot(slot));
    }

    fn leave(&mut self, slot: u32) {
        self.unlist(slot, self.items.of_slot(slot));
    }

    fn victim(&mut self, now_ms: u64) -> Option<Victim> {
        let victim = self.choose(now_ms)?;
        self.leave(victim.slot);
        self.forget_slot(victim.slot);
        Some(victim)
    }

    fn gone(&mut self, slot: u32, _now_ms: u64) {
        self.forget_slot(slot);
    }

    fn hint(&mut self, slot: u32, hint: Hint, now_ms: u64) {
        self.aged_ms = None;
        self.relist(slot, |hints| hints.set(slot, hint, now_ms));
    }

    fn boxed(&self) -> Box<dyn Policy> {
        Box::new(self.clone())
    }
}
