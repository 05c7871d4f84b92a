//! Members come and go under load: three coordinators become five and three again, and a worker that is lost is taken off
//! the list.

use crate::join::configured;
use crate::load::{Load, loaded, voters};
use crate::support::*;
use crate::tools::Noted;
use anyhow::{Context, ensure};
use proto::v1;
use proto::v1::cluster_service_client::ClusterServiceClient;
use quorate_sdk::Client;
use quorate_tests::{Cluster, Spec, until};
use tokio::time::Instant;

/// Tasks from end to end between two changes.
const BETWEEN: usize = 3;

#[tokio::test]
async fn three_become_five_and_three_under_load() -> anyhow::Result<()> {
    let noted = Noted::new()?;
    on_cluster(loaded(&noted), async |cluster| {
        let load = Load::new(cluster.client()?, &noted).await?;
        load.around(there_and_back(cluster, &load)).await?;
        figure("capacity_longest_gap_ms", load.longest_gap().as_millis());
        Ok(())
    })
    .await
}

async fn there_and_back(cluster: &mut Cluster, load: &Load<'_>) -> anyhow::Result<()> {
    load.more(BETWEEN).await?;
    let begun = Instant::now();
    grow(cluster).await?;
    figure("three_to_five_ms", begun.elapsed().as_millis());
    load.more(BETWEEN).await?;
    let begun = Instant::now();
    let leader = cluster.leader().await?;
    leaves(cluster, &leader).await?;
    load.more(BETWEEN).await?;
    let now = cluster.leader().await?;
    let follower = voters(cluster, 3).await?.into_iter().find(|name| *name != now);
    leaves(cluster, &follower.context("a voter that follows")?).await?;
    figure("five_to_three_ms", begun.elapsed().as_millis());
    let left = voters(cluster, 3).await?;
    ensure!(!left.contains(&leader), "{leader} votes again: {left:?}");
    load.more(BETWEEN).await
}

/// Two more coordinators, by their configuration; the verb says that both vote.
async fn grow(cluster: &mut Cluster) -> anyhow::Result<()> {
    let join = format!("[\"127.0.0.1:{}\"]", cluster.node("coordinator-1")?.ports.internal);
    for name in ["coordinator-4", "coordinator-5"] {
        let mut node = configured(cluster, name, "coordinator", &join)?;
        node.start()?;
        cluster.nodes.insert(cluster.coordinators, node);
        cluster.coordinators += 1;
    }
    cluster.wait_ready(cluster.nodes.len()).await?;
    let at = cluster.node("worker-1")?.endpoint();
    for name in ["coordinator-4", "coordinator-5"] {
        let said = cli(&at, &["cluster", "add-voter", name]).await?;
        ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }
    voters(cluster, 5).await.map(|_| ())
}

/// Taken out by the verb, whether it leads or not, and its process stopped afterwards, as the runbook says.
async fn leaves(cluster: &mut Cluster, name: &str) -> anyhow::Result<()> {
    let at = cluster.node("worker-1")?.endpoint();
    let said = cli(&at, &["cluster", "remove-voter", name, "--reason", "no longer needed"]).await?;
    ensure!(said.status.success(), "{name}: {}", String::from_utf8_lossy(&said.stderr));
    let place = cluster.nodes.iter().position(|node| node.name == name).context("it is there")?;
    let mut node = cluster.nodes.remove(place);
    cluster.coordinators -= 1;
    node.stop()?;
    let audit = cluster.client()?.cluster().audit(0, "nodes").await?.0;
    let noted = |event: &&quorate_sdk::AuditEvent| event.change == format!("{name} -> removed");
    let event = audit.iter().find(noted).with_context(|| format!("{name} is not in {audit:?}"))?;
    ensure!(event.action == "node.remove" && event.reason == "no longer needed", "{event:?}");
    Ok(())
}

#[tokio::test]
async fn a_lost_worker_is_taken_off_the_list() -> anyhow::Result<()> {
    let slow = reply("slow", &words(100), "tokens_per_second = 20");
    on_cluster(Spec { coordinators: 1, ..spec(&[slow]) }, async |cluster| {
        let client = cluster.client()?;
        apply(&client, &["slow"]).await?;
        only_the_lost_are_removed(cluster, &client).await?;
        let victim = "worker-2";
        client.cluster().cordon("worker-1").send().await?;
        let task = client.tasks().create("slow").input("go").send().await?.uid;
        let runs = async || client.tasks().get(&task).await.ok()?.node.filter(|node| node == victim);
        until("the victim has a lease", PATIENCE, runs).await?;
        cluster.node_mut(victim)?.kill()?;
        let early = client.cluster().remove_node(victim, "too early").await;
        ensure!(early.is_err(), "it was removed with its lease: {early:?}");
        let gone = async || client.cluster().remove_node(victim, "burnt").await.ok();
        until("it is removed when its lease is over", PATIENCE, gone).await?;
        client.cluster().uncordon("worker-1").send().await?;
        succeeded(&client, &task).await?;
        let names: Vec<String> = client.cluster().nodes().await?.into_iter().map(|node| node.name).collect();
        ensure!(names == ["coordinator-1", "worker-1"], "{names:?}");
        a_repeated_request_is_answered_as_the_first(cluster).await?;
        its_disk_does_not_come_back(cluster, victim).await
    })
    .await
}

async fn only_the_lost_are_removed(cluster: &Cluster, client: &Client) -> anyhow::Result<()> {
    let at = cluster.node("worker-1")?.endpoint();
    for (node, why) in [("worker-2", "attached"), ("coordinator-1", "coordinator"), ("nobody", "nobody")] {
        let said = cli(&at, &["node", "remove", node]).await?;
        let text = String::from_utf8_lossy(&said.stderr).to_string();
        ensure!(!said.status.success() && text.contains(why), "{node}: {text}");
    }
    let only = cli(&at, &["cluster", "remove-voter", "coordinator-1"]).await?;
    let text = String::from_utf8_lossy(&only.stderr).to_string();
    ensure!(!only.status.success() && text.contains("no other voter"), "{text}");
    ensure!(client.cluster().nodes().await?.len() == 3, "somebody is gone");
    Ok(())
}

/// The answer was lost on its way, and the caller asks again: also when the name leads nowhere by now.
async fn a_repeated_request_is_answered_as_the_first(cluster: &mut Cluster) -> anyhow::Result<()> {
    let mut lost = configured(cluster, "worker-3", "worker", &join_of(cluster)?)?;
    lost.start()?;
    let client = cluster.client()?;
    let ready = async || client.cluster().node("worker-3").await.ok().filter(|node| node.state == "ready");
    until("a third worker", PATIENCE, ready).await?;
    lost.kill()?;
    let mut service = ClusterServiceClient::connect(cluster.node("worker-1")?.endpoint()).await?;
    let request = |reason: &str| v1::RemoveNodeRequest {
        id: "worker-3".into(),
        reason: reason.into(),
        request_id: "once".into(),
    };
    let service = tokio::sync::Mutex::new(&mut service);
    let removed = async || service.lock().await.remove_node(request("burnt")).await.ok();
    until("it is removed", PATIENCE, removed).await?;
    service.lock().await.remove_node(request("burnt")).await.context("the same again")?;
    let other = v1::RemoveNodeRequest { request_id: "twice".into(), ..request("burnt") };
    let refused = service.lock().await.remove_node(other).await;
    let code = refused.err().map(|status| status.code());
    ensure!(code == Some(tonic::Code::NotFound), "another request: {code:?}");
    Ok(())
}

fn join_of(cluster: &Cluster) -> anyhow::Result<String> {
    Ok(format!("[\"127.0.0.1:{}\"]", cluster.node("coordinator-1")?.ports.internal))
}

/// A node that was removed is a stranger, and says so.
async fn its_disk_does_not_come_back(cluster: &mut Cluster, name: &str) -> anyhow::Result<()> {
    let node = cluster.node_mut(name)?;
    node.start()?;
    let ended = {
        let node = std::cell::RefCell::new(&mut *node);
        until("the removed node ends", PATIENCE, async || node.borrow_mut().ended()).await?
    };
    ensure!(!ended.success() && node.log().contains("was removed from its cluster"), "{}", node.log());
    let members = cluster.client()?.cluster().nodes().await?;
    ensure!(!members.iter().any(|node| node.name == name), "{name} is back: {members:?}");
    Ok(())
}
