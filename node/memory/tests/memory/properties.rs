//! Results depend on the chain alone: not on when a node joined, restarted, or got its vectors.

use memory::{Act, Encode, How, Index};
use proptest::prelude::*;
use types::Hash;

use crate::harness::{Letters, Node, search};

#[derive(Clone, Debug)]
enum Deed {
    Remember(usize, bool),
    Forget(usize),
    Summary(usize, usize, usize),
}

const TEXTS: [&str; 12] = [
    "the crane in the harbour",
    "a crane. A bird with long legs",
    "bread and rye. flour",
    "rye whisky from the north",
    "harbour master calls at noon",
    "noon is when bread is ready",
    "",
    "legs of a long table",
    "table for seven at the harbour",
    "seven seals seven whales",
    "calls from the north, at noon",
    "whales, seals and a bird",
];
const QUESTIONS: [&str; 5] = ["crane bird", "noon in the harbour", "rye", "seven legs", "seals"];

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        4 => (0..TEXTS.len(), any::<bool>()).prop_map(|(text, tag)| Deed::Remember(text, tag)),
        2 => (0..TEXTS.len()).prop_map(Deed::Forget),
        1 => (0..TEXTS.len(), 0..TEXTS.len(), 0..TEXTS.len()).prop_map(|(a, b, c)| Deed::Summary(a, b, c)),
    ];
    proptest::collection::vec(deed, 0..40)
}

/// A node that saw everything as it happened. What cannot be done is proposed all the same.
fn lived(deeds: &[Deed]) -> Node {
    let mut node = Node::default();
    for deed in deeds {
        match deed {
            Deed::Remember(text, tag) => {
                node.remember(TEXTS[*text], if *tag { &["sea", "food"] } else { &[] });
            }
            Deed::Forget(text) => {
                let item = node.hash_of(TEXTS[*text]);
                node.forget(item);
            }
            Deed::Summary(a, b, c) => {
                let replaces = [node.hash_of(TEXTS[*a]), node.hash_of(TEXTS[*b])];
                node.summarise(&format!("sum of {}", TEXTS[*c]), &replaces);
            }
        }
    }
    node
}

impl Node {
    fn hash_of(&self, text: &str) -> Hash {
        let found = self.texts.iter().find(|(_, own)| *own == text);
        found.map_or(Hash::of(text.as_bytes()), |(hash, _)| *hash)
    }

    /// A node with the same segments that knows nothing yet.
    fn fresh(&self) -> Node {
        Node { texts: self.texts.clone(), notes: self.notes.clone(), ..Node::default() }
    }
}

fn same(one: &Node, other: &Node) {
    assert_eq!(one.shelf, other.shelf);
    assert_eq!(one.bytes(), other.bytes());
    for question in QUESTIONS {
        for how in [How::Words, How::Vectors, How::Both] {
            assert_eq!(search(&one.index, question, how), search(&other.index, question, how));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_late_node_that_reads_the_chain_finds_the_same(deeds in deeds()) {
        let node = lived(&deeds);
        let mut late = node.fresh();
        // Texts that are gone by now cannot be read: the shelf first, then what is still found.
        for (hash, record) in &node.chain {
            late.shelf.apply(*hash, record).unwrap();
        }
        let found: Vec<_> = late.shelf.found().map(|(hash, entry)| (*hash, entry.n)).collect();
        found.into_iter().rev().for_each(|(hash, n)| late.show(hash, n));
        same(&node, &late);
    }

    #[test]
    fn restarts_between_records_change_nothing(deeds in deeds(), restarts in proptest::collection::vec(0usize..40, 0..4)) {
        let node = lived(&deeds);
        let mut other = Node::default();
        for (at, deed) in deeds.iter().enumerate() {
            if restarts.contains(&at) {
                let (shelf, index) = Index::from_bytes(&other.bytes(), Some(Letters.id())).unwrap();
                (other.shelf, other.index) = (shelf, index);
            }
            let (hash, record) = node.chain[at].clone();
            if let (Deed::Remember(text, _), Act::Remember { item, note }) = (deed, &record.act) {
                other.texts.insert(*item, TEXTS[*text].to_string());
                let tags = ["sea", "food"].map(String::from);
                other.notes.extend(note.map(|note| (note, memory::Note::new(*item, at as u64, "", tags))));
            }
            if let (Deed::Summary(_, _, c), Act::Summary { item, .. }) = (deed, &record.act) {
                other.texts.insert(*item, format!("sum of {}", TEXTS[*c]));
            }
            other.take(hash, record);
        }
        same(&node, &other);
    }

    #[test]
    fn what_was_forgotten_and_remembered_again_is_as_if_new(deeds in deeds()) {
        let node = lived(&deeds);
        let mut again = lived(&deeds);
        let items: Vec<_> = again.shelf.found().map(|(hash, entry)| (*hash, entry.n)).collect();
        for (hash, _) in &items {
            prop_assert!(again.index.forget(hash));
        }
        prop_assert_eq!(again.index.coverage().items, 0);
        for (hash, n) in items {
            again.show(hash, n);
        }
        same(&node, &again);
    }
}
