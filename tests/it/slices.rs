//! Slices of quotas: requests that cost no log entry each, and no token too many for that.

use crate::front::{answer, body, chat, first_words, idle, keys, limit, set, settled, spec};
use crate::support::*;
use anyhow::{Context, ensure};
use quorate_tests::{Cluster, Process, Spec, until};
use std::time::Duration;
use tokio::time::Instant;

const CHAT: &str = "/v1/chat/completions";
const PATH: &str = "projects/a";
/// Of the prompt "hi" and its role.
const PROMPT: u64 = 2;
/// A changed limit is heard everywhere within this time, on a busy machine too.
const HEARD: Duration = Duration::from_secs(1);

/// What an answer cost; `None`: it was refused for want of budget.
fn cost(answer: &str) -> anyhow::Result<Option<u64>> {
    if answer.starts_with("HTTP/1.1 429") {
        return Ok(None);
    }
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let number = |key: &str| {
        let (_, rest) = answer.split_once(&format!("\"{key}\":"))?;
        rest.trim_start().split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
    };
    let total = number("total_tokens").context("an answer says what it used")?;
    Ok(Some(total - number("cached_tokens").unwrap_or(0)))
}

async fn ask(node: &Process, key: &str, max_tokens: u32) -> anyhow::Result<Option<u64>> {
    cost(&answer(node, key, "POST", CHAT, &body(max_tokens, "hi", false)).await?)
}

/// Asks the nodes in turn until the budget is used up; answers what was used, and by how many requests.
async fn until_refused(nodes: &[&Process], key: &str, first: usize) -> anyhow::Result<(u64, u64)> {
    let (mut used, mut requests) = (0, 0);
    loop {
        match ask(nodes[(first + requests as usize) % nodes.len()], key, 7).await? {
            Some(cost) => (used, requests) = (used + cost, requests + 1),
            None => return Ok((used, requests)),
        }
    }
}

/// A count on a node's page, which needs the key of every project here.
async fn count(node: &Process, everybody: &str, name: &str) -> anyhow::Result<u64> {
    let page = answer(node, everybody, "GET", "/metrics", "").await?;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("{name} is not in {page}"))?.trim().parse()?)
}

async fn sum(cluster: &Cluster, everybody: &str, name: &str) -> anyhow::Result<u64> {
    let mut sum = 0;
    for node in &cluster.nodes {
        sum += count(node, everybody, name).await?;
    }
    Ok(sum)
}

#[tokio::test]
async fn requests_share_log_entries() -> anyhow::Result<()> {
    const REQUESTS: u64 = 500;
    const AT_ONCE: u64 = 5;
    on_cluster(spec(), async |cluster| {
        let (keys, admin) = (keys(cluster).await?, cluster.client()?);
        let (worker, leader) = (cluster.node("worker-1")?, cluster.node("coordinator-1")?);
        let index = async || count(leader, &keys.everybody, "quorate_applied_index").await;
        let (before, begun) = (index().await?, Instant::now());
        let some = |_| async {
            let mut used = 0;
            for _ in 0..REQUESTS / AT_ONCE {
                used += ask(worker, &keys.mine, 20).await?.context("there is no limit")?;
            }
            anyhow::Ok(used)
        };
        let used: u64 = futures::future::try_join_all((0..AT_ONCE).map(some)).await?.into_iter().sum();
        let (entries, took) = (index().await? - before, begun.elapsed());
        ensure!(settled(&admin).await? == used, "told {used}");
        figure("slices_requests", REQUESTS);
        figure("slices_log_entries", entries);
        figure("slices_requests_a_second", (REQUESTS as f64 / took.as_secs_f64()).round());
        ensure!(entries * 5 < REQUESTS, "{entries} entries for {REQUESTS} requests");
        let sum = async |name| sum(cluster, &keys.everybody, name).await;
        let (served, turns) =
            (sum("quorate_slice_requests_total").await?, sum("quorate_slice_turns_total").await?);
        ensure!(served > 400 && turns <= entries + 2, "{served} served from slices, {turns} turns");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn two_nodes_share_a_budget_to_the_last_token() -> anyhow::Result<()> {
    const BUDGET: u64 = 2_000;
    on_cluster(spec(), async |cluster| {
        let (keys, admin) = (keys(cluster).await?, cluster.client()?);
        set(&admin, PATH, "tokens_total", Some(BUDGET)).await?;
        let workers = [cluster.node("worker-1")?, cluster.node("worker-2")?];
        let callers = (0..4).map(|first| until_refused(&workers, &keys.mine, first));
        let watching = async {
            let mut look = tokio::time::interval(Duration::from_millis(20));
            loop {
                look.tick().await;
                let tokens = limit(&admin, PATH, "tokens_total").await?;
                ensure!(tokens.used + tokens.reserved <= BUDGET, "{tokens:?} of {BUDGET}");
            }
        };
        let done = tokio::select! {
            done = futures::future::try_join_all(callers) => done?,
            watched = watching => return watched,
        };
        let used: u64 = done.iter().map(|(used, _)| used).sum();
        idle(&admin, PATH).await?;
        let tokens = limit(&admin, PATH, "tokens_total").await?;
        ensure!(tokens.used == used && used <= BUDGET, "{tokens:?}, told {used} of {BUDGET}");
        figure("slices_budget_left_tokens", BUDGET - used);
        ensure!(BUDGET - used <= PROMPT, "{used} of {BUDGET}: of what is left an answer could be paid");
        for worker in workers {
            let turns = count(worker, &keys.everybody, "quorate_slice_turns_total").await?;
            ensure!(turns > 1, "{} had no slice", worker.name);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_a_killed_node_did_not_use_comes_back_once() -> anyhow::Result<()> {
    const BUDGET: u64 = 100_000;
    on_cluster(Spec { workers: 1, ..spec() }, async |cluster| {
        let (keys, admin) = (keys(cluster).await?, cluster.client()?);
        set(&admin, PATH, "tokens_total", Some(BUDGET)).await?;
        let mut open = chat(cluster.node("worker-1")?, &keys.mine, &body(1_000, "slowly", true)).await?;
        first_words(&mut open).await?;
        let mut told = 0;
        // With each turn of the slice there is more in it than its requests need.
        for _ in 0..40 {
            told += ask(cluster.node("worker-1")?, &keys.mine, 100).await?.context("within the budget")?;
        }
        let held = limit(&admin, PATH, "tokens_total").await?;
        ensure!(held.reserved > 1_500, "{held:?}");
        cluster.node_mut("worker-1")?.kill()?;
        let lost = settled(&admin).await?;
        ensure!(lost <= held.used + held.reserved && lost <= BUDGET, "{lost} used, {held:?} before");
        cluster.node_mut("worker-1")?.start()?;
        cluster.wait_ready(2).await?;
        let back = until("the rest comes back", PATIENCE, async || {
            let used = limit(&admin, PATH, "tokens_total").await.ok()?.used;
            (used < lost).then_some(used)
        })
        .await?;
        ensure!(back >= told + PROMPT, "{back} used, the answers that ended used {told}");
        figure("slices_refunded_tokens", lost - back);
        for _ in 0..2 {
            cluster.node_mut("worker-1")?.stop()?;
            cluster.node_mut("worker-1")?.start()?;
            cluster.wait_ready(2).await?;
        }
        let more = ask(cluster.node("worker-1")?, &keys.mine, 10).await?.context("within the budget")?;
        idle(&admin, PATH).await?;
        let now = limit(&admin, PATH, "tokens_total").await?.used;
        ensure!(now == back + more, "{now} used, {back} before and {more} since: it came back once");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_cut_is_obeyed_at_once() -> anyhow::Result<()> {
    on_cluster(spec(), async |cluster| {
        let (keys, admin) = (keys(cluster).await?, cluster.client()?);
        set(&admin, PATH, "tokens_total", Some(1_000_000)).await?;
        let worker = cluster.node("worker-1")?;
        for _ in 0..60 {
            ask(worker, &keys.mine, 50).await?.context("within the budget")?;
        }
        set(&admin, PATH, "tokens_total", Some(10)).await?;
        let cut = Instant::now();
        while ask(worker, &keys.mine, 50).await?.is_some() {
            ensure!(cut.elapsed() < HEARD, "requests go on after the cut");
        }
        figure("slices_cut_obeyed_ms", cut.elapsed().as_millis());
        idle(&admin, PATH).await?;
        set(&admin, PATH, "tokens_total", None).await?;
        ensure!(ask(worker, &keys.mine, 50).await?.is_some(), "and a raise is heard as well");
        Ok(())
    })
    .await
}
