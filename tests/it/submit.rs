//! Tasks through every node: whichever is asked, the answer is the same.

use crate::support::*;
use anyhow::ensure;
use futures::TryStreamExt;
use quorate_sdk::{Client, Code, Task, TaskState};
use quorate_tests::{Cluster, until};
use std::collections::BTreeSet;

fn replies() -> Vec<String> {
    let long: String = (0..8000).map(|n| format!("word{n:06} ")).collect();
    vec![
        reply("quick", "Understood.", ""),
        reply("slow", &words(40), "tokens_per_second = 20"),
        reply("endless", &words(4000), "tokens_per_second = 10"),
        reply("long", &long, ""),
    ]
}

#[tokio::test]
async fn tasks_through_every_node() -> anyhow::Result<()> {
    on_cluster(spec(&replies()), async |cluster| {
        apply(&cluster.client()?, &["quick", "slow", "endless", "long"]).await?;
        created_and_seen_everywhere(cluster).await?;
        repeated_requests_make_one_task(cluster).await?;
        lists_filter_and_page(cluster).await?;
        stopped_paused_resumed_explained(cluster).await?;
        a_watch_goes_on_at_another_node(cluster).await?;
        large_results_are_streamed(cluster).await
    })
    .await
}

/// What was created through one node is at once seen through all others.
async fn created_and_seen_everywhere(cluster: &Cluster) -> anyhow::Result<()> {
    for name in names(cluster) {
        let task_id = format!("from-{name}");
        let order = cluster.client_of(&name)?;
        let created = order
            .tasks()
            .create("quick")
            .input("hello")
            .task_id(&task_id)
            .label("from", &name)
            .send()
            .await?;
        for asked in names(cluster) {
            let seen = cluster.client_of(&asked)?.tasks().get(&task_id).await?;
            ensure!(seen.uid == created.uid, "{asked} sees {} as {}", task_id, seen.uid);
        }
        let done = succeeded(&order, &task_id).await?;
        ensure!(order.tasks().result(&done).await? == "Understood.", "{done:?}");
        ensure!(done.step == 1 && done.copies >= 2 && done.usage.generated_tokens == 1, "{done:?}");
    }
    Ok(())
}

async fn repeated_requests_make_one_task(cluster: &Cluster) -> anyhow::Result<()> {
    let mut uids = BTreeSet::new();
    for name in names(cluster) {
        let client = cluster.client_of(&name)?;
        let again = client.tasks().create("quick").input("once").task_id("once").request_id("same-request");
        uids.insert(again.send().await?.uid);
        let other = client.tasks().create("quick").input("other").request_id("same-request").send().await;
        refused(other, Code::InvalidArgument, "REQUEST_ID_REUSED")?;
        let taken = client.tasks().create("quick").input("once").task_id("once").send().await;
        refused(taken, Code::AlreadyExists, "TASK_ID_TAKEN")?;
    }
    ensure!(uids.len() == 1, "one request made {uids:?}");
    let all: Vec<Task> = cluster.client()?.tasks().list().all().try_collect().await?;
    ensure!(all.iter().filter(|task| task.id == "once").count() == 1, "listed more than once");
    Ok(())
}

pub(crate) fn refused<T: std::fmt::Debug>(
    answer: Result<T, quorate_sdk::Error>,
    code: Code,
    reason: &str,
) -> anyhow::Result<quorate_sdk::Error> {
    match answer {
        Ok(done) => anyhow::bail!("expected {reason}, but it was done: {done:?}"),
        Err(error) if error.code == code && error.reason == reason => {
            ensure!(error.next.is_some(), "no next step in {error:?}");
            Ok(error)
        }
        Err(error) => anyhow::bail!("expected {reason}, got {error:?}"),
    }
}

async fn lists_filter_and_page(cluster: &Cluster) -> anyhow::Result<()> {
    let nodes = names(cluster);
    for (index, name) in nodes.iter().enumerate() {
        let team = if index % 2 == 0 { "even" } else { "odd" };
        let order = cluster
            .client_of(name)?
            .tasks()
            .create("quick")
            .input("x")
            .label("paged", team)
            .send()
            .await?
            .uid;
        succeeded(&cluster.client()?, &order).await?;
    }
    for name in &nodes {
        let client = cluster.client_of(name)?;
        let odd: Vec<Task> = client.tasks().list().filter("label.paged=odd").all().try_collect().await?;
        ensure!(odd.len() == nodes.len() / 2, "{name} lists {} odd ones", odd.len());
        let filter = "label.paged=even AND state=SUCCEEDED AND agent=quick";
        let page = client.tasks().list().filter(filter).page_size(2).page(None).await?;
        ensure!(page.items.len() == 2 && page.next_page_token.is_some(), "{name}: {page:?}");
        let paged: Vec<Task> = client.tasks().list().filter(filter).page_size(2).all().try_collect().await?;
        let uids: BTreeSet<&str> = paged.iter().map(|task| task.uid.as_str()).collect();
        ensure!(paged.len() == nodes.len().div_ceil(2) && uids.len() == paged.len(), "{name}: {uids:?}");
        let none = client.tasks().list().filter("state=FAILED").page(None).await?;
        ensure!(none.items.is_empty(), "{none:?}");
        refused(
            client.tasks().list().filter("colour=red").page(None).await,
            Code::InvalidArgument,
            "INVALID_ARGUMENT",
        )?;
    }
    Ok(())
}

async fn stopped_paused_resumed_explained(cluster: &Cluster) -> anyhow::Result<()> {
    for name in names(cluster) {
        let client = cluster.client_of(&name)?;
        let task = client.tasks().create("endless").input("x").send().await?.uid;
        in_state(&client, &task, TaskState::Running).await?;
        let cancelling = client.tasks().cancel(&task).await?;
        ensure!(matches!(cancelling.state, TaskState::Cancelling | TaskState::Cancelled), "{cancelling:?}");
        ensure!(ended(&client, &task).await?.state == TaskState::Cancelled);

        let task = client.tasks().create("slow").input("x").send().await?.uid;
        in_state(&client, &task, TaskState::Running).await?;
        client.tasks().pause(&task).await?;
        in_state(&client, &task, TaskState::Paused).await?;
        let why = client.tasks().explain(&task).await?;
        ensure!(why.blockers.iter().any(|blocker| blocker.reason == "PAUSED_BY_USER"), "{why:?}");
        client.tasks().resume(&task).await?;
        let done = succeeded(&client, &task).await?;
        ensure!(client.tasks().result(&done).await? == words(40), "a pause changed the answer");
    }
    Ok(())
}

async fn in_state(client: &Client, task: &str, state: TaskState) -> anyhow::Result<Task> {
    let what = format!("{task} {}", state.name());
    until(&what, PATIENCE, || async {
        client.tasks().get(task).await.ok().filter(|task| task.state == state)
    })
    .await
}

async fn a_watch_goes_on_at_another_node(cluster: &Cluster) -> anyhow::Result<()> {
    let nodes = names(cluster);
    let task = cluster.client()?.tasks().create("slow").input("x").send().await?.uid;
    let mut first = cluster.client_of(&nodes[0])?.tasks().watch(&task);
    let mut seen = watch_until(&mut first, "some text", |event| is_text_of(event, 1)).await?;
    let from = first.next_sequence();
    drop(first);
    let mut second = cluster.client_of(&nodes[4])?.tasks().watch(&task).from(from);
    seen.extend(watch_to_end(&mut second).await?);
    check_sequence(&seen, 1)?;
    ensure!(steps(&seen) == [1], "{seen:?}");
    // Whoever comes later, anywhere, is told the same committed events.
    let committed: Vec<_> = seen.iter().filter(|event| event.sequence > 0).collect();
    for name in &nodes {
        let mut late = cluster.client_of(name)?.tasks().watch(&task).without_tokens();
        let again = watch_to_end(&mut late).await?;
        ensure!(
            again.iter().collect::<Vec<_>>() == committed,
            "{name} tells {again:?}, others {committed:?}"
        );
    }
    Ok(())
}

/// Above 64 KiB a result is not in the task but behind its hash, and every node gives it.
async fn large_results_are_streamed(cluster: &Cluster) -> anyhow::Result<()> {
    let task = cluster.client()?.tasks().create("long").input("x").send().await?.uid;
    let done = succeeded(&cluster.client()?, &task).await?;
    ensure!(done.result.is_none() && done.result_hash.is_some(), "a large result came inline");
    for name in names(cluster) {
        let text = cluster.client_of(&name)?.tasks().result(&done).await?;
        ensure!(
            text.len() == 8000 * 11 && text.ends_with("word007999 "),
            "{name} gives {} bytes",
            text.len()
        );
    }
    Ok(())
}
