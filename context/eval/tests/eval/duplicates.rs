//! What winnowing promises, tried.

use evaluate::{fingerprints, groups};
use proptest::prelude::*;

fn ids(from: u32, count: u32) -> Vec<u32> {
    (from..from + count).collect()
}

#[test]
fn equal_near_and_contained_texts_are_grouped_and_others_not() {
    let long = ids(0, 100);
    let edited = [&long[..50], &[7777], &long[51..]].concat();
    let quoted = [&ids(5000, 60), &long[20..80], &ids(6000, 60)].concat();
    let part = long[20..80].to_vec();
    let other = ids(9000, 100);
    let texts: Vec<&[u32]> = vec![&other, &long, &edited, &quoted, &part, &long, &[]];
    assert_eq!(groups(&texts), [vec![1, 2, 3, 4, 5]]);
}

#[test]
fn a_shared_phrase_is_not_enough() {
    let phrase = ids(0, 16);
    let one = [&phrase, ids(1000, 200).as_slice()].concat();
    let other = [&phrase, ids(2000, 200).as_slice()].concat();
    assert!(groups(&[&one, &other]).is_empty());
}

#[test]
fn short_equal_texts_are_grouped_by_hash() {
    assert_eq!(groups(&[&[1, 2], &[3], &[1, 2]]), [vec![0, 2]]);
}

proptest! {
    #[test]
    fn a_common_run_of_fifteen_tokens_is_always_seen(
        run in prop::collection::vec(any::<u32>(), 15..40),
        before in prop::collection::vec(any::<u32>(), 0..30),
        after in prop::collection::vec(any::<u32>(), 0..30),
    ) {
        let one = fingerprints(&[before.as_slice(), &run].concat());
        let other = fingerprints(&[run.as_slice(), &after].concat());
        prop_assert!(one.iter().any(|print| other.contains(print)));
    }
}
