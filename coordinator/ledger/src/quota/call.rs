//! Whether a model call may be made: every budget and rate above the task, all or nothing.

use crate::change::Change;
use crate::command::Stamp;
use crate::keys::{Amounts, Budget, QuotaKey, Rate, Window, budget_key, rate_key};
use crate::quota::meter::When;
use crate::reply::Refusal;
use crate::rows::{Held, Price, QuotaRow, TaskRow, Want};
use crate::state::State;
use std::collections::{BTreeMap, BTreeSet};
use types::{TaskState, TaskUid};

/// How long a woken task counts as about to spend what it asked for, so that others are not woken for the same.
const PROMISE_MS: u64 = 10_000;

/// Why a task waits whose model has no price while money is limited.
pub(crate) const UNKNOWN_PRICE: &str = "unknown_price";

/// What is free of one resource at one place of the tree, for a call that wants some of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub path: String,
    pub key: QuotaKey,
    pub requested: u64,
    pub available: u64,
    pub limit: u64,
    /// What is used beyond the limit, after a cut.
    pub over: u64,
}

impl Room {
    pub(crate) fn is_short(&self) -> bool {
        self.requested > self.available
    }
}

/// A model call before it is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub min_tokens: u64,
    pub max_tokens: u64,
    pub want: Want,
    pub price: Option<Price>,
}

impl Call {
    /// The call that a task was refused, at today's price.
    fn refused(state: &State, row: &TaskRow) -> Call {
        let want = row.want.as_deref().copied().unwrap_or_default();
        let price = state.price(row.priced_by());
        Call { min_tokens: row.wanted_tokens, max_tokens: row.wanted_tokens, want, price }
    }

    /// What it uses when it uses so many new tokens.
    pub(crate) fn cost(&self, tokens: u64) -> Amounts {
        let (fresh, known) = (self.want.fresh_tokens.min(tokens), self.want.known_tokens);
        let own = Amounts { tokens, cached_tokens: known, ..Amounts::NONE };
        own.plus(self.want.extra).priced(self.price, fresh, known, tokens - fresh)
    }

    /// The most new tokens for which the money is enough.
    fn affordable(&self, micro_usd: u64) -> u64 {
        let left = micro_usd.saturating_sub(self.want.extra.micro_usd);
        let (fresh, known) = (self.want.fresh_tokens, self.want.known_tokens);
        let generated = self.price.map(|price| price.affordable(left, fresh, known));
        generated.unwrap_or(Some(u64::MAX)).map_or(0, |generated| generated.saturating_add(fresh))
    }
}

impl State {
    pub(crate) fn price(&self, model: &str) -> Option<Price> {
        self.prices.get(&model.to_string()).map(|row| row.price)
    }

    /// Every limited budget and rate above the task at that time, with what the call wants of it at least.
    fn rooms(&self, row: &TaskRow, call: &Call, clock: Stamp) -> Vec<Room> {
        let amounts = call.cost(call.min_tokens);
        // What costs nothing at the least may cost something at the most. Since level 4.
        let most = if self.makes_calls() { call.cost(call.max_tokens) } else { amounts };
        self.rooms_for(row, (amounts, most), 1, clock)
    }

    fn rooms_for(
        &self,
        row: &TaskRow,
        amounts: (Amounts, Amounts),
        requests: u64,
        clock: Stamp,
    ) -> Vec<Room> {
        let rows = self.places(row).into_iter().filter_map(|path| self.quotas.get(&path));
        rows.flat_map(|row| rooms_at(row, amounts, requests, clock)).collect()
    }

    /// Whether so much fits at every place above a row, in so many calls.
    pub(crate) fn has_room(
        &self,
        row: &TaskRow,
        amounts: Amounts,
        requests: u64,
        price: Option<Price>,
    ) -> bool {
        (price.is_some() || !self.costs_money(row))
            && !self.rooms_for(row, (amounts, amounts), requests, self.clock()).iter().any(Room::is_short)
    }

    /// Money is limited somewhere above the task.
    fn costs_money(&self, row: &TaskRow) -> bool {
        let limited = |row: &QuotaRow| {
            let mut budgets = row.budgets.iter().flatten();
            budgets.any(|budget| budget.budget == Budget::MicroUsd && budget.limit.is_some())
        };
        self.places(row).iter().filter_map(|path| self.quotas.get(path)).any(limited)
    }

    /// The budget with the least room above the task, where some has not enough for so many calls of tools.
    pub(crate) fn short_of_calls(&self, row: &TaskRow, calls: u64) -> Option<Room> {
        let held = row.held.as_deref().map_or(0, |held| held.amounts.tool_calls);
        let amounts = Amounts { tool_calls: calls.saturating_sub(held), ..Amounts::NONE };
        // Most steps begin none: they need no look at the tree.
        if amounts.is_none() {
            return None;
        }
        let rows = self.places(row).into_iter().filter_map(|path| self.quotas.get(&path));
        let rooms = rows.flat_map(|row| budgets_at(row, (amounts, amounts), self.clock()));
        rooms.filter(Room::is_short).min_by_key(|room| room.available)
    }

    /// How many tokens the call gets, or the place where it does not get its least.
    pub(crate) fn grant(&self, row: &TaskRow, call: &Call) -> Result<u64, Short> {
        if call.price.is_none() && self.costs_money(row) {
            return Err(Short::Unpriced);
        }
        let rooms = self.rooms(row, call, self.clock());
        if let Some(room) = rooms.iter().filter(|room| room.is_short()).min_by_key(|room| room.available) {
            return Err(Short::Room(room.clone()));
        }
        let most = rooms.iter().map(|room| match room.key {
            QuotaKey::TokensTotal | QuotaKey::TokensMinute | QuotaKey::Budget(Budget::Tokens, _) => {
                room.available
            }
            QuotaKey::Budget(Budget::MicroUsd, _) => call.affordable(room.available),
            _ => u64::MAX,
        });
        Ok(most.fold(call.max_tokens, u64::min))
    }
}

/// Why a call may not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Short {
    Room(Room),
    Unpriced,
}

impl Short {
    /// The reason of the pause.
    pub(crate) fn word(&self) -> String {
        match self {
            Short::Room(room) => room.key.to_string(),
            Short::Unpriced => UNKNOWN_PRICE.to_string(),
        }
    }

    pub(crate) fn refusal(self, model: &str) -> Refusal {
        match self {
            Short::Room(room) => Refusal::OverQuota {
                resource: room.key.to_string(),
                path: room.path,
                requested: room.requested,
                available: room.available,
                limit: room.limit,
            },
            Short::Unpriced => Refusal::Unpriced { model: model.to_string() },
        }
    }
}

/// `amounts` are wanted at the least, `most` at the most.
fn rooms_at(row: &QuotaRow, (amounts, most): (Amounts, Amounts), requests: u64, clock: Stamp) -> Vec<Room> {
    let mut rooms: Vec<Room> = budgets_at(row, (amounts, most), clock).collect();
    for (rate, requested) in [(Rate::Tokens, amounts.tokens), (Rate::Requests, requests)] {
        if let Some(bucket) = row.bucket(rate, clock.ledger_ms) {
            let (path, key) = (row.path.clone(), rate_key(rate));
            rooms.push(Room {
                path,
                key,
                requested,
                available: bucket.available(),
                limit: bucket.limit,
                over: 0,
            });
        }
    }
    rooms
}

fn budgets_at(
    row: &QuotaRow,
    (amounts, most): (Amounts, Amounts),
    clock: Stamp,
) -> impl Iterator<Item = Room> + '_ {
    let wanted = move |budget: &Budget| amounts.of(*budget).max(most.of(*budget)) > 0;
    let budgets = Budget::ALL.into_iter().filter(wanted);
    let meters = budgets.flat_map(|budget| Window::ALL.map(|window| (budget, window)));
    meters.filter_map(move |(budget, window)| {
        let meter = row.budget(budget, window, clock.wall_ms);
        let limit = meter.limit?;
        Some(Room {
            path: row.path.clone(),
            key: budget_key(budget, window),
            requested: amounts.of(budget),
            available: meter.available(),
            limit,
            over: meter.used().saturating_sub(limit),
        })
    })
}

impl Change<'_> {
    /// Sets the call's cost aside at every place above the task.
    pub(crate) fn set_aside(&mut self, uid: TaskUid, call: &Call, granted: u64) {
        let made_ms = self.state.wall_ms();
        let row = self.row(uid).clone();
        let amounts = self.lay_by(&row, call, granted);
        let held = Held {
            amounts: Amounts { tokens: 0, ..amounts },
            price: call.price,
            made_ms,
            known_tokens: call.want.known_tokens,
        };
        let finely = self.state.counts_finely();
        self.update(uid, |row| {
            row.reserved_tokens = granted;
            row.wanted_tokens = 0;
            row.want = None;
            row.held = finely.then(|| Box::new(held));
        });
    }

    /// Sets a call's cost aside at every place above a row; answers what.
    pub(crate) fn lay_by(&mut self, row: &TaskRow, call: &Call, granted: u64) -> Amounts {
        let amounts = call.cost(granted);
        self.take_amounts(row, amounts, 1);
        amounts
    }

    /// Sets so much aside at every place above a row, for so many calls.
    pub(crate) fn take_amounts(&mut self, row: &TaskRow, amounts: Amounts, requests: u64) {
        let at = When { wall_ms: self.state.wall_ms(), windows: self.state.windows() };
        self.spend(row, |quota, clock| {
            quota.set_aside(amounts, at);
            quota.pour(Rate::Tokens, amounts.tokens, 0, clock.ledger_ms);
            quota.pour(Rate::Requests, requests, 0, clock.ledger_ms);
        });
    }

    /// Fills the buckets above a row again.
    pub(crate) fn pour_back(&mut self, row: &TaskRow, tokens: u64, requests: u64) {
        self.state.use_quota(row, |quota, clock| {
            quota.pour(Rate::Tokens, 0, tokens, clock.ledger_ms);
            quota.pour(Rate::Requests, 0, requests, clock.ledger_ms);
        });
    }

    /// What was settled without being used is free again, in the windows of that time.
    pub(crate) fn unsettle_at(&mut self, row: &TaskRow, unused: Amounts, made_ms: u64) {
        let at = When { wall_ms: self.state.wall_ms(), windows: self.state.windows() };
        self.state.use_quota(row, |quota, _| quota.unsettle(unused, made_ms, at));
    }

    /// Ends a reservation at every place above a row, in the buckets too.
    pub(crate) fn settle_at(&mut self, row: &TaskRow, reserved: Amounts, used: Amounts, made_ms: u64) {
        let at = When { wall_ms: self.state.wall_ms(), windows: self.state.windows() };
        let unused = reserved.tokens.saturating_sub(used.tokens);
        self.spend(row, |quota, clock| {
            quota.settle(reserved, used, made_ms, at);
            quota.pour(Rate::Tokens, 0, unused, clock.ledger_ms);
        });
    }

    /// Settles what was used of what the task has set aside and gives the rest back, in the buckets too.
    pub(crate) fn give_back_reserved(&mut self, uid: TaskUid, used: Amounts) {
        let row = self.row(uid).clone();
        let held = row.held.as_deref().copied().unwrap_or_default();
        let reserved = Amounts { tokens: row.reserved_tokens, ..held.amounts };
        if reserved.is_none() && used.is_none() {
            return;
        }
        self.settle_at(&row, reserved, used, held.made_ms);
        self.update(uid, |row| {
            row.reserved_tokens = 0;
            row.held = None;
            row.settled_tokens = row.settled_tokens.saturating_add(used.tokens);
            let settled = row.settled.as_deref().copied().unwrap_or_default();
            let settled = settled.plus(Amounts { tokens: 0, ..used });
            row.settled = (!settled.is_none()).then(|| Box::new(settled));
        });
        if !reserved.less(used).is_none() {
            self.replan();
        }
    }

    /// Changes the budgets above a task, and says in the audit log which of them ran up to a share of their limit.
    fn spend(&mut self, row: &TaskRow, change: impl Fn(&mut QuotaRow, Stamp)) {
        let mut news = vec![];
        let tells = self.state.counts_finely();
        self.state.use_quota(row, |quota, clock| {
            change(quota, clock);
            let crossed = if tells { quota.tell_crossed(clock.wall_ms) } else { vec![] };
            news.extend(crossed.into_iter().map(|(budget, percent)| (quota.path.clone(), budget, percent)));
        });
        for (path, budget, percent) in news {
            let key = budget_key(budget.budget, budget.window);
            let what = format!("{key} {percent} %: {} of {}", budget.used(), budget.limit.unwrap_or(0));
            self.audit("", "quota.crossed", &path, &what, "");
        }
    }
}

/// What is left of the budgets while waking, and what was promised from them.
pub(crate) struct Purse<'a> {
    state: &'a State,
    clock: Stamp,
    promised: BTreeMap<String, (Amounts, u64)>,
    /// Places whose limits are looked past.
    lifted: BTreeSet<String>,
    /// A model that counts as priced.
    priced: Option<String>,
}

impl<'a> Purse<'a> {
    pub(crate) fn new(state: &'a State, clock: Stamp) -> Self {
        let mut purse =
            Purse { state, clock, promised: BTreeMap::new(), lifted: BTreeSet::new(), priced: None };
        for row in state.tasks.index().hopeful.iter().filter_map(|uid| state.task(*uid)) {
            let fresh = row.queued_ms.saturating_add(PROMISE_MS) > clock.ledger_ms;
            if fresh || row.state == TaskState::Running {
                purse.take(row);
            }
        }
        purse
    }

    pub(crate) fn lift(&mut self, row: &TaskRow) {
        self.lifted.extend(self.state.places(row));
        self.priced = self.lacks_price(row).then(|| row.priced_by().to_string());
    }

    /// Every limit above the task, with what was promised to others counted as wanted too.
    pub(crate) fn rooms(&self, row: &TaskRow) -> Vec<Room> {
        let mut rooms = self.state.rooms(row, &Call::refused(self.state, row), self.clock);
        for room in &mut rooms {
            let (amounts, requests) = self.promised.get(&room.path).copied().unwrap_or_default();
            let promised = match &room.key {
                QuotaKey::TokensTotal | QuotaKey::TokensMinute => amounts.tokens,
                QuotaKey::RequestsMinute => requests,
                QuotaKey::Budget(budget, _) => amounts.of(*budget),
                QuotaKey::Running | QuotaKey::Weight | QuotaKey::Holding(..) => 0,
            };
            room.requested = room.requested.saturating_add(promised);
        }
        rooms
    }

    pub(crate) fn lacks_price(&self, row: &TaskRow) -> bool {
        self.state.price(row.priced_by()).is_none() && self.state.costs_money(row)
    }

    pub(crate) fn fits(&self, row: &TaskRow) -> bool {
        let priced = self.priced.as_deref() == Some(row.priced_by()) || !self.lacks_price(row);
        priced && !self.rooms(row).iter().any(|room| room.is_short() && !self.lifted.contains(&room.path))
    }

    pub(crate) fn take(&mut self, row: &TaskRow) {
        let amounts = Call::refused(self.state, row).cost(row.wanted_tokens);
        for path in self.state.places(row) {
            let (promised, requests) = self.promised.entry(path).or_default();
            *promised = promised.plus(amounts);
            *requests += 1;
        }
    }
}
