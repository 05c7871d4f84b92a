//! Who keeps what: a node that is lost for good, then the other one that kept the same, and nothing is gone; a node that
//! comes back gives up what others keep by now; what has expired leaves every disk.

use crate::memory::holding;
use crate::support::*;
use anyhow::{Context, ensure};
use quorate_sdk::{Client, Event, EventKind, TaskState};
use quorate_tests::{Cluster, Spec, until};
use std::collections::BTreeSet;
use std::path::PathBuf;
use tokio::time::Instant;

const AWAY_MS: u64 = 2_000;
const GRACE_MS: u64 = 3_000;
const DAY_MS: i64 = 86_400_000;
const ANSWER: usize = 40;
/// In the text of the first step of a task that stands still after it.
const FIRST: &str = "w0003 w0004";
const HALF: &str = "projects/default/agents/half";
/// Tasks that are made until one has the same two keepers as another: each has them with a chance of a third.
const TRIES: usize = 16;

fn text(n: usize) -> String {
    format!("The answer number {n} is quorum-marzipan-{n}-end.")
}

fn everywhere() -> String {
    format!("[context]\nrepair_after_ms = {AWAY_MS}\nsweep_after_ms = {GRACE_MS}\n")
}

fn kept_spec() -> Spec {
    let done = (0..TRIES).map(|n| reply(&format!("done{n}"), &text(n), ""));
    let replies: Vec<String> = done.chain([reply("half", &words(ANSWER), "")]).collect();
    Spec { everywhere: everywhere(), ..spec(&replies) }
}

/// Nodes that have a segment with this text.
fn holders(cluster: &Cluster, text: &str) -> anyhow::Result<BTreeSet<String>> {
    let mut holders = BTreeSet::new();
    for name in names(cluster) {
        let segments = cluster.folder().join(&name).join("segments");
        if segments.is_dir() && !holding(&segments, text.as_bytes())?.is_empty() {
            holders.insert(name);
        }
    }
    Ok(holders)
}

/// Waits until exactly two nodes have it: its home, when nobody else has been given it.
async fn home_of(cluster: &Cluster, text: &str) -> anyhow::Result<BTreeSet<String>> {
    until("two copies", PATIENCE, || async { holders(cluster, text).ok().filter(|nodes| nodes.len() == 2) })
        .await
}

/// A task that has committed one step and stands still.
async fn half_done(client: &Client, input: &str) -> anyhow::Result<String> {
    client.quotas().set(HALF).limit("tokens_total", Some(3 + 12)).send().await?;
    let task = client.tasks().create("half").input(input).send().await?.uid;
    let mut watch = client.tasks().watch(&task).without_tokens();
    let paused = |event: &Event| matches!(event.kind, EventKind::State { state: TaskState::Paused, .. });
    watch_until(&mut watch, "PAUSED", paused).await?;
    Ok(task)
}

async fn goes_on(client: &Client, task: &str) -> anyhow::Result<()> {
    client.quotas().set(HALF).limit("tokens_total", None).send().await?;
    let done = succeeded(client, task).await?;
    let result = client.tasks().result(&done).await?;
    ensure!(result == words(ANSWER), "the answer is {result:?}");
    Ok(())
}

#[tokio::test]
async fn what_two_nodes_kept_outlives_both() -> anyhow::Result<()> {
    on_cluster(kept_spec(), async |cluster| {
        let client = cluster.client()?;
        apply(&client, &["half"]).await?;
        client.cluster().cordon("worker-2").send().await?;
        let half = half_done(&client, "go").await?;
        let home = home_of(cluster, FIRST).await?;
        let (number, done) = done_on(cluster, &client, &home).await?;
        client.cluster().uncordon("worker-2").send().await?;
        let other = home.iter().find(|name| *name != "worker-1").context("a keeper")?.clone();

        cluster.node_mut("worker-1")?.kill()?;
        let lost = Instant::now();
        brought_elsewhere(cluster, &other, &[FIRST.into(), text(number)]).await?;
        figure("repair_after_loss_ms", lost.elapsed().as_millis());
        cluster.node_mut(&other)?.kill()?;
        until("another leader", PATIENCE, || async { client.tasks().get(&done).await.ok() }).await?;
        is_whole(&client, &done, number).await?;
        goes_on(&client, &half).await?;

        // Who comes back has what others keep by now: it goes, and is read all the same.
        cluster.node_mut("worker-1")?.start()?;
        until("no copy on who came back", PATIENCE, || async {
            (!holders(cluster, &text(number)).ok()?.contains("worker-1")).then_some(())
        })
        .await?;
        is_whole(&client, &done, number).await
    })
    .await
}

/// A finished task that the same two nodes keep.
async fn done_on(
    cluster: &Cluster,
    client: &Client,
    home: &BTreeSet<String>,
) -> anyhow::Result<(usize, String)> {
    for number in 0..TRIES {
        let agent = format!("done{number}");
        apply(client, &[&agent]).await?;
        let task = client.tasks().create(&agent).input("go").send().await?.uid;
        succeeded(client, &task).await?;
        if home_of(cluster, &text(number)).await? == *home {
            return Ok((number, task));
        }
    }
    anyhow::bail!("none of {TRIES} tasks has the home {home:?}")
}

/// Waits until every text is on two nodes beside the one that is lost, and the ledger knows.
async fn brought_elsewhere(cluster: &Cluster, other: &str, texts: &[String]) -> anyhow::Result<()> {
    for text in texts {
        until("a copy elsewhere", PATIENCE, || async {
            let mut nodes = holders(cluster, text).ok()?;
            nodes.remove("worker-1");
            (nodes.len() >= 2 && nodes.contains(other)).then_some(())
        })
        .await?;
    }
    until("all homes are moved", PATIENCE, || async {
        let node = cluster.node(other).ok()?;
        let repaired = metric(node, "quorate_chains_repaired_total").await.ok()??;
        let short = metric(node, "quorate_chains_short").await.ok()??;
        (repaired >= texts.len() as f64 && short == 0.0).then_some(())
    })
    .await
}

/// The result and every event of it.
async fn is_whole(client: &Client, task: &str, number: usize) -> anyhow::Result<()> {
    let done = client.tasks().get(task).await?;
    ensure!(client.tasks().result(&done).await? == text(number));
    let seen = watch_to_end(&mut client.tasks().watch(task)).await?;
    check_sequence(&seen, 1)?;
    ensure!(steps(&seen) == [1], "{seen:#?}");
    Ok(())
}

const EXPIRES: &str = "quorum-nougat-result";
const NOTED: &str = "quorum-nougat-noted";
const SHARED: &str = "quorum-nougat-shared";
const STAYS: &str = "quorum-nougat-stays";

#[tokio::test]
async fn what_has_expired_leaves_every_disk() -> anyhow::Result<()> {
    let shim = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("it/clock.c");
    let replies = [reply("writer", &format!("Here is {EXPIRES}."), ""), reply("half", &words(ANSWER), "")];
    let spec = Spec { clock_shim: Some(shim), everywhere: everywhere(), ..spec(&replies) };
    on_cluster(spec, async |cluster| {
        let client = cluster.client()?;
        apply(&client, &["writer", "half"]).await?;
        let half = half_done(&client, SHARED).await?;
        let task = client.tasks().create("writer").input(SHARED).send().await?.uid;
        succeeded(&client, &task).await?;
        client.memories().task(&task).remember(format!("I noted {NOTED}.")).send().await?;
        client.memories().remember(format!("The project knows {STAYS}.")).send().await?;
        for text in [EXPIRES, NOTED, SHARED, STAYS] {
            ensure!(holders(cluster, text)?.len() >= 2, "{text} has no two copies");
        }
        let clocks = cluster.clocks.as_ref().context("clocks that can be set")?;
        for name in names(cluster) {
            clocks.set(&name, 8 * DAY_MS)?;
        }
        until("the record expires", PATIENCE, || async {
            client.tasks().get(&task).await.err().filter(|error| error.reason == "NOT_FOUND")
        })
        .await?;
        let begun = Instant::now();
        for text in [EXPIRES, NOTED] {
            until("no bytes on any disk", PATIENCE, || async {
                on_disks(cluster, text).ok()?.is_empty().then_some(())
            })
            .await
            .with_context(|| format!("{text}: {:?}", on_disks(cluster, text)))?;
        }
        figure("swept_after_expiry_ms", begun.elapsed().as_millis());
        // What another task needs, and what the project knows, is where it was.
        for text in [SHARED, STAYS, FIRST] {
            ensure!(holders(cluster, text)?.len() >= 2, "{text} is on {:?}", holders(cluster, text)?);
        }
        goes_on(&client, &half).await
    })
    .await
}

/// Files of the nodes' data folders with this text: segments, journals, all.
fn on_disks(cluster: &Cluster, text: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for name in names(cluster) {
        found.extend(holding(&cluster.folder().join(name), text.as_bytes())?);
    }
    Ok(found)
}
