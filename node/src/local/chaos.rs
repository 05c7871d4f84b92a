//! `dev chaos`: hurts a node of a local cluster, so that people see it heal. It acts on processes that `cluster up` started
//! in a folder, and on nothing else.

use super::up::folder::Folder;
use super::up::plan::{Layout, NodePlan};
use super::up::{DOWN, default_folder, talk};
use anyhow::{Context, bail};
use rustix::process::Signal;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    KillWorker,
    KillLeader,
    /// The process stands still, its connections stay open.
    Pause(Duration),
    /// The node hears nobody of the others, and none of them hears it.
    Partition(Duration),
}

pub struct ChaosOptions {
    pub harm: Harm,
    /// To which node; none: the one that most depends on.
    pub node: Option<String>,
    pub folder: Option<PathBuf>,
}

pub fn chaos(options: ChaosOptions) -> anyhow::Result<()> {
    let path = options.folder.map_or_else(default_folder, Ok)?;
    let (folder, layout) = Folder::of_running(&path)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(harm(options.harm, options.node.as_deref(), &folder, &layout))
}

async fn harm(harm: Harm, node: Option<&str>, folder: &Folder, layout: &Layout) -> anyhow::Result<()> {
    let target = match node {
        Some(name) => named(name, harm, layout)?,
        None => chosen(harm, layout).await?,
    };
    let endpoint = layout.endpoint();
    match harm {
        Harm::KillWorker | Harm::KillLeader => {
            let pid = folder.signal(&target, Signal::KILL)?;
            eprintln!("{target} (process {pid}) is killed, and is started again in {DOWN:?}");
            eprintln!("watch: QUORATE_ENDPOINT={endpoint} quorate node list");
        }
        Harm::Pause(time) => {
            let pid = folder.signal(&target, Signal::STOP)?;
            eprintln!("{target} (process {pid}) stands still for {time:?}; Ctrl-C lets it go on");
            passed(time).await?;
            folder.signal(&target, Signal::CONT)?;
            eprintln!("{target} goes on: what it commits for tasks that moved meanwhile is refused");
        }
        Harm::Partition(time) => {
            folder.cut(&target)?;
            eprintln!("{target} is cut off from all other nodes for {time:?}; Ctrl-C joins it again");
            let passed = passed(time).await;
            folder.heal();
            passed?;
            eprintln!("{target} is joined again");
        }
    }
    Ok(())
}

fn named(name: &str, harm: Harm, layout: &Layout) -> anyhow::Result<String> {
    let all: Vec<&str> = layout.nodes.iter().map(|node| node.name.as_str()).collect();
    let node = layout.nodes.iter().find(|node| node.name == name);
    let node = node.with_context(|| {
        format!("there is no node {name:?} in this cluster; there are {}", all.join(", "))
    })?;
    if harm == Harm::KillWorker && node.coordinator {
        bail!("{name} is no worker; `quorate dev chaos kill-leader` kills the coordinator that leads");
    }
    Ok(node.name.clone())
}

async fn chosen(harm: Harm, layout: &Layout) -> anyhow::Result<String> {
    match harm {
        Harm::KillLeader => talk::leader(&layout.nodes)
            .await
            .context("no leader is known; `quorate cluster status` says when there is one"),
        _ => {
            let busiest = talk::busiest_worker(&layout.nodes).await;
            let first = || layout.workers().next().map(|node: &NodePlan| node.name.clone());
            busiest.or_else(first).context("this cluster has no worker; name a node")
        }
    }
}

/// Until the time is over, or somebody has seen enough.
async fn passed(time: Duration) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_of_the_cluster_are_hurt_and_workers_only_as_workers() {
        let layout = Layout::plan(3, 1, 7400, |_| true).unwrap();
        assert_eq!(named("worker-1", Harm::KillWorker, &layout).unwrap(), "worker-1");
        let foreign = named("postgres", Harm::Pause(Duration::ZERO), &layout).unwrap_err().to_string();
        assert!(foreign.contains("coordinator-1"), "{foreign}");
        let wrong = named("coordinator-1", Harm::KillWorker, &layout).unwrap_err().to_string();
        assert!(wrong.contains("kill-leader"), "{wrong}");
    }
}
