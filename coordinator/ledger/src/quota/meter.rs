//! Budgets of one place: what is settled, reserved and over in each window.
//!
//! Every use counts in every window, whether a limit is set there or not, so a limit set later is right from its first
//! moment. A reservation settles in the window it was made in: when a window closes, what was reserved in it is not
//! in the way of the next one, and settling it later changes only the windows that are still those of its time.

use crate::keys::{Amounts, Budget, Window};
use crate::quota::window::bounds;
use crate::rows::{BudgetRow, Crossed, QuotaRow};

/// Shares of a limit that are told once a window.
const TOLD_PERCENT: [u8; 3] = [50, 80, 100];

/// Now, and the windows in which use counts.
#[derive(Clone, Copy)]
pub(crate) struct When<'a> {
    pub wall_ms: u64,
    pub windows: &'a [Window],
}

impl BudgetRow {
    fn blank(budget: Budget, window: Window, wall_ms: u64) -> BudgetRow {
        let (opens_ms, closes_ms) = bounds(window, wall_ms);
        BudgetRow { budget, window, limit: None, settled: 0, reserved: 0, overage: 0, opens_ms, closes_ms }
    }

    /// What stands against the limit.
    pub fn used(&self) -> u64 {
        self.settled.saturating_add(self.reserved).saturating_add(self.overage)
    }

    pub(crate) fn available(&self) -> u64 {
        self.limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.used()))
    }

    /// The same at a later time: a new window has nothing against it.
    fn rolled(self, wall_ms: u64) -> BudgetRow {
        if wall_ms < self.closes_ms {
            return self;
        }
        BudgetRow { limit: self.limit, ..BudgetRow::blank(self.budget, self.window, wall_ms) }
    }

    /// Whether a reservation of that time counts here.
    fn counts(&self, made_ms: u64) -> bool {
        made_ms >= self.opens_ms
    }
}

impl QuotaRow {
    /// One budget here, as it stands at that time.
    pub(crate) fn budget(&self, budget: Budget, window: Window, wall_ms: u64) -> BudgetRow {
        let mut kept = match self.find(budget, window) {
            Ok(at) => self.budgets.as_ref().map(|rows| rows[at].clone()),
            Err(_) => None,
        }
        .unwrap_or_else(|| BudgetRow::blank(budget, window, wall_ms));
        if (budget, window) == (Budget::Tokens, Window::Total) {
            kept.limit = self.tokens_total;
            kept.settled = self.tokens_settled;
            kept.reserved = self.tokens_reserved;
        }
        kept.rolled(wall_ms)
    }

    /// Every budget with a limit or with use, as it stands at that time.
    pub fn budgets_at(&self, wall_ms: u64) -> Vec<BudgetRow> {
        let total = self.budget(Budget::Tokens, Window::Total, wall_ms);
        let others = self.budgets.iter().flatten().map(|row| row.clone().rolled(wall_ms));
        std::iter::once(total).chain(others).filter(|row| row.limit.is_some() || row.used() > 0).collect()
    }

    fn find(&self, budget: Budget, window: Window) -> Result<usize, usize> {
        let rows = self.budgets.as_deref().unwrap_or_default();
        rows.binary_search_by_key(&(budget, window), |row| (row.budget, row.window))
    }

    pub(crate) fn put_budget(&mut self, row: BudgetRow) {
        if (row.budget, row.window) == (Budget::Tokens, Window::Total) {
            (self.tokens_total, self.tokens_settled, self.tokens_reserved) =
                (row.limit, row.settled, row.reserved);
            return;
        }
        let place = self.find(row.budget, row.window);
        let rows = self.budgets.get_or_insert_default();
        match place {
            Ok(at) => rows[at] = row,
            Err(at) => rows.insert(at, row),
        }
    }

    fn on_each(&mut self, amounts: Amounts, at: When<'_>, change: impl Fn(&mut BudgetRow, u64)) {
        for budget in Budget::ALL.into_iter().filter(|budget| amounts.of(*budget) > 0) {
            for window in at.windows {
                let mut row = self.budget(budget, *window, at.wall_ms);
                change(&mut row, amounts.of(budget));
                self.put_budget(row);
            }
        }
    }

    pub(crate) fn set_aside(&mut self, amounts: Amounts, at: When<'_>) {
        self.set_aside_at(amounts, at.wall_ms, at);
    }

    /// A reservation that was made before this place was there.
    fn set_aside_at(&mut self, amounts: Amounts, made_ms: u64, at: When<'_>) {
        self.on_each(amounts, at, |row, amount| {
            row.reserved = row.reserved.saturating_add(if row.counts(made_ms) { amount } else { 0 });
        });
    }

    /// What a task used before this place was there. When it was settled nobody knows any more: it counts in total.
    pub(crate) fn inherit(&mut self, settled: Amounts, reserved: Amounts, made_ms: u64, at: When<'_>) {
        self.on_each(settled, at, |row, amount| {
            let in_total = if row.window == Window::Total { amount } else { 0 };
            row.settled = row.settled.saturating_add(in_total);
        });
        self.set_aside_at(reserved, made_ms, at);
    }

    /// Ends a reservation made at `made_ms`: what was used is settled up to what was reserved, what was used beyond is
    /// booked as overage, the rest is free again.
    pub(crate) fn settle(&mut self, reserved: Amounts, used: Amounts, made_ms: u64, at: When<'_>) {
        let ends = |row: &mut BudgetRow, amount: u64| {
            if row.counts(made_ms) {
                row.reserved = row.reserved.saturating_sub(amount);
            }
        };
        self.on_each(reserved, at, ends);
        let spends = |row: &mut BudgetRow, amount: u64| {
            if row.counts(made_ms) {
                row.settled = row.settled.saturating_add(amount);
            }
        };
        self.on_each(used.least(reserved), at, spends);
        self.on_each(used.less(reserved), at, |row, amount| {
            row.overage = row.overage.saturating_add(amount);
        });
    }

    /// What was settled of a reservation made at `made_ms` was not used: it is free again.
    pub(crate) fn unsettle(&mut self, unused: Amounts, made_ms: u64, at: When<'_>) {
        self.on_each(unused, at, |row, amount| {
            row.settled = row.settled.saturating_sub(if row.counts(made_ms) { amount } else { 0 });
        });
    }

    /// Budgets that reached a share of their limit that was not told in this window yet. Told from now on.
    pub(crate) fn tell_crossed(&mut self, wall_ms: u64) -> Vec<(BudgetRow, u8)> {
        let mut news = vec![];
        let mut told = vec![];
        for row in self.budgets_at(wall_ms) {
            let Some(percent) = share_reached(&row) else { continue };
            let before = self.told(&row);
            let (budget, window, opens_ms) = (row.budget, row.window, row.opens_ms);
            told.push(Crossed { budget, window, percent: percent.max(before), opens_ms });
            let marks = TOLD_PERCENT.into_iter().filter(|mark| (before + 1..=percent).contains(mark));
            news.extend(marks.map(|mark| (row.clone(), mark)));
        }
        self.crossed = (!told.is_empty()).then_some(told);
        news
    }

    fn told(&self, row: &BudgetRow) -> u8 {
        let same = |told: &&Crossed| {
            (told.budget, told.window, told.opens_ms) == (row.budget, row.window, row.opens_ms)
        };
        self.crossed.iter().flatten().find(same).map_or(0, |told| told.percent)
    }
}

fn share_reached(row: &BudgetRow) -> Option<u8> {
    let limit = u128::from(row.limit?.max(1));
    let used = u128::from(row.used()) * 100;
    TOLD_PERCENT.into_iter().rev().find(|percent| used >= limit * u128::from(*percent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::blank;

    const HOUR_MS: u64 = 3_600_000;

    fn at(wall_ms: u64) -> When<'static> {
        When { wall_ms, windows: &Window::ALL }
    }

    fn tokens(amount: u64) -> Amounts {
        Amounts { tokens: amount, ..Amounts::NONE }
    }

    fn hour(row: &QuotaRow, wall_ms: u64) -> (u64, u64) {
        let row = row.budget(Budget::Tokens, Window::Hour, wall_ms);
        (row.settled, row.reserved)
    }

    #[test]
    fn a_reservation_settles_in_the_window_it_was_made_in() {
        let mut row = blank("cluster");
        row.set_aside(tokens(50), at(10));
        // The hour is over before the call is.
        assert_eq!(hour(&row, HOUR_MS), (0, 0));
        row.set_aside(tokens(20), at(HOUR_MS + 1));
        row.settle(tokens(50), tokens(40), 10, at(HOUR_MS + 2));
        assert_eq!(hour(&row, HOUR_MS + 2), (0, 20));
        row.settle(tokens(20), tokens(5), HOUR_MS + 1, at(HOUR_MS + 3));
        assert_eq!(hour(&row, HOUR_MS + 3), (5, 0));
        assert_eq!((row.tokens_settled, row.tokens_reserved), (45, 0), "the total counts both");
    }

    #[test]
    fn what_is_beyond_a_reservation_is_overage_and_in_the_way() {
        let mut row = blank("cluster");
        let money = |amount| Amounts { micro_usd: amount, ..Amounts::NONE };
        row.set_aside(money(10), at(0));
        row.settle(money(10), money(13), 0, at(1));
        let mut budget = row.budget(Budget::MicroUsd, Window::Total, 1);
        assert_eq!((budget.settled, budget.overage, budget.used()), (10, 3, 13));
        budget.limit = Some(12);
        assert_eq!(budget.available(), 0);
    }

    #[test]
    fn shares_of_a_limit_are_told_once_a_window() {
        let mut row = blank("cluster");
        let mut day = row.budget(Budget::Tokens, Window::Day, 0);
        day.limit = Some(100);
        row.put_budget(day);
        row.set_aside(tokens(49), at(0));
        assert!(row.tell_crossed(0).is_empty());
        row.set_aside(tokens(31), at(0));
        assert_eq!(row.tell_crossed(0).iter().map(|(_, percent)| *percent).collect::<Vec<_>>(), [50, 80]);
        assert!(row.tell_crossed(0).is_empty());
        row.set_aside(tokens(20), at(1));
        assert_eq!(row.tell_crossed(1)[0].1, 100);
        row.set_aside(tokens(50), at(25 * HOUR_MS));
        assert_eq!(row.tell_crossed(25 * HOUR_MS)[0].1, 50, "the next day begins anew");
    }
}
