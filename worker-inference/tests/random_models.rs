//! Every architecture on a small model of random weights: against llama.cpp's logits, and against itself under
//! every circumstance that must not change a bit.
//!
//! `make random-models` writes the models (`random_models.py`); `golden/random_models.json` says which files they
//! must be and what llama.cpp computes with them (`bench/random_models_golden.py`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use worker_inference::{Engine, EngineConfig, Request, Sampling, last_logits, score};

const SCOPE: [u8; 32] = [3; 32];

/// How far ours may be from llama.cpp's, as the root of the mean square of the differences, in parts of the spread of
/// all logits. With weights in 32-bit floats our keys and values are still rounded to 16 bits; with others both
/// engines round the inputs of products to 8 bits, each in its own way.
const FLOATS_APART: f64 = 0.002;
const BYTES_APART: f64 = 0.05;

#[derive(Deserialize)]
struct Golden {
    rows: Vec<usize>,
    tokens: Vec<u32>,
    models: BTreeMap<String, Figures>,
}

#[derive(Deserialize)]
struct Figures {
    sha256: String,
    log_likelihood: Vec<f64>,
    logits: Vec<Vec<f64>>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/random_models.json")).expect("the golden file is JSON")
}

fn path(model: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/random-models");
    let path = PathBuf::from(folder).join(format!("{model}.gguf"));
    assert!(path.is_file(), "no model at {}; run `make random-models` first", path.display());
    path
}

fn load(model: &str, change: impl FnOnce(&mut EngineConfig)) -> Engine {
    let mut config =
        EngineConfig { threads: 2, kv_bytes: 16 << 20, low_priority: false, ..EngineConfig::default() };
    change(&mut config);
    Engine::load(path(model), config).unwrap_or_else(|error| panic!("{model}: {error}"))
}

fn logits(engine: &mut Engine, tokens: &[u32]) -> Vec<f32> {
    last_logits(engine, SCOPE, tokens).expect("the prompt fits")
}

fn bits(engine: &mut Engine, tokens: &[u32]) -> Vec<u32> {
    logits(engine, tokens).iter().map(|logit| logit.to_bits()).collect()
}

/// How far two rows are apart, in parts of the spread of the second.
fn apart(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let count = theirs.len() as f64;
    let mean = theirs.iter().sum::<f64>() / count;
    let spread: f64 = theirs.iter().map(|value| (value - mean).powi(2)).sum();
    let difference: f64 = ours.iter().zip(theirs).map(|(ours, theirs)| (ours - theirs).powi(2)).sum();
    (difference / spread).sqrt()
}

fn check(model: &str, what: &str, apart: f64) {
    println!("{model}, {what}: {apart:.5} apart");
    let allowed = if model.ends_with("-f32") { FLOATS_APART } else { BYTES_APART };
    assert!(apart <= allowed, "{model}, {what}: {apart} apart");
}

#[test]
fn these_are_the_models_that_llama_cpp_ran() {
    let golden = golden();
    let names: Vec<&str> = golden.models.keys().map(String::as_str).collect();
    let architectures = ["gemma3", "llama", "qwen2", "qwen3"];
    let expected: Vec<String> = architectures
        .iter()
        .flat_map(|name| ["f32", "q8_0"].map(|format| format!("{name}-{format}")))
        .collect();
    assert_eq!(names, expected);
    for (model, figures) in &golden.models {
        let bytes = std::fs::read(path(model)).expect("readable");
        let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            found, figures.sha256,
            "{model} is another file; if random_models.py changed, run bench/random_models_golden.py"
        );
        let engine = load(model, |_| {});
        assert_eq!(Some(engine.info().architecture.as_str()), model.split('-').next());
    }
}

#[test]
fn logits_are_those_of_llama_cpp() {
    let golden = golden();
    for (model, figures) in &golden.models {
        let mut engine = load(model, |_| {});
        for (&row, theirs) in golden.rows.iter().zip(&figures.logits) {
            let ours = logits(&mut engine, &golden.tokens[..=row]);
            let ours: Vec<f64> = ours.into_iter().map(f64::from).collect();
            check(model, &format!("after token {row}"), apart(&ours, theirs));
        }
    }
}

#[test]
fn every_token_is_as_likely_as_with_llama_cpp() {
    let golden = golden();
    for (model, figures) in &golden.models {
        let mut engine = load(model, |_| {});
        let (first, rest) = golden.tokens.split_at(1);
        let ours = score(&mut engine, SCOPE, first, rest).expect("fits");
        check(model, "log-likelihoods", apart(&ours, &figures.log_likelihood));
    }
}

#[test]
fn logits_do_not_depend_on_cache_batch_chunks_or_threads() {
    let golden = golden();
    let tokens = &golden.tokens;
    for model in golden.models.keys() {
        let mut engine = load(model, |_| {});
        let expected = bits(&mut engine, tokens);
        assert_eq!(bits(&mut engine, tokens), expected, "{model}: everything cached");
        for known in [16, 33, 255, 256] {
            engine.clear_cache();
            bits(&mut engine, &tokens[..known]);
            assert_eq!(bits(&mut engine, tokens), expected, "{model}: {known} tokens were cached");
        }
        engine.clear_cache();
        for start in 0..7 {
            engine.submit(answer(tokens[start * 9..start * 9 + 90].to_vec(), 40)).expect("fits");
        }
        (0..3).for_each(|_| drop(engine.step()));
        assert!(engine.observe().running >= 7);
        assert_eq!(bits(&mut engine, tokens), expected, "{model}: in a batch of 8");
        for chunk in [16, 48, 200] {
            let mut engine = load(model, |config| config.chunk_tokens = chunk);
            assert_eq!(bits(&mut engine, tokens), expected, "{model}: chunks of {chunk}");
        }
        let mut engine = load(model, |config| config.threads = 1);
        assert_eq!(bits(&mut engine, tokens), expected, "{model}: one thread");
    }
}

#[test]
fn logits_do_not_depend_on_the_instruction_set() {
    let golden = golden();
    for model in golden.models.keys() {
        let tokens = &golden.tokens[..120];
        let expected = bits(&mut load(model, |_| {}), tokens);
        for isa in kernels::Isa::available() {
            let mut engine = load(model, |config| config.isa = Some(isa.to_string()));
            assert_eq!(engine.info().isa, isa.to_string());
            assert_eq!(bits(&mut engine, tokens), expected, "{model}: {isa}");
        }
    }
}

/// Greedy tokens after the prompt, one at a time, are those of the whole context read at once.
#[test]
fn answers_are_what_the_prompt_would_have_given() {
    let golden = golden();
    for model in golden.models.keys() {
        let mut engine = load(model, |_| {});
        let prompt = golden.tokens[..50].to_vec();
        engine.submit(answer(prompt.clone(), 30)).expect("fits");
        let mut chain = prompt;
        while !engine.is_idle() {
            for event in engine.step() {
                if let worker_inference::Event::Finished { tokens, .. } = event {
                    chain.extend(tokens);
                }
            }
        }
        assert_eq!(chain.len(), 80);
        engine.clear_cache();
        for end in [50, 63, 79] {
            let logits = logits(&mut engine, &chain[..end]);
            let best = (0..logits.len())
                .fold(0, |best, index| if logits[index] > logits[best] { index } else { best });
            assert_eq!(best as u32, chain[end], "{model}: token {end}");
        }
    }
}

fn answer(tokens: Vec<u32>, max_new: usize) -> Request {
    Request {
        tokens,
        scope: SCOPE,
        max_new,
        min_new: 0,
        sampling: Sampling::default(),
        stop: Vec::new(),
        ignore_eos: true,
        class: 1,
        ..Request::default()
    }
}
