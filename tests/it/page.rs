//! The web page as programs see it: who is let in, what of other projects is not there, what the verbs ask for, headers,
//! and how long ten thousand tasks take. What a browser makes of it is in `tests/page-browser.py`.

use crate::support::*;
use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use quorate_sdk::TaskState;
use quorate_tests::{Process, Spec, until};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Who asks, and what of the head is not as a browser on the page itself sends it.
#[derive(Clone, Copy, Default)]
struct Asking<'a> {
    key: &'a str,
    more: &'a [(&'a str, &'a str)],
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("{} {}", self.head, self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let of =
            |line: &'_ str| line.split_once(": ").is_some_and(|(known, _)| known.eq_ignore_ascii_case(name));
        self.head.lines().find(|line| of(line)).and_then(|line| line.split_once(": ")).map(|(_, value)| value)
    }

    fn reason(&self) -> String {
        let error = self.json().ok().and_then(|body| body["error"]["reason"].as_str().map(str::to_string));
        error.unwrap_or_default()
    }
}

async fn send(node: &Process, line: &str, asking: Asking<'_>, body: &str) -> anyhow::Result<Answer> {
    let mut head = format!("{line} HTTP/1.1\r\nConnection: close\r\n");
    if !asking.more.iter().any(|(name, _)| *name == "Host") {
        head += &format!("Host: 127.0.0.1:{}\r\n", node.ports.http);
    }
    if !asking.key.is_empty() {
        head += &format!("Authorization: Bearer {}\r\n", asking.key);
    }
    for (name, value) in asking.more {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    let mut stream = TcpStream::connect(("127.0.0.1", node.ports.http)).await?;
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).await?;
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.context("an answer in time")??;
    let text = String::from_utf8(answer)?;
    let (head, body) = text.split_once("\r\n\r\n").context("an HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("a status")?;
    Ok(Answer { status, head: head.to_string(), body: body.to_string() })
}

async fn get(node: &Process, path: &str, key: &str) -> anyhow::Result<Answer> {
    send(node, &format!("GET /page/api/{path}"), Asking { key, more: &[] }, "").await
}

async fn act(
    node: &Process,
    project: &str,
    id: &str,
    verb: &str,
    asking: Asking<'_>,
) -> anyhow::Result<Answer> {
    let order = serde_json::json!({ "project": project, "id": id, "verb": verb, "request_id": format!("{verb}-{id}") });
    send(node, "POST /page/api/act", asking, &order.to_string()).await
}

fn refused(answer: &Answer, status: u16, reason: &str) -> anyhow::Result<()> {
    ensure!(answer.status == status && answer.reason() == reason, "{} {}", answer.head, answer.body);
    Ok(())
}

const HOSTILE: &str = "</script><img src=x onerror=alert(1)>\"'&ä";

#[tokio::test]
async fn the_page_shows_what_a_key_may_see_and_no_more() -> anyhow::Result<()> {
    let slow = reply("slow", &words(2000), "tokens_per_second = 20");
    let spec =
        Spec { coordinators: 1, workers: 1, secured: true, ..spec(&[slow, reply("quick", HOSTILE, "")]) };
    on_cluster(spec, async |cluster| {
        let secured = cluster.secured.as_ref().context("keys")?;
        let made = [("a", "viewer"), ("a", "submitter"), ("a", "operator"), ("b", "admin")]
            .map(|(project, role)| secured.key(project, role, role));
        let [viewer, submitter, operator, other] = made;
        let (viewer, submitter, operator, other) = (viewer?, submitter?, operator?, other?);
        let admin = secured.admin_key().to_string();
        cluster.nodes.iter().try_for_each(Process::reload)?;
        // Any node has the page, and workers ask the coordinators.
        for name in ["coordinator-1", "worker-1"] {
            let node = cluster.node(name)?;
            until("the node knows the keys", PATIENCE, || async {
                (get(node, "me", &other).await.ok()?.status == 200).then_some(())
            })
            .await?;
            files_have_their_guards(node).await?;
        }
        let client = cluster.client()?.with_project("a")?;
        apply(&client, &["slow", "quick"]).await?;
        client.tasks().create("slow").input("x").task_id("long").label("team", HOSTILE).send().await?;
        client.tasks().create("quick").input(HOSTILE).task_id(HOSTILE).send().await?;
        succeeded(&client, HOSTILE).await?;
        let uid = client.tasks().get("long").await?.uid;
        for name in ["coordinator-1", "worker-1"] {
            let node = cluster.node(name)?;
            who_is_let_in(node, &viewer, &admin).await?;
            projects_are_kept_apart(node, &other, &viewer, &uid).await?;
            texts_come_as_they_are(node, &viewer).await?;
        }
        let node = cluster.node("worker-1")?;
        for key in [&viewer, &submitter] {
            for verb in ["cancel", "pause", "resume"] {
                refused(
                    &act(node, "a", "long", verb, Asking { key, more: &[] }).await?,
                    403,
                    "ROLE_TOO_LOW",
                )?;
            }
        }
        refused(
            &act(node, "a", "long", "pause", Asking { key: &other, more: &[] }).await?,
            403,
            "PROJECT_DENIED",
        )?;
        let by = |more| Asking { key: &operator, more };
        let elsewhere = [("Origin", "https://evil.example")];
        refused(&act(node, "a", "long", "pause", by(&elsewhere)).await?, 403, "OTHER_SITE")?;
        ensure!(client.tasks().get("long").await?.state == TaskState::Running, "something acted");
        let paused = act(node, "a", "long", "pause", by(&[])).await?;
        ensure!(paused.status == 200 && paused.json()?["state"] == "PAUSED", "{}", paused.body);
        let listed = get(node, "tasks?state=PAUSED", &operator).await?.json()?;
        ensure!(listed["matched"] == 1, "what one has changed oneself is seen at once: {listed}");
        act(node, "a", "long", "cancel", by(&[])).await?;
        ensure!(ended(&client, "long").await?.state == TaskState::Cancelled);
        no_text_in_logs(cluster)
    })
    .await
}

async fn files_have_their_guards(node: &Process) -> anyhow::Result<()> {
    for path in ["/", "/page/main.js", "/page/api/me", "/page/nothing"] {
        let answer = send(node, &format!("GET {path}"), Asking::default(), "").await?;
        let policy = answer.header("content-security-policy").context("a policy")?;
        ensure!(
            policy.starts_with("default-src 'none'")
                && !policy.contains("inline")
                && !policy.contains("eval"),
            "{policy}"
        );
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
        ] {
            ensure!(answer.header(name) == Some(value), "{path}: {}", answer.head);
        }
        ensure!(answer.header("set-cookie").is_none(), "{path} sets a cookie");
    }
    let first = send(node, "GET /page/main.js", Asking::default(), "").await?;
    let tag = first.header("etag").context("a tag")?;
    let again =
        send(node, "GET /page/main.js", Asking { key: "", more: &[("If-None-Match", tag)] }, "").await?;
    ensure!(again.status == 304 && again.body.is_empty(), "{}", again.head);
    Ok(())
}

async fn who_is_let_in(node: &Process, viewer: &str, admin: &str) -> anyhow::Result<()> {
    for path in
        ["me", "cluster", "tasks", "queue", "tree?id=x", "task?id=x", "journal?id=x", "quotas", "watch?id=x"]
    {
        refused(&get(node, path, "").await?, 401, "UNAUTHENTICATED")?;
        refused(&get(node, path, "qk_wrong").await?, 401, "UNAUTHENTICATED")?;
    }
    // Never from an address that is written down somewhere.
    refused(&get(node, &format!("me?key={admin}&access_token={admin}"), "").await?, 401, "UNAUTHENTICATED")?;
    let me = get(node, "me", viewer).await?.json()?;
    ensure!(
        me["role"] == "viewer" && me["project"] == "a" && me["may_act"] == false && me["bound"] == true,
        "{me}"
    );
    refused(&get(node, "cluster", viewer).await?, 403, "PROJECT_DENIED")?;
    let seen = get(node, "cluster", admin).await?.json()?;
    ensure!(seen["nodes"].as_array().is_some_and(|nodes| nodes.len() == 2), "{seen}");
    ensure!(get(node, "me", admin).await?.json()?["may_act"] == true);
    let cross = Asking { key: viewer, more: &[("Sec-Fetch-Site", "cross-site")] };
    refused(&send(node, "GET /page/api/me", cross, "").await?, 403, "OTHER_SITE")
}

async fn projects_are_kept_apart(node: &Process, other: &str, own: &str, uid: &str) -> anyhow::Result<()> {
    let mine = get(node, "tasks", own).await?.json()?;
    ensure!(mine["matched"] == 2 && mine["counts"]["all"] == 2, "{mine}");
    // The other project's key is told the same of what is there and of what is not.
    let theirs = get(node, "tasks", other).await?.json()?;
    ensure!(theirs["matched"] == 0, "{theirs}");
    for path in [
        "tasks?project=a",
        "queue?project=a",
        "tree?project=a&id=long",
        "task?project=a&id=long",
        "journal?project=a&id=long",
        "watch?project=a&id=long",
        "explain?project=a&id=nothing",
    ] {
        refused(&get(node, path, other).await?, 403, "PROJECT_DENIED")?;
    }
    for id in ["long", "nothing", uid] {
        refused(&get(node, &format!("task?id={id}"), other).await?, 404, "NOT_FOUND")?;
        refused(&get(node, &format!("journal?id={id}"), other).await?, 404, "NOT_FOUND")?;
        refused(&get(node, &format!("watch?id={id}"), other).await?, 404, "NOT_FOUND")?;
        let tree = get(node, &format!("tree?id={id}"), other).await?.json()?;
        ensure!(tree["tasks"].as_array().is_some_and(Vec::is_empty), "{tree}");
    }
    let quotas = get(node, "quotas", other).await?.body;
    ensure!(!quotas.contains("projects/a"), "{quotas}");
    Ok(())
}

/// As JSON, which no browser takes for a page, and with every byte.
async fn texts_come_as_they_are(node: &Process, key: &str) -> anyhow::Result<()> {
    let answer = get(node, "tasks?text=onerror", key).await?;
    ensure!(answer.header("content-type") == Some("application/json"), "{}", answer.head);
    ensure!(answer.header("cache-control") == Some("no-store"), "{}", answer.head);
    let listed = answer.json()?;
    // One has it in its id, the other in a label.
    ensure!(listed["matched"] == 2 && listed["tasks"][0]["id"] == HOSTILE, "{listed}");
    let uid = listed["tasks"][0]["uid"].as_str().context("a uid")?;
    let task = get(node, &format!("task?id={uid}"), key).await?.json()?;
    ensure!(task["result"] == HOSTILE, "{task}");
    let journal = get(node, &format!("journal?id={uid}"), key).await?.json()?;
    ensure!(journal["steps"][0]["decision"]["word"] == "finished", "{journal}");
    let hash = journal["given"][0]["hash"].as_str().context("an input")?;
    let segment = get(node, &format!("segment?hash={hash}"), key).await?.json()?;
    ensure!(segment["text"] == HOSTILE && segment["cut"] == false, "{segment}");
    let events = get(node, &format!("watch?id={uid}"), key).await?;
    ensure!(events.header("content-type") == Some("text/event-stream"), "{}", events.head);
    ensure!(events.body.contains("SUCCEEDED") && events.body.contains("onerror"), "{}", events.body);
    Ok(())
}

fn no_text_in_logs(cluster: &quorate_tests::Cluster) -> anyhow::Result<()> {
    for node in &cluster.nodes {
        let log = node.log();
        ensure!(!log.contains("onerror") && !log.contains("qk_"), "{}: {log}", node.name);
    }
    Ok(())
}

#[tokio::test]
async fn without_keys_a_page_of_another_name_gets_nothing() -> anyhow::Result<()> {
    let spec = Spec { coordinators: 1, workers: 0, ..spec(&[]) };
    on_cluster(spec, async |cluster| {
        let node = cluster.node("coordinator-1")?;
        ensure!(get(node, "me", "").await?.json()?["role"] == "admin");
        let rebound = Asking { key: "", more: &[("Host", "evil.example:7480")] };
        refused(&send(node, "GET /page/api/me", rebound, "").await?, 403, "HOST_NOT_ALLOWED")?;
        refused(&act(node, "default", "x", "cancel", rebound).await?, 403, "HOST_NOT_ALLOWED")?;
        let form = "project=default&id=x&verb=cancel&request_id=r";
        let plain = Asking { key: "", more: &[("Content-Type", "text/plain")] };
        let answer = send(node, &format!("POST /page/api/act?{form}"), plain, "").await?;
        ensure!((400..500).contains(&answer.status), "{} {}", answer.head, answer.body);
        refused(&act(node, "default", "x", "cancel", Asking::default()).await?, 404, "NOT_FOUND")
    })
    .await
}

/// Callers at the same time.
const AT_ONCE: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_tasks_are_a_page_within_a_second() -> anyhow::Result<()> {
    const TASKS: usize = 10_000;
    let spec = Spec { coordinators: 1, workers: 1, ..spec(&[reply("quick", "Understood.", "")]) };
    on_cluster(spec, async |cluster| {
        let client = cluster.client()?;
        apply(&client, &["quick"]).await?;
        client.quotas().set("projects/default").limit("running", Some(0)).send().await?;
        let order = |n: usize| client.tasks().create("quick").input("x").task_id(format!("t-{n}")).send();
        let made = stream::iter((0..TASKS).map(order)).buffer_unordered(AT_ONCE);
        made.try_for_each(|_| std::future::ready(Ok(()))).await?;
        for name in ["coordinator-1", "worker-1"] {
            let node = cluster.node(name)?;
            let begun = Instant::now();
            let first = get(node, "tasks?size=100", "").await?;
            let first_ms = begun.elapsed().as_millis();
            let begun = Instant::now();
            let found = get(node, "tasks?text=t-9999", "").await?.json()?;
            let search_ms = begun.elapsed().as_millis();
            figure(&format!("page_tasks_first_ms_{name}"), first_ms);
            figure(&format!("page_tasks_search_ms_{name}"), search_ms);
            let seen = first.json()?;
            ensure!(
                seen["matched"] == TASKS && seen["tasks"].as_array().is_some_and(|rows| rows.len() == 100),
                "{seen}"
            );
            ensure!(found["matched"] == 1, "{found}");
            ensure!(first_ms < 1000 && search_ms < 1000, "{first_ms} ms and {search_ms} ms from {name}");
            let tag = first.header("etag").context("a tag")?.to_string();
            let again = Asking { key: "", more: &[("If-None-Match", &tag)] };
            let again = send(node, "GET /page/api/tasks?size=100", again, "").await?;
            ensure!(again.status == 304, "{}", again.head);
            let queue = get(node, "queue", "").await?.json()?;
            let why = &queue["queue"][0]["why"]["blockers"][0];
            ensure!(queue["waiting"] == TASKS && why["reason"] == "QUOTA_RUNNING", "{queue}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn top_prints_one_frame() -> anyhow::Result<()> {
    let slow = reply("slow", &words(2000), "tokens_per_second = 20");
    let spec = Spec { coordinators: 1, workers: 1, ..spec(&[slow]) };
    on_cluster(spec, async |cluster| {
        let client = cluster.client()?;
        apply(&client, &["slow"]).await?;
        client.quotas().set("projects/default").limit("running", Some(1)).send().await?;
        for id in ["first", "second"] {
            client.tasks().create("slow").input("x").task_id(id).send().await?;
        }
        let endpoint = cluster.node("coordinator-1")?.address();
        let frame = until("both are where they belong", PATIENCE, || async {
            let output = cli(&endpoint, &["top", "--once"]).await.ok()?;
            let text = String::from_utf8(output.stdout).ok()?;
            (text.contains("running") && text.contains("interactive        1")).then_some(text)
        })
        .await?;
        for part in [
            "worker-1",
            "coordinator-1 leads",
            "AT WORK",
            "first",
            "projects/default",
            "100 %",
            "NEAR THE LIMIT",
        ] {
            ensure!(frame.contains(part), "{part} is not in\n{frame}");
        }
        ensure!(
            !frame.contains('\u{1b}') && frame.lines().all(|line| line.chars().count() <= 120),
            "{frame}"
        );
        let output = cli(&endpoint, &["top", "-o", "json"]).await?;
        let seen: Value = serde_json::from_slice(&output.stdout)?;
        ensure!(seen["running"][0]["agent"] == "slow" && seen["near"][0]["percent"] == 100, "{seen}");
        Ok(())
    })
    .await
}
