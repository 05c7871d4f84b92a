//! The scheduler without a model: tokens are numbers, running a batch is committing it.

use types::Hash;

use super::*;

const LIMITS: Limits =
    Limits { step_tokens: 128, chunk_tokens: 64, running: 100, waiting: 1000, window: 8192 };

fn scheduler(limits: Limits, blocks: usize) -> Scheduler {
    Scheduler::new(limits, Naming::new(Hash([1; 32])), blocks)
}

fn work(tokens: Vec<u32>, max_new: usize) -> Work {
    let logits_from = tokens.len() - 1;
    Work { tokens, scope: [0; 32], max_new, logits_from, class: 1 }
}

fn prompt(from: u32, len: usize) -> Vec<u32> {
    (from..from + len as u32).collect()
}

fn chunks(batch: &Batch) -> Vec<(u64, Range<usize>)> {
    batch.chunks.iter().map(|chunk| (chunk.id.0, chunk.rows.clone())).collect()
}

/// Plans, commits, and lets every sequence that has run all its rows generate its position as a token.
fn step(scheduler: &mut Scheduler) -> Batch {
    let batch = scheduler.plan();
    assert!(batch.rows() <= scheduler.limits().step_tokens);
    scheduler.commit(&batch);
    for chunk in &batch.chunks {
        if scheduler.sequence(chunk.id).expect("runs").pending() == 0 && !scheduler.append(chunk.id, 7) {
            scheduler.remove(chunk.id);
        }
    }
    check(scheduler);
    batch
}

/// What must hold between steps.
fn check(scheduler: &Scheduler) {
    let held: BTreeSet<BlockId> =
        scheduler.sequences.values().flat_map(|sequence| sequence.table.iter().copied()).collect();
    assert_eq!(held.len(), scheduler.blocks.used(), "every held block is used, every used one is held");
    let running = |(_, id): &Order| {
        let sequence = &scheduler.sequences[id];
        sequence.blocks_at_most() - sequence.table.len()
    };
    assert_eq!(scheduler.promised, scheduler.running.iter().map(running).sum::<usize>());
    assert!(scheduler.blocks.available() >= scheduler.promised, "what is set aside can be taken");
}

fn finish(scheduler: &mut Scheduler) -> usize {
    let mut rows = 0;
    for _ in 0..10_000 {
        if scheduler.is_idle() {
            return rows;
        }
        rows += step(scheduler).rows();
    }
    panic!("stuck: {} waiting, {} running", scheduler.waiting(), scheduler.running());
}

#[test]
fn one_budget_mixes_prompts_and_generation() {
    let mut scheduler = scheduler(LIMITS, 100);
    scheduler.submit(work(prompt(0, 10), 50)).expect("fits");
    assert_eq!(chunks(&step(&mut scheduler)), [(1, 0..10)]);
    scheduler.submit(work(prompt(1000, 150), 1)).expect("fits");
    scheduler.submit(work(prompt(2000, 150), 1)).expect("fits");
    assert_eq!(chunks(&step(&mut scheduler)), [(1, 10..11), (2, 0..64), (3, 0..48)]);
    assert_eq!(chunks(&step(&mut scheduler)), [(1, 11..12), (2, 64..128), (3, 48..96)]);
    assert_eq!(chunks(&step(&mut scheduler)), [(1, 12..13), (2, 128..150), (3, 96..150)]);
}

#[test]
fn urgent_classes_go_first_then_arrival() {
    let mut scheduler = scheduler(LIMITS, 100);
    for (class, from) in [(2, 0), (1, 1000), (2, 2000), (0, 3000)] {
        scheduler.submit(Work { class, ..work(prompt(from, 64), 1) }).expect("fits");
    }
    assert_eq!(chunks(&step(&mut scheduler)), [(4, 0..64), (2, 0..64)]);
    assert_eq!(chunks(&step(&mut scheduler)), [(1, 0..64), (3, 0..64)]);
}

#[test]
fn a_known_prompt_costs_one_row() {
    let mut scheduler = scheduler(LIMITS, 100);
    for len in [160, 161, 170] {
        scheduler.submit(work(prompt(0, len), 1)).expect("fits");
        finish(&mut scheduler);
    }
    for (len, rows) in [(160, 159..160), (161, 160..161), (170, 160..170), (100, 96..100)] {
        let id = scheduler.submit(work(prompt(0, len), 1)).expect("fits");
        let batch = step(&mut scheduler);
        assert_eq!(chunks(&batch), [(id.0, rows)]);
        assert_eq!(batch.chunks[0].store_from, len / 16 * 16);
    }
    scheduler.submit(Work { scope: [1; 32], ..work(prompt(0, 160), 1) }).expect("fits");
    assert_eq!(finish(&mut scheduler), 160, "another scope finds nothing");
}

#[test]
fn a_block_is_computed_once_and_the_others_wait_for_it() {
    let mut scheduler = scheduler(LIMITS, 200);
    for last in 0..8 {
        let mut tokens = prompt(0, 320);
        tokens.push(5000 + last);
        scheduler.submit(work(tokens, 1)).expect("fits");
    }
    let first = step(&mut scheduler);
    assert_eq!(chunks(&first), [(1, 0..64)], "seven wait although the budget has room");
    let rows = first.rows() + finish(&mut scheduler);
    assert_eq!(rows, 320 + 8);
}

#[test]
fn generated_tokens_are_found_by_the_next_turn() {
    let mut scheduler = scheduler(LIMITS, 100);
    scheduler.submit(work(prompt(0, 20), 30)).expect("fits");
    finish(&mut scheduler);
    let next_turn = [prompt(0, 20), vec![7; 30], prompt(100, 5)].concat();
    scheduler.submit(work(next_turn, 1)).expect("fits");
    // 49 positions were stored (the last generated token never ran): three full blocks.
    assert_eq!(chunks(&step(&mut scheduler)), [(2, 48..55)]);
}

#[test]
fn scoring_runs_only_the_rows_somebody_wants() {
    let mut scheduler = scheduler(LIMITS, 100);
    scheduler.submit(work(prompt(0, 64), 1)).expect("fits");
    finish(&mut scheduler);
    let score = Work { logits_from: 39, max_new: 0, ..work(prompt(0, 64), 0) };
    let id = scheduler.submit(score).expect("fits");
    let batch = scheduler.plan();
    assert_eq!(batch.chunks, [Chunk { id, rows: 39..64, store_from: 64 }]);
    scheduler.commit(&batch);
    let ended = scheduler.remove(id).expect("known");
    assert_eq!((ended.cached(), ended.computed()), (39, 25));
}

#[test]
fn forks_cost_at_most_one_block_each() {
    for len in 4001..=4015 {
        let mut scheduler = scheduler(Limits { step_tokens: 512, chunk_tokens: 512, ..LIMITS }, 800);
        let parent = scheduler.submit(work(prompt(0, len), 16)).expect("fits");
        while scheduler.sequence(parent).expect("runs").stored() < len {
            step(&mut scheduler);
        }
        let before = scheduler.blocks().used();
        for child in 0..64 {
            let fork = Fork { keep: None, append: vec![9000 + child], max_new: 8, class: 1 };
            let (id, copy) = scheduler.fork(parent, fork).expect("room");
            let copy = copy.expect("a partial tail");
            assert_eq!(copy.tokens, len % 16);
            assert_eq!(scheduler.sequence(id).expect("runs").table().len(), len.div_ceil(16));
            check(&scheduler);
        }
        assert!(scheduler.blocks().used() <= before + 64, "{len}");
        let batch = step(&mut scheduler);
        assert_eq!(
            batch.rows(),
            1 + 64 * 2,
            "each child runs the token it was given and the parent's last one"
        );
        finish(&mut scheduler);
        assert_eq!(scheduler.blocks().used(), 0);
    }
}

#[test]
fn a_fork_may_keep_any_number_of_tokens() {
    let mut scheduler = scheduler(LIMITS, 100);
    let parent = scheduler.submit(work(prompt(0, 50), 60)).expect("fits");
    step(&mut scheduler);
    for keep in 1..=50 {
        let fork = Fork { keep: Some(keep), append: vec![], max_new: 1, class: 1 };
        let (child, copy) = scheduler.fork(parent, fork).expect("room");
        assert_eq!(copy.map_or(0, |copy| copy.tokens), keep % 16);
        assert_eq!(scheduler.sequence(child).expect("runs").tokens(), prompt(0, keep));
        let batch = step(&mut scheduler);
        assert!(chunks(&batch).contains(&(child.0, keep - 1..keep)), "{keep}: only the last row runs");
        assert!(scheduler.sequence(child).is_none());
    }
}

#[test]
fn what_could_never_run_is_refused_with_numbers() {
    let mut scheduler = scheduler(LIMITS, 100);
    let refused = scheduler.submit(work(prompt(0, 8000), 193)).expect_err("window").to_string();
    assert!(refused.contains("8000") && refused.contains("193") && refused.contains("8192"), "{refused}");
    let refused = scheduler.submit(work(prompt(0, 1600), 1)).expect_err("pool").to_string();
    assert!(refused.contains("101") && refused.contains("100"), "{refused}");
    let refused = scheduler.fork(SequenceId(77), Fork { keep: None, append: vec![], max_new: 1, class: 0 });
    assert_eq!(refused.expect_err("unknown"), SubmitError::Unknown(SequenceId(77)));
    assert!(scheduler.submit(work(prompt(0, 1), usize::MAX)).is_err());
}

#[test]
fn whole_need_is_set_aside_before_a_sequence_starts() {
    let mut scheduler = scheduler(LIMITS, 10);
    scheduler.submit(work(prompt(0, 16), 80)).expect("fits alone");
    scheduler.submit(work(prompt(500, 64), 1)).expect("fits alone");
    scheduler.submit(work(prompt(900, 16), 16)).expect("fits alone");
    step(&mut scheduler);
    assert_eq!(
        (scheduler.running(), scheduler.waiting()),
        (1, 2),
        "6 + 5 blocks are too many, nobody overtakes"
    );
    finish(&mut scheduler);
    assert_eq!(scheduler.blocks().used(), 0);
}

#[test]
fn ending_at_any_moment_gives_everything_back() {
    for stop_after in 0..12 {
        let mut scheduler = scheduler(Limits { running: 3, ..LIMITS }, 60);
        let ids: Vec<SequenceId> =
            (0..5).map(|n| scheduler.submit(work(prompt(n * 7, 150), 5)).expect("fits")).collect();
        (0..stop_after).for_each(|_| drop(step(&mut scheduler)));
        for id in ids {
            scheduler.remove(id);
            check(&scheduler);
        }
        assert_eq!((scheduler.blocks().used(), scheduler.promised), (0, 0));
        scheduler.clear_cache();
        assert_eq!((scheduler.blocks().free(), scheduler.index.len()), (60, 0));
    }
}

/// Many sequences over few blocks, with shared beginnings, forks and cancellations: everything ends, and the
/// checks of `step` hold all the way.
#[test]
fn random_traffic_keeps_every_promise() {
    let mut seed = 3_u64;
    let mut next = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut scheduler = scheduler(Limits { step_tokens: 48, chunk_tokens: 32, running: 12, ..LIMITS }, 40);
    let mut ids: Vec<SequenceId> = Vec::new();
    for _ in 0..3_000 {
        match next(6) {
            0 | 1 => {
                let shared = prompt(0, next(100) as usize);
                let tokens = [shared, vec![next(3) as u32 + 9000; 1 + next(40) as usize]].concat();
                let class = next(3) as u8;
                ids.extend(scheduler.submit(Work { class, ..work(tokens, 1 + next(30) as usize) }));
            }
            2 if !ids.is_empty() => {
                let parent = ids[next(ids.len() as u64) as usize];
                let keep = Some(1 + next(60) as usize);
                let fork =
                    Fork { keep, append: vec![next(5) as u32], max_new: 1 + next(9) as usize, class: 1 };
                ids.extend(scheduler.fork(parent, fork).map(|(id, _)| id));
            }
            3 if !ids.is_empty() => {
                let id = ids.swap_remove(next(ids.len() as u64) as usize);
                scheduler.remove(id);
            }
            _ => drop(step(&mut scheduler)),
        }
        check(&scheduler);
    }
    finish(&mut scheduler);
    assert_eq!(scheduler.blocks().used(), 0);
    assert!(scheduler.blocks().evictions().get(&Eviction::Room).is_some_and(|&count| count > 100));
}
