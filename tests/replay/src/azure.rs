//! Recorded arrivals through the queue: classes, quotas, deadlines, at any speed.
//!
//! The trace says when requests came and how long they were. Each becomes a task of one step; its class and project
//! are drawn by a seed, the same at every speed. Workers take a time that follows from the tokens. At the door, a
//! class is refused when so many tasks are open that only more urgent ones should still come in.
//!
//! Every speed is run with several draws of the classes, and the waits of all of them are taken together: of one draw
//! the hundredth part of the top class is two requests.

mod run;

use crate::trace::Call;
use anyhow::ensure;
use serde::Serialize;
use std::collections::BTreeMap;
use types::Class;

/// How a cluster of the replay is made.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub workers: usize,
    pub slots: u32,
    /// Tokens a second that one slot reads and writes.
    pub prefill_speed: u64,
    pub decode_speed: u64,
    /// Tasks that are neither finished nor refused, at most.
    pub open_max: usize,
    /// Of a hundred requests, those of the class `system`.
    pub system_percent: u64,
    /// The first draw's seed, and how many draws.
    pub seed: u64,
    pub draws: u64,
}

impl Default for Setup {
    /// At the speed of the recording the slots are busy for 30 % of the time, but all of them in its bursts; at four
    /// times the speed there is more than they can do.
    fn default() -> Setup {
        Setup {
            workers: 4,
            slots: 4,
            prefill_speed: 4000,
            decode_speed: 20,
            open_max: 1000,
            system_percent: 2,
            seed: 1,
            draws: 5,
        }
    }
}

/// What one speed made of the trace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub speed: f64,
    pub requests: usize,
    pub done: usize,
    pub expired: usize,
    pub refused: usize,
    /// Share of the slots' time that was used while requests came.
    pub busy: f64,
    /// Tokens of requests that were done in time, a second, while requests came.
    pub goodput: f64,
    /// Of the best speed's.
    pub of_peak: f64,
    /// From arrival to the first lease. Who never got one waited until the deadline.
    pub system_p50_ms: u64,
    pub system_p99_ms: u64,
    pub interactive_p99_ms: u64,
    pub batch_p99_ms: u64,
    pub best_effort_p99_ms: u64,
    /// Open tasks at most, and the longest queue.
    pub open_most: usize,
    pub queue_most: usize,
    /// Tasks paused for lack of budget, counted each time.
    pub paused: usize,
}

/// One row a speed, in thousandths of the recorded speed.
pub fn rows(calls: &[Call], setup: Setup, speeds_milli: &[u64]) -> anyhow::Result<Vec<Row>> {
    ensure!(
        setup.workers > 0 && setup.slots > 0,
        "a cluster without slots does nothing; give --workers and --slots"
    );
    ensure!(speeds_milli.iter().all(|speed| *speed > 0), "a speed of 0 never ends; give 1 or more");
    let mut rows: Vec<Row> =
        speeds_milli.iter().map(|speed| row(calls, setup, *speed)).collect::<anyhow::Result<_>>()?;
    let peak = rows.iter().map(|row| row.goodput).fold(0.0, f64::max);
    rows.iter_mut().for_each(|row| row.of_peak = row.goodput / peak.max(1e-9));
    Ok(rows)
}

/// All draws of one speed together.
fn row(calls: &[Call], setup: Setup, speed_milli: u64) -> anyhow::Result<Row> {
    let mut all = Outcome::default();
    for draw in 0..setup.draws.max(1) {
        let setup = Setup { seed: setup.seed + draw, ..setup };
        all.add(run::Run::new(calls, setup, speed_milli).play()?);
    }
    let seconds = all.came_in_ms as f64 / 1000.0;
    let slots = setup.workers as f64 * f64::from(setup.slots);
    Ok(Row {
        speed: speed_milli as f64 / 1000.0,
        requests: all.requests,
        done: all.done,
        expired: all.expired,
        refused: all.refused,
        busy: all.busy_ms as f64 / 1000.0 / seconds / slots,
        goodput: all.done_tokens as f64 / seconds,
        of_peak: 0.0,
        system_p50_ms: all.wait_ms(Class::System, 50),
        system_p99_ms: all.wait_ms(Class::System, 99),
        interactive_p99_ms: all.wait_ms(Class::Interactive, 99),
        batch_p99_ms: all.wait_ms(Class::Batch, 99),
        best_effort_p99_ms: all.wait_ms(Class::BestEffort, 99),
        open_most: all.open_most,
        queue_most: all.queue_most,
        paused: all.paused,
    })
}

/// What runs count.
#[derive(Clone, Debug, Default)]
struct Outcome {
    requests: usize,
    done: usize,
    expired: usize,
    refused: usize,
    paused: usize,
    open_most: usize,
    queue_most: usize,
    /// Until the last request came.
    done_tokens: u64,
    busy_ms: u64,
    came_in_ms: u64,
    waits_ms: BTreeMap<Class, Vec<u64>>,
}

impl Outcome {
    fn add(&mut self, other: Outcome) {
        self.requests += other.requests;
        self.done += other.done;
        self.expired += other.expired;
        self.refused += other.refused;
        self.paused += other.paused;
        self.open_most = self.open_most.max(other.open_most);
        self.queue_most = self.queue_most.max(other.queue_most);
        self.done_tokens += other.done_tokens;
        self.busy_ms += other.busy_ms;
        self.came_in_ms += other.came_in_ms.max(1);
        for (class, waits_ms) in other.waits_ms {
            self.waits_ms.entry(class).or_default().extend(waits_ms);
        }
    }

    fn waited(&mut self, class: Class, wait_ms: u64) {
        self.waits_ms.entry(class).or_default().push(wait_ms);
    }

    fn wait_ms(&self, class: Class, percent: usize) -> u64 {
        let mut waits_ms = self.waits_ms.get(&class).cloned().unwrap_or_default();
        waits_ms.sort_unstable();
        let index = (waits_ms.len() * percent).div_ceil(100).saturating_sub(1);
        waits_ms.get(index).copied().unwrap_or(0)
    }
}

/// Of a hundred requests: 40 system or interactive, 40 batch, 20 best-effort.
fn class_of(draw: u64, system_percent: u64) -> Class {
    match draw % 100 {
        percent if percent < system_percent => Class::System,
        0..40 => Class::Interactive,
        40..80 => Class::Batch,
        _ => Class::BestEffort,
    }
}

/// How long an answer of a class is of use.
fn deadline_ms(class: Class) -> u64 {
    match class {
        Class::System => 30_000,
        Class::Interactive => 60_000,
        Class::Batch => 600_000,
        Class::BestEffort => 1_800_000,
    }
}

/// Up to which share of the open tasks a class is let in, in percent.
fn door_percent(class: Class) -> usize {
    match class {
        Class::System => 100,
        Class::Interactive => 90,
        Class::Batch => 75,
        Class::BestEffort => 50,
    }
}
