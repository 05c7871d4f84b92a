//! The price book: what a model's tokens cost, in whole micro-dollars, always rounded up.
//!
//! A price counts from the next reservation on; a reservation settles at the price it was made with. Where money is
//! limited, a model without a price is refused: an unknown price is not zero. Zero can be written.

use crate::agents::check_etag;
use crate::change::{Change, check_name, check_text, invalid};
use crate::command::RequestKey;
use crate::keys::Amounts;
use crate::reply::{Refusal, Reply};
use crate::requests::Memory;
use crate::rows::{Price, PriceRow};

const MILLION: u128 = 1_000_000;
/// A thousand dollars a million tokens: more is a slip of the pen, and would make sums overflow.
const MOST_MICRO_USD: u64 = 1_000_000_000;

impl Price {
    /// What a call costs.
    pub fn cost(&self, fresh_tokens: u64, known_tokens: u64, generated_tokens: u64) -> u64 {
        let each = [(self.input, fresh_tokens), (self.cached, known_tokens), (self.output, generated_tokens)];
        let sum: u128 = each.iter().map(|(price, tokens)| u128::from(*price) * u128::from(*tokens)).sum();
        u64::try_from(sum.div_ceil(MILLION)).unwrap_or(u64::MAX)
    }

    /// The most generated tokens for which the whole call costs no more than this.
    pub(crate) fn affordable(&self, micro_usd: u64, fresh_tokens: u64, known_tokens: u64) -> Option<u64> {
        let each = [(self.input, fresh_tokens), (self.cached, known_tokens)];
        let prompt: u128 = each.iter().map(|(price, tokens)| u128::from(*price) * u128::from(*tokens)).sum();
        let left = (u128::from(micro_usd) * MILLION).checked_sub(prompt)?;
        Some(
            left.checked_div(u128::from(self.output))
                .map_or(u64::MAX, |most| most.min(u64::MAX.into()) as u64),
        )
    }
}

pub(crate) struct NewPrice<'a> {
    pub model: &'a str,
    pub price: Price,
    pub etag: Option<u64>,
    pub reason: &'a str,
    pub request: &'a RequestKey,
}

pub(crate) fn set(change: &mut Change<'_>, new: &NewPrice<'_>) -> Result<Reply, Refusal> {
    check_name("model", new.model)?;
    check_text("reason", new.reason)?;
    let scope = format!("prices/{}", new.model);
    if let Some(reply) = change.recall(new.request, &scope)? {
        return Ok(reply);
    }
    check(&new.price)?;
    let old = change.state.prices.get(&new.model.to_string()).cloned();
    check_etag(new.etag, old.as_ref().map_or(0, |row| row.version))?;
    let row = PriceRow {
        model: new.model.to_string(),
        price: new.price,
        version: old.as_ref().map_or(0, |row| row.version) + 1,
        author: new.request.author.clone(),
        reason: new.reason.to_string(),
        updated_ms: change.state.wall_ms(),
    };
    change.state.prices.insert(row.model.clone(), row.clone());
    let before = old.map_or("none".to_string(), |row| shown(&row.price));
    let what = format!("{before} -> {}", shown(&row.price));
    change.audit(&row.author, "price.set", &row.model, &what, new.reason);
    change.remember(new.request, &scope, Memory::Reply(Box::new(Reply::Price(row.clone()))));
    crate::quota::wake(change);
    crate::slices::recall_model(change, new.model);
    Ok(Reply::Price(row))
}

fn check(price: &Price) -> Result<(), Refusal> {
    let highest = price.input.max(price.cached).max(price.output);
    if highest > MOST_MICRO_USD {
        return Err(invalid(
            "price",
            format!(
                "{highest} micro-dollars a million tokens; at most {MOST_MICRO_USD} (is it in micro-dollars?)"
            ),
        ));
    }
    Ok(())
}

fn shown(price: &Price) -> String {
    format!("input {} cached {} output {}", price.input, price.cached, price.output)
}

impl Amounts {
    pub(crate) fn priced(mut self, price: Option<Price>, fresh: u64, known: u64, generated: u64) -> Amounts {
        let cost = price.map_or(0, |price| price.cost(fresh, known, generated));
        self.micro_usd = self.micro_usd.saturating_add(cost);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: Price = Price { input: 3_000_000, cached: 300_000, output: 15_000_000 };

    #[test]
    fn costs_are_rounded_up_and_what_is_affordable_is_exact() {
        assert_eq!(PRICE.cost(1, 0, 0), 3);
        assert_eq!(PRICE.cost(0, 1, 0), 1, "0.3 micro-dollars");
        assert_eq!(PRICE.cost(100, 1000, 10), 300 + 300 + 150);
        for money in 0..400 {
            match PRICE.affordable(money, 20, 7) {
                None => assert!(PRICE.cost(20, 7, 0) > money),
                Some(most) => {
                    assert!(PRICE.cost(20, 7, most) <= money);
                    assert!(PRICE.cost(20, 7, most + 1) > money);
                }
            }
        }
        assert_eq!(Price::default().affordable(0, 5, 5), Some(u64::MAX));
    }
}
