//! `engine bench`: rows of tokens a second, each repetition computed anew and checked.

use super::plan::{BenchOptions, Form, Row, rows, settings};
use crate::local::model_path;
use anyhow::{Context, ensure};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};
use worker_inference::blocks::BLOCK_TOKENS;
use worker_inference::{Engine, EngineConfig, Event, Request, Sampling, Usage};

/// Long enough to see what the neighbours take, short enough for every row.
const PROBE: Duration = Duration::from_millis(250);
const SCOPE: [u8; 32] = [0; 32];

/// One row of the result. The names are read by scripts.
#[derive(Debug, Serialize)]
struct Figure {
    n_prompt: usize,
    n_gen: usize,
    n_depth: usize,
    n_parallel: usize,
    n_threads: usize,
    /// Tokens a second, of all sequences together: the mean of all repetitions, and how far they spread.
    avg_ts: f64,
    stddev_ts: f64,
    kernels: String,
    model_sha256: String,
    /// What the machine could do just before, in thousands of millions of int8 operations a second.
    peak_probe: f64,
}

/// Prints tokens a second of prompts and of answers.
pub fn engine_bench(options: BenchOptions) -> anyhow::Result<()> {
    let rows = rows(&options)?;
    let path = model_path(&options.model)?;
    let mut bench = Bench { engine: load(&path, &options, &rows)?, tokens: Tokens { seed: 1 } };
    let sha256 = sha256(&path)?;
    let mut figures = Vec::new();
    for (at, &row) in rows.iter().enumerate() {
        let figure = bench.row(row, options.repeats, &sha256).with_context(|| row.name())?;
        eprintln!("{} of {}: {}: {:.1} tokens/s", at + 1, rows.len(), row.name(), figure.avg_ts);
        if options.form == Form::Lines {
            say!("{}", serde_json::to_string(&figure)?);
        }
        figures.push(figure);
    }
    match options.form {
        Form::Table => print_table(&figures),
        Form::Json => say!("{}", serde_json::to_string_pretty(&figures)?),
        Form::Lines => {}
    }
    Ok(())
}

/// The engine with room for all rows. What a block takes is known once the model is loaded, so that a model may have
/// to be loaded a second time.
fn load(path: &Path, options: &BenchOptions, rows: &[Row]) -> anyhow::Result<Engine> {
    let engine = Engine::load(path, settings(options, rows, 0))?;
    let (window, observed) = (engine.info().window, engine.observe());
    for row in rows {
        let asked = row.sequence_tokens();
        ensure!(
            asked <= window,
            "{} takes {asked} tokens, the model's window has {window}; give smaller -p, -n or -d",
            row.name()
        );
    }
    let config = settings(options, rows, observed.block_bytes);
    if config.kv_bytes <= observed.kv_bytes {
        return Ok(engine);
    }
    check_memory(&config)?;
    drop(engine);
    Ok(Engine::load(path, config)?)
}

fn check_memory(config: &EngineConfig) -> anyhow::Result<()> {
    let have = sys::total_memory().unwrap_or(u64::MAX).saturating_sub(sys::resident_bytes().unwrap_or(0));
    ensure!(
        (config.kv_bytes as u64) < have / 10 * 9,
        "this needs {} MiB for keys and values, and {} MiB of memory are left beside the model; give smaller -b, -d, -n \
         or -r",
        config.kv_bytes >> 20,
        have >> 20
    );
    Ok(())
}

struct Bench {
    engine: Engine,
    tokens: Tokens,
}

impl Bench {
    /// Contexts once, then the repetitions; the first of them only brings memory and caches up, and is not counted.
    fn row(&mut self, row: Row, repeats: usize, model_sha256: &str) -> anyhow::Result<Figure> {
        self.engine.clear_cache();
        let contexts: Vec<Vec<u32>> = (0..row.parallel()).map(|_| self.random(row.depth())).collect();
        self.compute(&contexts)?;
        self.repetition(row, &contexts)?;
        let peak_probe = self.engine.peak_probe(PROBE);
        let rates =
            (0..repeats).map(|_| self.repetition(row, &contexts)).collect::<anyhow::Result<Vec<f64>>>()?;
        let (avg_ts, stddev_ts) = mean_and_deviation(&rates);
        let (n_prompt, n_gen) = match row {
            Row::Prefill { prompt, .. } => (prompt, 0),
            Row::Decode { generate, .. } => (0, generate),
        };
        Ok(Figure {
            n_prompt,
            n_gen,
            n_depth: row.depth(),
            n_parallel: row.parallel(),
            n_threads: self.engine.info().threads,
            avg_ts,
            stddev_ts,
            kernels: self.engine.info().isa.clone(),
            model_sha256: model_sha256.to_owned(),
            peak_probe,
        })
    }

    /// Computes the contexts, whose blocks stay in the cache for the repetitions.
    fn compute(&mut self, contexts: &[Vec<u32>]) -> anyhow::Result<()> {
        for context in contexts.iter().filter(|context| !context.is_empty()) {
            self.submit(context, 1)?;
        }
        while !self.engine.is_idle() {
            self.engine.step();
        }
        Ok(())
    }

    fn repetition(&mut self, row: Row, contexts: &[Vec<u32>]) -> anyhow::Result<f64> {
        match row {
            Row::Prefill { prompt, .. } => self.prefill(&contexts[0], prompt),
            Row::Decode { generate, .. } => self.decode(contexts, generate),
        }
    }

    /// Tokens a second of a prompt that no cache knows.
    fn prefill(&mut self, context: &[u32], prompt: usize) -> anyhow::Result<f64> {
        let tokens = [context, &self.random(prompt)].concat();
        let start = Instant::now();
        self.submit(&tokens, 1)?;
        let usages = self.finish(&mut |_| ())?;
        let seconds = start.elapsed().as_secs_f64();
        let computed = check(&usages, context.len(), prompt)?;
        Ok(computed as f64 / seconds)
    }

    /// Tokens a second of all answers together, from the step on in which the last of them has begun.
    fn decode(&mut self, contexts: &[Vec<u32>], generate: usize) -> anyhow::Result<f64> {
        for context in contexts {
            let begin = [context.as_slice(), &self.random(1)].concat();
            // The first token belongs to the prompt's step.
            self.submit(&begin, generate + 1)?;
        }
        let (mut begun, mut all_began, mut answered) = (0, None, 0_usize);
        let usages = self.finish(&mut |offsets| match all_began {
            Some(_) => answered += offsets.len(),
            None => {
                begun += offsets.iter().filter(|&&offset| offset == 0).count();
                all_began = (begun == contexts.len()).then(Instant::now);
            }
        })?;
        let seconds = all_began.context("an answer did not begin")?.elapsed().as_secs_f64();
        check(&usages, contexts[0].len(), generate + 1)?;
        Ok(answered as f64 / seconds)
    }

    fn submit(&mut self, tokens: &[u32], max_new: usize) -> anyhow::Result<()> {
        self.engine.submit(Request {
            tokens: tokens.to_vec(),
            scope: SCOPE,
            max_new,
            min_new: 0,
            sampling: Sampling { temperature: 0.0, ..Sampling::default() },
            ignore_eos: true,
            class: 1,
            ..Request::default()
        })?;
        Ok(())
    }

    /// Steps until all is done; `on_step` gets the places of the tokens that a step brought in their answers.
    fn finish(&mut self, on_step: &mut dyn FnMut(&[usize])) -> anyhow::Result<Vec<Usage>> {
        let mut usages = Vec::new();
        while !self.engine.is_idle() {
            let mut offsets = Vec::new();
            for event in self.engine.step() {
                match event {
                    Event::Token { offset, .. } => offsets.push(offset),
                    Event::Finished { usage, .. } => usages.push(usage),
                    _ => {}
                }
            }
            on_step(&offsets);
        }
        Ok(usages)
    }

    fn random(&mut self, count: usize) -> Vec<u32> {
        let vocabulary = self.engine.info().vocab as u64;
        (0..count).map(|_| (self.tokens.next() % vocabulary) as u32).collect()
    }
}

/// Refuses a figure of work that was found in the cache: behind the context everything must have been computed.
/// Returns how many rows were.
fn check(usages: &[Usage], depth: usize, fresh: usize) -> anyhow::Result<usize> {
    for usage in usages {
        let known = depth / BLOCK_TOKENS * BLOCK_TOKENS;
        ensure!(
            usage.cached == known && usage.computed == depth - known + fresh,
            "{} tokens were found in the cache and {} computed, where {known} and {} were due; this figure is worth nothing",
            usage.cached,
            usage.computed,
            depth - known + fresh
        );
    }
    Ok(usages.iter().map(|usage| usage.computed).sum())
}

/// splitmix64: the same numbers in every run, and none that a cache has seen.
struct Tokens {
    seed: u64,
}

impl Tokens {
    fn next(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 16
    }
}

fn mean_and_deviation(rates: &[f64]) -> (f64, f64) {
    let count = rates.len() as f64;
    let mean = rates.iter().sum::<f64>() / count;
    let squares: f64 = rates.iter().map(|rate| (rate - mean).powi(2)).sum();
    (mean, if rates.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 })
}

fn sha256(path: &Path) -> anyhow::Result<String> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
    std::io::copy(&mut file, &mut hasher).with_context(|| format!("reading {}", path.display()))?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn print_table(figures: &[Figure]) {
    if let Some(first) = figures.first() {
        say!("kernels {}, {} threads, model {}", first.kernels, first.n_threads, &first.model_sha256[..12]);
    }
    say!(
        "{:>7} {:>6} {:>6} {:>9}  {:>18}  {:>10}",
        "prompt",
        "answer",
        "depth",
        "together",
        "tokens/s",
        "peak GOP/s"
    );
    for figure in figures {
        let Figure { n_prompt, n_gen, n_depth, n_parallel, avg_ts, stddev_ts, peak_probe, .. } = figure;
        say!(
            "{n_prompt:>7} {n_gen:>6} {n_depth:>6} {n_parallel:>9}  {avg_ts:>9.1} ± {stddev_ts:>6.1}  {peak_probe:>10.0}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_of_cached_work_is_refused() {
        let usage =
            |cached, computed| Usage { prompt: 532, cached, generated: 1, computed, ..Usage::default() };
        assert_eq!(check(&[usage(512, 32)], 520, 24).expect("all new"), 32);
        assert!(check(&[usage(528, 16)], 520, 24).is_err());
        assert!(check(&[usage(0, 544)], 520, 24).is_err());
    }

    #[test]
    fn the_spread_is_of_a_sample() {
        assert_eq!(mean_and_deviation(&[2.0]), (2.0, 0.0));
        assert_eq!(mean_and_deviation(&[1.0, 3.0]), (2.0, 2.0_f64.sqrt()));
    }
}
