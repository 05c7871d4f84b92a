//! Limits: they hold at once and at every node, survive restarts, pause and wake tasks, and are never exceeded.

use crate::submit::refused;
use crate::support::*;
use anyhow::{Context, ensure};
use quorate_sdk::{Client, Code, Task, TaskState};
use quorate_tests::{Cluster, until};
use std::sync::atomic::{AtomicBool, Ordering};

const PROJECT: &str = "projects/default";
const ANSWER: usize = 50;

fn replies() -> Vec<String> {
    vec![
        reply("quick", "Understood.", ""),
        reply("writer", &words(ANSWER), "tokens_per_second = 200"),
        reply("pacer", &words(30), "tokens_per_second = 30"),
    ]
}

#[tokio::test]
async fn running_slots_hold_and_release() -> anyhow::Result<()> {
    on_cluster(spec(&replies()), async |cluster| {
        apply(&cluster.client()?, &["quick"]).await?;
        for name in names(cluster) {
            let client = cluster.client_of(&name)?;
            set_by_hand(cluster, &name, "running=0").await?;
            let held = held_task(&client).await?;
            held_as_seen_from_everywhere(cluster, &held).await?;
            set_by_hand(cluster, &name, "running=1").await?;
            succeeded(&client, &held).await?;
        }
        held_over_a_restart(cluster).await?;
        etags_guard_changes(&cluster.client()?).await
    })
    .await
}

async fn set(client: &Client, key: &str, limit: Option<u64>) -> anyhow::Result<()> {
    client.quotas().set(PROJECT).limit(key, limit).reason("test").send().await?;
    Ok(())
}

/// As an operator does it, at this node.
async fn set_by_hand(cluster: &Cluster, node: &str, limit: &str) -> anyhow::Result<()> {
    let said =
        cli(&cluster.node(node)?.endpoint(), &["quota", "set", PROJECT, limit, "--reason", "test"]).await?;
    ensure!(said.status.success(), "at {node}: {said:?}");
    Ok(())
}

async fn held_task(client: &Client) -> anyhow::Result<String> {
    Ok(client.tasks().create("quick").input("x").send().await?.uid)
}

/// Another task that may run overtakes nothing: the held one stays, and every node names the amount that is missing.
async fn held_as_seen_from_everywhere(cluster: &Cluster, held: &str) -> anyhow::Result<()> {
    for name in names(cluster) {
        let client = cluster.client_of(&name)?;
        let why = client.tasks().explain(held).await?;
        ensure!(why.task.state == TaskState::Pending, "{name}: {why:?}");
        let [blocker] = why.blockers.as_slice() else { anyhow::bail!("{name} names {:?}", why.blockers) };
        ensure!(
            blocker.reason == "QUOTA_RUNNING" && blocker.resource == "projects/default running",
            "{blocker:?}"
        );
        ensure!((blocker.requested, blocker.available, blocker.limit) == (1, 0, 0), "{blocker:?}");
        let quota = client.quotas().get(PROJECT).await?;
        ensure!(
            quota.limits["running"].limit == Some(0) && quota.limits["running"].used == 0,
            "{name}: {quota:?}"
        );
    }
    Ok(())
}

async fn held_over_a_restart(cluster: &mut Cluster) -> anyhow::Result<()> {
    let client = cluster.client()?;
    set(&client, "running", Some(0)).await?;
    let held = held_task(&client).await?;
    let before = client.quotas().get(PROJECT).await?;
    kill_all(cluster)?;
    start_all(cluster).await?;
    ensure!(client.quotas().get(PROJECT).await? == before, "the restart changed the quota");
    held_as_seen_from_everywhere(cluster, &held).await?;
    set(&client, "running", None).await?;
    succeeded(&client, &held).await?;
    Ok(())
}

pub(crate) fn kill_all(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.nodes.iter_mut().try_for_each(|node| node.kill())
}

pub(crate) async fn start_all(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.nodes.iter_mut().try_for_each(|node| node.start())?;
    cluster.wait_ready(cluster.nodes.len()).await
}

async fn etags_guard_changes(client: &Client) -> anyhow::Result<()> {
    let old = client.quotas().get(PROJECT).await?.etag;
    set(client, "running", Some(7)).await?;
    let late = client.quotas().set(PROJECT).limit("running", Some(9)).etag(&old).send().await;
    refused(late, Code::Aborted, "WRONG_ETAG")?;
    let now = client.quotas().get(PROJECT).await?;
    ensure!(now.limits["running"].limit == Some(7), "{now:?}");
    let right = client.quotas().set(PROJECT).limit("running", Some(9)).etag(&now.etag).send().await?;
    ensure!(right.limits["running"].limit == Some(9), "{right:?}");
    let unknown = client.quotas().set(PROJECT).limit("colours", Some(9)).send().await;
    refused(unknown, Code::InvalidArgument, "INVALID_ARGUMENT")?;
    Ok(())
}

#[tokio::test]
async fn budgets_pause_wake_and_are_never_exceeded() -> anyhow::Result<()> {
    on_cluster(spec(&replies()), async |cluster| {
        let client = cluster.client()?;
        apply(&client, &["quick", "writer", "pacer"]).await?;
        let over = Overseer::default();
        let (watched, done) = tokio::join!(over.watch(cluster), async {
            let done = match paused_and_woken(&client).await {
                Ok(()) => many_share_a_budget(&client).await,
                failed => failed,
            };
            over.stop.store(true, Ordering::Relaxed);
            done
        });
        done.and(watched)
    })
    .await
}

/// Looks at the budget through all nodes all the time.
#[derive(Default)]
struct Overseer {
    stop: AtomicBool,
}

impl Overseer {
    async fn watch(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let clients =
            names(cluster).iter().map(|name| cluster.client_of(name)).collect::<Result<Vec<_>, _>>()?;
        let mut looks = 0;
        for client in clients.iter().cycle() {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let quota = client.quotas().get(PROJECT).await;
            let Some(total) = quota.ok().and_then(|quota| quota.limits.get("tokens_total").copied()) else {
                continue;
            };
            looks += 1;
            let taken = total.used + total.reserved;
            ensure!(total.limit.is_none_or(|limit| taken <= limit), "settled + reserved are over: {total:?}");
        }
        ensure!(looks > 20, "the budget was looked at {looks} times only");
        Ok(())
    }
}

async fn paused_and_woken(client: &Client) -> anyhow::Result<()> {
    let budget = 20;
    set(client, "tokens_total", Some(budget)).await?;
    let task = client.tasks().create("writer").input("go").send().await?.uid;
    let paused = out_of_budget(client, &task).await?;
    ensure!(paused.step == 1 && paused.usage.generated_tokens > 0, "{paused:?}");
    let total = client.quotas().get(PROJECT).await?.limits["tokens_total"];
    ensure!((total.used, total.reserved) == (budget, 0), "the budget is used to the last token: {total:?}");
    let why = client.tasks().explain(&task).await?;
    let blocker = why.blockers.iter().find(|blocker| blocker.reason == "QUOTA_TOKENS_TOTAL");
    let blocker = blocker.with_context(|| format!("{why:?}"))?;
    ensure!(blocker.available == 0 && blocker.limit == budget && blocker.requested > 0, "{blocker:?}");
    ensure!(blocker.message.contains("raise tokens_total to"), "{blocker:?}");

    // Exactly the named amount starts it again; it runs out once more, later.
    set(client, "tokens_total", Some(budget + blocker.requested - blocker.available)).await?;
    let further = until("one more step", PATIENCE, || async {
        client.tasks().get(&task).await.ok().filter(|task| task.step > 1 && task.state == TaskState::Paused)
    });
    let further = further.await?;
    ensure!(further.usage.generated_tokens > paused.usage.generated_tokens, "{further:?}");

    set(client, "tokens_total", Some(1000)).await?;
    let done = succeeded(client, &task).await?;
    let text = client.tasks().result(&done).await?;
    ensure!(text == words(ANSWER), "the answer was not continued where it was cut: {text:?}");
    ensure!(done.usage.generated_tokens == ANSWER as u64, "{done:?}");
    Ok(())
}

async fn out_of_budget(client: &Client, task: &str) -> anyhow::Result<Task> {
    let fits = |task: &Task| task.state == TaskState::Paused && task.state_reason.contains("BUDGET");
    until("PAUSED(BUDGET)", PATIENCE, || async { client.tasks().get(task).await.ok().filter(fits) }).await
}

/// Twelve tasks want more than there is: some pause, and raising the limit brings all of them to their end.
async fn many_share_a_budget(client: &Client) -> anyhow::Result<()> {
    let used = client.quotas().get(PROJECT).await?.limits["tokens_total"].used;
    set(client, "tokens_total", Some(used + 150)).await?;
    let mut tasks = Vec::new();
    for _ in 0..12 {
        tasks.push(client.tasks().create("pacer").input("go").send().await?.uid);
    }
    let filter = "agent=pacer AND state=PAUSED";
    until("some are out of budget", PATIENCE, || async {
        let paused = client.tasks().list().filter(filter).page(None).await.ok()?;
        (!paused.items.is_empty()).then_some(())
    })
    .await?;
    set(client, "tokens_total", Some(used + 100_000)).await?;
    for task in &tasks {
        let done = succeeded(client, task).await?;
        ensure!(client.tasks().result(&done).await? == words(30), "{done:?}");
    }
    let total = client.quotas().get(PROJECT).await?.limits["tokens_total"];
    ensure!(total.reserved == 0, "something stays reserved: {total:?}");
    Ok(())
}
