//! The short form of the first tier, for every build. `SIM_SEEDS=1000` runs more, `SIM_SEED=17` one with its trace;
//! `make sim` runs the long form.

use sim::{Kind, Plant, Report, Size, run, suite};

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// The end of the trace is where to look first.
fn explain(report: &Report) -> String {
    let lines: Vec<&str> = report.trace.lines().rev().take(40).collect();
    let tail: Vec<&str> = lines.into_iter().rev().collect();
    let (seed, broken) = (report.seed, report.broken.as_deref().unwrap_or("nothing"));
    format!("seed {seed}: {broken}; run it alone with SIM_SEED={seed}\n{}", tail.join("\n"))
}

#[test]
fn every_seed_keeps_every_promise_and_every_fault_was_really_there() {
    if let Some(seed) = number("SIM_SEED") {
        let report = run(seed, Size::SHORT, None);
        println!("{}", report.trace);
        assert!(report.broken.is_none(), "{}", explain(&report));
        return;
    }
    let sum = suite::seeds(0..number("SIM_SEEDS").unwrap_or(60), Size::SHORT, |_| {});
    assert!(sum.broken.is_empty(), "{}", explain(&sum.broken[0]));
    for kind in Kind::ALL {
        let (fired, effective) = sum.counts.of(*kind);
        println!("{fired:>7} {effective:>7} {}", kind.name());
    }
    println!("{} commands, {} tasks, {} steps", sum.commands, sum.tasks, sum.steps);
    let rare = sum.rare(1);
    assert!(rare.is_empty(), "never effective, so nothing of the kind was tested: {rare:?}");
    assert!(sum.tasks > 0 && sum.steps > sum.tasks);
}

#[test]
fn the_same_seed_gives_the_same_trace_byte_for_byte() {
    for seed in [1, 2, 3] {
        let (first, second) = (run(seed, Size::SHORT, None), run(seed, Size::SHORT, None));
        assert!(first == second, "seed {seed} differs");
        assert!(first.trace.lines().count() > 100);
    }
    assert_ne!(run(1, Size::SHORT, None).trace, run(2, Size::SHORT, None).trace);
}

/// A mistake is found within this many seeds.
const FIND_WITHIN: u64 = 200;

#[test]
fn planted_mistakes_are_found() {
    for (plant, words) in Plant::ALL {
        let (seed, broken) = suite::find(*plant, FIND_WITHIN, Size::MIDDLE)
            .unwrap_or_else(|| panic!("{plant:?} was not found in {FIND_WITHIN} seeds"));
        println!("{plant:?}, seed {seed}: {broken}");
        assert!(words.iter().any(|word| broken.contains(word)), "{plant:?} was found as: {broken}");
    }
}
