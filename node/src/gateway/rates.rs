//! How fast models answer and how much agents get, by earlier calls: what routing expects of the next one.
//!
//! Measured from the moment a call may begin: a queue at the local engine is in it, one at a destination is told apart.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use types::ProjectName;

/// Before anything is measured: slower than any model one would name beside others.
const UNKNOWN: Rate = Rate { first_ms: 1_000, micros_a_token: 50_000 };
/// A new measurement counts an eighth.
const OLD_SHARE: u64 = 7;
/// Agents whose answers are remembered; further ones count as if they always said all they may.
const AGENTS: usize = 4_096;

/// A model's pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) first_ms: u64,
    /// Between two tokens of an answer.
    pub(super) micros_a_token: u64,
}

#[derive(Default)]
struct Known {
    models: BTreeMap<String, Rate>,
    answers: BTreeMap<(ProjectName, String), u64>,
}

/// Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Rates(Arc<Mutex<Known>>);

fn mean(old: u64, new: u64) -> u64 {
    old.saturating_mul(OLD_SHARE).saturating_add(new) / (OLD_SHARE + 1)
}

impl Rates {
    pub(super) fn of(&self, model: &str) -> Rate {
        self.known().models.get(model).copied().unwrap_or(UNKNOWN)
    }

    /// A whole answer: when it began, when it was over, how long it was.
    pub(super) fn learn(&self, model: &str, first: Duration, whole: Duration, tokens: u64) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let between = micros(whole.saturating_sub(first));
        let mut known = self.known();
        let old = known.models.get(model).copied();
        let first_ms = micros(first) / 1000;
        let micros_a_token = between.checked_div(tokens.saturating_sub(1));
        let rate = match old {
            None => Rate { first_ms, micros_a_token: micros_a_token.unwrap_or(UNKNOWN.micros_a_token) },
            Some(old) => Rate {
                first_ms: mean(old.first_ms, first_ms),
                micros_a_token: micros_a_token.map_or(old.micros_a_token, |it| mean(old.micros_a_token, it)),
            },
        };
        known.models.insert(model.to_string(), rate);
    }

    /// Tokens that the agent's next answer likely has.
    pub(super) fn answer_tokens(&self, project: &ProjectName, agent: &str, most: u32) -> u64 {
        let known = self.known();
        let likely = known.answers.get(&(project.clone(), agent.to_string()));
        likely.map_or(u64::from(most), |tokens| (*tokens).min(most.into()))
    }

    pub(super) fn answered(&self, project: &ProjectName, agent: &str, tokens: u64) {
        let mut known = self.known();
        let key = (project.clone(), agent.to_string());
        let room = known.answers.len() < AGENTS;
        match known.answers.get_mut(&key) {
            Some(old) => *old = mean(*old, tokens),
            None if room => drop(known.answers.insert(key, tokens)),
            None => {}
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().expect("nothing panics while it holds the rates")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_stated_then_measured_then_follow() {
        let rates = Rates::default();
        assert_eq!(rates.of("m"), UNKNOWN);
        let (first, whole) = (Duration::from_millis(80), Duration::from_millis(180));
        rates.learn("m", first, whole, 11);
        assert_eq!(rates.of("m"), Rate { first_ms: 80, micros_a_token: 10_000 });
        rates.learn("m", Duration::from_millis(160), Duration::from_millis(160), 1);
        assert_eq!(rates.of("m"), Rate { first_ms: 90, micros_a_token: 10_000 }, "one token has no pace");
        assert_eq!(rates.of("other"), UNKNOWN);
    }

    #[test]
    fn an_agents_answers_are_as_long_as_they_may_be_until_there_are_some() {
        let (rates, project) = (Rates::default(), ProjectName::default());
        assert_eq!(rates.answer_tokens(&project, "a", 100), 100);
        rates.answered(&project, "a", 40);
        rates.answered(&project, "a", 80);
        assert_eq!(rates.answer_tokens(&project, "a", 100), 45);
        assert_eq!(rates.answer_tokens(&project, "a", 10), 10);
        assert_eq!(rates.answer_tokens(&project, "b", 100), 100);
    }
}
