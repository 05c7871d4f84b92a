//! What operators do: limits tried before they are set, prices, closed nodes, the audit log, reports; and that a change
//! is obeyed at once.

use crate::bad_input::{fails, says};
use crate::support::*;
use anyhow::{Context, ensure};
use quorate_sdk::data::{CostGroup, QuotaEvent, WhatIf};
use quorate_sdk::{AuditEvent, Client, Code, EventKind, Node, Price, Quota, Task, TaskState};
use quorate_tests::{Cluster, Spec, until};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::time::timeout;

const PROJECT: &str = "projects/default";
/// A change holds on all reachable workers within this time.
const OBEYED_MS: u64 = 100;

fn with_an_unpriced_model() -> Spec {
    let replies = [reply("quick", "Understood.", ""), reply("writer", &words(50), "tokens_per_second = 200")];
    let mut spec = spec(&replies);
    spec.scripts.push(("free".into(), format!("window = 65536\n{}", reply("giver", "For nothing.", ""))));
    spec
}

#[tokio::test]
async fn money_pauses_wakes_and_is_reported() -> anyhow::Result<()> {
    on_cluster(with_an_unpriced_model(), async |cluster| {
        let client = cluster.client()?;
        apply(&client, &["quick", "writer"]).await?;
        client.agents().apply("name = \"giver\"\nmodel = \"free\"\nmax_tokens = 100\n").send().await?;
        mistakes_change_nothing(cluster).await?;
        paid_by_the_token(cluster).await?;
        unknown_prices_are_refused(&client).await?;
        own_limits(&client).await?;
        trials(&client).await?;
        everything_is_in_the_audit_log(cluster).await
    })
    .await
}

/// Everything that a refused change could have changed.
#[derive(PartialEq, Debug)]
struct Seen {
    quotas: Vec<Quota>,
    prices: Vec<Price>,
    audit: Vec<AuditEvent>,
    nodes: Vec<(String, String)>,
}

impl Seen {
    async fn now(client: &Client) -> anyhow::Result<Seen> {
        let nodes = client.cluster().nodes().await?;
        Ok(Seen {
            quotas: client.quotas().list().await?,
            prices: client.prices().list().await?,
            audit: client.cluster().audit(0, "").await?.0,
            nodes: nodes.into_iter().map(|node| (node.name, node.state)).collect(),
        })
    }
}

/// What the door refuses doesn't reach the log, so that not even the state's hash moves; what the ledger refuses is in
/// the log and changes no row.
async fn mistakes_change_nothing(cluster: &Cluster) -> anyhow::Result<()> {
    let client = cluster.client()?;
    let at = cluster.node("worker-1")?.endpoint();
    let set = client.quotas().set(PROJECT).limit("running", Some(50)).limit("running_guaranteed", Some(10));
    let set = set.limit("memory_bytes", Some(4 << 30)).reason("first").request_id("used").send().await?;
    let before = Seen::now(&client).await?;
    let hash = state_hash(cluster).await?;
    for (change, words) in [
        ("running=-1", "whole number"),
        ("memory_bytes=4apples", "KiB"),
        ("micro_usd_day=2.5eur", "usd"),
        ("tokens_total=99999999999999999999999", "too large"),
    ] {
        says(&fails(&at, &["quota", "set", PROJECT, change], 2, "USAGE").await?, &[words])?;
    }
    let unknown = ["quota", "set", PROJECT, "colours=9"];
    says(&fails(&at, &unknown, 2, "INVALID_ARGUMENT").await?, &["colours", "micro_usd", "_guaranteed"])?;
    let preview = ["quota", "set", PROJECT, "running=20", "--dry-run"];
    ensure!(cli(&at, &preview).await?.status.success());
    says(
        &fails(&at, &["quota", "set", "nowhere", "running=1", "--dry-run"], 2, "INVALID_ARGUMENT").await?,
        &["nowhere"],
    )?;
    ensure!(state_hash(cluster).await? == hash, "a request that the door refuses changed the state");

    let over_lent = ["quota", "set", PROJECT, "running_lend=11"];
    says(&fails(&at, &over_lent, 2, "INVALID_ARGUMENT").await?, &["11", "10", "nobody lends"])?;
    let above = ["quota", "set", PROJECT, "running_guaranteed=51"];
    says(&fails(&at, &above, 2, "INVALID_ARGUMENT").await?, &["51", "limit of 50"])?;
    let late = ["quota", "set", PROJECT, "running=9", "--etag", "99"];
    says(&fails(&at, &late, 6, "WRONG_ETAG").await?, &["read it again"])?;
    let reused = ["quota", "set", PROJECT, "running=8", "--request-id", "used"];
    says(&fails(&at, &reused, 6, "REQUEST_ID_REUSED").await?, &["used"])?;
    says(
        &fails(&at, &["quota", "set", "tasks/t_nothing", "running=1"], 2, "INVALID_ARGUMENT").await?,
        &["task"],
    )?;
    let weight = ["quota", "set", "cluster", "weight=2"];
    says(&fails(&at, &weight, 2, "INVALID_ARGUMENT").await?, &["projects/NAME"])?;
    let dear = ["price", "set", "m", "input=100000usd"];
    says(&fails(&at, &dear, 2, "INVALID_ARGUMENT").await?, &["micro-dollars"])?;
    says(&fails(&at, &["price", "get", "nothing"], 3, "NOT_FOUND").await?, &["nothing"])?;
    says(&fails(&at, &["node", "drain", "n99"], 3, "NOT_FOUND").await?, &["n99"])?;
    ensure!(Seen::now(&client).await? == before, "a refused change changed something");

    // The same request again is answered as the first time, and changes nothing either.
    let again = client.quotas().set(PROJECT).limit("running", Some(50)).limit("running_guaranteed", Some(10));
    let again = again.limit("memory_bytes", Some(4 << 30)).reason("first").request_id("used").send().await?;
    ensure!(again == set && Seen::now(&client).await? == before, "{again:?}");
    client.quotas().set(PROJECT).limit("running", None).limit("running_guaranteed", None).send().await?;
    Ok(())
}

/// Of one node's state, when it has applied all that is committed.
async fn state_hash(cluster: &Cluster) -> anyhow::Result<String> {
    let client = cluster.client_of("coordinator-1")?;
    until("an idle log", PATIENCE, || async {
        let (first, second) = (client.cluster().status().await.ok()?, client.cluster().status().await.ok()?);
        let quiet = first.committed_index == second.state_hash_index && first.state_hash == second.state_hash;
        quiet.then_some(second.state_hash)
    })
    .await
}

async fn set(client: &Client, path: &str, key: &str, limit: Option<u64>) -> anyhow::Result<Quota> {
    Ok(client.quotas().set(path).limit(key, limit).reason("money").send().await?)
}

async fn out_of(client: &Client, task: &str, resource: &str) -> anyhow::Result<Task> {
    let wanted = format!("BUDGET: {resource}");
    let fits = |task: &Task| task.state == TaskState::Paused && task.state_reason == wanted;
    until(&wanted, PATIENCE, || async { client.tasks().get(task).await.ok().filter(fits) }).await
}

/// A token costs a micro-dollar, whether read or said.
async fn paid_by_the_token(cluster: &Cluster) -> anyhow::Result<()> {
    let client = cluster.client()?;
    let at = cluster.node("worker-2")?.endpoint();
    let price = ["price", "set", MODEL, "input=1usd", "cached=0", "output=1usd", "--reason", "by the token"];
    ensure!(cli(&at, &price).await?.status.success());
    let before = client.quotas().get(PROJECT).await?.limits.get("micro_usd_total").map_or(0, |it| it.used);
    set(&client, PROJECT, "micro_usd_total", Some(before + 20)).await?;
    let mut watch = client.quotas().watch(PROJECT);
    // The first place that is told says that it listens.
    timeout(PATIENCE, watch.next()).await??;
    let task = client.tasks().create("writer").input("go on").send().await?.uid;
    let paused = out_of(&client, &task, "micro_usd_total").await?;
    ensure!(paused.usage.micro_usd <= 20 && paused.usage.generated_tokens > 0, "{paused:?}");
    let why = client.tasks().explain(&task).await?;
    let blocker = why.blockers.first().context("nothing blocks")?;
    ensure!(blocker.resource == "projects/default micro_usd_total", "{blocker:?}");
    let crossed = timeout(PATIENCE, crossed(&mut watch, 100)).await.context("100 % was not told")??;
    ensure!(crossed.subject == PROJECT && crossed.author.is_empty(), "{crossed:?}");

    set(&client, PROJECT, "micro_usd_total", Some(before + 10_000)).await?;
    let done = succeeded(&client, &task).await?;
    ensure!(client.tasks().result(&done).await? == words(50), "{done:?}");
    let quota = client.quotas().get(PROJECT).await?.limits["micro_usd_total"];
    ensure!(quota.reserved == 0 && quota.overage == 0, "{quota:?}");
    for group in [CostGroup::Project, CostGroup::Agent, CostGroup::Model, CostGroup::Task, CostGroup::Day] {
        let report = client.prices().cost(group).send().await?;
        let sum: u64 = report.lines.iter().map(|line| line.usage.micro_usd).sum();
        ensure!(sum == quota.used && report.total.usage.micro_usd == sum, "{group:?}: {report:?}, {quota:?}");
    }
    let said = cli(&at, &["cost", "report", "--by", "task", "--since", "1h", "-o", "csv"]).await?;
    let csv = String::from_utf8_lossy(&said.stdout).into_owned();
    let line = format!("tasks/{task},{},1,{},", done.usage.micro_usd, done.step);
    ensure!(csv.contains(&line), "{csv} has no {line}");
    figure("admin_micro_usd_reported", quota.used);
    Ok(())
}

async fn crossed(watch: &mut quorate_sdk::QuotaWatch, percent: u32) -> anyhow::Result<AuditEvent> {
    loop {
        match watch.next().await? {
            QuotaEvent::Audit(event)
                if event.action == "quota.crossed" && event.change.contains(&format!("{percent} %")) =>
            {
                return Ok(event);
            }
            QuotaEvent::Audit(_) | QuotaEvent::Quota(_) => {}
        }
    }
}

async fn unknown_prices_are_refused(client: &Client) -> anyhow::Result<()> {
    let task = client.tasks().create("giver").input("x").send().await?.uid;
    out_of(client, &task, "unknown_price").await?;
    let why = client.tasks().explain(&task).await?;
    ensure!(why.blockers.iter().any(|blocker| blocker.reason == "UNKNOWN_PRICE"), "{why:?}");
    let price = client.prices().set("free").etag("0").reason("a gift").send().await?;
    ensure!((price.input, price.output, price.etag.as_str()) == (0, 0, "1"), "{price:?}");
    succeeded(client, &task).await?;
    let taken = client.prices().set("free").input(1).etag("0").send().await;
    crate::submit::refused(taken, Code::Aborted, "WRONG_ETAG")?;
    Ok(())
}

/// A task's own budget holds at its own place of the tree, and can be raised there.
async fn own_limits(client: &Client) -> anyhow::Result<()> {
    let create = client.tasks().create("writer").input("go on").limit("tokens_total", 15);
    let task = create.send().await?.uid;
    out_of(client, &task, "tokens_total").await?;
    let path = format!("tasks/{task}");
    let why = client.tasks().explain(&task).await?;
    let blocker = why.blockers.first().context("nothing blocks")?;
    ensure!(blocker.resource == format!("{path} tokens_total") && blocker.limit == 15, "{blocker:?}");
    let raised = blocker.limit + blocker.requested - blocker.available;
    let what_if = |limit| WhatIf { path: path.clone(), key: "tokens_total".into(), limit: Some(limit) };
    let held = client.tasks().explain_if(&task, &[what_if(raised - 1)]).await?;
    ensure!(held.task.state == TaskState::Paused && !held.blockers.is_empty(), "{held:?}");
    let freed = client.tasks().explain_if(&task, &[what_if(raised)]).await?;
    ensure!(freed.task.state == TaskState::Pending && freed.blockers.is_empty(), "{freed:?}");
    ensure!(client.tasks().get(&task).await?.state == TaskState::Paused, "a supposition woke it");
    set(client, &path, "tokens_total", Some(1_000)).await?;
    succeeded(client, &task).await?;
    Ok(())
}

/// Dry runs say what would be, and leave nothing behind.
async fn trials(client: &Client) -> anyhow::Result<()> {
    set(client, PROJECT, "running", Some(0)).await?;
    let before = (Seen::now(client).await?, client.tasks().list().page(None).await?.items.len());
    let trial = client.tasks().create("quick").input("x").task_id("trial").validate_only().send().await?;
    ensure!(trial.uid.is_empty() && trial.state == TaskState::Pending, "{trial:?}");
    ensure!(trial.pending.iter().any(|blocker| blocker.reason == "QUOTA_RUNNING"), "{trial:?}");
    let nobody = client.tasks().create("nobody").input("x").validate_only().send().await;
    crate::submit::refused(nobody, Code::NotFound, "NOT_FOUND")?;
    let negative =
        client.tasks().create("quick").input("x").limit("running_lend", 1).validate_only().send().await;
    crate::submit::refused(negative, Code::InvalidArgument, "INVALID_ARGUMENT")?;
    let after = client.tasks().create("quick").input("x").after("nothing").send().await;
    crate::submit::refused(after, Code::NotFound, "NOT_FOUND")?;
    ensure!(
        (Seen::now(client).await?, client.tasks().list().page(None).await?.items.len()) == before,
        "a trial left something behind"
    );
    let first = client.tasks().create("quick").input("x").task_id("trial").send().await?;
    let second = client.tasks().create("quick").input("y").after("trial").send().await?;
    let why = client.tasks().explain(&second.uid).await?;
    ensure!(
        why.blockers.iter().any(|blocker| blocker.reason == "AFTER" && blocker.resource == first.uid),
        "{why:?}"
    );
    set(client, PROJECT, "running", None).await?;
    succeeded(client, &second.uid).await?;
    ensure!(client.tasks().get("trial").await?.state == TaskState::Succeeded);
    Ok(())
}

async fn everything_is_in_the_audit_log(cluster: &Cluster) -> anyhow::Result<()> {
    let client = cluster.client_of("coordinator-3")?;
    let (all, next) = client.cluster().audit(0, "").await?;
    ensure!(next.is_none());
    let numbers: Vec<u64> = all.iter().map(|event| event.number).collect();
    ensure!(numbers == (1..=all.len() as u64).collect::<Vec<_>>(), "{numbers:?}");
    let has = |action: &str, subject: &str, change: &str, reason: &str| {
        let found = all.iter().any(|event| {
            (event.action.as_str(), event.subject.as_str(), event.reason.as_str())
                == (action, subject, reason)
                && event.change.contains(change)
                && !event.author.is_empty()
        });
        ensure!(found, "{action} {subject} {change} ({reason}) is missing in {all:#?}");
        Ok(())
    };
    has("quota.set", PROJECT, "running none -> 50, running_guaranteed none -> 10", "first")?;
    has("quota.set", PROJECT, "running 0 -> none", "money")?;
    has("price.set", MODEL, "none -> input 1000000 cached 0 output 1000000", "by the token")?;
    has("price.set", "free", "none -> input 0", "a gift")?;
    let (later, _) = client.cluster().audit(all.len() as u64 - 2, PROJECT).await?;
    ensure!(later.len() <= 2 && later.iter().all(|event| event.subject == PROJECT), "{later:?}");
    let said = cli(&cluster.node("worker-1")?.endpoint(), &["audit", "-o", "jsonl"]).await?;
    ensure!(String::from_utf8_lossy(&said.stdout).lines().count() == all.len(), "{said:?}");
    Ok(())
}

#[tokio::test]
async fn closed_nodes_get_nothing_and_drained_ones_lose_nothing() -> anyhow::Result<()> {
    let replies = [reply("quick", "Understood.", ""), reply("pacer", &words(160), "tokens_per_second = 20")];
    on_cluster(spec(&replies), async |cluster| {
        let client = cluster.client()?;
        apply(&client, &["quick", "pacer"]).await?;
        let task = client.tasks().create("pacer").input("go").send().await?.uid;
        let first = running_on(&client, &task, "").await?;
        let cordoned = client.cluster().cordon(&first).reason("a look").send().await?;
        ensure!(cordoned.state == "cordoned", "{cordoned:?}");
        let other = if first == "worker-1" { "worker-2" } else { "worker-1" };
        for _ in 0..6 {
            let quick = client.tasks().create("quick").input("x").send().await?.uid;
            let mut watch = client.tasks().watch(&quick);
            let events = watch_to_end(&mut watch).await?;
            ensure!(events.iter().filter_map(runs_on).all(|node| node == other), "{events:?}");
        }
        ensure!(running_on(&client, &task, "").await? == first, "a cordon moves nothing");
        drained(cluster, &client, &task, &first, other).await
    })
    .await
}

async fn drained(cluster: &Cluster, client: &Client, task: &str, from: &str, to: &str) -> anyhow::Result<()> {
    let drain = ["node", "drain", from, "--grace", "200ms", "--reason", "disk", "-o", "json"];
    let said = cli(&cluster.node("worker-1")?.endpoint(), &drain).await?;
    ensure!(said.status.success() && String::from_utf8_lossy(&said.stdout).contains("draining"), "{said:?}");
    running_on(client, task, to).await?;
    let done = succeeded(client, task).await?;
    ensure!(client.tasks().result(&done).await? == words(160), "{done:?}");
    let (events, _) = client.cluster().audit(0, "nodes").await?;
    let words: Vec<_> = events.iter().map(|it| (it.change.as_str(), it.reason.as_str())).collect();
    ensure!(words == [("open -> cordoned", "a look"), ("cordoned -> draining", "disk")], "{events:?}");
    let open: Node = client.cluster().uncordon(from).reason("new disk").send().await?;
    ensure!(open.state == "ready", "{open:?}");
    let failed = client.tasks().list().filter("state=FAILED").page(None).await?.items;
    ensure!(failed.is_empty(), "{failed:?}");
    Ok(())
}

/// The node that runs the task; any, where none is named.
async fn running_on(client: &Client, task: &str, wanted: &str) -> anyhow::Result<String> {
    until("it runs there", PATIENCE, || async {
        let task = client.tasks().get(task).await.ok()?;
        let node = task.node.filter(|_| task.state == TaskState::Running)?;
        (wanted.is_empty() || node == wanted).then_some(node)
    })
    .await
}

/// Small tasks all the time, and limits that go to nothing and come back: after the change is acknowledged no lease
/// begins and nothing is set aside, whatever was under way.
#[tokio::test]
async fn a_change_of_limits_is_obeyed_at_once() -> anyhow::Result<()> {
    let replies = [reply("brief", &words(4), "tokens_per_second = 100")];
    on_cluster(spec(&replies), async |cluster| {
        let client = cluster.client()?;
        apply(&client, &["brief"]).await?;
        let stop = AtomicBool::new(false);
        let rounds = rounds("ADMIN_ROUNDS").max(15);
        let (load, changes) = tokio::join!(keep_busy(&client, &stop), async {
            let changes = changes(cluster, rounds).await;
            stop.store(true, Ordering::Relaxed);
            changes
        });
        let (tasks, changes) = (load?, changes?);
        let grants = grants(&client, &tasks).await?;
        obeyed(&client, &changes, &grants).await
    })
    .await
}

async fn keep_busy(client: &Client, stop: &AtomicBool) -> anyhow::Result<Vec<String>> {
    let mut tasks = vec![];
    while !stop.load(Ordering::Relaxed) {
        let mut waiting = 0;
        for state in ["state=PENDING", "state=PAUSED"] {
            waiting += client.tasks().list().filter(state).page_size(100).page(None).await?.items.len();
        }
        let missing = 40usize.saturating_sub(waiting).min(8);
        for _ in 0..missing {
            tasks.push(client.tasks().create("brief").input("x").send().await?.uid);
        }
    }
    Ok(tasks)
}

/// A cut that was acknowledged, by this machine's clock, which is the leader's too.
struct Change {
    reason: String,
    returned_ms: u64,
}

async fn changes(cluster: &Cluster, rounds: u32) -> anyhow::Result<Vec<Change>> {
    let client = cluster.client()?;
    let mut done = vec![];
    for round in 0..rounds {
        let key = if round % 2 == 0 { "running" } else { "tokens_total" };
        until("tasks run", PATIENCE, || async {
            let quota = client.quotas().get(PROJECT).await.ok()?;
            (quota.limits["running"].used > 4).then_some(())
        })
        .await?;
        let reason = format!("cut {round}");
        // As a node that does not lead hears of it.
        let node = names(cluster)[round as usize % cluster.nodes.len()].clone();
        let there = cluster.client_of(&node)?;
        let at_cut = there.quotas().set(PROJECT).limit(key, Some(0)).reason(&reason).send().await?;
        done.push(Change { reason, returned_ms: now_ms() });
        shrinks_only(&client, key, &at_cut).await?;
        client.quotas().set(PROJECT).limit(key, None).reason(format!("raise {round}")).send().await?;
    }
    Ok(done)
}

/// What is held and set aside at the cut may only become less, until nothing is.
async fn shrinks_only(client: &Client, key: &str, at_cut: &Quota) -> anyhow::Result<()> {
    let mut most = taken(at_cut, key);
    loop {
        let now = client.quotas().get(PROJECT).await?;
        ensure!(taken(&now, key) <= most, "{key} grew from {most} after the cut: {now:?}");
        most = taken(&now, key);
        // Without tokens leases begin, ask, and pause; without slots nothing is held any more.
        let held = if key == "running" { now.limits[key].used } else { now.limits[key].reserved };
        if held == 0 {
            return Ok(());
        }
    }
}

fn taken(quota: &Quota, key: &str) -> u64 {
    quota.limits.get(key).map_or(0, |it| it.used + it.reserved)
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_millis() as u64)
}

/// When leases began, from the committed events of all tasks.
async fn grants(client: &Client, tasks: &[String]) -> anyhow::Result<Vec<u64>> {
    let mut grants = vec![];
    for task in tasks {
        succeeded(client, task).await?;
        let mut watch = client.tasks().watch(task).without_tokens();
        for event in watch_to_end(&mut watch).await? {
            if let EventKind::State { state: TaskState::Running, .. } = event.kind {
                grants.push(event.at_ms);
            }
        }
    }
    grants.sort_unstable();
    Ok(grants)
}

/// Between the stamp of a cut and that of the raise behind it, no lease begins.
async fn obeyed(client: &Client, changes: &[Change], grants: &[u64]) -> anyhow::Result<()> {
    let mut audit = vec![];
    let mut after = 0;
    loop {
        let (events, next) = client.cluster().audit(after, PROJECT).await?;
        audit.extend(events.into_iter().filter(|event| event.action == "quota.set"));
        match next {
            Some(next) => after = next,
            None => break,
        }
    }
    let mut late_ms = vec![];
    for change in changes {
        let at =
            audit.iter().position(|event| event.reason == change.reason).context("the cut is audited")?;
        let (cut_ms, raised_ms) =
            (audit[at].time.0, audit.get(at + 1).context("the raise is audited")?.time.0);
        let is_running = audit[at].change.starts_with("running");
        let inside: Vec<u64> = grants.iter().copied().filter(|ms| *ms > cut_ms && *ms < raised_ms).collect();
        // A cut of tokens stops model calls; leases begin, ask, and pause.
        ensure!(!is_running || inside.is_empty(), "leases began after {}: {inside:?}", change.reason);
        if is_running {
            let last = grants.iter().copied().filter(|ms| *ms < raised_ms).max().unwrap_or(0);
            late_ms.push(last.saturating_sub(change.returned_ms));
        }
    }
    late_ms.sort_unstable();
    let p99 = late_ms[(late_ms.len() * 99).div_ceil(100).saturating_sub(1)];
    figure("quota_change_obeyed_ms_p99", p99);
    figure("quota_changes_under_load", changes.len());
    figure("leases_granted_under_changes", grants.len());
    ensure!(p99 <= OBEYED_MS, "a change was obeyed after {p99} ms: {late_ms:?}");
    ensure!(grants.len() > changes.len() * 4, "only {} leases: there was no load", grants.len());
    Ok(())
}
