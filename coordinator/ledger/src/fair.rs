//! What a project was served, for its turn in the queue: virtual token counters (Sheng et al., OSDI 2024).
//!
//! Each project counts the cost of its steps; the one that has least for its weight goes first. A step is charged by a
//! guess when its lease is given and corrected when it is committed, so that a project doesn't get every free slot
//! before the first step comes back. A project that comes back from idleness is lifted to the least of those that
//! stayed: nobody saves turns up by being away.

use crate::change::Change;
use crate::keys::Amounts;
use crate::quota::path_of_project;
use crate::rows::{QuotaRow, TaskRow};
use crate::state::State;
use types::{ProjectName, TaskUid};

/// Cost in tenths of a new token of the prompt: reading one again is cheap, saying one is dear.
const FRESH_UNITS: u64 = 10;
const KNOWN_UNITS: u64 = 1;
const GENERATED_UNITS: u64 = 20;
/// A step nobody knows anything about: a hundred new tokens.
const UNKNOWN_STEP: u64 = 100 * FRESH_UNITS;
/// The mean forgets: at so many steps both its sums are halved.
const MEAN_STEPS: u64 = 128;

pub(crate) fn cost_units(used: Amounts, generated: u64) -> u64 {
    let generated = generated.min(used.tokens);
    let fresh = (used.tokens - generated).saturating_mul(FRESH_UNITS);
    fresh
        .saturating_add(used.cached_tokens.saturating_mul(KNOWN_UNITS))
        .saturating_add(generated.saturating_mul(GENERATED_UNITS))
}

/// A project's place among those that wait: what it was served for one unit of its weight, finely divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn(u128);

impl Turn {
    const FINE: u32 = 20;

    pub(crate) fn of(served: u64, weight: u64) -> Turn {
        Turn((u128::from(served) << Self::FINE) / u128::from(weight.max(1)))
    }

    pub(crate) fn later_by(self, units: u64, weight: u64) -> Turn {
        Turn(self.0 + Turn::of(units, weight).0)
    }

    fn served_at(self, weight: u64) -> u64 {
        let served = (self.0 * u128::from(weight)).div_ceil(1 << Self::FINE);
        u64::try_from(served).unwrap_or(u64::MAX)
    }
}

impl QuotaRow {
    pub(crate) fn turn(&self) -> Turn {
        Turn::of(self.served.unwrap_or(0), self.weight.unwrap_or(1))
    }

    fn mean_step(&self) -> Option<u64> {
        self.steps.and_then(|(steps, units)| units.checked_div(steps)).map(|mean| mean.max(1))
    }

    fn learn_step(&mut self, units: u64) {
        let (steps, sum) = self.steps.unwrap_or_default();
        let (steps, sum) = (steps + 1, sum.saturating_add(units));
        self.steps = Some(if steps < MEAN_STEPS { (steps, sum) } else { (steps / 2, sum / 2) });
    }
}

impl State {
    pub(crate) fn turn(&self, project: &ProjectName) -> Turn {
        self.quotas.get(&path_of_project(project)).map_or_else(Turn::default, QuotaRow::turn)
    }

    pub(crate) fn weight(&self, project: &ProjectName) -> u64 {
        self.quotas.get(&path_of_project(project)).and_then(|row| row.weight).unwrap_or(1)
    }

    /// What the project's next step will cost, as far as anyone knows.
    pub(crate) fn guess(&self, project: &ProjectName) -> u64 {
        let mean = |path: &String| self.quotas.get(path).and_then(QuotaRow::mean_step);
        mean(&path_of_project(project)).or_else(|| mean(&"cluster".to_string())).unwrap_or(UNKNOWN_STEP)
    }

    fn served(&mut self, project: &ProjectName, change: impl FnOnce(u64) -> u64) {
        let path = path_of_project(project);
        self.quota_row(&path);
        self.quotas.update(&path, |row| row.served = Some(change(row.served.unwrap_or(0))));
    }

    /// The project begins to wait, and had nothing waiting or running before.
    pub(crate) fn lift_idle(&mut self, project: &ProjectName) {
        let busy = &self.tasks.index().busy;
        if busy.contains_key(project) {
            return;
        }
        let Some(least) = busy.keys().map(|other| self.turn(other)).min() else { return };
        let lifted = least.served_at(self.weight(project));
        self.served(project, |served| served.max(lifted));
    }
}

impl Change<'_> {
    /// A step begins: its project is charged what it may cost.
    pub(crate) fn charge(&mut self, uid: TaskUid) {
        let project = self.row(uid).project.clone();
        let guess = self.state.guess(&project);
        self.state.served(&project, |served| served.saturating_add(guess));
        self.update(uid, |row| row.charged = Some(guess));
    }

    /// The step came to nothing, or its real cost is known now.
    pub(crate) fn refund(&mut self, uid: TaskUid) {
        let row: &TaskRow = self.row(uid);
        let (Some(charged), project) = (row.charged, row.project.clone()) else { return };
        self.state.served(&project, |served| served.saturating_sub(charged));
        self.update(uid, |row| row.charged = None);
    }

    /// A step was committed.
    pub(crate) fn serve(&mut self, uid: TaskUid, used: Amounts, generated: u64) {
        self.refund(uid);
        let project = self.row(uid).project.clone();
        let units = cost_units(used, generated);
        self.state.served(&project, |served| served.saturating_add(units));
        for path in ["cluster".to_string(), path_of_project(&project)] {
            self.state.quota_row(&path);
            self.state.quotas.update(&path, |row| row.learn_step(units));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_compare_by_weight_and_come_back_as_what_was_served() {
        assert!(Turn::of(100, 1) > Turn::of(399, 4));
        assert!(Turn::of(100, 1) < Turn::of(401, 4));
        for weight in [1, 3, 7, 1000] {
            assert!(Turn::of(12_345, weight).served_at(weight).abs_diff(12_345) <= 1);
        }
        assert_eq!(Turn::of(10, 2).later_by(6, 2), Turn::of(16, 2));
    }

    #[test]
    fn generating_costs_more_than_reading_and_reading_again_least() {
        let used = Amounts { tokens: 30, cached_tokens: 500, ..Amounts::NONE };
        assert_eq!(cost_units(used, 10), 20 * 10 + 500 + 10 * 20);
    }
}
