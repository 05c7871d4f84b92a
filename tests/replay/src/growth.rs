//! What a task costs in the ledger when there are a thousand, and when there are a million: memory, the time of one
//! command, of a plan, of a snapshot.
//!
//! Each number of tasks is measured in a process of its own, so that memory is that of these tasks alone.

mod page;
mod planning;

pub use page::page;
pub use planning::{PlanRow, plans};

use crate::ledger_box::{LedgerBox, NewTask};
use anyhow::{Context, ensure};
use ledger::State;
use ledger::command::{Command, Next};
use ledger::reply::Reply;
use serde::{Deserialize, Serialize};
use std::time::Instant;
use types::{Class, Hash, ProjectName, Spent, TaskUid};

/// Below the ledger's bound on tasks in one project.
const TASKS_PER_PROJECT: u64 = 50_000;
const WORKERS: usize = 8;
/// Commands timed of each kind, in so many groups: the median of the groups' figures is taken, so that another
/// program's moment does not count.
const TIMED: u64 = 10_000;
const GROUPS: usize = 10;

/// One number of tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub tasks: u64,
    /// Resident memory that came with them, by task: while they wait, and when they are done.
    pub waiting_bytes: u64,
    pub done_bytes: u64,
    /// Microseconds of one command, with so many tasks there: creation; lease, reservation and the committed step.
    pub create_p50_us: f64,
    pub create_p99_us: f64,
    pub step_p50_us: f64,
    pub step_p99_us: f64,
    pub snapshot_bytes: u64,
    pub snapshot_ms: f64,
    pub restore_ms: f64,
}

/// Fills a ledger with so many tasks and measures. Once a process: what a process freed it may not give back.
pub fn measure(tasks: u64) -> anyhow::Result<Row> {
    ensure!(tasks >= 100, "{tasks} tasks are too few to say anything; give 100 or more");
    let projects = projects(tasks)?;
    let mut ledger = LedgerBox::new(WORKERS, &projects);
    let before = resident_bytes()?;
    let mut uids = Vec::with_capacity(tasks as usize);
    let mut creations = Vec::with_capacity(TIMED.min(tasks) as usize);
    for number in 0..tasks {
        let started = Instant::now();
        uids.push(create(&mut ledger, &projects, number)?);
        if number + TIMED >= tasks {
            creations.push(micros(started));
        }
    }
    let own = (uids.capacity() * size_of::<TaskUid>()) as u64;
    let waiting_bytes = resident_bytes()?.saturating_sub(before + own) / tasks;
    let mut steps = Vec::with_capacity(3 * TIMED.min(tasks) as usize);
    for (number, uid) in uids.iter().enumerate() {
        let times = run(&mut ledger, *uid)?;
        if number as u64 + TIMED >= tasks {
            steps.extend(times);
        }
    }
    let done_bytes = resident_bytes()?.saturating_sub(before + own) / tasks;
    drop(uids);
    let started = Instant::now();
    let snapshot = ledger.state.snapshot();
    let snapshot_ms = micros(started) / 1000.0;
    let hash = ledger.state.state_hash();
    drop(ledger);
    let started = Instant::now();
    let restored = State::restore(&snapshot).map_err(|halt| anyhow::anyhow!(halt.0))?;
    let restore_ms = micros(started) / 1000.0;
    ensure!(restored.state_hash() == hash, "the restored state differs");
    Ok(Row {
        tasks,
        waiting_bytes,
        done_bytes,
        create_p50_us: percentile(&creations, 50),
        create_p99_us: percentile(&creations, 99),
        step_p50_us: percentile(&steps, 50),
        step_p99_us: percentile(&steps, 99),
        snapshot_bytes: snapshot.len() as u64 / tasks,
        snapshot_ms,
        restore_ms,
    })
}

fn projects(tasks: u64) -> anyhow::Result<Vec<ProjectName>> {
    let names = (0..tasks.div_ceil(TASKS_PER_PROJECT)).map(|number| format!("team-{number}"));
    names.map(|name| Ok(ProjectName::parse(&name)?)).collect()
}

fn create(ledger: &mut LedgerBox, projects: &[ProjectName], number: u64) -> anyhow::Result<TaskUid> {
    ledger.now_ms += 1;
    ledger.create(&NewTask {
        project: &projects[number as usize % projects.len()],
        class: Class::ALL[number as usize % 4],
        number,
        input_bytes: 4096,
        deadline_ms: 0,
    })
}

/// From the lease to the result; the times of the three commands.
fn run(ledger: &mut LedgerBox, task: TaskUid) -> anyhow::Result<[f64; 3]> {
    ledger.now_ms += 1;
    let member = task.index as usize % ledger.members().len();
    let node = ledger.members()[member];
    let (assigned, assign_us) = timed(ledger, Command::Assign { task, node });
    let Reply::Assigned(epoch) = assigned else { anyhow::bail!("a lease was answered {assigned:?}") };
    let (min_tokens, max_tokens) = (1, 2000);
    let (_, reserve_us) = timed(
        ledger,
        Command::Reserve { task, epoch, node, step: 1, min_tokens, max_tokens, want: None, route: None },
    );
    let head = Hash::of(&task.index.to_le_bytes());
    let spent = Spent { prompt_tokens: 1200, cached_tokens: 200, generated_tokens: 128, micro_usd: 0 };
    let (done, commit_us) = timed(
        ledger,
        Command::CommitStep {
            task,
            epoch,
            node,
            step: 1,
            head,
            home: ledger.keepers(member),
            spent,
            billed_tokens: 1128,
            next: Next::Done { result: head, bytes: 512 },
            extra: None,
        },
    );
    ensure!(done == Reply::Done, "a step was answered {done:?}");
    Ok([assign_us, reserve_us, commit_us])
}

fn timed(ledger: &mut LedgerBox, command: Command) -> (Reply, f64) {
    let started = Instant::now();
    let reply = ledger.apply(command).reply;
    (reply, micros(started))
}

fn micros(since: Instant) -> f64 {
    since.elapsed().as_nanos() as f64 / 1000.0
}

/// The median over groups of neighbours of this percentile of each.
fn percentile(times: &[f64], percent: usize) -> f64 {
    let groups = times.chunks(times.len().div_ceil(GROUPS).max(1));
    let mut of_groups: Vec<f64> = groups
        .map(|group| {
            let mut sorted = group.to_vec();
            sorted.sort_by(f64::total_cmp);
            sorted[(sorted.len() * percent).div_ceil(100).saturating_sub(1)]
        })
        .collect();
    of_groups.sort_by(f64::total_cmp);
    of_groups.get(of_groups.len() / 2).copied().unwrap_or(0.0)
}

/// What of this process is in memory, as the kernel counts it, without the program's own file: its pages come when
/// they are first run, and are no task's.
fn resident_bytes() -> anyhow::Result<u64> {
    let status =
        std::fs::read_to_string("/proc/self/status").context("/proc/self/status; this runs on Linux")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .context("no RssAnon in it; a kernel before 4.5?")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}
