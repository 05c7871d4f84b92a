//! Sealing, naming, opening.

use context::{
    Kind, Segment, SegmentError, Tokens, Visibility, name, open, open_record, seal, seal_record, verify,
};
use proptest::prelude::*;
use types::{Hash, ProjectName, limits};

fn project(text: &str) -> ProjectName {
    ProjectName::parse(text).unwrap()
}

fn any_segment() -> impl Strategy<Value = Segment> {
    let kinds = [
        Kind::System,
        Kind::Background,
        Kind::TaskState,
        Kind::Message,
        Kind::Thought,
        Kind::ToolCall,
        Kind::ToolResult,
        Kind::Summary,
        Kind::Artefact,
        Kind::Definition,
    ];
    let visible = [Visibility::Agent, Visibility::Task, Visibility::Project];
    let tokens = proptest::option::of(proptest::collection::vec(any::<u32>(), 0..40));
    let fields = (
        proptest::sample::select(kinds.to_vec()),
        "[a-z]{0,20}",
        proptest::sample::select(visible.to_vec()),
        any::<String>(),
        tokens,
        any::<bool>(),
        "[a-z0-9_]{0,18}",
    );
    fields.prop_map(|(kind, author, visibility, text, ids, open, tree)| {
        let tokens = ids.map(|ids| Tokens { tokenizer: Hash::of(b"tokenizer"), ids });
        Segment { kind, author, visibility, text, tokens, open, tree }
    })
}

proptest! {
    #[test]
    fn what_is_sealed_can_be_opened(segment in any_segment()) {
        let sealed = seal(&project("p"), &segment);
        prop_assert_eq!(seal(&project("p"), &segment), sealed.clone(), "the same bytes every time");
        prop_assert_eq!(verify(&project("p"), sealed.hash, &sealed.bytes), Ok(()));
        prop_assert_eq!(open(&project("p"), sealed.hash, &sealed.bytes), Ok(segment));
    }

    #[test]
    fn every_damage_is_found(segment in any_segment(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let sealed = seal(&project("p"), &segment);
        let mut bytes = sealed.bytes.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(verify(&project("p"), sealed.hash, &bytes).is_err());
        prop_assert!(open(&project("p"), sealed.hash, &bytes).is_err());
        prop_assert!(open(&project("p"), sealed.hash, &sealed.bytes[..at]).is_err(), "cut short");
        // Under a true name the damage may still be a segment, but never a panic.
        let _ = open(&project("p"), name(&project("p"), &bytes), &bytes);
        let _ = open(&project("p"), name(&project("p"), &bytes[..at]), &bytes[..at]);
    }

    #[test]
    fn any_bytes_are_opened_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let hash = name(&project("p"), &bytes);
        let _ = open(&project("p"), hash, &bytes);
        let _ = open_record::<Vec<u64>>(&project("p"), hash, &bytes);
    }
}

fn message(text: impl Into<String>) -> Segment {
    Segment::new(Kind::Message, "ann", Visibility::Project, text)
}

#[test]
fn two_projects_give_one_text_two_names() {
    let (ours, theirs) = (seal(&project("ours"), &message("x")), seal(&project("theirs"), &message("x")));
    assert_eq!(ours.bytes, theirs.bytes);
    assert_ne!(ours.hash, theirs.hash);
    assert!(open(&project("theirs"), ours.hash, &ours.bytes).is_err());
}

#[test]
fn records_are_stored_alike_and_are_no_text() {
    let project = project("p");
    let record = seal_record(&project, &vec![1u64, 2, 3]);
    assert_eq!(verify(&project, record.hash, &record.bytes), Ok(()));
    assert_eq!(open_record::<Vec<u64>>(&project, record.hash, &record.bytes), Ok(vec![1, 2, 3]));
    assert_eq!(open(&project, record.hash, &record.bytes), Err(SegmentError::IsRecord));
    let text = seal(&project, &message("x"));
    let error = open_record::<Vec<u64>>(&project, text.hash, &text.bytes);
    assert_eq!(error, Err(SegmentError::NotRecord(Kind::Message)));
}

#[test]
fn limits_hold_on_both_sides() {
    let project = project("p");
    let largest = message("x".repeat(limits::SEGMENT_BYTES));
    assert_eq!(largest.check(), Ok(()));
    let sealed = seal(&project, &largest);
    assert!(open(&project, sealed.hash, &sealed.bytes).is_ok());
    let over = message("x".repeat(limits::SEGMENT_BYTES + 1));
    assert!(matches!(over.check(), Err(SegmentError::TooLarge { what: "text", .. })));
    let sealed = seal(&project, &over);
    assert!(open(&project, sealed.hash, &sealed.bytes).is_err());
    let huge = vec![0; context::STORED_BYTES + 1];
    assert!(matches!(verify(&project, name(&project, &huge), &huge), Err(SegmentError::TooLarge { .. })));
}

/// An array of ten fields whose token list claims 2^62 ids: refused, without room being made for them.
#[test]
fn lying_lengths_are_refused() {
    let good = seal(
        &project("p"),
        &Segment { tokens: Some(Tokens { tokenizer: Hash::of(b"t"), ids: vec![1, 2] }), ..message("hello") },
    );
    let list = good.bytes.windows(3).position(|window| window == [0x82, 1, 2]).expect("the list of two ids");
    let mut lying = good.bytes[..list].to_vec();
    lying.extend([0x9b, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    let error = open(&project("p"), name(&project("p"), &lying), &lying);
    assert!(matches!(error, Err(SegmentError::Malformed(_))), "{error:?}");
}

#[test]
fn a_future_format_is_kept_but_not_read() {
    let sealed = seal(&project("p"), &message("x"));
    let mut bytes = sealed.bytes;
    assert_eq!(bytes[..3], [0x8a, 1, 1], "ten fields, format 1, readable from 1");
    (bytes[1], bytes[2]) = (9, 8);
    let hash = name(&project("p"), &bytes);
    assert_eq!(verify(&project("p"), hash, &bytes), Ok(()));
    assert_eq!(open(&project("p"), hash, &bytes), Err(SegmentError::TooNew { format: 9, min_reader: 8 }));
    // A newer writer that older readers can follow may have added a field at the end.
    (bytes[0], bytes[1], bytes[2]) = (0x8b, 9, 1);
    bytes.push(0xf6);
    assert_eq!(open(&project("p"), name(&project("p"), &bytes), &bytes), Ok(message("x")));
}

/// The stored form of format 1, kept for ever: a change here makes every stored segment unreadable.
#[test]
fn golden_segment() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/context/golden/segment-v1.hex");
    let segment = Segment {
        tokens: Some(Tokens { tokenizer: Hash::of(b"tokenizer"), ids: vec![0, 23, 24, 65_536, u32::MAX] }),
        open: true,
        tree: "t_0000000000000019g000".to_string(),
        ..Segment::new(Kind::Message, "reader", Visibility::Agent, "naïve text\n")
    };
    let sealed = seal(&project("default"), &segment);
    let text = format!("{} {}\n", sealed.hash, data_encoding::HEXLOWER.encode(&sealed.bytes));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(path).expect("the golden file is part of the repository");
    assert_eq!(text, kept, "the stored form has changed");
    let (hash, bytes) = kept.trim().split_once(' ').unwrap();
    let bytes = data_encoding::HEXLOWER.decode(bytes.as_bytes()).unwrap();
    assert_eq!(open(&project("default"), Hash::parse(hash).unwrap(), &bytes), Ok(segment));
}
