//! What the log holds, in memory: the summary, where each entry is, and the newest bodies.

use super::record::Head;
use super::{Change, EntryId, Summary, Vote};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::ops::RangeBounds;

/// Where an entry's record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) sequence: u64,
    pub(super) offset: u64,
    pub(super) bytes: u32,
}

struct Slot {
    id: EntryId,
    /// None until it is written: then memory has the only copy.
    place: Option<Place>,
    /// None when it was dropped from memory: then the file has it.
    body: Option<Bytes>,
    bytes: usize,
}

/// The log's contents. Changes come here first, then to the files.
pub(super) struct Index {
    vote: Option<Vote>,
    committed: Option<EntryId>,
    purged: Option<EntryId>,
    entries: BTreeMap<u64, Slot>,
    cache_bytes: usize,
    cached: usize,
    /// Bodies below this index are not in memory.
    cached_from: u64,
    /// Why nothing more may be written.
    broken: Option<String>,
    /// Off while files are replayed: the first file may start behind entries that were purged with theirs.
    checks_start: bool,
}

impl Index {
    pub(super) fn new(cache_bytes: usize) -> Self {
        Index {
            vote: None,
            committed: None,
            purged: None,
            entries: BTreeMap::new(),
            cache_bytes,
            cached: 0,
            cached_from: 0,
            broken: None,
            checks_start: false,
        }
    }

    pub(super) fn summary(&self) -> Summary {
        let last = self.entries.last_key_value().map(|(_, slot)| slot.id);
        Summary {
            vote: self.vote,
            committed: self.committed,
            purged: self.purged,
            last: last.or(self.purged),
        }
    }

    /// What an older file's head said, before its records.
    pub(super) fn start_at(&mut self, head: &Head) {
        self.vote = head.vote;
        self.committed = head.committed;
        if let Some(purged) = head.purged {
            self.purge(purged);
        }
    }

    /// Ends the replay: what is left must have no hole behind what was purged.
    pub(super) fn finish_replay(&mut self) -> Result<(), String> {
        self.checks_start = true;
        match (self.purged, self.entries.first_key_value()) {
            (Some(purged), Some((first, _))) if *first != purged.index + 1 => {
                Err(format!("entry {} is missing: the log starts at {first}", purged.index + 1))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn apply_all(&mut self, changes: &[Change]) -> io::Result<()> {
        if let Some(reason) = &self.broken {
            return Err(io::Error::other(format!("the raft log has stopped: {reason}")));
        }
        for change in changes {
            self.apply(change, None).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        }
        self.evict();
        Ok(())
    }

    pub(super) fn apply(&mut self, change: &Change, place: Option<Place>) -> Result<(), String> {
        match change {
            Change::Vote(vote) => self.vote = Some(*vote),
            Change::Append { id, body } => self.append(*id, body.clone(), place)?,
            Change::Truncate { from } => self.truncate(*from),
            Change::Purge(id) => self.purge(*id),
            Change::Commit(id) => self.committed = *id,
        }
        Ok(())
    }

    fn append(&mut self, id: EntryId, body: Bytes, place: Option<Place>) -> Result<(), String> {
        let before = match self.entries.last_key_value() {
            Some((last, _)) => Some(*last),
            None if self.checks_start => self.purged.map(|p| p.index),
            None => None,
        };
        if let Some(before) = before.filter(|before| before + 1 != id.index) {
            return Err(format!("entry {} behind entry {before} leaves a hole", id.index));
        }
        self.cached += body.len();
        let bytes = body.len();
        self.entries.insert(id.index, Slot { id, place, body: Some(body), bytes });
        Ok(())
    }

    fn truncate(&mut self, from: u64) {
        let gone = self.entries.split_off(&from);
        self.forget(&gone);
        self.cached_from = self.cached_from.min(from);
    }

    fn purge(&mut self, id: EntryId) {
        if self.purged.is_some_and(|purged| purged.index >= id.index) {
            return;
        }
        let kept = self.entries.split_off(&(id.index + 1));
        let gone = std::mem::replace(&mut self.entries, kept);
        self.forget(&gone);
        self.purged = Some(id);
    }

    fn forget(&mut self, gone: &BTreeMap<u64, Slot>) {
        let bytes: usize = gone.values().filter_map(|slot| slot.body.as_ref()).map(Bytes::len).sum();
        self.cached -= bytes;
    }

    /// Notes where entries were written, and drops the oldest bodies when there are too many.
    pub(super) fn placed(&mut self, places: &[(EntryId, Place)]) {
        for (id, place) in places {
            if let Some(slot) = self.entries.get_mut(&id.index).filter(|slot| slot.id == *id) {
                slot.place = Some(*place);
            }
        }
        self.evict();
    }

    pub(super) fn evict(&mut self) {
        while self.cached > self.cache_bytes {
            let Some((index, slot)) = self.entries.range_mut(self.cached_from..).next() else { return };
            if slot.place.is_none() {
                return;
            }
            self.cached -= slot.body.take().map_or(0, |body| body.len());
            self.cached_from = index + 1;
        }
    }

    /// Entries in a range until their bodies reach `bytes_max`, at least one; `load` reads those not in memory.
    pub(super) fn read(
        &self,
        range: impl RangeBounds<u64>,
        bytes_max: usize,
        load: impl FnOnce(&[Place]) -> io::Result<Vec<Bytes>>,
    ) -> io::Result<Vec<(EntryId, Bytes)>> {
        let mut total = 0;
        let fits = |slot: &&Slot| {
            let room = total == 0 || total + slot.bytes <= bytes_max;
            total += slot.bytes.max(1);
            room
        };
        let slots: Vec<&Slot> = self.entries.range(range).map(|(_, slot)| slot).take_while(fits).collect();
        let away: Vec<Place> = slots.iter().filter(|s| s.body.is_none()).filter_map(|s| s.place).collect();
        let mut loaded = if away.is_empty() { Vec::new() } else { load(&away)? }.into_iter();
        let lost = || io::Error::other("an entry is neither in memory nor in a file");
        slots
            .into_iter()
            .map(|slot| match &slot.body {
                Some(body) => Ok((slot.id, body.clone())),
                None => Ok((slot.id, loaded.next().ok_or_else(lost)?)),
            })
            .collect()
    }

    /// No change is taken from now on: after a failed write or sync nobody knows what the files hold.
    pub(super) fn break_down(&mut self, reason: &str) {
        self.broken.get_or_insert_with(|| reason.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(index: u64) -> Change {
        Change::Append { id: EntryId { term: 1, node: 1, index }, body: Bytes::from(vec![index as u8; 100]) }
    }

    fn place(index: u64) -> (EntryId, Place) {
        (EntryId { term: 1, node: 1, index }, Place { sequence: 1, offset: index, bytes: 1 })
    }

    #[test]
    fn the_oldest_bodies_leave_memory_once_they_are_written() {
        let mut index = Index::new(250);
        index.apply_all(&[append(0), append(1), append(2), append(3)]).unwrap();
        assert_eq!(index.cached, 400, "not written yet");
        index.placed(&[place(0), place(1), place(2)]);
        assert_eq!((index.cached, index.cached_from), (200, 2));
        let read = index.read(0..3, 10_000, |places| {
            assert_eq!(places.iter().map(|p| p.offset).collect::<Vec<_>>(), [0, 1]);
            Ok(vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")])
        });
        let bodies: Vec<usize> = read.unwrap().iter().map(|(_, body)| body.len()).collect();
        assert_eq!(bodies, [1, 1, 100]);
        index.apply_all(&[Change::Truncate { from: 1 }, append(1)]).unwrap();
        assert_eq!((index.cached, index.cached_from), (100, 1));
    }

    #[test]
    fn a_read_stops_at_its_bytes_but_gives_one() {
        let mut index = Index::new(10_000);
        index.apply_all(&[append(0), append(1), append(2)]).unwrap();
        let count = |max| index.read(.., max, |_| unreachable!()).unwrap().len();
        assert_eq!((count(1), count(199), count(200), count(1000)), (1, 1, 2, 3));
    }

    #[test]
    fn holes_are_refused() {
        let mut index = Index::new(10_000);
        index.finish_replay().unwrap();
        index.apply_all(&[append(0)]).unwrap();
        assert!(index.apply_all(&[append(2)]).is_err());
        let purge = Change::Purge(EntryId { term: 1, node: 1, index: 9 });
        index.apply_all(&[purge]).unwrap();
        assert!(index.apply_all(&[append(9)]).is_err());
        index.apply_all(&[append(10)]).unwrap();
        assert_eq!(index.summary().last.unwrap().index, 10);
    }
}
