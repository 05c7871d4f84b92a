//! What a provider says it used, and what is believed of it. Pure.
//!
//! The rule, for each number:
//! - not there: counted by us, at the most that the bytes can be;
//! - negative, no integer, above all reason, cached above prompt: *nonsense*, counted by us the same way;
//! - fewer tokens than one for 64 bytes of what was sent or heard: *too few*, counted by us the same way;
//! - more than could be (prompt above our bound, answer above `max_tokens`), but within reason: *overage*; it is believed,
//!   because whoever bills says so, and what is above the reservation is shown and booked apart;
//! - an answer of far more tokens than the bytes heard: believed up to `max_tokens` (models think unseen), and said.
//!
//! What is counted by us is never less than the truth can be, so that a provider cannot lower a bill by reporting badly.

use crate::answer::{Answer, Failure};
use crate::bounds::{ABSURD_TIMES, BYTES_A_TOKEN, FRAME_TOKENS};

/// Tokens of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// All of the prompt, cached or not.
    pub prompt: u64,
    /// Of it, read from the provider's cache.
    pub cached: u64,
    /// Of it, written to the provider's cache.
    pub cache_written: u64,
    pub generated: u64,
    /// `prompt` is ours, not the provider's.
    pub prompt_counted: bool,
    /// `generated` is ours.
    pub generated_counted: bool,
    /// More than could be was reported.
    pub overage: bool,
    /// The worst of what was wrong with the report.
    pub doubt: Option<Doubt>,
}

/// What is wrong with a report, worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// Far more tokens than the bytes that were heard; believed.
    MoreThanHeard,
    Absent,
    TooFew,
    Nonsense,
}

/// One number as it was reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Number {
    #[default]
    Absent,
    Nonsense,
    Is(u64),
}

/// A report before it is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reported {
    pub(crate) prompt: Number,
    pub(crate) cached: Number,
    pub(crate) cache_written: Number,
    pub(crate) generated: Number,
}

/// What is known without the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    /// Bytes of the messages.
    pub(crate) prompt_bytes: u64,
    /// The prompt cannot have more tokens.
    pub(crate) prompt_worst: u64,
    pub(crate) max_tokens: u64,
    pub(crate) heard_bytes: u64,
}

/// What was set aside for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserved {
    pub prompt: u64,
    pub generated: u64,
}

/// What to settle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bill {
    /// At most what was set aside.
    pub prompt: u64,
    pub cached: u64,
    /// At most what was set aside.
    pub generated: u64,
    /// Used beyond the reservation: booked as overage.
    pub over: Overage,
    /// The outcome is unknown: this is the reservation's maximum.
    pub unknown: bool,
}

/// Tokens beyond a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overage {
    pub prompt: u64,
    pub generated: u64,
}

/// The bill of a call: what was used, at most what was set aside and the rest as overage; all of it where the outcome is
/// unknown; nothing where the provider refused.
pub fn bill(outcome: &Result<Answer, Failure>, reserved: Reserved) -> Bill {
    match outcome {
        Ok(answer) => used(answer.usage, reserved),
        Err(failure) if failure.unknown => {
            Bill { prompt: reserved.prompt, generated: reserved.generated, unknown: true, ..Bill::default() }
        }
        Err(_) => Bill::default(),
    }
}

fn used(usage: Usage, reserved: Reserved) -> Bill {
    let prompt = usage.prompt.min(reserved.prompt);
    let generated = usage.generated.min(reserved.generated);
    let over = Overage { prompt: usage.prompt - prompt, generated: usage.generated - generated };
    Bill { prompt, cached: usage.cached.min(prompt), generated, over, unknown: false }
}

impl Number {
    /// A larger one is no count of tokens of one call.
    const MOST: u64 = 1 << 32;

    pub(crate) fn read(value: Option<&serde_json::Value>) -> Number {
        match value {
            None | Some(serde_json::Value::Null) => Number::Absent,
            Some(value) => value.as_u64().filter(|n| *n <= Number::MOST).map_or(Number::Nonsense, Number::Is),
        }
    }

    /// Adds what is reported apart; what is absent is nothing.
    pub(crate) fn plus(self, other: Number) -> Number {
        match (self, other) {
            (Number::Nonsense, _) | (_, Number::Nonsense) => Number::Nonsense,
            (Number::Is(a), Number::Is(b)) => Number::Is(a + b),
            (is @ Number::Is(_), Number::Absent) | (Number::Absent, is) => is,
        }
    }

    /// A later report replaces an earlier one, and says nothing where it is silent.
    pub(crate) fn update(&mut self, later: Number) {
        if later != Number::Absent {
            *self = later;
        }
    }
}

/// One number, judged.
struct Judged {
    tokens: u64,
    counted: bool,
    overage: bool,
    doubt: Option<Doubt>,
}

/// Judges one number: `most` cannot be exceeded honestly, `bytes` are what the tokens stand for, `bound` is our count.
fn judge_one(number: Number, most: u64, bytes: u64, bound: u64) -> Judged {
    let counted = |doubt| Judged { tokens: bound, counted: true, overage: false, doubt: Some(doubt) };
    match number {
        Number::Absent => counted(Doubt::Absent),
        Number::Nonsense => counted(Doubt::Nonsense),
        Number::Is(n) if n > most.saturating_mul(ABSURD_TIMES) => counted(Doubt::Nonsense),
        Number::Is(n) if n.saturating_mul(BYTES_A_TOKEN) < bytes => counted(Doubt::TooFew),
        Number::Is(n) => Judged { tokens: n, counted: false, overage: n > most, doubt: None },
    }
}

/// What is believed of a report.
pub(crate) fn judge(reported: Reported, known: Known) -> Usage {
    let prompt = judge_one(reported.prompt, known.prompt_worst, known.prompt_bytes, known.prompt_worst);
    // The end of an answer is a token, too.
    let heard_most = known.heard_bytes.saturating_add(1);
    let generated_bound = heard_most.min(known.max_tokens);
    let generated = judge_one(reported.generated, known.max_tokens, known.heard_bytes, generated_bound);
    let unheard = !generated.counted && generated.tokens > heard_most + FRAME_TOKENS;
    let (cached, cached_doubt) = within(reported.cached, prompt.tokens);
    let (cache_written, written_doubt) = within(reported.cache_written, prompt.tokens);
    let doubts = [prompt.doubt, generated.doubt, cached_doubt, written_doubt];
    Usage {
        prompt: prompt.tokens,
        cached: if prompt.counted { 0 } else { cached },
        cache_written,
        generated: generated.tokens,
        prompt_counted: prompt.counted,
        generated_counted: generated.counted,
        overage: prompt.overage || generated.overage,
        doubt: doubts.into_iter().flatten().chain(unheard.then_some(Doubt::MoreThanHeard)).max(),
    }
}

/// A part of the prompt: absent is none, and what is not within it counts as none, which costs more.
fn within(number: Number, prompt: u64) -> (u64, Option<Doubt>) {
    match number {
        Number::Absent => (0, None),
        Number::Is(n) if n <= prompt => (n, None),
        Number::Is(_) | Number::Nonsense => (0, Some(Doubt::Nonsense)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{Finish, Heard, Reason};
    use proptest::prelude::*;
    use serde_json::json;

    const KNOWN: Known = Known { prompt_bytes: 400, prompt_worst: 500, max_tokens: 100, heard_bytes: 200 };

    fn judged(prompt: Number, generated: Number) -> Usage {
        judge(Reported { prompt, generated, ..Reported::default() }, KNOWN)
    }

    #[test]
    fn numbers_as_json_has_them() {
        let read = |value| Number::read(Some(&value));
        assert_eq!(Number::read(None), Number::Absent);
        assert_eq!(read(json!(null)), Number::Absent);
        assert_eq!(read(json!(7)), Number::Is(7));
        for nonsense in [json!(-1), json!(1.5), json!("7"), json!(1e30), json!([]), json!(u64::MAX)] {
            assert_eq!(read(nonsense.clone()), Number::Nonsense, "{nonsense}");
        }
    }

    #[test]
    fn an_honest_report_is_believed() {
        let reported = Reported { cached: Number::Is(64), ..Reported::default() };
        let usage = judge(Reported { prompt: Number::Is(90), generated: Number::Is(45), ..reported }, KNOWN);
        let expected = Usage { prompt: 90, cached: 64, generated: 45, ..Usage::default() };
        assert_eq!(usage, expected);
    }

    #[test]
    fn without_a_usable_report_the_most_that_can_be_counts() {
        for (number, doubt) in [
            (Number::Absent, Doubt::Absent),
            (Number::Nonsense, Doubt::Nonsense),
            (Number::Is(2), Doubt::TooFew),
            (Number::Is(1 << 30), Doubt::Nonsense),
        ] {
            let usage = judged(number, number);
            assert_eq!((usage.prompt, usage.generated), (500, 100), "{number:?}");
            assert!(usage.prompt_counted && usage.generated_counted && !usage.overage);
            assert_eq!(usage.doubt, Some(doubt));
        }
        let cached = Reported { cached: Number::Is(91), ..Reported::default() };
        let usage = judge(Reported { prompt: Number::Is(90), generated: Number::Is(45), ..cached }, KNOWN);
        assert_eq!((usage.cached, usage.doubt), (0, Some(Doubt::Nonsense)), "cached above prompt");
    }

    #[test]
    fn more_than_can_be_is_overage_and_thinking_unseen_is_said() {
        let over = judged(Number::Is(501), Number::Is(101));
        assert!(over.overage && !over.prompt_counted);
        assert_eq!((over.prompt, over.generated), (501, 101));
        let thinking = judge(
            Reported { prompt: Number::Is(90), generated: Number::Is(95), ..Reported::default() },
            Known { heard_bytes: 3, ..KNOWN },
        );
        assert_eq!((thinking.generated, thinking.doubt), (95, Some(Doubt::MoreThanHeard)));
    }

    fn answer(usage: Usage) -> Result<Answer, Failure> {
        let heard = Heard::default();
        Ok(Answer { heard, finish: Finish::Stop, usage, wire_attempts: 1, provider_id: None })
    }

    #[test]
    fn refused_costs_nothing_and_unknown_costs_all_that_was_set_aside() {
        let reserved = Reserved { prompt: 500, generated: 100 };
        assert_eq!(bill(&Err(Failure::passing(Reason::RateLimited, "")), reserved), Bill::default());
        let unknown = bill(&Err(Failure::unknown(Reason::Cut, "")), reserved);
        assert_eq!((unknown.prompt, unknown.generated, unknown.unknown), (500, 100, true));
        let over = bill(&answer(judged(Number::Is(501), Number::Is(103))), reserved);
        assert_eq!((over.prompt, over.generated), (500, 100));
        assert_eq!(over.over, Overage { prompt: 1, generated: 3 });
    }

    fn number() -> impl Strategy<Value = Number> {
        prop_oneof![
            Just(Number::Absent),
            Just(Number::Nonsense),
            (0u64..2000).prop_map(Number::Is),
            any::<u64>().prop_map(Number::Is)
        ]
    }

    proptest! {
        #[test]
        fn never_settled_above_what_was_set_aside_and_never_below_what_was_heard(
            prompt in number(), cached in number(), cache_written in number(), generated in number(),
            heard_bytes in 0u64..10_000,
        ) {
            let known = Known { heard_bytes, ..KNOWN };
            let usage = judge(Reported { prompt, cached, cache_written, generated }, known);
            let reserved = Reserved { prompt: known.prompt_worst, generated: known.max_tokens };
            let bill = bill(&answer(usage), reserved);
            prop_assert!(bill.prompt <= reserved.prompt && bill.generated <= reserved.generated);
            prop_assert!(usage.cached <= usage.prompt && bill.cached <= bill.prompt);
            prop_assert!(usage.prompt * BYTES_A_TOKEN >= known.prompt_bytes);
            prop_assert!(usage.generated * BYTES_A_TOKEN >= heard_bytes.min(known.max_tokens));
            prop_assert!(usage.prompt <= known.prompt_worst * ABSURD_TIMES);
        }
    }
}
