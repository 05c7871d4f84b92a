//! Dashboards and alerts against the page of figures of a real cluster that has done work: every metric and every label
//! that a query names is there, and every alert has its section in the documentation.

use crate::real_model::model_file;
use crate::support::*;
use anyhow::{Context, ensure};
use quorate_tests::{Cluster, Process, Spec};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What Prometheus itself adds.
const ADDED: [&str; 2] = ["instance", "job"];
/// What Prometheus itself records.
const ITS_OWN: &str = "up";

type Labels = BTreeMap<String, BTreeSet<String>>;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// Where each query is, and the query.
fn queries() -> anyhow::Result<Vec<(String, String)>> {
    let mut queries = Vec::new();
    for entry in std::fs::read_dir(deploy().join("grafana"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "json") {
            let board: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
            for panel in board["panels"].as_array().context("panels")? {
                for target in panel["targets"].as_array().context("targets")? {
                    let title = panel["title"].as_str().unwrap_or_default();
                    let name = format!("{} {title}", board["title"].as_str().unwrap_or_default());
                    queries.push((name, target["expr"].as_str().context("a query")?.to_string()));
                }
            }
        }
    }
    ensure!(queries.len() > 30, "{} queries of dashboards", queries.len());
    let rules = std::fs::read_to_string(deploy().join("alerts.yml"))?;
    let alert = |rule: &str| {
        let name = rule.lines().next().unwrap_or_default().trim().to_string();
        let expr = rule.lines().find_map(|line| line.trim().strip_prefix("expr: "))?;
        Some((name, expr.trim_matches('\'').to_string()))
    };
    queries.extend(rules.split("- alert:").skip(1).filter_map(alert));
    Ok(queries)
}

/// The words of a query: names of metrics, each with the labels of its selector; and the labels that it groups by.
fn named(query: &str) -> (Vec<(String, BTreeSet<String>)>, BTreeSet<String>) {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (mut metrics, mut grouped, mut rest) = (Vec::new(), BTreeSet::new(), query);
    while let Some(at) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        rest = &rest[at..];
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        if word == "by" {
            let inside = after.trim_start().trim_start_matches('(').split(')').next().unwrap_or("");
            grouped.extend(inside.split(',').map(|label| label.trim().to_string()));
            rest = &after[after.find(')').unwrap_or(0)..];
        } else if word.starts_with("quorate_") || word == ITS_OWN {
            let selector = after.strip_prefix('{').and_then(|inside| inside.split('}').next()).unwrap_or("");
            let label = |part: &str| part.split(['=', '!']).next().unwrap_or("").trim().to_string();
            metrics.push((
                word.to_string(),
                selector.split(',').filter(|it| !it.is_empty()).map(label).collect(),
            ));
            rest = &after[if selector.is_empty() { 0 } else { selector.len() + 1 }..];
        }
    }
    (metrics, grouped)
}

/// Metrics of a page, and the labels that each was seen with.
fn read_page(page: &str, into: &mut Labels) {
    for line in page.lines().filter(|line| line.starts_with("quorate_")) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap_or(line.len()));
        let labels = into.entry(name.to_string()).or_default();
        let inside = rest.strip_prefix('{').and_then(|rest| rest.split("} ").next()).unwrap_or("");
        labels.extend(inside.split("\",").filter_map(|pair| Some(pair.split_once('=')?.0.to_string())));
    }
}

async fn page(node: &Process, key: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", node.ports.http)).await?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: localhost\r\nauthorization: Bearer {key}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await??;
    ensure!(answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(answer)
}

/// A model that computes, a limit that is used, a caller that is refused: then everything has been counted once.
async fn work(cluster: &Cluster) -> anyhow::Result<()> {
    let client = cluster.client()?;
    apply(&client, &["quick"]).await?;
    client.agents().apply("name = \"thinker\"\nmodel = \"smollm2\"\nmax_tokens = 4\n").send().await?;
    client.quotas().set("projects/default").limit("running", Some(4)).send().await?;
    for (number, agent) in ["quick", "thinker", "thinker"].into_iter().enumerate() {
        let task = client.tasks().create(agent).input(format!("Say {number}.")).send().await?.uid;
        succeeded(&client, &task).await?;
    }
    let stranger = cluster.client_with("")?;
    ensure!(stranger.tasks().get("x").await.is_err(), "a caller without a key was answered");
    Ok(())
}

#[tokio::test]
async fn every_query_names_what_a_working_cluster_shows() -> anyhow::Result<()> {
    model_file()?;
    let spec = Spec {
        coordinators: 1,
        workers: 1,
        secured: true,
        models: vec!["smollm2".into()],
        ..spec(&[reply("quick", "Understood.", "")])
    };
    on_cluster(spec, async |cluster| {
        work(cluster).await?;
        let mut shown = Labels::from([(ITS_OWN.to_string(), BTreeSet::new())]);
        let key = cluster.secured.as_ref().context("keys")?.admin_key().to_string();
        for node in &cluster.nodes {
            // Each is asked, so that a caller without a key has been refused by every one of them.
            let _ = cluster.client_of(&node.name)?.cluster().status().await;
            read_page(&page(node, &key).await?, &mut shown);
        }
        let mut checked = 0;
        for (place, query) in queries()? {
            let (metrics, grouped) = named(&query);
            ensure!(!metrics.is_empty(), "{place}: no metric in {query}");
            let mut known: BTreeSet<&str> = ADDED.into();
            for (metric, labels) in &metrics {
                let has =
                    shown.get(metric).with_context(|| format!("{place}: no node shows {metric}: {query}"))?;
                known.extend(has.iter().map(String::as_str));
                let missing =
                    labels.iter().find(|label| !has.contains(*label) && !ADDED.contains(&label.as_str()));
                ensure!(missing.is_none(), "{place}: {metric} has no label {missing:?}, it has {has:?}");
                checked += 1;
            }
            let missing = grouped.iter().find(|label| !known.contains(label.as_str()));
            ensure!(missing.is_none(), "{place}: no metric has the label {missing:?}: {query}");
        }
        figure("queries_metrics_checked", checked);
        Ok(())
    })
    .await
}

#[test]
fn every_alert_has_its_section() -> anyhow::Result<()> {
    let rules = std::fs::read_to_string(deploy().join("alerts.yml"))?;
    let docs = std::fs::read_to_string(deploy().join("../docs/alerts.md"))?;
    let names: Vec<&str> = rules.split("- alert: ").skip(1).filter_map(|rest| rest.lines().next()).collect();
    ensure!(names.len() >= 15, "{names:?}");
    for name in names {
        let section =
            docs.split(&format!("\n## {name}\n")).nth(1).with_context(|| format!("{name} has no section"))?;
        let section = section.split("\n## ").next().unwrap_or_default();
        for part in ["**Means.**", "**Look.**", "**Do.**", "**Over when**"] {
            ensure!(section.contains(part), "{name} does not say {part}");
        }
        ensure!(
            rules.contains(&format!("docs/alerts.md#{}", name.to_lowercase())),
            "{name} does not name its section"
        );
    }
    Ok(())
}

#[test]
fn queries_are_taken_apart() {
    let query = "sum by (le, what) (rate(quorate_a_bucket{what=\"log\",x!=\"y\"}[5m])) / max(quorate_b) > up{job=\"q\"}";
    let (metrics, grouped) = named(query);
    let names: Vec<&str> = metrics.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["quorate_a_bucket", "quorate_b", "up"]);
    assert_eq!(metrics[0].1, BTreeSet::from(["what".to_string(), "x".to_string()]));
    assert_eq!(grouped, BTreeSet::from(["le".to_string(), "what".to_string()]));
    let mut labels = Labels::new();
    read_page("# HELP\nquorate_a{b=\"c,d\",e=\"f\"} 1\nquorate_g 2\n", &mut labels);
    assert_eq!(labels["quorate_a"], BTreeSet::from(["b".to_string(), "e".to_string()]));
    assert!(labels["quorate_g"].is_empty());
}
