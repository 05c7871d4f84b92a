//! Asking an engine, and numbers that are the same in every run.

use std::time::{Duration, Instant};

use worker_inference::{Engine, Event, Request, Sampling, SequenceId, SubmitError, Usage};

pub(crate) type Scope = [u8; 32];

/// A greedy request that generates exactly so many tokens.
pub(crate) fn request(tokens: Vec<u32>, scope: Scope, max_new: usize) -> Request {
    Request {
        tokens,
        scope,
        max_new,
        min_new: max_new,
        sampling: Sampling::default(),
        stop: Vec::new(),
        ignore_eos: true,
        class: 1,
        ..Request::default()
    }
}

/// What became of one request that was alone.
pub(crate) struct Asked {
    pub(crate) usage: Usage,
    /// From submitting it to its first token.
    pub(crate) first: Duration,
    pub(crate) tokens: Vec<u32>,
}

/// Runs one request alone to its end.
pub(crate) fn ask(engine: &mut Engine, request: Request) -> Result<Asked, SubmitError> {
    let start = Instant::now();
    let id = engine.submit(request)?;
    let mut first = None;
    loop {
        for event in engine.step() {
            match event {
                Event::Token { .. } => first = first.or_else(|| Some(start.elapsed())),
                Event::Finished { id: ended, usage, tokens, .. } if ended == id => {
                    return Ok(Asked { usage, first: first.unwrap_or_default(), tokens });
                }
                _ => {}
            }
        }
    }
}

/// The sequences that ended in a step, with what they cost.
pub(crate) fn ended(events: Vec<Event>) -> impl Iterator<Item = (SequenceId, Usage)> {
    events.into_iter().filter_map(|event| match event {
        Event::Finished { id, usage, .. } => Some((id, usage)),
        _ => None,
    })
}

/// splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 16
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn tokens(&mut self, engine: &Engine, count: usize) -> Vec<u32> {
        let vocabulary = engine.info().vocab;
        (0..count).map(|_| self.below(vocabulary) as u32).collect()
    }
}

/// The value that so many of a hundred do not exceed.
pub(crate) fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}
