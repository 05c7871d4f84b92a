//! Who is away, and since when. Pure: the time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use types::NodeId;

#[derive(Debug, Default)]
pub(super) struct Absent {
    members: BTreeSet<NodeId>,
    since_ms: BTreeMap<NodeId, u64>,
}

impl Absent {
    /// Hears which members there are and which of them are attached. True: one that was a member is none any more.
    pub(super) fn see(
        &mut self,
        members: &BTreeSet<NodeId>,
        attached: &BTreeSet<NodeId>,
        now_ms: u64,
    ) -> bool {
        let away = members.difference(attached);
        let since = |node: &NodeId| (*node, self.since_ms.get(node).copied().unwrap_or(now_ms));
        self.since_ms = away.map(since).collect();
        let removed = self.members.difference(members).next().is_some();
        self.members.clone_from(members);
        removed
    }

    /// Nobody could say who is attached: whoever is away counts from anew.
    pub(super) fn forget(&mut self) {
        self.since_ms.clear();
    }

    /// Away for so long that they are taken for lost.
    pub(super) fn gone(&self, after_ms: u64, now_ms: u64) -> Vec<NodeId> {
        let long = |since_ms: u64| now_ms.saturating_sub(since_ms) >= after_ms;
        self.since_ms.iter().filter(|(_, since_ms)| long(**since_ms)).map(|(node, _)| *node).collect()
    }

    /// Whether a member is there.
    pub(super) fn is_here(&self, node: NodeId) -> bool {
        self.members.contains(&node) && !self.since_ms.contains_key(&node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    #[test]
    fn a_node_is_gone_after_its_time_and_a_restart_is_nothing() {
        let mut absent = Absent::default();
        let all = nodes(&[1, 2, 3]);
        assert!(!absent.see(&all, &all, 0));
        absent.see(&all, &nodes(&[1, 3]), 1_000);
        assert!(!absent.is_here(NodeId(2)) && absent.is_here(NodeId(3)) && !absent.is_here(NodeId(4)));
        assert_eq!(absent.gone(60_000, 60_999), []);
        // It restarts, and later it is away again.
        absent.see(&all, &all, 50_000);
        absent.see(&all, &nodes(&[1, 3]), 55_000);
        assert_eq!(absent.gone(60_000, 114_999), []);
        assert_eq!(absent.gone(60_000, 115_000), [NodeId(2)]);
        // Nobody leads for a while: what is not known is not counted.
        absent.forget();
        absent.see(&all, &nodes(&[1, 3]), 200_000);
        assert_eq!(absent.gone(60_000, 259_999), []);
        assert_eq!(absent.gone(60_000, 260_000), [NodeId(2)]);
    }

    #[test]
    fn a_removed_member_is_told_once_and_is_not_away() {
        let mut absent = Absent::default();
        absent.see(&nodes(&[1, 2]), &nodes(&[1]), 0);
        assert!(absent.see(&nodes(&[1]), &nodes(&[1]), 10));
        assert!(!absent.see(&nodes(&[1]), &nodes(&[1]), 20));
        assert_eq!(absent.gone(1, 1_000), []);
        assert!(!absent.see(&nodes(&[1, 4]), &nodes(&[1, 4]), 30), "a new one");
    }
}
