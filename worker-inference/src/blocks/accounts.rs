//! Who has how many blocks, and which of a project's blocks may go.

use std::collections::{BTreeMap, BTreeSet};

use crate::evict::Owner;
use crate::prefix::Scope;

/// Blocks of one project and class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnerBlocks {
    /// Held by sequences, or on their way in.
    pub held: usize,
    /// Kept in case they are asked for.
    pub idle: usize,
}

/// Owners without a block are not remembered, so the pool's size bounds this.
#[derive(Debug, Clone, Default)]
pub(super) struct Accounts {
    owners: BTreeMap<Owner, OwnerBlocks>,
    /// Blocks that may be evicted, by project, longest resting first.
    listed: BTreeMap<Scope, BTreeSet<(u64, u32)>>,
}

impl Accounts {
    pub(super) fn by_owner(&self) -> &BTreeMap<Owner, OwnerBlocks> {
        &self.owners
    }

    pub(super) fn held(&mut self, owner: Owner, more: isize) {
        self.change(owner, |blocks| &mut blocks.held, more);
    }

    pub(super) fn idle(&mut self, owner: Owner, more: isize) {
        self.change(owner, |blocks| &mut blocks.idle, more);
    }

    fn change(&mut self, owner: Owner, which: impl Fn(&mut OwnerBlocks) -> &mut usize, more: isize) {
        let blocks = self.owners.entry(owner).or_default();
        let count = which(blocks);
        *count = count.checked_add_signed(more).expect("a block is counted before it goes");
        if *blocks == OwnerBlocks::default() {
            self.owners.remove(&owner);
        }
    }

    pub(super) fn list(&mut self, project: Scope, rested: u64, index: u32) {
        self.listed.entry(project).or_default().insert((rested, index));
    }

    pub(super) fn unlist(&mut self, project: &Scope, rested: u64, index: u32) {
        let Some(line) = self.listed.get_mut(project) else { return };
        line.remove(&(rested, index));
        if line.is_empty() {
            self.listed.remove(project);
        }
    }

    pub(super) fn longest_resting(&self, project: &Scope) -> Option<u32> {
        self.listed.get(project)?.first().map(|&(_, index)| index)
    }
}
