//! `kill -9` of a worker in the middle of a model call: the task goes on elsewhere, and committed steps stand.

use crate::support::*;
use anyhow::{Context, ensure};
use quorate_sdk::{Client, Event, EventKind, TaskState};
use quorate_tests::{Cluster, Spec};
use std::time::Duration;
use tokio::time::Instant;

const ANSWER: usize = 60;
/// The first step gets a budget for so many words, so that a committed step exists before the kill.
const FIRST_STEP: usize = 12;
/// From the kill to the next lease: what the product promises.
pub(crate) const REASSIGNED: Duration = Duration::from_secs(4);
/// What a test machine that does other work at the same time may add.
pub(crate) const SLACK: Duration = Duration::from_millis(1500);

fn slow_writer() -> Spec {
    spec(&[reply("writer", &words(ANSWER), "delay_ms = 50\ntokens_per_second = 20")])
}

#[tokio::test]
async fn a_killed_workers_task_goes_on_elsewhere() -> anyhow::Result<()> {
    on_cluster(slow_writer(), async |cluster| {
        apply(&cluster.client()?, &["writer"]).await?;
        for round in 0..rounds("QUORATE_KILLS") {
            kill_mid_call(cluster, round).await?;
        }
        Ok(())
    })
    .await
}

async fn kill_mid_call(cluster: &mut Cluster, round: u32) -> anyhow::Result<()> {
    let client = cluster.client()?;
    let task = task_in_its_second_step(&client, round).await?;
    let mut watch = client.tasks().watch(&task);
    let mut seen = watch_until(&mut watch, "text of the second step", |event| is_text_of(event, 2)).await?;
    let victim = seen.iter().rev().find_map(runs_on).context("a node runs it")?.to_string();

    cluster.node_mut(&victim)?.kill()?;
    let killed = Instant::now();
    let elsewhere = |event: &Event| runs_on(event).is_some_and(|node| node != victim);
    seen.extend(watch_until(&mut watch, "another node has it", elsewhere).await?);
    let reassigned = killed.elapsed();
    seen.extend(watch_until(&mut watch, "new text of the second step", |event| is_text_of(event, 2)).await?);
    let first_text = killed.elapsed();
    figure("worker_kill_reassigned_ms", reassigned.as_millis());
    figure("worker_kill_first_text_ms", first_text.as_millis());
    ensure!(reassigned < REASSIGNED + SLACK, "another node got the task after {reassigned:?}");

    seen.extend(watch_to_end(&mut watch).await?);
    check_story(&seen)?;
    check_result(&client, &task, &victim).await?;
    cluster.node_mut(&victim)?.start()?;
    cluster.wait_ready(cluster.nodes.len()).await
}

/// The budget cuts the first step; then there is enough for the rest.
async fn task_in_its_second_step(client: &Client, round: u32) -> anyhow::Result<String> {
    let project = client.quotas().get("projects/default").await?;
    let used = project.limits["tokens_total"].used;
    limit_tokens(client, Some(used + 3 + FIRST_STEP as u64)).await?;
    let task =
        client.tasks().create("writer").input("go").label("round", round.to_string()).send().await?.uid;
    let mut watch = client.tasks().watch(&task).without_tokens();
    let paused = |event: &Event| matches!(event.kind, EventKind::State { state: TaskState::Paused, .. });
    watch_until(&mut watch, "PAUSED", paused).await?;
    limit_tokens(client, None).await?;
    Ok(task)
}

pub(crate) async fn limit_tokens(client: &Client, limit: Option<u64>) -> anyhow::Result<()> {
    client.quotas().set("projects/default").limit("tokens_total", limit).send().await?;
    Ok(())
}

/// Every step once; what was shown of the lost call is taken back before anything of the new one is shown.
fn check_story(seen: &[Event]) -> anyhow::Result<()> {
    check_sequence(seen, 1)?;
    ensure!(steps(seen) == [1, 2], "committed steps {:?}", steps(seen));
    let attempt_of = |event: &Event| match &event.kind {
        EventKind::Token { step: 2, attempt, .. } => Some(attempt.clone()),
        _ => None,
    };
    let old = seen.iter().find_map(attempt_of).context("text before the kill")?;
    let new = seen.iter().rev().find_map(attempt_of).context("text after the kill")?;
    ensure!(old != new, "both attempts are called {old}");
    let place = |fits: &dyn Fn(&Event) -> bool| seen.iter().position(fits);
    let retracted = place(&|event| event.kind == EventKind::Retract { step: 2, attempt: old.clone() });
    let begun = place(&|event| attempt_of(event).as_ref() == Some(&new)).context("new text")?;
    let offset = match &seen[begun].kind {
        EventKind::Token { offset, .. } => *offset,
        other => anyhow::bail!("{other:?} is no text"),
    };
    ensure!(retracted.is_some_and(|at| at < begun), "no retract of {old} before {new}: {seen:#?}");
    ensure!(offset == 0, "the new attempt begins at token {offset}");
    Ok(())
}

async fn check_result(client: &Client, task: &str, victim: &str) -> anyhow::Result<()> {
    let done = client.tasks().get(task).await?;
    ensure!(done.state == TaskState::Succeeded && done.step == 2, "{done:?}");
    ensure!(done.usage.generated_tokens == ANSWER as u64, "words were generated and paid twice: {done:?}");
    let text = client.tasks().result(&done).await?;
    ensure!(text == words(ANSWER), "the answer is {text:?}");
    let lost = client.cluster().node(victim).await?;
    ensure!(lost.state == "lost" && lost.running == 0, "{lost:?}");
    Ok(())
}
