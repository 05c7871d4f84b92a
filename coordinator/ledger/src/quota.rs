//! The quota tree: what is used at every place above a task, what is free, and who wakes when something is.
//!
//! A use counts at `cluster`, at every prefix of the project's name, at the agent, and at those of the task and its
//! ancestors where a limit was set. Grants are all or nothing over all of them. A cut takes nothing back: what is over
//! it finishes, and nothing new is granted until use is below the limit again.
//!
//! Rooms: `path` (what lies above what), `meter` (budgets and their windows), `bucket` (rates), `holding`, `pool`
//! (guarantees, lent and borrowed), `claims` (whether a task may start), `call` (whether a model call may be made),
//! `price` (what it costs), `set` (changing limits).

mod bucket;
mod call;
mod claims;
mod holding;
mod meter;
mod path;
mod pool;
pub(crate) mod price;
mod set;
mod window;

pub(crate) use call::{Call, Purse, Room, Short};
pub(crate) use claims::{Claims, Fence, PoolBound, Reach, needs};
pub(crate) use meter::When;
pub(crate) use path::{CLUSTER, ancestors};
pub(crate) use path::{of_agent, of_project as path_of_project, of_task, read as read_path};
#[cfg(test)]
pub(crate) use set::set_one;
pub(crate) use set::{Cut, check_task_limits, limit_task, preview, set};
pub(crate) use window::bounds;

use crate::change::Change;
use crate::command::Stamp;
use crate::keys::Holding;
use crate::keys::Window;
use crate::rows::{QuotaRow, TaskRow};
use crate::state::State;
use std::collections::{BTreeMap, BTreeSet};
use types::{TaskUid, limits};

/// Tasks woken by one command, to bound the time it takes.
pub(crate) const WAKES_PER_COMMAND: usize = limits::BATCH_COMMANDS;

/// A row without limits and without use.
pub(crate) fn blank(path: &str) -> QuotaRow {
    QuotaRow {
        path: path.to_string(),
        running: None,
        tokens_minute: None,
        tokens_total: None,
        running_used: 0,
        tokens_settled: 0,
        tokens_reserved: 0,
        bucket_millitokens: 0,
        bucket_ms: 0,
        etag: 0,
        reason: String::new(),
        author: String::new(),
        updated_ms: 0,
        weight: None,
        served: None,
        leases: None,
        budgets: None,
        requests_minute: None,
        holdings: None,
        crossed: None,
        class_turns: None,
    }
}

/// Places with a guarantee, by what is guaranteed. A function of the rows.
pub(crate) type Pledges = BTreeMap<crate::keys::Holding, BTreeSet<String>>;

fn guaranteed(row: &QuotaRow) -> impl Iterator<Item = &Holding> {
    let guaranteed = row.holdings.iter().flatten().filter(|held| held.guaranteed.is_some());
    guaranteed.map(|held| &held.holding)
}

fn pledge(pledges: &mut Pledges, row: &QuotaRow) {
    for holding in guaranteed(row) {
        pledges.entry(holding.clone()).or_default().insert(row.path.clone());
    }
}

/// The row of a place changed.
fn repledge(pledges: &mut Pledges, old: &QuotaRow, new: &QuotaRow) {
    for holding in guaranteed(old) {
        if let Some(paths) = pledges.get_mut(holding) {
            paths.remove(&old.path);
        }
    }
    pledge(pledges, new);
    pledges.retain(|_, paths| !paths.is_empty());
}

impl State {
    /// Changes the row of every place above the task, with the buckets filled to now.
    pub(crate) fn use_quota(&mut self, row: &TaskRow, mut change: impl FnMut(&mut QuotaRow, Stamp)) {
        let clock = self.clock();
        for path in self.places(row) {
            self.quota_row(&path);
            self.quotas.update(&path, |row| {
                row.refill(clock.ledger_ms);
                change(row, clock);
            });
        }
    }

    /// The windows in which use counts.
    pub(crate) fn windows(&self) -> &'static [Window] {
        if self.counts_finely() { &Window::ALL } else { &[Window::Total] }
    }

    /// Makes the row of a place where there is none.
    pub(crate) fn quota_row(&mut self, path: &String) {
        if !self.quotas.contains(path) {
            self.quotas.insert(path.clone(), blank(path));
        }
    }

    pub(crate) fn pledges_of_rows(&self) -> Pledges {
        let mut pledges = Pledges::new();
        self.quotas.values().for_each(|row| pledge(&mut pledges, row));
        pledges
    }

    /// Tasks paused for lack of budget that fit at that time, in queue order, each beside the ones woken before it.
    pub(crate) fn wakes(&self, clock: Stamp) -> Vec<TaskUid> {
        if self.tasks.index().starved.is_empty() {
            return vec![];
        }
        let mut purse = Purse::new(self, clock);
        let mut woken = Vec::new();
        for key in &self.tasks.index().starved {
            if woken.len() == WAKES_PER_COMMAND {
                break;
            }
            let Some(row) = self.task(key.uid) else { continue };
            if purse.fits(row) {
                purse.take(row);
                woken.push(key.uid);
            }
        }
        woken
    }
}

pub(crate) fn wake(change: &mut Change<'_>) {
    for uid in change.state.wakes(change.state.clock()) {
        change.enter(uid, types::TaskState::Pending, "budget");
    }
}
