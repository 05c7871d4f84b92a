//! The stored form of a step record stays readable. A golden file is changed by adding one, never by rewriting it.

use crate::harness::{project, uid};
use mind::{Decision, MIND_VERSION, Route, RouteCandidate, StepRecord};
use types::{Epoch, Hash, Spent};

fn golden() -> Vec<(&'static str, StepRecord)> {
    let record = |n, decision| StepRecord {
        format: 1,
        min_reader: 1,
        mind_version: MIND_VERSION,
        prev: (n > 1).then(|| Hash::of(b"before")),
        n,
        epoch: Epoch { incarnation: 1, index: 42, position: 3 },
        decision,
        added: vec![Hash::of(b"one"), Hash::of(b"two")],
        spent: Spent { prompt_tokens: 100, cached_tokens: 64, generated_tokens: 12, micro_usd: 0 },
        chain_tokens: 112,
        numerics: (n == 1).then(|| Hash::of(b"numerics")),
        tools: None,
        heard: None,
        route: None,
    };
    let called = Decision::Called { finish: mind::Finish::Budget, call: 1, generated_tokens: 12 };
    let spawned = Decision::Spawned { children: vec![uid(7), uid(8)], stage: 0 };
    let failed =
        Decision::Failed { reason: "CHILD_FAILED".into(), message: Hash::of(b"why"), generated_tokens: 0 };
    let finished = Decision::Finished {
        result: Hash::of(b"two"),
        bytes: 3,
        finish: Some(mind::Finish::Stop),
        call: 0,
        generated_tokens: 12,
    };
    let paused = Decision::Paused { reason: "BUSY".into(), message: Hash::of(b"why"), calls: 4 };
    vec![
        ("called", record(1, called)),
        ("spawned", record(2, spawned)),
        ("waited", record(3, Decision::Waited { stage: 0 })),
        ("finished", record(4, finished)),
        ("failed", record(5, failed)),
        ("paused", record(6, paused)),
    ]
}

/// A missing file is written with `UPDATE`; one that is there never is.
fn same_as_kept(name: &str, records: Vec<(&'static str, StepRecord)>) {
    let path = format!("{}/tests/mind/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    let sealed: Vec<_> =
        records.into_iter().map(|(name, record)| (name, record.seal(&project()), record)).collect();
    let line = |(name, sealed, _): &(&str, context::Sealed, StepRecord)| {
        format!("{name} {} {}\n", sealed.hash, data_encoding::HEXLOWER.encode(&sealed.bytes))
    };
    let text: String = sealed.iter().map(line).collect();
    if std::env::var_os("UPDATE").is_some() && !std::path::Path::new(&path).exists() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).expect("the golden file is part of the repository");
    assert_eq!(text, kept, "the stored form has changed: old journals could not be read");
    for (line, (_, _, record)) in kept.lines().zip(&sealed) {
        let mut words = line.split(' ').skip(1);
        let hash = Hash::parse(words.next().unwrap()).unwrap();
        let bytes = data_encoding::HEXLOWER.decode(words.next().unwrap().as_bytes()).unwrap();
        assert_eq!(StepRecord::open(&project(), hash, &bytes).as_ref(), Ok(record));
    }
}

/// What came with summaries; the first form stays as it is.
fn third_form() -> Vec<(&'static str, StepRecord)> {
    let record = |n, decision| StepRecord {
        format: 3,
        min_reader: 3,
        mind_version: MIND_VERSION,
        prev: Some(Hash::of(b"before")),
        n,
        epoch: Epoch { incarnation: 1, index: 42, position: 3 },
        decision,
        added: vec![],
        spent: Spent::default(),
        chain_tokens: 112,
        numerics: None,
        tools: None,
        heard: None,
        route: None,
    };
    let condensing = Decision::Condensing { from: 3, count: 9, tokens: 800, child: uid(9) };
    let summary = Some(Hash::of(b"summary"));
    let condensed =
        Decision::Condensed { from: 3, count: 9, summary, call: 1, generated_tokens: 40, reason: "".into() };
    let none = Decision::Condensed {
        from: 0,
        count: 0,
        summary: None,
        call: 0,
        generated_tokens: 0,
        reason: "CHILD_FAILED".into(),
    };
    let condensed = StepRecord { added: summary.into_iter().collect(), ..record(8, condensed) };
    let off = Decision::OffSchema { finish: mind::Finish::Stop, call: 0, generated_tokens: 9 };
    vec![
        ("condensing", record(7, condensing)),
        ("condensed", condensed),
        ("none", record(9, none)),
        ("off-schema", record(10, off)),
    ]
}

/// What came with several models; the older forms stay as they are.
fn fourth_form() -> Vec<(&'static str, StepRecord)> {
    let candidate = |model: &str, micro_usd, ms, verdict: &str| RouteCandidate {
        model: model.into(),
        micro_usd,
        ms,
        verdict: verdict.into(),
    };
    let route = Route {
        model: "dear".into(),
        reason: "IN_TIME".into(),
        candidates: vec![candidate("cheap", 120, 90_000, "LATE"), candidate("dear", 700, 2_000, "FITS")],
    };
    let (_, called) = golden().remove(0);
    vec![("routed", StepRecord { format: 4, min_reader: 4, route: Some(route), ..called })]
}

#[test]
fn golden_records_are_written_and_read_alike() {
    same_as_kept("step-record-v1.hex", golden());
    same_as_kept("step-record-v3.hex", third_form());
    same_as_kept("step-record-v4.hex", fourth_form());
}

#[test]
fn a_record_names_everything_it_needs() {
    let record = |name| golden().into_iter().find(|(it, _)| *it == name).unwrap().1;
    let (one, two, why) = (Hash::of(b"one"), Hash::of(b"two"), Hash::of(b"why"));
    assert_eq!(record("called").names(), [one, two]);
    assert_eq!(record("finished").names(), [one, two], "a result that was added is named once");
    assert_eq!(record("failed").names(), [one, two, why]);
    assert_eq!(record("paused").names(), [one, two, why]);
}

#[test]
fn damaged_and_future_records_are_refused() {
    let mut record = golden().remove(0).1;
    let sealed = record.seal(&project());
    for at in 0..sealed.bytes.len() {
        let mut bytes = sealed.bytes.clone();
        bytes[at] ^= 1;
        assert!(StepRecord::open(&project(), sealed.hash, &bytes).is_err());
        // The same damage under its own name: refused or read, but no panic.
        let _ = StepRecord::open(&project(), context::name(&project(), &bytes), &bytes);
    }
    record.min_reader = 5;
    let future = record.seal(&project());
    let error = StepRecord::open(&project(), future.hash, &future.bytes).unwrap_err();
    assert!(error.to_string().contains("upgrade"), "{error}");
}
