//! What a project was served, for its turn in the queue: virtual token counters (Sheng et al., OSDI 2024).
//!
//! Each project counts the cost of its steps; the one that has least for its weight goes first. A lease is charged by a
//! guess when it is given, its steps are taken off the charge as they are committed, and what is left comes back at its
//! end: so a project doesn't get every free slot before the first step comes back. A project that comes back from idleness is lifted to the least of those that
//! stayed: nobody saves turns up by being away.

use crate::change::Change;
use crate::keys::Amounts;
use crate::quota::{CLUSTER, path_of_project};
use crate::rows::{QuotaRow, TaskRow};
use crate::state::State;
use types::{Class, ProjectName, TaskUid};

/// Cost in tenths of a new token of the prompt: reading one again is cheap, saying one is dear.
const FRESH_UNITS: u64 = 10;
const KNOWN_UNITS: u64 = 1;
const GENERATED_UNITS: u64 = 20;
/// A lease nobody knows anything about: a hundred new tokens.
const UNKNOWN_LEASE: u64 = 100 * FRESH_UNITS;
/// The mean forgets: at so many leases both its sums are halved.
const MEAN_LEASES: u64 = 64;

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

    /// The turn among those that have `first` equal; a lower one goes before.
    pub(crate) fn behind(self, first: u64) -> Turn {
        Turn((u128::from(first) << 96) | self.0.min((1 << 96) - 1))
    }

    fn served_at(self, weight: u64) -> u64 {
        let served = (self.0 * u128::from(weight)).div_ceil(1 << Self::FINE);
        u64::try_from(served).unwrap_or(u64::MAX)
    }
}

/// How far each class has come by the starts it had: strides that are shorter for urgent classes, so that among
/// classes that have lost their patience eight starts go to the most urgent for one of the least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClassTurns([u64; 4]);

impl ClassTurns {
    const STRIDES: [u64; 4] = [105, 210, 420, 840];

    /// A class that was away has at most one start to its credit.
    pub(crate) fn of(&self, class: Class) -> u64 {
        let furthest = self.0.into_iter().max().unwrap_or(0);
        self.0[class as usize].max(furthest.saturating_sub(Self::STRIDES[class as usize]))
    }

    pub(crate) fn start(&mut self, class: Class) {
        self.0[class as usize] = self.of(class).saturating_add(Self::STRIDES[class as usize]);
    }
}

impl QuotaRow {
    pub(crate) fn turn(&self) -> Turn {
        Turn::of(self.served.unwrap_or(0), self.weight.unwrap_or(1))
    }

    fn mean_lease(&self) -> Option<u64> {
        self.leases.and_then(|(leases, units)| units.checked_div(leases)).map(|mean| mean.max(1))
    }

    fn learn_lease(&mut self, units: u64) {
        let (leases, sum) = self.leases.unwrap_or_default();
        let (leases, sum) = (leases + 1, sum.saturating_add(units));
        self.leases = Some(if leases < MEAN_LEASES { (leases, sum) } else { (leases / 2, sum / 2) });
    }
}

impl State {
    pub(crate) fn turn(&self, project: &ProjectName) -> Turn {
        self.quotas.get(&path_of_project(project)).map_or_else(Turn::default, QuotaRow::turn)
    }

    pub(crate) fn class_turns(&self) -> ClassTurns {
        let cluster = self.quotas.get(&CLUSTER.to_string());
        ClassTurns(cluster.and_then(|row| row.class_turns).unwrap_or_default())
    }

    pub(crate) fn weight(&self, project: &ProjectName) -> u64 {
        self.quotas.get(&path_of_project(project)).and_then(|row| row.weight).unwrap_or(1)
    }

    /// What the project's next lease will cost, as far as anyone knows.
    pub(crate) fn guess(&self, project: &ProjectName) -> u64 {
        let mean = |path: &String| self.quotas.get(path).and_then(QuotaRow::mean_lease);
        mean(&path_of_project(project)).or_else(|| mean(&CLUSTER.to_string())).unwrap_or(UNKNOWN_LEASE)
    }

    /// The same in tokens, as if all of them were new ones of a prompt.
    pub(crate) fn guessed_tokens(&self, project: &ProjectName) -> u64 {
        self.guess(project).div_ceil(FRESH_UNITS)
    }

    fn served(&mut self, project: &ProjectName, change: impl FnOnce(u64) -> u64) {
        let path = path_of_project(project);
        self.quota_row(&path);
        self.quotas.update(&path, |row| row.served = Some(change(row.served.unwrap_or(0))));
    }

    /// The project begins to wait, and had nothing waiting or running before.
    pub(crate) fn lift_idle(&mut self, project: &ProjectName) {
        if !self.counts_finely() || self.tasks.index().busy.contains_key(project) {
            return;
        }
        let Some(lifted) = self.lifted(project) else { return };
        self.served(project, |served| served.max(lifted));
    }

    /// What a project counts as served at least when it comes back now.
    fn lifted(&self, project: &ProjectName) -> Option<u64> {
        let least = self.tasks.index().busy.keys().map(|other| self.turn(other)).min()?;
        Some(least.served_at(self.weight(project)))
    }

    /// The turn the project has, or would have if it came back now.
    pub(crate) fn turn_entering(&self, project: &ProjectName) -> Turn {
        let turn = self.turn(project);
        if self.tasks.index().busy.contains_key(project) {
            return turn;
        }
        let lifted = self.lifted(project).map(|served| Turn::of(served, self.weight(project)));
        lifted.map_or(turn, |lifted| turn.max(lifted))
    }
}

impl Change<'_> {
    /// A lease begins: its project is charged what it may cost.
    pub(crate) fn charge(&mut self, uid: TaskUid) {
        if !self.state.counts_finely() {
            return;
        }
        let project = self.row(uid).project.clone();
        let guess = self.state.guess(&project);
        self.state.served(&project, |served| served.saturating_add(guess));
        self.update(uid, |row| row.charged = Some(guess));
    }

    /// A task of the class starts.
    pub(crate) fn start_of(&mut self, class: Class) {
        if !self.state.counts_finely() {
            return;
        }
        let mut turns = self.state.class_turns();
        turns.start(class);
        self.state.quota_row(&CLUSTER.to_string());
        self.state.quotas.update(&CLUSTER.to_string(), |row| row.class_turns = Some(turns.0));
    }

    /// A step was committed: it is paid from the charge first.
    pub(crate) fn serve(&mut self, uid: TaskUid, used: Amounts, generated: u64) {
        if !self.state.counts_finely() {
            return;
        }
        let project = self.row(uid).project.clone();
        let units = cost_units(used, generated);
        let beyond = self.update(uid, |row| {
            let charged = row.charged.unwrap_or(0);
            row.charged = Some(charged.saturating_sub(units));
            row.lease_units = Some(row.lease_units.unwrap_or(0).saturating_add(units));
            units.saturating_sub(charged)
        });
        self.state.served(&project, |served| served.saturating_add(beyond));
    }

    /// A lease ended: what is left of its charge comes back, and what it cost is remembered.
    pub(crate) fn refund(&mut self, uid: TaskUid) {
        let row: &TaskRow = self.row(uid);
        let (charged, units, project) = (row.charged, row.lease_units, row.project.clone());
        if let Some(charged) = charged {
            self.state.served(&project, |served| served.saturating_sub(charged));
        }
        for path in [CLUSTER.to_string(), path_of_project(&project)] {
            if let Some(units) = units {
                self.state.quota_row(&path);
                self.state.quotas.update(&path, |row| row.learn_lease(units));
            }
        }
        self.update(uid, |row| (row.charged, row.lease_units) = (None, None));
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
