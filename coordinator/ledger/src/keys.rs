//! What can be limited, and what people call it.
//!
//! Three kinds. A *budget* is used up: reserved, then settled, within a window of the calendar (UTC) or for good. A
//! *rate* is a bucket that fills. A *holding* is taken while a task runs and comes back. Beside them a place of the
//! tree has a *weight*, its share among its neighbours.
//!
//! Names: `tokens_day`, `micro_usd_total`; `tokens_minute`, `requests_minute`; `running`, `cpu_milli_guaranteed`,
//! `connections_borrow:api.example.com`; `weight`.

use minicbor::{Decode, Encode};
use std::fmt;

/// What is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Budget {
    /// New tokens: not in the task's chain before, and generated ones.
    #[n(0)]
    Tokens,
    /// Tokens that were in the chain before and are read again.
    #[n(1)]
    CachedTokens,
    /// Micro-dollars, by the price book.
    #[n(2)]
    MicroUsd,
    #[n(3)]
    KvBlockSeconds,
    #[n(4)]
    ToolCalls,
}

impl Budget {
    pub const ALL: [Budget; 5] =
        [Budget::Tokens, Budget::CachedTokens, Budget::MicroUsd, Budget::KvBlockSeconds, Budget::ToolCalls];

    pub fn name(self) -> &'static str {
        match self {
            Budget::Tokens => "tokens",
            Budget::CachedTokens => "cached_tokens",
            Budget::MicroUsd => "micro_usd",
            Budget::KvBlockSeconds => "kv_block_seconds",
            Budget::ToolCalls => "tool_calls",
        }
    }
}

/// How long a budget lasts. Hours, days and months are those of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Window {
    #[n(0)]
    Hour,
    #[n(1)]
    Day,
    #[n(2)]
    Month,
    /// For good.
    #[n(3)]
    Total,
}

impl Window {
    pub const ALL: [Window; 4] = [Window::Hour, Window::Day, Window::Month, Window::Total];

    pub fn name(self) -> &'static str {
        match self {
            Window::Hour => "hour",
            Window::Day => "day",
            Window::Month => "month",
            Window::Total => "total",
        }
    }
}

/// What may happen so often a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Rate {
    #[n(0)]
    Tokens,
    /// Model calls.
    #[n(1)]
    Requests,
}

impl Rate {
    pub const ALL: [Rate; 2] = [Rate::Tokens, Rate::Requests];

    pub fn name(self) -> &'static str {
        match self {
            Rate::Tokens => "tokens_minute",
            Rate::Requests => "requests_minute",
        }
    }
}

/// What a task holds while it runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Holding {
    /// Tasks that run at the same time; each holds one.
    #[n(0)]
    Running,
    #[n(1)]
    CpuMilli,
    #[n(2)]
    MemoryBytes,
    #[n(3)]
    GpuMemoryBytes,
    #[n(4)]
    StorageBytes,
    /// Connections to one destination.
    #[n(5)]
    Connections(#[n(0)] String),
}

impl Holding {
    const PLAIN: [Holding; 5] = [
        Holding::Running,
        Holding::CpuMilli,
        Holding::MemoryBytes,
        Holding::GpuMemoryBytes,
        Holding::StorageBytes,
    ];

    fn word(&self) -> &'static str {
        match self {
            Holding::Running => "running",
            Holding::CpuMilli => "cpu_milli",
            Holding::MemoryBytes => "memory_bytes",
            Holding::GpuMemoryBytes => "gpu_memory_bytes",
            Holding::StorageBytes => "storage_bytes",
            Holding::Connections(_) => "connections",
        }
    }

    /// The name of a need in an agent's definition: `cpu_milli`, `connections:api.example.com`.
    pub fn parse(text: &str) -> Option<Holding> {
        match QuotaKey::parse(text)? {
            QuotaKey::Running => Some(Holding::Running),
            QuotaKey::Holding(holding, Bound::Limit) => Some(holding),
            _ => None,
        }
    }

    pub fn name(&self) -> String {
        key_of(self, Bound::Limit).to_string()
    }
}

/// How a holding is divided in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Bound {
    /// Never more than this.
    #[n(0)]
    Limit,
    /// Always this much. As soon as one place below a parent has a guarantee, what there is to divide is the sum of
    /// the guarantees, the parent's own included.
    #[n(1)]
    Guaranteed,
    /// So much above the guarantee may be borrowed; unset: all that is free.
    #[n(2)]
    Borrow,
    /// So much of the guarantee may be lent; unset: all that is idle.
    #[n(3)]
    Lend,
}

impl Bound {
    pub const ALL: [Bound; 4] = [Bound::Limit, Bound::Guaranteed, Bound::Borrow, Bound::Lend];

    fn suffix(self) -> &'static str {
        match self {
            Bound::Limit => "",
            Bound::Guaranteed => "_guaranteed",
            Bound::Borrow => "_borrow",
            Bound::Lend => "_lend",
        }
    }
}

/// One thing that can be set at a place of the quota tree. The first three are older than the scheme and keep their
/// own numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum QuotaKey {
    /// Tasks that hold a running slot at the same time.
    #[n(0)]
    Running,
    /// New tokens a minute: a bucket that holds one minute's worth.
    #[n(1)]
    TokensMinute,
    /// New tokens, ever.
    #[n(2)]
    TokensTotal,
    /// Share among the projects that wait; 1 where it is not set.
    #[n(3)]
    Weight,
    #[n(4)]
    Budget(#[n(0)] Budget, #[n(1)] Window),
    #[n(5)]
    RequestsMinute,
    #[n(6)]
    Holding(#[n(0)] Holding, #[n(1)] Bound),
}

pub(crate) fn budget_key(budget: Budget, window: Window) -> QuotaKey {
    match (budget, window) {
        (Budget::Tokens, Window::Total) => QuotaKey::TokensTotal,
        (budget, window) => QuotaKey::Budget(budget, window),
    }
}

pub(crate) fn rate_key(rate: Rate) -> QuotaKey {
    match rate {
        Rate::Tokens => QuotaKey::TokensMinute,
        Rate::Requests => QuotaKey::RequestsMinute,
    }
}

pub(crate) fn key_of(holding: &Holding, bound: Bound) -> QuotaKey {
    match (holding, bound) {
        (Holding::Running, Bound::Limit) => QuotaKey::Running,
        (holding, bound) => QuotaKey::Holding(holding.clone(), bound),
    }
}

impl fmt::Display for QuotaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuotaKey::Running => f.write_str("running"),
            QuotaKey::TokensMinute => f.write_str("tokens_minute"),
            QuotaKey::TokensTotal => f.write_str("tokens_total"),
            QuotaKey::Weight => f.write_str("weight"),
            QuotaKey::Budget(budget, window) => write!(f, "{}_{}", budget.name(), window.name()),
            QuotaKey::RequestsMinute => f.write_str("requests_minute"),
            QuotaKey::Holding(holding, bound) => {
                write!(f, "{}{}", holding.word(), bound.suffix())?;
                match holding {
                    Holding::Connections(to) => write!(f, ":{to}"),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// How a key is to be written, for people who wrote another one.
pub const KEYS: &str = "running, tokens_minute, requests_minute, {tokens|cached_tokens|micro_usd|kv_block_seconds|\
                        tool_calls}_{hour|day|month|total}, {running|cpu_milli|memory_bytes|gpu_memory_bytes|\
                        storage_bytes} and connections:HOST, also with _guaranteed, _borrow or _lend behind the \
                        first word, weight";

impl QuotaKey {
    /// Reads what [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Option<QuotaKey> {
        QuotaKey::plain().into_iter().find(|key| key.to_string() == text).or_else(|| connections(text))
    }

    /// Every key but those of destinations.
    pub fn plain() -> Vec<QuotaKey> {
        let budgets = Budget::ALL.iter().flat_map(|b| Window::ALL.iter().map(|w| budget_key(*b, *w)));
        let rates = Rate::ALL.into_iter().map(rate_key);
        let holdings = Holding::PLAIN.iter().flat_map(|h| Bound::ALL.iter().map(|b| key_of(h, *b)));
        holdings.chain(rates).chain(budgets).chain([QuotaKey::Weight]).collect()
    }
}

fn connections(text: &str) -> Option<QuotaKey> {
    let (word, to) = text.split_once(':')?;
    let suffix = word.strip_prefix("connections")?;
    let bound = Bound::ALL.into_iter().find(|bound| bound.suffix() == suffix)?;
    let host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    let fits = !to.is_empty() && to.len() <= types::limits::NAME_BYTES && to.chars().all(host);
    fits.then(|| QuotaKey::Holding(Holding::Connections(to.to_string()), bound))
}

/// So much of each budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Amounts {
    #[n(0)]
    pub tokens: u64,
    #[n(1)]
    pub cached_tokens: u64,
    #[n(2)]
    pub micro_usd: u64,
    #[n(3)]
    pub kv_block_seconds: u64,
    #[n(4)]
    pub tool_calls: u64,
}

impl Amounts {
    pub const NONE: Amounts =
        Amounts { tokens: 0, cached_tokens: 0, micro_usd: 0, kv_block_seconds: 0, tool_calls: 0 };

    pub fn of(&self, budget: Budget) -> u64 {
        match budget {
            Budget::Tokens => self.tokens,
            Budget::CachedTokens => self.cached_tokens,
            Budget::MicroUsd => self.micro_usd,
            Budget::KvBlockSeconds => self.kv_block_seconds,
            Budget::ToolCalls => self.tool_calls,
        }
    }

    fn each(self, other: Amounts, join: impl Fn(u64, u64) -> u64) -> Amounts {
        Amounts {
            tokens: join(self.tokens, other.tokens),
            cached_tokens: join(self.cached_tokens, other.cached_tokens),
            micro_usd: join(self.micro_usd, other.micro_usd),
            kv_block_seconds: join(self.kv_block_seconds, other.kv_block_seconds),
            tool_calls: join(self.tool_calls, other.tool_calls),
        }
    }

    pub fn plus(self, other: Amounts) -> Amounts {
        self.each(other, u64::saturating_add)
    }

    /// What of this is not in the other.
    pub fn less(self, other: Amounts) -> Amounts {
        self.each(other, u64::saturating_sub)
    }

    pub fn least(self, other: Amounts) -> Amounts {
        self.each(other, u64::min)
    }

    pub fn most(self, other: Amounts) -> Amounts {
        self.each(other, u64::max)
    }

    pub fn half(self) -> Amounts {
        self.each(self, |amount, _| amount / 2)
    }

    pub fn times(self, times: u64) -> Amounts {
        self.each(self, |amount, _| amount.saturating_mul(times))
    }

    pub fn is_none(&self) -> bool {
        *self == Amounts::NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_as_it_is_written() {
        let mut all = QuotaKey::plain();
        for bound in Bound::ALL {
            all.push(QuotaKey::Holding(Holding::Connections("api.example.com:443".into()), bound));
        }
        for key in &all {
            assert_eq!(QuotaKey::parse(&key.to_string()).as_ref(), Some(key));
        }
        let names: std::collections::BTreeSet<String> = all.iter().map(QuotaKey::to_string).collect();
        assert_eq!(names.len(), all.len());
        for wrong in [
            "",
            "colours",
            "tokens_week",
            "running_guarantee",
            "connections",
            "connections:",
            "connections:a b",
        ] {
            assert_eq!(QuotaKey::parse(wrong), None, "{wrong:?}");
        }
    }
}
