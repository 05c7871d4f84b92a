//! Every node restarted, one after the other, under load: of the same build in `make test`; from an older build to this
//! one, back, and again, with the feature level raised last, where `QUORATE_OLD_BINARY` names one
//! (`deploy/test-upgrade.sh`).

use crate::load::{Load, loaded};
use crate::support::*;
use crate::tools::Noted;
use anyhow::{Context, ensure};
use quorate_tests::cluster::binary;
use quorate_tests::{Cluster, until};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// Tasks from end to end between two restarts.
const BETWEEN: usize = 2;
/// Of a build with optimisations, on a machine that does nothing else.
const GAP: Duration = Duration::from_millis(500);
/// Of any.
const GAP_AT_ALL: Duration = Duration::from_secs(3);

/// Stops and starts each node, workers first, the leader among the coordinators last.
pub(crate) async fn restart_all(cluster: &mut Cluster) -> anyhow::Result<()> {
    for name in in_order(cluster).await? {
        restart(cluster, &name, None).await?;
    }
    Ok(())
}

async fn in_order(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let leader = cluster.leader().await?;
    let mut names = names(cluster);
    names.sort_by_key(|name| (!name.starts_with("worker"), *name == leader));
    Ok(names)
}

async fn restart(cluster: &mut Cluster, name: &str, binary: Option<&Path>) -> anyhow::Result<()> {
    let node = cluster.node_mut(name)?;
    let status = node.stop()?;
    ensure!(status.success(), "{name} ended with {status}");
    if let Some(binary) = binary {
        node.set_binary(binary);
    }
    node.start()?;
    cluster.wait_ready(cluster.nodes.len()).await.with_context(|| format!("{name} is back"))
}

#[tokio::test]
async fn every_node_is_restarted_under_load() -> anyhow::Result<()> {
    let noted = Noted::new()?;
    on_cluster(loaded(&noted), async |cluster| {
        let load = Load::new(cluster.client()?, &noted).await?;
        load.around(async {
            load.more(BETWEEN).await?;
            for name in in_order(cluster).await? {
                restart(cluster, &name, None).await?;
                load.more(BETWEEN).await?;
            }
            Ok(())
        })
        .await?;
        gap("rolling_restart_longest_gap_ms", load.longest_gap(), GAP_AT_ALL)
    })
    .await
}

fn gap(name: &str, gap: Duration, bound: Duration) -> anyhow::Result<()> {
    figure(name, gap.as_millis());
    ensure!(gap <= bound, "{name}: for {gap:?} nothing was written, and {bound:?} is the bound");
    Ok(())
}

/// An older build takes minutes to make: the test is in no run but that of the script that makes it (`.config/nextest.toml`).
fn older() -> anyhow::Result<PathBuf> {
    let set = std::env::var_os("QUORATE_OLD_BINARY").map(PathBuf::from);
    set.context("QUORATE_OLD_BINARY is not set: deploy/test-upgrade.sh builds an older version and sets it")
}

#[tokio::test]
async fn an_older_build_is_upgraded_and_comes_back_under_load() -> anyhow::Result<()> {
    let old = older()?;
    let (new, noted) = (binary()?, Noted::new()?);
    let mut cluster = Cluster::start(&old, loaded(&noted)).await?;
    let done = there_back_and_there(&mut cluster, &noted, &old, &new).await;
    done.with_context(|| cluster.logs())
}

async fn there_back_and_there(
    cluster: &mut Cluster,
    noted: &Noted,
    old: &Path,
    new: &Path,
) -> anyhow::Result<()> {
    let load = Load::new(cluster.client()?, noted).await?;
    load.around(async {
        load.more(BETWEEN).await?;
        let level = level(cluster).await?;
        for (leg, binary) in [("upgrade", new), ("rollback", old), ("second_upgrade", new)] {
            let begun = Instant::now();
            for name in in_order(cluster).await? {
                restart(cluster, &name, Some(binary)).await.with_context(|| leg.to_string())?;
                load.more(BETWEEN).await?;
                too_early(cluster, &name, binary == new).await?;
            }
            figure(&format!("{leg}_ms"), begun.elapsed().as_millis());
            gap(&format!("{leg}_longest_gap_ms"), load.gap_since(begun), bound())?;
            ensure!(self::level(cluster).await? == level, "{leg} raised the level by itself");
        }
        raise(cluster, level).await?;
        load.more(BETWEEN).await?;
        nobody_goes_back(cluster, old, new).await?;
        load.more(BETWEEN).await
    })
    .await
}

/// Where times count, the machine does nothing else and the builds are optimised.
fn bound() -> Duration {
    if cfg!(debug_assertions) { GAP_AT_ALL } else { GAP }
}

async fn level(cluster: &Cluster) -> anyhow::Result<u32> {
    Ok(cluster.client()?.cluster().status().await?.feature_level)
}

/// As long as one node is old, the level stays.
async fn too_early(cluster: &Cluster, name: &str, knows_the_verb: bool) -> anyhow::Result<()> {
    let all_new = cluster.nodes.iter().all(|node| node.binary() == cluster.nodes[0].binary());
    if !knows_the_verb || all_new {
        return Ok(());
    }
    let said = cli(&cluster.node(name)?.endpoint(), &["cluster", "raise-level"]).await?;
    ensure!(!said.status.success(), "the level was raised while old nodes run: {said:?}");
    Ok(())
}

async fn raise(cluster: &Cluster, before: u32) -> anyhow::Result<()> {
    let at = cluster.node("coordinator-1")?.endpoint();
    let said = cli(&at, &["cluster", "raise-level", "--reason", "all are upgraded"]).await?;
    ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let now = level(cluster).await?;
    ensure!(now > before, "the level is {now}, it was {before}");
    figure("feature_level_before", before);
    figure("feature_level_after", now);
    Ok(())
}

/// The old build says why it does not start; its data folder is as it was, and the new build goes on with it.
async fn nobody_goes_back(cluster: &mut Cluster, old: &Path, new: &Path) -> anyhow::Result<()> {
    let leader = cluster.leader().await?;
    let name = names(cluster).into_iter().find(|name| name.starts_with("coordinator") && *name != leader);
    let name = name.context("a follower")?;
    let node = cluster.node_mut(&name)?;
    node.stop()?;
    let said_before = node.log().len();
    node.set_binary(old);
    node.start()?;
    let ended = {
        let node = std::cell::RefCell::new(&mut *node);
        until("the old build refuses", PATIENCE, async || node.borrow_mut().ended()).await?
    };
    let said = node.log().split_off(said_before);
    ensure!(!ended.success() && said.contains("upgrade quorate on this node"), "it ended {ended}: {said}");
    node.set_binary(new);
    node.start()?;
    cluster.wait_ready(cluster.nodes.len()).await
}
