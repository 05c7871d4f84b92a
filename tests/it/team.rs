//! A team of agents: readers side by side, one writer, a worker lost on the way; and a team that is stopped.

use crate::support::*;
use anyhow::{Context, ensure};
use quorate_sdk::{Client, Event, EventKind, Task, TaskState};
use quorate_tests::{Cluster, until};

const DOCUMENTS: usize = 12;
const ANSWER: usize = 60;
/// Tokens of the writer's answer after which its worker goes.
const KILL_AFTER: u64 = 16;

fn replies() -> Vec<String> {
    let mut replies = vec![
        reply("writer", &words(ANSWER), "tokens_per_second = 25"),
        reply("idler", &words(4000), "tokens_per_second = 20"),
    ];
    for document in 0..DOCUMENTS {
        // The later a document comes, the sooner its reader is done: order must not come from luck.
        let delay =
            format!("delay_ms = {}\nwhen_contains = \"document {document};\"", 50 * (DOCUMENTS - document));
        replies.push(reply("reader", &format!("Note {document}."), &delay));
    }
    replies
}

/// The text that all members share, and which must not travel again and again.
fn background() -> String {
    "Everybody in this team knows this. ".repeat(1200)
}

fn document(number: usize) -> String {
    format!("This is document {number}; {}", "it has something to say. ".repeat(100))
}

async fn apply_team(client: &Client, name: &str, reader: &str) -> anyhow::Result<()> {
    let shared = background();
    let toml = format!(
        "name = {name:?}\nbackground = {shared:?}\n[fan_out]\nover = \"inputs\"\nagent = {reader:?}\n[then]\nagent = \"writer\"\n"
    );
    client.agents().apply(toml).send().await?;
    Ok(())
}

async fn create_team(client: &Client, name: &str) -> anyhow::Result<String> {
    let order = client.tasks().create(name);
    let order = (0..DOCUMENTS).fold(order, |order, n| order.named_input(format!("{n}.md"), document(n)));
    Ok(order.send().await?.uid)
}

async fn members(client: &Client, team: &str, agent: &str) -> anyhow::Result<Vec<Task>> {
    let filter = format!("parent={team} AND agent={agent}");
    Ok(client.tasks().list().filter(filter).page_size(100).page(None).await?.items)
}

#[tokio::test]
async fn a_team_survives_its_writers_worker() -> anyhow::Result<()> {
    on_cluster(spec(&replies()), async |cluster| {
        let client = cluster.client()?;
        apply(&client, &["reader", "writer"]).await?;
        apply_team(&client, "team", "reader").await?;
        let team = create_team(&client, "team").await?;
        let writer = the_writer(&client, &team).await?;
        writers_worker_is_killed(cluster, &writer).await?;
        let done = succeeded(&client, &team).await?;
        ensure!(client.tasks().result(&done).await? == words(ANSWER), "{done:?}");
        notes_are_in_order(&client, &team, &writer).await?;
        each_member_ran_once(&client, &team).await
    })
    .await
}

async fn the_writer(client: &Client, team: &str) -> anyhow::Result<String> {
    until("the writer exists", PATIENCE, || async {
        members(client, team, "writer").await.ok()?.into_iter().next().map(|task| task.uid)
    })
    .await
}

async fn writers_worker_is_killed(cluster: &mut Cluster, writer: &str) -> anyhow::Result<()> {
    let client = cluster.client()?;
    let mut watch = client.tasks().watch(writer);
    let far = |event: &Event| match event.kind {
        EventKind::Token { offset, tokens, .. } => offset + u64::from(tokens) >= KILL_AFTER,
        _ => false,
    };
    let mut seen = watch_until(&mut watch, "the writer's 16th token", far).await?;
    let victim = seen.iter().rev().find_map(runs_on).context("a node runs it")?.to_string();
    only_new_text_moved(&client).await?;
    cluster.node_mut(&victim)?.kill()?;
    seen.extend(watch_to_end(&mut watch).await?);
    let finisher = seen.iter().rev().find_map(runs_on).context("a node ran it")?;
    ensure!(finisher != victim, "{victim} is dead and finished the writer");
    check_sequence(&seen, 1)?;
    ensure!(steps(&seen) == [1], "{seen:?}");
    Ok(())
}

/// The writer reads the notes in the order of the documents, whoever was ready first.
async fn notes_are_in_order(client: &Client, team: &str, writer: &str) -> anyhow::Result<()> {
    let parent = client.tasks().get(team).await?;
    let mut notes = Vec::new();
    for child in &parent.children {
        let child = client.tasks().get(child).await?;
        if child.agent == "reader" {
            notes.push(client.tasks().result(&child).await?);
        }
    }
    let expected: Vec<String> = (0..DOCUMENTS).map(|document| format!("Note {document}.")).collect();
    ensure!(notes == expected, "the children's notes are {notes:?}");
    let context = client.context().get(writer, true).await?;
    let read: String = context.segments.iter().map(|segment| segment.text.as_str()).collect();
    let places: Vec<Option<usize>> = expected.iter().map(|note| read.find(note.as_str())).collect();
    ensure!(places.iter().all(Option::is_some) && places.is_sorted(), "the writer read {places:?}");
    Ok(())
}

async fn each_member_ran_once(client: &Client, team: &str) -> anyhow::Result<()> {
    let readers = members(client, team, "reader").await?;
    let writers = members(client, team, "writer").await?;
    ensure!(readers.len() == DOCUMENTS && writers.len() == 1, "{} and {}", readers.len(), writers.len());
    for member in readers.iter().chain(&writers) {
        ensure!(member.state == TaskState::Succeeded && member.step == 1, "{member:?}");
        ensure!(member.parent.as_deref() == Some(team), "{member:?}");
    }
    Ok(())
}

/// Had every assignment and call carried its chain, much more would have moved. Nodes tell their counters with the
/// next beat, so they are read until they hold every reader's assignment and call.
async fn only_new_text_moved(client: &Client) -> anyhow::Result<()> {
    let chains = ((background().len() + document(0).len()) * DOCUMENTS) as u64;
    let counted = until("all calls are counted", PATIENCE, || async {
        let nodes = client.cluster().nodes().await.ok()?;
        let full: u64 = nodes.iter().map(|node| node.context_bytes_full).sum();
        let moved: u64 = nodes.iter().map(|node| node.context_bytes_received).sum();
        (full >= 2 * chains).then_some((moved, full))
    });
    let (moved, full) = counted.await?;
    figure("team_context_bytes_moved", moved);
    figure("team_context_bytes_full", full);
    ensure!(moved * 2 < full, "{moved} bytes moved of {full}");
    Ok(())
}

#[tokio::test]
async fn a_cancelled_team_starts_nothing_more() -> anyhow::Result<()> {
    on_cluster(spec(&replies()), async |cluster| {
        let client = cluster.client()?;
        apply(&client, &["reader", "writer", "idler"]).await?;
        apply_team(&client, "idlers", "idler").await?;
        apply_team(&client, "team", "reader").await?;
        let waiting = create_team(&client, "idlers").await?;
        until("readers run", PATIENCE, || async {
            let running = client.tasks().list().filter(format!("parent={waiting} AND state=RUNNING"));
            (running.page(None).await.ok()?.items.len() == DOCUMENTS).then_some(())
        })
        .await?;
        stopped_for_good(&client, &waiting).await?;
        ensure!(members(&client, &waiting, "writer").await?.is_empty(), "the writer was started");

        let writing = create_team(&client, "team").await?;
        let writer = the_writer(&client, &writing).await?;
        let mut watch = client.tasks().watch(&writer);
        watch_until(&mut watch, "the writer's text", |event| is_text_of(event, 1)).await?;
        stopped_for_good(&client, &writing).await?;
        ensure!(client.tasks().get(&writer).await?.state == TaskState::Cancelled, "the writer went on");
        nothing_is_held(&client).await
    })
    .await
}

/// In the moment the team is CANCELLED every member has its final state, and keeps it.
async fn stopped_for_good(client: &Client, team: &str) -> anyhow::Result<()> {
    let asked = client.tasks().cancel(team).await?;
    ensure!(matches!(asked.state, TaskState::Cancelling | TaskState::Cancelled), "{asked:?}");
    let done = ended(client, team).await?;
    ensure!(done.state == TaskState::Cancelled, "{done:?}");
    let at_once =
        client.tasks().list().filter(format!("parent={team}")).page_size(100).page(None).await?.items;
    ensure!(at_once.iter().all(|member| member.state.is_final()), "after CANCELLED: {at_once:?}");
    // Other work passes through every worker, and the tree stays as it was.
    for _ in 0..8 {
        let other = client.tasks().create("reader").input(document(0)).send().await?;
        succeeded(client, &other.uid).await?;
    }
    let later = client.tasks().list().filter(format!("parent={team}")).page_size(100).page(None).await?.items;
    ensure!(later == at_once, "something of the tree moved after CANCELLED: {later:?}");
    Ok(())
}

async fn nothing_is_held(client: &Client) -> anyhow::Result<()> {
    let quota = client.quotas().get("projects/default").await?;
    let (slots, tokens) = (quota.limits["running"], quota.limits["tokens_total"]);
    ensure!(slots.used == 0 && tokens.reserved == 0, "{quota:?}");
    Ok(())
}
