//! Many at once: a tree of two hundred tasks that is cancelled, a thousand held back over the death of all processes,
//! a watch whose connection breaks again and again.

use crate::quotas::{kill_all, start_all};
use crate::support::*;
use crate::tools::{Noted, sink};
use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use quorate_sdk::{Client, Event, EventKind, Task, TaskState};
use quorate_tests::{Cluster, Spec, ports, until};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};

/// Callers at the same time.
const AT_ONCE: usize = 16;

/// Children of the root, and of each of them.
const BRANCHES: usize = 8;
const LEAVES: usize = 24;
const TREE: usize = 1 + BRANCHES + BRANCHES * LEAVES;

fn spawns(agent: &str, child: &str, count: usize) -> String {
    let call = format!("{{ name = 'spawn', arguments = '{{\"agent\": \"{child}\", \"input\": \"go\"}}' }}");
    format!(
        "[[reply]]\nwhen_agent = {agent:?}\nwhen_results_below = 1\ncalls = [{}]\n[[reply]]\nwhen_agent = {agent:?}\n\
         text = 'All are back.'\n",
        vec![call; count].join(", ")
    )
}

#[tokio::test]
async fn a_cancelled_tree_starts_nothing_more() -> anyhow::Result<()> {
    let leaf = reply("leaf", &words(2000), "tokens_per_second = 20");
    let scripts = [spawns("root", "branch", BRANCHES), spawns("branch", "leaf", LEAVES), leaf];
    let spec = Spec { workers: 3, slots: 12, ..spec(&scripts) };
    on_cluster(spec, async |cluster| {
        let mut all_ms = Vec::new();
        for round in 0..rounds("QUORATE_TREES") {
            // Somewhere between the first child and the moment when all that has room runs.
            let seen = if round == 0 { TREE } else { 2 + round.wrapping_mul(2_654_435_761) as usize % TREE };
            all_ms.extend(cancel_tree(cluster, round, seen.min(TREE)).await?);
        }
        all_ms.sort_unstable();
        let p99_ms = all_ms[all_ms.len() * 99 / 100];
        figure("tree_cancels", all_ms.len());
        figure("tree_cancel_p50_ms", all_ms[all_ms.len() / 2]);
        figure("tree_cancel_p99_ms", p99_ms);
        // A debug build beside other tests is no measure of speed.
        let limit_ms = if cfg!(debug_assertions) { 3_000 } else { 200 };
        ensure!(p99_ms <= limit_ms, "from CANCELLING to CANCELLED {p99_ms} ms (p99)");
        Ok(())
    })
    .await
}

/// How long each task of the tree took from CANCELLING to CANCELLED.
async fn cancel_tree(cluster: &Cluster, round: u32, seen: usize) -> anyhow::Result<Vec<u64>> {
    let client = cluster.client()?.with_project(&format!("tree-{round}"))?;
    for (name, tools) in [("root", "['spawn']"), ("branch", "['spawn']"), ("leaf", "[]")] {
        apply_with(&client, name, &format!("max_tokens = 20000\ntools = {tools}")).await?;
    }
    let root = client.tasks().create("root").input("go").send().await?;
    until("tasks of the tree", PATIENCE, || async {
        (everyone(&client).await.ok()?.len() >= seen).then_some(())
    })
    .await?;
    client.tasks().cancel(&root.uid).await?;
    let done = ended(&client, &root.uid).await?;
    ensure!(done.state == TaskState::Cancelled, "{done:?}");
    let tree = everyone(&client).await?;
    ensure!(tree.len() >= seen, "{} tasks, {seen} were there before", tree.len());
    let asked = tree.iter().map(|task| history(&client, &task.uid));
    let histories: Vec<Vec<Event>> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
    let over_ms = histories.iter().filter_map(|events| events.last()).map(|event| event.at_ms).max();
    let over_ms = over_ms.context("histories")?;
    ensure!(everyone(&client).await?.len() == tree.len(), "a task was started after the end");
    for events in &histories {
        let last = events.last().and_then(Event::final_state);
        ensure!(last == Some(TaskState::Cancelled), "a task of the tree ended {last:?}: {events:#?}");
        let late = events.iter().find(|event| runs_on(event).is_some() && event.at_ms > over_ms);
        ensure!(late.is_none(), "{late:?} after CANCELLED");
    }
    Ok(histories.iter().filter_map(|events| cancel_ms(events)).collect())
}

async fn everyone(client: &Client) -> anyhow::Result<Vec<Task>> {
    Ok(client.tasks().list().all().try_collect().await?)
}

async fn history(client: &Client, id: &str) -> anyhow::Result<Vec<Event>> {
    watch_to_end(&mut client.tasks().watch(id).without_tokens()).await
}

/// None where nothing of it was under way: it went from waiting to CANCELLED.
fn cancel_ms(events: &[Event]) -> Option<u64> {
    let at = |wanted: TaskState| {
        let is = |event: &&Event| matches!(event.kind, EventKind::State { state, .. } if state == wanted);
        events.iter().find(is).map(|event| event.at_ms)
    };
    Some(at(TaskState::Cancelled)?.saturating_sub(at(TaskState::Cancelling)?))
}

/// Tasks that run when everything dies, and tasks that wait.
const RUNNING: u64 = 16;
const QUEUED: usize = 1_000;
const PAUSED: &str = "projects/default/agents/writer";

#[tokio::test]
async fn a_paused_agent_stays_paused_over_the_death_of_all() -> anyhow::Result<()> {
    let scripts = [reply("writer", &words(8), "delay_ms = 600"), reply("other", "Here.", "")];
    on_cluster(Spec { slots: 32, ..spec(&scripts) }, async |cluster| {
        let client = cluster.client()?;
        apply(&client, &["writer", "other"]).await?;
        client.quotas().set(PAUSED).limit("running", Some(RUNNING)).send().await?;
        let order = |n: usize| client.tasks().create("writer").input("go").task_id(format!("t-{n}")).send();
        let made = stream::iter((0..RUNNING as usize + QUEUED).map(order)).buffer_unordered(AT_ONCE);
        made.try_collect::<Vec<_>>().await?;
        client.quotas().set(PAUSED).limit("running", Some(0)).reason("hold everything").send().await?;
        let before = everyone(&client).await?;
        kill_all(cluster)?;
        start_all(cluster).await?;
        until("the leases of the dead to end", PATIENCE, || async {
            let running = client.tasks().list().filter("agent=writer state=RUNNING").page(None).await.ok()?;
            running.items.is_empty().then_some(())
        })
        .await?;
        // Whoever has room is served at once, so that what is not started is held back and not merely late.
        let other = client.tasks().create("other").input("go").send().await?;
        succeeded(&client, &other.uid).await?;
        nothing_began(&client, &before).await?;
        let left = everyone(&client).await?.iter().filter(|task| !task.state.is_final()).count();
        figure("held_back", left);
        ensure!(left > QUEUED / 2, "only {left} were left to be held back");
        let why = client.tasks().explain(&format!("t-{}", RUNNING as usize + QUEUED - 1)).await?;
        ensure!(
            why.blockers
                .iter()
                .any(|blocker| blocker.resource == format!("{PAUSED} running") && blocker.limit == 0),
            "{why:?}"
        );

        client.quotas().set(PAUSED).limit("running", Some(RUNNING)).send().await?;
        let mut most = 0;
        until("some to be done", PATIENCE, || async {
            let quota = client.quotas().get(PAUSED).await.ok()?;
            Some(quota.limits["running"].used).filter(|used| *used > 0)
        })
        .await?;
        for _ in 0..20 {
            most = most.max(client.quotas().get(PAUSED).await?.limits["running"].used);
        }
        ensure!(most <= RUNNING, "{most} ran at the same time");
        Ok(())
    })
    .await
}

/// A start is an event, and so is its end: a task that had neither, or only the end of what ran before, did not begin.
async fn nothing_began(client: &Client, before: &[Task]) -> anyhow::Result<()> {
    let now: BTreeMap<String, Task> =
        everyone(client).await?.into_iter().map(|task| (task.uid.clone(), task)).collect();
    let mut counted = BTreeMap::new();
    for old in before.iter().filter(|task| !task.state.is_final()) {
        let new = now.get(&old.uid).context("a task is gone")?;
        // Who ran may have come to its end before all died, with its step: two events. To begin again takes more.
        let ends = match (old.state, new.state) {
            (TaskState::Running, TaskState::Succeeded) => 2,
            (TaskState::Running, _) => 1,
            _ => 0,
        };
        let ended = new.state.is_final() && ends < 2;
        ensure!(new.sequence <= old.sequence + ends && !ended, "{old:?} became {new:?}");
        *counted.entry(old.state.name()).or_insert(0) += 1;
    }
    eprintln!("not begun: {counted:?}");
    ensure!(counted.get("RUNNING").is_some_and(|count| *count > 0), "nothing ran that could begin again");
    Ok(())
}

/// Passes connections on to a port, and breaks each after some bytes of the answers, so many times.
struct Breaker {
    port: u16,
    left: Arc<AtomicUsize>,
}

impl Breaker {
    async fn before(to: u16, cuts: usize) -> anyhow::Result<Breaker> {
        let port = ports::free();
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let left = Arc::new(AtomicUsize::new(cuts));
        let count = left.clone();
        tokio::spawn(async move {
            for number in 0u64.. {
                let Ok((client, _)) = listener.accept().await else { return };
                tokio::spawn(pass(client, to, number, count.clone()));
            }
        });
        Ok(Breaker { port, left })
    }
}

/// Ends both ways when the answers are so long, or one side ends.
async fn pass(client: TcpStream, to: u16, number: u64, left: Arc<AtomicUsize>) -> std::io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", to)).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asking = tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
    let mut room = 700 + number.wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize % 2_500;
    let mut buffer = vec![0; 16 << 10];
    loop {
        let cuts = left.load(Ordering::Relaxed) > 0;
        let most = if cuts { room.min(buffer.len()) } else { buffer.len() };
        let read = from_server.read(&mut buffer[..most]).await?;
        to_client.write_all(&buffer[..read]).await?;
        room = room.saturating_sub(read);
        if read == 0 || (cuts && room == 0) {
            left.fetch_sub(usize::from(cuts && read > 0), Ordering::Relaxed);
            asking.abort();
            return Ok(());
        }
    }
}

#[tokio::test]
async fn a_watch_that_is_cut_again_and_again_tells_the_same() -> anyhow::Result<()> {
    let cuts = (rounds("QUORATE_WATCH_CUTS") as usize).max(40);
    let turns = cuts / 2 + 8;
    let noted = Noted::new()?;
    let script = format!(
        "[[reply]]\nwhen_results_below = {turns}\ntext = {:?}\ntokens_per_second = 100\n\
         calls = [{{ name = 'sink.put', arguments = '{{\"n\": {{results}}}}' }}]\n[[reply]]\ntext = {:?}\ntokens_per_second = 100\n",
        words(60),
        words(40)
    );
    let spec = Spec { more: sink(&noted.file()), workers: 1, ..spec(&[script]) };
    on_cluster(spec, async |cluster| {
        let client = cluster.client()?;
        apply_with(&client, "clerk", &format!("max_steps = {}\ntools = ['sink.put']", turns + 1)).await?;
        let breaker = Breaker::before(cluster.nodes[0].ports.clients, cuts).await?;
        let broken = Client::connect(&[format!("http://127.0.0.1:{}", breaker.port)])?;
        let task = client.tasks().create("clerk").input("go").send().await?;
        let seen = follow(client.clone(), task.uid.clone());
        let (seen, pieced) = tokio::try_join!(seen, follow(broken, task.uid.clone()))?;
        let left = breaker.left.load(Ordering::Relaxed);
        figure("watch_cuts", cuts - left);
        ensure!(left == 0, "{left} of {cuts} cuts were not made: the text is too short");
        ensure!(pieced.committed == seen.committed, "{:#?}\n{:#?}", pieced.committed, seen.committed);
        ensure!(pieced.text == seen.text, "{:#?}\n{:#?}", pieced.text, seen.text);
        ensure!(seen.text.len() == turns + 1, "{} texts", seen.text.len());
        ensure!(seen.text.values().next().is_some_and(|text| text == &words(60)), "{:?}", seen.text);
        Ok(())
    })
    .await
}

/// What somebody sees who follows a task: committed events, and the text of each step.
struct Seen {
    committed: Vec<Event>,
    text: BTreeMap<u64, String>,
}

async fn follow(client: Client, task: String) -> anyhow::Result<Seen> {
    let mut watch = client.tasks().watch(&task);
    let (mut committed, mut text) = (Vec::new(), BTreeMap::<u64, (u64, String)>::new());
    while let Some(event) = watch.next().await? {
        match &event.kind {
            EventKind::Token { step, offset, tokens, text: more, .. } => {
                let (end, whole) = text.entry(*step).or_default();
                ensure!(offset == end, "text of step {step} goes on at {offset}, not at {end}");
                *end += u64::from(*tokens);
                whole.push_str(more);
            }
            EventKind::Retract { step, .. } => drop(text.remove(step)),
            EventKind::Gap { .. } => anyhow::bail!("a gap: {event:?}"),
            EventKind::State { .. } | EventKind::Step { .. } => committed.push(event),
        }
    }
    check_sequence(&committed, 1)?;
    Ok(Seen { committed, text: text.into_iter().map(|(step, (_, whole))| (step, whole)).collect() })
}
