//! What a chain of records says is there: the items that are found, those behind a summary, and those that are gone.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use types::Hash;

use crate::limits;
use crate::record::{Act, Record};

/// A scope after some of its records. Records go in one by one, in order; equal chains give equal shelves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Shelf {
    #[n(0)]
    head: Option<Hash>,
    #[n(1)]
    n: u64,
    #[n(2)]
    entries: BTreeMap<Hash, Entry>,
}

/// An item that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// Number of the record that brought it: the order of items, and what decides between equal scores.
    #[n(0)]
    pub n: u64,
    #[n(1)]
    pub note: Option<Hash>,
    #[n(2)]
    pub author: String,
    #[n(3)]
    pub at_ms: u64,
    /// What it was made from, if it is a summary.
    #[n(4)]
    pub replaces: Vec<Hash>,
    /// Summaries that are found instead of it.
    #[n(5)]
    pub behind: BTreeSet<Hash>,
}

/// What one record changes, for whoever holds an index or the bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Items that are found from now on, with the numbers they are ordered by: put them into the index.
    pub shown: Vec<(Hash, u64)>,
    /// Items that are not found any longer: take them out of the index.
    pub hidden: Vec<Hash>,
    /// Segments (items and notes) of which no byte may stay anywhere.
    pub erased: Vec<Hash>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShelfError {
    #[error(
        "record {found} does not follow record {have} of this memory; read the chain again from its head"
    )]
    Gap { have: u64, found: u64 },
    #[error(
        "a memory holds {limit} items at most; forget or summarise some, or use a scope of a task or an agent"
    )]
    Full { limit: usize },
    #[error("item {} is not in this memory; it was forgotten, or never remembered here", .item.short())]
    Absent { item: Hash },
    #[error("a summary needs items to replace, each once")]
    NothingReplaced,
    #[error("item {} is in this memory already and cannot become a summary; use another text", .item.short())]
    AlreadyThere { item: Hash },
}

impl Shelf {
    /// Hash and number of the last record; none when nothing was remembered yet.
    pub fn head(&self) -> Option<(Hash, u64)> {
        self.head.map(|head| (head, self.n))
    }

    /// Items that are kept, found or not.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn get(&self, item: &Hash) -> Option<&Entry> {
        self.entries.get(item)
    }

    /// Kept items in the order of their hashes.
    pub fn entries(&self) -> impl Iterator<Item = (&Hash, &Entry)> {
        self.entries.iter()
    }

    /// Items that a search can find, in the order of their hashes.
    pub fn found(&self) -> impl Iterator<Item = (&Hash, &Entry)> {
        self.entries.iter().filter(|(_, entry)| entry.behind.is_empty())
    }

    /// Every segment that a keeper of this scope keeps beside the records.
    pub fn kept_segments(&self) -> impl Iterator<Item = Hash> {
        self.entries.iter().flat_map(|(item, entry)| [Some(*item), entry.note]).flatten()
    }

    /// Tells whether a change could be the next. A door asks before it proposes.
    ///
    /// # Errors
    /// A full scope, a forgotten or unknown item, a summary of nothing.
    pub fn check(&self, act: &Act) -> Result<(), ShelfError> {
        match act {
            Act::Remember { item, .. } => self.room_for(item),
            Act::Forget { item, .. } => self.has(item),
            Act::Summary { item, replaces, .. } => {
                let distinct: BTreeSet<_> = replaces.iter().collect();
                if replaces.is_empty() || distinct.len() != replaces.len() {
                    return Err(ShelfError::NothingReplaced);
                }
                // A summary is always newer than what it replaces: there are no circles.
                if self.entries.contains_key(item) {
                    return Err(ShelfError::AlreadyThere { item: *item });
                }
                replaces.iter().try_for_each(|it| self.has(it))?;
                self.room_for(item)
            }
        }
    }

    fn room_for(&self, item: &Hash) -> Result<(), ShelfError> {
        let full = self.entries.len() >= limits::ITEMS_PER_SCOPE && !self.entries.contains_key(item);
        if full { Err(ShelfError::Full { limit: limits::ITEMS_PER_SCOPE }) } else { Ok(()) }
    }

    fn has(&self, item: &Hash) -> Result<(), ShelfError> {
        if self.entries.contains_key(item) { Ok(()) } else { Err(ShelfError::Absent { item: *item }) }
    }

    /// Takes the next record, whose sealed form has the name `hash`.
    ///
    /// A change that could not have been proposed on this state (two doors raced) changes nothing, on every node
    /// alike: the record is in the chain and counts.
    ///
    /// # Errors
    /// [`ShelfError::Gap`] if it is not the next one.
    pub fn apply(&mut self, hash: Hash, record: &Record) -> Result<Change, ShelfError> {
        if record.prev != self.head || record.n != self.n + 1 {
            return Err(ShelfError::Gap { have: self.n, found: record.n });
        }
        (self.head, self.n) = (Some(hash), record.n);
        if self.check(&record.act).is_err() {
            return Ok(Change::default());
        }
        Ok(match &record.act {
            Act::Remember { item, note } => self.remember(record, *item, *note, Vec::new()),
            Act::Forget { item, .. } => self.forget(*item),
            Act::Summary { item, replaces, note } => self.summarise(record, *item, *note, replaces),
        })
    }

    /// An item that is there stays what it is, a summary or behind one: only what is known about it is new.
    fn remember(&mut self, record: &Record, item: Hash, note: Option<Hash>, replaces: Vec<Hash>) -> Change {
        let before = self.entries.remove(&item);
        let old_note = before.as_ref().and_then(|entry| entry.note).filter(|old| Some(*old) != note);
        let (replaces, behind) =
            before.map_or((replaces, BTreeSet::new()), |entry| (entry.replaces, entry.behind));
        let shown = behind.is_empty().then_some((item, record.n)).into_iter().collect();
        let (author, at_ms) = (record.author.clone(), record.at_ms);
        self.entries.insert(item, Entry { n: record.n, note, author, at_ms, replaces, behind });
        Change { shown, hidden: Vec::new(), erased: old_note.into_iter().collect() }
    }

    fn summarise(&mut self, record: &Record, item: Hash, note: Option<Hash>, replaces: &[Hash]) -> Change {
        let mut change = self.remember(record, item, note, replaces.to_vec());
        for original in replaces {
            let entry = self.entries.get_mut(original).expect("checked before");
            if entry.behind.is_empty() {
                change.hidden.push(*original);
            }
            entry.behind.insert(item);
        }
        change
    }

    /// An item goes with all that was made from it: a summary may say what the item said.
    fn forget(&mut self, item: Hash) -> Change {
        let mut change = Change::default();
        let mut doomed = vec![item];
        while let Some(next) = doomed.pop() {
            let Some(entry) = self.entries.remove(&next) else { continue };
            change.hidden.push(next);
            change.erased.extend([Some(next), entry.note].into_iter().flatten());
            change.shown.extend(self.unhide(next, &entry.replaces));
            doomed.extend(entry.behind);
        }
        change.shown.retain(|(shown, _)| self.entries.contains_key(shown));
        change
    }

    /// Originals that no other summary stands for are found again.
    fn unhide(&mut self, summary: Hash, originals: &[Hash]) -> Vec<(Hash, u64)> {
        let mut shown = Vec::new();
        for original in originals {
            let Some(entry) = self.entries.get_mut(original) else { continue };
            if entry.behind.remove(&summary) && entry.behind.is_empty() {
                shown.push((*original, entry.n));
            }
        }
        shown
    }
}

#[cfg(test)]
#[path = "shelf_test.rs"]
mod tests;
