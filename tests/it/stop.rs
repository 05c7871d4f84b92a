//! SIGTERM: a node that is told to stop ends what it began, hands over what it leads, and ends with 0.

use crate::support::*;
use anyhow::{Context, ensure};
use quorate_sdk::{Event, EventKind};
use quorate_tests::Cluster;
use std::time::Duration;
use tokio::time::Instant;

const ANSWER: usize = 40;
/// A leader that hands over is missed for less time than one that is lost.
const HANDOVER: Duration = Duration::from_secs(3);

#[tokio::test]
async fn nodes_stop_in_order() -> anyhow::Result<()> {
    let replies =
        [reply("quick", "Understood.", ""), reply("writer", &words(ANSWER), "tokens_per_second = 20")];
    on_cluster(spec(&replies), async |cluster| {
        apply(&cluster.client()?, &["quick", "writer"]).await?;
        a_worker_ends_its_step(cluster).await?;
        a_leader_hands_over(cluster).await
    })
    .await
}

/// No lease has to run out, and no word is said twice.
async fn a_worker_ends_its_step(cluster: &mut Cluster) -> anyhow::Result<()> {
    let client = cluster.client()?;
    let task = client.tasks().create("writer").input("go").send().await?.uid;
    let mut watch = client.tasks().watch(&task);
    let mut seen = watch_until(&mut watch, "text", |event| is_text_of(event, 1)).await?;
    let worker = seen.iter().rev().find_map(runs_on).context("a node runs it")?.to_string();
    let status = cluster.node_mut(&worker)?.stop()?;
    ensure!(status.success(), "{worker} ended with {status}");
    seen.extend(watch_to_end(&mut watch).await?);
    let taken_back = |event: &Event| matches!(event.kind, EventKind::Retract { .. });
    ensure!(!seen.iter().any(taken_back) && steps(&seen) == [1], "{seen:?}");
    let done = succeeded(&client, &task).await?;
    ensure!(client.tasks().result(&done).await? == words(ANSWER), "{done:?}");
    cluster.node_mut(&worker)?.start()?;
    cluster.wait_ready(cluster.nodes.len()).await
}

async fn a_leader_hands_over(cluster: &mut Cluster) -> anyhow::Result<()> {
    let leader = cluster.leader().await?;
    let status = cluster.node_mut(&leader)?.stop()?;
    let stopped = Instant::now();
    ensure!(status.success(), "{leader} ended with {status}");
    let client = cluster.client()?;
    let task = client.tasks().create("quick").input("x").send().await?;
    let missed = stopped.elapsed();
    figure("stop_leader_missed_ms", missed.as_millis());
    ensure!(missed < HANDOVER, "for {missed:?} nobody led");
    succeeded(&client, &task.uid).await?;
    Ok(())
}
