//! Every policy on sequences small enough to follow by hand, through the pool that uses them.

use super::*;
use crate::blocks::{BlockId, Blocks};

/// A pool whose blocks stand alone; contents are small numbers.
struct Pool {
    blocks: Blocks,
    resident: Vec<(u8, BlockId)>,
}

impl Pool {
    fn new(policy: Box<dyn Policy>, room: usize) -> Pool {
        Pool { blocks: Blocks::with_policy(room, policy), resident: Vec::new() }
    }

    fn block(&self, content: u8) -> Option<BlockId> {
        self.resident.iter().find(|(other, _)| *other == content).map(|(_, block)| *block)
    }

    /// One call that needs one content. What had to go for it.
    fn call(&mut self, content: u8, now_ms: u64, answer: u32) -> Option<(u8, Eviction)> {
        self.blocks.set_time(now_ms);
        let call = Use { answer, after: 5_000, ..Use::default() };
        if let Some(block) = self.block(content) {
            self.blocks.hold(block);
            self.blocks.release_after(block, &call);
            return None;
        }
        let taken = self.blocks.take().expect("everything is idle");
        self.blocks.seal(taken.block, Some(Key([content; 32])));
        self.resident.retain(|(_, block)| *block != taken.block);
        self.resident.push((content, taken.block));
        self.blocks.release_after(taken.block, &call);
        taken.lost.map(|lost| (lost.key.0[0], lost.reason))
    }

    /// Calls for these contents, one a second. What went, in order.
    fn calls(&mut self, contents: &[u8]) -> Vec<u8> {
        let calls = contents.iter().zip(1..);
        calls
            .filter_map(|(&content, second)| self.call(content, second * 1000, 9))
            .map(|(gone, _)| gone)
            .collect()
    }

    fn hint(&mut self, content: u8, hint: Hint) {
        self.blocks.hint(self.block(content).expect("resident"), hint);
    }
}

fn named(name: &str, room: usize) -> Pool {
    Pool::new(policy(name, room).expect("a known name"), room)
}

#[test]
fn names_are_known_and_told() {
    for name in POLICIES {
        assert_eq!(policy(name, 10).map(|policy| policy.name()), Some(name));
    }
    assert!(policy("mru", 10).is_none());
    let mut reasons: Vec<&str> = Eviction::ALL.iter().map(|reason| reason.name()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    assert_eq!(reasons.len(), Eviction::ALL.len());
}

#[test]
fn slru_keeps_what_was_used_again() {
    // 1 is protected; of the others the one used longest ago goes, however lately 1 was used.
    assert_eq!(named("slru", 5).calls(&[1, 1, 2, 3, 4, 5, 6, 7]), [2, 3]);
    // Four fifths at most are protected: the fifth protected one pushes 1 back on probation, as its newest.
    assert_eq!(named("slru", 5).calls(&[1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 6, 7]), [1, 6]);
}

#[test]
fn arc_moves_the_border_when_it_was_wrong() {
    // 3 comes back after it was given up: from then on it is frequent, and 1 goes before it and before 2.
    assert_eq!(named("arc", 3).calls(&[1, 1, 2, 2, 3, 4, 3, 5]), [3, 4, 1]);
}

#[test]
fn s3_fifo_lets_single_uses_pass() {
    // 1 was asked for twice after it came: it moves to the main queue; the others leave by the small one.
    assert_eq!(named("s3-fifo", 3).calls(&[1, 1, 1, 2, 3, 4, 5, 6]), [2, 3, 4]);
    // 2 comes back after it left the small queue: it goes to the main one, and stays.
    assert_eq!(named("s3-fifo", 3).calls(&[1, 1, 1, 2, 3, 4, 2, 5, 6]), [2, 3, 4, 5]);
}

#[test]
fn ttl_counts_from_the_writing() {
    let mut pool = Pool::new(Box::new(Ttl::new(10_000)), 2);
    pool.call(1, 0, 9);
    pool.call(2, 6_000, 9);
    pool.call(1, 7_000, 9);
    assert_eq!(pool.call(3, 9_999, 9), Some((1, Eviction::Room)));
    assert_eq!(pool.call(4, 16_000, 9), Some((2, Eviction::Expired)));
}

#[test]
fn the_oracle_knows_who_comes_last() {
    let trace = [1, 2, 3, 2, 1, 3];
    let keys: Vec<Key> = trace.iter().map(|&content| Key([content; 32])).collect();
    assert_eq!(Pool::new(Box::new(Belady::new(&keys)), 2).calls(&trace), [1, 2]);
}

#[test]
fn ours_learns_who_comes_back() {
    // Short answers are followed by a return after 20 s, long ones never.
    let mut pool = named("ours", 40);
    let mut gone_short = [0, 0];
    for round in 0..3_000_u64 {
        let slow = (round % 120) as u8;
        let half = usize::from(round >= 1_500);
        let gone = pool.call(100 + slow, round * 1000, 500);
        gone_short[half] += usize::from(gone.is_some_and(|(content, _)| content < 100));
        let gone = pool.call((round % 20) as u8, round * 1000 + 500, 9);
        gone_short[half] += usize::from(gone.is_some_and(|(content, _)| content < 100));
    }
    assert_eq!(gone_short[1], 0, "first half: {}", gone_short[0]);
}

#[test]
fn what_is_superseded_or_dead_goes_first() {
    let mut pool = named("ours", 4);
    pool.calls(&[1, 2, 3, 4]);
    pool.hint(4, Hint::Superseded);
    pool.hint(3, Hint::Dead);
    let gone: Vec<Option<(u8, Eviction)>> = (5..8).map(|content| pool.call(content, 5_000, 9)).collect();
    let doomed = [Some((3, Eviction::DeadChild)), Some((4, Eviction::Superseded))];
    assert!(doomed.iter().all(|one| gone[..2].contains(one)), "{gone:?}");
    assert_eq!(gone[2], Some((1, Eviction::Room)));
    assert_eq!(pool.blocks.evictions().get(&Eviction::Superseded), Some(&1));
}

#[test]
fn a_session_that_will_return_is_worth_its_chance() {
    let mut pool = named("ours", 3);
    pool.calls(&[1, 2, 3]);
    pool.hint(1, Hint::Retain { until_ms: 4_000, permille: 950 });
    assert_eq!(pool.call(4, 3_500, 9), Some((2, Eviction::Room)));
    // Its time is over: it counts for what its like does, and the reason tells why.
    assert_eq!(pool.call(5, 100_000, 9), Some((1, Eviction::Expired)));
    let mut pool = named("ours", 3);
    pool.calls(&[1, 2, 3]);
    pool.hint(3, Hint::Retain { until_ms: 900_000, permille: 1 });
    assert_eq!(pool.call(4, 3_500, 9), Some((3, Eviction::Room)), "it is said not to come back");
}

#[test]
fn pins_are_bounded_and_give_way_to_running_work() {
    let mut pool = named("ours", 4);
    pool.calls(&[1, 2, 3, 4]);
    pool.hint(1, Hint::Pin { until_ms: 60_000 });
    pool.hint(2, Hint::Pin { until_ms: 60_000 });
    // A quarter of the pool may be pinned: 1 is, 2 is not.
    let gone: Vec<_> = (5..8).map(|content| pool.call(content, 5_000, 9)).collect();
    assert!(gone.contains(&Some((2, Eviction::Room))) && !gone.iter().flatten().any(|(gone, _)| *gone == 1));
    let held: Vec<BlockId> = (5..8).map(|content| pool.block(content).expect("resident")).collect();
    held.iter().for_each(|&block| pool.blocks.hold(block));
    assert_eq!(pool.call(8, 6_000, 9), Some((1, Eviction::Unpinned)), "nothing else is left");
    let mut pool = named("ours", 4);
    pool.calls(&[1, 2, 3, 4]);
    pool.hint(1, Hint::Pin { until_ms: 60_000 });
    assert_eq!(pool.call(5, 60_000, 9), Some((1, Eviction::Expired)), "a pin ends");
}
