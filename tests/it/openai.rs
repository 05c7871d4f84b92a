//! `quorate engine serve` as clients meet it: the official Python client, and clients that behave badly.

use crate::real_model::model_file;
use crate::support::*;
use anyhow::{Context, ensure};
use quorate_tests::cluster::binary;
use quorate_tests::{ports, until};
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// A server of its own for each test; it goes with it.
struct Server {
    port: u16,
    child: Child,
}

impl Server {
    async fn start(more: &[&str]) -> anyhow::Result<Server> {
        model_file()?;
        let port = ports::free();
        let child = Command::new(binary()?)
            .args(["engine", "serve", "-m", "smollm2", "-t", "2", "--listen", &format!("127.0.0.1:{port}")])
            .args(more)
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let server = Server { port, child };
        until("the server answers", PATIENCE, async || server.ask(HEALTH).await.ok()).await?;
        Ok(server)
    }

    async fn connect(&self) -> anyhow::Result<TcpStream> {
        Ok(TcpStream::connect(("127.0.0.1", self.port)).await?)
    }

    /// Sends bytes and reads all that comes until the other side closes.
    async fn ask(&self, request: &str) -> anyhow::Result<String> {
        let mut stream = self.connect().await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.context("an answer in time")??;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    async fn post(&self, body: &str) -> anyhow::Result<String> {
        self.ask(&post("/v1/completions", body)).await
    }

    async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let page = self.ask(&HEALTH.replace("/health", "/metrics")).await?;
        let of = |line: &str| line.strip_prefix(name)?.rsplit(' ').next()?.parse().ok();
        page.lines().find_map(of).with_context(|| format!("no {name} in {page}"))
    }

    fn resident_bytes(&self) -> anyhow::Result<u64> {
        let pid = self.child.id().context("it runs")?;
        let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
        Ok(line.split_whitespace().nth(1).context("a number")?.parse::<u64>()? * 1024)
    }
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn the_official_python_client_works_unchanged() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = root.join(".tools/openai/bin/python");
    ensure!(python.exists(), "the client is not at {}: run `make openai-client`", python.display());
    let server = Server::start(&[]).await?;
    let url = format!("http://127.0.0.1:{}/v1", server.port);
    let script = root.join("tests/it/openai_client.py");
    let run = Command::new(python).arg(script).arg(url).kill_on_drop(true).output();
    let ran = timeout(PATIENCE * 4, run).await.context("the client ends in time")??;
    let said = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "{said}");
    Ok(())
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() -> anyhow::Result<()> {
    let server = Server::start(&[]).await?;
    let chat = |body: &str| post("/v1/chat/completions", body);
    let wide = format!("{{\"prompt\": \"{}\"}}", "x".repeat(5 << 20));
    let cases = [
        (post("/v1/completions", "{"), 400, "expected here"),
        (post("/v1/completions", "{}"), 400, "prompt"),
        (post("/v1/completions", r#"{"prompt": ""}"#), 400, "empty"),
        (post("/v1/completions", r#"{"prompt": [99999999]}"#), 400, "vocabulary"),
        (post("/v1/completions", r#"{"prompt": "a", "echo": true}"#), 400, "echo"),
        (post("/v1/completions", r#"{"prompt": "a", "max_tokens": 99999}"#), 400, "context_length_exceeded"),
        (post("/v1/completions", &wide), 413, "request_too_large"),
        (chat(r#"{"messages": [{"role": "robot", "content": "a"}]}"#), 400, "robot"),
        (chat("\u{0}"), 400, "expected here"),
        (post("/v1/nothing", "{}"), 404, "unknown_url"),
        (HEALTH.replace("/health", "/v1/models/other"), 404, "model_not_found"),
        (HEALTH.replace("/health", "/v1/completions"), 404, "unknown_url"),
    ];
    for (request, expected, word) in cases {
        let answer = server.ask(&request).await?;
        let shown: String = request.chars().take(120).collect();
        ensure!(status(&answer) == expected && answer.contains(word), "{shown}: {answer}");
        ensure!(answer.contains("\"error\"") && answer.contains("\"type\""), "{answer}");
    }
    let odd = server.ask("NONSENSE\r\n\r\n").await?;
    ensure!(status(&odd) == 400, "{odd}");
    ensure!(status(&server.post(r#"{"prompt": "a", "max_tokens": 1}"#).await?) == 200, "it still answers");
    Ok(())
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_place() -> anyhow::Result<()> {
    let server = Server::start(&[]).await?;
    for stream in [false, true] {
        let body =
            format!(r#"{{"prompt": "a", "max_tokens": 8000, "ignore_eos": true, "stream": {stream}}}"#);
        let mut client = server.connect().await?;
        client.write_all(post("/v1/completions", &body).as_bytes()).await?;
        until("it runs", PATIENCE, async || {
            (server.metric("quorate_answers").await.ok()? == 1.0).then_some(())
        })
        .await?;
        drop(client);
        until("its place is free", PATIENCE, async || {
            (server.metric("quorate_answers").await.ok()? == 0.0).then_some(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_slow_reader_holds_nobody_up() -> anyhow::Result<()> {
    let server = Server::start(&[]).await?;
    let body = r#"{"prompt": "a", "max_tokens": 400, "ignore_eos": true, "stream": true}"#;
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut client = server.connect().await?;
        client.write_all(post("/v1/completions", body).as_bytes()).await?;
        slow.push(client);
    }
    let answer = server.post(r#"{"prompt": "b", "max_tokens": 4}"#).await?;
    ensure!(status(&answer) == 200, "{answer}");
    // Their answers are made and their places free, though nobody has read a byte.
    until("the engine is done with them", PATIENCE * 2, async || {
        (server.metric("quorate_answers").await.ok()? == 0.0).then_some(())
    })
    .await?;
    let mut whole = String::new();
    slow[0].read_to_string(&mut whole).await?;
    ensure!(whole.contains("[DONE]"), "{whole}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_at_once_are_answered_or_turned_away() -> anyhow::Result<()> {
    const CLIENTS: usize = 10_000;
    let server = std::sync::Arc::new(Server::start(&["--kv-bytes", "67108864"]).await?);
    server.post(r#"{"prompt": "a", "max_tokens": 1}"#).await?;
    let before = server.resident_bytes()?;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let server = server.clone();
        clients.spawn(async move { server.post(r#"{"prompt": "The sea", "max_tokens": 2}"#).await });
    }
    let (mut answered, mut turned_away, mut broken, mut most) = (0, 0, 0, before);
    while let Some(ended) = clients.join_next().await {
        match ended?.map(|answer| status(&answer)) {
            Ok(200) => answered += 1,
            Ok(429 | 503) => turned_away += 1,
            // The system's queue for connections was full, or the refusal crossed with the request.
            Ok(_) | Err(_) => broken += 1,
        }
        if (answered + turned_away + broken) % 500 == 0 {
            most = most.max(server.resident_bytes()?);
        }
    }
    figure("openai_storm_answered", answered);
    figure("openai_storm_turned_away", turned_away);
    figure("openai_storm_broken", broken);
    figure("openai_storm_grew_mib", (most - before) >> 20);
    ensure!(
        answered >= 100 && broken < CLIENTS / 20,
        "{answered} answered, {turned_away} away, {broken} broken"
    );
    ensure!(most - before < 256 << 20, "it grew by {} MiB", (most - before) >> 20);
    ensure!(status(&server.post(r#"{"prompt": "a", "max_tokens": 1}"#).await?) == 200, "it still answers");
    Ok(())
}

#[tokio::test]
async fn it_stops_when_told_and_listens_to_this_machine_alone() -> anyhow::Result<()> {
    model_file()?;
    let open = Command::new(binary()?).args(["engine", "serve", "--listen", "0.0.0.0:0"]).output().await?;
    let said = String::from_utf8_lossy(&open.stderr);
    ensure!(!open.status.success() && said.contains("--insecure"), "{said}");
    let mut server = Server::start(&[]).await?;
    let pid = server.child.id().and_then(|pid| i32::try_from(pid).ok()).context("it runs")?;
    let pid = rustix::process::Pid::from_raw(pid).context("a process id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    let ended = timeout(PATIENCE, server.child.wait()).await.context("it ends in time")??;
    ensure!(ended.success(), "{ended}");
    Ok(())
}
