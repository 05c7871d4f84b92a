//! What records lead to.

use super::*;

fn item(name: u8) -> Hash {
    Hash::of(&[name])
}

fn shelf(acts: Vec<Act>) -> (Shelf, Change) {
    let (mut shelf, mut last) = (Shelf::default(), Change::default());
    for (n, act) in (0u8..).zip(acts) {
        let record = Record::after(shelf.head(), act, "a", 5);
        last = shelf.apply(Hash::of(&[n, 0]), &record).unwrap();
    }
    (shelf, last)
}

fn remember(name: u8, note: Option<Hash>) -> Act {
    Act::Remember { item: item(name), note }
}

fn summary(name: u8, of: &[u8]) -> Act {
    Act::Summary { item: item(name), replaces: of.iter().map(|name| item(*name)).collect(), note: None }
}

fn forget(name: u8) -> Act {
    Act::Forget { item: item(name), reason: "TEST".into() }
}

#[test]
fn remembering_again_changes_the_note_and_the_place() {
    let (note, other) = (Hash::of(b"note"), Hash::of(b"other"));
    let (shelf, change) = shelf(vec![remember(1, Some(note)), remember(2, None), remember(1, Some(other))]);
    assert_eq!(change, Change { shown: vec![(item(1), 3)], hidden: vec![], erased: vec![note] });
    assert_eq!(shelf.get(&item(1)).unwrap().note, Some(other));
    assert_eq!(shelf.kept_segments().count(), 3);
}

#[test]
fn what_is_behind_a_summary_stays_there_when_remembered_again() {
    let (shelf, change) = shelf(vec![remember(1, None), summary(9, &[1]), remember(1, Some(item(7)))]);
    assert_eq!(change, Change::default());
    assert_eq!(shelf.found().map(|(hash, _)| *hash).collect::<Vec<_>>(), [item(9)]);
    let mut shelf = shelf;
    let record = Record::after(shelf.head(), forget(1), "a", 5);
    let change = shelf.apply(item(0), &record).unwrap();
    assert_eq!(change.hidden, [item(1), item(9)], "the summary still knew it");
    assert_eq!(change.erased, [item(1), item(7), item(9)]);
    assert!(shelf.is_empty());
}

#[test]
fn originals_come_back_only_when_no_summary_stands_for_them() {
    let acts = vec![remember(1, None), remember(2, None), summary(8, &[1, 2]), summary(9, &[1]), forget(8)];
    let (shelf, change) = shelf(acts);
    assert_eq!(change.shown, [(item(2), 2)]);
    assert_eq!(shelf.found().count(), 2);
}

#[test]
fn impossible_changes_are_named() {
    let (shelf, _) = shelf(vec![remember(1, None), summary(9, &[1])]);
    assert_eq!(shelf.check(&forget(5)), Err(ShelfError::Absent { item: item(5) }));
    assert_eq!(shelf.check(&summary(3, &[])), Err(ShelfError::NothingReplaced));
    assert_eq!(shelf.check(&summary(3, &[1, 1])), Err(ShelfError::NothingReplaced));
    assert_eq!(shelf.check(&summary(1, &[9])), Err(ShelfError::AlreadyThere { item: item(1) }));
    assert_eq!(shelf.check(&summary(3, &[4])), Err(ShelfError::Absent { item: item(4) }));
    assert_eq!(shelf.check(&summary(3, &[1, 9])), Ok(()));
}

#[test]
fn records_out_of_order_are_a_gap() {
    let (mut shelf, _) = shelf(vec![remember(1, None)]);
    let skipped = Record::after(Some((Hash::of(b"unknown"), 1)), forget(1), "a", 5);
    assert_eq!(shelf.apply(item(0), &skipped), Err(ShelfError::Gap { have: 1, found: 2 }));
    assert_eq!(shelf.len(), 1);
}
