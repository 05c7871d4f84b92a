//! Disks that are full, broken, or belong to somebody else.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sys::disk::DiskFile;

use super::*;

/// A disk whose writes or reads fail from some moment on.
#[derive(Clone, Default)]
struct Broken {
    disk: CrashDisk,
    writes: Arc<AtomicBool>,
    reads: Arc<AtomicBool>,
}

struct BrokenFile {
    file: Box<dyn DiskFile>,
    of: Broken,
}

fn fails(switch: &AtomicBool) -> io::Result<()> {
    if switch.load(Ordering::SeqCst) { Err(io::Error::other("the drive is gone")) } else { Ok(()) }
}

impl Disk for Broken {
    fn create_dir_all(&self, dir: &str) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        fails(&self.reads)?;
        self.disk.list(dir)
    }
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        fails(&self.reads)?;
        self.disk.read(path)
    }
    fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(BrokenFile { file: self.disk.open(path)?, of: self.clone() }))
    }
    fn exists(&self, path: &str) -> io::Result<bool> {
        self.disk.exists(path)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn sync_all(&self) -> io::Result<()> {
        self.disk.sync_all()
    }
}

impl DiskFile for BrokenFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        fails(&self.of.reads)?;
        self.file.read_at(offset, into)
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        fails(&self.of.writes)?;
        self.file.write_at(offset, bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }
    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
}

fn open_broken(config: TiersConfig, disk: &Broken) -> Tiers {
    Tiers::open(config, Some(Box::new(disk.clone())))
}

fn off(tiers: &Tiers) -> String {
    tiers.observed().disk_off.expect("the disk tier is off")
}

#[test]
fn a_write_that_fails_switches_the_disk_off_and_nothing_else() {
    let disk = Broken::default();
    let mut tiers = open_broken(config(2, 8), &disk);
    keep_all(&mut tiers, 0..3);
    assert_eq!(tiers.fetch(&key(1)), Fetch::Started);
    assert!(tiers.wait(SECOND)[0].arrived);
    disk.writes.store(true, Ordering::SeqCst);
    assert_eq!(tiers.keep(key(3), meta(3), &content(3)), Kept::Queued);
    tiers.flush();
    assert!(off(&tiers).contains("the drive is gone"));
    assert_eq!(restored(&mut tiers, 1), Some(Where::Disk), "it had arrived before");
    assert_eq!((tiers.find(&key(0)), tiers.fetch(&key(0))), (Where::Absent, Fetch::Absent));
    assert!((4..9).all(|number| demote(&mut tiers, number) == Demoted::Host));
    assert_eq!(usable(&mut tiers, 4..9), 2);
    disk.writes.store(false, Ordering::SeqCst);
    drop(tiers);
    assert_eq!(usable(&mut open_broken(config(2, 8), &disk), 0..3), 3, "found at the next start");
}

#[test]
fn bytes_whose_write_failed_still_reach_who_waits_for_them() {
    let disk = Broken::default();
    let mut tiers = open_broken(config(0, 8), &disk);
    disk.writes.store(true, Ordering::SeqCst);
    assert_eq!(demote(&mut tiers, 0), Demoted::Disk);
    // Whichever came first: the bytes, or the end of the tier.
    if tiers.fetch(&key(0)) == Fetch::Started {
        assert_eq!(
            restored(&mut tiers, 0),
            Some(Where::Disk).filter(|_| tiers.observed().disk_off.is_none())
        );
    }
    tiers.flush();
    assert!(off(&tiers).contains("the drive is gone"));
}

#[test]
fn a_forgotten_project_goes_even_from_a_disk_that_was_switched_off() {
    let disk = Broken::default();
    let mut tiers = open_broken(config(0, 8), &disk);
    keep_all(&mut tiers, 0..6);
    disk.writes.store(true, Ordering::SeqCst);
    demote(&mut tiers, 7);
    tiers.flush();
    off(&tiers);
    assert_eq!(tiers.forget_project(&[0; 32]), 0);
    drop(tiers);
    assert_eq!(disk.disk.list("").unwrap(), Vec::<String>::new());
}

#[test]
fn reads_that_fail_lose_blocks_and_at_last_the_tier() {
    let disk = Broken::default();
    let mut tiers = open_broken(config(0, 40), &disk);
    keep_all(&mut tiers, 0..20);
    assert_eq!(restored(&mut tiers, 0), Some(Where::Disk));
    disk.reads.store(true, Ordering::SeqCst);
    assert_eq!(usable(&mut tiers, 0..7), 0);
    assert_eq!(tiers.observed().disk_off, None);
    disk.reads.store(false, Ordering::SeqCst);
    assert_eq!(restored(&mut tiers, 7), Some(Where::Disk));
    disk.reads.store(true, Ordering::SeqCst);
    assert_eq!(usable(&mut tiers, 7..20), 0);
    assert!(off(&tiers).contains("the drive is gone"));
    drop(tiers);
    assert!(off(&open_broken(config(0, 40), &disk)).contains("can't be read"));
}

#[test]
fn a_full_disk_leaves_the_tier_at_its_size() {
    let disk = CrashDisk::new();
    let mut tiers = open(config(0, 4), &disk);
    keep_all(&mut tiers, 0..4);
    drop(tiers);
    disk.set_capacity(Some(config(0, 4).disk_bytes + 1000));
    let mut tiers = open(config(0, 40), &disk);
    assert_eq!(tiers.keep(key(4), meta(4), &content(4)), Kept::Queued);
    tiers.flush();
    assert_eq!(tiers.observed().disk_off, None);
    assert_eq!(tiers.find(&key(4)), Where::Absent, "its file could not be made");
    keep_all(&mut tiers, 5..8);
    assert_eq!(usable(&mut tiers, 0..8), 4);
    assert_eq!(disk.list("").unwrap().len(), 1);
}

#[test]
fn a_disk_without_room_for_a_first_file_is_off() {
    let disk = CrashDisk::new();
    disk.set_capacity(Some(1000));
    let mut tiers = open(config(1, 40), &disk);
    assert_eq!(tiers.keep(key(4), meta(4), &content(4)), Kept::Queued);
    tiers.flush();
    assert!(!off(&tiers).is_empty());
    assert_eq!(demote(&mut tiers, 5), Demoted::Host);
    let tiny = TiersConfig { disk_bytes: BLOCK as u64, ..config(1, 1) };
    assert!(off(&open(tiny, &CrashDisk::new())).contains("smaller than one block"));
}

#[test]
fn blocks_of_other_numerics_are_never_found_and_make_room() {
    let disk = CrashDisk::new();
    let mut tiers = open(config(0, 4), &disk);
    keep_all(&mut tiers, 0..4);
    drop(tiers);
    let other = TiersConfig { numerics: Hash([8; 32]), ..config(0, 4) };
    let mut tiers = open(other, &disk);
    assert_eq!((tiers.observed().found_blocks, usable(&mut tiers, 0..4)), (0, 0));
    assert_eq!(disk.list("").unwrap(), ["kv-00000000.blocks"], "kept as long as nobody needs its room");
    keep_all(&mut tiers, 0..2);
    assert_eq!(disk.list("").unwrap(), ["kv-00000001.blocks"]);
    assert!(tiers.observed().file_bytes <= other.disk_bytes);
    assert_eq!(usable(&mut tiers, 0..4), 2);
}

#[test]
fn a_format_of_the_future_and_files_of_others_are_left_alone() {
    let disk = CrashDisk::new();
    disk.open("kv-1.blocks").unwrap().write_at(0, b"not ours").unwrap();
    disk.open("kv-00000007.blocks").unwrap().write_at(0, b"empty").unwrap();
    let tiers = open(config(0, 4), &disk);
    drop(tiers);
    let shape = Shape { numerics: Hash([9; 32]), block_bytes: BLOCK };
    let mut header = shape.file_header(4);
    header[8] = 2;
    let sum = check::header_sum(&[&header[..56]]);
    header[56..].copy_from_slice(&sum);
    assert_eq!(shape.read_file_header(&header), None);
    let mut file = disk.open("kv-00000009.blocks").unwrap();
    file.write_at(0, &header).unwrap();
    let mut tiers = open(config(0, 4), &disk);
    assert_eq!(tiers.observed().found_blocks, 0);
    keep_all(&mut tiers, 0..4);
    assert_eq!(disk.list("").unwrap(), ["kv-00000010.blocks", "kv-1.blocks"]);
}

#[test]
fn a_smaller_bound_holds_from_the_start() {
    let disk = CrashDisk::new();
    let mut tiers = open(config(0, 4), &disk);
    keep_all(&mut tiers, 0..4);
    drop(tiers);
    let mut tiers = open(TiersConfig { disk_bytes: 2 * config(0, 4).disk_bytes, ..config(0, 4) }, &disk);
    keep_all(&mut tiers, 4..8);
    drop(tiers);
    assert_eq!(disk.list("").unwrap().len(), 2);
    let mut tiers = open(config(0, 4), &disk);
    assert!(tiers.observed().file_bytes <= config(0, 4).disk_bytes);
    assert_eq!(disk.list("").unwrap().len(), 1);
    assert_eq!((usable(&mut tiers, 0..4), usable(&mut tiers, 4..8)), (0, 4));
}
