//! What is swept, what survives it, and what a power cut in the middle of it leaves.

use super::tests::{project, segment};
use super::*;
use sys::disk::CrashDisk;

fn open(disk: &CrashDisk) -> Result<SegmentStore, StoreError> {
    SegmentStore::open(Arc::new(disk.clone()), Box::new(MemoryIndex::default()), [7; 16])
}

/// Files with these bytes, the journal included.
fn holding(disk: &CrashDisk, bytes: &str) -> usize {
    let shards = (0..=u8::MAX).map(|first| format!("segments/a/{first:02x}"));
    let dirs = ["".to_string(), "segments".into()].into_iter().chain(shards);
    let files = dirs.flat_map(|dir| {
        let names = disk.list(&dir).unwrap_or_default().into_iter();
        names.map(move |name| if dir.is_empty() { name } else { format!("{dir}/{name}") })
    });
    let contents = files.filter_map(|path| disk.read(&path).ok());
    contents.filter(|content| content.windows(bytes.len()).any(|part| part == bytes.as_bytes())).count()
}

#[tokio::test]
async fn what_was_doomed_long_enough_goes_with_every_byte() {
    let (disk, a) = (CrashDisk::new(), project("a"));
    let store = open(&disk).unwrap();
    let [old, young, kept] = ["the old one", "the young one", "the kept one"].map(|text| segment(&a, text));
    store.put_all(&a, vec![old.clone(), young.clone(), kept.clone()]).await.unwrap();
    store.doom(&a, [old.0, Hash::of(b"never held")], 10);
    store.doom(&a, [old.0, young.0], 20);
    assert_eq!(store.sweep(&a, 9).await.unwrap(), StoreStats::default());
    assert_eq!(store.sweep(&a, 19).await.unwrap(), StoreStats { segments: 1, bytes: 11 });
    assert_eq!(store.sweep(&a, 19).await.unwrap(), StoreStats::default());
    assert_eq!((holding(&disk, "the old one"), holding(&disk, "the young one")), (0, 1));
    assert_eq!(store.stats(), StoreStats { segments: 2, bytes: 25 });
    assert_eq!(store.missing(&a, &[old.0, young.0, kept.0]).await.unwrap(), [old.0]);
    // It was not forgotten: it may come again.
    store.put_all(&a, vec![old.clone()]).await.unwrap();
    assert_eq!(store.get(&a, old.0).await.unwrap(), Some(old.1));
    let held = store.page(None, 10).await.unwrap();
    assert_eq!(held.len(), 3);
    let last = (a.clone(), held[1].hash);
    assert_eq!(store.page(Some(last), 10).await.unwrap(), held[2..]);
}

#[tokio::test]
async fn who_asks_for_it_or_stores_it_again_keeps_it() {
    let (disk, a) = (CrashDisk::new(), project("a"));
    let store = open(&disk).unwrap();
    let all = ["put again", "read", "asked for", "left alone"].map(|text| segment(&a, text));
    store.put_all(&a, all.to_vec()).await.unwrap();
    store.doom(&a, all.iter().map(|(hash, _)| *hash), 10);
    store.put_all(&a, vec![all[0].clone()]).await.unwrap();
    assert!(store.get(&a, all[1].0).await.unwrap().is_some());
    assert!(store.peek(&a, all[3].0).await.unwrap().is_some());
    assert_eq!(store.missing(&a, &[all[2].0]).await.unwrap(), []);
    assert_eq!(store.sweep(&a, 99).await.unwrap().segments, 1);
    let missing = store.missing(&a, &all.clone().map(|(hash, _)| hash)).await.unwrap();
    assert_eq!(missing, [all[3].0]);
}

/// A sweep and somebody who counts on the same segment, at the same time: whoever is told that it is held has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_is_stored_again_during_a_sweep_survives() {
    let (disk, a) = (CrashDisk::new(), project("a"));
    let store = open(&disk).unwrap();
    let (mut swept, mut spared) = (0, 0);
    for round in 0..300u64 {
        let one = segment(&a, &format!("segment {}", round % 7));
        store.put_all(&a, vec![one.clone()]).await.unwrap();
        store.doom(&a, [one.0], round);
        let sweep = tokio::spawn({
            let (store, a) = (store.clone(), a.clone());
            async move { store.sweep(&a, round).await.unwrap().segments }
        });
        let counts_on_it = match round % 2 {
            0 => store.put_all(&a, vec![one.clone()]).await.is_ok(),
            _ => store.missing(&a, &[one.0]).await.unwrap().is_empty(),
        };
        let went = sweep.await.unwrap();
        (swept, spared) = (swept + went, spared + 1 - went);
        let there = store.get(&a, one.0).await.unwrap().is_some();
        assert!(there || !counts_on_it, "round {round}: it was said to be held, and went");
    }
    assert!(swept > 0 && spared > 0, "{swept} went, {spared} did not: the two never met");
}

#[tokio::test]
async fn a_power_cut_in_the_middle_of_a_sweep_takes_only_garbage() {
    let (mut cut, mut whole) = (0, 0);
    for seed in 0..120u64 {
        let (disk, a) = (CrashDisk::new(), project("a"));
        let store = open(&disk).unwrap();
        let segments = |what: &str| (0..6).map(|n| segment(&a, &format!("{what} {n}"))).collect::<Vec<_>>();
        let (kept, garbage) = (segments("kept"), segments("garbage"));
        store.put_all(&a, kept.iter().chain(&garbage).cloned().collect()).await.unwrap();
        store.doom(&a, garbage.iter().map(|(hash, _)| *hash), 1);
        disk.cut_power_in(1 + seed);
        match store.sweep(&a, 1).await {
            Ok(swept) => whole += (swept.segments == 6) as u32,
            Err(_) => cut += 1,
        }
        drop(store);
        disk.crash(seed);
        let store = open(&disk).unwrap();
        for (hash, bytes) in &kept {
            assert_eq!(store.get(&a, *hash).await.unwrap().as_ref(), Some(bytes), "seed {seed}");
        }
        // What is left of the garbage is whole, and goes the next time.
        for (hash, bytes) in &garbage {
            let found = store.get(&a, *hash).await.unwrap();
            assert!(found.is_none() || found.as_ref() == Some(bytes), "seed {seed}");
        }
        store.doom(&a, garbage.iter().map(|(hash, _)| *hash), 1);
        store.sweep(&a, 1).await.unwrap();
        assert_eq!(holding(&disk, "garbage"), 0, "seed {seed}");
        assert_eq!(store.stats().segments, 6, "seed {seed}");
    }
    assert!(cut > 10 && whole > 10, "{cut} cut off, {whole} not");
}
