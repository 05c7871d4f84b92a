//! Gemma 3 270M: what a model with sliding windows, norms everywhere and other formats must keep too.

use worker_inference::{Engine, EngineConfig};

use super::{TEXT, ask, encode, gemma_path, load_from, logits, request};

fn load(change: impl FnOnce(&mut EngineConfig)) -> Engine {
    load_from(gemma_path(), change)
}

/// A text behind BOS.
fn tokens_of(engine: &Engine, text: &str) -> Vec<u32> {
    let bos = engine.text().tokenizer.bos().expect("Gemma begins every text with BOS");
    [vec![bos], encode(engine, text)].concat()
}

#[test]
fn gemma_knows_the_capital_of_france() {
    let mut engine = load(|_| {});
    assert_eq!((engine.info().architecture.as_str(), engine.info().vocab), ("gemma3", 262_144));
    let tokens = tokens_of(&engine, "The capital of Italy is Rome. The capital of France is");
    let answer = ask(&mut engine, request(tokens, 4));
    assert!(answer.text.contains("Paris"), "{answer:?}");
}

#[test]
fn logits_of_gemma_do_not_depend_on_cache_chunks_or_threads() {
    let mut engine = load(|_| {});
    let tokens = tokens_of(&engine, TEXT);
    assert!(tokens.len() > 600, "{} are to leave the window of 512", tokens.len());
    let expected = logits(&mut engine, &tokens);
    assert_eq!(logits(&mut engine, &tokens), expected, "everything cached");
    engine.clear_cache();
    logits(&mut engine, &tokens[..530]);
    assert_eq!(logits(&mut engine, &tokens), expected, "530 tokens were cached");
    let mut other = load(|config| (config.threads, config.chunk_tokens) = (1, 48));
    assert_eq!(logits(&mut other, &tokens), expected, "chunks of 48 on one thread");
}
