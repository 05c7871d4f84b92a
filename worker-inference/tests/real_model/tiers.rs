//! Blocks that leave the pool and come back: from memory, from the disk, after a restart, damaged. The bits stay.

use std::path::{Path, PathBuf};

use worker_inference::{DiskKv, Engine, EngineConfig, Observed, VerbOutcome};

use super::{SCOPE, TEXT, ask, encode, load, logits, request};

/// Room for about 60 blocks of this model: one long prompt at a time.
const SMALL: usize = 60 * 368_640;

fn with_tiers(config: &mut EngineConfig, folder: Option<&Path>) {
    config.kv_bytes = SMALL;
    config.host_kv_bytes = if folder.is_some() { 0 } else { 1 << 30 };
    config.disk_kv = folder.map(|folder| DiskKv { folder: folder.into(), bytes: 1 << 30, bytes_s: 1 << 40 });
}

/// Prompts that push each other out of a small pool.
fn prompts(engine: &Engine) -> Vec<Vec<u32>> {
    let tokens = encode(engine, TEXT);
    (0..4).map(|from| tokens[from * 3..from * 3 + 600].to_vec()).collect()
}

fn restored_bytes(observed: &Observed) -> (u64, u64) {
    let tiers = observed.tiers.as_ref().expect("the engine has tiers");
    (tiers.restored_host_bytes, tiers.restored_disk_bytes)
}

fn expected(prompts: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let mut cold = load(|config| config.eviction = "lru".into());
    prompts.iter().map(|prompt| logits(&mut cold, prompt)).collect()
}

#[test]
fn logits_do_not_depend_on_the_way_through_the_tiers() {
    let mut engine = load(|config| with_tiers(config, None));
    let prompts = prompts(&engine);
    let expected = expected(&prompts);
    for round in 0..3 {
        for (prompt, expected) in prompts.iter().zip(&expected) {
            assert_eq!(&logits(&mut engine, prompt), expected, "round {round}");
        }
    }
    let observed = engine.observe();
    let (host, _) = restored_bytes(&observed);
    assert!(host > 100 * 368_640, "{host} bytes came back from memory");
    // What ran before is restored; a tail of a chunk may be computed again.
    let first_time = 4 * 600;
    assert!((observed.tokens_computed as usize) < first_time + 8 * 40, "{}", observed.tokens_computed);
}

#[test]
fn a_restart_finds_the_sealed_blocks_and_a_flipped_bit_is_found() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let open = || load(|config| with_tiers(config, Some(folder.path())));
    let mut engine = open();
    let prompts = prompts(&engine);
    let expected = expected(&prompts);
    prompts.iter().for_each(|prompt| drop(logits(&mut engine, prompt)));
    engine.flush();
    drop(engine);

    let mut engine = open();
    for (prompt, expected) in prompts.iter().zip(&expected) {
        assert_eq!(&logits(&mut engine, prompt), expected, "restored from disk");
    }
    let observed = engine.observe();
    let (_, disk) = restored_bytes(&observed);
    let (blocks, sealed) = (disk / 368_640, 4 * 37);
    assert!(blocks * 100 >= sealed * 95, "{blocks} of {sealed} blocks");
    assert!(observed.tokens_computed <= 4 * 9 + 16, "{}", observed.tokens_computed);
    drop(engine);

    flip_a_bit_in_the_middle(folder.path());
    let mut engine = open();
    for (prompt, expected) in prompts.iter().zip(&expected) {
        assert_eq!(&logits(&mut engine, prompt), expected, "with a flipped bit on disk");
    }
}

fn flip_a_bit_in_the_middle(folder: &Path) {
    let files = std::fs::read_dir(folder).expect("readable").filter_map(|entry| Some(entry.ok()?.path()));
    let blocks = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "blocks");
    for path in files.filter(blocks) {
        let mut bytes = std::fs::read(&path).expect("readable");
        // Spread over the file, so that some land in blocks that are read again.
        for part in 1..16 {
            let at = bytes.len() * part / 16;
            bytes[at] ^= 1 << (part % 8);
        }
        std::fs::write(&path, bytes).expect("writable");
    }
}

/// Advice changes what is kept, never a token.
#[test]
fn tokens_do_not_depend_on_hints() {
    let mut plain = load(|config| with_tiers(config, None));
    let mut hinted = load(|config| with_tiers(config, None));
    let prompts = prompts(&plain);
    let mut seed = 11_u64;
    let mut next = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for round in 0..12 {
        let prompt = &prompts[next(4) as usize][..500 + next(100) as usize];
        let other = &prompts[next(4) as usize];
        match next(5) {
            0 => _ = hinted.retain(&SCOPE, other, next(5_000), next(1000) as u16),
            1 => _ = hinted.pin(&SCOPE, other, next(5_000)),
            2 => _ = hinted.drop_chain(&SCOPE, other, next(300) as usize, next(2) == 0),
            3 => _ = hinted.prefetch(&SCOPE, other),
            _ => hinted.clear_cache(),
        }
        let (a, b) =
            (ask(&mut plain, request(prompt.to_vec(), 8)), ask(&mut hinted, request(prompt.to_vec(), 8)));
        assert_eq!(a.tokens, b.tokens, "round {round}");
    }
}

#[test]
fn a_paused_answer_goes_on_with_the_same_tokens() {
    let mut engine = load(|config| with_tiers(config, None));
    let prompts = prompts(&engine);
    let whole = ask(&mut engine, request(prompts[0].clone(), 40)).tokens;
    engine.clear_cache();
    let id = engine.submit(request(prompts[0].clone(), 40)).expect("fits");
    let mut seen = Vec::new();
    while seen.len() < 17 {
        seen.extend(super::tokens_of(&engine.step(), id));
    }
    assert_eq!(engine.pause(id), VerbOutcome::Done);
    assert!(engine.is_idle());
    // Others need the room meanwhile.
    prompts[1..].iter().for_each(|prompt| drop(ask(&mut engine, request(prompt.clone(), 4))));
    assert_eq!(engine.resume(id), VerbOutcome::Done);
    while !engine.is_idle() {
        seen.extend(super::tokens_of(&engine.step(), id));
    }
    assert_eq!(seen, whole);
}

#[test]
fn another_engine_goes_on_with_copied_blocks() {
    let mut first = load(|config| with_tiers(config, None));
    let tokens = prompts(&first).swap_remove(0);
    let expected = logits(&mut first, &tokens);
    let whole = tokens.len() / 16;
    assert_eq!(first.held(&SCOPE, &tokens), whole);
    let mut second = load(|config| with_tiers(config, None));
    assert_eq!(second.held(&SCOPE, &tokens), 0);
    // In two pieces, as they are copied while a chain grows.
    for (from, most) in [(0, 20), (20, whole)] {
        let blocks = first.copy_out(&SCOPE, &tokens, from, most);
        assert_eq!(blocks.len(), most.min(whole - from));
        assert_eq!(second.copy_in(&SCOPE, 0, &tokens, from, &blocks), blocks.len());
    }
    assert_eq!((second.held(&SCOPE, &tokens), second.held(&[9; 32], &tokens)), (whole, 0));
    assert_eq!(logits(&mut second, &tokens), expected);
    let computed = second.observe().tokens_computed as usize;
    assert!(computed <= tokens.len() % 16 + 16, "{computed} of {} tokens were computed", tokens.len());

    let short = vec![vec![0; 8]];
    assert_eq!(second.copy_in(&SCOPE, 0, &tokens[100..], 0, &short), 0, "another engine's length");
    let mut without = load(|config| config.host_kv_bytes = 0);
    let blocks = first.copy_out(&SCOPE, &tokens, 0, 1);
    assert_eq!(without.copy_in(&SCOPE, 0, &tokens, 0, &blocks), 0, "no host tier");
}
