//! The tiers against disks in memory. Killed processes are in `tests/tiers_killed.rs`.

#[path = "tiers_test/damage.rs"]
mod damage;
#[path = "tiers_test/faults.rs"]
mod faults;
#[path = "tiers_test/traffic.rs"]
mod traffic;

use std::time::Duration;

use sys::disk::{CrashDisk, Disk};
use types::Hash;

use super::format::Shape;
use super::*;

/// Small, and no multiple of anything.
const BLOCK: usize = 700;
const SECOND: Duration = Duration::from_secs(20);

fn config(host_blocks: u64, disk_blocks: u32) -> TiersConfig {
    let shape = Shape { numerics: Hash([9; 32]), block_bytes: BLOCK };
    TiersConfig {
        numerics: shape.numerics,
        block_bytes: BLOCK,
        host_bytes: host_blocks * BLOCK as u64,
        disk_bytes: shape.file_bytes(disk_blocks),
        staging_blocks: 8,
        keep_bytes_s: u64::MAX,
    }
}

fn key(number: u32) -> Key {
    Key(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn meta(number: u32) -> Meta {
    Meta { parent: None, tokens: [number; 16], project: [(number % 3) as u8; 32], class: 1, rank: 0 }
}

fn content(number: u32) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn demote(tiers: &mut Tiers, number: u32) -> Demoted {
    tiers.demote(key(number), meta(number), &content(number))
}

/// Keeps blocks, waiting for buffers where needed.
fn keep_all(tiers: &mut Tiers, numbers: std::ops::Range<u32>) {
    for number in numbers {
        assert_eq!(tiers.keep(key(number), meta(number), &content(number)), Kept::Queued, "{number}");
        tiers.flush();
    }
}

/// Fetches and copies a block; None when it is absent. Wrong bytes are never right.
fn restored(tiers: &mut Tiers, number: u32) -> Option<Where> {
    if tiers.fetch(&key(number)) == Fetch::Started {
        let fetched = tiers.wait(SECOND);
        assert_eq!((fetched.len(), fetched[0].key), (1, key(number)));
    }
    let mut out = vec![0; BLOCK];
    let from = tiers.copy_into(&key(number), &mut out);
    assert!(from == Where::Absent || out == content(number), "block {number} came back changed");
    (from != Where::Absent).then_some(from)
}

fn usable(tiers: &mut Tiers, numbers: std::ops::Range<u32>) -> usize {
    numbers.filter(|&number| restored(tiers, number).is_some()).count()
}

fn open(config: TiersConfig, disk: &CrashDisk) -> Tiers {
    Tiers::open(config, Some(Box::new(disk.clone()) as Box<dyn Disk>))
}

#[test]
fn memory_alone_keeps_what_was_used_last() {
    let mut tiers = Tiers::open(config(3, 0), None);
    assert!((0..3).all(|number| demote(&mut tiers, number) == Demoted::Host));
    assert_eq!(demote(&mut tiers, 0), Demoted::Known);
    assert_eq!(restored(&mut tiers, 1), Some(Where::Host));
    assert_eq!(demote(&mut tiers, 3), Demoted::Host);
    let places: Vec<Where> = (0..4).map(|number| tiers.find(&key(number))).collect();
    assert_eq!(places, [Where::Host, Where::Host, Where::Absent, Where::Host]);
    let observed = tiers.observed();
    assert_eq!(observed.gone[&(Tier::Host, Gone::Room)], 1);
    assert_eq!(observed.restored_host_bytes, BLOCK as u64);
    assert_eq!(observed.bytes.values().sum::<u64>(), 3 * BLOCK as u64);
    assert_eq!(observed.bytes[&(Tier::Host, [0; 32], 1)], 2 * BLOCK as u64);
    assert!(observed.disk_off.is_some() && observed.speeds.host_to_device.is_some());
    assert_eq!(tiers.keep(key(9), meta(9), &content(9)), Kept::Off);
}

#[test]
fn what_memory_has_no_room_for_goes_to_the_disk_and_comes_back() {
    let disk = CrashDisk::new();
    let mut tiers = open(config(2, 8), &disk);
    for number in 0..6 {
        assert_eq!(demote(&mut tiers, number), Demoted::Host);
        tiers.flush();
    }
    assert_eq!((tiers.find(&key(0)), tiers.find(&key(5))), (Where::Disk, Where::Host));
    assert_eq!(restored(&mut tiers, 0), Some(Where::Disk));
    assert_eq!(tiers.find(&key(0)), Where::Disk, "a fetched block does not push others out of memory");
    assert_eq!(usable(&mut tiers, 0..6), 6);
    let observed = tiers.observed();
    assert_eq!(observed.gone, [((Tier::Host, Gone::ToDisk), 4)].into());
    assert_eq!(observed.written_bytes, 4 * BLOCK as u64);
    assert!(observed.speeds.disk_to_device().is_some());
}

#[test]
fn a_block_that_is_still_being_written_can_be_fetched() {
    let mut tiers = open(config(0, 8), &CrashDisk::new());
    for number in 0..4 {
        assert_eq!(demote(&mut tiers, number), Demoted::Disk);
        assert_eq!(restored(&mut tiers, number), Some(Where::Disk));
    }
}

#[test]
fn prefetched_blocks_enter_memory() {
    let mut tiers = open(config(3, 8), &CrashDisk::new());
    keep_all(&mut tiers, 0..3);
    let keys: Vec<Key> = (0..4).map(key).collect();
    assert_eq!(tiers.prefetch(&keys), 3, "the fourth is unknown");
    while tiers.find(&key(2)) != Where::Host {
        assert!(tiers.wait(Duration::from_millis(5)).is_empty(), "a hint has no answer");
    }
    assert_eq!(usable(&mut tiers, 0..3), 3);
    assert_eq!(tiers.observed().restored_disk_bytes, 0);
}

#[test]
fn the_end_of_a_cancelled_fetch_is_not_told() {
    let mut tiers = open(config(0, 8), &CrashDisk::new());
    keep_all(&mut tiers, 0..2);
    for _ in 0..50 {
        assert_eq!(tiers.fetch(&key(0)), Fetch::Started);
        tiers.cancel(&key(0));
        assert_eq!(restored(&mut tiers, 1), Some(Where::Disk));
        assert_eq!(restored(&mut tiers, 0), Some(Where::Disk));
    }
}

#[test]
fn a_restart_finds_everything_that_was_written() {
    let disk = CrashDisk::new();
    let mut tiers = open(config(0, 20), &disk);
    keep_all(&mut tiers, 0..20);
    drop(tiers);
    let mut tiers = open(config(0, 20), &disk);
    assert_eq!(tiers.observed().found_blocks, 20);
    assert_eq!(tiers.meta(&key(7)), Some(&meta(7)));
    assert_eq!(usable(&mut tiers, 0..2), 2);
    keep_all(&mut tiers, 20..21);
    assert_eq!(tiers.find(&key(2)), Where::Absent, "written longest ago, and not used since");
    assert_eq!(usable(&mut tiers, 0..21), 20);
}

#[test]
fn sealed_blocks_are_written_behind_within_the_bandwidth() {
    let limits = TiersConfig { keep_bytes_s: 10 * BLOCK as u64, ..config(4, 100) };
    let mut tiers = open(limits, &CrashDisk::new());
    let bytes: Vec<Vec<u8>> = (0..40).map(content).collect();
    (0..40).for_each(|number| tiers.want(key(number), meta(number)));
    let of_pool =
        |wanted: &Key| (0..40).find(|&number| key(number) == *wanted).map(|n| &bytes[n as usize][..]);
    for second in 0..3 {
        // As often as it likes: the rate is that of the clock.
        for _ in 0..20 {
            tiers.pump(second * 1_000_000, of_pool);
            tiers.flush();
        }
    }
    assert_eq!(tiers.observed().wanted, 10, "one second saved up, and two passed");
    assert_eq!(demote(&mut tiers, 30), Demoted::Host);
    tiers.pump(3_000_000, |_| None);
    let observed = tiers.observed();
    assert_eq!((observed.wanted, observed.wanted_lost), (0, 9), "only the demoted one was still to be had");
    assert_eq!(usable(&mut tiers, 0..40), 31);
}

#[test]
fn a_chain_longer_than_the_disk_keeps_its_beginning() {
    let mut tiers = open(config(0, 10), &CrashDisk::new());
    for number in 0..30 {
        let meta = Meta { parent: (number > 0).then(|| key(number - 1)), ..meta(number) };
        let kept = tiers.keep(key(number), meta, &content(number));
        assert_eq!(kept, if number < 10 { Kept::Queued } else { Kept::Full }, "{number}");
        tiers.flush();
    }
    assert_eq!(usable(&mut tiers, 0..30), 10);
}

#[test]
fn forgotten_blocks_leave_no_bytes() {
    let disk = CrashDisk::new();
    let mut tiers = open(config(4, 20), &disk);
    keep_all(&mut tiers, 0..9);
    assert_eq!(demote(&mut tiers, 3), Demoted::Host);
    assert_eq!(tiers.fetch(&key(6)), Fetch::Started);
    assert_eq!(tiers.forget_project(&[0; 32]), 3);
    assert_eq!(tiers.wait(SECOND), [Fetched { key: key(6), arrived: false }]);
    tiers.flush();
    assert_eq!(usable(&mut tiers, 0..9), 6);
    assert!(tiers.forget(&key(1)) && !tiers.forget(&key(1)));
    drop(tiers);
    let files = disk.list("").unwrap().into_iter().map(|name| disk.read(&name).unwrap());
    let stored = files.collect::<Vec<_>>().concat();
    for number in 0..9 {
        let is_there = stored.windows(64).any(|bytes| bytes == &content(number)[300..364]);
        let is_named = stored.windows(32).any(|bytes| bytes == key(number).0);
        assert_eq!((is_there, is_named), (number % 3 != 0 && number != 1, number % 3 != 0 && number != 1));
    }
}

#[test]
fn a_block_that_arrived_and_is_forgotten_is_told_once() {
    let mut tiers = open(config(4, 20), &CrashDisk::new());
    keep_all(&mut tiers, 0..9);
    assert_eq!(tiers.fetch(&key(6)), Fetch::Started);
    // Until it is there, without asking what ended.
    while tiers.disk.wait(SECOND) {}
    tiers.settle();
    assert!(tiers.forget(&key(6)));
    assert_eq!(tiers.poll(), [Fetched { key: key(6), arrived: false }]);
}

#[test]
fn rank_decides_what_goes() {
    let mut tiers = open(config(2, 2), &CrashDisk::new());
    let ranked = |number, rank| Meta { rank, ..meta(number) };
    for (number, rank) in [(0, 5), (1, 9), (2, 7)] {
        assert_eq!(tiers.demote(key(number), ranked(number, rank), &content(number)), Demoted::Host);
    }
    tiers.flush();
    assert_eq!((tiers.find(&key(0)), tiers.find(&key(1))), (Where::Disk, Where::Host));
    // Worth less than all of memory: straight to the disk.
    assert_eq!(tiers.demote(key(3), ranked(3, 1), &content(3)), Demoted::Disk);
    tiers.flush();
    assert_eq!(tiers.demote(key(4), ranked(4, 0), &content(4)), Demoted::Lost);
    tiers.set_rank(&key(1), 0);
    assert_eq!(tiers.demote(key(5), ranked(5, 7), &content(5)), Demoted::Host);
    assert_eq!((tiers.find(&key(1)), tiers.find(&key(3))), (Where::Absent, Where::Disk));
}
