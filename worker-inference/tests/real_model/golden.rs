//! Our figures against llama.cpp's on the same file, text and prompts, as `golden/llama.json` records them
//! beside the commands, the version and the date that made them. `bench/engine-vs-llama.sh --golden` makes it.

use serde::Deserialize;
use sha2::{Digest, Sha256};
use worker_inference::{Engine, last_logits, perplexity};

use super::{SCOPE, encode, load, model_path};

const TEXT: &str = include_str!("../data/harbour.txt");
const PROMPTS: &str = include_str!("../data/prompts.txt");

/// Nats that the mean log-likelihood may be away from llama.cpp's. Quantised activations move ours by 0.004 from
/// that of 32-bit floats.
const NATS_APART: f64 = 0.005;
/// Of 100 prompts; where two tokens are nearly as likely, rounding decides.
const FIRST_TOKENS_SAME: usize = 95;

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
fn golden() -> Golden {
    let golden: Golden =
        serde_json::from_str(include_str!("../golden/llama.json")).expect("the golden file is JSON");
    let remake = "make the golden figures anew with `bench/engine-vs-llama.sh --golden`";
    assert_eq!(sha256(TEXT.as_bytes()), golden.text_sha256, "harbour.txt has changed; {remake}");
    assert_eq!(sha256(PROMPTS.as_bytes()), golden.prompts_sha256, "prompts.txt has changed; {remake}");
    let model = std::fs::read(model_path()).expect("readable");
    assert_eq!(
        sha256(&model),
        golden.model_sha256,
        "another model file than the golden one; unset QUORATE_MODEL"
    );
    golden
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_text_is_as_likely_as_llama_cpp_finds_it() {
    let golden = golden();
    let mut engine = load(|_| {});
    let tokens = encode(&engine, TEXT.trim_end_matches('\n'));
    let checksum: u64 = tokens.iter().zip(1..).map(|(&token, place)| place * u64::from(token)).sum();
    assert_eq!((tokens.len(), checksum), (golden.text_tokens, golden.tokens_checksum));
    let figures = perplexity(&mut engine, TEXT, golden.window, golden.skip).expect("long enough");
    assert_eq!(figures.tokens, tokens.len() / golden.window * (golden.window - golden.skip - 1));
    let apart = figures.mean_log_likelihood - golden.mean_log_likelihood;
    assert!(apart.abs() <= NATS_APART, "{apart} nats apart: {figures:?}, {}", golden.mean_log_likelihood);
}

#[test]
fn greedy_answers_begin_as_with_llama_cpp() {
    let golden = golden();
    let mut engine = load(|_| {});
    let ours: Vec<u32> = PROMPTS.lines().map(|prompt| first_token(&mut engine, prompt)).collect();
    assert_eq!((ours.len(), golden.first_tokens.len()), (100, 100));
    let differ: Vec<(&str, u32, u32)> = PROMPTS
        .lines()
        .zip(ours.iter().zip(&golden.first_tokens))
        .filter(|(_, (ours, theirs))| ours != theirs)
        .map(|(prompt, (&ours, &theirs))| (prompt, ours, theirs))
        .collect();
    assert!(differ.len() <= 100 - FIRST_TOKENS_SAME, "(prompt, ours, llama.cpp's): {differ:?}");
}

fn first_token(engine: &mut Engine, prompt: &str) -> u32 {
    let tokens = encode(engine, prompt);
    let logits = last_logits(engine, SCOPE, &tokens).expect("the prompt fits");
    let best = |best: usize, index: usize| if logits[index] > logits[best] { index } else { best };
    (0..logits.len()).fold(0, best) as u32
}
