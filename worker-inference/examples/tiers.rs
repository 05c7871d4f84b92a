//! How fast KV blocks go to the host tier and to disk, and back. Blocks of the size of SmolLM2-135M.
//!
//! `cargo run --release -p worker-inference --example tiers -- FOLDER [BLOCKS] [cold]`: the folder is emptied
//! first and should be on the disk in question. What was just written lies in the kernel's cache, so reads tell
//! of a warm start; with `cold`, blocks of an earlier run are read only, for use after the cache was dropped.

use std::time::{Duration, Instant};

use sys::disk::RealDisk;
use types::Hash;
use worker_inference::prefix::{Key, Naming};
use worker_inference::tiers::{Fetch, Kept, Meta, Where};
use worker_inference::{Tiers, TiersConfig};

const BLOCK: usize = 368_640;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("give a folder on the disk to be measured");
    let blocks: usize = arguments.next().map_or(500, |text| text.parse().expect("a number of blocks"));
    let is_cold = arguments.next().is_some_and(|word| word == "cold");
    let names = named(blocks);
    // Not all equal, or a file system that compresses would look better than it is.
    let mut pool = vec![0_u8; BLOCK * 64];
    blake3::Hasher::new().finalize_xof().fill(&mut pool);
    if !is_cold {
        std::fs::remove_dir_all(&folder).ok();
        host(&names, &pool);
        keep(&folder, &names, &pool);
    }
    fetch(&folder, &names);
}

fn named(blocks: usize) -> Vec<(Key, Meta)> {
    let naming = Naming::new(Hash([9; 32]));
    let mut parent = None;
    let name = |number: usize| {
        let tokens = [number as u32; 16];
        let key = naming.key(&[1; 32], parent.as_ref(), &tokens);
        let meta = Meta { parent, tokens, project: [1; 32], class: 0, rank: 0 };
        parent = Some(key);
        (key, meta)
    };
    (0..blocks).map(name).collect()
}

fn block(pool: &[u8], number: usize) -> &[u8] {
    &pool[number % 64 * BLOCK..][..BLOCK]
}

fn config(host_blocks: usize, disk_bytes: u64) -> TiersConfig {
    TiersConfig {
        numerics: Hash([9; 32]),
        block_bytes: BLOCK,
        host_bytes: (host_blocks * BLOCK) as u64,
        disk_bytes,
        staging_blocks: 32,
        keep_bytes_s: u64::MAX,
    }
}

fn print(what: &str, blocks: usize, spent: Duration) {
    let rate = (blocks * BLOCK) as f64 / spent.as_secs_f64() / 1e9;
    println!("{what:<44} {:>8.1} us a block {rate:>8.2} GB/s", spent.as_secs_f64() * 1e6 / blocks as f64);
}

fn host(names: &[(Key, Meta)], pool: &[u8]) {
    let mut tiers = Tiers::open(config(names.len(), 0), None);
    for round in ["pool to host tier, memory not touched before", "pool to host tier"] {
        let start = Instant::now();
        for (number, (key, meta)) in names.iter().enumerate() {
            tiers.demote(*key, *meta, block(pool, number));
        }
        print(round, names.len(), start.elapsed());
        if round.ends_with("before") {
            names.iter().for_each(|(key, _)| _ = tiers.forget(key));
        }
    }
    let mut out = vec![0; BLOCK * 64];
    let start = Instant::now();
    for (number, (key, _)) in names.iter().enumerate() {
        let out = &mut out[number % 64 * BLOCK..][..BLOCK];
        assert_eq!(tiers.copy_into(key, out), Where::Host);
    }
    print("host tier to pool, checked", names.len(), start.elapsed());
}

fn keep(folder: &str, names: &[(Key, Meta)], pool: &[u8]) {
    let disk = RealDisk::private(folder).expect("the folder can be used");
    let mut tiers = Tiers::open(config(0, 1 << 40), Some(Box::new(disk)));
    let (start, mut calls) = (Instant::now(), Duration::ZERO);
    for (number, (key, meta)) in names.iter().enumerate() {
        loop {
            let call = Instant::now();
            let kept = tiers.keep(*key, *meta, block(pool, number));
            if kept == Kept::Queued {
                calls += call.elapsed();
                break;
            }
            tiers.flush();
        }
    }
    tiers.flush();
    print("keep: the engine's thread", names.len(), calls);
    print("keep: until it is written", names.len(), start.elapsed());
    println!("{:?}", tiers.speeds());
}

fn fetch(folder: &str, names: &[(Key, Meta)]) {
    let start = Instant::now();
    let disk = RealDisk::private(folder).expect("the folder can be used");
    let mut tiers = Tiers::open(config(0, 1 << 40), Some(Box::new(disk)));
    let found = tiers.observed().found_blocks;
    println!("index of {found} blocks made in {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    let mut out = vec![0; BLOCK];
    let (start, mut copies) = (Instant::now(), Duration::ZERO);
    let (mut asked, mut done) = (0, 0);
    while done < names.len() {
        while asked < names.len() && tiers.fetch(&names[asked].0) == Fetch::Started {
            asked += 1;
        }
        for fetched in tiers.wait(Duration::from_secs(10)) {
            assert!(fetched.arrived, "a block was lost");
            let call = Instant::now();
            assert_eq!(tiers.copy_into(&fetched.key, &mut out), Where::Disk);
            copies += call.elapsed();
            done += 1;
        }
    }
    print("fetch: disk to pool, checked", names.len(), start.elapsed());
    print("fetch: of that, copies on the engine's thread", names.len(), copies);
    println!("{:?}", tiers.speeds());
}
