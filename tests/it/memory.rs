//! Memories on real processes: what agents note and find again, writers that meet, and forgetting: no hit, no bytes, on
//! no node, and not on one that was away.

use crate::support::*;
use anyhow::ensure;
use quorate_sdk::SearchKind;
use quorate_tests::{Cluster, until};
use std::path::{Path, PathBuf};

const NODES: [&str; 5] = ["coordinator-1", "coordinator-2", "coordinator-3", "worker-1", "worker-2"];
/// Stands nowhere else: not in this test's scripts, not in a log.
const CANARY: &str = "xyzzy-marmalade-4711";

/// An agent that notes something, looks for it, and answers with what it found.
fn noting(agent: &str) -> String {
    let call = |below: usize, tool: &str, arguments: &str| {
        format!(
            "[[reply]]\nwhen_agent = {agent:?}\nwhen_results_below = {below}\ntext = 'I go on.'\n\
             calls = [{{ name = {tool:?}, arguments = '{arguments}' }}]\n"
        )
    };
    let noted = r#"{"text": "The harbour opens at nine.", "tags": ["harbour"]}"#;
    call(1, "memory.remember", noted)
        + &call(2, "memory.search", r#"{"query": "when does the harbour open?"}"#)
        + &format!("[[reply]]\nwhen_agent = {agent:?}\ntext = 'Found: {{last}}'\n")
}

#[tokio::test]
async fn agents_find_what_they_noted_and_what_their_project_knows() -> anyhow::Result<()> {
    on_cluster(spec(&[noting("clerk")]), async |cluster| {
        let client = cluster.client()?;
        apply_with(&client, "clerk", "tools = ['memory.remember', 'memory.search']").await?;
        client.memories().remember("The harbour master is called Ada.").send().await?;
        for _ in 0..2 {
            let task = client.tasks().create("clerk").input("go").send().await?;
            let result = client.tasks().result(&succeeded(&client, &task.uid).await?).await?;
            for part in ["opens at nine", "called Ada", "projects/default/agents/clerk"] {
                ensure!(result.contains(part), "{part:?} is not in {result}");
            }
        }
        // The second task noted what was there already.
        let items = client.memories().agent("clerk").page(None).await?.items;
        ensure!(items.len() == 1, "{items:?}");
        ensure!(items[0].source.as_deref().is_some_and(|source| source.starts_with("tasks/")), "{items:?}");
        ensure!(items[0].tags == ["harbour"] && items[0].author == "clerk", "{items:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn of_writers_at_every_node_none_loses_an_item() -> anyhow::Result<()> {
    on_cluster(spec(&[reply("nobody", "Nothing.", "")]), async |cluster| {
        let clients = NODES.iter().map(|node| cluster.client_of(node)).collect::<Result<Vec<_>, _>>()?;
        let writes = (0..25).map(|n| {
            let client = clients[n % clients.len()].clone();
            async move { client.memories().agent("a").remember(format!("Number {n} is here.")).send().await }
        });
        for written in futures::future::join_all(writes).await {
            written?;
        }
        for (client, node) in clients.iter().zip(NODES) {
            let items = client.memories().agent("a").page(None).await?.items;
            ensure!(items.len() == 25, "{node} lists {}", items.len());
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn forgetting_leaves_no_hit_and_no_bytes_anywhere() -> anyhow::Result<()> {
    on_cluster(spec(&[reply("nobody", "Nothing.", "")]), async |cluster| {
        let text = format!("The password of the lighthouse is {CANARY}.");
        let item = cluster.client_of("worker-1")?.memories().remember(text).source("a letter").send().await?;
        cluster.client()?.memories().remember("The lighthouse is white.").send().await?;
        // Whoever is asked keeps a copy.
        for node in NODES {
            ensure!(hits(cluster, node).await?.len() == 2, "{node} does not find both");
        }
        let before = holding(cluster.folder(), CANARY.as_bytes())?;
        for node in NODES {
            ensure!(before.iter().any(|path| path.to_string_lossy().contains(node)), "{node}: {before:?}");
        }
        cluster.node_mut("worker-2")?.kill()?;
        let gone = cluster.client_of("coordinator-2")?.memories().forget(&item.id[..12], "").await?;
        ensure!(gone == 1, "{gone}");
        for node in &NODES[..4] {
            // What is read is the ledger's head: there is no hit from now on, whatever is still on a disk.
            ensure!(hits(cluster, node).await? == ["The lighthouse is white."], "{node} still finds it");
        }
        let begun = tokio::time::Instant::now();
        for node in &NODES[..4] {
            until("a refusal of the segment", PATIENCE, || redacted(cluster, node, &item.id)).await?;
        }
        until("no bytes on nodes that are up", PATIENCE, || async {
            let left = holding(cluster.folder(), CANARY.as_bytes()).ok()?;
            left.iter().all(|path| path.to_string_lossy().contains("worker-2")).then_some(())
        })
        .await?;
        eprintln!("figure memory_forget_everywhere_ms {}", begun.elapsed().as_millis());
        ensure!(
            !holding(cluster.folder(), CANARY.as_bytes())?.is_empty(),
            "the node that is away has erased it"
        );
        cluster.node_mut("worker-2")?.start()?;
        until("the node that was away refuses", PATIENCE, || redacted(cluster, "worker-2", &item.id)).await?;
        until("no bytes anywhere", PATIENCE, || async {
            holding(cluster.folder(), CANARY.as_bytes()).ok()?.is_empty().then_some(())
        })
        .await?;
        ensure!(hits(cluster, "worker-2").await? == ["The lighthouse is white."]);
        // Never again under this name, and again as something new.
        let client = cluster.client()?;
        ensure!(client.memories().get(&item.id).await.is_err());
        ensure!(client.memories().forget_all("CLEAN_UP").await? == 1);
        ensure!(client.memories().page(None).await?.items.is_empty());
        Ok(())
    })
    .await
}

async fn hits(cluster: &Cluster, node: &str) -> anyhow::Result<Vec<String>> {
    let client = cluster.client_of(node)?;
    let found = client.memories().search("lighthouse").send().await?;
    ensure!(found.kind == SearchKind::Words, "no encoder is configured");
    Ok(found.hits.into_iter().map(|hit| hit.item.text).collect())
}

/// A node never gives the text; until it has heard it may say that it does not know yet.
async fn redacted(cluster: &Cluster, node: &str, hash: &str) -> Option<()> {
    let answer = cluster.client_of(node).ok()?.context().read_text(hash).await;
    answer.err().filter(|error| error.reason == "REDACTED").map(|_| ())
}

/// Every file below a folder that holds these bytes.
pub(crate) fn holding(folder: &Path, bytes: &[u8]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(holding(&path, bytes).unwrap_or_default());
        } else if let Ok(content) = std::fs::read(&path)
            && content.windows(bytes.len()).any(|part| part == bytes)
        {
            found.push(path);
        }
    }
    Ok(found)
}
