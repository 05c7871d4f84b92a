//! Which agents run on this node. Pure: news in, orders out.
//!
//! News may be late, repeated or lost; the full set that comes at every attach is compared with what runs here, and
//! only the difference is acted on. An epoch that ended here never starts again here.

use super::AgentObserved;
use crate::link::{LeaseName, News};
use ledger::command::Release;
use ledger::rows::TaskRow;
use mind::{Signal, SignalKind};
use std::collections::{BTreeMap, BTreeSet};
use types::{Epoch, TaskState, TaskUid};

/// Failures of one agent within [`FAILURES_MS`] before its lease is given back as broken.
const TRIES: usize = 5;
const FAILURES_MS: u64 = 60_000;
/// Times that one agent may hang within [`STUCK_MS`] before its lease is given back as stuck.
const STUCK_TRIES: usize = 3;
const STUCK_MS: u64 = 6 * 3_600_000;
/// Ended leases that are remembered against late news. Far more than end between two attaches.
const ENDED: usize = 4096;

/// What the supervisor does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Order {
    Start(Box<TaskRow>),
    Tell(TaskUid, Tell),
    /// Ask the ledger to take the lease back, then say `released`.
    Release(LeaseName, Release),
    /// Say `restart_due` after this long.
    RestartIn {
        task: TaskUid,
        epoch: Epoch,
        wait_ms: u64,
    },
}

/// What an agent hears of its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tell {
    /// Stop everything, then confirm.
    Cancel,
    /// Someone else may hold the task: offer what there is, and stop if it is refused.
    Revoke,
    /// The node's lease ended, or is back.
    Lease { valid: bool },
    /// People said something to the task.
    Said(Vec<Signal>),
    /// Give the lease back at the next step boundary.
    Drain,
    /// Give it back now, committing what there is.
    DrainNow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// Waits to be started again.
    Resting,
    /// No agent any more; the ledger is asked to take the lease back.
    Releasing,
}

#[derive(Debug, Clone)]
struct Entry {
    row: Box<TaskRow>,
    epoch: Epoch,
    phase: Phase,
    failures_ms: Vec<u64>,
    stuck_ms: Vec<u64>,
    /// A newer lease of the same task, to start when this one has ended.
    next: Option<Box<TaskRow>>,
    /// A newer lease of the same task that was cancelled before it began, to confirm then.
    confirm: Option<LeaseName>,
}

impl Entry {
    fn lease(&self) -> LeaseName {
        LeaseName { project: self.row.project.clone(), task: self.row.uid, epoch: self.epoch }
    }
}

#[derive(Debug)]
pub(crate) struct Roster {
    restart_ms: u64,
    entries: BTreeMap<TaskUid, Entry>,
    ended: BTreeSet<Epoch>,
    draining: bool,
}

impl Roster {
    pub(crate) fn new(restart_ms: u64) -> Self {
        Roster { restart_ms, entries: BTreeMap::new(), ended: BTreeSet::new(), draining: false }
    }

    pub(crate) fn on_news(&mut self, news: News) -> Vec<Order> {
        match news {
            News::FullSet { leases, .. } => self.full_set(leases),
            News::Assigned(row) => self.hold(row).into_iter().collect(),
            News::Cancel(lease) => self.cancel(&lease).into_iter().collect(),
            News::Revoked(lease) => self.revoked(lease).into_iter().collect(),
            News::LeaseEnded => self.tell_all(Tell::Lease { valid: false }),
            News::LeaseBack => self.tell_all(Tell::Lease { valid: true }),
        }
    }

    fn full_set(&mut self, leases: Vec<TaskRow>) -> Vec<Order> {
        let named: BTreeSet<(TaskUid, Epoch)> =
            leases.iter().filter_map(|row| Some((row.uid, row.epoch?))).collect();
        let held: Vec<(TaskUid, Epoch)> =
            self.entries.iter().map(|(task, entry)| (*task, entry.epoch)).collect();
        let gone = held.into_iter().filter(|lease| !named.contains(lease));
        let mut orders: Vec<Order> = gone.filter_map(|(task, epoch)| self.revoke(task, epoch)).collect();
        orders.extend(leases.into_iter().filter_map(|row| self.hold(Box::new(row))));
        orders
    }

    /// The ledger says that this node holds this lease.
    fn hold(&mut self, row: Box<TaskRow>) -> Option<Order> {
        let epoch = row.epoch?;
        if row.state == TaskState::Cancelling {
            return self.cancel(&LeaseName { project: row.project.clone(), task: row.uid, epoch });
        }
        if self.ended.contains(&epoch) {
            return None;
        }
        match self.entries.get_mut(&row.uid) {
            Some(entry) if entry.epoch == epoch => {
                let said = said_to(&row);
                let running = entry.phase == Phase::Running && !said.is_empty();
                entry.row = row;
                running.then_some(Order::Tell(entry.row.uid, Tell::Said(said)))
            }
            Some(entry) if entry.epoch > epoch => None,
            Some(entry) => {
                let (task, old) = (row.uid, entry.epoch);
                entry.next = Some(row);
                self.revoke(task, old)
            }
            None => Some(self.begin(row, epoch)),
        }
    }

    fn begin(&mut self, row: Box<TaskRow>, epoch: Epoch) -> Order {
        let phase = if self.draining { Phase::Releasing } else { Phase::Running };
        let entry = Entry {
            row: row.clone(),
            epoch,
            phase,
            failures_ms: Vec::new(),
            stuck_ms: Vec::new(),
            next: None,
            confirm: None,
        };
        let lease = entry.lease();
        self.entries.insert(row.uid, entry);
        if self.draining { Order::Release(lease, Release::Yielded) } else { Order::Start(row) }
    }

    fn cancel(&mut self, lease: &LeaseName) -> Option<Order> {
        let Some(entry) = self.entries.get_mut(&lease.task).filter(|entry| entry.epoch <= lease.epoch) else {
            return Some(self.confirm(lease.clone()));
        };
        if entry.epoch < lease.epoch {
            // An older agent of the task is still here: the confirmation waits for its end.
            (entry.next, entry.confirm) = (None, Some(lease.clone()));
        }
        match entry.phase {
            Phase::Running => Some(Order::Tell(lease.task, Tell::Cancel)),
            Phase::Resting => {
                entry.phase = Phase::Releasing;
                Some(Order::Release(entry.lease(), Release::Stopped))
            }
            Phase::Releasing => None,
        }
    }

    /// Nothing of this lease runs here, and nothing of it will start: so it is said.
    fn confirm(&mut self, lease: LeaseName) -> Order {
        self.end_epoch(lease.epoch);
        Order::Release(lease, Release::Stopped)
    }

    fn revoke(&mut self, task: TaskUid, epoch: Epoch) -> Option<Order> {
        let entry = self.entries.get_mut(&task).filter(|entry| entry.epoch == epoch)?;
        match entry.phase {
            Phase::Running => Some(Order::Tell(task, Tell::Revoke)),
            Phase::Resting => {
                // In case the news is stale, the ledger is told; it refuses if it isn't.
                entry.phase = Phase::Releasing;
                Some(Order::Release(entry.lease(), Release::Yielded))
            }
            Phase::Releasing => None,
        }
    }

    /// A revoke for a lease that never began here: it never will, and the ledger is told that this is known.
    fn revoked(&mut self, lease: LeaseName) -> Option<Order> {
        let held = self.entries.get(&lease.task).is_some_and(|entry| entry.epoch == lease.epoch);
        if held {
            return self.revoke(lease.task, lease.epoch);
        }
        if self.ended.contains(&lease.epoch) {
            return None;
        }
        self.end_epoch(lease.epoch);
        Some(Order::Release(lease, Release::Yielded))
    }

    fn tell_all(&self, tell: Tell) -> Vec<Order> {
        let running = self.entries.iter().filter(|(_, entry)| entry.phase == Phase::Running);
        running.map(|(task, _)| Order::Tell(*task, tell.clone())).collect()
    }

    /// An agent's actor ended well: whatever it did, the ledger knows.
    pub(crate) fn ended(&mut self, task: TaskUid, epoch: Epoch) -> Vec<Order> {
        let held = self.entries.get(&task).is_some_and(|entry| entry.epoch == epoch);
        if !held {
            return Vec::new();
        }
        self.end_epoch(epoch);
        let Some(entry) = self.entries.remove(&task) else { return Vec::new() };
        let confirmed = entry.confirm.map(|lease| self.confirm(lease));
        let begun = entry.next.and_then(|row| self.hold(row));
        confirmed.into_iter().chain(begun).collect()
    }

    /// An agent's actor failed.
    pub(crate) fn failed(&mut self, task: TaskUid, epoch: Epoch, now_ms: u64) -> Vec<Order> {
        let Some(entry) = self.entry(task, epoch) else { return Vec::new() };
        let failures = one_more(&mut entry.failures_ms, now_ms, FAILURES_MS);
        self.again(task, failures, (failures > TRIES).then_some(Release::Broken))
    }

    /// An agent hung: its actor did not answer, or its work did not end.
    pub(crate) fn stuck(&mut self, task: TaskUid, epoch: Epoch, now_ms: u64) -> Vec<Order> {
        let Some(entry) = self.entry(task, epoch) else { return Vec::new() };
        let times = one_more(&mut entry.stuck_ms, now_ms, STUCK_MS);
        self.again(task, times, (times >= STUCK_TRIES).then_some(Release::Stuck))
    }

    fn entry(&mut self, task: TaskUid, epoch: Epoch) -> Option<&mut Entry> {
        self.entries.get_mut(&task).filter(|entry| entry.epoch == epoch)
    }

    /// Starts it again after a while, unless its lease goes back.
    fn again(&mut self, task: TaskUid, times: usize, enough: Option<Release>) -> Vec<Order> {
        let (restart_ms, draining) = (self.restart_ms, self.draining);
        let Some(entry) = self.entries.get_mut(&task) else { return Vec::new() };
        let leaves = (entry.next.is_some() || draining).then_some(Release::Yielded);
        if let Some(why) = leaves.or(enough) {
            entry.phase = Phase::Releasing;
            return vec![Order::Release(entry.lease(), why)];
        }
        entry.phase = Phase::Resting;
        vec![Order::RestartIn { task, epoch: entry.epoch, wait_ms: restart_ms << (times - 1) }]
    }

    pub(crate) fn restart_due(&mut self, task: TaskUid, epoch: Epoch) -> Vec<Order> {
        let resting =
            self.entries.get_mut(&task).filter(|it| it.epoch == epoch && it.phase == Phase::Resting);
        let Some(entry) = resting else { return Vec::new() };
        entry.phase = Phase::Running;
        vec![Order::Start(entry.row.clone())]
    }

    /// The ledger took a lease back, or knew that it was over.
    pub(crate) fn released(&mut self, task: TaskUid, epoch: Epoch) -> Vec<Order> {
        self.ended(task, epoch)
    }

    /// No new agents; those that run give their leases back.
    pub(crate) fn drain(&mut self) -> Vec<Order> {
        self.draining = true;
        let mut orders = self.tell_all(Tell::Drain);
        for entry in self.entries.values_mut().filter(|entry| entry.phase == Phase::Resting) {
            entry.phase = Phase::Releasing;
            orders.push(Order::Release(entry.lease(), Release::Yielded));
        }
        orders
    }

    pub(crate) fn drain_now(&mut self) -> Vec<Order> {
        self.tell_all(Tell::DrainNow)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn leases(&self) -> Vec<LeaseName> {
        self.entries.values().map(Entry::lease).collect()
    }

    pub(crate) fn observe(&self) -> Vec<AgentObserved> {
        let observed = |entry: &Entry| AgentObserved {
            task: entry.row.uid,
            epoch: entry.epoch,
            phase: match entry.phase {
                Phase::Running => "running",
                Phase::Resting => "resting",
                Phase::Releasing => "releasing",
            },
            failures: entry.failures_ms.len() + entry.stuck_ms.len(),
        };
        self.entries.values().map(observed).collect()
    }

    fn end_epoch(&mut self, epoch: Epoch) {
        self.ended.insert(epoch);
        if self.ended.len() > ENDED {
            self.ended.pop_first();
        }
    }
}

/// Notes one more time, forgets those of long ago, and says how many are left.
fn one_more(times_ms: &mut Vec<u64>, now_ms: u64, within_ms: u64) -> usize {
    times_ms.retain(|then_ms| now_ms.saturating_sub(*then_ms) < within_ms);
    times_ms.push(now_ms);
    times_ms.len()
}

/// What people said to the task and its journal has not.
pub(crate) fn said_to(row: &TaskRow) -> Vec<Signal> {
    let inbox = row.talk.iter().flat_map(|talk| &talk.inbox);
    inbox.map(signal).collect()
}

fn signal(signal: &ledger::rows::Signal) -> Signal {
    use ledger::rows::SignalKind as Said;
    Signal {
        number: signal.number,
        kind: match signal.kind {
            Said::Approve => SignalKind::Approve,
            Said::Reject => SignalKind::Reject,
            Said::Answer => SignalKind::Answer,
            Said::Repeat => SignalKind::Repeat,
            Said::Message | Said::Enqueue => SignalKind::Message,
            Said::Interrupt => SignalKind::Interrupt,
            Said::Rollback => SignalKind::Rollback,
        },
        ask: signal.ask.clone(),
        text: signal.text,
        author: signal.author.clone(),
    }
}

#[cfg(test)]
#[path = "roster_test.rs"]
mod roster_test;
