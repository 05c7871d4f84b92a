//! The rows of the quota tree, and what a call asks of them.

use crate::keys::{Amounts, Budget, Holding, Window};
use minicbor::{Decode, Encode};

/// One place of the quota tree: `cluster`, `projects/NAME`, `projects/NAME/agents/NAME`, `tasks/ID`.
///
/// The first limits of this ledger (`running`, `tokens_minute`, `tokens_total`) have fields of their own; every other
/// key is in the lists behind. [`crate::quota`] reads and writes both in one way.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct QuotaRow {
    #[n(0)]
    pub path: String,
    /// `None` means without limit.
    #[n(1)]
    pub running: Option<u64>,
    #[n(2)]
    pub tokens_minute: Option<u64>,
    #[n(3)]
    pub tokens_total: Option<u64>,
    #[n(4)]
    pub running_used: u64,
    #[n(5)]
    pub tokens_settled: u64,
    #[n(6)]
    pub tokens_reserved: u64,
    /// Milli-tokens in the minute bucket at `bucket_ms` on the ledger's clock.
    #[n(7)]
    pub bucket_millitokens: u64,
    #[n(8)]
    pub bucket_ms: u64,
    #[n(9)]
    pub etag: u64,
    #[n(10)]
    pub reason: String,
    #[n(11)]
    pub author: String,
    #[n(12)]
    pub updated_ms: u64,
    /// Share among the projects that wait; unset counts as 1.
    #[n(13)]
    pub weight: Option<u64>,
    /// Cost units that the project's tasks used, lifted when it comes back from idleness; for its turn in the queue.
    #[n(14)]
    pub served: Option<u64>,
    /// Leases that ended, and what their steps cost: what a next lease will cost is guessed by them.
    #[n(15)]
    pub leases: Option<(u64, u64)>,
    /// Sorted by budget and window; new tokens in total are above.
    #[n(16)]
    pub budgets: Option<Vec<BudgetRow>>,
    #[n(17)]
    pub requests_minute: Option<RequestsRow>,
    /// Sorted; of `running` only guarantee and borders, the rest is above.
    #[n(18)]
    pub holdings: Option<Vec<HoldingRow>>,
    /// Of budgets with a limit, the highest of 50, 80, 100 percent that was told in the window.
    #[n(19)]
    pub crossed: Option<Vec<Crossed>>,
    /// Of the cluster only: how far each class has come by the starts it had, the most urgent first.
    #[n(20)]
    pub class_turns: Option<[u64; 4]>,
}

/// What is used of one budget in one window.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BudgetRow {
    #[n(0)]
    pub budget: Budget,
    #[n(1)]
    pub window: Window,
    #[n(2)]
    pub limit: Option<u64>,
    #[n(3)]
    pub settled: u64,
    #[n(4)]
    pub reserved: u64,
    /// What was used beyond a reservation; booked, shown, and in the way of new ones.
    #[n(5)]
    pub overage: u64,
    /// Bounds of the window, Unix milliseconds.
    #[n(6)]
    pub opens_ms: u64,
    #[n(7)]
    pub closes_ms: u64,
}

/// A bucket of model calls, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RequestsRow {
    #[n(0)]
    pub limit: u64,
    #[n(1)]
    pub level_milli: u64,
    #[n(2)]
    pub at_ms: u64,
}

/// How one holding is divided here, and what is held.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HoldingRow {
    #[n(0)]
    pub holding: Holding,
    #[n(1)]
    pub limit: Option<u64>,
    #[n(2)]
    pub guaranteed: Option<u64>,
    #[n(3)]
    pub borrow: Option<u64>,
    #[n(4)]
    pub lend: Option<u64>,
    #[n(5)]
    pub used: u64,
}

/// A share of a budget's limit that was told already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Crossed {
    #[n(0)]
    pub budget: Budget,
    #[n(1)]
    pub window: Window,
    #[n(2)]
    pub percent: u8,
    /// The window it was told in.
    #[n(3)]
    pub opens_ms: u64,
}

/// What a model costs, in micro-dollars a million tokens. Changes count from the next reservation on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Price {
    /// New tokens of the prompt.
    #[n(0)]
    pub input: u64,
    /// Tokens of the prompt that were there before.
    #[n(1)]
    pub cached: u64,
    #[n(2)]
    pub output: u64,
}

/// What a model call asked for when it was refused: enough to know when it would fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Want {
    /// Tokens of the prompt that the chain has not; the rest of the tokens wanted is for the answer.
    #[n(0)]
    pub fresh_tokens: u64,
    #[n(1)]
    pub known_tokens: u64,
    /// What else the step uses.
    #[n(2)]
    pub extra: Amounts,
}

/// What a lease has set aside beside new tokens, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Held {
    #[n(0)]
    pub amounts: Amounts,
    #[n(1)]
    pub price: Option<Price>,
    /// Unix milliseconds: it settles in the windows of that time.
    #[n(2)]
    pub made_ms: u64,
    #[n(3)]
    pub known_tokens: u64,
}
