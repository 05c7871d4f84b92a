//! Programs that use the cluster while it is operated on: they create tasks, watch each to its end and read what came of
//! it, and change a limit again and again, with the SDK's own patience and nothing more. Every call that fails counts.

use crate::support::*;
use crate::tools::{Noted, sink, turns};
use anyhow::{Context, ensure};
use futures::TryStreamExt;
use quorate_sdk::{Client, Error, Event, Task, TaskState};
use quorate_tests::{Cluster, Spec, until};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, interval};

/// Programs that create and watch, and programs that only write.
const FOLLOWERS: usize = 3;
const WRITERS: usize = 4;
/// Between two writes of one program: what a gap is measured with.
const PACE: Duration = Duration::from_millis(25);
const CALLS: usize = 3;
/// Whose limit is written.
const PLACE: &str = "projects/load";

/// A cluster whose tasks have several steps, and call a tool that notes each operation.
pub(crate) fn loaded(noted: &Noted) -> Spec {
    Spec { more: sink(&noted.file()), ..spec(&[turns("clerk", "sink.put", CALLS, 20)]) }
}

/// What the programs found.
pub(crate) struct Load<'a> {
    /// What a program reads anew when its files change.
    client: Mutex<Client>,
    noted: &'a Noted,
    done: AtomicBool,
    calls: AtomicUsize,
    failed: Mutex<Vec<String>>,
    /// Id and uid of every task that was acknowledged.
    told: Mutex<Vec<(String, String)>>,
    finished: AtomicUsize,
    written: Mutex<Vec<Instant>>,
}

impl<'a> Load<'a> {
    pub(crate) async fn new(client: Client, noted: &'a Noted) -> anyhow::Result<Load<'a>> {
        apply_with(&client, "clerk", "max_steps = 64\ntools = ['sink.put']").await?;
        Ok(Load {
            client: Mutex::new(client),
            noted,
            done: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            failed: Mutex::default(),
            told: Mutex::default(),
            finished: AtomicUsize::new(0),
            written: Mutex::default(),
        })
    }

    /// Works while `operate` does, which says what is done to the cluster; then checks every task.
    pub(crate) async fn around<T>(
        &self,
        operate: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let followers = futures::future::join_all((0..FOLLOWERS).map(|number| self.follow(number)));
        let writers = futures::future::join_all((0..WRITERS).map(|_| self.write()));
        let operating = async {
            let operated = operate.await;
            self.done.store(true, Ordering::Relaxed);
            operated
        };
        let (operated, _, _) = tokio::join!(operating, followers, writers);
        let failed = locked(&self.failed).clone();
        figure("load_calls", self.calls.load(Ordering::Relaxed));
        figure("load_failed_calls", failed.len());
        ensure!(failed.is_empty(), "{} calls failed: {failed:#?}; {:?}", failed.len(), operated.err());
        let operated = operated?;
        self.nothing_is_lost_or_doubled().await?;
        Ok(operated)
    }

    /// The files that programs know the cluster by have changed.
    pub(crate) fn connect_anew(&self, client: Client) {
        *locked(&self.client) = client;
    }

    /// Waits until the programs have finished so many more tasks.
    pub(crate) async fn more(&self, count: usize) -> anyhow::Result<()> {
        let enough = self.finished.load(Ordering::Relaxed) + count;
        let reached = async || (self.finished.load(Ordering::Relaxed) >= enough).then_some(());
        until("more tasks from end to end", PATIENCE, reached).await
    }

    /// The longest time without an acknowledged write, until now.
    pub(crate) fn longest_gap(&self) -> Duration {
        let mut times = locked(&self.written).clone();
        times.sort();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// The same since a moment.
    pub(crate) fn gap_since(&self, begun: Instant) -> Duration {
        let mut times = locked(&self.written).clone();
        times.retain(|at| *at >= begun);
        times.sort();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    fn over(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    fn client(&self) -> Client {
        locked(&self.client).clone()
    }

    /// Counts a call; what failed is told once.
    fn count<T>(&self, what: &str, outcome: Result<T, Error>) -> Option<T> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        outcome.map_err(|error| locked(&self.failed).push(format!("{what}: {error:?}"))).ok()
    }

    /// Task after task, each from its creation to its result.
    async fn follow(&self, program: usize) {
        for number in 0.. {
            if self.over() {
                return;
            }
            let id = format!("load-{program}-{number}");
            if let Err(error) = self.one(&id).await {
                locked(&self.failed).push(format!("{id}: {error:#}"));
            }
        }
    }

    async fn one(&self, id: &str) -> anyhow::Result<()> {
        let client = self.client();
        let order = client.tasks().create("clerk").input("go").task_id(id).label("load", "yes");
        let Some(task) = self.count(&format!("creating {id}"), order.send().await) else { return Ok(()) };
        locked(&self.told).push((id.to_string(), task.uid.clone()));
        let mut watch = client.tasks().watch(id);
        let mut seen: Vec<Event> = Vec::new();
        while let Some(Some(event)) = self.count(&format!("watching {id}"), watch.next().await) {
            seen.push(event);
        }
        check_sequence(&seen, 1)?;
        let Some(task) = self.count(&format!("reading {id}"), client.tasks().get(id).await) else {
            return Ok(());
        };
        let steps = steps(&seen);
        let wanted: Vec<u64> = (1..=task.step).collect();
        ensure!(steps == wanted, "the watch told of steps {steps:?}, and the task has {}", task.step);
        self.finished.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn write(&self) {
        let mut pace = interval(PACE);
        let mut limit = 1_000;
        while !self.over() {
            pace.tick().await;
            limit += 1;
            let client = self.client();
            let set = client.quotas().set(PLACE).limit("running", Some(limit)).send().await;
            if self.count("setting a limit", set).is_some() {
                locked(&self.written).push(Instant::now());
            }
        }
    }

    /// Every acknowledged task is there once, under its uid, with its result, its steps and each operation once.
    async fn nothing_is_lost_or_doubled(&self) -> anyhow::Result<()> {
        let client = self.client();
        let told = locked(&self.told).clone();
        let listed: Vec<Task> = client.tasks().list().filter("label.load=yes").all().try_collect().await?;
        let by_id: BTreeMap<&str, &Task> = listed.iter().map(|task| (task.id.as_str(), task)).collect();
        ensure!(by_id.len() == listed.len(), "some task is listed twice");
        ensure!(listed.len() == told.len(), "{} tasks exist, {} were asked for", listed.len(), told.len());
        for (id, uid) in &told {
            let task = by_id.get(id.as_str()).with_context(|| format!("{id} is gone"))?;
            self.is_whole(&client, task, uid).await.with_context(|| format!("{task:?}"))?;
        }
        figure("load_tasks", told.len());
        ensure!(told.len() >= 10, "there was no load: {} tasks", told.len());
        Ok(())
    }

    async fn is_whole(&self, client: &Client, task: &Task, uid: &str) -> anyhow::Result<()> {
        ensure!(task.uid == uid && task.state == TaskState::Succeeded, "not {uid} at its end");
        let text = client.tasks().result(task).await?;
        ensure!(text == format!("The last was: noted {}.", CALLS - 1), "it answers {text:?}");
        let operations = self.noted.of(uid)?;
        let once = operations.len() == CALLS && operations.values().all(|times| *times == 1);
        ensure!(once, "operations {operations:?}");
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no panic while held")
}

/// Waits until so many coordinators vote.
pub(crate) async fn voters(cluster: &Cluster, count: usize) -> anyhow::Result<Vec<String>> {
    let client = cluster.client()?;
    until("the right number of voters", PATIENCE, || async {
        let status = client.cluster().status().await.ok()?;
        (status.voters.len() == count).then_some(status.voters)
    })
    .await
}
