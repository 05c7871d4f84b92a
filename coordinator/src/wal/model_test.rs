//! The log against a map, with the power cut at random points; damage, owners, group commit.

use super::*;
use std::collections::BTreeMap;
use std::sync::mpsc;
use sys::disk::CrashDisk;

const CLUSTER: ClusterId = ClusterId([7; 16]);

/// Small files and a small cache, so that a short run goes through many of both.
fn options(flush: Flush) -> WalOptions {
    WalOptions {
        segment_bytes: 2048,
        cache_bytes: 700,
        ..WalOptions::new("raft/wal", CLUSTER, NodeId(1), flush)
    }
}

fn open(disk: &CrashDisk) -> Result<Wal, WalError> {
    Wal::open(Arc::new(disk.clone()), options(Flush::Inline))
}

/// Submits and waits: inline, the answer is there when `submit` returns.
fn submit(wal: &Wal, changes: Vec<Change>) -> io::Result<()> {
    let (tx, rx) = mpsc::channel();
    wal.submit(changes, Box::new(move |result| tx.send(result).expect("the test waits")))?;
    rx.recv().expect("done is called once")
}

fn id(term: u64, index: u64) -> EntryId {
    EntryId { term, node: term % 3, index }
}

fn entry(term: u64, index: u64, bytes: usize) -> Change {
    Change::Append { id: id(term, index), body: Bytes::from(vec![(index % 251) as u8; bytes]) }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    vote: Option<Vote>,
    committed: Option<EntryId>,
    purged: Option<EntryId>,
    entries: BTreeMap<u64, (EntryId, Bytes)>,
}

impl Model {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Vote(vote) => self.vote = Some(*vote),
            Change::Append { id, body } => drop(self.entries.insert(id.index, (*id, body.clone()))),
            Change::Truncate { from } => self.entries.retain(|index, _| index < from),
            Change::Commit(id) => self.committed = *id,
            Change::Purge(id) if self.purged.is_none_or(|p| p.index < id.index) => {
                self.entries.retain(|index, _| *index > id.index);
                self.purged = Some(*id);
            }
            Change::Purge(_) => {}
        }
    }

    fn of(wal: &Wal) -> Model {
        let Summary { vote, committed, purged, .. } = wal.summary();
        let read = wal.entries(.., usize::MAX).expect("entries are readable");
        let entries = read.into_iter().map(|(id, body)| (id.index, (id, body))).collect();
        Model { vote, committed, purged, entries }
    }

    fn next_index(&self) -> u64 {
        let last = self.entries.last_key_value().map(|(index, _)| *index);
        last.or(self.purged.map(|p| p.index)).map_or(0, |index| index + 1)
    }

    /// Something raft could ask for here.
    fn changes(&self, rng: &mut Rng, term: &mut u64) -> Vec<Change> {
        let next = self.next_index();
        match rng.below(10) {
            0 => {
                *term += 1;
                vec![Change::Vote(Vote { term: *term, node: rng.below(3), granted: rng.below(2) == 0 })]
            }
            1 if !self.entries.is_empty() => {
                let first = *self.entries.first_key_value().expect("not empty").0;
                vec![Change::Truncate { from: first + rng.below(next - first + 1) }]
            }
            2 if next > 0 => vec![Change::Purge(id(*term, next.saturating_sub(1 + rng.below(12))))],
            3 if next > 0 => vec![Change::Commit(Some(id(*term, next - 1)))],
            4 if rng.below(8) == 0 => vec![Change::Purge(id(*term, next + rng.below(5)))],
            _ => (0..1 + rng.below(4)).map(|n| entry(*term, next + n, rng.below(400) as usize)).collect(),
        }
    }
}

#[test]
fn what_was_called_done_survives_a_power_cut_anywhere() {
    let (mut reopened, mut files_dropped) = (0, 0);
    for seed in 0..250 {
        let mut rng = Rng(seed);
        let disk = CrashDisk::new();
        let mut term = 1;
        // Every state since the last durable one: a crash may leave any of them, nothing else.
        let mut possible = vec![Model::default()];
        for round in 0..8 {
            let wal = open(&disk).unwrap_or_else(|e| panic!("seed {seed} round {round}: {e}"));
            let found = Model::of(&wal);
            assert!(
                possible.contains(&found),
                "seed {seed} round {round}: {found:?} is none of {possible:?}"
            );
            if rng.below(2) == 0 {
                // What was read at open counts as durable from then on, whoever wrote it.
                disk.crash(rng.next());
                assert_eq!(Model::of(&open(&disk).unwrap()), found, "seed {seed} round {round}");
                continue;
            }
            possible = vec![found];
            disk.cut_power_in(1 + rng.below(60));
            for _ in 0..200 {
                let mut state = possible.last().expect("never empty").clone();
                let changes = state.changes(&mut rng, &mut term);
                for change in &changes {
                    state.apply(change);
                    possible.push(state.clone());
                }
                let hint = matches!(changes[..], [Change::Commit(_)]);
                match submit(&wal, changes) {
                    Ok(()) if hint => {}
                    Ok(()) => possible = vec![state],
                    Err(_) => break,
                }
                if disk.is_dead() {
                    // The power went while an old file was removed, which nobody waits for.
                    break;
                }
                assert_eq!(Model::of(&wal), *possible.last().expect("never empty"), "seed {seed}");
            }
            let after = submit(&wal, vec![Change::Truncate { from: 0 }]);
            assert!(after.is_err() || !disk.is_dead(), "it goes on after an error");
            match rng.below(2) {
                0 => disk.kill_program(),
                _ => disk.crash(rng.next()),
            }
            reopened += 1;
            let files = disk.list("raft/wal").unwrap_or_default();
            files_dropped +=
                usize::from(files.first().is_some_and(|name| name.as_str() > "0000000000000001"));
        }
    }
    assert!(reopened > 800 && files_dropped > 100, "{reopened} {files_dropped}");
}

#[test]
fn the_planted_bug_is_seen() {
    let caught = (0..50).any(|seed| {
        let disk = CrashDisk::new();
        let planted = WalOptions { planted: Some(Planted::AcknowledgeBeforeSync), ..options(Flush::Inline) };
        let wal = Wal::open(Arc::new(disk.clone()), planted).unwrap();
        submit(&wal, vec![entry(1, 0, 50)]).unwrap();
        disk.crash(seed);
        Model::of(&open(&disk).unwrap()).entries.is_empty()
    });
    assert!(caught);
}

#[test]
fn an_entry_larger_than_a_file_gets_a_larger_file() {
    let disk = CrashDisk::new();
    let wal = open(&disk).unwrap();
    submit(&wal, vec![entry(1, 0, 10), entry(1, 1, 9000), entry(1, 2, 10)]).unwrap();
    let before = Model::of(&wal);
    disk.crash(3);
    assert_eq!(Model::of(&open(&disk).unwrap()), before);
}

#[test]
fn a_failed_sync_stops_the_log_for_good() {
    let disk = CrashDisk::new();
    let wal = open(&disk).unwrap();
    disk.fail_sync_in(1);
    assert!(submit(&wal, vec![entry(1, 0, 10)]).is_err());
    let error = submit(&wal, vec![entry(1, 1, 10)]).unwrap_err().to_string();
    assert!(error.contains("has stopped") && error.contains("failed to sync"), "{error}");
}

#[test]
fn a_full_disk_stops_the_log_and_what_was_done_stays() {
    let disk = CrashDisk::new();
    let wal = open(&disk).unwrap();
    submit(&wal, vec![entry(1, 0, 1500)]).unwrap();
    disk.set_capacity(Some(3000));
    let error = submit(&wal, vec![entry(1, 1, 1500)]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    disk.set_capacity(None);
    assert_eq!(Model::of(&open(&disk).unwrap()).entries.len(), 1);
}

#[test]
fn damage_before_the_end_is_refused_wherever_it_is() {
    let disk = CrashDisk::new();
    let wal = open(&disk).unwrap();
    for index in 0..20 {
        submit(&wal, vec![entry(1, index, 300)]).unwrap();
    }
    let files = disk.list("raft/wal").unwrap();
    assert!(files.len() >= 3, "{files:?}");
    for file in &files {
        let path = format!("raft/wal/{file}");
        let good = disk.read(&path).unwrap();
        // The very last record of all has no witness behind it; damage there looks like a torn end.
        for at in [0, 20, 150, 500].into_iter().filter(|at| *at < 100 || Some(file) != files.last()) {
            let mut handle = disk.open(&path).unwrap();
            handle.write_at(at, &[good[at as usize] ^ 0x40]).unwrap();
            let error = open(&disk).err().unwrap_or_else(|| panic!("{file} at {at} was accepted"));
            assert!(matches!(error, WalError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("Next:"), "{error}");
            handle.write_at(0, &good).unwrap();
        }
    }
    open(&disk).unwrap();
    disk.remove(&format!("raft/wal/{}", files[1])).unwrap();
    assert!(matches!(open(&disk), Err(WalError::Missing { .. })));
}

#[test]
fn the_log_of_another_node_or_of_a_newer_version_is_refused() {
    let disk = CrashDisk::new();
    open(&disk).unwrap();
    let other = WalOptions { node: NodeId(2), ..options(Flush::Inline) };
    let error = Wal::open(Arc::new(disk.clone()), other).err().unwrap();
    assert!(matches!(error, WalError::Owner { .. }), "{error}");

    let newer = record::Head {
        format: 9,
        min_reader: 9,
        cluster: CLUSTER,
        node: NodeId(1),
        sequence: 2,
        vote: None,
        purged: None,
        committed: None,
    };
    segment::create(&disk, "raft/wal", &newer, 2048).unwrap();
    assert!(matches!(open(&disk), Err(WalError::TooNew { min_reader: 9, .. })));
}

/// The bytes of a log written by the first version, for ever: whoever changes the format sees it here.
#[test]
fn the_first_format_is_still_read() {
    let disk = CrashDisk::new();
    let wal = open(&disk).unwrap();
    let vote = Change::Vote(Vote { term: 3, node: 2, granted: true });
    submit(&wal, vec![vote, entry(3, 0, 3), Change::Commit(Some(id(3, 0)))]).unwrap();
    let bytes = disk.read("raft/wal/0000000000000001.wal").unwrap();
    let end = bytes.iter().rposition(|b| *b != 0).unwrap() + 1;
    let hex: String = bytes[..end].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, include_str!("golden/format-1.hex").trim());
    assert_eq!(Model::of(&open(&disk).unwrap()), Model::of(&wal));
}

/// Keeps the log's thread busy with telling about the first entry, until the gate is opened.
fn hold_the_thread(wal: &Wal) -> mpsc::Sender<()> {
    let (open_gate, gate) = mpsc::channel::<()>();
    let (arrived, arrival) = mpsc::channel();
    let hold = move |_| {
        arrived.send(()).expect("the test waits");
        gate.recv().expect("the gate is opened");
    };
    wal.submit(vec![entry(1, 0, 5)], Box::new(hold)).unwrap();
    arrival.recv().unwrap();
    open_gate
}

#[test]
fn what_waits_is_synced_together() {
    let disk = CrashDisk::new();
    let wal = Wal::open(Arc::new(disk.clone()), options(Flush::Thread)).unwrap();
    let open_gate = hold_the_thread(&wal);
    let (tx, rx) = mpsc::channel();
    for index in 1..=100 {
        let tx = tx.clone();
        wal.submit(vec![entry(1, index, 5)], Box::new(move |r| tx.send(r).expect("waiting"))).unwrap();
    }
    let before = disk.syncs();
    open_gate.send(()).unwrap();
    (0..100).for_each(|_| rx.recv().unwrap().unwrap());
    // A hundred entries fill a few files of 2 KiB; each file costs a sync of its own and one when full.
    assert!(disk.syncs() - before < 30, "{}", disk.syncs() - before);
    wal.close();
    assert!(submit(&wal, vec![entry(1, 101, 5)]).is_err());
    assert_eq!(Model::of(&open(&disk).unwrap()).entries.len(), 101);
}

#[test]
fn what_waits_behind_a_failed_sync_fails_too() {
    let disk = CrashDisk::new();
    let wal = Wal::open(Arc::new(disk.clone()), options(Flush::Thread)).unwrap();
    let open_gate = hold_the_thread(&wal);
    let (tx, rx) = mpsc::channel();
    let told = |name: &'static str| -> Done {
        let tx = tx.clone();
        Box::new(move |result: io::Result<()>| tx.send((name, result.is_ok())).expect("waiting"))
    };
    // The first is large enough to be a batch of its own, so the second would be tried after the failure.
    let large = (1..=5).map(|index| entry(1, index, 1 << 20)).collect();
    wal.submit(large, told("first")).unwrap();
    wal.submit(vec![entry(1, 6, 5)], told("second")).unwrap();
    disk.fail_sync_in(2);
    open_gate.send(()).unwrap();
    assert_eq!((rx.recv().unwrap(), rx.recv().unwrap()), (("first", false), ("second", false)));
    wal.close();
}

/// SplitMix64, the same on every machine.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}
