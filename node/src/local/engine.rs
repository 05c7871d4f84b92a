//! `engine bench` and `engine score`: the engine alone, on this machine.

use super::model_path;
use anyhow::Context;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;
use worker_inference::{Engine, EngineConfig, Event, Request, Sampling};

pub struct BenchOptions {
    pub model: String,
    pub json: bool,
}

pub struct ScoreOptions {
    pub model: String,
    pub file: PathBuf,
    pub window: usize,
    pub skip: usize,
    pub json: bool,
}

fn load(model: &str) -> anyhow::Result<Engine> {
    let path = model_path(model)?;
    let config = EngineConfig { isa: std::env::var("QUORATE_KERNELS").ok(), ..EngineConfig::default() };
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
    let mut engine = load(&options.model)?;
    let scored = worker_inference::perplexity(&mut engine, &text, options.window, options.skip)?;
    let score = Score {
        tokens: scored.tokens,
        mean_log_likelihood: scored.mean_log_likelihood,
        perplexity: scored.perplexity,
    };
    if options.json {
        println!("{}", serde_json::to_string(&score)?);
    } else {
        println!("tokens scored         {}", score.tokens);
        println!("mean log-likelihood   {:.6}", score.mean_log_likelihood);
        println!("perplexity            {:.4}", score.perplexity);
    }
    Ok(())
}

#[derive(Serialize)]
struct Figure {
    what: &'static str,
    tokens: usize,
    tokens_per_second: f64,
}

/// Prints tokens a second: of a cold prompt, of one answer, of eight at the same time.
pub fn engine_bench(options: BenchOptions) -> anyhow::Result<()> {
    let mut engine = load(&options.model)?;
    let figures = [
        measure(&mut engine, "prompt of 512", 1, 512, 1)?,
        measure(&mut engine, "answer, 1 at a time", 1, 16, 128)?,
        measure(&mut engine, "answers, 8 at a time", 8, 16, 128)?,
    ];
    let info = engine.info();
    if options.json {
        let kernels = &info.isa;
        println!(
            "{}",
            serde_json::json!({ "kernels": kernels, "threads": info.threads, "figures": figures })
        );
        return Ok(());
    }
    println!("kernels {}, {} threads", info.isa, info.threads);
    for figure in figures {
        println!("{:<22} {:>8.1} tokens/s", figure.what, figure.tokens_per_second);
    }
    Ok(())
}

/// Runs `batch` prompts of made-up tokens; counts prompt tokens where one token is answered, else answers.
fn measure(
    engine: &mut Engine,
    what: &'static str,
    batch: usize,
    prompt: usize,
    answer: usize,
) -> anyhow::Result<Figure> {
    engine.clear_cache();
    let vocabulary = engine.info().vocab as u32;
    for sequence in 0..batch {
        let token = |index: usize| 100 + (sequence * 7919 + index * 104_729) as u32 % (vocabulary - 200);
        engine.submit(Request {
            tokens: (0..prompt).map(token).collect(),
            scope: [0; 32],
            max_new: answer,
            min_new: answer,
            sampling: Sampling { temperature: 0.0, ..Sampling::default() },
            ignore_eos: true,
            class: 1,
            ..Request::default()
        })?;
    }
    let start = Instant::now();
    let mut first = None;
    let mut answered = 0;
    while !engine.is_idle() {
        let tokens = engine.step().iter().filter(|event| matches!(event, Event::Token { .. })).count();
        if tokens > 0 && first.is_none() {
            first = Some(start.elapsed());
        }
        answered += tokens;
    }
    // Where answers are counted, the time of the prompts is left out.
    let (tokens, seconds) = match answer {
        1 => (prompt * batch, start.elapsed().as_secs_f64()),
        _ => (answered.saturating_sub(batch), (start.elapsed() - first.unwrap_or_default()).as_secs_f64()),
    };
    Ok(Figure { what, tokens, tokens_per_second: tokens as f64 / seconds })
}
