//! The scheduler without a model: tokens are numbers, running a batch is committing it.

use std::collections::BTreeMap;

use types::Hash;

use super::*;
use crate::sequence::TreeId;

const LIMITS: Limits =
    Limits { step_tokens: 128, chunk_tokens: 64, running: 100, waiting: 1000, window: 8192 };

fn scheduler(limits: Limits, blocks: usize) -> Scheduler {
    Scheduler::new(limits, Naming::new(Hash([1; 32])), blocks)
}

fn work(tokens: Vec<u32>, max_new: usize) -> Work {
    let logits_from = tokens.len() - 1;
    Work {
        tokens,
        scope: [0; 32],
        max_new,
        logits_from,
        class: 1,
        tree: TreeId::ALONE,
        private_from: usize::MAX,
    }
}

fn prompt(from: u32, len: usize) -> Vec<u32> {
    (from..from + len as u32).collect()
}

fn chunks(batch: &Batch) -> Vec<(u64, Range<usize>)> {
    batch.chunks.iter().map(|chunk| (chunk.id.0, chunk.rows.clone())).collect()
}

/// A tier below the pool that holds everything that ever left it, as long as it is not damaged.
#[derive(Default)]
struct FakeBytes {
    kept: BTreeMap<Key, BlockTokens>,
    /// Contents that are far away and take a call to come near.
    far: BTreeSet<Key>,
    damaged: bool,
    copied: Vec<usize>,
}

impl Bytes for FakeBytes {
    fn find(&mut self, key: &Key) -> Below {
        match (self.far.remove(key), self.kept.contains_key(key)) {
            (true, _) => Below::Coming,
            (false, true) => Below::Ready,
            (false, false) => Below::Absent,
        }
    }
    fn restore(&mut self, key: &Key, tokens: &BlockTokens, _to: BlockId) -> bool {
        let found = self.kept.get(key) == Some(tokens) && !self.damaged;
        if !found {
            self.kept.remove(key);
        }
        found
    }
    fn demote(&mut self, leaving: Whole<'_>) {
        self.kept.insert(*leaving.key, *leaving.tokens);
    }
    fn copy(&mut self, _from: BlockId, _to: BlockId, tokens: usize) {
        self.copied.push(tokens);
    }
}

/// Plans, commits, and lets every sequence that has run all its rows generate its position as a token.
fn step(scheduler: &mut Scheduler) -> Batch {
    step_over(scheduler, &mut NoBytes)
}

fn step_over(scheduler: &mut Scheduler, bytes: &mut dyn Bytes) -> Batch {
    let batch = scheduler.plan(bytes);
    assert!(batch.rows() <= scheduler.limits().step_tokens);
    scheduler.commit(&batch, bytes);
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
    let running = |(_, id): &Order| scheduler.sequences[id].missing_blocks();
    assert_eq!(scheduler.promised, scheduler.running.iter().map(running).sum::<usize>());
    assert!(scheduler.blocks.available() >= scheduler.promised, "what is set aside can be taken");
}

fn finish(scheduler: &mut Scheduler) -> usize {
    finish_over(scheduler, &mut NoBytes)
}

fn finish_over(scheduler: &mut Scheduler, bytes: &mut dyn Bytes) -> usize {
    let mut rows = 0;
    for _ in 0..10_000 {
        if scheduler.is_idle() {
            return rows;
        }
        rows += step_over(scheduler, bytes).rows();
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
    for (len, rows, stored) in
        [(160, 159..160, 160), (161, 160..161, 161), (175, 170..175, 170), (100, 99..100, 100)]
    {
        let id = scheduler.submit(work(prompt(0, len), 1)).expect("fits");
        let batch = step(&mut scheduler);
        assert_eq!(chunks(&batch), [(id.0, rows)]);
        assert_eq!(batch.chunks[0].store_from, stored);
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
    // 49 positions were stored (the last generated token never ran): three full blocks. A beginning of one token
    // is not worth a copy.
    assert_eq!(chunks(&step(&mut scheduler)), [(2, 48..55)]);
}

#[test]
fn scoring_runs_only_the_rows_somebody_wants() {
    let mut scheduler = scheduler(LIMITS, 100);
    scheduler.submit(work(prompt(0, 64), 1)).expect("fits");
    finish(&mut scheduler);
    let score = Work { logits_from: 39, max_new: 0, ..work(prompt(0, 64), 0) };
    let id = scheduler.submit(score).expect("fits");
    let batch = scheduler.plan(&mut NoBytes);
    assert_eq!(batch.chunks, [Chunk { id, rows: 39..64, store_from: 64, guessed: Vec::new() }]);
    scheduler.commit(&batch, &mut NoBytes);
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
            let mut bytes = FakeBytes::default();
            let id = scheduler.fork(parent, fork, &mut bytes).expect("room");
            assert_eq!(bytes.copied, [len % 16]);
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
        let mut bytes = FakeBytes::default();
        let child = scheduler.fork(parent, fork, &mut bytes).expect("room");
        assert_eq!(bytes.copied.iter().sum::<usize>(), keep % 16);
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
    let fork = Fork { keep: None, append: vec![], max_new: 1, class: 0 };
    let refused = scheduler.fork(SequenceId(77), fork, &mut NoBytes);
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
        assert_eq!((scheduler.blocks().free(), scheduler.contents.len()), (60, 0));
    }
}

#[test]
fn a_prefix_is_shared_to_the_token() {
    let mut scheduler = scheduler(LIMITS, 100);
    for (shared, own) in [(44, 1000), (44, 2000), (30, 3000)] {
        let tokens = [prompt(0, shared), prompt(own, 20)].concat();
        scheduler.submit(work(tokens, 1)).expect("fits");
    }
    // Two begin with the same 44 tokens, the third with 30 of them: each waits for what another one computes.
    assert_eq!(chunks(&step(&mut scheduler)), [(1, 0..64)]);
    assert_eq!(chunks(&step(&mut scheduler)), [(2, 44..64), (3, 30..50)]);
    assert_eq!(scheduler.shared().beginnings, 2);
}

#[test]
fn what_was_paused_goes_on_where_it_was() {
    let mut scheduler = scheduler(LIMITS, 20);
    let id = scheduler.submit(work(prompt(0, 20), 40)).expect("fits");
    (0..10).for_each(|_| drop(step(&mut scheduler)));
    let before = scheduler.sequence(id).expect("runs").tokens().to_vec();
    assert_eq!((scheduler.pause(id), scheduler.pause(id)), (VerbOutcome::Done, VerbOutcome::Already));
    check(&scheduler);
    assert!(scheduler.is_idle() && scheduler.blocks().used() == 0 && step(&mut scheduler).is_empty());
    assert_eq!((scheduler.resume(id), scheduler.resume(id)), (VerbOutcome::Done, VerbOutcome::Already));
    assert_eq!(chunks(&step(&mut scheduler)), [(id.0, 29..30)], "only the row that was due");
    let sequence = scheduler.sequence(id).expect("runs");
    assert_eq!((&sequence.tokens()[..30], sequence.recomputed()), (&before[..], 0));
    // Its blocks are needed by another one meanwhile: it computes them again, and says so.
    scheduler.pause(id);
    scheduler.submit(work(prompt(5000, 310), 9)).expect("fits");
    finish(&mut scheduler);
    scheduler.resume(id);
    finish(&mut scheduler);
    assert_eq!(scheduler.pause(id), VerbOutcome::Unknown);
}

#[test]
fn a_more_urgent_class_takes_the_room_of_a_less_urgent_one() {
    let mut scheduler = scheduler(LIMITS, 20);
    let low = |from| Work { class: 3, ..work(prompt(from, 60), 60) };
    let first = scheduler.submit(low(0)).expect("fits");
    let second = scheduler.submit(low(1000)).expect("fits");
    (0..20).for_each(|_| drop(step(&mut scheduler)));
    assert_eq!(scheduler.running(), 2);
    let urgent = scheduler.submit(Work { class: 0, ..work(prompt(2000, 160), 5) }).expect("fits");
    step(&mut scheduler);
    assert!(scheduler.running.contains(&(0, urgent)));
    assert_eq!((scheduler.asides().preempted, scheduler.waiting()), (1, 1), "one is enough");
    assert!(scheduler.running.contains(&(3, first)) != scheduler.running.contains(&(3, second)));
    // An equally urgent one waits its turn.
    let id = scheduler.submit(low(3000)).expect("fits");
    step(&mut scheduler);
    assert!(scheduler.waiting.contains(&(3, id)));
    finish(&mut scheduler);
    assert_eq!(scheduler.blocks().used(), 0);
}

#[test]
fn projects_share_by_weight_and_cached_rows_cost_nothing() {
    let mut scheduler = scheduler(Limits { running: 1, ..LIMITS }, 500);
    let (light, heavy) = ([1; 32], [2; 32]);
    scheduler.set_weight(heavy, 3);
    for n in 0..40 {
        for scope in [light, heavy] {
            scheduler.submit(Work { scope, ..work(prompt(n * 1000, 64), 1) }).expect("fits");
        }
    }
    (0..20).for_each(|_| drop(step(&mut scheduler)));
    let (light_had, heavy_had) = (scheduler.service.had(&light), scheduler.service.had(&heavy));
    let rows = |had: u64, weight: u64| (had * weight + 1024 * 32) / 1024 / 64;
    assert_eq!(rows(light_had, 1) + rows(heavy_had, 3), 20);
    assert_eq!(rows(heavy_had, 3), 15, "three of four");
    finish(&mut scheduler);
    // Known prompts are charged the one row that runs.
    let before = scheduler.service.had(&light);
    scheduler.submit(Work { scope: light, ..work(prompt(0, 64), 1) }).expect("fits");
    finish(&mut scheduler);
    assert!(scheduler.service.had(&light) - before <= 1024);
}

#[test]
fn who_comes_back_cannot_have_saved_up() {
    let mut scheduler = scheduler(Limits { running: 1, ..LIMITS }, 500);
    for n in 0..30 {
        scheduler.submit(work(prompt(n * 1000, 64), 1)).expect("fits");
    }
    (0..20).for_each(|_| drop(step(&mut scheduler)));
    for n in 0..10 {
        scheduler.submit(Work { scope: [9; 32], ..work(prompt(n * 1000, 64), 1) }).expect("fits");
    }
    let before = scheduler.service.had(&[9; 32]);
    assert_eq!(before, scheduler.service.had(&[0; 32]), "it starts where the others are");
}

#[test]
fn the_tree_that_had_least_goes_first_and_patience_ends_that() {
    let mut scheduler = scheduler(Limits { running: 1, ..LIMITS }, 900);
    let of = |tree: u64, from: u32| Work { tree: TreeId(tree), ..work(prompt(from, 64), 1) };
    scheduler.submit(of(1, 0)).expect("fits");
    finish(&mut scheduler);
    let long = scheduler.submit(of(1, 10_000)).expect("fits");
    let short = scheduler.submit(of(2, 20_000)).expect("fits");
    assert_eq!(chunks(&step(&mut scheduler)), [(short.0, 0..64)]);
    // New trees keep coming; the old one's turn comes all the same.
    let mut waited = 0;
    while scheduler.sequence(long).is_some() {
        waited += 1;
        scheduler.submit(of(100 + waited, 30_000 + waited as u32 * 100)).expect("fits");
        step(&mut scheduler);
    }
    assert!((1900..2100).contains(&waited), "{waited}");
}

#[test]
fn what_left_the_pool_is_restored_from_below() {
    let mut scheduler = scheduler(LIMITS, 20);
    let mut bytes = FakeBytes::default();
    let run = |scheduler: &mut Scheduler, bytes: &mut FakeBytes, from| {
        scheduler.submit(work(prompt(from, 310), 1)).expect("fits");
        finish_over(scheduler, bytes)
    };
    assert_eq!(run(&mut scheduler, &mut bytes, 0), 310);
    assert_eq!(run(&mut scheduler, &mut bytes, 5000), 310);
    assert_eq!(bytes.kept.len(), 19, "whole blocks are kept");
    // Far contents are waited for, near ones taken at once; the tail was not kept.
    bytes.far = bytes.kept.keys().take(3).copied().collect();
    assert_eq!(run(&mut scheduler, &mut bytes, 0), 310 - 304);
    assert_eq!(scheduler.shared().restored, 19);
    // Damage is found, counted, and costs time only.
    run(&mut scheduler, &mut bytes, 7000);
    bytes.damaged = true;
    assert_eq!(run(&mut scheduler, &mut bytes, 5000), 310);
    assert!(scheduler.shared().damaged >= 1);
}

#[test]
fn private_positions_are_neither_shared_nor_found() {
    let mut scheduler = scheduler(LIMITS, 100);
    scheduler.submit(work(prompt(0, 100), 1)).expect("fits");
    finish(&mut scheduler);
    let own = Work { private_from: 50, max_new: 0, logits_from: 49, ..work(prompt(0, 100), 0) };
    let id = scheduler.submit(own).expect("fits");
    let batch = scheduler.plan(&mut NoBytes);
    // The third block's first two tokens are everybody's: they are copied. Only the row that asks runs again.
    assert_eq!(batch.chunks, [Chunk { id, rows: 49..100, store_from: 50, guessed: Vec::new() }], "{batch:?}");
    scheduler.remove(id);
    let known = scheduler.contents.len();
    scheduler.submit(Work { private_from: 0, ..work(prompt(0, 64), 1) }).expect("fits");
    assert_eq!(finish(&mut scheduler), 64);
    assert_eq!(scheduler.contents.len(), known, "nothing of it is kept");
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
    let mut bytes = FakeBytes::default();
    for round in 0..3_000 {
        bytes.damaged = round % 97 == 0;
        if let Some(key) = bytes.kept.keys().nth(next(40) as usize) {
            bytes.far.insert(*key);
        }
        match next(8) {
            0 | 1 => {
                let shared = prompt(0, next(100) as usize);
                let tokens = [shared, vec![next(3) as u32 + 9000; 1 + next(40) as usize]].concat();
                let (class, tree) = (next(3) as u8, TreeId(next(4)));
                ids.extend(scheduler.submit(Work { class, tree, ..work(tokens, 1 + next(30) as usize) }));
            }
            2 if !ids.is_empty() => {
                let parent = ids[next(ids.len() as u64) as usize];
                let keep = Some(1 + next(60) as usize);
                let fork =
                    Fork { keep, append: vec![next(5) as u32], max_new: 1 + next(9) as usize, class: 1 };
                ids.extend(scheduler.fork(parent, fork, &mut bytes));
            }
            3 if !ids.is_empty() => {
                let id = ids.swap_remove(next(ids.len() as u64) as usize);
                scheduler.remove(id);
            }
            4 if !ids.is_empty() => _ = scheduler.pause(ids[next(ids.len() as u64) as usize]),
            5 if !ids.is_empty() => _ = scheduler.resume(ids[next(ids.len() as u64) as usize]),
            _ => drop(step_over(&mut scheduler, &mut bytes)),
        }
        check(&scheduler);
    }
    for &id in &ids {
        scheduler.resume(id);
    }
    finish_over(&mut scheduler, &mut bytes);
    assert_eq!((scheduler.blocks().used(), scheduler.sequences.len()), (0, 0));
    let (shared, asides) = (scheduler.shared(), scheduler.asides());
    assert!(shared.restored > 100 && shared.damaged > 0 && shared.beginnings > 100, "{shared:?}");
    assert!(asides.paused > 50 && asides.preempted > 10, "{asides:?}");
    assert!(scheduler.blocks().evictions().get(&Eviction::Room).is_some_and(|&count| count > 100));
}

#[path = "guess_test.rs"]
mod guess_test;
