//! How long a fork takes, for every length of the parent's last block.

use std::time::Instant;

use worker_inference::{Engine, ForkRequest, Sampling, SubmitError};

use super::common::{Random, request};

/// The shortest and the longest chain that is forked.
pub(crate) const CHAINS: std::ops::RangeInclusive<usize> = 4001..=4015;

/// Tokens that a step may bring at the most: one, and guesses that came true.
const STEP_TOKENS: usize = 16;

/// Microseconds of `each` forks of every length.
pub(crate) fn run(engine: &mut Engine, each: usize) -> Result<Vec<f64>, SubmitError> {
    let mut random = Random(23);
    let tokens = random.tokens(engine, *CHAINS.end());
    // The parent answers while it is forked; a step between the forks takes their last events away.
    let parent = engine.submit(request(tokens, [3; 32], (each + 1) * STEP_TOKENS))?;
    while engine.step().is_empty() {}
    let mut micros = Vec::new();
    for _ in 0..each {
        for keep in CHAINS {
            let child = ForkRequest {
                keep: Some(keep),
                append: random.tokens(engine, 1),
                max_new: 1,
                sampling: Sampling::default(),
                stop: Vec::new(),
                ignore_eos: true,
                class: 1,
            };
            let start = Instant::now();
            let child = engine.fork(parent, child)?;
            micros.push(start.elapsed().as_secs_f64() * 1e6);
            engine.cancel(child);
        }
        engine.step();
    }
    engine.cancel(parent);
    while !engine.is_idle() {
        engine.step();
    }
    Ok(micros)
}
