//! Which of several endpoints of one model name takes a call. Pure.
//!
//! Each candidate's call has a price; waiting has one too, which the caller sets. The least sum wins, ties go to the
//! first. What cannot be paid, is not priced while money is limited, has no room in its window, lacks tools or is broken
//! is set aside, each with its reason.

use crate::breaker::BreakerState;

const MILLION: u128 = 1_000_000;

/// Micro-dollars for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    pub input: u64,
    pub cached: u64,
    pub output: u64,
}

/// What is known of one endpoint for this call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// None: unknown, which is not zero.
    pub price: Option<Price>,
    /// Tokens of the prompt by this endpoint's count: likely, and at worst.
    pub prompt_tokens: u64,
    pub prompt_worst: u64,
    /// Of them, likely in the provider's cache.
    pub cached_tokens: u64,
    /// How long the call would wait, and how long until the first piece after that.
    pub queue_ms: u64,
    pub first_piece_ms: u64,
    pub window: u64,
    pub tools: bool,
    pub breaker: BreakerState,
}

/// What the call wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    pub max_tokens: u32,
    pub tools: bool,
    /// Money that is left; None: not limited.
    pub left_micro_usd: Option<u64>,
    /// What a second of waiting is worth; 0: price alone counts.
    pub micro_usd_a_second: u64,
}

/// Why a candidate was chosen. What decided is what sets it apart most from the second best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// No other could take the call.
    OnlyOne,
    /// Its tokens cost so much less.
    Cheaper { by_micro_usd: u64 },
    /// It likely holds so many more tokens of the prompt, which makes it cheaper.
    Cached { more_tokens: u64, by_micro_usd: u64 },
    /// It answers so much earlier.
    Sooner { by_ms: u64 },
    /// Nothing sets it apart: the first in order.
    First,
}

/// Why a candidate was not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    Broken,
    NoTools,
    WindowTooSmall,
    Unpriced,
    TooExpensive,
}

/// The choice, by position among the candidates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub index: usize,
    pub why: Why,
    /// Those that could not take the call.
    pub unfit: Vec<(usize, Unfit)>,
}

impl Why {
    /// A stable word for records and figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::OnlyOne => "ONLY_ONE",
            Why::Cheaper { .. } => "CHEAPER",
            Why::Cached { .. } => "CACHED",
            Why::Sooner { .. } => "SOONER",
            Why::First => "FIRST",
        }
    }
}

impl Unfit {
    pub fn as_str(self) -> &'static str {
        match self {
            Unfit::Broken => "BROKEN",
            Unfit::NoTools => "NO_TOOLS",
            Unfit::WindowTooSmall => "WINDOW_TOO_SMALL",
            Unfit::Unpriced => "UNPRICED",
            Unfit::TooExpensive => "TOO_EXPENSIVE",
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
        if matches!(self.breaker, BreakerState::Open { .. }) {
            return Some(Unfit::Broken);
        }
        if wish.tools && !self.tools {
            return Some(Unfit::NoTools);
        }
        if self.prompt_tokens >= self.window {
            return Some(Unfit::WindowTooSmall);
        }
        let left = wish.left_micro_usd?;
        let Some(price) = self.price else { return Some(Unfit::Unpriced) };
        // One token of answer must be affordable even if nothing is cached; the rest is clamped by the reservation.
        (price.cost(self.prompt_worst, 0, 1) > left).then_some(Unfit::TooExpensive)
    }

    /// What the call likely costs with so many tokens cached.
    fn likely(&self, cached: u64, wish: &Wish) -> u64 {
        let cached = cached.min(self.prompt_tokens);
        let room = self.window - self.prompt_tokens;
        let generated = u64::from(wish.max_tokens).min(room);
        self.price.map_or(0, |price| price.cost(self.prompt_tokens - cached, cached, generated))
    }

    fn wait_ms(&self) -> u64 {
        self.queue_ms.saturating_add(self.first_piece_ms)
    }

    fn score(&self, wish: &Wish) -> u128 {
        let waiting = u128::from(self.wait_ms()) * u128::from(wish.micro_usd_a_second) / 1000;
        u128::from(self.likely(self.cached_tokens, wish)) + waiting
    }
}

/// Chooses. None fits: each with its reason.
pub fn route(wish: &Wish, candidates: &[Candidate]) -> Result<Choice, Vec<(usize, Unfit)>> {
    let (mut fit, mut unfit) = (Vec::new(), Vec::new());
    for (index, candidate) in candidates.iter().enumerate() {
        match candidate.unfit(wish) {
            Some(why) => unfit.push((index, why)),
            None => fit.push((candidate.score(wish), candidate.wait_ms(), index)),
        }
    }
    // Of equal sums the sooner one, then the first.
    fit.sort_unstable();
    let Some(&(_, _, index)) = fit.first() else { return Err(unfit) };
    let second = fit.get(1).map(|&(_, _, second)| &candidates[second]);
    let why = second.map_or(Why::OnlyOne, |second| why(wish, &candidates[index], second));
    Ok(Choice { index, why, unfit })
}

fn why(wish: &Wish, best: &Candidate, second: &Candidate) -> Why {
    let saved =
        second.likely(second.cached_tokens, wish).saturating_sub(best.likely(best.cached_tokens, wish));
    let by_ms = second.wait_ms().saturating_sub(best.wait_ms());
    let waiting = u128::from(by_ms) * u128::from(wish.micro_usd_a_second) / 1000;
    if u128::from(saved) >= waiting && saved > 0 {
        let uncached = second.likely(0, wish).saturating_sub(best.likely(0, wish));
        let more_tokens = best.cached_tokens.saturating_sub(second.cached_tokens);
        return match more_tokens > 0 && saved > uncached.saturating_mul(2) {
            true => Why::Cached { more_tokens, by_micro_usd: saved },
            false => Why::Cheaper { by_micro_usd: saved },
        };
    }
    if by_ms > 0 { Why::Sooner { by_ms } } else { Why::First }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: Price = Price { input: 3_000_000, cached: 300_000, output: 15_000_000 };
    const WISH: Wish = Wish { max_tokens: 100, tools: false, left_micro_usd: None, micro_usd_a_second: 100 };
    const PLAIN: Candidate = Candidate {
        price: Some(PRICE),
        prompt_tokens: 1000,
        prompt_worst: 4000,
        cached_tokens: 0,
        queue_ms: 0,
        first_piece_ms: 500,
        window: 10_000,
        tools: true,
        breaker: BreakerState::Closed,
    };

    fn chosen(wish: &Wish, candidates: &[Candidate]) -> (usize, Why) {
        let choice = route(wish, candidates).expect("one fits");
        (choice.index, choice.why)
    }

    #[test]
    fn the_least_sum_of_price_and_waiting_wins_and_says_what_decided() {
        let cheap = Candidate { price: Some(Price { input: 2_000_000, ..PRICE }), ..PLAIN };
        assert_eq!(chosen(&WISH, &[PLAIN, cheap]), (1, Why::Cheaper { by_micro_usd: 1000 }));
        let warm = Candidate { cached_tokens: 900, ..PLAIN };
        assert_eq!(chosen(&WISH, &[PLAIN, warm]), (1, Why::Cached { more_tokens: 900, by_micro_usd: 2430 }));
        let busy = Candidate { queue_ms: 20_000, ..PLAIN };
        assert_eq!(chosen(&WISH, &[busy, PLAIN]), (1, Why::Sooner { by_ms: 20_000 }));
        assert_eq!(chosen(&WISH, &[PLAIN, PLAIN]), (0, Why::First));
        assert_eq!(chosen(&WISH, &[PLAIN]), (0, Why::OnlyOne));
        let cheap_and_busy = Candidate { queue_ms: 5_000, ..cheap };
        assert_eq!(
            chosen(&WISH, &[PLAIN, cheap_and_busy]),
            (1, Why::Cheaper { by_micro_usd: 1000 }),
            "500 for 5 s"
        );
        let hurry = Wish { micro_usd_a_second: 1000, ..WISH };
        assert_eq!(chosen(&hurry, &[PLAIN, cheap_and_busy]), (0, Why::Sooner { by_ms: 5_000 }));
        let patient = Wish { micro_usd_a_second: 0, ..WISH };
        assert_eq!(
            chosen(&patient, &[busy, PLAIN]),
            (1, Why::Sooner { by_ms: 20_000 }),
            "for the same price"
        );
    }

    #[test]
    fn what_cannot_take_the_call_is_named() {
        let broken = Candidate { breaker: BreakerState::Open { left_ms: 5 }, ..PLAIN };
        let small = Candidate { window: 1000, ..PLAIN };
        let toolless = Candidate { tools: false, ..PLAIN };
        let unpriced = Candidate { price: None, ..PLAIN };
        let wish = Wish { tools: true, left_micro_usd: Some(12_015), ..WISH };
        let choice = route(&wish, &[broken, small, toolless, unpriced, PLAIN]).expect("the last");
        assert_eq!((choice.index, choice.why), (4, Why::OnlyOne));
        use Unfit::*;
        assert_eq!(choice.unfit, [(0, Broken), (1, WindowTooSmall), (2, NoTools), (3, Unpriced)]);
        let poor = Wish { left_micro_usd: Some(12_014), ..wish };
        assert_eq!(
            route(&poor, &[PLAIN]),
            Err(vec![(0, TooExpensive)]),
            "a prompt at its worst and one token"
        );
        assert_eq!(chosen(&WISH, &[unpriced]), (0, Why::OnlyOne), "money is not limited");
        let probing = Candidate { breaker: BreakerState::Probing, ..PLAIN };
        assert_eq!(chosen(&WISH, &[probing]), (0, Why::OnlyOne));
    }

    #[test]
    fn nothing_overflows() {
        let most = u64::MAX;
        let price = Some(Price { input: most, cached: most, output: most });
        let vast = Candidate {
            price,
            prompt_tokens: most - 1,
            prompt_worst: most,
            window: most,
            queue_ms: most,
            ..PLAIN
        };
        assert_eq!(chosen(&Wish { micro_usd_a_second: most, ..WISH }, &[vast, vast]), (0, Why::First));
    }
}
