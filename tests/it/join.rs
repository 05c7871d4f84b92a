//! Who may belong to a cluster: nodes join by their configuration, come back with their disk, and nobody else does.

use crate::leader_kill::states_are_equal;
use crate::submit::refused;
use crate::support::*;
use anyhow::{Context, ensure};
use quorate_sdk::Code;
use quorate_tests::cluster::binary;
use quorate_tests::process::Ports;
use quorate_tests::{Cluster, Process, Spec, ports, until};

#[tokio::test]
async fn members_join_return_and_strangers_do_not() -> anyhow::Result<()> {
    on_cluster(spec(&[reply("quick", "Understood.", "")]), async |cluster| {
        let client = cluster.client()?;
        apply(&client, &["quick"]).await?;
        founded_once(cluster).await?;
        a_restarted_coordinator_votes_again(cluster).await?;
        forgotten_consensus_is_refused(cluster).await?;
        an_empty_disk_under_a_known_name_is_refused(cluster, "coordinator-3").await?;
        an_empty_disk_under_a_known_name_is_refused(cluster, "worker-2").await?;
        a_worker_without_join_says_so(cluster).await?;
        // Two of three voters are left: the cluster serves.
        client.tasks().create("quick").input("x").task_id("after").send().await?;
        succeeded(&client, "after").await?;
        Ok(())
    })
    .await
}

async fn founded_once(cluster: &Cluster) -> anyhow::Result<()> {
    let before = cluster.client()?.cluster().status().await?;
    ensure!(before.voters.len() == 3 && before.copies == 2 && before.warnings.is_empty(), "{before:?}");
    for name in names(cluster) {
        let again = cluster.client_of(&name)?.cluster().init().await;
        refused(again, Code::FailedPrecondition, "ALREADY_INITIALISED")?;
        let said = cli(&cluster.node(&name)?.endpoint(), &["cluster", "init"]).await?;
        ensure!(said.status.code() == Some(6), "{name}: {said:?}");
    }
    let after = cluster.client()?.cluster().status().await?;
    ensure!(after.cluster_id == before.cluster_id && after.voters == before.voters, "{after:?}");
    Ok(())
}

async fn a_restarted_coordinator_votes_again(cluster: &mut Cluster) -> anyhow::Result<()> {
    for name in ["coordinator-1", "coordinator-2", "coordinator-3"] {
        cluster.node_mut(name)?.kill()?;
        let id = format!("without-{name}");
        let client = cluster.client()?;
        client.tasks().create("quick").input("x").task_id(&id).send().await?;
        cluster.node_mut(name)?.start()?;
        cluster.wait_ready(cluster.nodes.len()).await?;
        succeeded(&cluster.client_of(name)?, &id).await?;
    }
    states_are_equal(cluster).await
}

/// A voter that forgot what it voted for could elect a second leader.
async fn forgotten_consensus_is_refused(cluster: &mut Cluster) -> anyhow::Result<()> {
    let (name, raft) = ("coordinator-2", cluster.folder().join("coordinator-2/raft"));
    let aside = cluster.folder().join("aside");
    cluster.node_mut(name)?.kill()?;
    std::fs::rename(&raft, &aside).context("moving the raft files away")?;
    let said = ends_by_itself(cluster, name).await?;
    ensure!(said.contains("never returns") || said.contains("lost"), "{said}");
    ensure!(!raft.exists() || std::fs::read_dir(&raft)?.next().is_none(), "it began a new log");
    // With its files it is welcome.
    let _empty = std::fs::remove_dir(&raft);
    std::fs::rename(&aside, &raft)?;
    cluster.node_mut(name)?.start()?;
    cluster.wait_ready(cluster.nodes.len()).await
}

async fn an_empty_disk_under_a_known_name_is_refused(
    cluster: &mut Cluster,
    name: &str,
) -> anyhow::Result<()> {
    let members = cluster.client()?.cluster().nodes().await?.len();
    cluster.node_mut(name)?.kill()?;
    std::fs::remove_dir_all(cluster.folder().join(name))?;
    let said = ends_by_itself(cluster, name).await?;
    ensure!(said.contains("the cluster refuses this node") && said.contains("another `name`"), "{said}");
    ensure!(cluster.client()?.cluster().nodes().await?.len() == members, "the stranger became a member");
    Ok(())
}

/// Starts a node that must refuse to run; answers what it said then.
async fn ends_by_itself(cluster: &mut Cluster, name: &str) -> anyhow::Result<String> {
    let node = cluster.node_mut(name)?;
    let said_before = node.log().len();
    node.start()?;
    refuses(node, said_before).await
}

async fn refuses(node: &mut Process, said_before: usize) -> anyhow::Result<String> {
    let node = std::cell::RefCell::new(node);
    let ended = async || (!node.borrow_mut().runs()).then_some(());
    until("the node refuses to run", PATIENCE, ended).await?;
    let node = node.into_inner();
    let status = node.ended().context("it has ended")?;
    ensure!(status.code() == Some(1), "{} ended with {status}", node.name);
    Ok(node.log().split_off(said_before))
}

async fn a_worker_without_join_says_so(cluster: &Cluster) -> anyhow::Result<()> {
    let mut lonely = configured(cluster, "lonely", "worker", "[]")?;
    lonely.start()?;
    let said = refuses(&mut lonely, 0).await?;
    ensure!(said.contains("join") && said.contains("belongs to no cluster"), "{said}");
    Ok(())
}

/// A node beside those that the cluster was started with.
pub(crate) fn configured(cluster: &Cluster, name: &str, role: &str, join: &str) -> anyhow::Result<Process> {
    let at = Ports { clients: ports::free(), internal: ports::free(), http: ports::free() };
    let (folder, config) = (cluster.folder().join(name), cluster.folder().join(format!("{name}.toml")));
    let text = format!(
        "name = {name:?}\nroles = [{role:?}]\ndata_dir = {folder:?}\njoin = {join}\n[listen]\nclients = \"127.0.0.1:{}\"\n\
         internal = \"127.0.0.1:{}\"\nhttp = \"127.0.0.1:{}\"\n[engine]\nmodels = []\n",
        at.clients, at.internal, at.http
    );
    std::fs::write(&config, text)?;
    Ok(Process::new(name, at, &binary()?, config, cluster.folder().join(format!("{name}.log"))))
}

/// One coordinator becomes three, by nothing but configuration files; then each of them may go.
#[tokio::test]
async fn one_voter_becomes_three() -> anyhow::Result<()> {
    let alone = Spec { coordinators: 1, ..spec(&[reply("quick", "Understood.", "")]) };
    on_cluster(alone, async |cluster| {
        let client = cluster.client()?;
        apply(&client, &["quick"]).await?;
        ensure!(client.cluster().status().await?.voters == ["coordinator-1"], "not alone");
        client.tasks().create("quick").input("x").task_id("before").send().await?;
        let join = format!("[\"127.0.0.1:{}\"]", cluster.node("coordinator-1")?.ports.internal);
        for name in ["coordinator-2", "coordinator-3"] {
            let mut node = configured(cluster, name, "coordinator", &join)?;
            node.start()?;
            // Coordinators come first in the list.
            cluster.nodes.insert(cluster.coordinators, node);
            cluster.coordinators += 1;
        }
        cluster.wait_ready(cluster.nodes.len()).await?;
        states_are_equal(cluster).await?;
        cluster.node_mut("coordinator-1")?.kill()?;
        let client = cluster.client()?;
        succeeded(&client, "before").await?;
        client
            .tasks()
            .create("quick")
            .input("x")
            .task_id("without the first".replace(' ', "-"))
            .send()
            .await?;
        succeeded(&client, "without-the-first").await?;
        Ok(())
    })
    .await
}

/// Coordinators are lost one after the other and taken off the list at once: each command says what became of it, the
/// rest vote, and who has no vote because the number is even still learns.
#[tokio::test]
async fn lost_coordinators_are_removed_and_the_rest_go_on() -> anyhow::Result<()> {
    let spec = Spec { coordinators: 5, workers: 1, ..spec(&[reply("quick", "Understood.", "")]) };
    on_cluster(spec, async |cluster| {
        apply(&cluster.client()?, &["quick"]).await?;
        voters(cluster, 5).await?;
        for (left, votes) in [(4, 3), (3, 3), (2, 1)] {
            let leader = cluster.leader().await?;
            let alive = cluster.nodes[..5].iter().filter(|node| node.pid().is_some() && node.name != leader);
            let lost = alive.map(|node| node.name.clone()).next_back().context("one that does not lead")?;
            cluster.node_mut(&lost)?.kill()?;
            let client = cluster.client_of(&leader)?;
            let status = client.cluster().remove_voter(&lost, "burnt").await?;
            ensure!(!status.voters.contains(&lost) && !status.learners.contains(&lost), "{status:?}");
            let gone = client.cluster().remove_voter(&lost, "burnt").await;
            ensure!(gone.is_err(), "removed twice: {gone:?}");
            let status = voters(cluster, votes).await?;
            ensure!(status.voters.len() + status.learners.len() == left, "{left} are left: {status:?}");
            let id = format!("with-{left}");
            client.tasks().create("quick").input("x").task_id(&id).send().await?;
            succeeded(&client, &id).await?;
        }
        Ok(())
    })
    .await
}

async fn voters(cluster: &Cluster, count: usize) -> anyhow::Result<quorate_sdk::data::ClusterStatus> {
    let client = cluster.client()?;
    until("the right number of voters", PATIENCE, || async {
        client.cluster().status().await.ok().filter(|status| status.voters.len() == count)
    })
    .await
}
