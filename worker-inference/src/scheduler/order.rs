//! Who is next: by class, then by what its project has had, then by what its task tree has had, then by arrival.
//!
//! A project's counter grows by the rows that were computed for it, divided by its weight (virtual token
//! counting). Rows found in the cache cost nothing, so that fairness does not punish locality. A project that
//! comes back after a pause starts at the least counter of those at work: it can't save up. Inside a project the
//! task tree that has had least goes first, in powers of two, so that short trees finish and like ones stay in
//! order of arrival. Whoever has waited `PATIENCE_STEPS` counts as one that has had nothing.

use std::collections::BTreeMap;

use crate::prefix::Scope;
use crate::sequence::{Sequence, SequenceId, TreeId};

/// After so many steps a waiting sequence's tree no longer counts against it.
const PATIENCE_STEPS: u64 = 2_000;
/// What one row adds to the counter of a project of weight 1.
const ROW: u64 = 1 << 10;
/// Projects and trees that are remembered while nothing of theirs is in the engine.
const REMEMBERED: usize = 4096;
/// The weight of a project that nobody gave one.
const WEIGHT: u32 = 1;

/// Where a sequence stands in line; smaller is earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    class: u8,
    project: u64,
    tree: u32,
    id: SequenceId,
}

/// What a project or a tree has had.
#[derive(Debug, Clone, Copy, Default)]
struct Account {
    had: u64,
    /// Sequences in the engine, running, waiting or paused.
    live: usize,
    /// The step of its last change.
    seen: u64,
}

/// The books of all projects and trees.
#[derive(Debug, Clone, Default)]
pub(super) struct Service {
    projects: BTreeMap<Scope, Account>,
    trees: BTreeMap<(Scope, TreeId), Account>,
    weights: BTreeMap<Scope, u32>,
}

impl Service {
    /// A project's share beside others; at least 1.
    pub(super) fn set_weight(&mut self, scope: Scope, weight: u32) {
        self.weights.insert(scope, weight.max(1));
        if self.weights.len() > REMEMBERED {
            let projects = &self.projects;
            self.weights.retain(|scope, _| projects.get(scope).is_some_and(|account| account.live > 0));
        }
    }

    /// A sequence enters the engine.
    pub(super) fn enter(&mut self, sequence: &Sequence, step: u64) {
        let floor =
            self.projects.values().filter(|project| project.live > 0).map(|project| project.had).min();
        let project = self.projects.entry(*sequence.scope()).or_default();
        if project.live == 0 {
            project.had = project.had.max(floor.unwrap_or(0));
        }
        (project.live, project.seen) = (project.live + 1, step);
        if sequence.tree() != TreeId::ALONE {
            let tree = self.trees.entry((*sequence.scope(), sequence.tree())).or_default();
            (tree.live, tree.seen) = (tree.live + 1, step);
        }
    }

    /// A sequence has ended.
    pub(super) fn leave(&mut self, sequence: &Sequence) {
        if let Some(project) = self.projects.get_mut(sequence.scope()) {
            project.live = project.live.saturating_sub(1);
        }
        if let Some(tree) = self.trees.get_mut(&(*sequence.scope(), sequence.tree())) {
            tree.live = tree.live.saturating_sub(1);
        }
        forget(&mut self.projects);
        forget(&mut self.trees);
    }

    /// Rows were computed for a sequence.
    pub(super) fn charge(&mut self, sequence: &Sequence, rows: usize, step: u64) {
        let weight = u64::from(*self.weights.get(sequence.scope()).unwrap_or(&WEIGHT));
        if let Some(project) = self.projects.get_mut(sequence.scope()) {
            project.had += rows as u64 * ROW / weight;
            project.seen = step;
        }
        if let Some(tree) = self.trees.get_mut(&(*sequence.scope(), sequence.tree())) {
            tree.had += rows as u64;
            tree.seen = step;
        }
    }

    pub(super) fn rank(&self, id: SequenceId, sequence: &Sequence, step: u64) -> Rank {
        let project = self.projects.get(sequence.scope()).map_or(0, |project| project.had);
        let tree = self.trees.get(&(*sequence.scope(), sequence.tree())).map_or(0, |tree| tree.had);
        let patient = step.saturating_sub(sequence.arrived) >= PATIENCE_STEPS;
        let tree = if patient { 0 } else { u64::BITS - tree.leading_zeros() };
        Rank { class: sequence.class, project, tree, id }
    }

    /// What was computed for a project, in rows times 1024 through its weight.
    #[cfg(test)]
    pub(super) fn had(&self, scope: &Scope) -> u64 {
        self.projects.get(scope).map_or(0, |project| project.had)
    }
}

/// Drops the older half of those that have nothing in the engine, when there are too many.
fn forget<K: Ord + Copy>(accounts: &mut BTreeMap<K, Account>) {
    if accounts.len() <= 2 * REMEMBERED {
        return;
    }
    let mut idle: Vec<u64> =
        accounts.values().filter(|account| account.live == 0).map(|account| account.seen).collect();
    if idle.is_empty() {
        return;
    }
    let middle = idle.len() / 2;
    let (_, &mut border, _) = idle.select_nth_unstable(middle);
    accounts.retain(|_, account| account.live > 0 || account.seen > border);
}
