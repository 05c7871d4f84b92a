//! `cluster up --local 3` and `dev chaos`: a real cluster in one folder, hurt by the verbs that people use, and healed.

use crate::support::*;
use anyhow::{Context, ensure};
use quorate_sdk::{Client, TaskState};
use quorate_tests::cluster::binary;
use quorate_tests::until;
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

const UP: Duration = Duration::from_secs(120);
/// An election, and what a busy machine adds.
const ELECTED: Duration = Duration::from_secs(20);

/// The process of `cluster up`, and what it told on stdout.
struct Up {
    child: Child,
    endpoint: String,
}

impl Up {
    async fn start(folder: &Path, more: &[&str]) -> anyhow::Result<Up> {
        let mut command = Command::new(binary()?);
        command
            .args(["cluster", "up", "--local", "3", "--model", "none", "--port", "31000", "--folder"])
            .arg(folder);
        command.args(more).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("stdout")?).lines();
        let line = tokio::time::timeout(UP, lines.next_line()).await.context("it did not come up")??;
        let line = line.context("it ended before it was up")?;
        let endpoint = line.strip_prefix("export QUORATE_ENDPOINT=").context(line.clone())?.to_string();
        Ok(Up { child, endpoint })
    }

    fn client(&self) -> anyhow::Result<Client> {
        let endpoints: Vec<&str> = self.endpoint.split(',').collect();
        Ok(Client::connect(&endpoints)?)
    }

    /// Nothing is left to stop the nodes, one of which stands still: they end all the same.
    async fn killed(mut self, folder: &Path) -> anyhow::Result<()> {
        let pids = pids(folder);
        ensure!(pids.len() == 4, "{pids:?} run");
        let still = Pid::from_raw(pids[0] as i32).context("a pid")?;
        kill_process(still, Signal::STOP)?;
        self.child.kill().await?;
        let begun = Instant::now();
        let gone = async || (!pids.iter().any(|pid| lives(*pid))).then_some(());
        until("the nodes end with what started them", PATIENCE, gone).await?;
        figure("local_cluster_killed_ms", begun.elapsed().as_millis());
        Ok(())
    }

    /// Ctrl-C, then the end of every process.
    async fn stop(mut self, folder: &Path) -> anyhow::Result<()> {
        let pids = pids(folder);
        ensure!(pids.len() == 4, "{pids:?} run");
        let own = Pid::from_raw(self.child.id().context("it runs")? as i32).context("a pid")?;
        kill_process(own, Signal::INT)?;
        let status = tokio::time::timeout(UP, self.child.wait()).await.context("it did not stop")??;
        ensure!(status.success(), "it ended {status}");
        let left: Vec<u32> =
            pids.into_iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect();
        ensure!(left.is_empty(), "{left:?} run on");
        Ok(())
    }
}

/// Whoever has ended may stay in the list until somebody asks how.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next()).is_some_and(|state| state != 'Z')
}

/// Process ids that the folder names.
fn pids(folder: &Path) -> Vec<u32> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let pids = files.filter(|path| path.extension().is_some_and(|end| end == "pid"));
    pids.filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok()).collect()
}

async fn leader(client: &Client) -> anyhow::Result<String> {
    until("a leader", ELECTED, async || client.cluster().status().await.ok()?.leader).await
}

async fn chaos(folder: &Path, words: &[&str]) -> anyhow::Result<std::process::Output> {
    let folder = folder.display().to_string();
    let line = [&["dev", "chaos"], words, &["--folder", &folder]].concat();
    let output = cli("127.0.0.1:1", &line).await?;
    eprintln!("chaos {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output)
}

async fn hurt(folder: &Path, words: &[&str]) -> anyhow::Result<()> {
    let output = chaos(folder, words).await?;
    ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[tokio::test]
async fn it_comes_up_is_hurt_heals_stops_and_comes_again() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let folder = home.path().join("local");
    let replies = home.path().join("replies.toml");
    let slow = reply("slow", &words(200), "tokens_per_second = 20");
    std::fs::write(&replies, format!("window = 4096\n{}{slow}", reply("quick", "Understood.", "")))?;
    let more = ["--replies", replies.to_str().context("a path")?];
    let begun = Instant::now();
    let up = Up::start(&folder, &more).await?;
    figure("local_cluster_up_ms", begun.elapsed().as_millis());
    let client = up.client()?;
    apply(&client, &["quick", "slow"]).await?;
    client.tasks().create("quick").input("x").task_id("before").send().await?;
    succeeded(&client, "before").await?;

    second_ones_are_refused(&folder).await?;
    kills_heal(&folder, &client).await?;
    a_cut_leader_is_replaced(&folder, &client).await?;
    a_paused_worker_loses_its_lease(&folder, &client).await?;
    up.stop(&folder).await?;

    let again = Up::start(&folder, &more).await?;
    let client = again.client()?;
    ensure!(client.tasks().get("before").await?.state == TaskState::Succeeded, "the second run forgot");
    client.tasks().create("quick").input("x").task_id("after").send().await?;
    succeeded(&client, "after").await?;
    again.killed(&folder).await?;

    // What a kill leaves behind is no obstacle.
    Up::start(&folder, &more).await?.stop(&folder).await
}

/// One cluster a folder, and one number of nodes; chaos is for folders of running clusters.
async fn second_ones_are_refused(folder: &Path) -> anyhow::Result<()> {
    let path = folder.display().to_string();
    let twice = cli("127.0.0.1:1", &["cluster", "up", "--local", "3", "--folder", &path]).await?;
    let said = String::from_utf8_lossy(&twice.stderr);
    ensure!(
        twice.status.code() == Some(1) && said.contains("runs in") && said.contains("--folder"),
        "{said}"
    );
    let foreign = chaos(folder, &["pause", "postgres"]).await?;
    ensure!(foreign.status.code() == Some(1), "it paused somebody else");
    let elsewhere = tempfile::tempdir()?;
    let nothing = chaos(elsewhere.path(), &["kill-worker"]).await?;
    let said = String::from_utf8_lossy(&nothing.stderr);
    ensure!(nothing.status.code() == Some(1) && said.contains("cluster up --local 3"), "{said}");
    Ok(())
}

/// A worker in the middle of a task, then the leader.
async fn kills_heal(folder: &Path, client: &Client) -> anyhow::Result<()> {
    let task = client.tasks().create("slow").input("x").send().await?.uid;
    let mut watch = client.tasks().watch(&task);
    watch_until(&mut watch, "text", |event| is_text_of(event, 1)).await?;
    hurt(folder, &["kill-worker"]).await?;
    let begun = Instant::now();
    succeeded(client, &task).await?;
    figure("local_cluster_worker_healed_ms", begun.elapsed().as_millis());

    let before = leader(client).await?;
    hurt(folder, &["kill-leader"]).await?;
    let begun = Instant::now();
    let other = async || client.cluster().status().await.ok()?.leader.filter(|now| *now != before);
    until("another leader", ELECTED, other).await?;
    figure("local_cluster_leader_ms", begun.elapsed().as_millis());
    all_ready(client).await
}

async fn all_ready(client: &Client) -> anyhow::Result<()> {
    let ready = async || {
        let nodes = client.cluster().nodes().await.ok()?;
        (nodes.iter().filter(|node| node.state == "ready").count() == 4).then_some(())
    };
    until("four ready nodes", UP, ready).await
}

/// The others elect one of themselves while it can't be heard, and it follows when it is joined again.
async fn a_cut_leader_is_replaced(folder: &Path, client: &Client) -> anyhow::Result<()> {
    let before = leader(client).await?;
    let words = ["partition", &before, "--seconds", "12"];
    let cut = hurt(folder, &words);
    let other = async || {
        let change = async || client.cluster().status().await.ok()?.leader.filter(|now| *now != before);
        until("another leader", ELECTED, change).await?;
        // They work while one is cut off.
        client.tasks().create("quick").input("x").task_id("cut").send().await?;
        succeeded(client, "cut").await?;
        anyhow::Ok(())
    };
    let (cut, other) = tokio::join!(cut, other());
    cut?;
    other?;
    all_ready(client).await
}

/// It stands still for longer than its lease: the leader has it as lost, and then again as ready.
async fn a_paused_worker_loses_its_lease(folder: &Path, client: &Client) -> anyhow::Result<()> {
    let paused = hurt(folder, &["pause", "worker-1", "--seconds", "8"]);
    let lost = until("the worker is lost", PATIENCE, async || {
        let node = client.cluster().node("worker-1").await.ok()?;
        (node.state == "lost").then_some(())
    });
    let (paused, lost) = tokio::join!(paused, lost);
    paused?;
    lost?;
    all_ready(client).await
}
