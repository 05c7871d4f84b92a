//! What stands on a board: notes by name, each with the version at which it was written. Pure.
//!
//! Versions count the changes of the whole board, so a note that was taken off and written again never has an old
//! version once more.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use types::Hash;

/// Notes of one board: what a model can still overlook.
pub(crate) const NOTES: usize = 256;
/// Bytes of a note's name.
pub(crate) const NAME_BYTES: usize = 128;
/// Bytes of one note; what is longer is a file, or a result.
pub(crate) const NOTE_BYTES: usize = 64 << 10;
const FORMAT: u16 = 1;

/// The stored form is the JSON of this, as a segment's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sheet {
    format: u16,
    /// Changes so far.
    pub(crate) version: u64,
    notes: BTreeMap<String, Note>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) version: u64,
    /// The segment of its text.
    text: String,
    pub(crate) bytes: u64,
    /// The agent that wrote it.
    pub(crate) author: String,
    /// The call that wrote it: the same call again changes nothing.
    operation: String,
}

/// What somebody wants to write, having seen a version of the note; 0: there was none.
#[derive(Debug, Clone)]
pub(crate) struct Writing<'a> {
    pub(crate) name: &'a str,
    pub(crate) seen: u64,
    /// None takes the note off the board.
    pub(crate) text: Option<(Hash, u64)>,
    pub(crate) author: &'a str,
    pub(crate) operation: &'a str,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SheetError {
    #[error(
        "{name:?} is at version {version}, written by {author}, and you have seen version {seen}; read it, and write it \
         again with its version"
    )]
    Changed { name: String, version: u64, author: String, seen: u64 },
    #[error(
        "there is no {name:?} on the board, and you have seen version {seen} of it; write it with version 0"
    )]
    Gone { name: String, seen: u64 },
    #[error("the board has {NOTES} notes, more don't fit; take one off by writing an empty text to it")]
    Full,
    #[error("the board's sheet has format {0}, this version reads {FORMAT}; upgrade quorate on this node")]
    TooNew(u16),
    #[error("the board's sheet cannot be read: {0}")]
    Malformed(String),
}

impl Default for Sheet {
    fn default() -> Sheet {
        Sheet { format: FORMAT, version: 0, notes: BTreeMap::new() }
    }
}

impl Sheet {
    pub(crate) fn parse(text: &str) -> Result<Sheet, SheetError> {
        let malformed = |error: serde_json::Error| SheetError::Malformed(error.to_string());
        let value: serde_json::Value = serde_json::from_str(text).map_err(malformed)?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format <= u64::from(FORMAT) => serde_json::from_value(value).map_err(malformed),
            Some(format) => Err(SheetError::TooNew(u16::try_from(format).unwrap_or(u16::MAX))),
            None => Err(SheetError::Malformed("it has no format".into())),
        }
    }

    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers are JSON")
    }

    pub(crate) fn notes(&self) -> impl Iterator<Item = (&str, &Note)> {
        self.notes.iter().map(|(name, note)| (name.as_str(), note))
    }

    pub(crate) fn note(&self, name: &str) -> Option<&Note> {
        self.notes.get(name)
    }

    /// Segments of all notes.
    pub(crate) fn texts(&self) -> Vec<Hash> {
        self.notes.values().filter_map(Note::text).collect()
    }

    /// Changes a note that is still as it was seen. False: this very call has done it before.
    ///
    /// # Errors
    /// It was changed since, or there is no room. Nothing was changed.
    pub(crate) fn write(&mut self, new: &Writing<'_>) -> Result<bool, SheetError> {
        let name = new.name.to_string();
        match (self.notes.get(new.name), new.text) {
            (Some(note), _) if note.operation == new.operation => return Ok(false),
            (Some(note), _) if note.version != new.seen => {
                let (version, author) = (note.version, note.author.clone());
                return Err(SheetError::Changed { name, version, author, seen: new.seen });
            }
            // Taken off already, by whomever.
            (None, None) => return Ok(false),
            (None, Some(_)) if new.seen != 0 => return Err(SheetError::Gone { name, seen: new.seen }),
            (None, Some(_)) if self.notes.len() >= NOTES => return Err(SheetError::Full),
            (Some(_) | None, _) => {}
        }
        self.version += 1;
        match new.text {
            None => {
                self.notes.remove(new.name);
            }
            Some((text, bytes)) => {
                let (author, operation) = (new.author.to_string(), new.operation.to_string());
                let note = Note { version: self.version, text: text.to_string(), bytes, author, operation };
                self.notes.insert(name, note);
            }
        }
        Ok(true)
    }
}

impl Note {
    pub(crate) fn text(&self) -> Option<Hash> {
        Hash::parse(&self.text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writing<'a>(name: &'a str, seen: u64, text: &str, operation: &'a str) -> Writing<'a> {
        let text = (!text.is_empty()).then(|| (Hash::of(text.as_bytes()), text.len() as u64));
        Writing { name, seen, text, author: "reader", operation }
    }

    #[test]
    fn only_who_has_seen_the_newest_version_writes() {
        let mut sheet = Sheet::default();
        assert_eq!(sheet.write(&writing("plan", 0, "one", "a/1/0")), Ok(true));
        let late = sheet.write(&writing("plan", 0, "other", "b/1/0")).unwrap_err();
        assert!(late.to_string().contains("is at version 1, written by reader"), "{late}");
        assert_eq!(sheet.write(&writing("plan", 1, "two", "b/2/0")), Ok(true));
        assert_eq!(sheet.note("plan").map(|note| (note.version, note.bytes)), Some((2, 3)));
        assert!(sheet.write(&writing("plan", 1, "three", "a/2/0")).is_err());
        assert!(matches!(
            sheet.write(&writing("map", 7, "x", "a/3/0")),
            Err(SheetError::Gone { seen: 7, .. })
        ));
    }

    #[test]
    fn the_same_call_again_changes_nothing() {
        let mut sheet = Sheet::default();
        sheet.write(&writing("plan", 0, "one", "a/1/0")).unwrap();
        let before = sheet.clone();
        assert_eq!(sheet.write(&writing("plan", 0, "one", "a/1/0")), Ok(false));
        assert_eq!(sheet, before);
    }

    #[test]
    fn what_is_taken_off_and_written_again_is_new() {
        let mut sheet = Sheet::default();
        sheet.write(&writing("plan", 0, "one", "a/1/0")).unwrap();
        assert_eq!(sheet.write(&writing("plan", 1, "", "a/2/0")), Ok(true));
        assert_eq!(sheet.write(&writing("plan", 1, "", "a/2/0")), Ok(false));
        sheet.write(&writing("plan", 0, "two", "b/1/0")).unwrap();
        assert_eq!(sheet.note("plan").map(|note| note.version), Some(3));
        assert!(sheet.write(&writing("plan", 1, "late", "c/1/0")).is_err(), "an old version stays old");
    }

    #[test]
    fn a_sheet_is_read_as_it_was_written_and_has_an_end() {
        let mut sheet = Sheet::default();
        for number in 0..NOTES {
            let (name, operation) = (format!("note-{number}"), format!("a/{number}/0"));
            sheet.write(&writing(&name, 0, "x", &operation)).unwrap();
        }
        assert_eq!(sheet.write(&writing("one more", 0, "x", "a/x/0")), Err(SheetError::Full));
        assert_eq!(Sheet::parse(&sheet.text()).unwrap(), sheet);
        assert_eq!(crate::boards::named_by(&sheet.text()), sheet.texts(), "what a backup has to hold");
        assert_eq!(sheet.texts().len(), NOTES);
        assert!(matches!(Sheet::parse("{\"format\":2}"), Err(SheetError::TooNew(2))));
        assert!(Sheet::parse("{}").is_err() && Sheet::parse("no").is_err());
        let kept = r#"{"format":1,"version":1,"notes":{"plan":{"version":1,"text":"00","bytes":3,"author":"a","operation":"o"}}}"#;
        assert_eq!(Sheet::parse(kept).unwrap().text(), kept, "the stored form has changed");
    }
}
