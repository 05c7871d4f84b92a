//! From one CA to the next under load, by the runbook's own steps: nodes take new files at a SIGHUP, one after the other,
//! and no call fails.

use crate::load::{Load, loaded};
use crate::rolling::restart_all;
use crate::support::*;
use crate::tools::Noted;
use anyhow::ensure;
use quorate_sdk::Credentials;
use quorate_tests::{Cluster, Spec, until};

/// Tasks from end to end between two steps.
const BETWEEN: usize = 2;
const READ_AGAIN: &str = "certificates read again";

#[tokio::test]
async fn a_ca_is_followed_by_another_under_load() -> anyhow::Result<()> {
    let noted = Noted::new()?;
    on_cluster(Spec { secured: true, ..loaded(&noted) }, async |cluster| {
        let load = Load::new(cluster.client()?, &noted).await?;
        load.around(from_a_to_b(cluster, &load)).await?;
        figure("ca_rotation_longest_gap_ms", load.longest_gap().as_millis());
        Ok(())
    })
    .await
}

async fn from_a_to_b(cluster: &mut Cluster, load: &Load<'_>) -> anyhow::Result<()> {
    let old_ca = cluster.folder().join("old-ca.crt");
    std::fs::copy(cluster.folder().join("pki/ca.crt"), &old_ca)?;
    load.more(BETWEEN).await?;
    for step in ["trust", "issue", "finish"] {
        let pki = cluster.folder().join("pki").display().to_string();
        let said = cli("127.0.0.1:1", &["cert", "rotate", step, "--dir", &pki]).await?;
        ensure!(said.status.success(), "{step}: {}", String::from_utf8_lossy(&said.stderr));
        read_again(cluster).await?;
        // Programs get the file, too: before anything is issued by the new CA, and when only that one counts.
        load.connect_anew(cluster.client()?);
        load.more(BETWEEN).await?;
    }
    // Connections from before are still open: they end with the process that has them.
    restart_all(cluster).await?;
    load.more(BETWEEN).await?;
    let left_behind = Credentials::default().with_ca_file(&old_ca)?.with_api_key(admin_key(cluster)?);
    let endpoints: Vec<String> = cluster.nodes.iter().map(|node| node.address()).collect();
    let stranger = quorate_sdk::Client::connect_with(&endpoints, &left_behind)?;
    let stranger = stranger.with_timeout(std::time::Duration::from_secs(2));
    ensure!(stranger.cluster().status().await.is_err(), "the old CA still knows the cluster");
    Ok(())
}

fn admin_key(cluster: &Cluster) -> anyhow::Result<&str> {
    cluster.secured.as_ref().map(|secured| secured.admin_key()).ok_or_else(|| anyhow::anyhow!("secured"))
}

/// One node after the other, so that nodes before and after the step meet.
async fn read_again(cluster: &Cluster) -> anyhow::Result<()> {
    for node in &cluster.nodes {
        let times = |log: String| log.matches(READ_AGAIN).count();
        let before = times(node.log());
        node.reload()?;
        let read = async || (times(node.log()) > before).then_some(());
        until("the files are read again", PATIENCE, read).await?;
        ensure!(!node.log().contains("the certificates stay as they were"), "{}: {}", node.name, node.log());
    }
    Ok(())
}
