//! A worker that stands still past its lease and wakes up later: its task was finished elsewhere, and what it still
//! wants to commit is refused.

use crate::support::*;
use anyhow::{Context, ensure};
use quorate_sdk::{Client, Event};
use quorate_tests::{Cluster, until};

const ANSWER: usize = 40;

#[tokio::test]
async fn a_thawed_worker_is_fenced() -> anyhow::Result<()> {
    let replies = [reply("writer", &words(ANSWER), "tokens_per_second = 20")];
    on_cluster(spec(&replies), async |cluster| {
        apply(&cluster.client()?, &["writer"]).await?;
        for _ in 0..rounds("QUORATE_KILLS") {
            freeze_mid_call(cluster).await?;
        }
        Ok(())
    })
    .await
}

async fn freeze_mid_call(cluster: &mut Cluster) -> anyhow::Result<()> {
    let client = cluster.client()?;
    let task = client.tasks().create("writer").input("go").send().await?.uid;
    let mut watch = client.tasks().watch(&task);
    let mut seen = watch_until(&mut watch, "text", |event| is_text_of(event, 1)).await?;
    let frozen = seen.iter().rev().find_map(runs_on).context("a node runs it")?.to_string();
    let before = fenced(cluster, &frozen).await?;

    cluster.node(&frozen)?.freeze()?;
    seen.extend(watch_to_end(&mut watch).await?);
    let finisher = seen.iter().rev().find_map(runs_on).context("a node ran it")?;
    ensure!(finisher != frozen, "a frozen node finished the task");
    let done = succeeded(&client, &task).await?;

    cluster.node(&frozen)?.thaw()?;
    let refused = async || fenced(cluster, &frozen).await.ok().filter(|now| *now > before);
    let after = until("the late commit refused and counted", PATIENCE, refused).await?;
    figure("freeze_fenced_commits", after.0 - before.0);
    cluster.wait_ready(cluster.nodes.len()).await?;
    committed_once(&client, &task, &seen, &done).await
}

/// Refused commits of the node, as `node get` and as the metrics of a coordinator say. Rises only when both rise.
async fn fenced(cluster: &Cluster, node: &str) -> anyhow::Result<Both> {
    let said = cli(&cluster.nodes[1].endpoint(), &["-o", "json", "node", "get", node]).await?;
    let shown: serde_json::Value =
        serde_json::from_slice(&said.stdout).with_context(|| format!("{said:?}"))?;
    let commits = shown["fenced_commits"].as_u64().with_context(|| format!("no count in {shown}"))?;
    let counted = metric(&cluster.nodes[0], "quorate_fenced_total{kind=\"commit\"}").await?;
    Ok(Both(commits, counted.unwrap_or(0.0) as u64))
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Both(u64, u64);

impl PartialOrd for Both {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        let (node, metric) = (self.0.cmp(&other.0), self.1.cmp(&other.1));
        (node == metric).then_some(node)
    }
}

/// The late worker changed nothing: same events, same answer, each step once.
async fn committed_once(
    client: &Client,
    task: &str,
    seen: &[Event],
    done: &quorate_sdk::Task,
) -> anyhow::Result<()> {
    check_sequence(seen, 1)?;
    ensure!(steps(seen) == [1], "{seen:?}");
    let now = client.tasks().get(task).await?;
    ensure!(now == *done, "the late worker changed {done:?} to {now:?}");
    ensure!(now.usage.generated_tokens == ANSWER as u64, "{now:?}");
    ensure!(client.tasks().result(&now).await? == words(ANSWER));
    let mut again = client.tasks().watch(task).without_tokens();
    let committed: Vec<&Event> = seen.iter().filter(|event| event.sequence > 0).collect();
    ensure!(watch_to_end(&mut again).await?.iter().collect::<Vec<_>>() == committed, "the events changed");
    Ok(())
}
