//! Parts that were read each by itself, put together in any order.

use super::*;
use worker_inference::{PartsRequest, SubmitError, score_parts};

/// Those without windows.
const WHOLE: [&str; 3] = ["llama-q8_0", "qwen2-f32", "qwen3-q8_0"];

/// Parts none of which ends where a block does, one of a single token and one of none.
fn parted(again: usize) -> PartsRequest {
    let lengths = [30, 18, 0, 35, 41, 1];
    PartsRequest {
        start: tokens(7, 900),
        parts: lengths.iter().zip(0..).map(|(&length, seed)| tokens(length, 40 * seed)).collect(),
        again,
        probe: tokens(9, 500),
        action: tokens(7, 700),
        ..PartsRequest::default()
    }
}

fn kept() -> Vec<Vec<usize>> {
    vec![vec![0, 1, 2, 3, 4, 5], vec![0, 1, 3, 4], vec![3], vec![4, 0], vec![], vec![2], vec![5, 1]]
}

fn text(call: &PartsRequest, kept: &[usize]) -> Vec<u32> {
    call.start
        .iter()
        .chain(kept.iter().flat_map(|part| &call.parts[*part]))
        .chain(&call.probe)
        .copied()
        .collect()
}

fn sum(likelihoods: &[f64]) -> f64 {
    likelihoods.iter().sum()
}

#[test]
fn parts_that_are_all_read_again_are_the_text_read_whole() {
    for model in WHOLE {
        let mut engine = load(random_model(model), |_| {});
        let found = score_parts(&mut engine, &parted(usize::MAX), &kept()).expect("fits").children;
        for (child, kept) in found.iter().zip(kept()) {
            let call = parted(usize::MAX);
            let whole = score(&mut engine, [1; 32], &text(&call, &kept), &call.action).expect("fits");
            // What was seen apart is joined, which rounds otherwise.
            let off = (sum(child) - sum(&whole)).abs();
            assert!(off < 0.01, "{model}, {kept:?}: {child:?}, {whole:?}");
        }
    }
}

#[test]
fn a_part_is_seen_from_its_place_and_has_seen_no_other() {
    for model in WHOLE {
        let call = parted(0);
        let mut engine = load(random_model(model), |_| {});
        let found = score_parts(&mut engine, &call, &kept()).expect("fits").children;
        // One alone stands where it was read.
        let alone = score(&mut engine, [1; 32], &text(&call, &[3]), &call.action).expect("fits");
        assert!((sum(&found[2]) - sum(&alone)).abs() < 0.01, "{model}: {:?}, {alone:?}", found[2]);
        assert_eq!(bits(&found[4]), bits(&found[5]), "{model}: what says nothing is nothing");
        // They have not seen each other in either order, so it matters by places alone.
        let turned = score_parts(&mut engine, &call, &[vec![0, 4]]).expect("fits").children;
        assert_ne!(bits(&turned[0]), bits(&found[3]), "{model}");
        let reread = score_parts(&mut engine, &parted(8), &kept()).expect("fits").children;
        assert_eq!(bits(&reread[2]), bits(&found[2]), "{model}: the first is not read again");
        assert_ne!(bits(&reread[0]), bits(&found[0]), "{model}");
    }
}

#[test]
fn bits_depend_on_what_is_kept_and_on_nothing_else() {
    for again in [0, 8] {
        let call = parted(again);
        let mut engine = load(random_model("llama-q8_0"), |_| {});
        let expected = score_parts(&mut engine, &call, &kept()).expect("fits");
        let read: usize = call.parts.iter().map(Vec::len).sum();
        assert!(expected.read >= read, "{} of {read} rows", expected.read);
        let warm = score_parts(&mut engine, &call, &kept()).expect("fits");
        assert_eq!((warm.children, warm.read), (expected.children.clone(), 0), "known by now");
        let other_order = [vec![5, 4, 3, 1, 0]];
        let moved = score_parts(&mut engine, &call, &other_order).expect("fits");
        assert_eq!(moved.read, 0, "a part is known wherever it stands");
        for (running, chunk, threads) in [(1, 16, 1), (4, 32, 2), (16, 512, 2)] {
            let mut other = load(random_model("llama-q8_0"), |config| {
                (config.running, config.step_tokens, config.chunk_tokens) =
                    (running, chunk + running.max(16), chunk);
                config.threads = threads;
            });
            let found = score_parts(&mut other, &call, &kept()).expect("fits");
            let same =
                found.children.iter().zip(&expected.children).all(|(one, other)| bits(one) == bits(other));
            assert!(same, "{running} at a time, chunks of {chunk}, {threads} threads, {again} again");
            let alone = score_parts(&mut other, &call, &other_order).expect("fits");
            assert_eq!(bits(&alone.children[0]), bits(&moved.children[0]));
            assert!(other.is_idle());
            assert_eq!(other.observe().blocks_used, 0, "nothing is held any more");
        }
    }
}

#[test]
fn what_cannot_be_put_together_is_refused_and_nothing_stays_held() {
    let mut windows = load(random_model("gemma3-q8_0"), |_| {});
    let refused = score_parts(&mut windows, &parted(0), &kept()).expect_err("its layers look only so far");
    assert!(refused.to_string().contains("layers that look only so far back"), "{refused}");

    let mut engine = load(random_model("llama-q8_0"), |config| config.window = Some(120));
    let refused = score_parts(&mut engine, &parted(0), &kept()).expect_err("too long");
    assert!(matches!(refused, ScoreError::Submit(SubmitError::Window { .. })), "{refused}");
    let empty = PartsRequest { probe: Vec::new(), ..parted(0) };
    assert!(score_parts(&mut engine, &empty, &kept()).is_err());
    assert!(engine.is_idle() && engine.observe().blocks_used == 0);

    let block_bytes = engine.observe().block_bytes;
    let mut small = load(random_model("llama-q8_0"), |config| config.kv_bytes = 12 * block_bytes);
    let refused = score_parts(&mut small, &parted(0), &kept()).expect_err("the parts are 13 blocks");
    assert!(refused.to_string().contains("engine.kv_bytes"), "{refused}");
    assert!(small.is_idle() && small.observe().blocks_used == 0);
    let some = score_parts(&mut small, &parted(0), &[vec![0], vec![3]]).expect("one after the other");
    assert_eq!(some.children.len(), 2);
}

/// What children that run were promised is not held by one that comes.
#[test]
fn children_of_a_crowded_pool_wait_for_one_another() {
    let kept: Vec<Vec<usize>> =
        (0..60).map(|n| if n % 9 < 8 { vec![n % 2] } else { vec![0, 1, 3, 4] }).collect();
    let mut roomy = load(random_model("llama-q8_0"), |_| {});
    let expected = score_parts(&mut roomy, &parted(40), &kept).expect("fits");
    let block_bytes = roomy.observe().block_bytes;
    for blocks in 18..40 {
        let mut crowded = load(random_model("llama-q8_0"), |config| {
            (config.kv_bytes, config.running) = (blocks * block_bytes, 16);
        });
        match score_parts(&mut crowded, &parted(40), &kept) {
            Ok(found) => assert_eq!(found.children, expected.children, "{blocks} blocks"),
            Err(refused) => {
                assert!(refused.to_string().contains("engine.kv_bytes"), "{blocks} blocks: {refused}")
            }
        }
        assert!(crowded.is_idle() && crowded.observe().blocks_used == 0, "{blocks} blocks");
    }
}

/// A fact that was read somewhere else is found from every place.
#[test]
fn a_planted_needle_is_found_wherever_its_part_stands() {
    let mut engine = load(real_model(), |config| config.kv_bytes = 64 << 20);
    let call = planted(&engine);
    let mut parts: Vec<Vec<u32>> =
        call.segments.iter().map(|segment| call.context[segment.clone()].to_vec()).collect();
    let (start, needle) = (parts.remove(0), 1);
    let others: Vec<usize> = (0..parts.len()).filter(|part| *part != needle).collect();
    let orders = [
        (0..parts.len()).collect(),
        [&[needle][..], &others].concat(),
        [&others[..], &[needle]].concat(),
        others.clone(),
    ];
    for again in [0, 16] {
        let (probe, action) = (call.probe.clone(), call.action.clone());
        let parted = PartsRequest {
            start: start.clone(),
            parts: parts.clone(),
            again,
            probe,
            action,
            ..PartsRequest::default()
        };
        let found = score_parts(&mut engine, &parted, &orders).expect("fits").children;
        let found: Vec<f64> = found.iter().map(|child| sum(child)).collect();
        println!("{again} again: {found:?}");
        let [placed @ .., without] = &found[..] else { unreachable!("four orders") };
        assert!(placed.iter().all(|with| with - without > 1.0), "{again} again: {found:?}");
    }
}
