//! Which of several models takes a call, and which come next where a budget refuses it. Pure.
//!
//! One rule: the cheapest of those that answer before the deadline; where none does, the one that answers first. Those
//! behind it follow in the same order. What has no price, no room in its window, no tools, or is closed for now is
//! left out, each with its reason. Whether a budget has room is not decided here: the ledger says so, model by model.

const MILLION: u128 = 1_000_000;

/// Micro-dollars for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    pub input: u64,
    pub cached: u64,
    pub output: u64,
}

/// What is known of one model for this call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// False: this node has no such model.
    pub here: bool,
    /// None: unknown, which is not zero.
    pub price: Option<Price>,
    /// Tokens of the prompt by this model's count, as likely as not.
    pub prompt_tokens: u64,
    /// Of them, those that count as cached.
    pub cached_tokens: u64,
    /// How long the call would wait, and how long until the first piece after that.
    pub queue_ms: u64,
    pub first_piece_ms: u64,
    /// Between two tokens of an answer.
    pub micros_a_token: u64,
    pub window: u64,
    pub tools: bool,
    /// It asked not to be called for so long.
    pub closed_ms: u64,
    /// It failed so often that nobody is sent there now.
    pub broken: bool,
}

/// What the call wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Tokens of the answer, as likely as not.
    pub answer_tokens: u64,
    pub tools: bool,
    /// Until the deadline; None: there is none.
    pub left_ms: Option<u64>,
}

/// What decided for the first of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// No other could take the call.
    OnlyOne,
    /// Of those in time, it costs the least.
    Cheaper,
    /// It costs the least because it has read more of the prompt already.
    Cached,
    /// A cheaper one would be late.
    InTime,
    /// For the same price it answers earlier.
    Sooner,
    /// None is in time; it answers first.
    Fastest,
    /// Nothing sets it apart: the first in order.
    First,
}

/// Why a candidate was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    NotHere,
    Unpriced,
    WindowTooSmall,
    NoTools,
    Closed,
    Broken,
}

/// What one candidate would cost and take, and why it was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub micro_usd: u64,
    pub ms: u64,
    pub late: bool,
    pub unfit: Option<Unfit>,
}

/// The candidates by position, best first; empty: none can take the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranking {
    pub order: Vec<usize>,
    /// None only where the order is empty.
    pub why: Option<Why>,
    /// One for each candidate, in their own order.
    pub verdicts: Vec<Verdict>,
}

impl Why {
    /// A stable word for records and figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::OnlyOne => "ONLY_ONE",
            Why::Cheaper => "CHEAPER",
            Why::Cached => "CACHED",
            Why::InTime => "IN_TIME",
            Why::Sooner => "SOONER",
            Why::Fastest => "FASTEST",
            Why::First => "FIRST",
        }
    }
}

impl Unfit {
    pub fn as_str(self) -> &'static str {
        match self {
            Unfit::NotHere => "NOT_HERE",
            Unfit::Unpriced => "UNPRICED",
            Unfit::WindowTooSmall => "WINDOW_TOO_SMALL",
            Unfit::NoTools => "NO_TOOLS",
            Unfit::Closed => "CLOSED",
            Unfit::Broken => "BROKEN",
        }
    }

    /// Whether it may be otherwise in a while, without anybody doing something about it.
    pub fn passes(self) -> bool {
        matches!(self, Unfit::Closed | Unfit::Broken)
    }
}

impl Verdict {
    /// A stable word: why it was left out, `LATE`, or `FITS`.
    pub fn as_str(&self) -> &'static str {
        match (self.unfit, self.late) {
            (Some(unfit), _) => unfit.as_str(),
            (None, true) => "LATE",
            (None, false) => "FITS",
        }
    }
}

impl Price {
    fn cost(self, fresh: u64, cached: u64, generated: u64) -> u64 {
        let each = [(self.input, fresh), (self.cached, cached), (self.output, generated)];
        let products = each.map(|(price, tokens)| u128::from(price) * u128::from(tokens));
        let sum = products.into_iter().fold(0, u128::saturating_add);
        u64::try_from(sum.div_ceil(MILLION)).unwrap_or(u64::MAX)
    }
}

impl Candidate {
    fn unfit(&self, wish: &Wish) -> Option<Unfit> {
        let rules = [
            (!self.here, Unfit::NotHere),
            (self.price.is_none(), Unfit::Unpriced),
            (self.prompt_tokens >= self.window, Unfit::WindowTooSmall),
            (wish.tools && !self.tools, Unfit::NoTools),
            (self.closed_ms > 0, Unfit::Closed),
            (self.broken, Unfit::Broken),
        ];
        rules.into_iter().find(|(broken, _)| *broken).map(|(_, unfit)| unfit)
    }

    fn answer_tokens(&self, wish: &Wish) -> u64 {
        wish.answer_tokens.min(self.window.saturating_sub(self.prompt_tokens))
    }

    /// What the call likely costs with so many tokens cached.
    fn cost(&self, cached: u64, wish: &Wish) -> u64 {
        let cached = cached.min(self.prompt_tokens);
        let fresh = self.prompt_tokens - cached;
        self.price.map_or(0, |price| price.cost(fresh, cached, self.answer_tokens(wish)))
    }

    fn ms(&self, wish: &Wish) -> u64 {
        let answer = self.answer_tokens(wish).saturating_mul(self.micros_a_token) / 1000;
        self.queue_ms.saturating_add(self.first_piece_ms).saturating_add(answer)
    }

    fn verdict(&self, wish: &Wish) -> Verdict {
        let ms = self.ms(wish);
        Verdict {
            micro_usd: self.cost(self.cached_tokens, wish),
            ms,
            late: wish.left_ms.is_some_and(|left| ms > left),
            unfit: self.unfit(wish),
        }
    }
}

/// Ranks. Of equal costs the sooner one is first, then the first of the list.
pub fn rank(wish: &Wish, candidates: &[Candidate]) -> Ranking {
    let verdicts: Vec<Verdict> = candidates.iter().map(|candidate| candidate.verdict(wish)).collect();
    let mut order: Vec<usize> =
        (0..verdicts.len()).filter(|index| verdicts[*index].unfit.is_none()).collect();
    // Those in time by cost; the late ones behind them by time, for where budgets refuse the others.
    order.sort_by_key(|index| {
        let verdict = &verdicts[*index];
        let cost = if verdict.late { 0 } else { verdict.micro_usd };
        (verdict.late, cost, verdict.ms, verdict.micro_usd, *index)
    });
    let why = order.first().map(|best| why(wish, candidates, &verdicts, *best, &order[1..]));
    Ranking { order, why, verdicts }
}

fn why(wish: &Wish, candidates: &[Candidate], verdicts: &[Verdict], best: usize, rest: &[usize]) -> Why {
    let chosen = &verdicts[best];
    let Some(second) = rest.first().map(|index| &verdicts[*index]) else { return Why::OnlyOne };
    if chosen.late {
        return Why::Fastest;
    }
    if rest.iter().any(|index| verdicts[*index].late && verdicts[*index].micro_usd < chosen.micro_usd) {
        return Why::InTime;
    }
    let cold = |index: &usize| candidates[*index].cost(0, wish);
    if rest.iter().any(|index| cold(index) < cold(&best)) {
        return Why::Cached;
    }
    match (rest.iter().all(|index| verdicts[*index].micro_usd > chosen.micro_usd), chosen.ms < second.ms) {
        (true, _) => Why::Cheaper,
        (false, true) => Why::Sooner,
        (false, false) => Why::First,
    }
}

#[cfg(test)]
#[path = "route_test.rs"]
mod route_test;
