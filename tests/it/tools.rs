//! Agents with tools on real processes: what a killed worker repeats and what it must not, what people are asked and
//! for how long, what a cancel ends, what the shell may do.

use crate::quotas::{kill_all, start_all};
use crate::support::*;
use anyhow::{Context, ensure};
use quorate_sdk::data::{AskKind, Task};
use quorate_sdk::{Client, Code, EventKind, Plan, Say, TaskState};
use quorate_tests::{Cluster, Spec, until};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

const TURNS: usize = 30;

/// A worker's `[tools]`: the sink with its log in this file.
pub(crate) fn sink(log: &Path) -> String {
    let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/sink_mcp.py");
    format!("[tools.mcp.sink]\ncommand = [\"python3\", {:?}, {:?}]\nallow = [\"*\"]\n", server, log)
}

/// So many calls, one after the other, and then an answer with the last result.
pub(crate) fn turns(agent: &str, tool: &str, calls: usize, wait_ms: u64) -> String {
    format!(
        "[[reply]]\nwhen_agent = {agent:?}\nwhen_results_below = {calls}\ntext = 'I go on.'\ndelay_ms = 10\n\
         calls = [{{ name = {tool:?}, arguments = '{{\"n\": {{results}}, \"wait_ms\": {wait_ms}}}' }}]\n\
         [[reply]]\nwhen_agent = {agent:?}\ntext = 'The last was: {{last}}.'\n"
    )
}

pub(crate) struct Noted {
    folder: tempfile::TempDir,
}

impl Noted {
    pub(crate) fn new() -> anyhow::Result<Noted> {
        Ok(Noted { folder: tempfile::tempdir()? })
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("sink.log")
    }

    /// Operations of a task, each with how often it came, in the order of the log.
    pub(crate) fn of(&self, task: &str) -> anyhow::Result<BTreeMap<String, usize>> {
        let text = std::fs::read_to_string(self.file()).unwrap_or_default();
        let mut operations = BTreeMap::new();
        for line in text.lines() {
            let operation = line.split(' ').nth(1).context("an operation")?;
            if operation.starts_with(task) {
                *operations.entry(operation.to_string()).or_default() += 1;
            }
        }
        Ok(operations)
    }
}

async fn clerk(client: &Client, name: &str, more: &str) -> anyhow::Result<()> {
    apply_with(client, name, &format!("max_steps = 64\n{more}")).await
}

async fn until_asked(client: &Client, id: &str) -> anyhow::Result<Task> {
    until("a question to people", PATIENCE, || async {
        client.tasks().get(id).await.ok().filter(|task| task.state == TaskState::WaitingInput)
    })
    .await
}

#[tokio::test]
async fn a_killed_worker_repeats_idempotent_calls_under_the_same_operation() -> anyhow::Result<()> {
    let noted = Noted::new()?;
    let scripts = [turns("clerk", "sink.put", TURNS, 5)];
    let spec = Spec { more: sink(&noted.file()), ..spec(&scripts) };
    on_cluster(spec, async |cluster| {
        let client = cluster.client()?;
        clerk(&client, "clerk", "tools = ['sink.put']").await?;
        let undisturbed = client.tasks().create("clerk").input("go").send().await?;
        let expected = client.tasks().result(&succeeded(&client, &undisturbed.uid).await?).await?;
        ensure!(expected == format!("The last was: noted {}.", TURNS - 1), "{expected}");
        for round in 0..rounds("QUORATE_TOOL_KILLS") {
            // Somewhere in the task, and in another place every time: in a model call, a tool call, a commit.
            let at = 1 + u64::from(round.wrapping_mul(2_654_435_761) >> 7) % (2 * TURNS as u64 - 6);
            kill_at(cluster, &client, &noted, at, &expected).await?;
        }
        Ok(())
    })
    .await
}

async fn kill_at(
    cluster: &mut Cluster,
    client: &Client,
    noted: &Noted,
    at: u64,
    expected: &str,
) -> anyhow::Result<()> {
    let task = client.tasks().create("clerk").input("go").send().await?;
    let mut watch = client.tasks().watch(&task.uid).without_tokens();
    let reached = |step: u64| step >= at;
    watch_until(
        &mut watch,
        "the step",
        |event| matches!(event.kind, EventKind::Step { step, .. } if reached(step)),
    )
    .await?;
    let now = client.tasks().get(&task.uid).await?;
    let victim = now.node.clone().context("a node has it")?;
    cluster.node_mut(&victim)?.kill()?;
    let killed = tokio::time::Instant::now();
    watch_until(&mut watch, "another node", |event| runs_on(event).is_some_and(|node| node != victim))
        .await?;
    figure("tool_kill_reassigned_ms", killed.elapsed().as_millis());
    let done = succeeded(client, &task.uid).await?;
    let text = client.tasks().result(&done).await?;
    ensure!(text == expected, "killed at step {at}: {text:?} instead of {expected:?}");
    let operations = noted.of(&task.uid)?;
    let names: BTreeSet<&str> = operations.keys().map(String::as_str).collect();
    let wanted: BTreeSet<String> = wanted_operations(client, &task.uid).await?;
    ensure!(names.len() == TURNS, "{} operations for {TURNS} turns: {operations:?}", names.len());
    ensure!(names.iter().all(|name| wanted.contains(*name)), "{operations:?} beside {wanted:?}");
    figure("tool_calls_repeated", operations.values().filter(|count| **count > 1).count());
    cluster.node_mut(&victim)?.start()?;
    cluster.wait_ready(cluster.nodes.len()).await
}

/// One for each step that the task has.
async fn wanted_operations(client: &Client, task: &str) -> anyhow::Result<BTreeSet<String>> {
    let steps = client.tasks().get(task).await?.step;
    Ok((1..=steps).map(|step| format!("{task}/{step}/0")).collect())
}

#[tokio::test]
async fn a_call_that_may_happen_once_is_asked_about_after_a_kill() -> anyhow::Result<()> {
    let noted = Noted::new()?;
    let scripts = [turns("mailer", "sink.send", 2, 400)];
    let spec = Spec { more: sink(&noted.file()), ..spec(&scripts) };
    on_cluster(spec, async |cluster| {
        let client = cluster.client()?;
        clerk(&client, "mailer", "tools = ['sink.send']").await?;
        for _ in 0..rounds("QUORATE_TOOL_KILLS") {
            let task = client.tasks().create("mailer").input("go").send().await?;
            until("the call", PATIENCE, || async { (noted.of(&task.uid).ok()?.len() == 1).then_some(()) })
                .await?;
            let victim = client.tasks().get(&task.uid).await?.node.context("a node has it")?;
            cluster.node_mut(&victim)?.kill()?;
            let asked = until_asked(&client, &task.uid).await?;
            ensure!(asked.state_reason == "UNKNOWN", "{asked:?}");
            let ask = asked.asks.first().context("a question")?;
            ensure!(ask.kind == AskKind::Unknown && ask.tool == "sink.send", "{ask:?}");
            ensure!(ask.text.as_deref().is_some_and(|text| text.contains("\"n\":0")), "{ask:?}");
            // Never again, whatever a person says.
            let again = client.tasks().say(&task.uid, None, Say::Repeat).await;
            ensure!(again.is_err(), "{again:?}");
            client.tasks().say(&task.uid, Some(&ask.id), Say::Answer("it was sent")).await?;
            let done = succeeded(&client, &task.uid).await?;
            ensure!(client.tasks().result(&done).await? == "The last was: noted 1.", "{done:?}");
            let operations = noted.of(&task.uid)?;
            ensure!(operations.len() == 2 && operations.values().all(|count| *count == 1), "{operations:?}");
            cluster.node_mut(&victim)?.start()?;
            cluster.wait_ready(cluster.nodes.len()).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn approvals_survive_the_death_of_all_and_are_given_once() -> anyhow::Result<()> {
    let noted = Noted::new()?;
    let scripts = [turns("mailer", "sink.send", 2, 0)];
    let spec = Spec { more: sink(&noted.file()), ..spec(&scripts) };
    on_cluster(spec, async |cluster| {
        let client = cluster.client()?;
        clerk(&client, "mailer", "tools = [{ name = 'sink.send', approve = true }]").await?;
        let task = client.tasks().create("mailer").input("go").send().await?;
        let asked = until_asked(&client, &task.uid).await?;
        let ask = asked.asks[0].clone();
        ensure!(ask.kind == AskKind::Approval, "{ask:?}");
        let exact = "{\"arguments\":{\"n\":0,\"wait_ms\":0},\"name\":\"sink.send\"}";
        ensure!(ask.text.as_deref() == Some(exact), "what is asked is {:?}", ask.text);
        kill_all(cluster)?;
        start_all(cluster).await?;
        let endpoint = cluster.nodes[0].address();
        let shown = cli(&endpoint, &["task", "get", &task.uid]).await?;
        let shown = String::from_utf8(shown.stdout)?;
        ensure!(shown.contains("asks 1.0 APPROVAL sink.send") && shown.contains("\"n\":0"), "{shown}");
        ensure!(noted.of(&task.uid)?.is_empty(), "it was called before it was approved");
        let approved = cli(&endpoint, &["task", "approve", &task.uid, "--ask", "1.0"]).await?;
        ensure!(approved.status.success(), "{approved:?}");
        let twice = client.tasks().approve(&task.uid, Some("1.0")).await;
        let reason = twice.err().map(|error| error.reason);
        ensure!(matches!(reason.as_deref(), Some("ALREADY_ANSWERED" | "NOT_FOUND")), "{reason:?}");
        let second = until("the second question", PATIENCE, || async {
            let task = client.tasks().get(&task.uid).await.ok()?;
            task.asks.first().filter(|next| next.id != ask.id).cloned()
        });
        let second = second.await?;
        client.tasks().reject(&task.uid, Some(&second.id)).await?;
        let done = succeeded(&client, &task.uid).await?;
        let text = client.tasks().result(&done).await?;
        ensure!(text == "The last was: error: a person did not allow this call.", "{text}");
        let late = client.tasks().say(&task.uid, None, Say::Enqueue("hello")).await;
        let late = late.err().context("a finished task takes no message")?;
        ensure!((late.code, late.reason.as_str()) == (Code::FailedPrecondition, "WRONG_STATE"), "{late:?}");
        let operations = noted.of(&task.uid)?;
        ensure!(
            operations.len() == 1 && operations.contains_key(&format!("{}/1/0", task.uid)),
            "{operations:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_shell_works_in_its_folder_and_nowhere_else() -> anyhow::Result<()> {
    let say = |results: usize, command: &str| {
        format!(
            "[[reply]]\nwhen_agent = 'admin'\nwhen_results_below = {results}\n\
             calls = [{{ name = 'shell', arguments = '{{\"command\": {command:?}}}' }}]\n"
        )
    };
    let scripts = [
        say(1, "echo kept > note && pwd"),
        say(2, "cat note; cat /etc/shadow"),
        "[[reply]]\nwhen_agent = 'admin'\ntext = 'It said: {last}'\n".to_string(),
    ];
    let shell = "[tools.shell]\nenabled = true\n".to_string();
    on_cluster(Spec { more: shell, workers: 1, ..spec(&scripts) }, async |cluster| {
        let client = cluster.client()?;
        clerk(&client, "admin", "tools = ['shell']").await?;
        let task = client.tasks().create("admin").input("look").send().await?;
        let done = succeeded(&client, &task.uid).await?;
        let text = client.tasks().result(&done).await?;
        ensure!(text.starts_with("It said: error: kept\n"), "the file of the first command: {text}");
        ensure!(!text.contains("root:") && text.contains("exit code 1"), "{text}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_cancel_ends_tools_and_an_unknown_tool_is_said_so() -> anyhow::Result<()> {
    let noted = Noted::new()?;
    let scripts = [turns("slow", "sink.put", 1, 30_000)];
    let spec = Spec { more: sink(&noted.file()), workers: 1, ..spec(&scripts) };
    on_cluster(spec, async |cluster| {
        let client = cluster.client()?;
        clerk(&client, "slow", "tools = ['sink.*']").await?;
        client.quotas().set("projects/default").limit("running", Some(1)).send().await?;
        let first = client.tasks().create("slow").input("go").send().await?;
        until("the call", PATIENCE, || async { (noted.of(&first.uid).ok()?.len() == 1).then_some(()) })
            .await?;
        // The only slot is for others while the tool works.
        let second = client.tasks().create("slow").input("go").send().await?;
        until("the second call", PATIENCE, || async {
            (noted.of(&second.uid).ok()?.len() == 1).then_some(())
        })
        .await?;
        for id in [&first.uid, &second.uid] {
            let begun = tokio::time::Instant::now();
            client.tasks().cancel(id).await?;
            let done = ended(&client, id).await?;
            ensure!(done.state == TaskState::Cancelled, "{done:?}");
            figure("tool_cancel_ms", begun.elapsed().as_millis());
            ensure!(begun.elapsed() < Duration::from_secs(3), "a hanging tool held up the cancel");
        }
        clerk(&client, "lost", "tools = ['fax.send']").await?;
        let lost = client.tasks().create("lost").input("go").send().await?;
        let paused = until("a pause", PATIENCE, || async {
            client.tasks().get(&lost.uid).await.ok().filter(|task| task.state == TaskState::Paused)
        });
        let paused = paused.await?;
        ensure!(paused.state_reason == "ERROR: NO_SUCH_TOOL", "{paused:?}");
        ensure!(paused.error.as_deref().is_some_and(|text| text.contains("fax.send")), "{paused:?}");
        Ok(())
    })
    .await
}

/// Long histories must not make steps dear: what a step costs at the end is what it cost at the beginning.
#[tokio::test]
async fn steps_cost_the_same_however_long_the_history() -> anyhow::Result<()> {
    let turns_in_all = rounds("QUORATE_FLAT_TURNS").max(40) as usize;
    let noted = Noted::new()?;
    let script = format!("window = 1000000000\n\n{}", turns("archivist", "sink.blob", turns_in_all, 0));
    let spec = Spec {
        scripts: vec![(MODEL.to_string(), script)],
        more: sink(&noted.file()),
        coordinators: 1,
        workers: 1,
        ..Spec::default()
    };
    on_cluster(spec, async |cluster| {
        let client = cluster.client()?;
        let toml = format!("max_steps = {}\ntools = ['sink.blob']", turns_in_all + 2);
        apply_with(&client, "archivist", &toml).await?;
        let before = cluster_bytes(&client).await?;
        let task = client.tasks().create("archivist").input("go").send().await?;
        let mut watch = client.tasks().watch(&task.uid).without_tokens();
        let mut turns = Vec::new();
        let mut last = tokio::time::Instant::now();
        while let Some(event) = watch.next().await? {
            if matches!(event.kind, EventKind::Step { step, .. } if step % 2 == 1) {
                turns.push(last.elapsed());
                last = tokio::time::Instant::now();
            }
        }
        let done = succeeded(&client, &task.uid).await?;
        ensure!(done.step as usize == 2 * turns_in_all + 1, "{done:?}");
        let stored = cluster_bytes(&client).await? - before;
        let slice = (turns_in_all / 10).max(5);
        let early = quantiles(&turns[3..3 + slice]);
        let late = quantiles(&turns[turns.len() - slice..]);
        figure("flat_early_p50_us", early.0.as_micros());
        figure("flat_early_p99_us", early.1.as_micros());
        figure("flat_late_p50_us", late.0.as_micros());
        figure("flat_late_p99_us", late.1.as_micros());
        let unique = turns_in_all * 5_000;
        figure("flat_stored_percent_of_unique", stored as usize * 100 / unique);
        // A new segment of 5 KB a turn on two stores, and two small records: nothing that grows with the history.
        ensure!(
            stored as usize <= unique * 2 * 12 / 10 + 500_000,
            "{stored} bytes were stored for {unique} of results"
        );
        ensure!(
            late.0 < early.0 * 3,
            "a turn took {:?} at the beginning and {:?} at the end",
            early.0,
            late.0
        );
        Ok(())
    })
    .await
}

async fn cluster_bytes(client: &Client) -> anyhow::Result<u64> {
    Ok(client.cluster().nodes().await?.iter().map(|node| node.segment_bytes).sum())
}

fn quantiles(times: &[Duration]) -> (Duration, Duration) {
    let mut sorted = times.to_vec();
    sorted.sort();
    (sorted[sorted.len() / 2], sorted[sorted.len() * 99 / 100])
}

#[tokio::test]
async fn conversations_forks_retries_and_schedules() -> anyhow::Result<()> {
    let scripts = [
        "[[reply]]\nwhen_agent = 'guide'\nwhen_contains = 'shorter'\ntext = 'Blue.'\n".to_string(),
        reply("guide", "It is blue, and has been for long.", ""),
        reply("quick", "Done.", ""),
    ];
    on_cluster(Spec { workers: 1, ..spec(&scripts) }, async |cluster| {
        let client = cluster.client()?;
        let tasks = client.tasks();
        clerk(&client, "guide", "conversation = true").await?;
        apply(&client, &["quick"]).await?;
        let talk = tasks.create("guide").input("What colour is it?").send().await?;
        let asked = until_asked(&client, &talk.uid).await?;
        ensure!(asked.asks[0].kind == AskKind::NextMessage, "{asked:?}");
        ensure!(asked.asks[0].text.as_deref() == Some("It is blue, and has been for long."), "{asked:?}");
        tasks.say(&talk.uid, None, Say::Message("shorter")).await?;
        let shorter = until("the next answer", PATIENCE, || async {
            let task = tasks.get(&talk.uid).await.ok()?;
            task.asks.first().and_then(|ask| ask.text.clone()).filter(|text| text == "Blue.").map(|_| task)
        });
        let shorter = shorter.await?;
        // A fork from the first answer waits where the first task did then.
        let fork = tasks.fork(&talk.uid, Some(1)).await?;
        ensure!((fork.forked_from.as_deref(), fork.forked_steps) == (Some(talk.uid.as_str()), 1), "{fork:?}");
        let waits = until_asked(&client, &fork.uid).await?;
        ensure!(waits.asks[0].text.as_deref() == Some("It is blue, and has been for long."), "{waits:?}");
        let beyond = tasks.fork(&talk.uid, Some(shorter.step + 9)).await.err().context("no such step")?;
        ensure!(beyond.code == Code::InvalidArgument, "{beyond:?}");
        let open = tasks.retry(&talk.uid).await.err().context("it has not ended")?;
        ensure!(open.reason == "NOT_ENDED", "{open:?}");
        tasks.cancel(&talk.uid).await?;
        ended(&client, &talk.uid).await?;
        let retried = tasks.retry(&talk.uid).await?;
        ensure!(until_asked(&client, &retried.uid).await?.step == 1, "it begins anew");
        schedules(&client).await
    })
    .await
}

async fn schedules(client: &Client) -> anyhow::Result<()> {
    let schedules = client.schedules();
    let inputs = vec![(String::new(), "go".to_string())];
    let wrong = schedules.set("bad", Plan { cron: "61 * * * *", agent: "quick", ..Plan::default() }).await;
    ensure!(wrong.err().map(|error| error.code) == Some(Code::InvalidArgument), "61 minutes");
    let nobody = schedules.set("bad", Plan { cron: "* * * * *", agent: "nobody", ..Plan::default() }).await;
    ensure!(nobody.err().map(|error| error.code) == Some(Code::NotFound), "no such agent");
    // Every minute: it fires within one.
    let plan = Plan { cron: "* * * * *", agent: "quick", inputs, ..Plan::default() };
    let set = schedules.set("often", plan).await?;
    ensure!(set.next_time.is_some() && set.fired == 0, "{set:?}");
    let fired = until("the schedule's first task", Duration::from_secs(75), || async {
        schedules.list().await.ok()?.into_iter().find(|it| it.fired > 0 && it.last_task.is_some())
    });
    let fired = fired.await?;
    let task = succeeded(client, fired.last_task.as_deref().unwrap_or_default()).await?;
    ensure!(task.labels.get("schedule").map(String::as_str) == Some("often"), "{task:?}");
    schedules.delete("often").await?;
    ensure!(schedules.list().await?.is_empty(), "it is gone");
    Ok(())
}
