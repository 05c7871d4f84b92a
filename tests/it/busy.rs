//! The engine computes on every core of the machine, and the coordinators beside it keep their leader.

use crate::real_model::model_file;
use crate::support::*;
use anyhow::{Context, ensure};
use quorate_sdk::Client;
use quorate_tests::{Cluster, Spec};
use std::time::Duration;
use tokio::time::Instant;

/// Answers that are made at the same time.
const AT_ONCE: usize = 6;
const AGENT: &str = "name = \"busy\"\nmodel = \"smollm2\"\nmax_tokens = 128\ntemperature = 0\n";
/// Hundredths of a second.
const TICKS: u64 = 100;

#[tokio::test]
async fn nobody_campaigns_beside_a_busy_engine() -> anyhow::Result<()> {
    model_file()?;
    let cores = std::thread::available_parallelism()?.get() as u32;
    let spec = Spec { workers: 1, models: vec!["smollm2".into()], threads: cores, ..Spec::default() };
    on_cluster(spec, async |cluster| {
        cluster.client()?.agents().apply(AGENT).send().await?;
        let seconds = u64::from(rounds("QUORATE_BUSY_SECONDS")).max(15);
        let before = (term(cluster).await?, changes(cluster).await?, ticks(cluster)?);
        let begun = Instant::now();
        let end = begun + Duration::from_secs(seconds);
        let client = cluster.client()?;
        let done =
            futures::future::try_join_all((0..AT_ONCE).map(|lane| answers(&client, lane, end))).await?;
        let took_s = begun.elapsed().as_secs().max(1);
        let after = (term(cluster).await?, changes(cluster).await?, ticks(cluster)?);
        figure("busy_seconds", took_s);
        figure("busy_answers", done.iter().sum::<u64>());
        figure("busy_worker_cpu_percent", (after.2 - before.2) * 100 / TICKS / took_s);
        figure("busy_leader_changes", after.1 - before.1);
        ensure!(after.0 == before.0, "the term rose from {} to {}", before.0, after.0);
        ensure!(after.1 == before.1, "{} changes of the leader", after.1 - before.1);
        ensure!(done.iter().sum::<u64>() > 0, "the engine answered nothing");
        Ok(())
    })
    .await
}

/// One answer after the other until the end.
async fn answers(client: &Client, lane: usize, end: Instant) -> anyhow::Result<u64> {
    let mut done = 0;
    while Instant::now() < end {
        let question =
            format!("Story {lane}-{done}: tell me of a lighthouse, a storm and a cat. {}", words(200));
        let task = client.tasks().create("busy").input(question).send().await?;
        client.tasks().wait(&task.uid).await?;
        done += 1;
    }
    Ok(done)
}

async fn term(cluster: &Cluster) -> anyhow::Result<u64> {
    Ok(cluster.client()?.cluster().status().await?.term)
}

/// Of all coordinators together.
async fn changes(cluster: &Cluster) -> anyhow::Result<u64> {
    let mut sum = 0;
    for node in &cluster.nodes[..cluster.coordinators] {
        sum += metric(node, "quorate_leader_changes_total").await?.unwrap_or(0.0) as u64;
    }
    Ok(sum)
}

fn ticks(cluster: &Cluster) -> anyhow::Result<u64> {
    Ok(cluster.nodes.last().context("the worker")?.usage()?.cpu_ticks)
}
