//! The office is handed over while clients create tasks: nobody gets an error, and hardly anybody waits. The clients are
//! bare ones, without the SDK's patience, one half of them at doors that do not lead.

use crate::leader_kill::states_are_equal;
use crate::support::*;
use anyhow::{Context, ensure};
use proto::v1;
use proto::v1::task_service_client::TaskServiceClient;
use quorate_tests::{Cluster, until};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const CLIENTS: usize = 8;
/// Acknowledged before the office moves, and again afterwards.
const BETWEEN: usize = 60;
/// Of a build with optimisations, on a machine that does nothing else.
const GAP: Duration = Duration::from_millis(300);
/// Of any.
const GAP_AT_ALL: Duration = Duration::from_secs(2);

#[tokio::test]
async fn nobody_notices_a_transfer() -> anyhow::Result<()> {
    on_cluster(spec(&[reply("quick", "Understood.", "")]), async |cluster| {
        apply(&cluster.client()?, &["quick"]).await?;
        let rounds = rounds("QUORATE_TRANSFERS");
        let mut gaps = Vec::new();
        for round in 0..rounds {
            gaps.push(transfer_while_creating(cluster, round).await?);
        }
        gaps.sort();
        println!("{rounds} transfers: p50 {:?}, most {:?}", gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
        let bound = if rounds > 1 { GAP } else { GAP_AT_ALL };
        ensure!(gaps.iter().all(|gap| *gap <= bound), "more than {bound:?}: {gaps:?}");
        states_are_equal(cluster).await
    })
    .await
}

/// When each creation was acknowledged.
type Told = Mutex<Vec<Instant>>;

async fn transfer_while_creating(cluster: &Cluster, round: u32) -> anyhow::Result<Duration> {
    let leader = cluster.leader().await?;
    let coordinators = &cluster.nodes[..cluster.coordinators];
    let next = coordinators.iter().find(|node| node.name != leader).context("another coordinator")?;
    let (told, done) = (Told::default(), AtomicBool::new(false));
    let clients = (0..CLIENTS).map(|client| {
        let door = coordinators[client % coordinators.len()].endpoint();
        create(door, format!("{round}-{client}"), &told, &done)
    });
    let moving = async {
        more(&told, BETWEEN).await?;
        let begun = Instant::now();
        cluster.client()?.cluster().transfer_leader(&next.name).await?;
        figure("transfer_call_ms", begun.elapsed().as_millis());
        more(&told, BETWEEN).await?;
        done.store(true, Ordering::Relaxed);
        Ok(())
    };
    tokio::try_join!(futures::future::try_join_all(clients), moving)?;
    ensure!(cluster.leader().await? == next.name, "the office did not move to {}", next.name);
    let mut times = told.into_inner().map_err(|_| anyhow::anyhow!("poisoned"))?;
    times.sort();
    let gap = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
    figure("transfer_longest_gap_ms", gap.as_millis());
    Ok(gap)
}

/// Waits until so many more are acknowledged.
async fn more(told: &Told, count: usize) -> anyhow::Result<()> {
    let now = || told.lock().map(|told| told.len()).map_err(|_| anyhow::anyhow!("poisoned"));
    let enough = now()? + count;
    until("more acknowledgements", PATIENCE, async || (now().ok()? >= enough).then_some(())).await
}

/// Creates one after the other; an error of any kind fails the test.
async fn create(door: String, name: String, told: &Told, done: &AtomicBool) -> anyhow::Result<()> {
    let mut service = TaskServiceClient::connect(door).await?;
    for number in 0.. {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let message = v1::CreateTaskRequest {
            project: "default".into(),
            agent: "quick".into(),
            inputs: vec![v1::Input { name: String::new(), text: format!("hello {name} {number}") }],
            request_id: format!("{name}-{number}"),
            ..Default::default()
        };
        service.create_task(message).await.with_context(|| format!("creating {name}-{number}"))?;
        told.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.push(Instant::now());
    }
    Ok(())
}
