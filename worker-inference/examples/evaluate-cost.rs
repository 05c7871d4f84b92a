//! What it costs to say what each segment of a recorded call was worth, beside removing them one by one:
//!
//! ```text
//! evaluate-cost MODEL [TOKENS SEGMENTS THREADS]
//! ```
//!
//! Prints, for 96 and for 40 tokens of probe and action, the rows and the seconds of: every segment left out, every
//! segment alone, one pair left out, nothing and everything left out, over keys and values that are there already;
//! and of the exact removal of every segment, with what stands before it reused.

use std::error::Error;
use std::ops::Range;
use std::time::{Duration, Instant};

use worker_inference::{Call, Engine, EngineConfig, score_children, score_removed};

/// Tokens of probe and action together, and how many of them are the action.
const PROBES: [(usize, usize); 2] = [(96, 48), (40, 20)];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: usize| arguments.get(index).map_or(Ok(default), |text| text.parse());
    let model = arguments.first().ok_or("give: MODEL [TOKENS SEGMENTS THREADS]")?;
    let (tokens, segments, threads) = (number(1, 4000)?, number(2, 32)?, number(3, 2)?);
    let config = EngineConfig { threads, low_priority: false, ..EngineConfig::default() };
    let mut engine = Engine::load(model, config)?;
    let info = engine.info();
    println!("{tokens} tokens in {segments} segments, {} threads, {}", info.threads, info.isa);
    println!("peak {:.0} Gop/s", engine.peak_probe(Duration::from_millis(500)));
    for (probe, action) in PROBES {
        measure(&mut engine, &made_up(tokens, segments, probe, action), probe)?;
    }
    Ok(())
}

/// A call of made-up tokens.
fn made_up(tokens: usize, segments: usize, probe: usize, action: usize) -> Call {
    let token = |index: usize| 100 + (index * 7919 % 40_000) as u32;
    Call {
        context: (0..tokens).map(token).collect(),
        probe: (tokens..tokens + probe - action).map(token).collect(),
        action: (tokens..tokens + action).map(|index| token(index * 3)).collect(),
        segments: (0..segments).map(|i| tokens * i / segments..tokens * (i + 1) / segments).collect(),
        ..Call::default()
    }
}

fn measure(engine: &mut Engine, call: &Call, probe: usize) -> Result<(), Box<dyn Error>> {
    engine.clear_cache();
    let (cold, seconds) = timed(|| score_children(engine, call.clone(), &[]))?;
    println!("\n{probe} tokens of probe and action");
    println!("context, cold             {:8} rows {seconds:8.2} s", cold.spent.all());
    let children = children(call);
    let (found, seconds) = timed(|| score_children(engine, call.clone(), &children))?;
    let spent = found.spent.all();
    println!("{:4} children, warm       {spent:8} rows {seconds:8.2} s", children.len());
    let (mut rows, mut all_seconds) = (0, 0.0);
    for segment in &call.segments {
        let (removed, seconds) = timed(|| score_removed(engine, call, std::slice::from_ref(segment)))?;
        rows += removed.computed;
        all_seconds += seconds;
    }
    println!("{:4} removed exactly      {rows:8} rows {all_seconds:8.2} s", call.segments.len());
    println!(
        "children / exact          {:8.1} % rows {:7.1} % time",
        percent(spent, rows),
        seconds / all_seconds * 100.0
    );
    Ok(())
}

/// Necessity, sufficiency, one cluster, and the gate.
fn children(call: &Call) -> Vec<Vec<Range<usize>>> {
    let all = call.context.len();
    let without = call.segments.iter().map(|segment| vec![segment.clone()]);
    let alone = call.segments.iter().map(|segment| vec![0..segment.start, segment.end..all]);
    let pair = call.segments.iter().step_by(2).take(2).cloned().collect();
    without.chain(alone).chain([pair, std::iter::once(0..all).collect()]).collect()
}

fn timed<T, E>(run: impl FnOnce() -> Result<T, E>) -> Result<(T, f64), E> {
    let start = Instant::now();
    let found = run()?;
    Ok((found, start.elapsed().as_secs_f64()))
}

fn percent(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64 * 100.0
}
