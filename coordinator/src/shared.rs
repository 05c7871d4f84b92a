//! One limit for all calls to a destination, whichever nodes make them. Pure: time is an argument.
//!
//! Each node's own limit grows and falls by what its calls meet; what one node meets the others are about to. So the
//! leader keeps a limit for the cluster in the same way, from what beats say, and divides it by who has calls to make. It
//! is soft: a new leader begins again where one node would.

use std::collections::BTreeMap;
use types::NodeId;

/// The limit grows by one, or falls, at most so often: about as long as it takes to see what it did.
const ROUND_MS: u64 = 500;
/// What is left after a refusal, in percent.
const CUT_PERCENT: u32 = 70;

/// What a node says of its calls to a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub running: u32,
    pub waiting: u32,
    /// How often the destination was overloaded, since the node began.
    pub cuts: u64,
    /// Where its own limit begins and ends.
    pub start: u32,
    pub most: u32,
}

/// One destination.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared {
    loads: BTreeMap<NodeId, Load>,
    /// Calls at the same time, of all nodes together; 0 before the first load.
    limit: u32,
    changed_ms: u64,
}

impl Shared {
    pub(crate) fn hear(&mut self, node: NodeId, load: Load, now_ms: u64) {
        let before = self.loads.insert(node, load);
        let most = self.loads.values().map(|load| load.most).max().unwrap_or(1).max(1);
        if self.limit == 0 {
            (self.limit, self.changed_ms) = (load.start.clamp(1, most), now_ms);
        }
        let overloaded = before.is_some_and(|before| load.cuts > before.cuts);
        let running: u32 = self.loads.values().map(|load| load.running).sum();
        if now_ms.saturating_sub(self.changed_ms) < ROUND_MS {
            return;
        }
        let limit = match overloaded {
            true => (self.limit * CUT_PERCENT / 100).max(1),
            false if running >= self.limit => self.limit.saturating_add(1),
            false => return,
        };
        (self.limit, self.changed_ms) = (limit.min(most), now_ms);
    }

    /// Who is not attached makes no calls that count.
    pub(crate) fn keep(&mut self, attached: impl Fn(NodeId) -> bool) {
        self.loads.retain(|node, _| attached(*node));
    }

    /// Calls that a node may make at the same time: its part by the calls it has, one at least.
    pub(crate) fn part(&self, node: NodeId) -> u32 {
        let weight = |load: &Load| u64::from(load.running) + u64::from(load.waiting) + 1;
        let all: u64 = self.loads.values().map(weight).sum();
        let own = self.loads.get(&node).map_or(0, weight);
        let part = u64::from(self.limit) * own / all.max(1);
        u32::try_from(part).unwrap_or(u32::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn load(running: u32, waiting: u32, cuts: u64) -> Load {
        Load { running, waiting, cuts, start: 8, most: 20 }
    }

    #[test]
    fn the_limit_is_divided_by_who_has_calls_to_make() {
        let mut shared = Shared::default();
        shared.hear(A, load(0, 0, 0), 0);
        assert_eq!(shared.part(A), 8, "alone it has all");
        shared.hear(B, load(0, 0, 0), 0);
        assert_eq!((shared.part(A), shared.part(B)), (4, 4));
        shared.hear(A, load(4, 30, 0), 100);
        assert_eq!((shared.part(A), shared.part(B)), (7, 1));
        shared.keep(|node| node == A);
        assert_eq!(shared.part(A), 8);
    }

    #[test]
    fn it_grows_while_it_is_used_and_falls_for_all_when_one_is_refused() {
        let mut shared = Shared::default();
        (0..40).for_each(|round| {
            shared.hear(A, load(shared.part(A), 5, 0), round * ROUND_MS);
        });
        assert_eq!(shared.limit, 20, "never above the most");
        shared.hear(B, load(0, 9, 0), 40 * ROUND_MS);
        shared.hear(B, load(3, 9, 1), 41 * ROUND_MS);
        assert_eq!(shared.limit, 14);
        shared.hear(A, load(20, 5, 3), 41 * ROUND_MS + 1);
        assert_eq!(shared.limit, 14, "once for all calls that were under way together");
        let sum = shared.part(A) + shared.part(B);
        assert!(sum <= 14, "{sum}");
        shared.hear(A, load(2, 0, 3), 60 * ROUND_MS);
        assert_eq!(shared.limit, 14, "unused it stays");
    }
}
