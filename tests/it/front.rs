//! OpenAI's API on the nodes of a cluster: who may ask, at whose expense, and that nothing is used that was not set aside.

use crate::real_model::model_file;
use crate::support::*;
use anyhow::{Context, ensure};
use quorate_sdk::Client;
use quorate_tests::{Cluster, Process, Spec, until};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, timeout};

const CHAT: &str = "/v1/chat/completions";
/// Words that the slow model says, twenty a second.
const SLOW: &str = "tokens_per_second = 20";

/// One coordinator and two workers whose scripted model answers everybody.
pub(crate) fn spec() -> Spec {
    let slow = format!("[[reply]]\nwhen_contains = \"slowly\"\ntext = {:?}\n{SLOW}\n", words(2000));
    let clock = "[[reply]]\nwhen_contains = \"clock\"\nwhen_results_below = 1\ncalls = [{ name = \"clock\", arguments = \
                 \"{}\" }]\n\n[[reply]]\nwhen_contains = \"clock\"\ntext = \"It is {last}.\"\n";
    let quick = format!("[[reply]]\ntext = {:?}\n", words(200));
    let script = format!("window = 65536\n\n{slow}\n{clock}\n{quick}");
    Spec { coordinators: 1, scripts: vec![(MODEL.to_string(), script)], secured: true, ..Spec::default() }
}

pub(crate) struct Keys {
    pub(crate) mine: String,
    other: String,
    viewer: String,
    pub(crate) everybody: String,
}

/// Keys for two projects, known at every node.
pub(crate) async fn keys(cluster: &Cluster) -> anyhow::Result<Keys> {
    let secured = cluster.secured.as_ref().context("a secured cluster")?;
    let keys = Keys {
        mine: secured.key("a", "submitter", "ann")?,
        other: secured.key("b", "submitter", "bob")?,
        viewer: secured.key("a", "viewer", "eve")?,
        everybody: secured.key("*", "submitter", "all")?,
    };
    cluster.nodes.iter().try_for_each(Process::reload)?;
    for node in &cluster.nodes {
        let listed = async || {
            let answer = answer(node, &keys.everybody, "GET", "/v1/models", "").await.ok()?;
            (answer.starts_with("HTTP/1.1 200") && answer.contains(MODEL)).then_some(())
        };
        until("the node knows the keys and the model", PATIENCE, listed).await?;
    }
    Ok(keys)
}

fn urls(cluster: &Cluster) -> Vec<String> {
    cluster.nodes.iter().map(|node| format!("http://127.0.0.1:{}/v1", node.ports.http)).collect()
}

/// Runs the official client; answers what it printed.
async fn client(scenario: &str, given: Value) -> anyhow::Result<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = root.join(".tools/openai/bin/python");
    ensure!(python.exists(), "the client is not at {}: run `make openai-client`", python.display());
    let script = root.join("tests/it/front_client.py");
    let mut command = Command::new(python);
    command.arg(script).arg(scenario).arg(given.to_string()).stdin(Stdio::null()).kill_on_drop(true);
    let ran = timeout(PATIENCE * 4, command.output()).await.context("the client ends in time")??;
    let (said, wrong) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    ensure!(ran.status.success(), "{scenario}: {wrong}");
    Ok(serde_json::from_str(said.trim())?)
}

/// What is used and set aside of a limit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Use {
    pub(crate) used: u64,
    pub(crate) reserved: u64,
}

pub(crate) async fn limit(client: &Client, path: &str, key: &str) -> anyhow::Result<Use> {
    let quota = client.quotas().get(path).await?;
    Ok(quota
        .limits
        .get(key)
        .map_or(Use::default(), |limit| Use { used: limit.used, reserved: limit.reserved }))
}

pub(crate) async fn set(client: &Client, path: &str, key: &str, to: Option<u64>) -> anyhow::Result<()> {
    client.quotas().set(path).limit(key, to).reason("test").send().await?;
    Ok(())
}

/// A project used what its answers said and, as soon as its slices went back, has nothing set aside and holds nothing.
async fn used_as_told(client: &Client, project: &str, told: &Value) -> anyhow::Result<()> {
    let path = format!("projects/{project}");
    idle(client, &path).await?;
    let (tokens, cached) =
        (limit(client, &path, "tokens_total").await?, limit(client, &path, "cached_tokens_total").await?);
    let number = |key: &str| told[key].as_u64().context("a number");
    ensure!(
        (tokens.used, tokens.reserved) == (number("new_tokens")?, 0),
        "{path} used {tokens:?}, told {told}"
    );
    ensure!(
        (cached.used, cached.reserved) == (number("cached_tokens")?, 0),
        "{path} {cached:?}, told {told}"
    );
    let running = limit(client, &path, "running").await?;
    ensure!(running.used == 0, "{path} holds {running:?}");
    Ok(())
}

#[tokio::test]
async fn keys_say_who_pays_and_no_log_ever_has_one() -> anyhow::Result<()> {
    on_cluster(spec(), async |cluster| {
        let (keys, urls) = (keys(cluster).await?, urls(cluster));
        let given = json!({
            "urls": urls, "submitter": keys.mine, "other": keys.other, "viewer": keys.viewer,
            "everybody": keys.everybody,
        });
        let told = client("keys", given).await?;
        let admin = cluster.client()?;
        used_as_told(&admin, "a", &told["a"]).await?;
        used_as_told(&admin, "b", &told["b"]).await?;
        let both = |key: &str| told["a"][key].as_u64().unwrap_or(0) + told["b"][key].as_u64().unwrap_or(0);
        ensure!(limit(&admin, "cluster", "tokens_total").await?.used == both("new_tokens"), "{told}");
        let told = client("tools", json!({ "urls": urls, "submitter": keys.other })).await?;
        ensure!(told["a"]["calls"] == 2, "{told}");
        for key in [&keys.mine, &keys.other, &keys.viewer, &keys.everybody] {
            let leak = cluster.nodes.iter().find(|node| node.log().contains(&key[3..]));
            ensure!(leak.is_none(), "a key is in the log of {}", leak.map_or("", |node| &node.name));
        }
        let nobody = answer(&cluster.nodes[0], "", "POST", CHAT, &body(5, "hi", false)).await?;
        ensure!(nobody.starts_with("HTTP/1.1 401"), "{nobody}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn budgets_hold_to_the_token() -> anyhow::Result<()> {
    const BUDGET: u64 = 1_000;
    on_cluster(spec(), async |cluster| {
        let (keys, urls, admin) = (keys(cluster).await?, urls(cluster), cluster.client()?);
        let given = json!({ "urls": urls, "submitter": keys.mine });
        set(&admin, "projects/a", "requests_minute", Some(2)).await?;
        let rate = client("rate", given.clone()).await?;
        used_as_told(&admin, "a", &rate["a"]).await?;
        set(&admin, "projects/a", "requests_minute", None).await?;
        set(&admin, "projects/a", "micro_usd_total", Some(1_000_000)).await?;
        client("money", given).await?;
        set(&admin, "projects/a", "micro_usd_total", None).await?;
        let before = rate["a"]["new_tokens"].as_u64().context("a number")?;
        set(&admin, "projects/a", "tokens_total", Some(before + BUDGET)).await?;
        let told = client("budget", json!({ "urls": urls, "submitter": keys.mine, "at_once": 6 })).await?;
        let spent = told["a"]["new_tokens"].as_u64().context("a number")?;
        idle(&admin, "projects/a").await?;
        let tokens = limit(&admin, "projects/a", "tokens_total").await?;
        ensure!((tokens.used, tokens.reserved) == (before + spent, 0), "{tokens:?}, told {told}");
        // The prompt has three words and its role; of what is left no answer of one token could be paid.
        ensure!(spent <= BUDGET && BUDGET - spent < 5, "{spent} of {BUDGET} tokens");
        figure("front_budget_overshoot_tokens", spent.saturating_sub(BUDGET));
        figure("front_budget_left_tokens", BUDGET - spent);
        Ok(())
    })
    .await
}

pub(crate) fn body(max_tokens: u32, text: &str, stream: bool) -> String {
    let messages = json!([{ "role": "user", "content": text }]);
    json!({ "model": MODEL, "messages": messages, "max_tokens": max_tokens, "stream": stream }).to_string()
}

/// Sends a request and leaves the answer to be read.
async fn send(node: &Process, key: &str, method: &str, path: &str, body: &str) -> anyhow::Result<TcpStream> {
    let bearer = if key.is_empty() { String::new() } else { format!("Authorization: Bearer {key}\r\n") };
    send_with(node, &bearer, method, path, body).await
}

/// The same with these headers, each with its end of line.
pub(crate) async fn send_with(
    node: &Process,
    headers: &str,
    method: &str,
    path: &str,
    body: &str,
) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", node.ports.http)).await?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n{headers}\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    Ok(stream)
}

/// Asks for a chat's answer.
pub(crate) async fn chat(node: &Process, key: &str, body: &str) -> anyhow::Result<TcpStream> {
    send(node, key, "POST", CHAT, body).await
}

/// The whole answer.
pub(crate) async fn answer(
    node: &Process,
    key: &str,
    method: &str,
    path: &str,
    body: &str,
) -> anyhow::Result<String> {
    let mut answer = Vec::new();
    let mut open = send(node, key, method, path, body).await?;
    timeout(PATIENCE, open.read_to_end(&mut answer)).await.context("an answer in time")??;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Reads until some text has come.
pub(crate) async fn first_words(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut seen = String::new();
    let reading = async {
        while !seen.contains("w0003") {
            let mut part = [0; 4096];
            let count = stream.read(&mut part).await?;
            ensure!(count > 0, "it ended after {seen}");
            seen.push_str(&String::from_utf8_lossy(&part[..count]));
        }
        Ok(())
    };
    timeout(PATIENCE, reading).await.context("words in time")?
}

/// Waits until nothing of the project is under way; answers what it used.
pub(crate) async fn settled(admin: &Client) -> anyhow::Result<u64> {
    until("everything is settled", PATIENCE, async || {
        let tokens = limit(admin, "projects/a", "tokens_total").await.ok()?;
        let running = limit(admin, "projects/a", "running").await.ok()?;
        (tokens.reserved == 0 && running.used == 0 && tokens.used > 0).then_some(tokens.used)
    })
    .await
}

/// What nobody uses goes back within this time, on a busy machine too.
pub(crate) const BACK: Duration = Duration::from_secs(2);

/// Waits for that.
pub(crate) async fn idle(client: &Client, path: &str) -> anyhow::Result<()> {
    until("what nobody uses went back", BACK, async || {
        let tokens = limit(client, path, "tokens_total").await.ok()?;
        let running = limit(client, path, "running").await.ok()?;
        (tokens.reserved == 0 && running.used == 0).then_some(())
    })
    .await
}

#[tokio::test]
async fn whoever_goes_away_pays_for_what_was_made() -> anyhow::Result<()> {
    const MOST: u32 = 1_500;
    on_cluster(spec(), async |cluster| {
        let (keys, admin) = (keys(cluster).await?, cluster.client()?);
        let mut before = 0;
        // At the node that has the model, and at one that passes the request on.
        for name in ["worker-1", "coordinator-1"] {
            for stream in [true, false] {
                let node = cluster.node(name)?;
                let mut open = chat(node, &keys.mine, &body(MOST, "slowly", stream)).await?;
                match stream {
                    true => first_words(&mut open).await?,
                    false => {
                        until("it runs", PATIENCE, async || {
                            let running = limit(&admin, "projects/a", "running").await.ok()?;
                            (running.used == 1).then_some(())
                        })
                        .await?;
                    }
                }
                let reserved = limit(&admin, "projects/a", "tokens_total").await?.reserved;
                ensure!(reserved == 2 + u64::from(MOST), "{reserved} set aside");
                drop(open);
                let used = settled(&admin).await? - before;
                ensure!(used >= 2 && used < u64::from(MOST) / 2, "{name}, stream {stream}: {used} used");
                before += used;
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_node_that_dies_leaves_no_reservation() -> anyhow::Result<()> {
    const MOST: u32 = 300;
    on_cluster(Spec { workers: 1, ..spec() }, async |cluster| {
        let (keys, admin) = (keys(cluster).await?, cluster.client()?);
        let mut open = chat(cluster.node("coordinator-1")?, &keys.mine, &body(MOST, "slowly", true)).await?;
        first_words(&mut open).await?;
        cluster.node_mut("worker-1")?.kill()?;
        let killed = Instant::now();
        let mut rest = String::new();
        timeout(PATIENCE, open.read_to_string(&mut rest)).await.context("the stream ends")??;
        ensure!(rest.contains("\"error\"") && !rest.contains("[DONE]"), "{rest}");
        // Nobody knows what was made: all that was set aside counts.
        let used = settled(&admin).await?;
        figure("front_reservation_of_dead_node_ended_ms", killed.elapsed().as_millis());
        ensure!(used == 2 + u64::from(MOST), "{used} used");
        let gone =
            answer(cluster.node("coordinator-1")?, &keys.mine, "POST", CHAT, &body(5, "hi", false)).await?;
        ensure!(gone.starts_with("HTTP/1.1 503") || gone.starts_with("HTTP/1.1 404"), "{gone}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn engines_answer_through_every_node() -> anyhow::Result<()> {
    model_file()?;
    let spec = Spec { models: vec!["smollm2".into()], workers: 1, threads: 2, ..spec() };
    on_cluster(spec, async |cluster| {
        let (keys, admin) = (keys(cluster).await?, cluster.client()?);
        let given = json!({ "urls": urls(cluster), "submitter": keys.mine });
        let told = client("engine", given).await?;
        used_as_told(&admin, "a", &told["a"]).await?;
        ensure!(told["a"]["cached_tokens"].as_u64() > Some(0), "{told}");
        Ok(())
    })
    .await
}
