//! The job itself: start, apply, create, watch, kill, watch on, count.

use crate::documents::Documents;
use crate::report::Report;
use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use quorate_sdk::{Client, Event, EventKind, Node, Task, TaskState};
use quorate_tests::{Cluster, Spec, until};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use worker_inference::Tokenizer;
use worker_inference::model::gguf::Gguf;

/// Tokens of the writer's answer after which its worker is killed.
const KILL_AFTER_TOKENS: u64 = 16;
/// What the writer must at least say.
const WRITER_TOKENS: u64 = 128;
/// Patience with the whole job on a slow machine.
const PATIENCE: Duration = Duration::from_secs(1800);

/// The model's own tokenizer, for cutting documents.
pub(crate) fn tokenizer(binary: &Path, model: &str) -> anyhow::Result<Tokenizer> {
    let output =
        std::process::Command::new(binary).args(["-o", "json", "model", "inspect", model]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    let inspected: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("`model inspect` prints JSON")?;
    let path = PathBuf::from(inspected["path"].as_str().context("`model inspect` names the file")?);
    let mapped = sys::Mapped::open(&path).with_context(|| format!("opening {}", path.display()))?;
    Ok(Tokenizer::from_gguf(&Gguf::parse(&mapped)?)?)
}

pub(crate) async fn run(binary: &Path, model: &str, documents: &Documents) -> anyhow::Result<Report> {
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner.set_message("starting 3 coordinators and 2 workers");
    let spec = Spec { slots: 4, models: vec![model.into()], ..Spec::default() };
    let cluster = Cluster::start(binary, spec).await?;
    spinner.finish_with_message("3 coordinators and 2 workers run");
    let outcome = Show { client: cluster.client()?, cluster }.play(documents).await;
    outcome.context("the job did not end well")
}

struct Show {
    cluster: Cluster,
    client: Client,
}

/// What the watcher of the writer saw.
struct Writer {
    task: String,
    killed_node: String,
    killed_after_tokens: u64,
    failover_ms: u64,
    /// The killed node's own counters, read just before the kill.
    lost: Option<Node>,
}

impl Show {
    async fn play(mut self, documents: &Documents) -> anyhow::Result<Report> {
        let started = Instant::now();
        self.apply_agents().await?;
        let team = self.create(documents).await?;
        self.show_readers(&team, documents.parts.len()).await?;
        let writer = self.kill_in_the_middle(&team).await?;
        let team = tokio::time::timeout(PATIENCE, self.client.tasks().wait(&team))
            .await
            .context("the team's end")??;
        ensure!(
            team.state == TaskState::Succeeded,
            "the team ended {}: {}",
            team.state.name(),
            team.error.unwrap_or_default()
        );
        let mut report = self.count(&team, writer).await?;
        report.documents = documents.files;
        report.parts = documents.parts.len();
        report.skipped = documents.skipped.len();
        report.seconds = started.elapsed().as_secs_f64();
        Ok(report)
    }

    async fn apply_agents(&self) -> anyhow::Result<()> {
        let definitions = [
            include_str!("../../team/reader.toml"),
            include_str!("../../team/writer.toml"),
            include_str!("../../team/team.toml"),
        ];
        for toml in definitions {
            self.client.agents().apply(toml).send().await?;
        }
        Ok(())
    }

    async fn create(&self, documents: &Documents) -> anyhow::Result<String> {
        let mut order = self.client.tasks().create("team");
        for part in &documents.parts {
            order = order.named_input(part.name.as_str(), part.text.as_str());
        }
        Ok(order.send().await?.uid)
    }

    async fn children(&self, team: &str, agent: &str) -> Option<Vec<Task>> {
        let filter = format!("parent={team} AND agent={agent}");
        let page = self.client.tasks().list().filter(filter).page_size(256).page(None).await.ok()?;
        Some(page.items)
    }

    /// A bar of readers that have finished.
    async fn show_readers(&self, team: &str, parts: usize) -> anyhow::Result<()> {
        let style =
            ProgressStyle::with_template("{msg:24} [{bar:40}] {pos}/{len} {elapsed}")?.progress_chars("=> ");
        let bar = ProgressBar::new(parts as u64).with_style(style);
        bar.set_message("readers finished");
        let done = until("all readers finished", PATIENCE, || async {
            let readers = self.children(team, "reader").await?;
            if let Some(bad) =
                readers.iter().find(|task| task.state.is_final() && task.state != TaskState::Succeeded)
            {
                return Some(Err(anyhow::anyhow!("reader {} ended {}", bad.id, bad.state.name())));
            }
            let finished = readers.iter().filter(|task| task.state.is_final()).count();
            bar.set_position(finished as u64);
            (finished == parts).then_some(Ok(()))
        });
        done.await??;
        bar.finish();
        Ok(())
    }

    async fn kill_in_the_middle(&mut self, team: &str) -> anyhow::Result<Writer> {
        let task = until("the writer exists", PATIENCE, || async {
            self.children(team, "writer").await?.into_iter().next().map(|task| task.uid)
        })
        .await?;
        let mut watch = self.client.tasks().watch(&task);
        let mut node = String::new();
        let mut writer: Option<(Writer, Instant)> = None;
        eprintln!("the writer answers:");
        loop {
            let next =
                tokio::time::timeout(PATIENCE, watch.next()).await.context("the writer's next word")??;
            let Some(Event { kind, .. }) = next else { bail!("the writer ended before it could be killed") };
            match kind {
                EventKind::State { node: Some(on), state: TaskState::Running, .. } => node = on,
                EventKind::State { state, .. } if state.is_final() => {
                    bail!("the writer ended early: {}", state.name())
                }
                EventKind::Token { offset, tokens, text, .. } => {
                    eprint!("{text}");
                    match &mut writer {
                        None if offset + u64::from(tokens) >= KILL_AFTER_TOKENS => {
                            let lost = self.client.cluster().node(&node).await.ok();
                            self.cluster.node_mut(&node)?.kill()?;
                            eprintln!("\n-- kill -9 {node} --");
                            let seen = Writer {
                                task: task.clone(),
                                killed_node: node.clone(),
                                killed_after_tokens: offset + u64::from(tokens),
                                failover_ms: 0,
                                lost,
                            };
                            writer = Some((seen, Instant::now()));
                        }
                        Some((seen, at)) if node != seen.killed_node => {
                            seen.failover_ms = at.elapsed().as_millis() as u64;
                            eprintln!(" …");
                            return Ok(writer.expect("just matched").0);
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
    }

    async fn count(&self, team: &Task, writer: Writer) -> anyhow::Result<Report> {
        let tasks = self.all_tasks().await?;
        let said = self.client.tasks().get(&writer.task).await?;
        let after = self.node_that_finished(&writer.task).await?;
        let mut nodes: BTreeMap<String, Node> =
            self.client.cluster().nodes().await?.into_iter().map(|node| (node.name.clone(), node)).collect();
        if let Some(lost) = writer.lost {
            nodes.insert(lost.name.clone(), lost);
        }
        let sum = |figure: fn(&Node) -> u64| nodes.values().map(figure).sum::<u64>();
        let result = self.client.tasks().result(team).await?;
        let moved_on = !after.is_empty() && after != writer.killed_node;
        Ok(Report {
            ok: moved_on && said.usage.generated_tokens >= WRITER_TOKENS && !result.trim().is_empty(),
            tasks: tasks.len(),
            steps: tasks.iter().map(|task| task.step).sum(),
            tokens_computed: sum(|node| node.engines.iter().map(|engine| engine.tokens_computed).sum()),
            tokens_cached: sum(|node| node.engines.iter().map(|engine| engine.tokens_cached).sum()),
            tokens_generated: sum(|node| node.engines.iter().map(|engine| engine.tokens_generated).sum()),
            context_bytes_moved: sum(|node| node.context_bytes_sent),
            context_bytes_full: sum(|node| node.context_bytes_full),
            failover_ms: writer.failover_ms,
            killed_node: writer.killed_node,
            killed_after_tokens: writer.killed_after_tokens,
            writer_node_after: after,
            writer_tokens: said.usage.generated_tokens,
            result,
            ..Report::default()
        })
    }

    async fn all_tasks(&self) -> anyhow::Result<Vec<Task>> {
        use tokio_stream::StreamExt;
        Ok(self.client.tasks().list().all().collect::<Result<Vec<_>, _>>().await?)
    }

    /// The node of the last lease, from the task's own events.
    async fn node_that_finished(&self, task: &str) -> anyhow::Result<String> {
        let mut watch = self.client.tasks().watch(task).without_tokens();
        let mut last = String::new();
        while let Some(event) = watch.next().await? {
            if let EventKind::State { state: TaskState::Running, node: Some(node), .. } = event.kind {
                last = node;
            }
        }
        Ok(last)
    }
}
