//! Many seeds, and the mistakes that must be found. `SIM_SEEDS=1000` runs more, `SIM_SEED=17` one with its trace.

use sim::{Faults, Plant, Report, run};

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn seeds() -> std::ops::Range<u64> {
    0..number("SIM_SEEDS").unwrap_or(50)
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
        let report = run(seed, None);
        println!("{}", report.trace);
        assert!(report.broken.is_none(), "{}", explain(&report));
        return;
    }
    let mut faults = Faults::default();
    let (mut tasks, mut steps) = (0, 0);
    for seed in seeds() {
        let report = run(seed, None);
        assert!(report.broken.is_none(), "{}", explain(&report));
        faults.plus(&report.faults);
        tasks += report.tasks;
        steps += report.steps;
    }
    for (name, count) in faults.fields() {
        println!("{count:>7} {name}");
        assert!(*count > 0, "no {name} in all seeds: the simulator tested nothing of the kind");
    }
    println!("{tasks:>7} tasks, {steps} steps");
    assert!(tasks > 0 && steps > tasks);
}

#[test]
fn the_same_seed_gives_the_same_trace_byte_for_byte() {
    for seed in [1, 2, 3] {
        let (first, second) = (run(seed, None), run(seed, None));
        assert!(first == second, "seed {seed} differs");
        assert!(first.trace.lines().count() > 100);
    }
    assert_ne!(run(1, None).trace, run(2, None).trace);
}

/// A mistake is found within this many seeds.
const FIND_WITHIN: u64 = 200;

fn found(plant: Plant) -> String {
    (0..FIND_WITHIN)
        .find_map(|seed| run(seed, Some(plant)).broken)
        .unwrap_or_else(|| panic!("{plant:?} was not found in {FIND_WITHIN} seeds"))
}

#[test]
fn planted_mistakes_are_found() {
    for (plant, words) in [
        (Plant::AcceptStale, vec!["stale lease"]),
        (Plant::BillTwice, vec!["twice"]),
        (Plant::IgnoreLease, vec!["at the same time", "which is"]),
        (Plant::EarlyLost, vec!["at the same time", "which is"]),
        (Plant::NoFullSets, vec!["stuck", "at the same time"]),
        (
            Plant::LoseAcked,
            vec!["is gone", "went back", "root tasks", "moved", "stale lease", "nobody offered", "twice"],
        ),
        (Plant::ConfirmEarly, vec!["at the same time", "which is"]),
    ] {
        let broken = found(plant);
        println!("{plant:?}: {broken}");
        assert!(words.iter().any(|word| broken.contains(word)), "{plant:?} was found as: {broken}");
    }
}
