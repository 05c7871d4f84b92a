//! Which node answered requests that began alike: it has that beginning in its cache. Remembered, never asked: a wrong
//! guess costs a prefill.

use std::collections::{BTreeMap, VecDeque};
use types::{Hash, NodeId};

/// Beginnings that are remembered, some 100 bytes each.
const REMEMBERED: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Prefixes {
    nodes: BTreeMap<Hash, NodeId>,
    /// The oldest first.
    order: VecDeque<Hash>,
}

impl Prefixes {
    /// The node that has the longest of these beginnings.
    pub(super) fn find(&self, marks: &[Hash]) -> Option<NodeId> {
        marks.iter().rev().find_map(|mark| self.nodes.get(mark).copied())
    }

    pub(super) fn remember(&mut self, node: NodeId, marks: &[Hash]) {
        for mark in marks {
            if self.nodes.insert(*mark, node).is_none() {
                self.order.push_back(*mark);
            }
        }
        while self.order.len() > REMEMBERED {
            let oldest = self.order.pop_front();
            oldest.map(|mark| self.nodes.remove(&mark));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(number: usize) -> Hash {
        Hash::of(&number.to_le_bytes())
    }

    #[test]
    fn the_longest_known_beginning_counts_and_old_ones_are_forgotten() {
        let mut prefixes = Prefixes::default();
        prefixes.remember(NodeId(1), &[mark(0), mark(1)]);
        prefixes.remember(NodeId(2), &[mark(0), mark(2)]);
        assert_eq!(prefixes.find(&[mark(0), mark(1), mark(9)]), Some(NodeId(1)));
        assert_eq!(prefixes.find(&[mark(0), mark(8)]), Some(NodeId(2)), "whoever had it last");
        assert_eq!(prefixes.find(&[mark(7)]), None);
        let many: Vec<Hash> = (10..REMEMBERED + 10).map(mark).collect();
        prefixes.remember(NodeId(3), &many);
        assert_eq!((prefixes.find(&[mark(1)]), prefixes.nodes.len()), (None, REMEMBERED));
    }
}
