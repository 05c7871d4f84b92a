//! The engine's figures in JSON, for the scripts in `bench/` that compare engines:
//!
//! ```text
//! figures speed MODEL THREADS
//! figures quality MODEL TEXT PROMPTS [LOG-PROBABILITIES]
//! ```
//!
//! `speed`: tokens a second of a cold prompt of 512, and of 128 single tokens after an empty context.
//!
//! `quality`: the text's mean log-likelihood in windows of 512 tokens of which the last 255 are scored, and the
//! greedy first token after each line of PROMPTS. With a fourth name it also writes there, as little-endian
//! f32, the log-probabilities of the whole vocabulary before each scored token.

use std::error::Error;
use std::fs::{File, read_to_string};
use std::io::{BufWriter, Write};
use std::time::Instant;

use serde_json::{Value, json};
use worker_inference::{Engine, EngineConfig, Request, Sampling, last_logits, perplexity};

const WINDOW: usize = 512;
const SKIP: usize = 256;
const SCOPE: [u8; 32] = [0; 32];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let figures = match arguments[..] {
        ["speed", model, threads] => speed(load(model, threads.parse()?)?)?,
        ["quality", model, text, prompts] => quality(&mut load(model, 0)?, text, prompts)?,
        ["quality", model, text, prompts, path] => {
            let mut engine = load(model, 0)?;
            write_log_probabilities(&mut engine, text, path)?;
            quality(&mut engine, text, prompts)?
        }
        _ => return Err("give: speed MODEL THREADS, or: quality MODEL TEXT PROMPTS [FILE]".into()),
    };
    println!("{figures}");
    Ok(())
}

/// All at normal priority, so that both engines of a comparison get the same share of the machine.
fn load(model: &str, threads: usize) -> Result<Engine, Box<dyn Error>> {
    let isa = std::env::var("QUORATE_KERNELS").ok();
    Ok(Engine::load(model, EngineConfig { isa, threads, low_priority: false, ..EngineConfig::default() })?)
}

fn speed(mut engine: Engine) -> Result<Value, Box<dyn Error>> {
    // Once unmeasured, so that all memory is there.
    generate(&mut engine, 512, 2)?;
    let prompt = 512.0 / generate(&mut engine, 512, 1)?;
    let answer = 128.0 / generate(&mut engine, 1, 128)?;
    let info = engine.info();
    Ok(json!({ "kernels": info.isa, "threads": info.threads, "pp512": prompt, "tg128": answer }))
}

/// Seconds that a prompt of made-up tokens and its answer take with a cold cache.
fn generate(engine: &mut Engine, prompt: usize, answer: usize) -> Result<f64, Box<dyn Error>> {
    engine.clear_cache();
    let computed = engine.observe().tokens_computed;
    let tokens = (0..prompt).map(|index| 100 + (index * 7919 % 40_000) as u32).collect();
    let start = Instant::now();
    engine.submit(Request {
        tokens,
        scope: SCOPE,
        max_new: answer,
        min_new: 0,
        sampling: Sampling::default(),
        stop: Vec::new(),
        ignore_eos: true,
        class: 1,
        ..Request::default()
    })?;
    while !engine.is_idle() {
        engine.step();
    }
    let seconds = start.elapsed().as_secs_f64();
    // A figure of work that was found in the cache would be a lie. The last token is not run again.
    let rows = engine.observe().tokens_computed - computed;
    if rows != (prompt + answer - 1) as u64 {
        return Err(format!("{rows} tokens were computed, not {prompt} and {answer}").into());
    }
    Ok(seconds)
}

fn quality(engine: &mut Engine, text: &str, prompts: &str) -> Result<Value, Box<dyn Error>> {
    let (text, prompts) = (read_to_string(text)?, read_to_string(prompts)?);
    let scored = perplexity(engine, &text, WINDOW, SKIP)?;
    let first = prompts
        .lines()
        .map(|prompt| first_token(engine, prompt))
        .collect::<Result<Vec<usize>, Box<dyn Error>>>()?;
    Ok(json!({
        "kernels": engine.info().isa,
        "text_tokens": encode(engine, &text)?.len(),
        "scored": scored.tokens,
        "mean_log_likelihood": scored.mean_log_likelihood,
        "first_tokens": first,
    }))
}

/// The token that a greedy answer to the raw prompt begins with.
fn first_token(engine: &mut Engine, prompt: &str) -> Result<usize, Box<dyn Error>> {
    let tokens = encode(engine, prompt)?;
    let logits = last_logits(engine, SCOPE, &tokens)?;
    let best = |best: usize, index: usize| if logits[index] > logits[best] { index } else { best };
    Ok((0..logits.len()).fold(0, best))
}

/// A text's tokens, behind BOS where the model wants it, without the line end at the end of a file.
fn encode(engine: &Engine, text: &str) -> Result<Vec<u32>, Box<dyn Error>> {
    let model = engine.text();
    let bos = model.tokenizer.bos().filter(|_| model.tokenizer.adds_bos());
    let text = text.strip_suffix('\n').unwrap_or(text);
    Ok(bos.into_iter().chain(model.tokenizer.encode(text, false)?).collect())
}

/// Window by window, as [`perplexity`] takes them.
fn write_log_probabilities(engine: &mut Engine, text: &str, path: &str) -> Result<(), Box<dyn Error>> {
    let tokens = encode(engine, &read_to_string(text)?)?;
    let model = engine.text();
    let bos = model.tokenizer.bos().filter(|_| model.tokenizer.adds_bos());
    let mut file = BufWriter::new(File::create(path)?);
    for window in tokens.chunks_exact(WINDOW) {
        let mut window = window.to_vec();
        window[0] = bos.unwrap_or(window[0]);
        for end in SKIP + 1..WINDOW {
            for value in log_softmax(&last_logits(engine, SCOPE, &window[..end])?) {
                file.write_all(&value.to_le_bytes())?;
            }
        }
    }
    Ok(file.flush()?)
}

fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - most).exp()).sum();
    logits.iter().map(|&logit| (f64::from(logit - most) - sum.ln()) as f32).collect()
}
