//! The ledger's refusals as clients of OpenAI's API know them.

use crate::accounts::NotBegun;
use crate::openai::Failure;
use ledger::reply::Refusal;

/// Buckets hold a minute's worth.
const MINUTE_S: u64 = 60;

pub(super) fn not_begun(why: NotBegun) -> Failure {
    match why {
        NotBegun::Refused(refusal) => failure(&refusal),
        NotBegun::Unheard(error) => {
            Failure::gone(format!("nothing could be set aside for the answer: {error}"))
        }
        NotBegun::Odd(why) => Failure::gone(why),
    }
}

fn failure(refusal: &Refusal) -> Failure {
    match refusal {
        Refusal::OverQuota { path, resource, requested, available, limit } => {
            over(path, resource, *requested, *available, *limit)
        }
        Refusal::Unpriced { model } => Failure::denied(
            "model_not_priced",
            format!(
                "money is limited here and {model} has no price; an admin sets one with `quorate price set`"
            ),
        ),
        other => {
            Failure::gone(format!("the ledger set nothing aside for the answer: {other}; try again later"))
        }
    }
}

fn over(path: &str, resource: &str, requested: u64, available: u64, limit: u64) -> Failure {
    let short = format!("{resource} of {path}: {requested} wanted, {available} free of {limit}");
    match kind(resource) {
        Over::Rate if requested <= limit => {
            Failure::rate(format!("{short}; try again later"), until(requested - available, limit))
        }
        Over::Rate => Failure::quota(format!("{short}; send less, or ask for a higher rate")),
        Over::Held => Failure::rate(format!("{short}; try again when other calls have ended"), 1),
        Over::Budget => {
            Failure::quota(format!("{short}; ask for a larger budget, or wait for the next window"))
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Rate,
    Held,
    Budget,
}

fn kind(resource: &str) -> Over {
    let windows = ["_hour", "_day", "_month", "_total"];
    match resource {
        rate if rate.ends_with("_minute") => Over::Rate,
        budget if windows.iter().any(|window| budget.ends_with(window)) => Over::Budget,
        _ => Over::Held,
    }
}

/// Seconds until a bucket has so many more.
fn until(missing: u64, limit: u64) -> u32 {
    let seconds = missing.saturating_mul(MINUTE_S).div_ceil(limit.max(1));
    u32::try_from(seconds.clamp(1, MINUTE_S)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;

    fn refused(resource: &str, requested: u64, available: u64, limit: u64) -> Failure {
        let (path, resource) = ("projects/a".to_string(), resource.to_string());
        failure(&Refusal::OverQuota { path, resource, requested, available, limit })
    }

    #[test]
    fn budgets_rates_and_holdings_are_told_apart() {
        for budget in ["tokens_total", "tokens_day", "micro_usd_month", "cached_tokens_hour"] {
            let failure = refused(budget, 9, 3, 5);
            assert_eq!(
                (failure.status, failure.code),
                (StatusCode::TOO_MANY_REQUESTS, Some("insufficient_quota"))
            );
            assert_eq!((failure.kind, failure.retry_after_s), ("insufficient_quota", Some(0)), "{budget}");
        }
        let rate = refused("tokens_minute", 50, 20, 100);
        assert_eq!((rate.code, rate.retry_after_s), (Some("rate_limit_exceeded"), Some(18)));
        assert_eq!(refused("tokens_minute", 101, 100, 100).code, Some("insufficient_quota"), "it never fits");
        for held in ["running", "connections:api.example.com", "calls", "running_guaranteed"] {
            let failure = refused(held, 1, 0, 4);
            assert_eq!(
                (failure.code, failure.retry_after_s),
                (Some("rate_limit_exceeded"), Some(1)),
                "{held}"
            );
        }
        let unpriced = failure(&Refusal::Unpriced { model: "m".into() });
        assert_eq!((unpriced.status, unpriced.code), (StatusCode::FORBIDDEN, Some("model_not_priced")));
        assert_eq!(failure(&Refusal::NotInitialised).status, StatusCode::SERVICE_UNAVAILABLE);
    }
}
