//! The search over one scope: words, vectors, or both.
//!
//! Answers depend on which items are in the index, never on the order in which they came, left and came back. Equal
//! scores are ordered by the items' numbers in the chain.
//!
//! Vectors take long to make, so they may come later than the words ([`Index::waiting`]); until then an item is
//! found by its words alone, and [`Index::coverage`] says so.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use types::Hash;

use crate::bm25::{Postings, Slot};
use crate::encode::Encode;
use crate::limits;
use crate::record::Note;
use crate::vectors::Vectors;
use crate::words::{Word, words};

/// What words weigh beside vectors: `score = WORDS * bm25 / (best bm25) + (1 - WORDS) * cosine`. On 142 questions of
/// bfcl-memory the right message is first / among three / among five for:
///
/// ```text
/// words alone             80.3 / 93.0 / 94.4 %       0.3    82.4 / 95.8 / 97.9 %
/// vectors alone           64.8 / 82.4 / 90.1 %       0.4    84.5 / 95.8 / 97.9 %   <- taken
/// reciprocal ranks, 10    78.9 / 94.4 / 97.2 %       0.5    83.8 / 94.4 / 97.9 %
/// reciprocal ranks, 60    78.2 / 93.7 / 97.2 %       0.7    83.8 / 93.7 / 95.8 %
/// ```
const WORDS: f64 = 0.4;

/// What is remembered, on its way into the index.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    pub hash: Hash,
    /// Its number in the chain.
    pub n: u64,
    pub text: &'a str,
    pub note: Option<&'a Note>,
}

/// By what an item is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum How {
    /// BM25 alone.
    Words,
    /// Cosine alone.
    Vectors,
    #[default]
    Both,
}

#[derive(Clone, Debug)]
pub struct Query<'a> {
    pub text: &'a str,
    /// The text's vector by the encoder of this index. Without it only words are compared.
    pub vector: Option<&'a [f32]>,
    pub how: How,
    /// Every hit has all of these tags.
    pub tags: &'a [&'a str],
    /// Hits wanted, `limits::HITS` at most.
    pub most: usize,
}

/// An item that was found, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    pub item: Hash,
    pub n: u64,
    /// What hits are ordered by. Comparable within one answer only.
    pub score: f64,
    /// BM25 of the words; 0 where none stands in it.
    pub words_score: f64,
    /// Cosine of the nearest window, where vectors were compared.
    pub cosine: Option<f32>,
    /// Words of the question that stand in it, as stems.
    pub words: Vec<String>,
}

/// How much of a scope can be found by vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    pub items: usize,
    pub with_vectors: usize,
}

/// The index of one scope.
#[derive(Debug)]
pub struct Index {
    /// Whose vectors are in it, and how long they are.
    pub(crate) encoder: Option<(Hash, usize)>,
    pub(crate) slots: BTreeMap<Hash, Slot>,
    pub(crate) known: BTreeMap<Slot, Known>,
    pub(crate) postings: Postings,
    pub(crate) vectors: Vectors,
}

/// What is kept of an item beside words and vectors.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) hash: Hash,
    pub(crate) n: u64,
    pub(crate) encoded: bool,
    pub(crate) tags: Vec<Word>,
}

struct Scored {
    slot: Slot,
    words: f64,
    cosine: Option<f32>,
    score: f64,
}

impl Index {
    /// An empty index for vectors of this encoder; for words alone without one.
    pub fn new(encoder: Option<&dyn Encode>) -> Index {
        Index::of(encoder.map(|encoder| (encoder.id(), encoder.dims())))
    }

    pub(crate) fn of(encoder: Option<(Hash, usize)>) -> Index {
        let vectors = Vectors::new(encoder.map_or(0, |(_, dims)| dims));
        let (slots, known, postings) = Default::default();
        Index { encoder, slots, known, postings, vectors }
    }

    /// Id of the encoder whose vectors are in it.
    pub fn encoder(&self) -> Option<Hash> {
        self.encoder.map(|(id, _)| id)
    }

    /// Adds an item; one that is there is replaced, and its vectors are wanted again.
    pub fn add(&mut self, item: &Item<'_>) {
        self.forget(&item.hash);
        let mut all = words(item.text, limits::WORDS_PER_ITEM);
        let tags = item.note.map_or(&[][..], |note| &note.tags);
        tags.iter().for_each(|tag| all.extend(words(tag, limits::QUERY_WORDS)));
        let slot = self.postings.add(all);
        let tags = tags.iter().map(|tag| Word::new(tag)).collect();
        self.slots.insert(item.hash, slot);
        self.known.insert(slot, Known { hash: item.hash, n: item.n, encoded: false, tags });
    }

    /// Items without vectors, by their numbers. Empty for an index of words alone.
    pub fn waiting(&self) -> Vec<Hash> {
        let mut waiting: Vec<_> =
            self.known.values().filter(|known| !known.encoded && self.encoder.is_some()).collect();
        waiting.sort_by_key(|known| known.n);
        waiting.into_iter().map(|known| known.hash).collect()
    }

    /// Adds the vectors of an item, as the encoder gave them; answers false if the item is not (or no longer) there.
    /// Vectors of another length, without a direction, and those past the limits are left out.
    pub fn add_vectors(&mut self, item: &Hash, rows: &[Vec<f32>]) -> bool {
        let Some(slot) = self.slots.get(item).copied() else { return false };
        self.vectors.remove(slot);
        let room = limits::VECTORS_PER_SCOPE - self.vectors.len().min(limits::VECTORS_PER_SCOPE);
        for row in rows.iter().take(limits::VECTORS_PER_ITEM.min(room)) {
            self.vectors.add(slot, row);
        }
        if let Some(known) = self.known.get_mut(&slot) {
            known.encoded = true;
        }
        true
    }

    /// Takes an item out: no word, number, tag or vector of it stays, also not in memory that was freed.
    pub fn forget(&mut self, item: &Hash) -> bool {
        let Some(slot) = self.slots.remove(item) else { return false };
        let encoded = self.known.remove(&slot).is_some_and(|known| known.encoded);
        self.postings.remove(slot);
        if encoded {
            self.vectors.remove(slot);
        }
        true
    }

    pub fn has(&self, item: &Hash) -> bool {
        self.slots.contains_key(item)
    }

    pub fn coverage(&self) -> Coverage {
        let with_vectors = self.known.values().filter(|known| known.encoded).count();
        Coverage { items: self.known.len(), with_vectors }
    }

    /// Bytes of memory that it takes, near enough for a budget.
    pub fn bytes(&self) -> usize {
        self.postings.bytes() + self.vectors.bytes() + 200 * self.known.len()
    }

    /// The best hits, best first.
    pub fn search(&self, query: &Query<'_>) -> Vec<Hit> {
        let wanted = question_words(query.text);
        let mut scored = merge(self.by_words(query, &wanted), self.by_vectors(query));
        scored.retain(|scored| self.has_tags(scored.slot, query.tags));
        weigh(&mut scored);
        scored.retain(|scored| scored.score > 0.0);
        let most = query.most.min(limits::HITS);
        if most < scored.len() && most > 0 {
            scored.select_nth_unstable_by(most - 1, |a, b| self.order(a, b));
        }
        scored.truncate(most);
        scored.sort_unstable_by(|a, b| self.order(a, b));
        scored.iter().map(|scored| self.hit(scored, &wanted)).collect()
    }

    fn by_words(&self, query: &Query<'_>, wanted: &[Word]) -> Vec<(Slot, f64)> {
        if query.how == How::Vectors { Vec::new() } else { self.postings.score(wanted) }
    }

    fn by_vectors(&self, query: &Query<'_>) -> Vec<(Slot, f32)> {
        let question = query.vector.filter(|_| query.how != How::Words);
        question.map_or_else(Vec::new, |question| self.vectors.score(question))
    }

    fn has_tags(&self, slot: Slot, tags: &[&str]) -> bool {
        let has = |tag: &&str| self.known[&slot].tags.iter().any(|own| own.as_str() == *tag);
        tags.iter().all(has)
    }

    fn order(&self, a: &Scored, b: &Scored) -> Ordering {
        let n = |scored: &Scored| self.known[&scored.slot].n;
        b.score.total_cmp(&a.score).then_with(|| n(a).cmp(&n(b)))
    }

    fn hit(&self, scored: &Scored, wanted: &[Word]) -> Hit {
        let known = &self.known[&scored.slot];
        let found = self.postings.found(wanted, scored.slot);
        Hit {
            item: known.hash,
            n: known.n,
            score: scored.score,
            words_score: scored.words,
            cosine: scored.cosine,
            words: found.into_iter().map(str::to_string).collect(),
        }
    }
}

/// The words of a question, sorted, each once.
fn question_words(text: &str) -> Vec<Word> {
    let mut all = words(text, limits::QUERY_WORDS);
    all.sort();
    all.dedup();
    all
}

/// Two lists with ascending slots become one.
fn merge(by_words: Vec<(Slot, f64)>, by_vectors: Vec<(Slot, f32)>) -> Vec<Scored> {
    let mut all = Vec::with_capacity(by_words.len().max(by_vectors.len()));
    let mut by_vectors = by_vectors.into_iter().peekable();
    let alone = |(slot, cosine)| Scored { slot, words: 0.0, cosine: Some(cosine), score: 0.0 };
    for (slot, words) in by_words {
        while let Some(before) = by_vectors.next_if(|(other, _)| *other < slot) {
            all.push(alone(before));
        }
        let cosine = by_vectors.next_if(|(other, _)| *other == slot).map(|(_, cosine)| cosine);
        all.push(Scored { slot, words, cosine, score: 0.0 });
    }
    all.extend(by_vectors.map(alone));
    all
}

/// Sets the scores. The best words count as one, so that they compare with cosines.
fn weigh(scored: &mut [Scored]) {
    let best = scored.iter().map(|scored| scored.words).fold(0.0, f64::max);
    for scored in scored {
        let words = if best > 0.0 { scored.words / best } else { 0.0 };
        let near = scored.cosine.map_or(0.0, |cosine| f64::from(cosine).max(0.0));
        scored.score = WORDS * words + (1.0 - WORDS) * near;
    }
}

#[cfg(test)]
#[path = "index_test.rs"]
mod tests;
