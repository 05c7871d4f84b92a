//! The stored form of one change to a scope. The chain of records is the only truth about a memory.
//!
//! Records are never rewritten, so they hold nothing that a person may want gone: no text, no tag, no source. Those
//! lie in the item and in its note, which are segments of their own and can be erased.

use context::{Sealed, SegmentError};
use minicbor::{Decode, Encode};
use types::{Hash, ProjectName, limits};

/// Format written by this version, and the newest it can read.
const FORMAT: u16 = 1;
/// The oldest reader that understands what this version writes.
const MIN_READER: u16 = 1;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Record {
    #[n(0)]
    pub format: u16,
    #[n(1)]
    pub min_reader: u16,
    /// The record before; none for the first.
    #[n(2)]
    pub prev: Option<Hash>,
    /// Counts from 1.
    #[n(3)]
    pub n: u64,
    #[n(4)]
    pub act: Act,
    /// The agent or the caller that did it.
    #[n(5)]
    pub author: String,
    /// Wall time of the ledger, in milliseconds since 1970.
    #[n(6)]
    pub at_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Act {
    /// An item joins, or an item that is there gets another note.
    #[n(0)]
    Remember {
        /// A segment with the text.
        #[n(0)]
        item: Hash,
        /// A sealed [`Note`], where there is something to note.
        #[n(1)]
        note: Option<Hash>,
    },
    /// An item goes for good, with its note and every summary that was made from it.
    #[n(1)]
    Forget {
        #[n(0)]
        item: Hash,
        /// For the audit. It stays in the chain: a word like `USER_REQUEST`, never a text about the item.
        #[n(1)]
        reason: String,
    },
    /// An item that is found instead of others. They stay, and come back when the summary is forgotten.
    #[n(2)]
    Summary {
        #[n(0)]
        item: Hash,
        #[n(1)]
        replaces: Vec<Hash>,
        #[n(2)]
        note: Option<Hash>,
    },
}

/// What is known about an item beside its text. It names its item and its time, so that no two items share one and
/// erasing it takes nothing from another.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Note {
    #[n(0)]
    pub format: u16,
    #[n(1)]
    pub min_reader: u16,
    #[n(2)]
    pub item: Hash,
    #[n(3)]
    pub at_ms: u64,
    /// Where it comes from: a task and step, a file, an address.
    #[n(4)]
    pub source: String,
    /// Words to find and to filter it by, sorted.
    #[n(5)]
    pub tags: Vec<String>,
}

impl Record {
    /// The record after `before`, whose hash is `prev`; the first of a scope after `None`.
    pub fn after(before: Option<(Hash, u64)>, act: Act, author: impl Into<String>, at_ms: u64) -> Record {
        Record {
            format: FORMAT,
            min_reader: MIN_READER,
            prev: before.map(|(hash, _)| hash),
            n: before.map_or(1, |(_, n)| n + 1),
            act,
            author: author.into(),
            at_ms,
        }
    }

    pub fn seal(&self, project: &ProjectName) -> Sealed {
        context::seal_record(project, self)
    }

    /// Verifies and reads a record.
    ///
    /// # Errors
    /// As for every segment; [`SegmentError::TooNew`] for a record that a newer version wrote.
    pub fn open(project: &ProjectName, expected: Hash, bytes: &[u8]) -> Result<Record, SegmentError> {
        let record: Record = context::open_record(project, expected, bytes)?;
        readable(record.format, record.min_reader)?;
        within("author", record.author.len(), limits::NAME_BYTES)?;
        match &record.act {
            Act::Remember { .. } => {}
            Act::Forget { reason, .. } => within("reason", reason.len(), limits::NAME_BYTES)?,
            Act::Summary { replaces, .. } => {
                within("replaced items", replaces.len(), crate::limits::REPLACED)?;
            }
        }
        Ok(record)
    }

    /// Segments that the record names, in order: those a keeper of the scope keeps, unless they were erased.
    pub fn names(&self) -> Vec<Hash> {
        match &self.act {
            Act::Remember { item, note } | Act::Summary { item, note, .. } => {
                [Some(*item), *note].into_iter().flatten().collect()
            }
            Act::Forget { .. } => Vec::new(),
        }
    }
}

impl Note {
    /// A note with its tags in order, each once.
    pub fn new(
        item: Hash,
        at_ms: u64,
        source: impl Into<String>,
        tags: impl IntoIterator<Item = String>,
    ) -> Note {
        let mut tags: Vec<String> = tags.into_iter().collect();
        tags.sort();
        tags.dedup();
        Note { format: FORMAT, min_reader: MIN_READER, item, at_ms, source: source.into(), tags }
    }

    /// Nothing noted: no segment is needed.
    pub fn is_empty(&self) -> bool {
        self.source.is_empty() && self.tags.is_empty()
    }

    /// Tells whether [`Note::open`] will accept what [`Note::seal`] makes of it.
    pub fn check(&self) -> Result<(), SegmentError> {
        within("source", self.source.len(), 8 * limits::NAME_BYTES)?;
        within("tags", self.tags.len(), crate::limits::TAGS)?;
        self.tags.iter().try_for_each(|tag| within("tag", tag.len(), limits::NAME_BYTES))
    }

    pub fn seal(&self, project: &ProjectName) -> Sealed {
        context::seal_record(project, self)
    }

    /// Verifies and reads a note.
    ///
    /// # Errors
    /// As [`Record::open`].
    pub fn open(project: &ProjectName, expected: Hash, bytes: &[u8]) -> Result<Note, SegmentError> {
        let note: Note = context::open_record(project, expected, bytes)?;
        readable(note.format, note.min_reader)?;
        note.check()?;
        Ok(note)
    }
}

fn readable(format: u16, min_reader: u16) -> Result<(), SegmentError> {
    if min_reader > FORMAT { Err(SegmentError::TooNew { format, min_reader }) } else { Ok(()) }
}

fn within(what: &'static str, given: usize, limit: usize) -> Result<(), SegmentError> {
    if given <= limit { Ok(()) } else { Err(SegmentError::TooLarge { what, given, limit }) }
}
