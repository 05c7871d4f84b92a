//! A backup taken while tasks are created, restored on machines that have nothing, after every old one is gone.

use crate::leader_kill::states_are_equal;
use crate::support::*;
use anyhow::{Context, ensure};
use quorate_sdk::Client;
use quorate_tests::cluster::binary;
use quorate_tests::{Cluster, Process, Spec, until};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Acknowledged tasks at which the backup begins, and how many more come while and after it is taken.
const BEFORE: usize = 40;
const AFTER: usize = 20;
const ANSWER: usize = 40;

#[tokio::test]
async fn a_backup_under_load_lives_again_elsewhere() -> anyhow::Result<()> {
    let replies = [
        reply("quick", "Understood.", ""),
        reply("writer", &words(ANSWER), "delay_ms = 100\ntokens_per_second = 8"),
    ];
    on_cluster(spec(&replies), async |old| {
        let client = old.client()?;
        apply(&client, &["quick", "writer"]).await?;
        client.quotas().set("projects/default").limit("running", Some(6)).send().await?;
        let (told, file) = back_up_while_creating(old, &client).await?;
        let says = verified(&file).await?;
        ensure!(says["missing"] == 0 && says["tasks"].as_u64() >= Some(BEFORE as u64), "{says}");
        what_is_bad_is_refused(old, &file).await?;
        let old_id = client.cluster().status().await?.cluster_id;
        for node in &mut old.nodes {
            node.kill()?;
        }
        let new = live_again(&spec(&replies), &file, &says, &told, &old_id).await?;
        old_workers_are_strangers(old, &new).await.with_context(|| new.logs())
    })
    .await
}

/// Ids and uids that were acknowledged before the backup was asked for, and the file.
async fn back_up_while_creating(
    cluster: &Cluster,
    client: &Client,
) -> anyhow::Result<(Vec<(String, String)>, PathBuf)> {
    let (told, done) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let file = cluster.folder().join("backup");
    let creating = async {
        let mut after = 0;
        for number in 0.. {
            if done.load(Ordering::Relaxed) {
                after += 1;
                if after > AFTER {
                    return anyhow::Ok(());
                }
            }
            let agent = if number % 8 == 0 { "writer" } else { "quick" };
            let id = format!("task-{number}");
            let task =
                client.tasks().create(agent).input(format!("hello {number}")).task_id(&id).send().await?;
            told.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.push((id, task.uid));
        }
        Ok(())
    };
    let backing = async {
        let enough = async || (told.lock().ok()?.len() >= BEFORE).then_some(());
        until("the first acknowledgements", PATIENCE, enough).await?;
        let acknowledged = told.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.clone();
        let path = file.to_str().context("a path of text")?;
        let made = cli(&cluster.nodes[0].address(), &["cluster", "snapshot", path, "-o", "json"]).await?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        done.store(true, Ordering::Relaxed);
        Ok(acknowledged)
    };
    let ((), acknowledged) = tokio::try_join!(creating, backing)?;
    Ok((acknowledged, file))
}

async fn verified(file: &Path) -> anyhow::Result<Value> {
    let says = cli("127.0.0.1:1", &["cluster", "verify", &file.display().to_string(), "-o", "json"]).await?;
    ensure!(says.status.success(), "{}", String::from_utf8_lossy(&says.stderr));
    Ok(serde_json::from_slice(&says.stdout)?)
}

async fn what_is_bad_is_refused(old: &Cluster, file: &Path) -> anyhow::Result<()> {
    let mut bytes = std::fs::read(file)?;
    let bad = old.folder().join("bad");
    std::fs::write(&bad, &bytes[..bytes.len() * 2 / 3])?;
    refused(&["cluster", "verify", &bad.display().to_string()], "cut off").await?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&bad, &bytes)?;
    refused(&["cluster", "verify", &bad.display().to_string()], "damaged").await?;
    // A node that runs, and one that has data.
    let (file, config) = (file.display().to_string(), old.nodes[0].config().display().to_string());
    refused(&["cluster", "restore", &file, "--config", &config], "in use by another process").await?;
    let again = cli(&old.nodes[0].address(), &["cluster", "snapshot", &file]).await?;
    ensure!(again.status.code() == Some(2), "an old backup was written over: {again:?}");
    Ok(())
}

async fn refused(line: &[&str], why: &str) -> anyhow::Result<()> {
    let said = cli("127.0.0.1:1", line).await?;
    let text = String::from_utf8_lossy(&said.stderr).to_string();
    ensure!(said.status.code() == Some(1) && text.contains(why), "{line:?}: {text}");
    Ok(())
}

/// Three machines that have nothing but the file, and workers that join them.
async fn live_again(
    spec: &Spec,
    file: &Path,
    says: &Value,
    told: &[(String, String)],
    old_id: &str,
) -> anyhow::Result<Cluster> {
    let mut new = Cluster::prepare(&binary()?, spec.clone())?;
    let members: Vec<String> = new.nodes[..3]
        .iter()
        .map(|node| format!("{}=127.0.0.1:{}", node.name, node.ports.internal))
        .collect();
    let mut began = Vec::new();
    for node in &new.nodes[..3] {
        let restored = restored(file, node, &members).await?;
        ensure!(restored["restored_state_hash"] == says["state_hash"], "{restored} from {says}");
        began.push([restored["new_cluster_id"].clone(), restored["begins_with"].clone()]);
    }
    ensure!(began.windows(2).all(|pair| pair[0] == pair[1]), "the founders differ: {began:?}");
    // Restored once is enough.
    let config = new.nodes[0].config().display().to_string();
    refused(&["cluster", "restore", &file.display().to_string(), "--config", &config], "not empty").await?;
    for node in &mut new.nodes {
        node.start()?;
    }
    new.wait_ready(5).await.with_context(|| new.logs())?;
    lives(&mut new, told, old_id).await.with_context(|| new.logs())?;
    Ok(new)
}

async fn restored(file: &Path, node: &Process, members: &[String]) -> anyhow::Result<Value> {
    let (file, config) = (file.display().to_string(), node.config().display().to_string());
    let mut line = vec!["cluster", "restore", &file, "--config", &config, "-o", "json"];
    members.iter().for_each(|member| line.extend(["--member", member]));
    let done = cli("127.0.0.1:1", &line).await?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(serde_json::from_slice(&done.stdout)?)
}

async fn lives(new: &mut Cluster, told: &[(String, String)], old_id: &str) -> anyhow::Result<()> {
    let client = new.client()?;
    ensure!(client.cluster().status().await?.cluster_id != old_id, "the cluster's id is the old one");
    states_are_equal(new).await?;
    let quota = client.quotas().get("projects/default").await?;
    ensure!(quota.limits["running"].limit == Some(6), "{quota:?}");
    for (id, uid) in told {
        let task = succeeded(&client, id).await?;
        ensure!(task.uid == *uid, "{id} was {uid}, it is {}", task.uid);
        ensure!(!client.tasks().result(&task).await?.is_empty(), "{id} has no result");
    }
    // The same disks again: a restored cluster survives what any other does.
    let leader = new.leader().await?;
    new.node_mut(&leader)?.kill()?;
    let client = new.client()?;
    client.tasks().create("quick").input("x").task_id("afterwards").send().await?;
    succeeded(&client, "afterwards").await?;
    new.node_mut(&leader)?.start()?;
    new.wait_ready(5).await?;
    states_are_equal(new).await
}

/// A node of the old cluster that is told where the new one is stays a stranger there, whatever its name.
async fn old_workers_are_strangers(old: &mut Cluster, new: &Cluster) -> anyhow::Result<()> {
    let members = new.client()?.cluster().nodes().await?.len();
    let seeds: Vec<String> =
        new.nodes[..3].iter().map(|node| format!("\"127.0.0.1:{}\"", node.ports.internal)).collect();
    let stray = old.node_mut("worker-1")?;
    let config = std::fs::read_to_string(stray.config())?;
    let moved = config.lines().map(|line| match line.starts_with("join = ") {
        true => format!("join = [{}]", seeds.join(", ")),
        false => line.to_string(),
    });
    std::fs::write(stray.config(), moved.collect::<Vec<_>>().join("\n"))?;
    stray.start()?;
    let refused = async || stray.log().contains("another cluster").then_some(());
    until("the old worker is refused", PATIENCE, refused).await?;
    ensure!(new.client()?.cluster().nodes().await?.len() == members, "a stranger became a member");
    Ok(())
}
