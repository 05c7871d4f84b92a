//! Agents by the thousand: what one costs that lives and waits, how soon it reacts, and what one costs that is at rest.

use crate::support::*;
use crate::tools::{Noted, sink};
use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use quorate_sdk::Client;
use quorate_tests::{Cluster, Process, Spec, until};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Callers at the same time.
const AT_ONCE: usize = 16;
/// Tools that come to their end, a second.
const RESULTS_A_SECOND: usize = 50;

/// Agents that live on one node and wait for their tools: what each costs, and how soon one reacts.
#[tokio::test]
async fn many_agents_live_on_one_node() -> anyhow::Result<()> {
    let many = rounds("QUORATE_LIVE_AGENTS").max(300) as usize;
    let noted = Noted::new()?;
    let call = "{ name = 'sink.hold', arguments = '{\"n\": 1}' }";
    let script = format!("[[reply]]\nwhen_results_below = 1\ncalls = [{call}]\n[[reply]]\ntext = 'Done.'\n");
    let spec = Spec { more: sink(&noted.file()), coordinators: 1, workers: 1, slots: 64, ..spec(&[script]) };
    on_cluster(spec, async |cluster| {
        let client = cluster.client()?;
        apply_with(&client, "clerk", "tools = ['sink.hold']").await?;
        // The first ones bring everything there that is there once.
        let first = make(&client, 20).await?;
        let worker = cluster.node("worker-1")?;
        living(worker, first.len()).await?;
        let before = worker.usage()?.rss_bytes;
        let rest = make(&client, many).await?;
        living(worker, first.len() + many).await?;
        let each = worker.usage()?.rss_bytes.saturating_sub(before) / many as u64;
        figure("live_agents", many);
        figure("live_agent_bytes", each);
        let limit = if cfg!(debug_assertions) { 192 << 10 } else { 64 << 10 };
        ensure!(each <= limit, "an agent that waits takes {each} bytes");

        // Made as fast as the machine can: what they were late then says how busy it was, and is no must.
        let made = Reactions::of(worker).await?;
        figure("events_while_made", made.all as u64);
        figure("events_while_made_later_than_5_ms_per_mille", made.late_per_mille());
        let go = noted.file().with_extension("log.go");
        std::fs::write(go.with_extension("new"), RESULTS_A_SECOND.to_string())?;
        std::fs::rename(go.with_extension("new"), &go)?;
        for id in first.iter().chain(&rest) {
            succeeded(&client, id).await?;
        }
        let reactions = Reactions::of(worker).await?.since(&made);
        figure("agent_events", reactions.all as u64);
        figure("agent_events_later_than_5_ms_per_mille", reactions.late_per_mille());
        ensure!(reactions.all as usize > 2 * many, "{} events of {many} agents", reactions.all);
        // A debug build beside other tests is no measure of speed.
        ensure!(
            cfg!(debug_assertions) || reactions.late_per_mille() <= 10,
            "{} ‰ of {} events had their effect later than after 5 ms",
            reactions.late_per_mille(),
            reactions.all
        );
        Ok(())
    })
    .await
}

/// The uids of so many tasks, made as fast as the cluster takes them.
async fn make(client: &Client, count: usize) -> anyhow::Result<Vec<String>> {
    // No input is as another, so that each takes its place on a disk.
    let order = |n: usize| async move {
        let task = client.tasks().create("clerk").input(format!("go {n}")).send().await?;
        anyhow::Ok(task.uid)
    };
    stream::iter(0..count).map(order).buffer_unordered(AT_ONCE).try_collect().await
}

async fn living(worker: &Process, many: usize) -> anyhow::Result<()> {
    until("agents that wait for their tools", PATIENCE * 3, || async {
        let living = metric(worker, "quorate_agents ").await.ok()??;
        (living as usize >= many).then_some(())
    })
    .await
}

/// How many events agents heard, and how many had their effect within 5 ms.
struct Reactions {
    all: f64,
    soon: f64,
}

impl Reactions {
    async fn of(worker: &Process) -> anyhow::Result<Reactions> {
        let within = |le: &str| format!("quorate_agent_event_seconds_bucket{{le=\"{le}\"}}");
        let soon = metric(worker, &within("0.005")).await?.context("the histogram")?;
        let all = metric(worker, &within("+Inf")).await?.context("the histogram")?;
        Ok(Reactions { all, soon })
    }

    fn since(&self, before: &Reactions) -> Reactions {
        Reactions { all: self.all - before.all, soon: self.soon - before.soon }
    }

    fn late_per_mille(&self) -> u64 {
        ((self.all - self.soon) * 1000.0 / self.all).ceil() as u64
    }
}

/// What a worker's memory may grow by: a little for all, and for each agent what its store's index keeps of its segments' names.
const MOST_GROWN: usize = 32 << 20;
const MOST_GROWN_EACH: usize = 512;

/// Tasks of one project, which holds 100,000 at most.
const A_PROJECT: usize = 50_000;

/// Agents that wait for days: none lives, their journals are on disks.
#[tokio::test]
async fn agents_at_rest_cost_disk_only() -> anyhow::Result<()> {
    let many = rounds("QUORATE_RESTING_AGENTS").max(200) as usize;
    let call = "{ name = 'wait', arguments = '{\"seconds\": 864000}' }";
    let script = format!("[[reply]]\nwhen_results_below = 1\ncalls = [{call}]\n[[reply]]\ntext = 'Done.'\n");
    on_cluster(Spec { coordinators: 1, workers: 1, slots: 64, ..spec(&[script]) }, async |cluster| {
        let project = async |name: &str| {
            let client = cluster.client()?.with_project(name)?;
            apply_with(&client, "clerk", "tools = ['wait']").await?;
            anyhow::Ok(client)
        };
        // The first ones bring everything there that is there once.
        make(&project("first").await?, many / 10).await?;
        let before = Rest::of(cluster, many / 10).await?;
        for (at, begun) in (0..many).step_by(A_PROJECT).enumerate() {
            make(&project(&format!("rest-{at}")).await?, A_PROJECT.min(many - begun)).await?;
        }
        let after = Rest::of(cluster, many / 10 + many).await?;
        let each = |after: u64, before: u64| after.saturating_sub(before) / many as u64;
        figure("resting_agents", many);
        figure("resting_agent_worker_memory_bytes", each(after.worker_memory, before.worker_memory));
        figure("resting_agent_worker_disk_bytes", each(after.worker_disk, before.worker_disk));
        figure(
            "resting_agent_coordinator_memory_bytes",
            each(after.coordinator_memory, before.coordinator_memory),
        );
        figure("resting_agent_coordinator_disk_bytes", each(after.coordinator_disk, before.coordinator_disk));
        let grown = after.worker_memory.saturating_sub(before.worker_memory) as usize;
        let most = MOST_GROWN + many * MOST_GROWN_EACH;
        ensure!(grown <= most, "{many} agents at rest take {grown} bytes of their worker's memory");
        Ok(())
    })
    .await
}

/// What a cluster of two nodes takes.
struct Rest {
    worker_memory: u64,
    worker_disk: u64,
    coordinator_memory: u64,
    coordinator_disk: u64,
}

impl Rest {
    /// Once so many wait for a time.
    async fn of(cluster: &Cluster, many: usize) -> anyhow::Result<Rest> {
        let (worker, coordinator) = (cluster.node("worker-1")?, cluster.node("coordinator-1")?);
        until("agents at rest", PATIENCE * 60, || async {
            let line = "quorate_tasks{project=\"all\",state=\"PENDING\"}";
            let resting = metric(coordinator, line).await.ok()??;
            let living = metric(worker, "quorate_agents ").await.ok()??;
            (resting as usize >= many && living == 0.0).then_some(())
        })
        .await?;
        let disk = |node: &Process| disk_bytes(&cluster.folder().join(&node.name));
        Ok(Rest {
            worker_memory: worker.usage()?.rss_bytes,
            worker_disk: disk(worker)?,
            coordinator_memory: coordinator.usage()?.rss_bytes,
            coordinator_disk: disk(coordinator)?,
        })
    }
}

/// Bytes that a folder takes on its disk.
fn disk_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // What is being replaced may be gone by now.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
