//! Wall clocks that are set an hour back or forth on the leader or on a follower: leases, rates and failovers count by
//! other clocks. And a worker that is cut off while its limits are cut.

use crate::leader_kill::states_are_equal;
use crate::support::*;
use anyhow::{Context, ensure};
use quorate_sdk::{Client, Event, TaskState};
use quorate_tests::cluster::binary;
use quorate_tests::{Cluster, Spec, until};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

const HOUR_MS: i64 = 3_600_000;
/// The default `lease_ms`, 1 % and 50 ms.
const LEASE: Duration = Duration::from_millis(3_080);
const ANSWER: usize = 60;
/// New tokens a minute that the metered project may use, and what one of its tasks asks for.
const MINUTE: u64 = 60;
const WANTED: u64 = 50;

fn replies() -> [String; 3] {
    [
        reply("quick", "Understood.", ""),
        reply("writer", &words(ANSWER), "tokens_per_second = 12"),
        reply("metered", &words(40), ""),
    ]
}

#[tokio::test]
async fn wall_clocks_that_jump_move_no_lease_and_fill_no_bucket() -> anyhow::Result<()> {
    let shim = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("it/clock.c");
    let spec = Spec { clock_shim: Some(shim), ..spec(&replies()) };
    on_cluster(spec, async |cluster| {
        let client = cluster.client()?;
        apply(&client, &["quick", "writer"]).await?;
        apply_with(&client, "metered", &format!("max_tokens = {WANTED}")).await?;
        client
            .quotas()
            .set("projects/default/agents/metered")
            .limit("tokens_minute", Some(MINUTE))
            .send()
            .await?;
        for round in 0..rounds("QUORATE_JUMPS") {
            jump(cluster, &client, round).await?;
        }
        a_lost_worker_is_noticed_in_time(cluster, &client).await?;
        states_are_equal(cluster).await
    })
    .await
}

/// All four jumps while a task runs and another waits for its minute.
async fn jump(cluster: &Cluster, client: &Client, round: u32) -> anyhow::Result<()> {
    let leader = cluster.leader().await?;
    let follower = names(cluster).into_iter().find(|name| *name != leader).context("a follower")?;
    let clocks = cluster.clocks.as_ref().context("clocks that can be set")?;
    let writer = client.tasks().create("writer").input(format!("go {round}")).send().await?.uid;
    let mut watch = client.tasks().watch(&writer);
    let mut seen = watch_until(&mut watch, "text", |event| is_text_of(event, 1)).await?;
    let begun = Instant::now();
    let waiting = wait_for_the_minute(client, round).await?;
    for (name, difference_ms) in
        [(&leader, HOUR_MS), (&leader, -HOUR_MS), (&follower, HOUR_MS), (&follower, -HOUR_MS)]
    {
        clocks.set(name, difference_ms)?;
        // Entries of the log carry the clocks of whoever leads.
        for number in 0..4 {
            let way = if difference_ms > 0 { "forth" } else { "back" };
            let id = format!("after-{round}-{name}-{way}-{number}");
            client.tasks().create("quick").input("x").task_id(&id).send().await?;
            succeeded(client, &id).await?;
        }
        clocks.set(name, 0)?;
    }
    ensure!(cluster.leader().await? == leader, "a clock moved the office");
    let state = client.tasks().get(&waiting).await?.state;
    // A bucket fills by MINUTE tokens in a minute of true time, and it was nearly empty.
    let honest = begun.elapsed() > Duration::from_secs((WANTED - (MINUTE - WANTED)) * 60 / MINUTE);
    ensure!(honest || !matches!(state, TaskState::Running | TaskState::Succeeded), "minted: {state:?}");
    seen.extend(watch_to_end(&mut watch).await?);
    ensure!(
        seen.iter().filter(|event| runs_on(event).is_some()).count() == 1,
        "a lease ended early: {seen:#?}"
    );
    ensure!(steps(&seen) == [1], "{seen:#?}");
    succeeded(client, &writer).await?;
    client.tasks().cancel(&waiting).await?;
    Ok(())
}

/// A first task takes the minute's tokens; the second has to wait for more.
async fn wait_for_the_minute(client: &Client, round: u32) -> anyhow::Result<String> {
    let waits = async |number: u32| -> anyhow::Result<Option<String>> {
        let task = client.tasks().create("metered").input(format!("m {round} {number}")).send().await?.uid;
        let settled = async || {
            let task = client.tasks().get(&task).await.ok()?;
            let told = task.state == TaskState::Paused || task.state == TaskState::Succeeded;
            told.then_some(task.state)
        };
        let state = until("the metered task ends or waits", PATIENCE, settled).await?;
        Ok((state == TaskState::Paused).then_some(task))
    };
    for number in 0..3 {
        if let Some(task) = waits(number).await? {
            return Ok(task);
        }
    }
    anyhow::bail!("three tasks used {} tokens of {MINUTE} a minute", 3 * WANTED)
}

/// Clocks differ by an hour all the while: the lease of a dead worker still ends when it should.
async fn a_lost_worker_is_noticed_in_time(cluster: &mut Cluster, client: &Client) -> anyhow::Result<()> {
    let leader = cluster.leader().await?;
    let clocks = cluster.clocks.as_ref().context("clocks that can be set")?;
    clocks.set(&leader, -HOUR_MS)?;
    let task = client.tasks().create("writer").input("last").send().await?.uid;
    let mut watch = client.tasks().watch(&task);
    let seen = watch_until(&mut watch, "text", |event| is_text_of(event, 1)).await?;
    let worker = seen.iter().rev().find_map(runs_on).context("a node runs it")?.to_string();
    cluster.node_mut(&worker)?.kill()?;
    let killed = Instant::now();
    watch_until(&mut watch, "elsewhere", |event| runs_on(event).is_some_and(|node| node != worker)).await?;
    let took = killed.elapsed();
    figure("clock_jump_failover_ms", took.as_millis());
    ensure!(took <= LEASE * 2, "stuck for {took:?}");
    watch_to_end(&mut watch).await?;
    cluster.node_mut(&worker)?.start()?;
    cluster.wait_ready(cluster.nodes.len()).await
}

/// A worker stands still, as one that nothing reaches; its limits are cut meanwhile. Its lease ends, and from then on
/// nothing is granted to anybody, also when it wakes up and offers what it has.
#[tokio::test]
async fn a_cut_off_worker_is_granted_nothing_after_its_lease() -> anyhow::Result<()> {
    let replies = replies();
    let spec = Spec { workers: 1, ..spec(&replies) };
    let mut cluster = Cluster::start(&binary()?, spec).await?;
    cut_off(&mut cluster).await.with_context(|| cluster.logs())
}

async fn cut_off(cluster: &mut Cluster) -> anyhow::Result<()> {
    let client = cluster.client()?;
    apply(&client, &["writer"]).await?;
    let quotas = client.quotas();
    quotas.set("projects/default").limit("tokens_total", Some(1_000_000)).send().await?;
    let task = client.tasks().create("writer").input("go").send().await?.uid;
    let mut watch = client.tasks().watch(&task);
    let mut seen = watch_until(&mut watch, "text", |event| is_text_of(event, 1)).await?;
    cluster.node("worker-1")?.freeze()?;
    let frozen = Instant::now();
    quotas.set("projects/default").limit("running", Some(0)).limit("tokens_total", Some(0)).send().await?;
    seen.extend(watch_until(&mut watch, "the queue", is_pending).await?);
    let ended = frozen.elapsed();
    figure("cut_off_lease_end_ms", ended.as_millis());
    ensure!(ended <= LEASE * 2, "the lease ended after {ended:?}");
    let held = quotas.get("projects/default").await?;
    cluster.node("worker-1")?.thaw()?;
    cluster.wait_ready(cluster.nodes.len()).await?;
    let other = client.tasks().create("writer").input("more").send().await?.uid;
    let refused = async || {
        let node = client.cluster().node("worker-1").await.ok()?;
        (node.state == "ready" && node.running == 0).then_some(())
    };
    until("the worker has given up what it had", PATIENCE, refused).await?;
    for uid in [&task, &other] {
        let now = client.tasks().get(uid).await?;
        ensure!(now.state == TaskState::Pending && now.step == 0, "{now:?}");
    }
    let now = quotas.get("projects/default").await?;
    ensure!(now.limits["tokens_total"].used == held.limits["tokens_total"].used, "{held:?} became {now:?}");
    ensure!(now.limits["running"].used == 0, "{now:?}");
    quotas.set("projects/default").limit("running", None).limit("tokens_total", None).send().await?;
    for uid in [&task, &other] {
        succeeded(&client, uid).await?;
    }
    Ok(())
}

fn is_pending(event: &Event) -> bool {
    matches!(event.kind, quorate_sdk::EventKind::State { state: TaskState::Pending, .. })
}
