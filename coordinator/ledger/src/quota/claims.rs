//! Whether a task may start by the holdings of the tree: every need at every place above it, all or nothing.

use crate::change::holds_slot;
use crate::keys::{Bound, Holding, QuotaKey, key_of};
use crate::quota::pool::Pool;
use crate::reply::Refusal;
use crate::rows::TaskRow;
use crate::state::State;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// What the task holds while it runs.
pub(crate) fn needs(row: &TaskRow) -> impl Iterator<Item = (&Holding, u64)> {
    let more = row.needs.iter().flatten().map(|(holding, amount)| (holding, *amount));
    std::iter::once((&Holding::Running, 1)).chain(more)
}

/// A bound of the tree as one task meets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fence {
    pub path: String,
    pub holding: Holding,
    pub bound: Bound,
    pub limit: u64,
    /// What is free within it; below zero after a cut.
    pub free: i128,
    /// What the task has free whatever is free within the bound.
    pub kept: i128,
    pub need: u64,
}

/// Whom else a bound holds back that holds a task back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Everyone of the project: each task needs one of what is missing.
    Project,
    /// Tasks of the same agent's revision, which have the same needs.
    Agent,
    Task,
}

impl Fence {
    pub(crate) fn key(&self) -> QuotaKey {
        key_of(&self.holding, self.bound)
    }

    fn holds(&self) -> bool {
        self.short() > 0
    }

    /// How much more there has to be for the task to pass.
    pub(crate) fn short(&self) -> i128 {
        let need = i128::from(self.need);
        if need <= self.kept { 0 } else { need - self.free }
    }
}

/// What is held, and what was given away since the state was made.
#[derive(Clone)]
pub(crate) struct Claims<'a> {
    state: &'a State,
    taken: BTreeMap<(String, Holding), u64>,
    /// As they stand with what was taken: made when first asked for, and again after someone took of that holding.
    pools: RefCell<BTreeMap<Holding, Option<Pool>>>,
    /// Places whose bounds are looked past, for explanations.
    lifted: BTreeSet<String>,
    /// Of what is guaranteed and borrowed only these.
    lifted_pools: BTreeSet<PoolBound>,
}

/// A bound of a pool: where it is set, and which.
pub(crate) type PoolBound = (String, QuotaKey);

impl<'a> Claims<'a> {
    pub(crate) fn new(state: &'a State) -> Self {
        Claims {
            state,
            taken: BTreeMap::new(),
            pools: RefCell::default(),
            lifted: BTreeSet::new(),
            lifted_pools: BTreeSet::new(),
        }
    }

    pub(crate) fn lift(&mut self, row: &TaskRow, pools: BTreeSet<PoolBound>) {
        self.lifted_pools = pools;
        self.lifted.extend(self.state.places(row));
    }

    pub(crate) fn take(&mut self, row: &TaskRow) {
        self.take_alike(row, 1);
    }

    fn take_alike(&mut self, row: &TaskRow, times: u64) {
        for path in self.state.places(row) {
            for (holding, amount) in needs(row) {
                let taken = self.taken.entry((path.clone(), holding.clone())).or_default();
                *taken = taken.saturating_add(amount.saturating_mul(times));
            }
        }
        self.pools.get_mut().retain(|holding, _| needs(row).all(|(taken, _)| taken != holding));
    }

    fn holds(&self, fence: &Fence) -> bool {
        fence.holds() && !self.is_lifted(fence)
    }

    fn is_lifted(&self, fence: &Fence) -> bool {
        match fence.bound {
            Bound::Limit => self.lifted.contains(&fence.path),
            _ => self.lifted_pools.contains(&(fence.path.clone(), fence.key())),
        }
    }

    /// The pools that hold the task back.
    pub(crate) fn short_pools(&self, row: &TaskRow) -> Vec<PoolBound> {
        let fences = self.fences(row).into_iter();
        let short = fences.filter(|fence| fence.bound != Bound::Limit && fence.holds());
        short.map(|fence| (fence.path.clone(), fence.key())).collect()
    }

    /// Whom the first bound holds back that holds this task back. `None`: it may start.
    pub(crate) fn held_back(&self, row: &TaskRow) -> Option<Reach> {
        let fence = self.fences(row).into_iter().find(|fence| self.holds(fence))?;
        let of_all = fence.holding == Holding::Running && fence.bound == Bound::Limit;
        Some(match fence.path.as_str() {
            path if path.starts_with("tasks/") => Reach::Task,
            path if of_all && !path.contains("/agents/") => Reach::Project,
            _ => Reach::Agent,
        })
    }

    /// Every bound above the task, in the order of the places.
    pub(crate) fn fences(&self, row: &TaskRow) -> Vec<Fence> {
        let places = self.state.places(row);
        let project = places.iter().rposition(|path| !path.starts_with("tasks/")).unwrap_or(0);
        let mut fences = vec![];
        for (holding, need) in needs(row) {
            let taken =
                |path: &str| self.taken.get(&(path.to_string(), holding.clone())).copied().unwrap_or(0);
            let fence = |path, bound, limit, free| Fence {
                path,
                holding: holding.clone(),
                bound,
                limit,
                free,
                kept: 0,
                need,
            };
            for quota in places.iter().filter_map(|path| self.state.quotas.get(path)) {
                let held = quota.holding(holding);
                if let Some(limit) = held.limit {
                    let free = i128::from(limit) - i128::from(held.used) - i128::from(taken(&quota.path));
                    fences.push(fence(quota.path.clone(), Bound::Limit, limit, free));
                }
            }
            let mut pools = self.pools.borrow_mut();
            let pool = pools.entry(holding.clone()).or_insert_with(|| Pool::of(self.state, holding, &taken));
            if let Some(pool) = pool {
                let borders = pool.borders(self.state, holding, &places[project], &taken);
                fences.extend(borders.into_iter().map(|border| Fence {
                    kept: border.kept,
                    ..fence(border.path, border.bound, border.limit, border.free)
                }));
            }
        }
        fences
    }

    fn refusal(&self, row: &TaskRow) -> Option<Refusal> {
        let fence = self.fences(row).into_iter().find(Fence::holds)?;
        Some(Refusal::OverQuota {
            resource: fence.key().to_string(),
            path: fence.path,
            requested: fence.need,
            available: fence.free.max(0) as u64,
            limit: fence.limit,
        })
    }
}

impl State {
    pub(crate) fn check_slot(&self, row: &TaskRow) -> Result<(), Refusal> {
        self.check_slots(std::slice::from_ref(row))
    }

    /// Whether there is room for all of them at the same time.
    pub(crate) fn check_slots(&self, rows: &[TaskRow]) -> Result<(), Refusal> {
        let mut claims = Claims::new(self);
        for row in rows {
            claims.refusal(row).map_or(Ok(()), Err)?;
            claims.take(row);
        }
        Ok(())
    }

    /// Whether there is room for so many that are alike: where the last one fits behind the others, they do.
    pub(crate) fn has_slots(&self, row: &TaskRow, times: u64) -> bool {
        let mut claims = Claims::new(self);
        claims.take_alike(row, times.saturating_sub(1));
        let fits = times == 0 || claims.refusal(row).is_none();
        debug_assert_eq!(fits, self.check_slots(&vec![row.clone(); times as usize]).is_ok());
        fits
    }

    /// Takes what the task holds while it runs, at every place above it.
    pub(crate) fn take_slot(&mut self, row: &TaskRow) {
        self.take_slots(row, 1);
    }

    pub(crate) fn free_slot(&mut self, row: &TaskRow) {
        self.free_slots(row, 1);
    }

    /// The same for so many that are alike.
    pub(crate) fn take_slots(&mut self, row: &TaskRow, times: u64) {
        self.use_quota(row, |quota, _| {
            needs(row).for_each(|(holding, amount)| quota.hold(holding, amount.saturating_mul(times)));
        });
    }

    pub(crate) fn free_slots(&mut self, row: &TaskRow, times: u64) {
        self.use_quota(row, |quota, _| {
            needs(row).for_each(|(holding, amount)| quota.let_go(holding, amount.saturating_mul(times)));
        });
    }

    /// What tasks of a tree hold now, for a place that was made late.
    pub(crate) fn held_below(&self, row: &TaskRow) -> Vec<(Holding, u64)> {
        let own = holds_slot(row).then(|| needs(row).map(|(holding, amount)| (holding.clone(), amount)));
        let mut held: Vec<(Holding, u64)> = own.into_iter().flatten().collect();
        for child in row.children.iter().filter_map(|uid| self.task(*uid)) {
            held.extend(self.held_below(child));
        }
        held
    }
}
