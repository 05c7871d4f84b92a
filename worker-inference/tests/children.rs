//! Recorded calls scored with parts of their context left out: on a small model of random weights of every
//! architecture what must hold bit for bit, on a real one what must make sense.

// A list of one range is meant.
#![allow(clippy::single_range_in_vec_init)]

#[path = "children/parts.rs"]
mod parts;

use std::ops::Range;
use std::path::PathBuf;

use worker_inference::{
    Call, Children, Engine, EngineConfig, ScoreError, score, score_children, score_removed, score_without,
};

const ARCHITECTURES: [&str; 4] = ["gemma3-q8_0", "llama-q8_0", "qwen2-f32", "qwen3-q8_0"];

fn random_model(model: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/random-models");
    let path = PathBuf::from(folder).join(format!("{model}.gguf"));
    assert!(path.is_file(), "no model at {}; run `make random-models` first", path.display());
    path
}

fn real_model() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || {
        from("QUORATE_HOME")
            .or_else(|| from("XDG_DATA_HOME").map(|data| data.join("quorate")))
            .or_else(|| from("HOME").map(|home| home.join(".local/share/quorate")))
    };
    match from("QUORATE_MODEL").or_else(|| Some(home()?.join("models/smollm2.gguf"))) {
        Some(path) if path.is_file() => path,
        other => panic!("no model at {other:?}; run `make model` first, or set QUORATE_MODEL"),
    }
}

fn load(path: PathBuf, change: impl FnOnce(&mut EngineConfig)) -> Engine {
    let mut config =
        EngineConfig { threads: 2, kv_bytes: 32 << 20, low_priority: false, ..EngineConfig::default() };
    change(&mut config);
    Engine::load(path, config).unwrap_or_else(|error| panic!("{error}"))
}

fn tokens(count: usize, seed: u32) -> Vec<u32> {
    (0..count as u32).map(|index| 3 + (index + seed) * 31 % 200).collect()
}

/// Six segments, none of which ends where a block does; the last one ends with the context.
fn call() -> Call {
    let ends = [0, 7, 37, 55, 90, 131, 150];
    Call {
        context: tokens(150, 0),
        probe: tokens(9, 500),
        action: tokens(7, 700),
        segments: ends.windows(2).map(|ends| ends[0]..ends[1]).collect(),
        bits: true,
        ..Call::default()
    }
}

/// Each segment left out, each alone, two left out at once, and none of the context.
fn omits(call: &Call) -> Vec<Vec<Range<usize>>> {
    let all = call.context.len();
    let without = call.segments.iter().map(|segment| vec![segment.clone()]);
    let alone = call.segments.iter().map(|segment| vec![0..segment.start, segment.end..all]);
    let both = vec![call.segments[1].clone(), call.segments[3].clone()];
    without.chain(alone).chain([both, vec![0..all]]).collect()
}

fn children(engine: &mut Engine) -> Children {
    let call = call();
    let omits = omits(&call);
    score_children(engine, call, &omits).expect("the call fits")
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Everything but what it cost.
fn all_bits(children: &Children) -> Vec<Vec<u64>> {
    let rows = [&children.full, &children.attention, &children.bits];
    rows.into_iter().chain(&children.children).map(|row| bits(row)).collect()
}

#[test]
fn each_child_is_what_it_is_alone() {
    for model in ARCHITECTURES {
        let found = children(&mut load(random_model(model), |_| {}));
        let call = call();
        let mut engine = load(random_model(model), |_| {});
        let prefix = [&call.context[..], &call.probe[..1]].concat();
        let continuation = [&call.probe[1..], &call.action[..]].concat();
        for (child, omit) in found.children.iter().zip(omits(&call)) {
            // What ends the context is cut off.
            let (inside, end) = match omit.split_last() {
                Some((last, inside)) if last.end == call.context.len() => (inside, last.start),
                _ => (&omit[..], call.context.len()),
            };
            let prefix = [&call.context[..end], &call.probe[..1]].concat();
            let alone = score_without(&mut engine, [0; 32], &prefix, &continuation, inside).expect("fits");
            assert_eq!(bits(child), bits(&alone[call.probe.len() - 1..]), "{model}: without {omit:?}");
            assert_ne!(bits(child), bits(&found.full), "{model}: {omit:?} left out changes something");
        }
        let alone = score(&mut engine, [0; 32], &prefix, &continuation).expect("fits");
        assert_eq!(bits(&found.full), bits(&alone[call.probe.len() - 1..]), "{model}");
    }
}

#[test]
fn neither_company_threads_chunks_nor_cache_change_a_bit() {
    for model in ARCHITECTURES {
        let mut first = load(random_model(model), |_| {});
        let expected = all_bits(&children(&mut first));
        assert_eq!(all_bits(&children(&mut first)), expected, "{model}: warm");
        for running in [1, 4, 16] {
            for threads in [1, 2] {
                let mut engine = load(random_model(model), |config| {
                    (config.running, config.threads) = (running, threads);
                    (config.step_tokens, config.chunk_tokens) = (running + 32 * threads, 32);
                });
                let what = format!("{model}: {running} together, {threads} threads");
                assert_eq!(all_bits(&children(&mut engine)), expected, "{what}, cold");
                assert_eq!(all_bits(&children(&mut engine)), expected, "{what}, warm");
            }
        }
    }
}

#[test]
fn a_child_costs_what_is_read_after_the_context() {
    let (call, count) = (call(), omits(&call()).len());
    let mut engine = load(random_model("llama-q8_0"), |_| {});
    let cold = children(&mut engine).spent;
    let each = call.probe.len() + call.action.len() - 1;
    assert_eq!(cold.bits, call.context.len() - 1);
    // The context's last token had no row yet.
    assert_eq!(cold.full, 1 + each);
    assert!((count * each..=count * (each + 3)).contains(&cold.children), "{} for {count}", cold.children);
    let before = engine.observe().tokens_computed as usize;
    let warm =
        score_children(&mut engine, Call { bits: false, ..call.clone() }, &omits(&call)).expect("fits");
    assert_eq!((warm.spent.bits, warm.spent.full), (0, call.action.len()));
    // Those that see a beginning and nothing else were found.
    assert!((count - 3) * each < warm.spent.children && warm.spent.children <= cold.children);
    assert_eq!(engine.observe().tokens_computed as usize - before, warm.spent.all());
    assert_eq!(warm.bits, Vec::<f64>::new());
}

#[test]
fn leaving_out_the_end_is_removing_it() {
    for model in ARCHITECTURES {
        let call = call();
        let mut engine = load(random_model(model), |_| {});
        let omits = [vec![131..150], vec![7..150], vec![90..131, 131..131, 131..150]];
        let found = score_children(&mut engine, call.clone(), &omits).expect("fits");
        for (child, omit) in found.children.iter().zip([131..150, 7..150, 90..150]) {
            let mut other = load(random_model(model), |_| {});
            let removed = score_removed(&mut other, &call, std::slice::from_ref(&omit)).expect("fits");
            assert_eq!(bits(child), bits(&removed.log_likelihood), "{model}: without {omit:?}");
        }
    }
}

#[test]
fn bits_are_those_of_the_tokens_and_shares_those_of_the_context() {
    let call = call();
    let mut engine = load(random_model("llama-q8_0"), |_| {});
    let found = children(&mut engine);
    let each = score(&mut engine, [1; 32], &call.context[..1], &call.context[1..]).expect("fits");
    for (segment, found) in call.segments.iter().zip(&found.bits) {
        let expected: f64 =
            segment.clone().filter(|&token| token > 0).map(|token| -each[token - 1].log2_of_e()).sum();
        assert!((found - expected).abs() < 1e-9, "{segment:?}: {found}, {expected}");
    }
    let shares: f64 = found.attention.iter().sum();
    assert!(found.attention.iter().all(|share| *share > 0.0), "{:?}", found.attention);
    assert!(shares > 0.3 && shares < 1.0, "probe and action have a share too: {shares}");
}

trait Log2 {
    fn log2_of_e(self) -> f64;
}

impl Log2 for f64 {
    /// A natural logarithm as one of base 2.
    fn log2_of_e(self) -> f64 {
        self * std::f64::consts::LOG2_E
    }
}

#[test]
fn removing_is_asking_without() {
    let call = call();
    let mut engine = load(random_model("qwen3-q8_0"), |_| {});
    children(&mut engine);
    let removed = score_removed(&mut engine, &call, &[37..55]).expect("fits");
    let kept = [&call.context[..37], &call.context[55..]].concat();
    let prefix = [&kept[..], &call.probe].concat();
    let mut other = load(random_model("qwen3-q8_0"), |_| {});
    let expected = score(&mut other, [0; 32], &prefix, &call.action).expect("fits");
    assert_eq!(bits(&removed.log_likelihood), bits(&expected));
    let behind = 150 - 55 + call.probe.len() + call.action.len() - 1;
    assert!((behind..behind + 16).contains(&removed.computed), "{} for {behind}", removed.computed);
    let everything = score_removed(&mut engine, &call, &[0..150]).expect("fits");
    let alone = score(&mut other, [0; 32], &call.probe, &call.action).expect("fits");
    assert_eq!(bits(&everything.log_likelihood), bits(&alone));
}

#[test]
fn what_cannot_be_scored_is_refused_with_a_next_step() {
    let mut engine = load(random_model("llama-q8_0"), |config| config.window = Some(165));
    assert!(score_children(&mut engine, call(), &[]).is_ok(), "the last token is not read");
    let mut refused = |change: &dyn Fn(&mut Call), omits: &[Vec<Range<usize>>]| {
        let mut call = call();
        change(&mut call);
        let error = score_children(&mut engine, call, omits).expect_err("refused");
        assert!(engine.is_idle(), "nothing of it is left");
        error
    };
    let long = refused(&|call| call.action.push(5), &[]);
    assert!(matches!(long, ScoreError::TooLong { tokens: 167, window: 165 }), "{long}");
    assert!(long.to_string().contains("skip"), "{long}");
    for (part, change) in [
        ("context", (|call: &mut Call| call.context.clear()) as fn(&mut Call)),
        ("probe", |call| call.probe.clear()),
        ("action", |call| call.action.clear()),
    ] {
        let error = refused(&change, &[]).to_string();
        assert!(error.contains(part) && error.contains("at least one"), "{error}");
    }
    #[expect(clippy::reversed_empty_ranges, reason = "a caller may send one")]
    for omit in [0..151, 9..4, 3..usize::MAX] {
        let error = refused(&|_| {}, &[vec![omit]]);
        assert!(matches!(error, ScoreError::Outside { context: 150, .. }), "{error}");
    }
    let error = refused(&|_| {}, &[vec![], vec![9..20, 19..30]]);
    assert!(matches!(error, ScoreError::Order { start: 19, before: 20, .. }), "{error}");
    let error = refused(&|call| call.segments.swap(1, 2), &[]);
    assert!(matches!(error, ScoreError::Order { .. }), "{error}");
    assert!(refused(&|call| call.probe[3] = 1 << 30, &[]).to_string().contains("vocabulary"));
    // Segments without tokens are no error.
    let mut empty = call();
    empty.segments = vec![0..0, 20..20, 20..40, 150..150];
    let found = score_children(&mut engine, empty, &[vec![20..20]]).expect("fits");
    assert_eq!(bits(&found.children[0]), bits(&found.full));
    assert_eq!((found.attention[1], found.bits[1], found.bits[3]), (0.0, 0.0, 0.0));
}

#[test]
fn more_children_than_the_engine_may_hold_come_one_after_another() {
    let mut engine = load(random_model("llama-q8_0"), |config| {
        (config.running, config.waiting, config.kv_bytes) = (3, 5, 1 << 20);
    });
    let call = Call { bits: false, segments: Vec::new(), ..call() };
    let omits: Vec<Vec<Range<usize>>> = (0..149).map(|token| vec![token..token + 1]).collect();
    let found = score_children(&mut engine, call, &omits).expect("fits");
    assert!(found.children.iter().all(|child| child.len() == 7 && *child != found.full));
    assert!(found.attention.is_empty());
}

/// A fact among others, and what an agent did with it.
fn planted(engine: &Engine) -> Call {
    let text = engine.text();
    let facts = [
        "The meeting room on the second floor was painted green last week.",
        "Anna prefers tea in the morning and walks to the office.",
        "The password of the archive server is \"maple-4417-otter\".",
        "The printer near the stairs is out of paper again.",
        "Trains to the coast leave every hour from platform nine.",
        "The cafeteria serves soup on Mondays and fish on Fridays.",
        "Boris has moved the bicycles to the shed behind the house.",
        "The new chairs will be delivered at the end of the month.",
    ];
    let encode = |text_of: &str| text.tokenizer.encode(text_of, false).expect("plain text encodes");
    let (mut context, mut segments) = (Vec::new(), Vec::new());
    for fact in facts {
        let from = context.len();
        context.extend(encode(&format!("{fact}\n")));
        segments.push(from..context.len());
    }
    Call {
        context,
        segments,
        probe: encode("Question: What is the password of the archive server?\nAnswer: The password is"),
        action: encode(" \"maple-4417-otter\"."),
        bits: true,
        ..Call::default()
    }
}

#[test]
fn a_planted_needle_is_worth_more_than_a_nat_and_masking_agrees_with_removing() {
    let mut engine = load(real_model(), |config| config.kv_bytes = 64 << 20);
    let call = planted(&engine);
    let omits: Vec<Vec<Range<usize>>> = call.segments.iter().map(|segment| vec![segment.clone()]).collect();
    let found = score_children(&mut engine, call.clone(), &omits).expect("fits");
    let total = |values: &[f64]| values.iter().sum::<f64>();
    let mut worth = Vec::new();
    for (child, omit) in found.children.iter().zip(&omits) {
        let removed = score_removed(&mut engine, &call, omit).expect("fits");
        let (masked, exact) =
            (total(&found.full) - total(child), total(&found.full) - total(&removed.log_likelihood));
        println!("without {omit:?}: {masked:.3} nats masked, {exact:.3} removed");
        worth.push((masked, exact));
    }
    let needle = 2;
    assert!(worth[needle].0 > 1.0, "{worth:?}");
    for (segment, (masked, exact)) in worth.iter().enumerate() {
        assert!(segment == needle || *masked < worth[needle].0 / 2.0, "{worth:?}");
        assert!((masked - exact).abs() <= 2.0, "{worth:?}");
    }
    assert!(found.bits.iter().zip(&call.segments).all(|(bits, segment)| *bits > segment.len() as f64));
}
