//! Processes that are killed while they write KV blocks, and what the next one finds.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sys::disk::RealDisk;
use types::Hash;
use worker_inference::prefix::{Key, Naming};
use worker_inference::tiers::{Fetch, Meta, Where};
use worker_inference::{Tiers, TiersConfig};

const BLOCK: usize = 16 << 10;
/// Blocks of one chain.
const CHAIN: u32 = 50;
/// Set for the process that is to be killed: the folder, and the blocks its disk tier has room for.
const FOLDER: &str = "QUORATE_TEST_TIERS_FOLDER";
const ROOM: &str = "QUORATE_TEST_TIERS_ROOM";

fn open(folder: &Path, room: u32) -> Tiers {
    let config = TiersConfig {
        numerics: Hash([9; 32]),
        block_bytes: BLOCK,
        host_bytes: 0,
        // A slot, its header, and something for the file's own header.
        disk_bytes: u64::from(room) * (BLOCK as u64 + 256) + (64 << 10),
        staging_blocks: 16,
        keep_bytes_s: u64::MAX,
    };
    let disk = RealDisk::private(folder).expect("the folder is free: the process before is dead");
    Tiers::open(config, Some(Box::new(disk)))
}

fn tokens(number: u32) -> [u32; 16] {
    std::array::from_fn(|index| number * 16 + index as u32)
}

/// The names of the blocks `0..`, in chains.
fn named() -> impl Iterator<Item = (Key, Meta)> {
    let naming = Naming::new(Hash([9; 32]));
    let mut last = None;
    (0_u32..).map(move |number| {
        let parent = last.filter(|_| !number.is_multiple_of(CHAIN));
        let key = naming.key(&[1; 32], parent.as_ref(), &tokens(number));
        last = Some(key);
        (key, Meta { parent, tokens: tokens(number), project: [1; 32], class: 0, rank: 0 })
    })
}

fn content(key: &Key) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK];
    blake3::Hasher::new().update(&key.0).finalize_xof().fill(&mut bytes);
    bytes
}

/// Seals blocks as an engine does, eight a step, and says how many there are. Never returns.
fn seal_for_ever(folder: &Path, room: u32) {
    let mut tiers = open(folder, room);
    let mut names = named();
    for sealed in (8..).step_by(8) {
        let step: Vec<(Key, Meta, Vec<u8>)> =
            names.by_ref().take(8).map(|(key, meta)| (key, meta, content(&key))).collect();
        step.iter().for_each(|(key, meta, _)| tiers.want(*key, *meta));
        // Computing the next step takes longer than this.
        while tiers.observed().wanted > 0 {
            tiers.pump(0, |wanted| step.iter().find(|(key, ..)| key == wanted).map(|(.., bytes)| &bytes[..]));
            std::thread::yield_now();
        }
        writeln!(std::io::stdout(), "sealed {sealed}").expect("somebody reads");
    }
}

/// Kills the process after so many blocks. Says how many it had announced by then.
fn killed_after(mut child: Child, blocks: u32) -> u32 {
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut sealed = 0;
    while let Some(Ok(line)) = lines.next() {
        sealed = line.strip_prefix("sealed ").map_or(sealed, |number| number.parse().expect("a number"));
        if sealed >= blocks {
            child.kill().ok();
        }
    }
    let status = child.wait().expect("it was started");
    assert!(!status.success() && sealed >= blocks, "{status} after {sealed} of {blocks} blocks");
    sealed
}

/// How many of the first `sealed` blocks come back, all with the right bytes.
fn usable(tiers: &mut Tiers, sealed: u32) -> u32 {
    let mut found = 0;
    let mut out = vec![0; BLOCK];
    for (key, meta) in named().take(sealed as usize) {
        if tiers.fetch(&key) == Fetch::Absent {
            continue;
        }
        let fetched = tiers.wait(Duration::from_secs(20));
        assert!(fetched.len() == 1 && fetched[0].key == key, "{fetched:?}");
        assert!(fetched[0].arrived, "a killed process leaves no damaged block behind");
        assert_eq!(tiers.meta(&key), Some(&meta));
        assert_eq!(tiers.copy_into(&key, &mut out), Where::Disk);
        assert!(out == content(&key), "block {found} has other bytes");
        found += 1;
    }
    found
}

/// Runs one test of this file again, as the process to be killed.
fn child(test: &str, folder: &Path, room: u32) -> Child {
    Command::new(std::env::current_exe().expect("a path"))
        .args([test, "--exact", "--nocapture"])
        .env(FOLDER, folder)
        .env(ROOM, room.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the test starts itself")
}

fn role() -> Option<(std::path::PathBuf, u32)> {
    let room = std::env::var(ROOM).ok()?.parse().expect("a number");
    Some((std::env::var_os(FOLDER)?.into(), room))
}

#[test]
fn sealed_blocks_are_usable_after_a_kill() {
    if let Some((folder, room)) = role() {
        return seal_for_ever(&folder, room);
    }
    for blocks in [640, 1003, 1777, 2600] {
        let folder = tempfile::tempdir().expect("a folder");
        let sealed =
            killed_after(child("sealed_blocks_are_usable_after_a_kill", folder.path(), 20_000), blocks);
        let mut tiers = open(folder.path(), 20_000);
        let usable = usable(&mut tiers, sealed);
        println!("{usable} of {sealed} sealed blocks are usable after kill -9");
        assert!(usable * 100 >= sealed * 95, "{usable} of {sealed}");
    }
}

#[test]
fn a_kill_while_slots_are_written_over_harms_only_those() {
    const SLOTS: u32 = 600;
    if let Some((folder, room)) = role() {
        return seal_for_ever(&folder, room);
    }
    for blocks in [900, 1500, 2301] {
        let folder = tempfile::tempdir().expect("a folder");
        let child = child("a_kill_while_slots_are_written_over_harms_only_those", folder.path(), SLOTS);
        let sealed = killed_after(child, blocks);
        let mut tiers = open(folder.path(), SLOTS);
        // Blocks that were on their way when it died count as announced or not.
        let usable = usable(&mut tiers, sealed + 64);
        println!("{usable} blocks are usable in {SLOTS} slots after kill -9");
        assert!(usable * 100 >= SLOTS * 95, "{usable} of {SLOTS} slots");
    }
}
