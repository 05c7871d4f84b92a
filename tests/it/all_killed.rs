//! `kill -9` of all processes at once, in the middle of work: after the restart everything that was acknowledged is
//! there, and everything ends well.

use crate::leader_kill::states_are_equal;
use crate::quotas::{kill_all, start_all};
use crate::support::*;
use anyhow::{Context, ensure};
use futures::TryStreamExt;
use quorate_sdk::{Client, Task};
use quorate_tests::{Cluster, until};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Acknowledged tasks at which everything is killed.
const KILL_AFTER: usize = 40;
const ANSWER: usize = 30;
const PROJECT: &str = "projects/default";

#[tokio::test]
async fn nothing_acknowledged_is_lost() -> anyhow::Result<()> {
    let replies = [
        reply("quick", "Understood.", ""),
        reply("writer", &words(ANSWER), "delay_ms = 100\ntokens_per_second = 20"),
    ];
    on_cluster(spec(&replies), async |cluster| {
        for round in 0..rounds("QUORATE_KILLS") {
            kill_everything(cluster, round).await?;
        }
        Ok(())
    })
    .await
}

/// Task ids and uids that the client was told.
type Told = Mutex<BTreeMap<String, String>>;

async fn kill_everything(cluster: &mut Cluster, round: u32) -> anyhow::Result<()> {
    let client = cluster.client()?;
    apply(&client, &["quick", "writer"]).await?;
    let limits =
        client.quotas().set(PROJECT).limit("running", Some(6)).limit("tokens_total", Some(1_000_000));
    let etag = limits.reason(format!("round {round}")).send().await?.etag;
    let agents = client.agents().list().await?;
    let told = Told::default();
    let mut creating = std::pin::pin!(create(&client, &told, round));
    let enough = async || (told.lock().ok()?.len() >= KILL_AFTER).then_some(());
    tokio::select! {
        enough = until("the first acknowledgements", PATIENCE, enough) => enough?,
        stopped = &mut creating => stopped?,
    }
    let running = client.tasks().list().filter("state=RUNNING").page(None).await?;
    ensure!(!running.items.is_empty(), "nothing runs that could be killed");
    kill_all(cluster)?;
    let told = told.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.clone();
    start_all(cluster).await?;

    ensure!(client.agents().list().await? == agents, "the agents changed");
    let quota = client.quotas().get(PROJECT).await?;
    ensure!(quota.etag == etag && quota.limits["running"].limit == Some(6), "the quota changed: {quota:?}");
    each_is_there_and_ends_well(&client, &told, round).await?;
    slots_and_budget_are_free_again(&client).await?;
    states_are_equal(cluster).await
}

/// Never ends by itself: it is dropped with the cluster dead.
async fn create(client: &Client, told: &Told, round: u32) -> anyhow::Result<()> {
    for number in 0..10_000 {
        let (id, agent) = (format!("task-{round}-{number}"), agent_of(number));
        let order = client.tasks().create(agent).input("go").task_id(&id).label("round", round.to_string());
        let task = order.request_id(&id).send().await?;
        told.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.insert(id, task.uid);
    }
    Ok(())
}

fn agent_of(number: usize) -> &'static str {
    if number.is_multiple_of(8) { "writer" } else { "quick" }
}

async fn each_is_there_and_ends_well(
    client: &Client,
    told: &BTreeMap<String, String>,
    round: u32,
) -> anyhow::Result<()> {
    let filter = format!("label.round={round}");
    let listed: Vec<Task> = client.tasks().list().filter(filter).all().try_collect().await?;
    let by_id: BTreeMap<&str, &Task> = listed.iter().map(|task| (task.id.as_str(), task)).collect();
    ensure!(by_id.len() == listed.len(), "a task is listed twice");
    // One create may have been under way and is there without its acknowledgement.
    ensure!(listed.len() <= told.len() + 1, "{} tasks for {} acknowledgements", listed.len(), told.len());
    for (id, uid) in told {
        let found = by_id.get(id.as_str()).with_context(|| format!("{id} was acknowledged and is lost"))?;
        ensure!(found.uid == *uid, "{id} was {uid} and is {}", found.uid);
    }
    for task in &listed {
        ends_well(client, task).await?;
    }
    Ok(())
}

async fn ends_well(client: &Client, task: &Task) -> anyhow::Result<()> {
    let done = succeeded(client, &task.uid).await?;
    let text = client.tasks().result(&done).await?;
    let expected = if task.agent == "writer" { words(ANSWER) } else { "Understood.".into() };
    ensure!(text == expected && done.step == 1, "{} says {text:?} after {} steps", task.id, done.step);
    let mut watch = client.tasks().watch(&task.uid).without_tokens();
    let events = watch_to_end(&mut watch).await?;
    check_sequence(&events, 1)?;
    ensure!(steps(&events) == [1], "{events:?}");
    // The same request again is the same task, after the restart too.
    let again = client.tasks().create(&task.agent).input("go").task_id(&task.id).request_id(&task.id);
    let labelled = task.labels.iter().fold(again, |order, (key, value)| order.label(key, value));
    ensure!(labelled.send().await?.uid == task.uid, "the request made a second task");
    Ok(())
}

async fn slots_and_budget_are_free_again(client: &Client) -> anyhow::Result<()> {
    let quota = client.quotas().get(PROJECT).await?;
    let (slots, tokens) = (quota.limits["running"], quota.limits["tokens_total"]);
    ensure!(slots.used == 0 && tokens.reserved == 0, "something is held for ever: {quota:?}");
    Ok(())
}
