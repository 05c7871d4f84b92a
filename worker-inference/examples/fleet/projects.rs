//! Two projects with the same prompts: what the second finds, and what its waiting tells about the first.

use worker_inference::{Engine, SubmitError};

use super::common::{Random, Scope, ask, request};

const FIRST: Scope = [11; 32];
const SECOND: Scope = [22; 32];

/// What was seen. Times are seconds to the first token.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Tokens that the second project found in the cache, of prompts that the first has asked.
    pub(crate) shared: usize,
    /// Tokens that the first project found of its own, and those that it could have found.
    pub(crate) own: usize,
    pub(crate) own_most: usize,
    /// The second project's waits for prompts that the first has asked, and for new ones.
    pub(crate) known: Vec<f64>,
    pub(crate) unknown: Vec<f64>,
    /// The first project's waits when it asks again.
    pub(crate) again: Vec<f64>,
    /// Rows computed for each of them.
    pub(crate) known_rows: Vec<usize>,
    pub(crate) unknown_rows: Vec<usize>,
}

/// `count` prompts of each kind, in mixed order.
pub(crate) fn run(engine: &mut Engine, count: usize, length: usize, seed: u64) -> Result<Seen, SubmitError> {
    let mut random = Random(seed);
    engine.clear_cache();
    let prompts: Vec<Vec<u32>> = (0..count).map(|_| random.tokens(engine, length)).collect();
    for prompt in &prompts {
        ask(engine, request(prompt.clone(), FIRST, 1))?;
    }
    let mut seen = Seen::default();
    let mut left: Vec<Option<&Vec<u32>>> = prompts.iter().map(Some).chain((0..count).map(|_| None)).collect();
    while !left.is_empty() {
        let known = left.swap_remove(random.below(left.len()));
        let prompt = known.cloned().unwrap_or_else(|| random.tokens(engine, length));
        let asked = ask(engine, request(prompt, SECOND, 1))?;
        let (waits, rows) = match known {
            Some(_) => (&mut seen.known, &mut seen.known_rows),
            None => (&mut seen.unknown, &mut seen.unknown_rows),
        };
        waits.push(asked.first.as_secs_f64());
        rows.push(asked.usage.computed);
        seen.shared += asked.usage.cached;
    }
    for prompt in &prompts {
        let asked = ask(engine, request(prompt.clone(), FIRST, 1))?;
        seen.again.push(asked.first.as_secs_f64());
        seen.own += asked.usage.cached;
        // The last row is always computed, for its logits.
        seen.own_most += (length - 1) / 16 * 16;
    }
    Ok(seen)
}

/// How likely two samples of one distribution are to differ as much: Kolmogorov and Smirnov's test.
pub(crate) fn same_distribution(a: &[f64], b: &[f64]) -> f64 {
    let sorted = |values: &[f64]| {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values
    };
    let (a, b) = (sorted(a), sorted(b));
    let part =
        |values: &[f64], at: f64| values.partition_point(|&value| value <= at) as f64 / values.len() as f64;
    let apart = a.iter().chain(&b).map(|&at| (part(&a, at) - part(&b, at)).abs()).fold(0.0, f64::max);
    let size = ((a.len() * b.len()) as f64 / (a.len() + b.len()) as f64).sqrt();
    let scaled = (size + 0.12 + 0.11 / size) * apart;
    if scaled < 0.2 {
        return 1.0; // The series converges badly there, and is 1 to twelve places.
    }
    let terms = (1..=100)
        .map(|k| f64::from(k))
        .map(|k| (-2.0 * (k * scaled).powi(2)).exp() * if k % 2.0 == 1.0 { 1.0 } else { -1.0 });
    (2.0 * terms.sum::<f64>()).clamp(0.0, 1.0)
}
