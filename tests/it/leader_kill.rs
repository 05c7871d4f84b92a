//! `kill -9` of the leader while clients create tasks: what was acknowledged exists, once, and creating goes on.

use crate::support::*;
use anyhow::{Context, ensure};
use futures::TryStreamExt;
use quorate_sdk::{Client, Task};
use quorate_tests::{Cluster, until};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const TASKS: usize = 200;
/// Tasks that are being created at the same time.
const AT_ONCE: usize = 8;
/// The leader goes when so many tasks are acknowledged.
const KILL_AFTER: usize = 60;
/// Creating goes on within this.
const GAP: Duration = Duration::from_secs(5);
/// Of fifty kills and more, on a machine that does nothing else.
const GAP_P99: Duration = Duration::from_millis(1_800);

#[tokio::test]
async fn acknowledged_tasks_survive_the_leader() -> anyhow::Result<()> {
    on_cluster(spec(&[reply("quick", "Understood.", "")]), async |cluster| {
        apply(&cluster.client()?, &["quick"]).await?;
        let mut gaps = Vec::new();
        for round in 0..rounds("QUORATE_KILLS") {
            gaps.push(kill_while_creating(cluster, round).await?);
        }
        gaps.sort();
        let at = |percent: usize| gaps[(gaps.len() * percent).div_ceil(100) - 1];
        println!("{} kills: p50 {:?}, p99 {:?}, most {:?}", gaps.len(), at(50), at(99), at(100));
        // One kill says little, fifty say it.
        ensure!(gaps.len() < 50 || at(99) <= GAP_P99, "p99 of the gaps is {:?}", at(99));
        Ok(())
    })
    .await
}

/// What the clients were told: task ids with the uid each got, and when.
type Told = Vec<(String, String, Instant)>;

async fn kill_while_creating(cluster: &mut Cluster, round: u32) -> anyhow::Result<Duration> {
    let leader = cluster.leader().await?;
    let told = create_and_kill(cluster, &leader, round).await?;
    ensure!(told.len() == TASKS, "{} of {TASKS} were acknowledged", told.len());
    let gap = longest_gap(&told);
    figure("leader_kill_longest_gap_ms", gap.as_millis());
    ensure!(gap < GAP, "for {gap:?} nothing was acknowledged");
    each_exists_once(&cluster.client()?, &told, round).await?;
    cluster.node_mut(&leader)?.start()?;
    cluster.wait_ready(cluster.nodes.len()).await?;
    states_are_equal(cluster).await?;
    Ok(gap)
}

async fn create_and_kill(cluster: &mut Cluster, leader: &str, round: u32) -> anyhow::Result<Told> {
    let client = cluster.client()?;
    let (next, acknowledged) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let create = async || {
        let mut told = Told::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= TASKS {
                return anyhow::Ok(told);
            }
            let id = format!("task-{round}-{number}");
            let order =
                client.tasks().create("quick").input("hello").task_id(&id).label("round", round.to_string());
            let task = order.send().await.with_context(|| format!("creating {id}"))?;
            acknowledged.fetch_add(1, Ordering::Relaxed);
            told.push((id, task.uid, Instant::now()));
        }
    };
    let kill = async {
        let enough = async || (acknowledged.load(Ordering::Relaxed) >= KILL_AFTER).then_some(());
        until("the first acknowledgements", PATIENCE, enough).await?;
        cluster.node_mut(leader)?.kill()
    };
    let creators = futures::future::try_join_all((0..AT_ONCE).map(|_| create()));
    let (told, ()) = tokio::try_join!(creators, kill)?;
    ensure!(acknowledged.load(Ordering::Relaxed) > KILL_AFTER, "the leader was killed too late");
    Ok(told.concat())
}

fn longest_gap(told: &Told) -> Duration {
    let mut times: Vec<Instant> = told.iter().map(|(_, _, at)| *at).collect();
    times.sort();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

async fn each_exists_once(client: &Client, told: &Told, round: u32) -> anyhow::Result<()> {
    let listed: Vec<Task> =
        client.tasks().list().filter(format!("label.round={round}")).all().try_collect().await?;
    let uids: BTreeSet<&str> = listed.iter().map(|task| task.uid.as_str()).collect();
    let by_id: BTreeMap<&str, &str> =
        listed.iter().map(|task| (task.id.as_str(), task.uid.as_str())).collect();
    ensure!(uids.len() == listed.len() && by_id.len() == listed.len(), "some task is listed twice");
    ensure!(listed.len() == TASKS, "{} tasks exist, {TASKS} were asked for", listed.len());
    for (id, uid, _) in told {
        ensure!(
            by_id.get(id.as_str()) == Some(&uid.as_str()),
            "{id} was acknowledged as {uid}, it is {:?}",
            by_id.get(id.as_str())
        );
    }
    for (id, uid, _) in told.iter().step_by(20) {
        let task = succeeded(client, id).await?;
        ensure!(task.uid == *uid && task.step == 1, "{task:?}");
    }
    Ok(())
}

/// At the same index every coordinator has the same state, to the bit.
pub(crate) async fn states_are_equal(cluster: &Cluster) -> anyhow::Result<()> {
    let coordinators = names(cluster).into_iter().take(cluster.coordinators).collect::<Vec<_>>();
    // Entries keep coming, so coordinators are asked until all have answered for one index.
    let seen = std::sync::Mutex::new(BTreeMap::<u64, BTreeMap<String, String>>::new());
    let equal = until("one index seen on all coordinators", PATIENCE, || async {
        for name in &coordinators {
            let status = cluster.client_of(name).ok()?.cluster().status().await.ok()?;
            let mut seen = seen.lock().ok()?;
            seen.entry(status.state_hash_index).or_default().insert(name.clone(), status.state_hash);
        }
        let seen = seen.lock().ok()?;
        seen.values().find(|hashes| hashes.len() == coordinators.len()).cloned()
    });
    let hashes = equal.await?;
    let different: BTreeSet<&String> = hashes.values().collect();
    ensure!(different.len() == 1 && !hashes.values().any(String::is_empty), "the states differ: {hashes:?}");
    Ok(())
}
