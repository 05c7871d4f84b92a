//! Changing limits. All keys of one request change together or none does.

use crate::agents::check_etag;
use crate::change::{Change, check_text, holds_slot, invalid, not_found};
use crate::command::{RequestKey, Stamp};
use crate::keys::{Amounts, Bound, Budget, Holding, QuotaKey, Rate, Window, budget_key};
use crate::quota::meter::When;
use crate::quota::path::{self, Spot};
use crate::quota::{blank, repledge, wake};
use crate::reply::{Refusal, Reply};
use crate::requests::Memory;
use crate::rows::{QuotaRow, TaskRow};
use crate::state::State;
use types::{TaskState, TaskUid};

/// The heaviest project has a thousand times the share of the lightest.
const WEIGHT_MOST: u64 = 1000;

pub(crate) struct Cut<'a> {
    pub path: &'a str,
    pub changes: &'a [(QuotaKey, Option<u64>)],
    pub etag: Option<u64>,
    pub reason: &'a str,
    pub request: &'a RequestKey,
}

pub(crate) fn set(change: &mut Change<'_>, cut: &Cut<'_>) -> Result<Reply, Refusal> {
    path::read(cut.path)?;
    check_text("reason", cut.reason)?;
    if let Some(reply) = change.recall(cut.request, cut.path)? {
        return Ok(reply);
    }
    let clock = change.state.clock();
    let (old, row) = changed(change.state, cut, clock)?;
    change.state.quotas.insert(row.path.clone(), row.clone());
    repledge(&mut change.state.pledges, &old, &row);
    let what =
        cut.changes.iter().map(|(key, _)| difference(&old, &row, key, clock)).collect::<Vec<_>>().join(", ");
    change.audit(&cut.request.author, "quota.set", cut.path, &what, cut.reason);
    change.remember(cut.request, cut.path, Memory::Reply(Box::new(Reply::Quota(row.clone()))));
    wake(change);
    crate::slices::recall_at(change, cut.path);
    change.replan();
    Ok(Reply::Quota(row))
}

/// The row before and after, or why not. Changes nothing.
fn changed(state: &State, cut: &Cut<'_>, clock: Stamp) -> Result<(QuotaRow, QuotaRow), Refusal> {
    if cut.changes.is_empty() {
        return Err(invalid("changes", format!("none given; name one of {}", crate::keys::KEYS)));
    }
    let spot = path::read(cut.path)?;
    let old = match state.quotas.get(&cut.path.to_string()) {
        Some(row) => row.clone(),
        None => fresh(state, cut.path, &spot, clock)?,
    };
    check_etag(cut.etag, old.etag)?;
    let mut row = old.clone();
    row.refill(clock.ledger_ms);
    for (key, limit) in cut.changes {
        set_one(&mut row, &spot, key, *limit, clock)?;
    }
    check_bounds(&row)?;
    row.etag += 1;
    row.reason = cut.reason.to_string();
    row.author = cut.request.author.clone();
    row.updated_ms = clock.wall_ms;
    Ok((old, row))
}

/// A place that was not there yet. A task's has what its tree used before.
fn fresh(state: &State, path: &str, spot: &Spot, clock: Stamp) -> Result<QuotaRow, Refusal> {
    let Spot::Task(uid) = spot else { return Ok(blank(path)) };
    let task = state.task(*uid).ok_or_else(|| not_found("task", &uid.to_string()))?;
    if task.state.is_final() {
        return Err(crate::stop::wrong_state(task.state));
    }
    let mut row = blank(path);
    for (holding, amount) in state.held_below(task) {
        row.hold(&holding, amount);
    }
    spent_below(state, task, &mut row, clock);
    Ok(row)
}

fn spent_below(state: &State, task: &TaskRow, row: &mut QuotaRow, clock: Stamp) {
    let settled =
        Amounts { tokens: task.settled_tokens, ..task.settled.as_deref().copied().unwrap_or_default() };
    let held = task.held.as_deref().copied().unwrap_or_default();
    let reserved = Amounts { tokens: task.reserved_tokens, ..held.amounts };
    row.inherit(settled, reserved, held.made_ms, When { wall_ms: clock.wall_ms, windows: state.windows() });
    for child in task.children.iter().filter_map(|uid| state.task(*uid)) {
        spent_below(state, child, row, clock);
    }
}

pub(crate) fn set_one(
    row: &mut QuotaRow,
    spot: &Spot,
    key: &QuotaKey,
    limit: Option<u64>,
    clock: Stamp,
) -> Result<(), Refusal> {
    match key {
        QuotaKey::Running => row.set_bound(&Holding::Running, Bound::Limit, limit),
        QuotaKey::Holding(holding, bound) => {
            if *bound != Bound::Limit && matches!(spot, Spot::Task(_)) {
                return Err(invalid(
                    &key.to_string(),
                    "tasks have limits only; set it at the agent or project",
                ));
            }
            row.set_bound(holding, *bound, limit);
        }
        QuotaKey::TokensMinute => row.set_rate(Rate::Tokens, limit, clock.ledger_ms),
        QuotaKey::RequestsMinute => row.set_rate(Rate::Requests, limit, clock.ledger_ms),
        QuotaKey::TokensTotal => set_budget(row, Budget::Tokens, Window::Total, limit, clock),
        QuotaKey::Budget(budget, window) => set_budget(row, *budget, *window, limit, clock),
        QuotaKey::Weight => return set_weight(row, spot, limit),
    }
    Ok(())
}

/// Refuses what can't be a task's own limit.
pub(crate) fn check_task_limits(limits: &[(QuotaKey, u64)]) -> Result<(), Refusal> {
    let mut row = blank("tasks/new");
    let spot = Spot::Task(TaskUid::default());
    limits
        .iter()
        .try_for_each(|(key, limit)| set_one(&mut row, &spot, key, Some(*limit), Stamp::default()))?;
    check_bounds(&row)
}

/// Gives a new task limits of its own.
pub(crate) fn limit_task(
    change: &mut Change<'_>,
    uid: TaskUid,
    limits: &[(QuotaKey, u64)],
) -> Result<(), Refusal> {
    if limits.is_empty() {
        return Ok(());
    }
    let (clock, spot) = (change.state.clock(), Spot::Task(uid));
    let mut row = blank(&super::of_task(uid));
    limits.iter().try_for_each(|(key, limit)| set_one(&mut row, &spot, key, Some(*limit), clock))?;
    change.state.quotas.insert(row.path.clone(), row);
    Ok(())
}

fn set_budget(row: &mut QuotaRow, budget: Budget, window: Window, limit: Option<u64>, clock: Stamp) {
    let mut meter = row.budget(budget, window, clock.wall_ms);
    meter.limit = limit;
    row.put_budget(meter);
    let told = row.crossed.take().into_iter().flatten();
    let others: Vec<_> = told.filter(|told| (told.budget, told.window) != (budget, window)).collect();
    row.crossed = (!others.is_empty()).then_some(others);
}

/// What was served counts by the new weight as it did by the old one: the project keeps its turn.
fn set_weight(row: &mut QuotaRow, spot: &Spot, weight: Option<u64>) -> Result<(), Refusal> {
    if !matches!(spot, Spot::Project(_)) {
        return Err(invalid("weight", "is a project's share among projects; set it at projects/NAME"));
    }
    if weight.is_some_and(|weight| weight == 0 || weight > WEIGHT_MOST) {
        return Err(invalid(
            "weight",
            format!("goes from 1 to {WEIGHT_MOST}; to hold a project back set running=0"),
        ));
    }
    let (old, new) = (row.weight.unwrap_or(1), weight.unwrap_or(1));
    row.served = row.served.map(|served| {
        u64::try_from(u128::from(served) * u128::from(new) / u128::from(old)).unwrap_or(u64::MAX)
    });
    row.weight = weight;
    Ok(())
}

fn check_bounds(row: &QuotaRow) -> Result<(), Refusal> {
    for held in row.holdings_here() {
        let name = held.holding.name();
        let guaranteed = held.guaranteed.unwrap_or(0);
        if let Some(lend) = held.lend.filter(|lend| *lend > guaranteed) {
            let why =
                format!("{lend} is more than the {guaranteed} guaranteed; nobody lends what they don't have");
            return Err(invalid(&format!("{name} lend"), why));
        }
        if let Some(limit) = held.limit.filter(|limit| *limit < guaranteed) {
            let why =
                format!("{guaranteed} is above the limit of {limit}; raise the limit, or guarantee less");
            return Err(invalid(&format!("{name} guaranteed"), why));
        }
    }
    Ok(())
}

fn difference(old: &QuotaRow, new: &QuotaRow, key: &QuotaKey, clock: Stamp) -> String {
    let shown =
        |row: &QuotaRow| row.limit_of(key, clock).map_or("none".to_string(), |limit| limit.to_string());
    format!("{key} {} -> {}", shown(old), shown(new))
}

impl QuotaRow {
    /// What is set for a key.
    pub fn limit_of(&self, key: &QuotaKey, clock: Stamp) -> Option<u64> {
        match key {
            QuotaKey::Running => self.running,
            QuotaKey::TokensMinute => self.tokens_minute,
            QuotaKey::RequestsMinute => self.requests_minute.map(|bucket| bucket.limit),
            QuotaKey::TokensTotal => self.tokens_total,
            QuotaKey::Budget(budget, window) => self.budget(*budget, *window, clock.wall_ms).limit,
            QuotaKey::Holding(holding, bound) => self.holding(holding).bound(*bound),
            QuotaKey::Weight => self.weight,
        }
    }

    /// Every key that is set here or used, with its limit, use and what is reserved, by name.
    pub fn facts(&self, clock: Stamp) -> Vec<(QuotaKey, Option<u64>, u64, u64)> {
        let mut facts = vec![];
        let running = self.holding(&Holding::Running);
        facts.push((QuotaKey::Running, running.limit, running.used, 0));
        for held in self.holdings_here() {
            for bound in Bound::ALL {
                let key = crate::keys::key_of(&held.holding, bound);
                let limit = held.bound(bound);
                let used = if bound == Bound::Limit { held.used } else { 0 };
                if key != QuotaKey::Running && (limit.is_some() || used > 0) {
                    facts.push((key, limit, used, 0));
                }
            }
        }
        for rate in Rate::ALL {
            let bucket = self.bucket(rate, clock.ledger_ms);
            if rate == Rate::Tokens || bucket.is_some() {
                let used = bucket.map_or(0, |bucket| bucket.used());
                facts.push((crate::keys::rate_key(rate), bucket.map(|bucket| bucket.limit), used, 0));
            }
        }
        let mut budgets = self.budgets_at(clock.wall_ms);
        if !budgets.iter().any(|row| (row.budget, row.window) == (Budget::Tokens, Window::Total)) {
            budgets.insert(0, self.budget(Budget::Tokens, Window::Total, clock.wall_ms));
        }
        for row in budgets {
            let key = budget_key(row.budget, row.window);
            facts.push((key, row.limit, row.settled.saturating_add(row.overage), row.reserved));
        }
        facts.extend(self.weight.map(|weight| (QuotaKey::Weight, Some(weight), 0, 0)));
        facts
    }
}

/// What a change would do, without doing it: the row as it would be, and the running tasks whose next model call
/// would be refused or who stand above a holding's new limit.
pub(crate) fn preview(
    state: &State,
    cut: &Cut<'_>,
    clock: Stamp,
) -> Result<(QuotaRow, Vec<TaskUid>), Refusal> {
    check_text("reason", cut.reason)?;
    let (_, row) = changed(state, cut, clock)?;
    let below =
        |task: &&TaskRow| state.places(task).contains(&row.path) || cut.path == super::of_task(task.uid);
    let running: Vec<&TaskRow> = state
        .tasks()
        .filter(|task| task.state == TaskState::Running && holds_slot(task))
        .filter(below)
        .collect();
    let dry =
        row.budgets_at(clock.wall_ms).iter().any(|meter| meter.limit.is_some() && meter.available() == 0);
    let over: u64 = row
        .holdings_here()
        .iter()
        .map(|held| held.limit.map_or(0, |limit| held.used.saturating_sub(limit)))
        .max()
        .unwrap_or(0);
    let hit =
        if dry { running.len() } else { usize::try_from(over).unwrap_or(usize::MAX).min(running.len()) };
    // The youngest leases are the first to wait.
    let mut uids: Vec<TaskUid> = running.iter().map(|task| task.uid).collect();
    uids.sort_by_key(|uid| std::cmp::Reverse(state.task(*uid).and_then(|task| task.epoch)));
    uids.truncate(hit);
    Ok((row, uids))
}
