//! One of several models by price: the cheap one answers, until its destination says that it is full.

use crate::support::*;
use anyhow::{Context, ensure};
use quorate_sdk::data::RoutedStep;
use quorate_sdk::{Client, Code, EventKind};
use quorate_tests::{Cluster, Spec};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A server that speaks OpenAI's chat completions: it answers so many calls, then it is full for ten minutes.
struct Destination {
    url: String,
    asked: Arc<AtomicUsize>,
}

async fn destination(says: &'static str, answers: usize) -> anyhow::Result<Destination> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/v1", listener.local_addr()?);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let nth = counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(serve(stream, if nth < answers { Some(says) } else { None }));
        }
    });
    Ok(Destination { url, asked })
}

async fn serve(stream: TcpStream, says: Option<&str>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while stream.read_line(&mut line).await? > 2 {
        if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = bytes.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let (head, body) = match says {
        Some(says) => {
            let choice = format!(
                r#"{{"index":0,"message":{{"role":"assistant","content":"{says}"}},"finish_reason":"stop"}}"#
            );
            let usage = r#"{"prompt_tokens":12,"completion_tokens":2,"total_tokens":14}"#;
            let body = format!(
                r#"{{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{choice}],"usage":{usage}}}"#
            );
            ("200 OK\r\n", body)
        }
        None => {
            ("429 Too Many Requests\r\nretry-after: 600\r\n", r#"{"error":{"message":"full"}}"#.to_string())
        }
    };
    let answer = format!(
        "HTTP/1.1 {head}content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

fn provider(name: &str, at: &Destination) -> String {
    let url = &at.url;
    format!(
        "[[provider]]\nname = \"{name}\"\nkind = \"openai\"\nurl = \"{url}\"\nmodel = \"m\"\nwindow = 4096\n\
         max_output = 512\nstream = false\n\n"
    )
}

async fn priced(client: &Client, model: &str, micro_usd: u64) -> anyhow::Result<()> {
    let price = client.prices().set(model).input(micro_usd).cached(micro_usd / 10).output(3 * micro_usd);
    price.reason("test").send().await?;
    Ok(())
}

fn chooser(models: &str) -> String {
    format!("name = \"chooser\"\nmodels = {models}\nmax_tokens = 50\n")
}

async fn refused(client: &Client, models: &str, reason: &str, said: &str) -> anyhow::Result<()> {
    let Err(error) = client.agents().apply(chooser(models)).send().await else {
        anyhow::bail!("models = {models} was taken")
    };
    ensure!(error.reason == reason && error.message.contains(said), "{models}: {error:?}");
    let gone = client.agents().get("chooser").await;
    ensure!(gone.is_err_and(|error| error.code == Code::NotFound), "nothing was applied");
    Ok(())
}

/// Bad lists are refused when they are applied.
async fn bad_lists(client: &Client) -> anyhow::Result<()> {
    refused(client, "[]", "BAD_DEFINITION", "models is empty").await?;
    refused(client, "[\"cheap\", \"cheap\"]", "BAD_DEFINITION", "names \"cheap\" twice").await?;
    refused(client, "[\"cheap\", \"dear\"]", "UNPRICED_MODEL", "\"cheap\", which has no price").await?;
    priced(client, "cheap", 1_000_000).await?;
    refused(client, "[\"cheap\", \"daer\"]", "UNPRICED_MODEL", "\"daer\", which has no price").await?;
    priced(client, "dear", 10_000_000).await
}

/// A task to its end: its answer, which model a watcher saw, and what the journal says of the others.
async fn done(client: &Client) -> anyhow::Result<(String, String, RoutedStep, String)> {
    let created = client.tasks().create("chooser").input("Which one are you?").send().await?;
    let task = succeeded(client, &created.id).await?;
    let mut watch = client.tasks().watch(&task.id);
    let events = watch_to_end(&mut watch).await?;
    let route = |kind: &EventKind| match kind {
        EventKind::Step { route: Some(route), .. } => Some(format!("{} {}", route.model, route.reason)),
        _ => None,
    };
    let seen: Vec<String> = events.iter().filter_map(|event| route(&event.kind)).collect();
    let routes = client.context().get(&task.id, false).await?.routes;
    ensure!(seen.len() == 1 && routes.len() == 1, "{seen:?}, {routes:?}");
    let result = client.tasks().result(&task).await?;
    Ok((result, seen.concat(), routes.into_iter().next().context("a step")?, task.id))
}

async fn the_cheap_one_until_it_is_full(
    cluster: &Cluster,
    cheap: &Destination,
    dear: &Destination,
) -> anyhow::Result<()> {
    let client = cluster.client()?;
    bad_lists(&client).await?;
    client.agents().apply(chooser("[\"cheap\", \"dear\"]")).send().await?;
    let (said, seen, route, _) = done(&client).await?;
    ensure!((said.as_str(), seen.as_str()) == ("from cheap", "cheap CHEAPER"), "{said}: {seen}");
    let verdicts: Vec<_> = route.candidates.iter().map(|it| it.verdict.as_str()).collect();
    ensure!(verdicts == ["FITS", "FITS"], "{route:?}");
    let costs: Vec<u64> = route.candidates.iter().map(|it| it.expected_micro_usd).collect();
    ensure!(costs[0] > 0 && costs[1] == 10 * costs[0], "{route:?}");
    // It is full now: the call that finds that out is made again, at the other one.
    let (said, seen, route, id) = done(&client).await?;
    ensure!((said.as_str(), seen.as_str()) == ("from dear", "dear ONLY_ONE"), "{said}: {seen}");
    ensure!(route.candidates[0].verdict == "CLOSED", "{route:?}");
    let asked = (cheap.asked.load(Ordering::Relaxed), dear.asked.load(Ordering::Relaxed));
    ensure!(asked == (2, 1), "the closed one is left alone: {asked:?}");
    let node = cluster.node("coordinator-1")?.endpoint();
    let shown = cli(&node, &["task", "routes", &id]).await?;
    let table = String::from_utf8(shown.stdout)?;
    ensure!(table.contains("ONLY_ONE") && table.contains("CLOSED"), "{table}");
    let watched = cli(&node, &["task", "watch", &id]).await?;
    let lines = String::from_utf8([watched.stdout, watched.stderr].concat())?;
    ensure!(lines.contains("step 1 by dear (ONLY_ONE)"), "{lines}");
    let line = "quorate_gateway_routes_total{model=\"dear\",reason=\"ONLY_ONE\"}";
    let counted = metric(cluster.node("worker-1")?, line).await?;
    ensure!(counted == Some(1.0), "{counted:?}");
    // Each task paid the price of the model that answered it: 12 tokens of a prompt, 2 of an answer.
    let paid = client.tasks().get(&id).await?.usage.micro_usd;
    ensure!(paid == 12 * 10 + 2 * 30, "{paid} micro-dollars");
    over_budget(&client, dear).await
}

/// The dear one is the only one that is open, and too dear: the task stands still and says what it lacks.
async fn over_budget(client: &Client, dear: &Destination) -> anyhow::Result<()> {
    client.quotas().set("projects/default").limit("micro_usd_total", Some(300)).reason("test").send().await?;
    let created = client.tasks().create("chooser").input("Which one are you?").send().await?;
    let held = quorate_tests::until("the pause", PATIENCE, || async {
        let why = client.tasks().explain(&created.id).await.ok()?;
        why.blockers.iter().any(|it| it.reason == "QUOTA_MICRO_USD_TOTAL").then_some(why)
    })
    .await?;
    ensure!(held.task.state.name() == "PAUSED", "{held:?}");
    ensure!(dear.asked.load(Ordering::Relaxed) == 1, "nothing was asked without money");
    client.quotas().set("projects/default").limit("micro_usd_total", None).reason("test").send().await?;
    succeeded(client, &created.id).await?;
    Ok(())
}

#[tokio::test]
async fn a_call_goes_to_the_cheapest_model_that_is_open_and_within_the_budget() -> anyhow::Result<()> {
    let cheap = destination("from cheap", 1).await?;
    let dear = destination("from dear", 100).await?;
    let more = provider("cheap", &cheap) + &provider("dear", &dear);
    // One worker: what it learns of the destinations is the cluster's knowledge.
    let spec = Spec { coordinators: 1, workers: 1, more, ..Spec::default() };
    on_cluster(spec, async |cluster| the_cheap_one_until_it_is_full(cluster, &cheap, &dear).await).await
}
