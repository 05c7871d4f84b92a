//! A scope in memory: texts by hash, a chain of records, and an encoder that needs no weights.

use std::collections::BTreeMap;

use context::{Kind, Segment, Visibility};
use memory::{Act, Change, Encode, How, Index, Item, Note, Query, Record, Shelf};
use types::{Hash, ProjectName};

pub(crate) fn project() -> ProjectName {
    ProjectName::parse("p").unwrap()
}

/// Directions from letters: texts with the same letters are near.
pub(crate) struct Letters;

impl Encode for Letters {
    fn id(&self) -> Hash {
        Hash::of(b"letters")
    }

    fn dims(&self) -> usize {
        26
    }

    fn passages(&self, text: &str) -> Vec<Vec<f32>> {
        text.split('.').map(|part| self.question(part)).collect()
    }

    fn question(&self, text: &str) -> Vec<f32> {
        let mut counts = vec![0.0; 26];
        for byte in text.bytes().filter(u8::is_ascii_lowercase) {
            counts[usize::from(byte - b'a')] += 1.0;
        }
        counts
    }
}

/// What a node holds of one scope.
pub(crate) struct Node {
    pub(crate) texts: BTreeMap<Hash, String>,
    pub(crate) notes: BTreeMap<Hash, Note>,
    pub(crate) chain: Vec<(Hash, Record)>,
    pub(crate) shelf: Shelf,
    pub(crate) index: Index,
}

impl Default for Node {
    fn default() -> Node {
        let (texts, notes, chain, shelf) = Default::default();
        Node { texts, notes, chain, shelf, index: Index::new(Some(&Letters)) }
    }
}

impl Node {
    pub(crate) fn remember(&mut self, text: &str, tags: &[&str]) -> Hash {
        let item = self.store(text);
        let note = Note::new(item, self.chain.len() as u64, "", tags.iter().map(|tag| tag.to_string()));
        let sealed = (!note.is_empty()).then(|| note.seal(&project()).hash);
        self.notes.extend(sealed.map(|hash| (hash, note)));
        self.act(Act::Remember { item, note: sealed });
        item
    }

    pub(crate) fn summarise(&mut self, text: &str, replaces: &[Hash]) -> Hash {
        let item = self.store(text);
        self.act(Act::Summary { item, replaces: replaces.to_vec(), note: None });
        item
    }

    pub(crate) fn forget(&mut self, item: Hash) -> Change {
        self.act(Act::Forget { item, reason: "TEST".into() })
    }

    fn store(&mut self, text: &str) -> Hash {
        let segment = Segment::new(Kind::Artefact, "writer", Visibility::Project, text);
        let hash = context::seal(&project(), &segment).hash;
        self.texts.insert(hash, text.to_string());
        hash
    }

    pub(crate) fn act(&mut self, act: Act) -> Change {
        let record = Record::after(self.shelf.head(), act, "writer", 1_000);
        self.take(record.seal(&project()).hash, record)
    }

    /// What a node does with a committed record: the index first, the vectors with it, then the bytes.
    pub(crate) fn take(&mut self, hash: Hash, record: Record) -> Change {
        let change = self.shelf.apply(hash, &record).unwrap();
        self.chain.push((hash, record));
        for item in &change.hidden {
            self.index.forget(item);
        }
        for (item, n) in &change.shown {
            self.show(*item, *n);
        }
        for hash in &change.erased {
            self.texts.remove(hash);
            self.notes.remove(hash);
        }
        change
    }

    pub(crate) fn show(&mut self, hash: Hash, n: u64) {
        let text = &self.texts[&hash];
        let note = self.shelf.get(&hash).and_then(|entry| entry.note).map(|note| &self.notes[&note]);
        self.index.add(&Item { hash, n, text, note });
        assert!(self.index.add_vectors(&hash, &Letters.passages(text)));
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.index.to_bytes(&self.shelf)
    }

    pub(crate) fn texts_found(&self, text: &str, how: How) -> Vec<&str> {
        let hits = search(&self.index, text, how);
        hits.iter().map(|hit| self.texts[&hit.item].as_str()).collect()
    }
}

pub(crate) fn search(index: &Index, text: &str, how: How) -> Vec<memory::Hit> {
    let vector = Letters.question(text);
    index.search(&Query { text, vector: Some(&vector), how, tags: &[], most: 10 })
}
