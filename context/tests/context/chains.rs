//! Chains and differences.

use context::{Chain, ChainHash, chunks, extend, missing};
use proptest::prelude::*;
use std::collections::BTreeSet;
use types::{Hash, limits};

fn hash(seed: u8) -> Hash {
    Hash::of(&[seed])
}

fn chain(seeds: &[u8]) -> Chain {
    Chain::from_segments(seeds.iter().map(|seed| hash(*seed))).unwrap()
}

fn seeds() -> impl Strategy<Value = Vec<u8>> {
    // Few different segments, so that chains repeat them and share beginnings.
    proptest::collection::vec(0u8..3, 0..40)
}

proptest! {
    #[test]
    fn a_prefix_is_named_by_its_segments_alone(seeds in seeds(), at in any::<prop::sample::Index>()) {
        let whole = chain(&seeds);
        let at = at.index(seeds.len() + 1);
        prop_assert_eq!(whole.prefix(at), Some(chain(&seeds[..at]).head()));
        prop_assert_eq!(whole.fork(at), chain(&seeds[..at]));
    }

    #[test]
    fn the_common_prefix_is_what_a_walk_finds(shared in seeds(), left in seeds(), right in seeds()) {
        let (left, right) = ([shared.clone(), left].concat(), [shared, right].concat());
        let walked = left.iter().zip(&right).take_while(|(a, b)| a == b).count();
        prop_assert_eq!(chain(&left).common_prefix(&chain(&right)), walked);
    }

    #[test]
    fn a_difference_turns_one_chain_into_the_other(have in seeds(), want in seeds()) {
        let (have, want) = (chain(&have), chain(&want));
        let diff = extend(&have, &want);
        prop_assert_eq!(diff.keep + diff.append.len(), want.len());
        prop_assert_eq!(diff.apply(&have), Ok(want));
    }

    #[test]
    fn what_is_missing_completes_the_store(want in proptest::collection::vec(0u8..30, 0..60), have in proptest::collection::btree_set(0u8..30, 0..20)) {
        let want: Vec<Hash> = want.into_iter().map(hash).collect();
        let mut have: BTreeSet<Hash> = have.into_iter().map(hash).collect();
        let sent = missing(&want, &have);
        let mut order = want.iter();
        prop_assert!(sent.iter().all(|it| order.any(|wanted| wanted == it)), "in the order of the wish");
        let (before, count) = (have.len(), sent.len());
        have.extend(sent);
        prop_assert_eq!(have.len(), before + count, "nothing twice, nothing that was there");
        prop_assert!(want.iter().all(|it| have.contains(it)));
        prop_assert!(missing(&want, &have).is_empty());
    }

    #[test]
    fn chunks_keep_order_and_limit(sizes in proptest::collection::vec(0u64..150, 0..50)) {
        let segments: Vec<(Hash, u64)> = sizes.iter().enumerate().map(|(i, size)| (hash(i as u8), *size)).collect();
        let groups = chunks(&segments, 100);
        let flat: Vec<Hash> = groups.concat();
        prop_assert_eq!(flat, segments.iter().map(|(hash, _)| *hash).collect::<Vec<_>>());
        let size = |it: &Hash| segments.iter().find(|(hash, _)| hash == it).unwrap().1;
        for group in &groups {
            let bytes: u64 = group.iter().map(size).sum();
            prop_assert!(!group.is_empty() && (bytes <= 100 || group.len() == 1));
        }
    }
}

#[test]
fn order_and_border_matter() {
    assert_ne!(chain(&[1, 2]).head(), chain(&[2, 1]).head());
    assert_ne!(chain(&[1]).head(), chain(&[1, 1]).head());
    assert_eq!(chain(&[]).head(), ChainHash::empty());
    assert_eq!(chain(&[1]).prefix(2), None);
}

#[test]
fn a_chain_is_bounded() {
    let mut full = Chain::from_segments((0..limits::CHAIN_SEGMENTS).map(|_| hash(0))).unwrap();
    let before = full.clone();
    assert!(full.append(hash(1)).is_err());
    assert_eq!(full, before);
}
