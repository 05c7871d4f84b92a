//! What is found, in which order, and why.

use memory::{Act, CacheError, Coverage, Encode, How, Index, Item, Query};
use types::Hash;

use crate::harness::{Letters, Node, project, search};

fn library() -> Node {
    let mut node = Node::default();
    node.remember("the harbour crane was repaired in spring", &["work"]);
    node.remember("grandmother bakes bread with rye flour", &["home"]);
    node.remember("repairing cranes costs more every spring", &["work", "money"]);
    node
}

#[test]
fn hits_say_why_they_are_hits() {
    let node = library();
    let hits = search(&node.index, "crane repairs, harbour", How::Words);
    assert_eq!(hits.len(), 2);
    assert_eq!(hits[0].words, ["crane", "harbour", "repair"]);
    assert_eq!((hits[0].n, hits[0].cosine), (1, None));
    assert_eq!(hits[1].words, ["crane", "repair"]);
    assert!(hits[0].words_score > hits[1].words_score && hits[1].words_score > 0.0);
    let both = search(&node.index, "crane repairs, harbour", How::Both);
    assert!(both.iter().all(|hit| hit.cosine.is_some()) && both.len() == 3);
    assert_eq!(search(&node.index, "zzz", How::Words), []);
}

#[test]
fn tags_filter_and_are_words_as_well() {
    let node = library();
    let tagged = |tags: &[&str]| {
        let query = Query { text: "spring", vector: None, how: How::Both, tags, most: 10 };
        node.index.search(&query).iter().map(|hit| hit.n).collect::<Vec<_>>()
    };
    assert_eq!(tagged(&["work"]), [1, 3]);
    assert_eq!(tagged(&["work", "money"]), [3]);
    assert_eq!(tagged(&["absent"]), Vec::<u64>::new());
    assert_eq!(node.texts_found("home", How::Words), ["grandmother bakes bread with rye flour"]);
}

#[test]
fn no_more_hits_than_wanted_and_equals_in_the_chains_order() {
    let mut node = Node::default();
    for n in 0..30 {
        node.remember(&format!("same {}", char::from(b'a' + n % 26).to_string().repeat(3 + n as usize)), &[]);
    }
    let first = |most| {
        let query = Query { text: "same", vector: None, how: How::Words, tags: &[], most };
        node.index.search(&query).iter().map(|hit| hit.n).collect::<Vec<_>>()
    };
    assert_eq!(first(4), [1, 2, 3, 4]);
    assert_eq!((first(0).len(), first(1000).len()), (0, 30));
}

#[test]
fn a_summary_is_found_instead_of_its_originals_until_it_is_forgotten() {
    let mut node = library();
    let originals: Vec<Hash> =
        node.shelf.found().filter(|(_, entry)| entry.n != 2).map(|(hash, _)| *hash).collect();
    let summary = node.summarise("cranes are repaired in spring and cost more", &originals);
    assert_eq!(node.texts_found("crane", How::Words), ["cranes are repaired in spring and cost more"]);
    assert_eq!((node.shelf.len(), node.shelf.found().count()), (4, 2), "originals are kept");
    node.forget(summary);
    assert_eq!(node.texts_found("crane", How::Words).len(), 2);
}

#[test]
fn words_are_found_before_vectors_are_there() {
    let mut index = Index::new(Some(&Letters));
    let item = |hash, n, text| Item { hash, n, text, note: None };
    let (one, two) = (Hash::of(b"1"), Hash::of(b"2"));
    index.add(&item(two, 2, "blue whale"));
    index.add(&item(one, 1, "grey seal"));
    assert_eq!(index.waiting(), [one, two]);
    assert_eq!(index.coverage(), Coverage { items: 2, with_vectors: 0 });
    assert_eq!(search(&index, "whale", How::Both)[0].item, two);
    assert!(index.add_vectors(&two, &Letters.passages("blue whale")));
    assert_eq!(index.waiting(), [one]);
    assert!(!index.add_vectors(&Hash::of(b"gone"), &[]));
    assert_eq!(search(&index, "bluewhale", How::Vectors)[0].item, two);
    let plain = Index::new(None);
    assert!(plain.waiting().is_empty() && search(&plain, "x", How::Both).is_empty());
}

#[test]
fn caches_are_read_back_or_refused() {
    let node = library();
    let bytes = node.bytes();
    let (shelf, index) = Index::from_bytes(&bytes, Some(Letters.id())).unwrap();
    assert_eq!((&shelf, index.to_bytes(&shelf)), (&node.shelf, bytes.clone()));
    for how in [How::Words, How::Vectors, How::Both] {
        assert_eq!(search(&index, "spring cranes", how), search(&node.index, "spring cranes", how));
    }
    assert_eq!(Index::from_bytes(&bytes, None).unwrap_err(), CacheError::OtherEncoder);
    for at in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 16;
        assert_eq!(Index::from_bytes(&damaged, Some(Letters.id())).unwrap_err(), CacheError::Damaged);
        assert_eq!(Index::from_bytes(&bytes[..at], Some(Letters.id())).unwrap_err(), CacheError::Damaged);
    }
}

#[test]
fn a_record_that_lost_a_race_changes_nothing_but_counts() {
    let mut node = library();
    let item = *node.shelf.found().next().unwrap().0;
    node.forget(item);
    let before = node.shelf.len();
    let change = node.forget(item);
    assert_eq!((change, node.shelf.len()), (memory::Change::default(), before));
    assert_eq!(node.shelf.head().unwrap().1, 5);
    assert!(node.shelf.check(&Act::Forget { item, reason: String::new() }).is_err());
    let (hash, record) = node.chain[0].clone();
    assert!(node.shelf.apply(hash, &record).is_err(), "no record counts twice");
    assert_eq!(record.seal(&project()).hash, hash);
}
