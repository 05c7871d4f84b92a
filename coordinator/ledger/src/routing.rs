//! Which node for which prefix: a record of what each node was given lately, and so has in its cache.
//!
//! A prompt is a [`Chain`] of parts, and what a node computed for one prompt it need not compute for the next that
//! begins alike. The record ([`Routes`]) is the leader's soft state: learned from placements, bounded for each node
//! as that node's own cache is, corrected by what the workers report. Losing it costs tokens, never correctness.
//!
//! Sending every prompt to the node that knows most of it sends everything to one node: all prompts begin alike
//! somewhere. So a match is weighed against load; [`Fleet`] does it, in integers, and says what it weighed.

mod chain;
mod fleet;
mod shelf;

#[cfg(test)]
mod routing_test;

pub use chain::Chain;
pub use fleet::{Fleet, Lot, View, Wish};

use shelf::Shelf;
use std::collections::{BTreeMap, BTreeSet};
use types::{NodeId, TaskUid};

/// Parts that the whole record may hold: some 30 MiB, whatever the number of nodes.
const PARTS: usize = 1 << 18;
/// Bounds of one node's part of it.
const PARTS_PER_NODE: std::ops::RangeInclusive<usize> = 64..=8192;

/// Placements whose first step is waited for; the oldest are given up.
const THOUGHTS: usize = 8192;

/// What the nodes have in their caches, as far as placements and reports tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    shelves: BTreeMap<NodeId, Shelf>,
    /// By part: the nodes on whose shelf it is.
    holders: BTreeMap<u64, BTreeSet<NodeId>>,
    /// By task that was placed and has made no step yet: where, and how much of its prompt was thought to be there.
    thought: BTreeMap<TaskUid, (NodeId, u64)>,
}

impl Routes {
    /// A prompt goes to a node: from now on the node holds it. Answers how many of its tokens the node had.
    pub fn note(&mut self, node: NodeId, chain: &Chain, now_ms: u64) -> u64 {
        let had = self.matched(node, chain);
        self.learn(node, chain);
        let shelf = self.shelves.entry(node).or_default();
        shelf.work.add(work_tokens(chain.tokens(), had), now_ms);
        had
    }

    /// A task goes to a node.
    pub fn place(&mut self, task: TaskUid, node: NodeId, chain: &Chain, now_ms: u64) {
        let had = self.note(node, chain, now_ms);
        self.thought.insert(task, (node, had));
        if self.thought.len() > THOUGHTS {
            self.thought.pop_first();
        }
    }

    /// The task's first step since says how much the node really had.
    pub fn hear(&mut self, task: TaskUid, had_tokens: u64) {
        if let Some((node, thought_tokens)) = self.thought.remove(&task) {
            self.correct(node, thought_tokens, had_tokens);
        }
    }

    /// The node holds this prompt; nothing is computed for it now.
    pub fn learn(&mut self, node: NodeId, chain: &Chain) {
        let parts_max = self.parts_per_node();
        let shelf = self.shelves.entry(node).or_default();
        // From the end to the beginning, so that what goes first is always an end: a node that holds a part holds
        // everything before it.
        for (key, tokens) in chain.parts().rev() {
            if shelf.touch(key, tokens) {
                self.holders.entry(key).or_default().insert(node);
            }
        }
        while let Some(gone) = shelf.evict(parts_max) {
            strike(&mut self.holders, gone, node);
        }
    }

    /// What the node's engines can keep, in tokens, as it reports; 0 is not known.
    pub fn resize(&mut self, node: NodeId, kv_tokens: u64) {
        self.shelves.entry(node).or_default().capacity_tokens = kv_tokens;
    }

    /// A step told how much the node really had. Where that is less than was thought, the node keeps less than the
    /// record believes, and the record believes in less from now on.
    pub fn correct(&mut self, node: NodeId, thought_tokens: u64, had_tokens: u64) {
        if let Some(shelf) = self.shelves.get_mut(&node) {
            shelf.correct(thought_tokens, had_tokens);
        }
    }

    /// The node is lost, or begins anew: what it held is gone.
    pub fn forget(&mut self, node: NodeId) {
        let Some(shelf) = self.shelves.remove(&node) else { return };
        shelf.keys().for_each(|key| strike(&mut self.holders, key, node));
    }

    /// Something was noted of this node.
    pub fn knows(&self, node: NodeId) -> bool {
        self.shelves.get(&node).is_some_and(|shelf| !shelf.is_empty())
    }

    /// Tokens at the beginning of the prompt that the node holds.
    pub fn matched(&self, node: NodeId, chain: &Chain) -> u64 {
        self.shelves.get(&node).map_or(0, |shelf| chain.end_of(chain.depth(|key| shelf.holds(key))))
    }

    /// What the node was given to compute in the last minutes, in tokens; older work counts less and less.
    pub fn work(&self, node: NodeId, now_ms: u64) -> u64 {
        self.shelves.get(&node).map_or(0, |shelf| shelf.work.at(now_ms))
    }

    /// Up to `max` nodes that hold the longest beginnings, and how many tokens. Where more hold the same, the prompt's
    /// own key says with whom to begin, so that prompts that share a beginning look at different nodes.
    fn holders(&self, chain: &Chain, max: usize) -> Vec<(NodeId, u64)> {
        let mut found: Vec<(NodeId, u64)> = Vec::new();
        let deepest = chain.depth(|key| self.holders.contains_key(&key));
        for depth in (1..=deepest).rev() {
            let Some(nodes) = chain.key_at(depth).and_then(|key| self.holders.get(&key)) else { continue };
            // Who holds more holds this much, too.
            if nodes.len() == found.len() {
                continue;
            }
            for node in from_somewhere(nodes, chain.tail()) {
                if found.len() == max {
                    return found;
                }
                if !found.iter().any(|(known, _)| *known == node) {
                    found.push((node, chain.end_of(depth)));
                }
            }
        }
        found
    }

    fn parts_per_node(&self) -> usize {
        (PARTS / self.shelves.len().max(1)).clamp(*PARTS_PER_NODE.start(), *PARTS_PER_NODE.end())
    }
}

/// A token read from the cache costs a quarter of one that is computed, at most.
fn work_tokens(all: u64, had: u64) -> u64 {
    all.saturating_sub(had) + had / 4
}

fn strike(holders: &mut BTreeMap<u64, BTreeSet<NodeId>>, key: u64, node: NodeId) {
    if let Some(nodes) = holders.get_mut(&key) {
        nodes.remove(&node);
        if nodes.is_empty() {
            holders.remove(&key);
        }
    }
}

/// The whole set, begun in the middle.
fn from_somewhere(nodes: &BTreeSet<NodeId>, seed: u64) -> impl Iterator<Item = NodeId> {
    let last = nodes.last().map_or(0, |node| node.0);
    let middle = NodeId(seed % (last + 1));
    nodes.range(middle..).chain(nodes.range(..middle)).copied()
}
