//! `make sim`, first tier: many long seeds on all cores, then every planted mistake, then the same seed twice. Prints
//! what was done and ends with 1 when a promise was broken or something was not tested.

use sim::plan::Plant;
use sim::suite::{self, Sum};
use sim::{Kind, Size, moves, run};
use std::process::ExitCode;
use std::time::Instant;

const HELP: &str = "sim [--seeds N] [--seed K] [--least N] [--commands N]
  --seeds N     runs seeds 0 to N-1 (300), then the planted mistakes
  --seed K      runs one seed and prints its trace
  --least N     each kind of fault must be effective that often (200 for 300 seeds)
  --commands N  the ledger must have applied that many commands (2,000,000 for 300 seeds)";

/// A planted mistake is found within this many seeds.
const FIND_WITHIN: u64 = 200;

struct Wish {
    seeds: u64,
    seed: Option<u64>,
    least: u64,
    commands: u64,
}

fn main() -> ExitCode {
    let wish = match wish(std::env::args().skip(1)) {
        Ok(wish) => wish,
        Err(problem) => {
            eprintln!("{problem}\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let failed = match wish.seed {
        Some(seed) => one(seed),
        None => all(&wish),
    };
    ExitCode::from(u8::from(failed))
}

fn wish(mut args: impl Iterator<Item = String>) -> Result<Wish, String> {
    let (mut seeds, mut seed, mut least, mut commands) = (300, None, None, None);
    while let Some(name) = args.next() {
        let value = args.next().unwrap_or_default();
        let number = || value.parse::<u64>().map_err(|_| format!("{name} {value}: that is no number"));
        match name.as_str() {
            "--seeds" => seeds = number()?,
            "--seed" => seed = Some(number()?),
            "--least" => least = Some(number()?),
            "--commands" => commands = Some(number()?),
            _ => return Err(format!("{name} is not known")),
        }
    }
    // What fewer seeds can show is less, and more seeds show no less.
    let share = |of_300: u64| of_300 * seeds.min(300) / 300;
    let least = least.unwrap_or_else(|| share(200).max(1));
    Ok(Wish { seeds, seed, least, commands: commands.unwrap_or_else(|| share(2_000_000)) })
}

fn one(seed: u64) -> bool {
    let report = run(seed, Size::LONG, None);
    println!("{}", report.trace);
    println!(
        "{} commands; {}",
        report.commands,
        report.broken.as_deref().unwrap_or("every promise was kept")
    );
    report.broken.is_some()
}

fn all(wish: &Wish) -> bool {
    let began = Instant::now();
    let step = (wish.seeds / 10).max(1);
    let sum = suite::seeds(0..wish.seeds, Size::LONG, |sum| {
        if sum.seeds.is_multiple_of(step) {
            let (seconds, broken) = (began.elapsed().as_secs(), sum.broken.len());
            println!("{:>5} seeds, {} commands, {broken} broken, {seconds} s", sum.seeds, sum.commands);
        }
    });
    let seconds = began.elapsed().as_secs();
    tables(&sum);
    let mut problems = problems(&sum, wish);
    println!("figure s1_seconds {seconds}\nfigure s1_commands {}", sum.commands);
    problems.extend(planted());
    problems.extend(twice());
    println!("figure s1_all_seconds {}", began.elapsed().as_secs());
    problems.iter().for_each(|problem| println!("FAILED: {problem}"));
    !problems.is_empty()
}

fn tables(sum: &Sum) {
    println!("\n{:>9} {:>9}  fault (effective: …)", "fired", "effective");
    for kind in Kind::ALL {
        let (fired, effective) = sum.counts.of(*kind);
        println!("{fired:>9} {effective:>9}  {} ({})", kind.name(), kind.effective());
    }
    println!("\n{:>9}  move of a task", "seen");
    for step in moves::LEGAL {
        println!("{:>9}  {}", sum.moves.get(step).copied().unwrap_or(0), moves::shown(*step));
    }
    println!(
        "\n{} seeds, {} commands in {} entries, {} tasks, {} steps, {} hours of virtual time",
        sum.seeds,
        sum.commands,
        sum.entries,
        sum.tasks,
        sum.steps,
        sum.virtual_ms / 3_600_000
    );
}

fn problems(sum: &Sum, wish: &Wish) -> Vec<String> {
    let broken = sum.broken.iter().map(|report| {
        let what = report.broken.as_deref().unwrap_or_default();
        format!("seed {}: {what}; see it with `--seed {}`", report.seed, report.seed)
    });
    let rare = sum.rare(wish.least).into_iter().map(|kind| {
        let (fired, effective) = sum.counts.of(kind);
        format!("{}: {effective} of {fired} were effective, {} are needed", kind.name(), wish.least)
    });
    let unseen = sum.unseen().into_iter().map(|step| format!("no task went {}", moves::shown(step)));
    let few = (sum.commands < wish.commands)
        .then(|| format!("{} commands, {} are needed", sum.commands, wish.commands));
    broken.chain(rare).chain(unseen).chain(few).collect()
}

/// Every planted mistake is found, by an oracle that is made for it.
fn planted() -> Vec<String> {
    println!("\nplanted mistakes (first tier)");
    let mut missed = vec![];
    for (plant, words) in Plant::ALL {
        match suite::find(*plant, FIND_WITHIN, Size::MIDDLE) {
            None => missed.push(format!("{plant:?} was not found in {FIND_WITHIN} seeds")),
            Some((seed, broken)) => {
                let short: String = broken.chars().take(120).collect();
                println!("  {plant:?}: seed {seed}: {short}");
                if !words.iter().any(|word| broken.contains(word)) {
                    missed.push(format!("{plant:?} was found as something else: {broken}"));
                }
            }
        }
    }
    missed
}

fn twice() -> Option<String> {
    let (first, second) = (run(0, Size::LONG, None), run(0, Size::LONG, None));
    println!("\nseed 0 twice: {} bytes of trace, equal: {}", first.trace.len(), first == second);
    (first != second).then(|| "the same seed gave two traces".to_string())
}
