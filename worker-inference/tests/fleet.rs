//! What fleets of agents ask of an engine, on a tiny model and by counts, so that it holds on every machine. The
//! same loads on a real model, with times: `cargo run --release -p worker-inference --example fleet`.

// Each test binary uses a part of what is shared.
#![allow(dead_code)]

#[path = "../examples/fleet/common.rs"]
mod common;
#[path = "../examples/fleet/forks.rs"]
mod forks;
#[path = "../examples/fleet/one_more.rs"]
mod one_more;
#[path = "../examples/fleet/overload.rs"]
mod overload;
#[path = "../examples/fleet/projects.rs"]
mod projects;
#[path = "support/tiny.rs"]
mod tiny;

use worker_inference::{Engine, EngineConfig};

/// A tiny model in a pool of so many blocks.
fn engine(blocks: usize, change: impl FnOnce(&mut EngineConfig)) -> Engine {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, tiny::File::tiny().build()).expect("writable");
    let mut config = EngineConfig { threads: 1, low_priority: false, ..EngineConfig::default() };
    change(&mut config);
    let load = |config| Engine::load(&path, config).unwrap_or_else(|error| panic!("{error}"));
    config.kv_bytes = blocks * load(config.clone()).observe().block_bytes;
    load(config)
}

#[test]
fn agents_that_fit_compute_only_what_is_new() {
    let shape = one_more::Shape { agents: 4, begin: 400, added: 40, answer: 8, rounds: 5 };
    let of_one = shape.longest().div_ceil(16);
    let (mut tight, mut roomy) = (engine(4 * of_one, |_| {}), engine(5 * of_one, |_| {}));
    let turns = one_more::medians(&mut tight, &mut roomy, shape, 1).expect("all fit");
    assert_eq!(turns.len(), 4 * 4);
    for turn in turns {
        assert!(turn.again <= 0.05, "{turn:?}");
    }
}

#[test]
fn forks_of_long_chains_are_quick() {
    let mut engine = engine(600, |_| {});
    let micros = forks::run(&mut engine, 20).expect("room for a child");
    assert_eq!(micros.len(), 20 * 15);
    // On a quiet machine a hundredth of it; see the example for the bound that users are promised.
    let p99 = common::percentile(&micros, 0.99);
    assert!(p99 < 5000.0, "99 of 100 forks take up to {p99:.0} µs");
}

#[test]
fn projects_share_nothing_and_cannot_tell() {
    let (count, length) = (250, 40);
    let mut engine = engine(3 * count * 3 + 16, |_| {});
    let seen = projects::run(&mut engine, count, length, 1).expect("all fit");
    assert_eq!(seen.shared, 0, "tokens of another project's prompts were found");
    assert_eq!(seen.known_rows, seen.unknown_rows, "the work tells what another project has asked");
    assert!(seen.known_rows.iter().all(|&rows| rows == length));
    assert_eq!(seen.own, seen.own_most, "a project finds all of its own");
}

#[test]
fn the_test_of_distributions_tells_apart_what_differs() {
    let mut random = common::Random(3);
    let mut sample =
        |shift: usize| (0..250).map(|_| (random.below(1000) + shift) as f64).collect::<Vec<f64>>();
    let (same, other, shifted) = (sample(0), sample(0), sample(300));
    assert!(projects::same_distribution(&same, &other) > 0.01);
    assert!(projects::same_distribution(&same, &shifted) < 1e-6);
    assert!(projects::same_distribution(&same, &same) > 0.99);
}

#[test]
fn four_times_the_load_still_gets_the_work_done() {
    let shape = overload::Shape { shared: 160, private: 48, answer: 8, requests: 60 };
    // Room for about eight at a time, and few may wait, so that most are refused at four times the load.
    let mut engine = engine(10 + 8 * 4, |config| config.waiting = 16);
    let capacity = overload::capacity(&mut engine, shape).expect("all fit");
    let outcomes = [1.0, 2.0, 4.0].map(|offered| {
        overload::run(&mut engine, shape, capacity, offered).expect("refused as busy or taken")
    });
    let most = outcomes.iter().map(|outcome| outcome.goodput).fold(0.0, f64::max);
    assert!(outcomes[2].refused > 0, "{outcomes:?}");
    assert!(outcomes[2].goodput >= 0.9 * most, "{outcomes:?}");
    assert!(engine.is_idle() && engine.observe().blocks_used == 0);
}
