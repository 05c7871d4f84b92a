//! Bytes on disk that are not what was written.

use super::*;

/// A disk with one file of blocks, and the file's name.
fn written(blocks: u32) -> (CrashDisk, String) {
    let disk = CrashDisk::new();
    let mut tiers = open(config(0, blocks), &disk);
    keep_all(&mut tiers, 0..blocks);
    drop(tiers);
    let name = disk.list("").unwrap().remove(0);
    (disk, name)
}

fn flip(disk: &CrashDisk, name: &str, bit: u64) {
    let mut file = disk.open(name).unwrap();
    let mut byte = [0];
    file.read_at(bit / 8, &mut byte).unwrap();
    file.write_at(bit / 8, &[byte[0] ^ 1 << (bit % 8)]).unwrap();
}

/// What a bit belongs to: None for the file's own header, else the slot; or nothing at all.
enum Part {
    File,
    Slot,
    Filling,
}

fn part(shape: &Shape, blocks: u32, at: u64) -> Part {
    let within = |start: u64, len: usize| (start..start + len as u64).contains(&at);
    let is_slot = |slot: u32| {
        within(Shape::header_at(slot), format::HEADER_BYTES) || within(shape.payload_at(blocks, slot), BLOCK)
    };
    match (0..blocks).any(is_slot) {
        true => Part::Slot,
        false if at < format::FILE_HEADER_BYTES as u64 => Part::File,
        false => Part::Filling,
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    const BLOCKS: u32 = 3;
    let shape = Shape { numerics: Hash([9; 32]), block_bytes: BLOCK };
    let (disk, name) = written(BLOCKS);
    // One bit, another one each time, of every seventh byte of the whole file.
    for at in (0..shape.file_bytes(BLOCKS)).step_by(7) {
        let bit = at * 8 + at % 8;
        flip(&disk, &name, bit);
        let mut tiers = open(config(0, BLOCKS), &disk);
        let expected = match part(&shape, BLOCKS, at) {
            Part::File => 0,
            Part::Slot => BLOCKS - 1,
            Part::Filling => BLOCKS,
        };
        assert_eq!(usable(&mut tiers, 0..BLOCKS), expected as usize, "byte {at}");
        drop(tiers);
        flip(&disk, &name, bit);
    }
}

#[test]
fn a_bit_flipped_in_memory_is_noticed() {
    let mut tiers = Tiers::open(config(4, 0), None);
    (0..4).for_each(|number| assert_eq!(demote(&mut tiers, number), Demoted::Host));
    for (number, at) in [(0, 0), (1, 350), (2, 699)] {
        tiers.host.item_mut(&key(number)).unwrap().bytes[at] ^= 16;
        assert_eq!(restored(&mut tiers, number), None);
        assert_eq!(tiers.find(&key(number)), Where::Absent);
    }
    assert_eq!(tiers.observed().gone[&(Tier::Host, Gone::Corrupt)], 3);
    assert_eq!(restored(&mut tiers, 3), Some(Where::Host));
}

#[test]
fn damage_is_counted_and_the_slot_used_again() {
    let shape = Shape { numerics: Hash([9; 32]), block_bytes: BLOCK };
    let (disk, name) = written(3);
    flip(&disk, &name, shape.payload_at(3, 1) * 8);
    let mut tiers = open(config(0, 3), &disk);
    assert_eq!(usable(&mut tiers, 0..3), 2);
    assert_eq!(tiers.observed().gone, [((Tier::Disk, Gone::Corrupt), 1)].into());
    keep_all(&mut tiers, 3..4);
    assert_eq!(usable(&mut tiers, 0..4), 3);
}

#[test]
fn a_cut_file_loses_its_end_only() {
    let shape = Shape { numerics: Hash([9; 32]), block_bytes: BLOCK };
    for len in (0..shape.file_bytes(4)).step_by(509) {
        let (disk, name) = written(4);
        disk.open(&name).unwrap().set_len(len).unwrap();
        let whole = (0..4).filter(|slot| shape.payload_at(4, *slot) + BLOCK as u64 <= len).count();
        let mut tiers = open(config(0, 4), &disk);
        assert_eq!(usable(&mut tiers, 0..4), whole, "cut to {len} bytes");
        // A block that is being read keeps its slot.
        while tiers.disk.wait(SECOND) {}
        (4..8).for_each(|number| assert_eq!(demote(&mut tiers, number), Demoted::Disk, "cut to {len} bytes"));
        tiers.flush();
        assert_eq!(tiers.observed().disk_off, None);
        assert_eq!(usable(&mut tiers, 4..8), 4, "cut to {len} bytes");
    }
}

#[test]
fn a_power_cut_loses_blocks_and_changes_none() {
    for seed in 0..60 {
        let disk = CrashDisk::new();
        disk.sync_dir("").unwrap();
        let mut tiers = open(config(0, 8), &disk);
        keep_all(&mut tiers, 0..8);
        // The second half of them overwrites slots.
        keep_all(&mut tiers, 8..12);
        drop(tiers);
        disk.sync_dir("").unwrap();
        disk.crash(seed);
        let mut tiers = open(config(0, 8), &disk);
        let left = usable(&mut tiers, 0..12);
        assert!(left <= 8);
        keep_all(&mut tiers, 20..28);
        assert_eq!(usable(&mut tiers, 20..28), 8);
    }
}

#[test]
fn random_bytes_in_place_of_a_file_are_not_believed() {
    let (disk, name) = written(4);
    let good = disk.read(&name).unwrap();
    for seed in 0..40_u64 {
        let mut bytes = good.clone();
        let mut noise = vec![0; 2000];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
        // In the middle of the table, over its end, or from the start.
        let at = [80, 4000, 5000, 0][seed as usize % 4];
        bytes[at..at + noise.len()].copy_from_slice(&noise);
        let mut file = disk.open(&name).unwrap();
        file.set_len(0).unwrap();
        file.write_at(0, &bytes).unwrap();
        usable(&mut open(config(0, 4), &disk), 0..4);
    }
}
