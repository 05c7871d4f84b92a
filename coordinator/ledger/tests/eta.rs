//! How far estimates of a wait are from what came: steady load, tasks of very different length.

use crate::bench::Bench;
use ledger::explain::explain;
use std::collections::{BTreeMap, VecDeque};
use types::{Class, Hash, TaskUid};

/// So many starts a leader remembers.
const REMEMBERED: usize = 64;
const SLOTS: u32 = 16;
const STEP_MS: u64 = 100;
/// Tasks that wait when a new one comes, in the steady state.
const BACKLOG: usize = 80;
/// Measured after the queue has settled.
const WARM: usize = 400;
const MEASURED: usize = 1000;

/// The same in every run.
fn random(turn: u64) -> u64 {
    let hash = Hash::of(&turn.to_le_bytes());
    u64::from_le_bytes(hash.0[..8].try_into().unwrap())
}

/// From 0.5 to 9.5 seconds.
fn length_ms(turn: u64) -> u64 {
    500 + random(turn) % 9_000
}

#[derive(Default)]
struct Load {
    turn: u64,
    starts_ms: VecDeque<u64>,
    ends: BTreeMap<TaskUid, u64>,
    /// When it came, and the wait that was told.
    told: BTreeMap<TaskUid, (u64, u64)>,
    /// Told and true waits.
    waits: Vec<(u64, u64)>,
}

impl Load {
    fn arrive(&mut self, bench: &mut Bench) {
        let uid = bench.create("a", "agent", Class::Batch);
        let mut soft = bench.soft();
        soft.starts_ms = self.starts_ms.iter().copied().collect();
        if let Some((wait, _spread)) = explain(&bench.state, &soft, uid).and_then(|it| it.eta) {
            self.told.insert(uid, (bench.now.ledger_ms, wait));
        }
    }

    fn start(&mut self, bench: &mut Bench) {
        let now_ms = bench.now.ledger_ms;
        for uid in bench.plan() {
            self.turn += 1;
            self.ends.insert(uid, now_ms + length_ms(self.turn));
            self.starts_ms.push_back(now_ms);
            if self.starts_ms.len() > REMEMBERED {
                self.starts_ms.pop_front();
            }
            if let Some((came_ms, wait)) = self.told.remove(&uid) {
                self.waits.push((wait, now_ms - came_ms));
            }
        }
    }

    /// Whoever is done makes room, and somebody new comes for each.
    fn end(&mut self, bench: &mut Bench) {
        let now_ms = bench.now.ledger_ms;
        let done: Vec<TaskUid> =
            self.ends.iter().filter(|(_, ms)| **ms <= now_ms).map(|(uid, _)| *uid).collect();
        for uid in done {
            self.ends.remove(&uid);
            bench.step(uid, 10, 5, true);
            self.arrive(bench);
        }
    }
}

#[test]
fn estimates_are_within_a_quarter_on_steady_load() {
    let mut bench = Bench::new(SLOTS, &["a"]);
    let mut load = Load::default();
    (0..BACKLOG + SLOTS as usize).for_each(|_| load.arrive(&mut bench));
    while load.waits.len() < WARM + MEASURED {
        load.start(&mut bench);
        bench.wait(STEP_MS);
        load.end(&mut bench);
    }
    let error = |(told, came): &(u64, u64)| told.abs_diff(*came) * 1000 / came.max(&1);
    let mut errors: Vec<u64> = load.waits[WARM..WARM + MEASURED].iter().map(error).collect();
    errors.sort_unstable();
    let (half, p90) = (errors[MEASURED / 2], errors[MEASURED * 9 / 10]);
    let waits: u64 = load.waits.iter().map(|(_, came)| came).sum();
    println!("figure eta_error_p50_milli {half}\nfigure eta_error_p90_milli {p90}");
    println!("mean wait {} ms", waits / load.waits.len() as u64);
    assert!(p90 <= 250, "one in ten estimates is off by {p90} thousandths");
}
