//! One round of a storm: something breaks, some time passes, it is whole again. Says whether it was effective.

use super::client::History;
use super::fleet::{Fleet, NODES};
use super::tally::Fault;
use crate::raft::sim_test::{Rng, Weather};
use std::collections::BTreeSet;
use std::time::Duration;
use types::NodeId;

pub(super) async fn round(
    fleet: &Fleet,
    history: &History,
    rng: &mut Rng,
    fault: Fault,
) -> Result<bool, String> {
    let id = NodeId(1 + rng.below(NODES));
    match fault {
        Fault::PowerCut => power_cut(fleet, rng, &[id]).await,
        Fault::PowerCutOfAll => {
            let all: Vec<NodeId> = (1..=NODES).map(NodeId).collect();
            power_cut(fleet, rng, &all).await
        }
        Fault::Kill => kill(fleet, rng).await,
        Fault::Isolation => isolation(fleet, rng).await,
        Fault::OneWay => closed(fleet, rng, |from, to| vec![(from, to)]).await,
        Fault::Bridge => closed(fleet, rng, |from, to| vec![(from, to), (to, from)]).await,
        Fault::SlowSync => slow_sync(fleet, history, rng).await,
        Fault::Transfer => transfer(fleet, rng).await,
        Fault::Members => members(fleet, rng).await,
        Fault::Loss | Fault::Doubling | Fault::Late => {
            bad_weather(fleet, rng, fault).await;
            Ok(true)
        }
        Fault::Overtaken | Fault::Snapshots => Ok(false),
    }
}

async fn pass(rng: &mut Rng, from_ms: u64, to_ms: u64) {
    tokio::time::sleep(Duration::from_millis(from_ms + rng.below(to_ms - from_ms))).await;
}

/// Effective when the power went in the middle of a change of the disk.
async fn power_cut(fleet: &Fleet, rng: &mut Rng, victims: &[NodeId]) -> Result<bool, String> {
    for id in victims {
        if let Some(disk) = fleet.disk(*id) {
            disk.cut_power_in(1 + rng.below(10));
        }
    }
    pass(rng, 10, 500).await;
    let mut inside = false;
    for id in victims {
        inside |= fleet.disk(*id).is_some_and(|disk| disk.is_dead());
        fleet.end(*id, Some(rng.next())).await;
    }
    pass(rng, 10, 1_500).await;
    for id in victims {
        fleet.start(*id).await?;
    }
    Ok(inside)
}

/// Effective when it led. The unsynced writes of a killed program stay.
async fn kill(fleet: &Fleet, rng: &mut Rng) -> Result<bool, String> {
    let victim = fleet.likely_leader().map_or(NodeId(1 + rng.below(NODES)), |node| node.id());
    let led = fleet.node(victim).is_some_and(|node| node.is_leader());
    fleet.end(victim, None).await;
    pass(rng, 10, 2_000).await;
    fleet.start(victim).await?;
    Ok(led)
}

/// Effective when another led at its end.
async fn isolation(fleet: &Fleet, rng: &mut Rng) -> Result<bool, String> {
    let Some(victim) = fleet.likely_leader().map(|node| node.id()) else { return Ok(false) };
    fleet.net.isolate(victim, true);
    pass(rng, 300, 4_000).await;
    let others = fleet.running().into_iter().filter(|node| node.id() != victim);
    let another = others.filter(|node| node.is_leader()).count() > 0;
    fleet.net.open_ways();
    Ok(another)
}

/// Effective when a message wanted to go there.
async fn closed(
    fleet: &Fleet,
    rng: &mut Rng,
    ways: impl Fn(NodeId, NodeId) -> Vec<(NodeId, NodeId)>,
) -> Result<bool, String> {
    let from = fleet.likely_leader().map_or(NodeId(1), |node| node.id());
    let voters: Vec<NodeId> = fleet.voters().into_iter().filter(|id| *id != from).collect();
    if voters.is_empty() {
        return Ok(false);
    }
    let to = voters[rng.below(voters.len() as u64) as usize];
    let (from, to) = if rng.below(2) == 0 { (from, to) } else { (to, from) };
    ways(from, to).into_iter().for_each(|(from, to)| fleet.net.close_way(from, to));
    let before = fleet.net.toll().blocked;
    pass(rng, 300, 3_000).await;
    fleet.net.open_ways();
    Ok(fleet.net.toll().blocked > before)
}

/// Effective when somebody waited as long for an answer as the disk took.
async fn slow_sync(fleet: &Fleet, history: &History, rng: &mut Rng) -> Result<bool, String> {
    let sync_ms = 20 + rng.below(600);
    let all = rng.below(2) == 0;
    let leader = fleet.likely_leader().map_or(NodeId(1), |node| node.id());
    let before = history.waited(sync_ms);
    for id in (1..=NODES).map(NodeId).filter(|id| all || *id == leader) {
        fleet.slow_down(id, sync_ms);
    }
    pass(rng, 500, 3_000).await;
    (1..=NODES).for_each(|id| fleet.slow_down(NodeId(id), 1));
    Ok(history.waited(sync_ms) > before)
}

/// Effective when the one that was chosen leads.
async fn transfer(fleet: &Fleet, rng: &mut Rng) -> Result<bool, String> {
    let Some(leader) = fleet.likely_leader() else { return Ok(false) };
    let voters: Vec<NodeId> = fleet.voters().into_iter().filter(|id| *id != leader.id()).collect();
    if voters.is_empty() {
        return Ok(false);
    }
    let to = voters[rng.below(voters.len() as u64) as usize];
    Ok(leader.transfer_leader(to).await.is_ok())
}

/// Three voters become five, five become some three. Effective when they did.
async fn members(fleet: &Fleet, rng: &mut Rng) -> Result<bool, String> {
    let Some(leader) = fleet.likely_leader() else { return Ok(false) };
    let mut ids: Vec<NodeId> = (1..=NODES).map(NodeId).collect();
    for id in &ids {
        // Those that left are no members any more; adding a member again is no error.
        let _ = leader.add_learner(*id, &crate::raft::sim_test::address(*id)).await;
    }
    if fleet.voters().len() > 3 {
        ids.remove(rng.below(ids.len() as u64) as usize);
        ids.remove(rng.below(ids.len() as u64) as usize);
    }
    let wanted: BTreeSet<NodeId> = ids.into_iter().collect();
    Ok(leader.change_voters(wanted).await.is_ok())
}

async fn bad_weather(fleet: &Fleet, rng: &mut Rng, fault: Fault) {
    let much = 20 + rng.below(150);
    let weather = match fault {
        Fault::Loss => Weather { lost: much, ..Weather::default() },
        Fault::Doubling => Weather { doubled: much, ..Weather::default() },
        _ => Weather { late: much, doubled: much / 4, ..Weather::default() },
    };
    fleet.net.set_weather(weather);
    pass(rng, 500, 3_000).await;
    fleet.net.set_weather(Weather::default());
}
