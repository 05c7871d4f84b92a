//! Losing unsynced writes: power cuts at hundreds of random points, on one node and on all, while a client
//! writes. Nothing acknowledged may be lost; and the same test must see a log that acknowledges before it syncs.

use super::sim_test::{Rng, Sim, address};
use super::*;
use std::time::Duration;
use types::NodeId;

/// What the client knows.
#[derive(Default)]
struct Client {
    next: u64,
    acknowledged: Vec<u64>,
}

impl Client {
    /// Proposes numbers, each once, for a while. A number whose outcome is unknown is never used again.
    async fn run(&mut self, sim: &Sim, rounds: u64) {
        for _ in 0..rounds {
            let Some(node) = sim.running().into_iter().find(RaftNode::is_leader) else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let number = self.next;
            let mut entry = number.to_le_bytes().to_vec();
            entry.resize(8 + (number % 7) as usize * 40, 0xab);
            match tokio::time::timeout(Duration::from_millis(700), node.propose(entry)).await {
                Ok(Ok(_)) => {
                    self.acknowledged.push(number);
                    self.next += 1;
                }
                Ok(Err(ProposeError::NotLeader { .. })) => {
                    tokio::time::sleep(Duration::from_millis(20)).await
                }
                Ok(Err(_)) | Err(_) => self.next += 1,
            }
        }
    }

    /// Everything acknowledged is there, in order, once, and nothing that nobody asked for.
    fn check(&self, seen: &[u64]) -> Result<(), String> {
        let mut rest = seen.iter();
        if let Some(lost) = self.acknowledged.iter().find(|number| !rest.any(|n| n == *number)) {
            return Err(format!("{lost} was acknowledged and is lost, or out of order: {seen:?}"));
        }
        let mut sorted = seen.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() != seen.len() || sorted.last().is_some_and(|last| *last > self.next) {
            return Err(format!("a number twice, or one that nobody proposed: {seen:?}"));
        }
        Ok(())
    }
}

struct Outcome {
    acknowledged: usize,
    all_at_once: u64,
}

/// Runs a cluster through so many power cuts, and says what was broken, if anything.
async fn survive(seed: u64, cuts: u64, acknowledge_before_sync: bool) -> Result<Outcome, String> {
    let mut sim = Sim::with_voters(seed, 3, acknowledge_before_sync).await;
    let outcome = cut_and_check(&mut sim, seed, cuts).await;
    sim.stop().await;
    outcome
}

async fn cut_and_check(sim: &mut Sim, seed: u64, cuts: u64) -> Result<Outcome, String> {
    let mut rng = Rng(seed);
    sim.net.lose(5, seed);
    let mut client = Client::default();
    let mut all_at_once = 0;
    for cut in 0..cuts {
        client.run(sim, 1 + rng.below(12)).await;
        let victims = pick(sim, &mut rng);
        all_at_once += u64::from(victims.len() == 3);
        for id in &victims {
            // Some lose power between two changes of their disk, most inside one.
            if rng.below(4) > 0 {
                sim.disk(*id).cut_power_in(1 + rng.below(12));
            }
        }
        client.run(sim, 1 + rng.below(10)).await;
        for id in &victims {
            match rng.below(5) {
                0 => sim.kill(*id).await,
                _ => sim.crash(*id, rng.next()).await,
            }
        }
        client.run(sim, rng.below(6)).await;
        for id in &victims {
            sim.start(*id).await.map_err(|e| format!("cut {cut}: {id} does not start: {e}"))?;
        }
        let leader = sim.leader().await.map_err(|e| format!("cut {cut}: {e}"))?;
        client.check(&sim.seen(leader.id())).map_err(|e| format!("cut {cut}: {e}"))?;
    }
    agree(sim, &client).await?;
    Ok(Outcome { acknowledged: client.acknowledged.len(), all_at_once })
}

/// Mostly one node, sometimes all of them, sometimes two.
fn pick(sim: &Sim, rng: &mut Rng) -> Vec<NodeId> {
    let mut ids = sim.ids();
    match rng.below(10) {
        0..=5 => vec![ids[rng.below(3) as usize]],
        6 => {
            ids.remove(rng.below(3) as usize);
            ids
        }
        _ => ids,
    }
}

/// With all nodes up, all end in the same state.
async fn agree(sim: &Sim, client: &Client) -> Result<(), String> {
    sim.net.lose(0, 0);
    sim.propose(client.next).await?;
    let has_last = |sim: &Sim| sim.ids().iter().all(|id| sim.seen(*id).last() == Some(&client.next));
    sim.until("every node has the last number", has_last).await?;
    let states: Vec<Vec<u64>> = sim.ids().iter().map(|id| sim.seen(*id)).collect();
    if states.iter().any(|state| *state != states[0]) {
        return Err(format!("the nodes differ: {states:?}"));
    }
    client.check(&states[0])
}

/// How many cuts: more by `QUORATE_CUTS=300`.
fn cuts() -> u64 {
    std::env::var("QUORATE_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(40)
}

#[tokio::test(start_paused = true)]
async fn nothing_acknowledged_is_lost_with_unsynced_writes() {
    // Several clusters rather than one long-lived: a new one passes through other states.
    let clusters = cuts().div_ceil(20);
    for seed in 0..clusters {
        let outcome = survive(seed, 20, false).await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert!(outcome.acknowledged > 60, "seed {seed}: only {} acknowledged", outcome.acknowledged);
        assert!(outcome.all_at_once > 0, "seed {seed} never cut all nodes at once");
    }
}

#[tokio::test(start_paused = true)]
async fn acknowledging_before_the_sync_is_caught() {
    let mut losses = Vec::new();
    for seed in 0..6 {
        losses.extend(survive(seed, 20, true).await.err());
    }
    let lost = losses.iter().filter(|e| e.contains("was acknowledged and is lost")).count();
    assert!(lost > 0, "the planted bug was not seen: {losses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_single_voter_keeps_what_it_acknowledged() {
    for seed in 0..20 {
        let mut sim = Sim::with_voters(seed, 1, false).await;
        let mut client = Client::default();
        for cut in 0..5 {
            sim.disk(NodeId(1)).cut_power_in(1 + (seed * 7 + cut * 3) % 25);
            client.run(&sim, 40).await;
            sim.crash(NodeId(1), seed ^ cut).await;
            sim.start(NodeId(1)).await.unwrap();
            let leader = sim.leader().await.unwrap();
            client.check(&sim.seen(leader.id())).unwrap_or_else(|e| panic!("seed {seed} cut {cut}: {e}"));
        }
        assert!(client.acknowledged.len() > 5, "seed {seed}");
        assert_eq!(sim.leader().await.unwrap().status().voters[&NodeId(1)], address(NodeId(1)));
        sim.stop().await;
    }
}
