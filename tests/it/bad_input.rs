//! What users and strangers get wrong, through the real binary: a clear error, a next step, the right exit code, and
//! nothing changed.

use crate::support::*;
use anyhow::{Context, ensure};
use proto::v1::task_service_client::TaskServiceClient;
use proto::v1::{CreateTaskRequest, Input};
use quorate_sdk::{Agent, Code, Quota, Task, TaskState};
use quorate_tests::cluster::binary;
use quorate_tests::{Cluster, Spec, ports};
use serde_json::Value;
use std::path::{Path, PathBuf};

const HUGE: usize = 100 << 20;

#[tokio::test]
async fn mistakes_change_nothing() -> anyhow::Result<()> {
    on_cluster(with_a_narrow_model(), async |cluster| {
        let client = cluster.client()?;
        apply(&client, &["quick"]).await?;
        client.tasks().create("quick").input("x").task_id("first").request_id("used").send().await?;
        succeeded(&client, "first").await?;
        client.quotas().set("projects/default").limit("running", Some(5)).send().await?;
        let before = Seen::now(cluster).await?;
        names_keys_ids_and_etags(cluster).await?;
        too_large(cluster).await?;
        unreachable_and_misused().await?;
        ensure!(Seen::now(cluster).await? == before, "a refused request changed something");
        over_long_prompt(cluster).await
    })
    .await
}

fn with_a_narrow_model() -> Spec {
    let mut spec = spec(&[reply("quick", "Understood.", "")]);
    spec.scripts.push(("narrow".into(), format!("window = 64\n{}", reply("narrow", "Too much?", ""))));
    spec
}

/// Everything that a refused request could have changed.
#[derive(PartialEq)]
struct Seen {
    tasks: Vec<Task>,
    agents: Vec<Agent>,
    quotas: Vec<Quota>,
}

impl Seen {
    async fn now(cluster: &Cluster) -> anyhow::Result<Seen> {
        let client = cluster.client()?;
        let tasks = client.tasks().list().page(None).await?.items;
        Ok(Seen { tasks, agents: client.agents().list().await?, quotas: client.quotas().list().await? })
    }
}

/// Runs `quorate -o json` and expects it to fail with this exit code and reason. Answers the error.
pub(crate) async fn fails(
    endpoint: &str,
    arguments: &[&str],
    exit: i32,
    reason: &str,
) -> anyhow::Result<Value> {
    let said = cli(endpoint, &[&["-o", "json"], arguments].concat()).await?;
    let stderr = String::from_utf8_lossy(&said.stderr);
    let shown = format!("`quorate {}`: {:?}, {stderr}", arguments.join(" "), said.status);
    ensure!(said.status.code() == Some(exit), "expected exit code {exit}: {shown}");
    ensure!(said.stdout.is_empty(), "something on stdout: {shown}");
    let line = stderr.lines().last().unwrap_or_default();
    let value: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {shown}"))?;
    let error = value["error"].clone();
    ensure!(error["reason"] == reason, "expected {reason}: {shown}");
    ensure!(error["message"].as_str().is_some_and(|words| words.len() > 10), "no message: {shown}");
    Ok(error)
}

/// A text for people holds all these words.
pub(crate) fn says_all(text: &str, words: &[&str]) -> anyhow::Result<()> {
    let missing: Vec<_> = words.iter().filter(|word| !text.contains(**word)).collect();
    ensure!(missing.is_empty(), "{text:?} does not say {missing:?}");
    Ok(())
}

/// The error names something, and says what to do next.
pub(crate) fn says(error: &Value, words: &[&str]) -> anyhow::Result<()> {
    let text = error.to_string();
    ensure!(words.iter().all(|word| text.contains(word)), "{text} does not say {words:?}");
    ensure!(error["next"].as_str().is_some_and(|next| !next.is_empty()), "no next step: {text}");
    Ok(())
}

/// As under `| head -1`: verbs that need no cluster do their work, and say nothing of it.
#[test]
fn a_reader_that_goes_away_is_no_mistake() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    for verb in
        [&["model", "list"][..], &["key", "new", "--project", "a", "--role", "viewer", "--subject", "ann"]]
    {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let mut command = std::process::Command::new(binary()?);
        let said = command.args(verb).env("HOME", home.path()).stdout(writer).output()?;
        let stderr = String::from_utf8_lossy(&said.stderr);
        ensure!(
            said.status.success() && !stderr.contains("panicked"),
            "{verb:?}: {:?} {stderr}",
            said.status
        );
    }
    Ok(())
}

async fn names_keys_ids_and_etags(cluster: &Cluster) -> anyhow::Result<()> {
    for node in ["coordinator-2", "worker-1"] {
        let at = cluster.node(node)?.endpoint();
        let no_agent = ["task", "create", "--agent", "nobody", "--input", "x"];
        says(&fails(&at, &no_agent, 3, "NOT_FOUND").await?, &["nobody", "quorate agent list"])?;
        says(&fails(&at, &["task", "get", "nothing"], 3, "NOT_FOUND").await?, &["nothing"])?;
        says(&fails(&at, &["node", "get", "n99"], 3, "NOT_FOUND").await?, &["n99"])?;

        let toml =
            written(cluster, "wrong.toml", b"name = \"wrong\"\nmodel = \"scripted\"\ntemprature = 1\n")?;
        let error = fails(&at, &["agent", "apply", "-f", &toml], 2, "BAD_DEFINITION").await?;
        says(&error, &["temprature", "temperature", "line 3"])?;
        let absent = ["agent", "apply", "-f", "/nowhere/a.toml"];
        says(&fails(&at, &absent, 2, "UNREADABLE").await?, &["/nowhere/a.toml"])?;

        let reused = ["task", "create", "--agent", "quick", "--input", "other", "--request-id", "used"];
        says(&fails(&at, &reused, 6, "REQUEST_ID_REUSED").await?, &["used", "new request id"])?;
        let taken = ["task", "create", "--agent", "quick", "--input", "y", "--task-id", "first"];
        says(&fails(&at, &taken, 6, "TASK_ID_TAKEN").await?, &["first"])?;
        let late = ["quota", "set", "projects/default", "running=9", "--etag", "999"];
        says(&fails(&at, &late, 6, "WRONG_ETAG").await?, &["read it again"])?;
        let ended = fails(&at, &["task", "pause", "first"], 6, "WRONG_STATE").await?;
        says(&ended, &["SUCCEEDED"])?;
        let unknown = ["quota", "set", "projects/default", "colours=9"];
        says(&fails(&at, &unknown, 2, "INVALID_ARGUMENT").await?, &["colours", "_{hour|day|month|total}"])?;
        let filter = ["task", "list", "--filter", "colour=red"];
        says(&fails(&at, &filter, 2, "INVALID_ARGUMENT").await?, &["colour", "label.KEY"])?;
    }
    Ok(())
}

fn written(cluster: &Cluster, name: &str, bytes: &[u8]) -> anyhow::Result<String> {
    let path = cluster.folder().join(name);
    std::fs::write(&path, bytes)?;
    Ok(path.display().to_string())
}

/// 100 MB from the command line, from the SDK, and from a program that knows no bounds.
async fn too_large(cluster: &Cluster) -> anyhow::Result<()> {
    let file = written(cluster, "huge.txt", "x".repeat(HUGE).as_bytes())?;
    let at = cluster.node("worker-2")?;
    let order = ["task", "create", "--agent", "quick", "-f", &file];
    says(&fails(&at.endpoint(), &order, 2, "REQUEST_TOO_LARGE").await?, &["4 MiB"])?;

    let client = cluster.client_of("worker-2")?;
    let sent = client.tasks().create("quick").input("x".repeat(HUGE)).send().await;
    let error = crate::submit::refused(sent, Code::InvalidArgument, "REQUEST_TOO_LARGE")?;
    ensure!(error.message.contains("4 MiB"), "{error:?}");

    let rss = at.usage()?.rss_bytes;
    let mut raw = TaskServiceClient::connect(at.endpoint()).await?;
    let inputs = vec![Input { name: "huge".into(), text: "x".repeat(HUGE) }];
    let request = CreateTaskRequest { agent: "quick".into(), inputs, ..Default::default() };
    let status = raw.create_task(request).await.err().context("100 MB were taken")?;
    let refused = matches!(status.code(), tonic::Code::OutOfRange | tonic::Code::ResourceExhausted);
    ensure!(refused && status.message().contains("8388608"), "not clear: {status:?}");
    let grown = at.usage()?.rss_bytes.saturating_sub(rss);
    ensure!(grown < 32 << 20, "the node took {grown} bytes for a request it refused");
    // The node serves on, and a request of a usual size still goes through.
    cluster.client_of("worker-2")?.tasks().get("first").await?;
    Ok(())
}

async fn unreachable_and_misused() -> anyhow::Result<()> {
    let nobody = format!("127.0.0.1:{}", ports::free());
    let error = fails(&nobody, &["--timeout", "2s", "task", "list"], 5, "UNREACHABLE").await?;
    says(&error, &[&nobody, "QUORATE_ENDPOINT"])?;
    says(&fails(&nobody, &["task", "create"], 2, "USAGE").await?, &["quorate help"])?;
    says(&fails(&nobody, &["dance"], 2, "USAGE").await?, &["dance"])?;
    says(&fails("not an address", &["task", "list"], 2, "BAD_ENDPOINT").await?, &["not an address"])
}

/// The task fails at once, with the numbers; it is not tried again and again.
async fn over_long_prompt(cluster: &Cluster) -> anyhow::Result<()> {
    let client = cluster.client()?;
    client.agents().apply("name = \"narrow\"\nmodel = \"narrow\"\n").send().await?;
    let task = client.tasks().create("narrow").input(words(100)).send().await?;
    let done = ended(&client, &task.uid).await?;
    let error = done.error.clone().unwrap_or_default();
    ensure!(done.state == TaskState::Failed && done.state_reason.contains("CONTEXT_TOO_LONG"), "{done:?}");
    ensure!(
        error.contains("101 tokens") && error.contains("window is 64") && error.contains("larger window"),
        "{error}"
    );
    ensure!(done.usage.generated_tokens == 0, "{done:?}");
    Ok(())
}

/// Strings and counts that lie, and files that end early.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let header = |tensors: u64, keys: u64| {
        [b"GGUF".as_slice(), &3u32.to_le_bytes(), &tensors.to_le_bytes(), &keys.to_le_bytes()].concat()
    };
    let text = |length: u64| [header(0, 1).as_slice(), &length.to_le_bytes(), b"general.name"].concat();
    vec![
        ("empty.gguf", vec![]),
        ("other.gguf", b"<html>this is no model</html>".repeat(10)),
        ("truncated.gguf", header(3, 2)[..20].to_vec()),
        ("short.gguf", header(1, 0)),
        ("keys.gguf", header(0, u64::MAX)),
        ("tensors.gguf", header(u64::MAX, 0)),
        ("length.gguf", text(u64::MAX)),
        ("long.gguf", text(1 << 40)),
        ("version.gguf", [b"GGUF".as_slice(), &99u32.to_le_bytes(), &[0; 16]].concat()),
    ]
}

#[tokio::test]
async fn malformed_models_are_refused() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    for (name, bytes) in malformed() {
        let path = home.path().join(name);
        std::fs::write(&path, bytes)?;
        let said = pull(home.path(), &path).await?;
        let words = String::from_utf8_lossy(&said.stderr);
        ensure!(said.status.code() == Some(1), "{name}: {:?}, {words}", said.status);
        ensure!(words.contains(name) && words.contains("is not a usable model"), "{name}: {words}");
    }
    let none = pull(home.path(), &home.path().join("absent.gguf")).await?;
    ensure!(none.status.code() == Some(1), "{:?}", none.status);
    let models = home.path().join("models");
    let left: Vec<PathBuf> = match std::fs::read_dir(&models) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?,
        Err(_) => vec![],
    };
    ensure!(left.is_empty(), "refused models left {left:?}");
    Ok(())
}

pub(crate) async fn pull(home: &Path, model: &Path) -> anyhow::Result<std::process::Output> {
    let mut command = tokio::process::Command::new(binary()?);
    command.env("QUORATE_HOME", home).args(["model", "pull"]).arg(model).kill_on_drop(true);
    Ok(tokio::time::timeout(PATIENCE, command.output()).await??)
}

/// A node does not start on a configuration that it does not understand, or that opens it to strangers.
#[tokio::test]
async fn wrong_configurations_do_not_start() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let port = ports::free();
    let cases = [
        ("colour = \"red\"\n".to_string(), vec!["colour"]),
        (format!("[listen]\nclients = \"0.0.0.0:{port}\"\n"), vec!["0.0.0.0", "--insecure"]),
        ("[timings]\nlease_ms = 100\n".to_string(), vec!["lease_ms"]),
        (
            "[[provider]]\nname = \"x\"\nkind = \"oracle\"\nfile = \"x\"\n".to_string(),
            vec!["oracle", "scripted"],
        ),
    ];
    for (wrong, words) in cases {
        let file = folder.path().join("node.toml");
        let (top, tables) = if wrong.starts_with('[') { ("", wrong.as_str()) } else { (wrong.as_str(), "") };
        std::fs::write(
            &file,
            format!("name = \"n\"\nroles = [\"coordinator\"]\ndata_dir = \"data\"\n{top}{tables}"),
        )?;
        let config = file.display().to_string();
        let said = cli("127.0.0.1:1", &["start", "--config", &config]).await?;
        let stderr = String::from_utf8_lossy(&said.stderr);
        ensure!(said.status.code() == Some(1), "{wrong}: {:?}, {stderr}", said.status);
        ensure!(words.iter().all(|word| stderr.contains(word)), "{stderr} does not say {words:?}");
        ensure!(!folder.path().join("data").exists(), "{wrong}: it made its data folder");
    }
    Ok(())
}
