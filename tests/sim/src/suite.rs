//! Many seeds on all cores. Seeds know nothing of each other, so the sum does not depend on who ran which.

use crate::counts::{Counts, Kind};
use crate::moves::{self, Move};
use crate::plan::{Plant, Report, Size};
use crate::sim::run;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;

/// What many seeds gave together.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    pub seeds: u64,
    pub counts: Counts,
    pub moves: BTreeMap<Move, u64>,
    pub commands: u64,
    pub entries: u64,
    pub tasks: usize,
    pub steps: usize,
    pub virtual_ms: u64,
    /// The runs in which a promise was broken, the lowest seed first.
    pub broken: Vec<Report>,
}

impl Sum {
    fn add(&mut self, report: Report) {
        self.seeds += 1;
        self.counts.plus(&report.counts);
        report.moves.iter().for_each(|(step, count)| *self.moves.entry(*step).or_default() += count);
        self.commands += report.commands;
        self.entries += report.entries;
        self.tasks += report.tasks;
        self.steps += report.steps;
        self.virtual_ms += report.ended_ms;
        if report.broken.is_some() {
            self.broken.push(report);
            self.broken.sort_by_key(|report| report.seed);
        }
    }

    /// Kinds of faults that were effective less often than that.
    pub fn rare(&self, least: u64) -> Vec<Kind> {
        Kind::ALL.iter().copied().filter(|kind| self.counts.of(*kind).1 < least).collect()
    }

    /// Legal moves of tasks that were not seen.
    pub fn unseen(&self) -> Vec<Move> {
        moves::LEGAL.iter().copied().filter(|step| !self.moves.contains_key(step)).collect()
    }
}

/// Runs seeds on all cores. `each` hears how many are done.
pub fn seeds(seeds: Range<u64>, size: Size, mut each: impl FnMut(&Sum)) -> Sum {
    let next = AtomicU64::new(seeds.start);
    let (reports, done) = mpsc::channel();
    let mut sum = Sum::default();
    std::thread::scope(|scope| {
        for _ in 0..cores() {
            let (next, reports, end) = (&next, reports.clone(), seeds.end);
            scope.spawn(move || {
                let mine = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < end);
                while let Some(seed) = mine() {
                    if reports.send(brief(run(seed, size, None))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(reports);
        for report in done {
            sum.add(report);
            each(&sum);
        }
    });
    sum
}

/// Traces are long; only those of broken runs are kept.
fn brief(mut report: Report) -> Report {
    if report.broken.is_none() {
        report.trace = String::new();
    }
    report
}

/// The lowest seed below `within` in which a planted mistake is found, and what the oracles said.
pub fn find(plant: Plant, within: u64, size: Size) -> Option<(u64, String)> {
    let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (found, finds) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..cores() {
            let (next, over, found) = (&next, &over, found.clone());
            scope.spawn(move || {
                // Seeds are given out in order, and each that was begun is ended: the lowest find is the lowest there is.
                while !over.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= within {
                        return;
                    }
                    if let Some(broken) = run(seed, size, Some(plant)).broken {
                        over.store(true, Ordering::Relaxed);
                        if found.send((seed, broken)).is_err() {
                            return;
                        }
                    }
                }
            });
        }
        drop(found);
        finds.into_iter().min()
    })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}
