//! The plan shares out everything once, evenly, and finds what is shared.

// A list of one range is meant.
#![allow(clippy::single_range_in_vec_init)]

use super::*;
use crate::attention::plan::{Plan, Shape};

fn table(shared: usize, own: Range<u32>) -> Vec<BlockRef> {
    (0..shared as u32).chain(own).map(|block| BlockRef { block, mask: u16::MAX }).collect()
}

fn planned(shape: Shape, tables: &[Vec<BlockRef>], rows: usize) -> Plan {
    let sequences: Vec<Sequence<'_>> = tables
        .iter()
        .enumerate()
        .map(|(index, blocks)| Sequence { blocks, rows: index * rows..(index + 1) * rows })
        .collect();
    let last = |table: &Vec<BlockRef>| table.len() as u32 * 16;
    let positions: Vec<u32> =
        tables.iter().flat_map(|table| last(table) - rows as u32..last(table)).collect();
    let mut plan = Plan::default();
    plan.fill(shape, &sequences, &positions);
    plan
}

const SHAPE: Shape = Shape { kv_heads: 3, group: 3, window: usize::MAX, threads: 2 };

/// Runs of each cut of the parts of thread 0, one KV head.
fn runs(plan: &Plan) -> Vec<Vec<Range<usize>>> {
    let parts = plan.parts_of(0).iter().filter(|part| part.kv_head == 0);
    parts.flat_map(|part| plan.items(part).iter().map(|item| item.runs().collect())).collect()
}

#[test]
fn forks_read_whole_shared_cuts_together() {
    // In turn from two families, which the order of the batch tears apart.
    let forks: Vec<Vec<BlockRef>> = (0..8u32)
        .map(|fork| {
            let mut table = table(40, 100 + fork * 10..105 + fork * 10);
            table.iter_mut().take(40).for_each(|entry| entry.block += 1000 * (fork % 2));
            table
        })
        .collect();
    let found = runs(&planned(SHAPE, &forks, 1));
    let apart = vec![0..1, 1..2, 2..3, 3..4];
    let unit = [vec![0..4], vec![0..4], apart];
    assert_eq!(found, [unit.clone(), unit].concat());
}

#[test]
fn a_mask_of_its_own_parts_a_fork_from_the_others() {
    let mut forks: Vec<Vec<BlockRef>> = (0..3).map(|fork| table(32, 100 + fork..101 + fork)).collect();
    forks[1][17].mask = 1;
    let found = runs(&planned(Shape { threads: 1, ..SHAPE }, &forks, 1));
    assert_eq!(found[0], [0..3]);
    assert_eq!(found[1].len(), 2);
}

#[test]
fn everything_is_shared_out_once_and_evenly() {
    for (sequences, blocks, rows) in
        [(1, 3, 1), (1, 125, 1), (16, 32, 1), (5, 40, 7), (1, 64, 500), (33, 2, 1)]
    {
        let tables: Vec<Vec<BlockRef>> =
            (0..sequences).map(|s| table(0, s * 200..s * 200 + blocks)).collect();
        for (threads, group) in [(1, 3), (2, 3), (3, 1), (7, 14), (40, 25)] {
            let shape = Shape { threads, group, ..SHAPE };
            let plan = planned(shape, &tables, rows);
            let mut seen = std::collections::HashMap::new();
            let mut costs = vec![0usize; threads];
            for (thread, cost) in costs.iter_mut().enumerate() {
                for part in plan.parts_of(thread) {
                    for (item, place) in plan.items(part).iter().zip(part.items.clone()) {
                        assert!(seen.insert((part.heads.start, place), thread).is_none());
                        *cost += item.runs().map(|rows| rows.len()).sum::<usize>() * part.heads.len();
                    }
                }
            }
            let queries = sequences as usize * rows * 3 * group;
            assert!(seen.len() * TILE >= queries, "{queries} queries in {} items", seen.len());
            let (least, most) = (costs.iter().min().unwrap(), costs.iter().max().unwrap());
            // Of items that fill a tile, one more or less, and a last cut that costs less than others.
            let even = costs.iter().sum::<usize>() / threads;
            assert!(
                most - least <= even / 2 + 4 * TILE,
                "{sequences} x {blocks}, {threads} threads: {costs:?}"
            );
        }
    }
}

#[test]
fn cuts_out_of_the_windows_reach_are_no_work() {
    let tables = [table(64, 100..101)];
    let plan = planned(Shape { window: 300, threads: 1, ..SHAPE }, &tables, 1);
    let cuts: Vec<usize> = plan.items(&plan.parts_of(0)[0]).iter().map(|item| item.cut).collect();
    assert_eq!(cuts, [2, 3, 4]);
}
