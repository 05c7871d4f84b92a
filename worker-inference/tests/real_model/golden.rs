//! Our figures against llama.cpp's on the same file, text and prompts, as `golden/*.json` record them beside the
//! commands, the version and the date that made them. `bench/engine-vs-llama.sh --golden` makes SmolLM2's,
//! `bench/quality.py --golden` Gemma's.

use std::path::PathBuf;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use worker_inference::{Engine, last_logits, perplexity};

use super::{SCOPE, encode, gemma_path, load, load_from, model_path};

const SMOLLM2: &str = include_str!("../golden/llama.json");
const GEMMA: &str = include_str!("../golden/gemma3-270m.json");
const TEXT: &str = include_str!("../data/harbour.txt");
const PROMPTS: &str = include_str!("../data/prompts.txt");

/// Nats that the mean log-likelihood may be away from llama.cpp's. Quantised activations move ours by 0.004 from
/// that of 32-bit floats.
const NATS_APART: f64 = 0.005;
/// Of 100 prompts; where two tokens are nearly as likely, rounding decides.
const FIRST_TOKENS_SAME: usize = 95;
/// Gemma is a base model in 4 bits: more of its first tokens are ties, and llama.cpp rounds the input of its K
/// formats in blocks of 256 where we round in blocks of 32. Its gate is the likelihood above.
const FIRST_TOKENS_SAME_GEMMA: usize = 90;

#[derive(Deserialize)]
struct Golden {
    model_sha256: String,
    text_sha256: String,
    prompts_sha256: String,
    window: usize,
    skip: usize,
    mean_log_likelihood: f64,
    text_tokens: usize,
    tokens_checksum: u64,
    first_tokens: Vec<u32>,
}

/// The figures, after a look at whether they are about these files.
fn golden(text: &str, model: PathBuf) -> Golden {
    let golden: Golden = serde_json::from_str(text).expect("the golden file is JSON");
    let remake = "make the golden figures anew, as the golden file's `made` says";
    assert_eq!(sha256(TEXT.as_bytes()), golden.text_sha256, "harbour.txt has changed; {remake}");
    assert_eq!(sha256(PROMPTS.as_bytes()), golden.prompts_sha256, "prompts.txt has changed; {remake}");
    let model = std::fs::read(model).expect("readable");
    assert_eq!(
        sha256(&model),
        golden.model_sha256,
        "another model file than the golden one; unset QUORATE_MODEL and QUORATE_GEMMA"
    );
    golden
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_text_is_as_likely_as_llama_cpp_finds_it() {
    compare_likelihood(load(|_| {}), &golden(SMOLLM2, model_path()));
}

#[test]
fn a_text_is_as_likely_to_gemma_as_llama_cpp_finds_it() {
    compare_likelihood(load_from(gemma_path(), |_| {}), &golden(GEMMA, gemma_path()));
}

#[test]
fn greedy_answers_begin_as_with_llama_cpp() {
    compare_first_tokens(load(|_| {}), &golden(SMOLLM2, model_path()), FIRST_TOKENS_SAME);
}

#[test]
fn greedy_answers_of_gemma_begin_as_with_llama_cpp() {
    let engine = load_from(gemma_path(), |_| {});
    compare_first_tokens(engine, &golden(GEMMA, gemma_path()), FIRST_TOKENS_SAME_GEMMA);
}

fn compare_likelihood(mut engine: Engine, golden: &Golden) {
    let tokens = encode(&engine, TEXT.trim_end_matches('\n'));
    let checksum: u64 = tokens.iter().zip(1..).map(|(&token, place)| place * u64::from(token)).sum();
    assert_eq!((tokens.len(), checksum), (golden.text_tokens, golden.tokens_checksum));
    let figures = perplexity(&mut engine, TEXT, golden.window, golden.skip).expect("long enough");
    let windows = (tokens.len() + usize::from(engine.text().tokenizer.adds_bos())) / golden.window;
    assert_eq!(figures.tokens, windows * (golden.window - golden.skip - 1));
    let apart = figures.mean_log_likelihood - golden.mean_log_likelihood;
    println!("{apart} nats apart: {figures:?}");
    assert!(apart.abs() <= NATS_APART, "{apart} nats apart: {figures:?}, {}", golden.mean_log_likelihood);
}

fn compare_first_tokens(mut engine: Engine, golden: &Golden, same: usize) {
    let ours: Vec<u32> = PROMPTS.lines().map(|prompt| first_token(&mut engine, prompt)).collect();
    assert_eq!((ours.len(), golden.first_tokens.len()), (100, 100));
    let differ: Vec<(&str, u32, u32)> = PROMPTS
        .lines()
        .zip(ours.iter().zip(&golden.first_tokens))
        .filter(|(_, (ours, theirs))| ours != theirs)
        .map(|(prompt, (&ours, &theirs))| (prompt, ours, theirs))
        .collect();
    println!("{} of 100 first tokens differ: {differ:?}", differ.len());
    assert!(differ.len() <= 100 - same, "(prompt, ours, llama.cpp's): {differ:?}");
}

fn first_token(engine: &mut Engine, prompt: &str) -> u32 {
    let model = engine.text();
    let bos = model.tokenizer.bos().filter(|_| model.tokenizer.adds_bos());
    let tokens: Vec<u32> = bos.into_iter().chain(encode(engine, prompt)).collect();
    let logits = last_logits(engine, SCOPE, &tokens).expect("the prompt fits");
    let best = |best: usize, index: usize| if logits[index] > logits[best] { index } else { best };
    (0..logits.len()).fold(0, best) as u32
}
