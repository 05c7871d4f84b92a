//! How guarantees are lent and borrowed: the rule of Kueue's hierarchical cohorts.
//!
//! What a place has is its guarantee and what the places below it lend to it. What it may not lend stays local.
//! Use goes to the local part first; what is beyond counts at the parent. A place gets what is free locally, and from
//! its parent what is free there, as far as its borrow limit allows. Guarantees are promises of the sum of all, so
//! the top's own part has to be given to it: `quota set cluster running_guaranteed=…`.

use crate::keys::{Bound, Holding};
use crate::quota::path::{CLUSTER, parent};
use crate::state::State;
use std::collections::BTreeMap;

/// One bound of the tree that a use must stay within.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Border {
    /// Where the bound is set, and which.
    pub path: String,
    pub bound: Bound,
    pub limit: u64,
    /// What is free within it; below zero after a cut.
    pub free: i128,
    /// What the local parts below it have free, whatever is free within it: what is not lent is kept.
    pub kept: i128,
}

/// A place in the tree of one holding. Amounts are signed: a cut may leave less than is in use.
#[derive(Clone, Debug, Default)]
struct Place {
    /// Its guarantee and what is lent to it.
    has: i128,
    /// The part of `has` that it doesn't lend.
    local: i128,
    /// All use at and below it.
    total: i128,
    /// Use that counts here: all of it, but what the local parts below carry.
    used: i128,
    borrow: Option<i128>,
}

/// The tree of one holding.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    places: BTreeMap<String, Place>,
    own_of_top: u64,
}

impl Pool {
    /// `None` where nobody is guaranteed anything: then only hard limits count.
    pub(crate) fn of(state: &State, holding: &Holding, taken: &dyn Fn(&str) -> u64) -> Option<Pool> {
        let pledged = state.pledges.get(holding)?;
        let mut places: BTreeMap<String, Place> = BTreeMap::new();
        for path in pledged {
            let mut at = Some(path.clone());
            while let Some(path) = at {
                at = parent(&path);
                places.entry(path.clone()).or_insert_with(|| place(state, holding, &path, taken));
            }
        }
        // Deeper places first: each gives to its parent what it lends, and takes its local use off there.
        let mut order: Vec<String> = places.keys().cloned().collect();
        order.sort_by_key(|path| std::cmp::Reverse(depth(path)));
        for path in order {
            let Some(above) = parent(&path) else { continue };
            let lend = state.quotas.get(&path).and_then(|row| row.holding(holding).lend);
            let place = places.get_mut(&path).expect("every path was put in");
            place.local = lend.map_or(0, |lend| (place.has - i128::from(lend)).max(0));
            let lent = place.has - place.local;
            let carried = place.total - (place.used - place.used.clamp(0, place.local));
            let above = places.get_mut(&above).expect("every parent was put in");
            above.has += lent;
            above.used -= carried;
        }
        let top = state.quotas.get(&CLUSTER.to_string());
        let own_of_top = top.and_then(|row| row.holding(holding).guaranteed).unwrap_or(0);
        Some(Pool { places, own_of_top })
    }

    /// Every bound between a place and the top, with what is free within it for that place.
    pub(crate) fn borders(
        &self,
        state: &State,
        holding: &Holding,
        path: &str,
        taken: &dyn Fn(&str) -> u64,
    ) -> Vec<Border> {
        let mut borders = vec![];
        let mut free_below = 0;
        let mut at = path.to_string();
        loop {
            let place = match self.places.get(&at) {
                Some(place) => place.clone(),
                None => place(state, holding, &at, taken),
            };
            let Some(above) = parent(&at) else {
                let free = free_below + place.has - place.used;
                let (limit, kept) = (self.own_of_top, free_below);
                borders.push(Border { path: at, bound: Bound::Guaranteed, limit, free, kept });
                return borders;
            };
            free_below += (place.local - place.used).max(0);
            if let Some(borrow) = place.borrow {
                let lent_out_or_used = (place.used - place.local).max(0);
                let free = free_below + place.has - place.local - lent_out_or_used + borrow;
                let (path, limit, kept) = (at.clone(), borrow as u64, free_below);
                borders.push(Border { path, bound: Bound::Borrow, limit, free, kept });
            }
            at = above;
        }
    }
}

fn place(state: &State, holding: &Holding, path: &str, taken: &dyn Fn(&str) -> u64) -> Place {
    let row = state.quotas.get(&path.to_string()).map(|row| row.holding(holding));
    let total = i128::from(row.as_ref().map_or(0, |row| row.used)) + i128::from(taken(path));
    Place {
        has: i128::from(row.as_ref().and_then(|row| row.guaranteed).unwrap_or(0)),
        local: 0,
        total,
        used: total,
        borrow: row.and_then(|row| row.borrow).map(i128::from),
    }
}

fn depth(path: &str) -> usize {
    std::iter::successors(Some(path.to_string()), |path| parent(path)).count()
}

impl State {
    /// Projects that hold more than they are guaranteed, and how much more, the greediest first.
    pub(crate) fn borrowers(&self, holding: &Holding) -> Vec<(String, u64)> {
        let of_projects =
            self.quotas.values().filter(|row| parent(&row.path).is_some_and(|above| above == CLUSTER));
        let mut over: Vec<(String, u64)> = of_projects
            .map(|row| (row.path.clone(), row.holding(holding)))
            .map(|(path, held)| (path, held.used.saturating_sub(held.guaranteed.unwrap_or(0))))
            .filter(|(_, over)| *over > 0)
            .collect();
        over.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        over
    }
}
