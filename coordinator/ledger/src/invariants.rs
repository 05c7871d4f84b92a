//! What must hold after every command, whatever the commands were. Made for tests and simulators: it looks at
//! everything and is slow.

use crate::change::{holds_slot, stands_again};
use crate::command::Stamp;
use crate::keys::{Amounts, Budget, Holding, Window};
use crate::quota::{blank, needs};
use crate::rows::{CallRow, QuotaRow, TaskRow};
use crate::state::State;
use std::collections::{BTreeMap, BTreeSet};
use types::{Epoch, TaskState, TaskUid, limits};

/// The state is in itself right. The error names the rule that is broken and where.
pub fn check(state: &State) -> Result<(), String> {
    hashes(state)?;
    if *state.tasks.index() != state.tasks.rebuilt() {
        return Err("the task index differs from the rows".to_string());
    }
    state.requests.check()?;
    state.calls.check()?;
    state.tasks().try_for_each(|row| task(state, row).map_err(|broken| format!("{}: {broken}", row.uid)))?;
    one_lease_an_epoch(state)?;
    quotas(state)
}

fn must(holds: bool, rule: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule.to_string()) }
}

fn hashes(state: &State) -> Result<(), String> {
    for (name, kept, again) in state.sums() {
        must(kept == again(), &format!("the kept hash of {name} differs from its rows"))?;
    }
    Ok(())
}

fn task(state: &State, row: &TaskRow) -> Result<(), String> {
    let leased = row.epoch.is_some();
    must(leased == row.node.is_some(), "a lease has a node and an epoch")?;
    must(row.state != TaskState::Running || leased, "a running task has a lease")?;
    let may_lease = matches!(row.state, TaskState::Running | TaskState::WaitingTool | TaskState::Cancelling);
    must(!leased || may_lease, "only running, tool-using and cancelling tasks have a lease")?;
    must(row.state != TaskState::WaitingTool || leased, "who waits for tools has a lease")?;
    let aside = row.aside.is_some();
    must(row.state != TaskState::WaitingTool || aside, "who waits for tools holds no slot")?;
    must(!aside || (leased && row.state != TaskState::Running), "who runs holds a slot")?;
    must(row.priority <= 9, "a priority goes from 0 to 9")?;
    crate::talk::check(row)?;
    must(row.reserved_tokens == 0 || leased, "only a lease sets tokens aside")?;
    must(row.node.is_none_or(|node| state.node(node).is_some()), "leases are of members")?;
    let routed = row.route.as_deref().is_none_or(|route| route.step == row.step + 1);
    must(routed, "a model is chosen for the next step")?;
    must(row.epoch <= row.last_epoch, "the newest epoch is remembered")?;
    let home = !holds_slot(row) || row.home.first() == row.node.as_ref();
    must(home, "home begins with the lease node")?;
    must(
        !stands_again(row) || row.state == TaskState::Cancelling,
        "an old lease stands again only for a cancel",
    )?;
    let cancelling = row.state == TaskState::Cancelling && row.epoch.is_none();
    must(row.unaware.is_empty() || !cancelling, "a cancel waits for a holder that may not know")?;
    must(
        !row.state.is_final()
            || row.unaware.is_empty()
            || row.state == TaskState::Succeeded
            || row.state == TaskState::Failed,
        "a cancelled task has no unaware holder",
    )?;
    must(row.keepers.iter().all(|kept| state.node(*kept).is_some()), "keepers are members")?;
    family(state, row)?;
    events(state, row)
}

/// A task that is final and has nothing open below it.
fn closed(row: &TaskRow) -> bool {
    row.state.is_final() && row.children_open == 0
}

fn family(state: &State, row: &TaskRow) -> Result<(), String> {
    let children: Vec<&TaskRow> = row.children.iter().filter_map(|uid| state.task(*uid)).collect();
    must(children.len() == row.children.len(), "every child has a row")?;
    let open = children.iter().filter(|child| !closed(child)).count();
    must(open == row.children_open as usize, "children_open counts the open children")?;
    let mine = |child: &&TaskRow| child.origin.is_some_and(|origin| origin.parent == row.uid);
    must(children.iter().all(mine), "children know their parent")?;
    let origins: BTreeSet<_> = children.iter().filter_map(|child| child.origin).collect();
    must(origins.len() == children.len(), "children have different origins")?;
    must(row.state != TaskState::WaitingChild || open > 0, "a waiting parent has someone to wait for")?;
    let leased = row.epoch.is_some();
    must(row.state != TaskState::Cancelling || leased || open > 0, "a cancelling task waits for someone")?;
    let proof = matches!(row.state, TaskState::Cancelled | TaskState::Expired);
    must(!proof || open == 0, "nothing is open below a cancelled task")?;
    let ending = row.state == TaskState::Cancelling || row.state.is_final();
    let stopping = |child: &&TaskRow| child.state == TaskState::Cancelling || child.state.is_final();
    must(!ending || children.iter().all(stopping), "nothing runs below a task that ends")
}

fn events(state: &State, row: &TaskRow) -> Result<(), String> {
    let kept: Vec<u64> = state.events_from(row.uid, 0).map(|event| event.sequence).collect();
    let first = (row.sequence + 1).saturating_sub(limits::EVENTS_PER_TASK as u64).max(1);
    must(kept.iter().copied().eq(first..=row.sequence), "event sequences have no gap")
}

fn one_lease_an_epoch(state: &State) -> Result<(), String> {
    let epochs: Vec<Epoch> = state.tasks().filter_map(|row| row.epoch).collect();
    let distinct: BTreeSet<Epoch> = epochs.iter().copied().collect();
    must(distinct.len() == epochs.len(), "two leases have the same epoch")
}

/// What the tasks and calls below one place of the tree say is used there.
#[derive(Default)]
struct Below {
    held: BTreeMap<Holding, u64>,
    /// With the time each reservation was made at.
    reserved: Vec<(Amounts, u64)>,
    settled: Amounts,
}

fn quotas(state: &State) -> Result<(), String> {
    must(state.pledges == state.pledges_of_rows(), "the index of guarantees differs from the rows")?;
    let mut below: BTreeMap<String, Below> = BTreeMap::new();
    for row in state.tasks() {
        for path in state.places(row) {
            below.entry(path).or_default().count(row);
        }
    }
    for call in state.calls() {
        must(state.node(call.node).is_some(), "calls are of members")?;
        must(call.slots() > 0, "a slice without a slot is over")?;
        for path in state.places(&call.as_task()) {
            below.entry(path).or_default().count_call(call);
        }
    }
    let none = Below::default();
    for path in below.keys().chain(state.quotas.values().map(|row| &row.path)) {
        let row = state.quotas.get(path).cloned().unwrap_or_else(|| blank(path));
        let below = below.get(path).unwrap_or(&none);
        place(&row, below, state.wall_ms()).map_err(|broken| format!("{path}: {broken}"))?;
    }
    settled_adds_up(state)
}

impl Below {
    fn count_call(&mut self, call: &CallRow) {
        let task = call.as_task();
        needs(&task).for_each(|(holding, amount)| {
            *self.held.entry(holding.clone()).or_default() += amount * call.slots();
        });
        self.reserved.push((call.reserved, call.made_ms));
    }

    fn count(&mut self, row: &TaskRow) {
        if holds_slot(row) {
            needs(row).for_each(|(holding, amount)| *self.held.entry(holding.clone()).or_default() += amount);
        }
        let held = row.held.as_deref().copied().unwrap_or_default();
        self.reserved.push((Amounts { tokens: row.reserved_tokens, ..held.amounts }, held.made_ms));
        let settled = row.settled.as_deref().copied().unwrap_or_default();
        self.settled =
            self.settled.plus(settled).plus(Amounts { tokens: row.settled_tokens, ..Amounts::NONE });
    }
}

fn place(row: &QuotaRow, below: &Below, wall_ms: u64) -> Result<(), String> {
    let known = row.holdings_here().into_iter().map(|held| held.holding);
    for holding in known.chain(below.held.keys().cloned()) {
        let (says, summed) = (row.holding(&holding).used, below.held.get(&holding).copied().unwrap_or(0));
        must(says == summed, &format!("{} says {says} are held, its tasks hold {summed}", holding.name()))?;
    }
    for budget in Budget::ALL {
        for window in Window::ALL {
            let meter = row.budget(budget, window, wall_ms);
            let of_window = below.reserved.iter().filter(|(_, made_ms)| *made_ms >= meter.opens_ms);
            let summed: u64 = of_window.map(|(amounts, _)| amounts.of(budget)).sum();
            let says = meter.reserved;
            let what = format!("{} of the {}", budget.name(), window.name());
            must(says == summed, &format!("{what}: {says} are said to be reserved, by tasks {summed}"))?;
        }
        // Tasks that were forgotten take their part of the settled sum with them, the place keeps it.
        let total = row.budget(budget, Window::Total, wall_ms);
        let (says, summed) = (total.settled + total.overage, below.settled.of(budget));
        must(says >= summed, &format!("{} says {says} are settled, its tasks {summed}", budget.name()))?;
    }
    buckets(row)
}

fn buckets(row: &QuotaRow) -> Result<(), String> {
    let full = |limit: u64| limit.saturating_mul(1000);
    let requests = row.requests_minute.is_none_or(|bucket| bucket.level_milli <= full(bucket.limit));
    let tokens = row.bucket_millitokens <= full(row.tokens_minute.unwrap_or(0));
    must(tokens && requests, "a bucket holds at most a minute's worth")
}

fn settled_adds_up(state: &State) -> Result<(), String> {
    let top = |row: &&QuotaRow| row.path.starts_with("projects/") && row.path.matches('/').count() == 1;
    let projects: u64 = state.quotas.values().filter(top).map(|row| row.tokens_settled).sum();
    let cluster = state.quotas.get(&"cluster".to_string()).map_or(0, |row| row.tokens_settled);
    must(projects == cluster, &format!("projects settled {projects} tokens, the cluster {cluster}"))
}

/// Watches a state over time for what one look cannot see: what was final moves again, sequences or epochs go back,
/// use rises above a limit.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    tasks: BTreeMap<TaskUid, (TaskState, u64, u64, Option<Epoch>)>,
    quotas: BTreeMap<String, QuotaRow>,
    clock: Stamp,
}

impl Watch {
    /// Checks the state in itself and against the last one seen.
    pub fn check(&mut self, state: &State) -> Result<(), String> {
        check(state)?;
        let clock = std::mem::replace(&mut self.clock, state.clock());
        let forward = clock.ledger_ms <= self.clock.ledger_ms && clock.wall_ms <= self.clock.wall_ms;
        must(forward, "a clock went back")?;
        for row in state.tasks() {
            let now = (row.state, row.step, row.sequence, row.last_epoch);
            if let Some(before) = self.tasks.insert(row.uid, now) {
                moved_forward(before, now).map_err(|broken| format!("{}: {broken}", row.uid))?;
            }
        }
        self.check_use(state)
    }

    /// Only that use did not rise above a limit. Cheap, and to be called after every command: between two looks a
    /// limit may have been cut below what was used rightly before.
    pub fn check_use(&mut self, state: &State) -> Result<(), String> {
        for row in state.quotas.values() {
            if let Some(before) = self.quotas.insert(row.path.clone(), row.clone()) {
                never_over(&before, row, state.wall_ms())?;
            }
        }
        Ok(())
    }
}

type Seen = (TaskState, u64, u64, Option<Epoch>);

fn moved_forward(before: Seen, now: Seen) -> Result<(), String> {
    must(!before.0.is_final() || before.0 == now.0, "a final task moved")?;
    let stopping = now.0 == TaskState::Cancelling || now.0.is_final();
    must(before.0 != TaskState::Cancelling || stopping, "a cancelling task went back to work")?;
    must(now.1 >= before.1 && now.2 >= before.2 && now.3 >= before.3, "step, sequence or epoch went back")
}

/// No command raises settled + reserved, or what is held, above the limit in force.
fn never_over(before: &QuotaRow, now: &QuotaRow, wall_ms: u64) -> Result<(), String> {
    let over =
        |limit: Option<u64>, before: u64, now: u64| limit.is_some_and(|limit| now > limit && now > before);
    for meter in now.budgets_at(wall_ms) {
        let old = before.budget(meter.budget, meter.window, wall_ms);
        let (was, is) = (old.settled + old.reserved, meter.settled + meter.reserved);
        let rule = format!(
            "{}: {} of the {} rose above their limit",
            now.path,
            meter.budget.name(),
            meter.window.name()
        );
        must(!over(meter.limit, was, is), &rule)?;
    }
    for held in now.holdings_here() {
        let was = before.holding(&held.holding).used;
        must(
            !over(held.limit, was, held.used),
            &format!("{}: {} rose above its limit", now.path, held.holding.name()),
        )?;
    }
    Ok(())
}
