//! Guesses on a tiny random model: whatever is guessed, answers keep their bits and blocks come back.

use std::collections::BTreeMap;

use super::engine_test::{load, tiny_model};
use super::*;
use crate::model::gguf::gguf_test::random;
use crate::score::last_logits;

fn engine(change: impl FnOnce(&mut EngineConfig)) -> Engine {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("model");
    std::fs::write(&path, tiny_model(8).0).expect("writable");
    load(&path, change)
}

/// What a caller hears: tokens with their probabilities, and how it ended.
type Heard = (Vec<(u32, Option<Box<TokenLogprobs>>)>, Option<(FinishReason, Vec<u32>)>);

fn hear(heard: &mut BTreeMap<SequenceId, Heard>, events: Vec<Event>) {
    for event in events {
        let one = heard.entry(event.id()).or_default();
        match event {
            Event::Token { token, logprobs, .. } => one.0.push((token, logprobs)),
            Event::Finished { reason, tokens, .. } => one.1 = Some((reason, tokens)),
            other => panic!("nobody asked for {other:?}"),
        }
    }
}

fn some_request(seed: &mut u64) -> Request {
    let mut number = |below: u64| random(seed) % below;
    let sampling = Sampling {
        temperature: [0.0, 0.0, 0.4, 1.5][number(4) as usize],
        frequency_penalty: [0.0, 0.0, 0.3][number(3) as usize],
        seed: number(1000),
        ..Sampling::default()
    };
    let period = 2 + number(6) as usize;
    let tokens: Vec<u32> = (0..3 + number(50) as usize).map(|at| 5 + (at % period) as u32).collect();
    Request {
        tokens,
        scope: [number(2) as u8; 32],
        max_new: 1 + number(40) as usize,
        min_new: number(4) as usize,
        sampling,
        stop: if number(3) == 0 { vec!["e".into(), "12".into()] } else { Vec::new() },
        ignore_eos: number(2) == 0,
        logprobs: [None, Some(0), Some(2)][number(3) as usize],
        class: number(3) as u8,
        ..Request::default()
    }
}

/// The same requests, pauses and forks, however many tokens a step brings: what became of each, by its name.
fn story(engine: &mut Engine, story: u64) -> BTreeMap<u64, Heard> {
    let (mut seed, mut heard, mut names) = (story + 1, BTreeMap::new(), BTreeMap::new());
    for round in 0..6 {
        let (asked, beside) = (some_request(&mut seed), some_request(&mut seed));
        let fork = ForkRequest {
            keep: Some(asked.tokens.len()),
            append: vec![9, 10],
            max_new: 12,
            sampling: asked.sampling.clone(),
            stop: Vec::new(),
            ignore_eos: true,
            class: asked.class,
        };
        let id = engine.submit(asked).expect("fits");
        let other = engine.submit(beside).expect("fits");
        names.extend([(id, round * 3), (other, round * 3 + 1)]);
        (0..1 + random(&mut seed) % 3).for_each(|_| hear(&mut heard, engine.step()));
        // Refused when it has ended already, or finds no room.
        names.extend(engine.fork(id, fork).ok().map(|forked| (forked, round * 3 + 2)));
        engine.pause(other);
        hear(&mut heard, engine.step());
        engine.resume(other);
    }
    while !engine.is_idle() {
        hear(&mut heard, engine.step());
    }
    heard.into_iter().map(|(id, heard)| (names[&id], heard)).collect()
}

#[test]
fn nonsense_changes_no_answer_whatever_else_happens() {
    // Room for two or three sequences: they push each other's blocks out and are put aside.
    let small = |config: &mut EngineConfig| (config.kv_bytes, config.running) = (40_000, 4);
    let mut without = engine(|config| {
        small(config);
        config.speculation = Speculation::Off;
    });
    let mut with = engine(small);
    let mut calls = 5;
    with.guess_by(Box::new(move |tokens| {
        // Small models go round in circles: what came before is often right.
        let number = random(&mut calls);
        let period = 1 + number as usize % 6;
        let circle = tokens.iter().rev().take(period).rev().cycle();
        circle
            .take(number as usize / 8 % 9)
            .map(|&token| (token + u32::from(number.is_multiple_of(7))) % 260)
            .collect()
    }));
    let mut forks = 0;
    for number in 0..40 {
        let (expected, heard) = (story(&mut without, number), story(&mut with, number));
        let mut both = 0;
        for (name, heard) in &heard {
            let Some(expected) = expected.get(name) else { continue };
            assert_eq!(heard, expected, "story {number}, {name}");
            both += 1;
            forks += usize::from(name % 3 == 2);
        }
        assert!(both >= 12, "every request was answered by both");
        let observed = with.observe();
        assert_eq!((observed.blocks_used, observed.running, observed.waiting), (0, 0, 0), "story {number}");
    }
    let observed = with.observe();
    let (drafted, accepted) = (observed.tokens_drafted, observed.tokens_accepted);
    assert!(accepted > 200 && drafted > accepted + 200, "{accepted} of {drafted}");
    assert!(forks > 20, "{forks} forks");
    let (asides, evicted) = (observed.asides, observed.evictions.values().sum::<u64>());
    assert!(asides.paused > 50 && asides.preempted > 5 && evicted > 50, "{asides:?}, {evicted} evicted");
}

#[test]
fn a_step_brings_all_that_came_true_and_the_token_after_it() {
    let mut engine = engine(|_| {});
    let prompt = vec![20, 21, 22, 23, 24];
    let asked = || Request {
        max_new: 40,
        ignore_eos: true,
        ..Request { tokens: prompt.clone(), ..Request::default() }
    };
    let id = engine.submit(asked()).expect("fits");
    let mut heard = BTreeMap::new();
    while !engine.is_idle() {
        hear(&mut heard, engine.step());
    }
    let answer: Vec<u32> = heard[&id].0.iter().map(|(token, _)| *token).collect();
    let chain = [prompt.clone(), answer.clone()].concat();
    engine.clear_cache();

    let known = chain.clone();
    engine.guess_by(Box::new(move |tokens| {
        let mut guess = known[tokens.len()..].to_vec();
        guess.truncate(6);
        guess.get_mut(4).into_iter().for_each(|token| *token = (*token + 1) % 260);
        guess
    }));
    let before = engine.observe();
    let id = engine.submit(asked()).expect("fits");
    // The first step runs the prompt and four guesses that come true.
    let first = engine.step();
    assert_eq!(first.len(), 5, "{first:?}");
    let sequence = engine.scheduler.sequence(id).expect("it goes on");
    assert_eq!((sequence.tokens().len(), sequence.stored()), (10, 9));
    assert_eq!(sequence.table().len(), 1, "a block for guesses alone is given back");
    let mut heard = BTreeMap::new();
    hear(&mut heard, first);
    while !engine.is_idle() {
        hear(&mut heard, engine.step());
    }
    assert_eq!(heard[&id].1, Some((FinishReason::Length, answer)));
    let observed = engine.observe();
    assert_eq!(observed.steps - before.steps, 8, "five tokens a step");
    assert_eq!(observed.tokens_accepted - before.tokens_accepted, 32);
    assert_eq!(observed.tokens_computed - before.tokens_computed, 44, "as many rows as without guesses");
    // What is found in the cache afterwards is what the answer was made of.
    let cached = last_logits(&mut engine, [0; 32], &chain).expect("fits");
    engine.clear_cache();
    let anew = last_logits(&mut engine, [0; 32], &chain).expect("fits");
    assert!(cached.iter().zip(&anew).all(|(one, other)| one.to_bits() == other.to_bits()));
}

#[test]
fn nothing_is_guessed_beside_much_work_or_when_it_is_off() {
    let loops = |engine: &mut Engine, together: usize| {
        let tokens: Vec<u32> = (0..24).map(|at| 30 + at % 3).collect();
        for _ in 0..together {
            let request =
                Request { tokens: tokens.clone(), max_new: 60, ignore_eos: true, ..Request::default() };
            engine.submit(request).expect("fits");
        }
        while !engine.is_idle() {
            engine.step();
        }
        engine.observe().tokens_drafted
    };
    assert_eq!(loops(&mut engine(|config| config.speculation = Speculation::Off), 1), 0);
    assert_eq!(loops(&mut engine(|_| {}), 5), 0);
}
