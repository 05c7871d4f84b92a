//! Scoring with parts of the prefix left out, on a tiny random model.

// A list of one range is meant.
#![allow(clippy::single_range_in_vec_init)]

use super::engine_test::{load, tiny_model};
use super::*;
use crate::blocks::BLOCK_TOKENS;
use crate::score::{score, score_without};
use std::ops::Range;

fn engine(change: impl FnOnce(&mut EngineConfig)) -> Engine {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("model");
    std::fs::write(&path, tiny_model(0).0).expect("writable");
    load(&path, change)
}

fn tokens(count: usize) -> Vec<u32> {
    (0..count as u32).map(|index| 3 + index * 31 % 200).collect()
}

fn bits(found: &[f64]) -> Vec<u64> {
    found.iter().map(|value| value.to_bits()).collect()
}

/// What a scoring costs: the likelihoods and the rows.
fn costs(
    engine: &mut Engine,
    prefix: &[u32],
    continuation: &[u32],
    omit: &[Range<usize>],
) -> (Vec<u64>, Usage) {
    engine.submit_score_without([0; 32], prefix, continuation, omit, 0).expect("fits");
    loop {
        for event in engine.step() {
            if let Event::Scored { log_likelihood, usage, .. } = event {
                return (bits(&log_likelihood), usage);
            }
        }
    }
}

#[test]
fn leaving_nothing_out_is_plain_scoring() {
    let mut engine = engine(|_| {});
    let (prefix, continuation) = (tokens(70), tokens(9));
    let plain = bits(&score(&mut engine, [0; 32], &prefix, &continuation).expect("fits"));
    for omit in [&[][..], std::slice::from_ref(&(5..5))] {
        let same = score_without(&mut engine, [0; 32], &prefix, &continuation, omit).expect("fits");
        assert_eq!(bits(&same), plain);
    }
    let less = score_without(&mut engine, [0; 32], &prefix, &continuation, &[20..40]).expect("fits");
    assert_ne!(bits(&less), plain);
}

#[test]
fn it_costs_the_continuation_and_gives_the_same_bits_cold_warm_and_in_chunks() {
    let (prefix, continuation, omit) = (tokens(65), tokens(20), [10..27, 40..41]);
    let mut warm = engine(|_| {});
    let plain = costs(&mut warm, &prefix, &continuation, &[]).0;
    let (expected, usage) = costs(&mut warm, &prefix, &continuation, &omit);
    assert_ne!(expected, plain);
    assert_eq!((usage.computed, usage.cached), (continuation.len(), 64));
    // What was computed without them is nobody else's.
    assert_eq!(costs(&mut warm, &prefix, &continuation, &[]).0, plain);
    for chunk in [16, 32, 48] {
        let mut cold = engine(|config| config.chunk_tokens = chunk);
        let (found, usage) = costs(&mut cold, &prefix, &continuation, &omit);
        assert_eq!(found, expected, "chunks of {chunk}");
        assert_eq!(usage.computed, prefix.len() + continuation.len() - 1);
        assert_eq!(costs(&mut cold, &prefix, &continuation, &[]).0, plain, "chunks of {chunk}");
    }
}

#[test]
fn what_is_left_out_is_never_read() {
    let mut engine = engine(|_| {});
    let (prefix, continuation, omit) = (tokens(81), tokens(10), [5..37, 50..53]);
    let expected = costs(&mut engine, &prefix, &continuation, &omit).0;
    // Somebody holds the prefix, so that its blocks are known and stay.
    let holder = Request { tokens: prefix.clone(), max_new: 200, ignore_eos: true, ..Request::default() };
    let holder = engine.submit(holder).expect("fits");
    while engine.scheduler.sequence(holder).is_some_and(|sequence| sequence.stored() < 80) {
        engine.step();
    }
    let table: Vec<u32> =
        engine.scheduler.sequence(holder).expect("it runs").table().iter().map(|block| block.0).collect();
    poison(&mut engine, table[0], 5..16);
    poison(&mut engine, table[1], 0..16);
    poison(&mut engine, table[2], 0..5);
    poison(&mut engine, table[3], 2..5);
    assert_eq!(costs(&mut engine, &prefix, &continuation, &omit).0, expected);
    let read = costs(&mut engine, &prefix, &continuation, &[6..37, 50..53]).0;
    assert!(read.iter().any(|&bits| f64::from_bits(bits).is_nan()), "the poison works");
}

/// Makes the keys and values of some tokens of a block no numbers.
fn poison(engine: &mut Engine, block: u32, tokens: Range<usize>) {
    let spare = engine.info.kv_blocks as u32;
    let whole = engine.kv.block(block).to_vec();
    // From the front: those before as they were, then poison up to the end, then those behind as they were.
    engine.kv.block_mut(block).fill(0xff);
    let mut poisoned = engine.kv.block(block).to_vec();
    if tokens.end < BLOCK_TOKENS {
        engine.kv.block_mut(spare).copy_from_slice(&poisoned);
        engine.kv.block_mut(block).copy_from_slice(&whole);
        engine.kv.copy_tokens(spare, block, tokens.end);
        poisoned = engine.kv.block(block).to_vec();
    }
    engine.kv.block_mut(block).copy_from_slice(&poisoned);
    if tokens.start > 0 {
        engine.kv.block_mut(spare).copy_from_slice(&whole);
        engine.kv.copy_tokens(spare, block, tokens.start);
    }
}

#[test]
fn impossible_ranges_are_refused() {
    let mut engine = engine(|_| {});
    #[expect(clippy::reversed_empty_ranges, reason = "a caller may send one")]
    for omit in [0..10, 12..9, 3..usize::MAX] {
        let refused = engine.submit_score_without([0; 32], &tokens(10), &tokens(2), &[omit], 0);
        assert!(refused.expect_err("refused").to_string().contains("last token"));
    }
    assert!(engine.submit_score_without([0; 32], &tokens(10), &tokens(2), &[0..9], 0).is_ok());
}
