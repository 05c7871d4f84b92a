//! Guessed rows: what comes true counts, the rest leaves nothing behind.

use super::{LIMITS, check, prompt, scheduler, step, work};
use crate::scheduler::*;

/// Runs a step with these guesses behind the only chunk; `answers` are then chosen. Accepts as the engine does.
fn guessed(scheduler: &mut Scheduler, guesses: &[u32], answers: &[u32]) {
    let bytes = &mut NoBytes;
    let mut batch = scheduler.plan(bytes);
    let id = batch.chunks[0].id;
    scheduler.guess(&mut batch, 0, guesses.to_vec(), bytes);
    let table = scheduler.sequence(id).expect("runs").table().len();
    assert_eq!(table, (batch.chunks[0].rows.end + guesses.len()).div_ceil(16));
    scheduler.commit(&batch, bytes);
    for (place, &answer) in answers.iter().enumerate() {
        if place > 0 {
            assert_eq!(
                guesses[place - 1],
                answers[place - 1],
                "a later row counts only behind a right guess"
            );
            scheduler.ran_guess(id, bytes);
        }
        if !scheduler.append(id, answer) {
            scheduler.remove(id);
        }
    }
    scheduler.take_back(id);
    check(scheduler);
}

#[test]
fn rejected_guesses_are_never_sealed_and_their_blocks_go_back() {
    let mut scheduler = scheduler(LIMITS, 20);
    let id = scheduler.submit(work(prompt(0, 30), 40)).expect("fits");
    // Rows 0..30 and five guesses: two of them come true, block 2 was taken for nothing.
    guessed(&mut scheduler, &[100, 101, 900, 901, 902], &[100, 101, 102]);
    let sequence = scheduler.sequence(id).expect("goes on");
    assert_eq!((sequence.tokens().len(), sequence.stored(), sequence.table().len()), (33, 32, 2));
    assert_eq!((sequence.computed(), sequence.pending()), (32, 1));
    let sealed = sequence.table()[1];
    // The block of both is found by who has the same tokens, not by who has the guesses.
    let right = [prompt(0, 30), vec![100, 101, 102]].concat();
    let wrong = [prompt(0, 30), vec![100, 900, 901]].concat();
    let chain = |scheduler: &Scheduler, tokens: &[u32]| {
        let keys = scheduler.chain(&[0; 32], tokens);
        keys.iter().filter_map(|(key, _)| scheduler.block_of(key)).collect::<Vec<_>>()
    };
    assert_eq!(chain(&scheduler, &right).last(), Some(&sealed));
    assert_eq!(chain(&scheduler, &wrong).len(), 1);
    // All wrong, then all right over a block's border.
    guessed(&mut scheduler, &[7; 15], &[103]);
    assert_eq!(scheduler.sequence(id).expect("goes on").stored(), 33);
    let next: Vec<u32> = (104..119).collect();
    guessed(&mut scheduler, &next, &(104..120).collect::<Vec<_>>());
    let sequence = scheduler.sequence(id).expect("goes on");
    assert_eq!((sequence.stored(), sequence.tokens().len(), sequence.table().len()), (49, 50, 4));
    while scheduler.running() > 0 {
        step(&mut scheduler);
    }
    assert_eq!(scheduler.blocks().used(), 0);
}

#[test]
fn guesses_never_reach_beyond_the_last_token() {
    let mut scheduler = scheduler(LIMITS, 3);
    let id = scheduler.submit(work(prompt(0, 30), 4)).expect("fits");
    let batch = scheduler.plan(&mut NoBytes);
    assert_eq!(scheduler.guesses_at_most(&batch, 0), 3);
    scheduler.commit(&batch, &mut NoBytes);
    scheduler.append(id, 100);
    // The last token needs no row.
    guessed(&mut scheduler, &[101, 102], &[101, 102, 103]);
    assert!(scheduler.sequence(id).is_none() && scheduler.blocks().used() == 0);
    // A chunk of a prompt that goes on tells no token to guess behind.
    let limits = Limits { chunk_tokens: 16, ..LIMITS };
    let mut scheduler = super::scheduler(limits, 20);
    scheduler.submit(work(prompt(0, 30), 4)).expect("fits");
    let batch = scheduler.plan(&mut NoBytes);
    assert_eq!(scheduler.guesses_at_most(&batch, 0), 0);
}
