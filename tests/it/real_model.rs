//! The real model on real processes: quick to the first word, the same words every time, and cheap when idle.
//!
//! A machine without the model fails here: what cannot be tested has not passed.

use crate::idle::Cost;
use crate::support::*;
use anyhow::{Context, ensure};
use quorate_sdk::{Client, EventKind, TaskState};
use quorate_tests::cluster::binary;
use quorate_tests::{Cluster, Spec, until};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::time::{Instant, timeout};

const SMOLLM2: &str = "smollm2";
const READER: &str = include_str!("../../examples/agents/reader.toml");
/// `quorate dev`, from its start to the first word of an answer.
const FIRST_WORD: Duration = Duration::from_secs(10);
const TEXT: &str = "A quorum is the number of members of a group that must agree before something counts as decided. \
                    With three members it is two, so that one of them may be away.";

/// Where the model is on this machine.
pub(crate) fn model_file() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = || {
        set("XDG_DATA_HOME")
            .or_else(|| Some(set("HOME")?.join(".local/share")))
            .map(|data| data.join("quorate"))
    };
    let home = set("QUORATE_HOME").or_else(data).context("neither QUORATE_HOME nor HOME is set")?;
    let file = home.join("models").join(format!("{SMOLLM2}.gguf"));
    ensure!(file.is_file(), "the model is not at {}: run `make model`, then the tests again", file.display());
    Ok(file)
}

/// One process with everything, as a newcomer starts it.
#[tokio::test]
async fn dev_answers_within_seconds() -> anyhow::Result<()> {
    model_file()?;
    let started = Instant::now();
    // It listens where the documentation says; another node there would answer in its place.
    let taken = Client::connect(&["127.0.0.1:7400"])?.with_timeout(Duration::from_millis(500));
    ensure!(
        taken.cluster().status().await.is_err(),
        "something answers at 127.0.0.1:7400: stop it, then test again"
    );
    let mut dev = tokio::process::Command::new(binary()?)
        .args(["dev", "--ephemeral"])
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let client = Client::connect(&["127.0.0.1:7400"])?;
    let apply = async || client.agents().apply(READER).send().await.ok();
    until("dev takes an agent", PATIENCE, apply).await?;
    let task = client.tasks().create("reader").input(TEXT).send().await?;
    let mut watch = client.tasks().watch(&task.uid);
    watch_until(&mut watch, "the first word", |event| matches!(event.kind, EventKind::Token { .. })).await?;
    let took = started.elapsed();
    figure("dev_first_word_ms", took.as_millis());
    let status = client.cluster().status().await?;
    ensure!(
        status.copies == 1 && !status.warnings.is_empty(),
        "one disk only, and not a word of it: {status:?}"
    );
    let done = succeeded(&client, &task.uid).await?;
    ensure!(!client.tasks().result(&done).await?.trim().is_empty(), "{done:?}");
    dev.kill().await?;
    ensure!(took < FIRST_WORD, "the first word came after {took:?}");
    Ok(())
}

/// A copy that ended half way is noticed before anything of it is believed.
#[tokio::test]
async fn half_a_model_is_refused() -> anyhow::Result<()> {
    let whole = std::fs::read(model_file()?)?;
    let home = tempfile::tempdir()?;
    let half = home.path().join("half.gguf");
    std::fs::write(&half, &whole[..whole.len() / 2])?;
    let said = crate::bad_input::pull(home.path(), &half).await?;
    let words = String::from_utf8_lossy(&said.stderr);
    ensure!(
        said.status.code() == Some(1) && words.contains("is not a usable model"),
        "{:?}, {words}",
        said.status
    );
    ensure!(!home.path().join("models/half.gguf").exists(), "half a model was taken in");
    Ok(())
}

#[tokio::test]
async fn a_cluster_gives_the_same_words_twice() -> anyhow::Result<()> {
    model_file()?;
    // Two slots a worker: four tasks at once need both workers.
    let spec = Spec { models: vec![SMOLLM2.into()], slots: 2, ..Spec::default() };
    on_cluster(spec, async |cluster| {
        let client = cluster.client()?;
        client.agents().apply(READER).send().await?;
        let sampled = "name = \"poet\"\nmodel = \"smollm2\"\nmax_tokens = 24\ntemperature = 0.8\nseed = 11\n";
        client.agents().apply(sampled).send().await?;
        for agent in ["reader", "poet"] {
            same_words(cluster, &client, agent).await?;
        }
        a_prompt_above_the_window_is_refused(&client).await?;
        idle_with_the_model(cluster).await
    })
    .await
}

/// On both workers, alone and beside others, cold and from the cache: one text.
async fn same_words(cluster: &Cluster, client: &Client, agent: &str) -> anyhow::Result<()> {
    let mut tasks = Vec::new();
    for _ in 0..4 {
        tasks.push(client.tasks().create(agent).input(TEXT).send().await?.uid);
    }
    let (mut texts, mut nodes) = (Vec::new(), Vec::new());
    for task in &tasks {
        let done = timeout(PATIENCE * 2, client.tasks().wait(task)).await.context("an answer")??;
        ensure!(done.state == TaskState::Succeeded, "{done:?}");
        texts.push(client.tasks().result(&done).await?);
        let mut watch = client.tasks().watch(task).without_tokens();
        nodes.extend(watch_to_end(&mut watch).await?.iter().filter_map(runs_on).map(String::from));
    }
    ensure!(texts.iter().all(|text| *text == texts[0] && !text.trim().is_empty()), "{agent} says {texts:#?}");
    nodes.sort();
    nodes.dedup();
    let workers = cluster.nodes.len() - cluster.coordinators;
    ensure!(nodes.len() == workers, "only {nodes:?} ran something");
    Ok(())
}

async fn a_prompt_above_the_window_is_refused(client: &Client) -> anyhow::Result<()> {
    let task = client.tasks().create("reader").input("word ".repeat(20_000)).send().await?;
    let done = ended(client, &task.uid).await?;
    let error = done.error.clone().unwrap_or_default();
    ensure!(done.state == TaskState::Failed && done.state_reason.contains("CONTEXT_TOO_LONG"), "{done:?}");
    ensure!(error.contains("window is 8192") && error.contains("larger window"), "{error}");
    Ok(())
}

async fn idle_with_the_model(cluster: &Cluster) -> anyhow::Result<()> {
    let nodes = cluster.client()?.cluster().nodes().await?;
    let engines: Vec<_> = nodes.iter().flat_map(|node| &node.engines).collect();
    ensure!(engines.len() == 2, "{engines:?}");
    // The KV pool is not taken off, although it might be: what of it was used is small here.
    let mapped = cluster.nodes.iter().map(|node| node.resident_of(".gguf")).sum::<anyhow::Result<u64>>()?;
    let repacked: u64 = engines.iter().map(|engine| engine.weight_bytes).sum();
    ensure!(mapped + repacked > 0, "no model is loaded: {engines:?}");
    let cost = Cost::quietest(cluster).await?;
    figure("idle_with_model_cpu_milli", cost.cpu_milli);
    figure("idle_with_model_resident_mib", cost.resident_bytes >> 20);
    figure("idle_with_model_mapped_mib", mapped >> 20);
    figure("idle_with_model_repacked_mib", repacked >> 20);
    cost.check(mapped + repacked)
}
