//! Prompts that share beginnings, over workers that each keep the blocks they used last.
//!
//! Every request goes to one worker, which computes what its cache lacks. The measure is the share of blocks found,
//! beside one cache of the size of all of them, and how evenly the work was shared. Requests take no time: what is
//! compared is where they go. The router is the ledger's own; it does not see the caches, only what it sent where.

use crate::cache::Cache;
use crate::dice::Dice;
use crate::trace::{BLOCK_TOKENS, Prompt};
use ledger::routing::{Chain, Fleet, Lot, Routes, Wish};
use serde::Serialize;
use types::{Hash, NodeId};

/// Windows over which the evenness is looked at, too.
const WINDOW_MS: u64 = 120_000;

/// What one router made of the trace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub router: &'static str,
    pub workers: usize,
    /// Blocks found of all blocks asked for, and that as a share of what one pooled cache finds.
    pub hit: f64,
    pub of_pooled: f64,
    /// The busiest worker's part of the mean: tokens computed, requests, tokens asked for.
    pub work_max_mean: f64,
    pub requests_max_mean: f64,
    pub asked_max_mean: f64,
    /// Tokens computed in two minutes, the mean of all windows.
    pub windows_max_mean: f64,
}

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Router {
    /// The ledger's.
    Ours,
    /// The same, but the leader changes halfway and the new one knows nothing.
    OursForgetful,
    /// To the worker that has most of the prompt, whoever that is.
    LongestPrefix,
    /// To the worker that was given least.
    LeastLoaded,
    Random,
    RoundRobin,
}

pub const ROUTERS: [Router; 6] = [
    Router::Ours,
    Router::OursForgetful,
    Router::LongestPrefix,
    Router::LeastLoaded,
    Router::Random,
    Router::RoundRobin,
];

impl Router {
    fn name(self) -> &'static str {
        match self {
            Router::Ours => "ours",
            Router::OursForgetful => "ours, record lost halfway",
            Router::LongestPrefix => "longest prefix",
            Router::LeastLoaded => "least loaded",
            Router::Random => "random",
            Router::RoundRobin => "round robin",
        }
    }
}

/// One cache of `blocks`, for all requests: what routing can at best come near to.
pub fn pooled(prompts: &[Prompt], blocks: usize) -> f64 {
    let mut cache = Cache::new(blocks);
    let found: usize = prompts.iter().map(|prompt| cache.serve(&prompt.blocks)).sum();
    found as f64 / asked(prompts)
}

fn asked(prompts: &[Prompt]) -> f64 {
    prompts.iter().map(|prompt| prompt.blocks.len()).sum::<usize>() as f64
}

/// Every router on so many workers with so many blocks each.
pub fn rows(prompts: &[Prompt], workers: usize, blocks: usize) -> Vec<Row> {
    let pooled = pooled(prompts, workers * blocks);
    ROUTERS.iter().map(|router| Run::new(*router, workers, blocks).row(prompts, pooled)).collect()
}

struct Run {
    router: Router,
    caches: Vec<Cache>,
    routes: Routes,
    dice: Dice,
    found: usize,
    /// By worker.
    work: Vec<u64>,
    requests: Vec<u64>,
    asked: Vec<u64>,
    window: Vec<u64>,
    windows: Vec<f64>,
    window_ends_ms: u64,
}

impl Run {
    fn new(router: Router, workers: usize, blocks: usize) -> Run {
        let mut routes = Routes::default();
        (0..workers).for_each(|worker| routes.resize(id(worker), blocks as u64 * BLOCK_TOKENS));
        Run {
            router,
            caches: vec![Cache::new(blocks); workers],
            routes,
            dice: Dice::new(7),
            found: 0,
            work: vec![0; workers],
            requests: vec![0; workers],
            asked: vec![0; workers],
            window: vec![0; workers],
            windows: Vec::new(),
            window_ends_ms: WINDOW_MS,
        }
    }

    fn row(mut self, prompts: &[Prompt], pooled: f64) -> Row {
        for (number, prompt) in prompts.iter().enumerate() {
            if self.router == Router::OursForgetful && number == prompts.len() / 2 {
                (0..self.caches.len()).for_each(|worker| self.routes.forget(id(worker)));
            }
            self.serve(number, prompt);
        }
        let hit = self.found as f64 / asked(prompts);
        let windows = self.windows.len().max(1) as f64;
        Row {
            router: self.router.name(),
            workers: self.caches.len(),
            hit,
            of_pooled: hit / pooled,
            work_max_mean: max_mean(&self.work),
            requests_max_mean: max_mean(&self.requests),
            asked_max_mean: max_mean(&self.asked),
            windows_max_mean: self.windows.iter().sum::<f64>() / windows,
        }
    }

    fn serve(&mut self, number: usize, prompt: &Prompt) {
        self.close_windows(prompt.at_ms);
        let worker = self.choose(number, prompt);
        let found = self.caches[worker].serve(&prompt.blocks);
        let computed = prompt.tokens_from(found);
        self.found += found;
        self.work[worker] += computed;
        self.window[worker] += computed;
        self.requests[worker] += 1;
        self.asked[worker] += prompt.tokens;
        if matches!(self.router, Router::Ours | Router::OursForgetful) {
            let thought = self.routes.note(id(worker), &chain(prompt), prompt.at_ms);
            self.routes.correct(id(worker), thought, prompt.tokens - computed);
        }
    }

    fn close_windows(&mut self, now_ms: u64) {
        while now_ms >= self.window_ends_ms {
            self.window_ends_ms += WINDOW_MS;
            if self.window.iter().any(|work| *work > 0) {
                self.windows.push(max_mean(&self.window));
            }
            self.window.fill(0);
        }
    }

    fn choose(&mut self, number: usize, prompt: &Prompt) -> usize {
        let workers = self.caches.len();
        match self.router {
            Router::Ours | Router::OursForgetful => self.ours(prompt),
            Router::LongestPrefix => {
                let rank = |worker: &usize| (self.caches[*worker].matched(&prompt.blocks), workers - worker);
                (0..workers).max_by_key(rank).unwrap_or(0)
            }
            Router::LeastLoaded => (0..workers).min_by_key(|worker| self.work[*worker]).unwrap_or(0),
            Router::Random => self.dice.below(workers as u64) as usize,
            Router::RoundRobin => number % workers,
        }
    }

    fn ours(&self, prompt: &Prompt) -> usize {
        let mut fleet = Fleet::new(&self.routes, prompt.at_ms);
        for worker in 0..self.caches.len() {
            fleet.add(id(worker), Lot { slots: 1, ..Lot::default() }, []);
        }
        let chain = chain(prompt);
        let wish = Wish { chain: &chain, model: None, keepers: &[], team: None };
        fleet.best(&wish).map_or(0, |node| node.0 as usize - 1)
    }
}

fn id(worker: usize) -> NodeId {
    NodeId(worker as u64 + 1)
}

fn chain(prompt: &Prompt) -> Chain {
    let tokens = |at: usize| prompt.tokens_from(at).min(BLOCK_TOKENS);
    Chain::of(
        prompt.blocks.iter().enumerate().map(|(at, block)| (Hash::of(&block.to_le_bytes()), tokens(at))),
    )
}

fn max_mean(work: &[u64]) -> f64 {
    let mean = work.iter().sum::<u64>() as f64 / work.len().max(1) as f64;
    if mean > 0.0 { work.iter().copied().max().unwrap_or(0) as f64 / mean } else { 1.0 }
}
