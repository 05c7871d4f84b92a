//! How projects of one class take turns, by the type of resource that the cluster is short of. A strategy is the
//! leader's wish and no part of the state: it orders proposals, and `Assign` checks every limit all the same.
//!
//! Whatever the strategy, classes come first, and inside a project rank decides ([`crate::queue`]).

use crate::fair::Turn;
use crate::keys::{Holding, Rate};
use crate::quota::{CLUSTER, needs, path_of_project};
use crate::rows::TaskRow;
use crate::state::State;
use std::collections::BTreeMap;
use types::ProjectName;

/// What is short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Engines: who was served least for its weight. What a lease will cost is charged when it is given.
    #[default]
    Llm,
    /// Processors and memory: who holds the least share of that which it holds most of (Ghodsi et al., NSDI 2011).
    Compute,
    /// A provider's rates: who has most left of its minute, then who was served least.
    Api,
    /// Room: whoever waits longest, on the first node that has a place.
    Storage,
}

impl Strategy {
    pub const ALL: [Strategy; 4] = [Strategy::Llm, Strategy::Compute, Strategy::Api, Strategy::Storage];

    pub fn name(self) -> &'static str {
        match self {
            Strategy::Llm => "llm",
            Strategy::Compute => "compute",
            Strategy::Api => "api",
            Strategy::Storage => "storage",
        }
    }

    /// For one look at the queue, at that time on the ledger's clock.
    pub(crate) fn turns<'a>(self, state: &'a State, now_ms: u64) -> Box<dyn Turns + 'a> {
        let attained = Attained { state, turns: BTreeMap::new() };
        match self {
            Strategy::Llm => Box::new(attained),
            Strategy::Compute => Box::new(Dominant { state, given: BTreeMap::new() }),
            Strategy::Api => Box::new(RateAware { attained, now_ms, given: BTreeMap::new() }),
            Strategy::Storage => Box::new(FirstFit),
        }
    }
}

/// Whose turn it is, with what was given away in this look.
pub(crate) trait Turns {
    /// The lowest goes first.
    fn turn(&self, project: &ProjectName) -> Turn;

    /// A task starts.
    fn start(&mut self, row: &TaskRow);

    /// Turns don't count: the oldest task goes first, and takes the first place there is.
    fn first_fit(&self) -> bool {
        false
    }
}

/// A deficit: what the project was served for its weight, and the guesses of the leases given now.
struct Attained<'a> {
    state: &'a State,
    turns: BTreeMap<ProjectName, Turn>,
}

impl Turns for Attained<'_> {
    fn turn(&self, project: &ProjectName) -> Turn {
        self.turns.get(project).copied().unwrap_or_else(|| self.state.turn_entering(project))
    }

    fn start(&mut self, row: &TaskRow) {
        let (guess, weight) = (self.state.guess(&row.project), self.state.weight(&row.project));
        self.turns.insert(row.project.clone(), self.turn(&row.project).later_by(guess, weight));
    }
}

/// A share of one: a millionth.
const PARTS: u64 = 1_000_000;

fn share(used: u64, of: u64) -> u64 {
    let parts = u128::from(used) * u128::from(PARTS) / u128::from(of.max(1));
    u64::try_from(parts).unwrap_or(u64::MAX)
}

/// The largest share that a project holds of anything the cluster has a limit for, for its weight. Where nothing is
/// limited, tasks that run are counted.
struct Dominant<'a> {
    state: &'a State,
    given: BTreeMap<(ProjectName, Holding), u64>,
}

impl Dominant<'_> {
    fn held(&self, project: &ProjectName, holding: &Holding) -> u64 {
        let row = self.state.quotas.get(&path_of_project(project));
        let given = self.given.get(&(project.clone(), holding.clone())).copied().unwrap_or(0);
        row.map_or(0, |row| row.holding(holding).used) + given
    }
}

impl Turns for Dominant<'_> {
    fn turn(&self, project: &ProjectName) -> Turn {
        let cluster = self.state.quotas.get(&CLUSTER.to_string());
        let limits = cluster.into_iter().flat_map(|row| row.holdings_here());
        let shares = limits.filter_map(|row| Some(share(self.held(project, &row.holding), row.limit?)));
        let dominant = shares.max().unwrap_or_else(|| self.held(project, &Holding::Running));
        Turn::of(dominant, self.state.weight(project))
    }

    fn start(&mut self, row: &TaskRow) {
        for (holding, amount) in needs(row) {
            *self.given.entry((row.project.clone(), holding.clone())).or_default() += amount;
        }
    }
}

/// What is used of a project's fullest minute. A lease given now is one call, of as many tokens as its like.
struct RateAware<'a> {
    attained: Attained<'a>,
    now_ms: u64,
    /// Calls by project.
    given: BTreeMap<ProjectName, u64>,
}

impl Turns for RateAware<'_> {
    fn turn(&self, project: &ProjectName) -> Turn {
        let state = self.attained.state;
        let calls = self.given.get(project).copied().unwrap_or(0);
        let row = state.quotas.get(&path_of_project(project));
        let used = |rate: Rate| {
            let bucket = row?.bucket(rate, self.now_ms)?;
            let more = match rate {
                Rate::Tokens => calls * state.guessed_tokens(project),
                Rate::Requests => calls,
            };
            Some(share(bucket.used().saturating_add(more), bucket.limit))
        };
        let fullest = Rate::ALL.into_iter().filter_map(used).max().unwrap_or(0);
        self.attained.turn(project).behind(fullest)
    }

    fn start(&mut self, row: &TaskRow) {
        self.attained.start(row);
        *self.given.entry(row.project.clone()).or_default() += 1;
    }
}

struct FirstFit;

impl Turns for FirstFit {
    fn turn(&self, _: &ProjectName) -> Turn {
        Turn::default()
    }

    fn start(&mut self, _: &TaskRow) {}

    fn first_fit(&self) -> bool {
        true
    }
}
