//! The stored form of records stays readable. A golden file is changed by adding one, never by rewriting it.

use context::SegmentError;
use memory::{Act, Note, Record};
use types::Hash;

use crate::harness::project;

fn golden() -> Vec<(&'static str, Record)> {
    let record = |n: u64, act| {
        Record::after((n > 1).then(|| (Hash::of(b"before"), n - 1)), act, "writer", 1_764_000_000_000)
    };
    let (one, two) = (Hash::of(b"one"), Hash::of(b"two"));
    vec![
        ("remember", record(1, Act::Remember { item: one, note: None })),
        ("noted", record(2, Act::Remember { item: two, note: Some(Hash::of(b"note")) })),
        ("summary", record(3, Act::Summary { item: Hash::of(b"sum"), replaces: vec![one, two], note: None })),
        ("forget", record(4, Act::Forget { item: one, reason: "USER_REQUEST".into() })),
    ]
}

#[test]
fn golden_records_are_written_and_read_alike() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/memory/golden/record-v1.hex");
    let note = Note::new(
        Hash::of(b"two"),
        1_764_000_000_000,
        "tasks/t_1 step 4",
        ["pay".to_string(), "home".into(), "pay".into()],
    );
    let line = |name: &str, sealed: &context::Sealed| {
        format!("{name} {} {}\n", sealed.hash, data_encoding::HEXLOWER.encode(&sealed.bytes))
    };
    let mut text: String =
        golden().iter().map(|(name, record)| line(name, &record.seal(&project()))).collect();
    text += &line("note", &note.seal(&project()));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(path).expect("the golden file is part of the repository");
    assert_eq!(text, kept, "the stored form has changed: old memories could not be read");
    let read = |line: &str| {
        let mut words = line.split(' ').skip(1);
        let hash = Hash::parse(words.next().unwrap()).unwrap();
        (hash, data_encoding::HEXLOWER.decode(words.next().unwrap().as_bytes()).unwrap())
    };
    for (line, (_, record)) in kept.lines().zip(golden()) {
        let (hash, bytes) = read(line);
        assert_eq!(Record::open(&project(), hash, &bytes), Ok(record));
    }
    let (hash, bytes) = read(kept.lines().last().unwrap());
    assert_eq!(Note::open(&project(), hash, &bytes), Ok(note));
}

#[test]
fn damaged_foreign_and_future_records_are_refused() {
    let mut record = golden().remove(0).1;
    let sealed = record.seal(&project());
    for at in 0..sealed.bytes.len() {
        let mut bytes = sealed.bytes.clone();
        bytes[at] ^= 1;
        assert!(Record::open(&project(), sealed.hash, &bytes).is_err(), "byte {at}");
    }
    let note = Note::new(Hash::of(b"x"), 7, "somewhere", []).seal(&project());
    assert!(Record::open(&project(), note.hash, &note.bytes).is_err(), "a note is no record");
    (record.format, record.min_reader) = (2, 2);
    let sealed = record.seal(&project());
    let refused = Record::open(&project(), sealed.hash, &sealed.bytes);
    assert_eq!(refused, Err(SegmentError::TooNew { format: 2, min_reader: 2 }));
}

#[test]
fn what_is_over_a_limit_is_refused() {
    let tags = (0..=memory::limits::TAGS).map(|n| n.to_string());
    let sealed = Note::new(Hash::of(b"x"), 7, "", tags).seal(&project());
    assert!(matches!(
        Note::open(&project(), sealed.hash, &sealed.bytes),
        Err(SegmentError::TooLarge { what: "tags", .. })
    ));
    let replaces = vec![Hash::of(b"x"); memory::limits::REPLACED + 1];
    let act = Act::Summary { item: Hash::of(b"s"), replaces, note: None };
    let sealed = Record::after(None, act, "a", 0).seal(&project());
    assert!(matches!(
        Record::open(&project(), sealed.hash, &sealed.bytes),
        Err(SegmentError::TooLarge { what: "replaced items", .. })
    ));
}
