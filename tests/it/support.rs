//! What all tests share: a scripted model, agents that use it, clusters that show their logs when a test fails, and
//! ways to look at events, the command line and metrics.

use anyhow::{Context, ensure};
use quorate_sdk::{Client, Event, EventKind, Task, TaskState, Watch};
use quorate_tests::cluster::binary;
use quorate_tests::{Cluster, Process, Spec};
use std::process::Output;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Nothing that a test waits for takes longer, on a busy machine too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Name of the scripted model for agents.
pub(crate) const MODEL: &str = "scripted";

/// One reply of the scripted model, for one agent. `more` holds further keys, such as `tokens_per_second = 20`.
pub(crate) fn reply(agent: &str, text: &str, more: &str) -> String {
    format!("[[reply]]\nwhen_agent = {agent:?}\ntext = {text:?}\n{more}\n")
}

/// A text of so many tokens of the scripted model: one a word.
pub(crate) fn words(count: usize) -> String {
    (1..=count).map(|n| format!("w{n:04}")).collect::<Vec<_>>().join(" ")
}

/// Three coordinators and two workers whose model says what the replies say.
pub(crate) fn spec(replies: &[String]) -> Spec {
    let script = format!("window = 65536\n\n{}", replies.concat());
    Spec { scripts: vec![(MODEL.to_string(), script)], ..Spec::default() }
}

/// Runs a test on a cluster; a failure shows the end of each node's log.
pub(crate) async fn on_cluster(
    spec: Spec,
    test: impl AsyncFnOnce(&mut Cluster) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut cluster = Cluster::start(&binary()?, spec).await?;
    eprintln!("the cluster started in {} ms", begun.elapsed().as_millis());
    let done = test(&mut cluster).await;
    done.with_context(|| cluster.logs())
}

/// Applies agents that use the scripted model.
pub(crate) async fn apply(client: &Client, agents: &[&str]) -> anyhow::Result<()> {
    for name in agents {
        apply_with(client, name, "max_tokens = 20000").await?;
    }
    Ok(())
}

pub(crate) async fn apply_with(client: &Client, name: &str, more: &str) -> anyhow::Result<()> {
    let toml = format!("name = {name:?}\nmodel = {MODEL:?}\n{more}\n");
    client.agents().apply(toml).send().await.with_context(|| format!("applying {name}"))?;
    Ok(())
}

/// Names of all nodes, coordinators first.
pub(crate) fn names(cluster: &Cluster) -> Vec<String> {
    cluster.nodes.iter().map(|node| node.name.clone()).collect()
}

/// Waits until nothing more happens to a task.
pub(crate) async fn ended(client: &Client, id: &str) -> anyhow::Result<Task> {
    let tasks = client.tasks();
    let wait = timeout(PATIENCE, tasks.wait(id));
    Ok(wait.await.with_context(|| format!("task {id} did not end within {PATIENCE:?}"))??)
}

/// Waits until a task has succeeded.
pub(crate) async fn succeeded(client: &Client, id: &str) -> anyhow::Result<Task> {
    let task = ended(client, id).await?;
    ensure!(task.state == TaskState::Succeeded, "{id} ended {} {:?}", task.state.name(), task.error);
    Ok(task)
}

/// Takes events until one fits; answers all that were taken.
pub(crate) async fn watch_until(
    watch: &mut Watch,
    what: &str,
    mut fits: impl FnMut(&Event) -> bool,
) -> anyhow::Result<Vec<Event>> {
    let deadline = Instant::now() + PATIENCE;
    let mut taken = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let next = timeout(left, watch.next()).await;
        let event =
            next.with_context(|| format!("{what} was not seen within {PATIENCE:?}; seen: {taken:#?}"))??;
        let event = event.with_context(|| format!("the task ended before {what}; seen: {taken:#?}"))?;
        taken.push(event);
        if taken.last().is_some_and(&mut fits) {
            return Ok(taken);
        }
    }
}

/// Takes all further events, to the final one.
pub(crate) async fn watch_to_end(watch: &mut Watch) -> anyhow::Result<Vec<Event>> {
    watch_until(watch, "the final state", |event| event.final_state().is_some()).await
}

/// The node a `RUNNING` event names.
pub(crate) fn runs_on(event: &Event) -> Option<&str> {
    match &event.kind {
        EventKind::State { state: TaskState::Running, node: Some(node), .. } => Some(node),
        _ => None,
    }
}

/// True for live text of this step.
pub(crate) fn is_text_of(event: &Event, wanted: u64) -> bool {
    matches!(event.kind, EventKind::Token { step, .. } if step == wanted)
}

/// Numbers of the committed steps, in the order they came.
pub(crate) fn steps(events: &[Event]) -> Vec<u64> {
    let step = |event: &Event| if let EventKind::Step { step, .. } = event.kind { Some(step) } else { None };
    events.iter().filter_map(step).collect()
}

/// Committed events must be numbered without a gap and without a duplicate.
pub(crate) fn check_sequence(events: &[Event], first: u64) -> anyhow::Result<()> {
    let committed: Vec<u64> = events.iter().map(|event| event.sequence).filter(|n| *n > 0).collect();
    let expected: Vec<u64> = (first..first + committed.len() as u64).collect();
    ensure!(committed == expected, "sequences {committed:?}, expected {expected:?}");
    Ok(())
}

/// Runs the real `quorate`, asking these nodes.
pub(crate) async fn cli(endpoint: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = tokio::process::Command::new(binary()?);
    command
        .args(arguments)
        .env("QUORATE_ENDPOINT", endpoint)
        .env_remove("QUORATE_PROJECT")
        .kill_on_drop(true);
    let output = timeout(PATIENCE, command.output());
    Ok(output.await.with_context(|| format!("`quorate {}` did not end", arguments.join(" ")))??)
}

/// What a node says at `/metrics`: the value of the line that begins so.
pub(crate) async fn metric(node: &Process, line: &str) -> anyhow::Result<Option<f64>> {
    let text = timeout(PATIENCE, http_get(node.ports.http, "/metrics")).await??;
    let value = text.lines().find_map(|found| found.strip_prefix(line)).map(str::trim);
    Ok(value.map(str::parse).transpose()?)
}

async fn http_get(port: u16, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
    ensure!(head.contains(" 200 "), "{path} answers {head}");
    Ok(body.to_string())
}

/// A measured number, for people and for `tests/prove.sh`.
pub(crate) fn figure(name: &str, value: impl std::fmt::Display) {
    println!("figure {name} {value}");
}

/// How often a test repeats itself: once, or as often as the environment says.
pub(crate) fn rounds(variable: &str) -> u32 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(1).max(1)
}
