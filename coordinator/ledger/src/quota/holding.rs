//! Holdings of one place: what is held, and how much of it may be.

use crate::keys::{Bound, Holding};
use crate::rows::{HoldingRow, QuotaRow};

impl HoldingRow {
    fn blank(holding: Holding) -> HoldingRow {
        HoldingRow { holding, limit: None, guaranteed: None, borrow: None, lend: None, used: 0 }
    }

    fn bound_mut(&mut self, bound: Bound) -> &mut Option<u64> {
        match bound {
            Bound::Limit => &mut self.limit,
            Bound::Guaranteed => &mut self.guaranteed,
            Bound::Borrow => &mut self.borrow,
            Bound::Lend => &mut self.lend,
        }
    }

    pub fn bound(&self, bound: Bound) -> Option<u64> {
        *self.clone().bound_mut(bound)
    }

    fn is_blank(&self) -> bool {
        self.used == 0 && Bound::ALL.iter().all(|bound| self.bound(*bound).is_none())
    }
}

impl QuotaRow {
    pub fn holding(&self, holding: &Holding) -> HoldingRow {
        let kept =
            self.find_holding(holding).ok().and_then(|at| self.holdings.as_ref().map(|rows| &rows[at]));
        let mut row = kept.cloned().unwrap_or_else(|| HoldingRow::blank(holding.clone()));
        if *holding == Holding::Running {
            (row.limit, row.used) = (self.running, self.running_used);
        }
        row
    }

    /// Every holding with a bound or with use.
    pub fn holdings_here(&self) -> Vec<HoldingRow> {
        let others = self.holdings.iter().flatten().map(|row| &row.holding);
        let known = others.filter(|holding| **holding != Holding::Running);
        let rows = std::iter::once(&Holding::Running).chain(known).map(|holding| self.holding(holding));
        rows.filter(|row| !row.is_blank()).collect()
    }

    fn find_holding(&self, holding: &Holding) -> Result<usize, usize> {
        self.holdings.as_deref().unwrap_or_default().binary_search_by(|row| row.holding.cmp(holding))
    }

    fn put_holding(&mut self, mut row: HoldingRow) {
        if row.holding == Holding::Running {
            (self.running, self.running_used) = (row.limit, row.used);
            (row.limit, row.used) = (None, 0);
        }
        let place = self.find_holding(&row.holding);
        match (place, row.is_blank()) {
            (Ok(at), true) => drop(self.holdings.as_mut().map(|rows| rows.remove(at))),
            (Ok(at), false) => self.holdings.get_or_insert_default()[at] = row,
            (Err(_), true) => {}
            (Err(at), false) => self.holdings.get_or_insert_default().insert(at, row),
        }
        self.holdings.take_if(|rows| rows.is_empty());
    }

    pub(crate) fn hold(&mut self, holding: &Holding, amount: u64) {
        let row = self.holding(holding);
        self.put_holding(HoldingRow { used: row.used.saturating_add(amount), ..row });
    }

    pub(crate) fn let_go(&mut self, holding: &Holding, amount: u64) {
        let row = self.holding(holding);
        self.put_holding(HoldingRow { used: row.used.saturating_sub(amount), ..row });
    }

    pub(crate) fn set_bound(&mut self, holding: &Holding, bound: Bound, limit: Option<u64>) {
        let mut row = self.holding(holding);
        *row.bound_mut(bound) = limit;
        self.put_holding(row);
    }
}
