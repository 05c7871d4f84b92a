//! A2A on the nodes of a cluster, spoken by its official client: cards, messages, streams, questions, cancels, strangers.

use crate::support::*;
use crate::tools::{Noted, sink};
use anyhow::{Context, ensure};
use quorate_tests::{Cluster, Process, Spec, until};
use serde_json::json;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;
use tokio::time::timeout;

const SCENARIOS: [&str; 5] = ["send", "stream", "cancel", "talk", "strangers"];

/// What the model says, to which agent.
fn script() -> String {
    let replies = [
        reply("poet", &words(40), ""),
        reply("slow", &words(40), "tokens_per_second = 40"),
        reply("endless", &words(2000), "tokens_per_second = 5"),
        "[[reply]]\nwhen_agent = 'guide'\nwhen_contains = 'shorter'\ntext = 'Blue.'\n".to_string(),
        reply("guide", "It is blue, and has been for long.", ""),
        "[[reply]]\nwhen_agent = 'mailer'\nwhen_results_below = 1\n\
         calls = [{ name = 'sink.send', arguments = '{\"n\": 7}' }]\n"
            .to_string(),
        "[[reply]]\nwhen_agent = 'mailer'\ntext = 'The last was: {last}.'\n".to_string(),
    ];
    format!("window = 65536\n\n{}", replies.join("\n"))
}

#[tokio::test]
async fn the_official_client_works_at_every_node() -> anyhow::Result<()> {
    let noted = Noted::new()?;
    let spec = Spec {
        coordinators: 1,
        workers: 1,
        scripts: vec![(MODEL.to_string(), script())],
        more: sink(&noted.file()),
        secured: true,
        ..Spec::default()
    };
    on_cluster(spec, async |cluster| {
        agents(cluster).await?;
        let secured = cluster.secured.as_ref().context("a secured cluster")?;
        let (mine, other) = (secured.key("a", "submitter", "ann")?, secured.key("b", "submitter", "bob")?);
        let viewer = secured.key("a", "viewer", "eve")?;
        cluster.nodes.iter().try_for_each(Process::reload)?;
        for node in &cluster.nodes {
            let base = format!("http://127.0.0.1:{}", node.ports.http);
            let given = json!({ "base": base, "mine": mine, "other": other, "viewer": viewer, "expected": words(40) });
            // A node may still be reading its keys anew.
            until("the first scenario", PATIENCE, || async { client("send", &given).await.ok() })
                .await
                .or(client("send", &given).await)?;
            for scenario in SCENARIOS {
                client(scenario, &given).await?;
            }
        }
        Ok(())
    })
    .await
}

async fn agents(cluster: &Cluster) -> anyhow::Result<()> {
    let client = cluster.client()?.with_project("a")?;
    for (name, more) in [
        ("poet", "system = 'a secret instruction'"),
        ("slow", ""),
        ("endless", "max_tokens = 20000"),
        ("guide", "conversation = true"),
        ("mailer", "tools = [{ name = 'sink.send', approve = true }]"),
    ] {
        apply_with(&client, name, more).await?;
    }
    Ok(())
}

/// Runs the official client.
async fn client(scenario: &str, given: &serde_json::Value) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = root.join(".tools/a2a/bin/python");
    ensure!(python.exists(), "the client is not at {}: run `make a2a-client`", python.display());
    let mut command = Command::new(python);
    command.arg(root.join("tests/it/a2a_client.py")).arg(scenario).arg(given.to_string());
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let ran = timeout(PATIENCE * 2, running).await.context("the client ends in time")??;
    ensure!(ran.status.success(), "{scenario}: {}", String::from_utf8_lossy(&ran.stderr));
    Ok(())
}
