//! `engine bench` and `engine score`: the engine alone, on this machine.

mod bench;
mod plan;

pub use bench::engine_bench;
pub use plan::{BenchOptions, Form};

use super::model_path;
use anyhow::Context;
use serde::Serialize;
use std::path::{Path, PathBuf};
use worker_inference::{Engine, EngineConfig};

pub struct ScoreOptions {
    pub model: String,
    pub file: PathBuf,
    pub window: usize,
    pub skip: usize,
    pub json: bool,
}

/// The engine's own default of threads where 0 are asked for.
pub(super) fn load(model: &str, threads: usize) -> anyhow::Result<Engine> {
    let path = model_path(model)?;
    let isa = std::env::var("QUORATE_KERNELS").ok();
    let config = EngineConfig { isa, threads, ..EngineConfig::default() };
    Ok(Engine::load(Path::new(&path), config)?)
}

#[derive(Serialize)]
struct Score {
    tokens: usize,
    mean_log_likelihood: f64,
    perplexity: f64,
}

/// Prints how likely the model finds a text.
pub fn engine_score(options: ScoreOptions) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&options.file)
        .with_context(|| format!("reading {}: it must be a UTF-8 text file", options.file.display()))?;
    let mut engine = load(&options.model, 0)?;
    let scored = worker_inference::perplexity(&mut engine, &text, options.window, options.skip)?;
    let score = Score {
        tokens: scored.tokens,
        mean_log_likelihood: scored.mean_log_likelihood,
        perplexity: scored.perplexity,
    };
    if options.json {
        say!("{}", serde_json::to_string(&score)?);
    } else {
        say!("tokens scored         {}", score.tokens);
        say!("mean log-likelihood   {:.6}", score.mean_log_likelihood);
        say!("perplexity            {:.4}", score.perplexity);
    }
    Ok(())
}
