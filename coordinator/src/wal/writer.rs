//! The files: opening them, writing batches, syncing, going on to the next file, dropping old ones.

use super::index::{Index, Place};
use super::record::{self, Head};
use super::segment::{self, Active, Step};
use super::{Change, EntryId, FORMAT, READER, WalError, WalOptions};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use sys::disk::{self, Disk};

/// A full file, no longer written.
struct Full {
    sequence: u64,
    last_index: Option<u64>,
}

pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    options: WalOptions,
    active: Active,
    full: VecDeque<Full>,
    /// The head of the next file, kept up to date with what was written.
    head: Head,
    #[cfg(test)]
    owes_a_sync: bool,
}

/// Opens the log in a folder: replays all files into memory and returns both halves.
pub(super) fn open(disk: Arc<dyn Disk>, options: WalOptions) -> Result<(Index, Writer), WalError> {
    disk::create_dir_durably(disk.as_ref(), &options.dir)?;
    // After the crash of a program a new file's name may be in the machine's memory only.
    disk.sync_dir(&options.dir)?;
    let sequences = segment::list(disk.as_ref(), &options.dir)?;
    check_sequences(&sequences, &options.dir)?;
    let mut index = Index::new(options.cache_bytes);
    let mut head = first_head(&options);
    let (mut active, mut full) = (None, VecDeque::new());
    for (n, sequence) in sequences.iter().enumerate() {
        let is_last = n + 1 == sequences.len();
        let found = segment::replay(disk.as_ref(), &options, *sequence, is_last, |step| match step {
            Step::Head(found) => {
                index.start_at(found);
                head = found.clone();
                Ok(())
            }
            Step::Change(change, place) => {
                note(&mut head, &change);
                index.apply(&change, Some(place))?;
                index.evict();
                Ok(())
            }
        })?;
        if is_last {
            active = Some(found);
        } else {
            full.push_back(Full { sequence: *sequence, last_index: found.last_index });
        }
    }
    let dir = &options.dir;
    let first = |detail| WalError::Damaged { file: segment::path(dir, sequences[0]), offset: 0, detail };
    index.finish_replay().map_err(first)?;
    let active = match active {
        Some(active) => active,
        None => segment::create(disk.as_ref(), dir, &head, options.segment_bytes)?,
    };
    let writer = Writer {
        disk,
        options,
        active,
        full,
        head,
        #[cfg(test)]
        owes_a_sync: false,
    };
    Ok((index, writer))
}

/// Old versions never wrote this file, so both numbers are this version's.
fn first_head(options: &WalOptions) -> Head {
    Head {
        format: FORMAT,
        min_reader: READER,
        cluster: options.cluster,
        node: options.node,
        sequence: 1,
        vote: None,
        purged: None,
        committed: None,
    }
}

fn check_sequences(sequences: &[u64], dir: &str) -> Result<(), WalError> {
    match sequences.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
        Some(pair) => Err(WalError::Missing { file: segment::path(dir, pair[0] + 1) }),
        None => Ok(()),
    }
}

fn note(head: &mut Head, change: &Change) {
    match change {
        Change::Vote(vote) => head.vote = Some(*vote),
        Change::Purge(id) if head.purged.is_none_or(|p| p.index < id.index) => head.purged = Some(*id),
        Change::Commit(id) => head.committed = *id,
        Change::Purge(_) | Change::Append { .. } | Change::Truncate { .. } => {}
    }
}

impl Writer {
    /// Writes a batch and makes it durable. After an error nothing is known, and nothing may follow.
    pub(super) fn commit(&mut self, changes: &[Change]) -> io::Result<Vec<(EntryId, Place)>> {
        #[cfg(test)]
        if self.options.planted == Some(super::Planted::AcknowledgeBeforeSync) {
            return self.commit_too_early(changes);
        }
        let places = self.write(changes)?;
        if changes.iter().any(|change| !matches!(change, Change::Commit(_))) {
            self.sync()?;
        }
        Ok(places)
    }

    #[cfg(test)]
    fn commit_too_early(&mut self, changes: &[Change]) -> io::Result<Vec<(EntryId, Place)>> {
        if std::mem::take(&mut self.owes_a_sync) {
            self.sync()?;
        }
        self.owes_a_sync = true;
        self.write(changes)
    }

    fn write(&mut self, changes: &[Change]) -> io::Result<Vec<(EntryId, Place)>> {
        let (mut batch, mut places) = (Vec::new(), Vec::new());
        for change in changes {
            #[cfg(test)]
            if self.is_forgotten(change) {
                continue;
            }
            let (kind, payload) = record::encode(change);
            let bytes = record::framed_len(payload.len()) as u64;
            if self.active.end + batch.len() as u64 + bytes > self.active.capacity {
                self.put(&mut batch)?;
                self.next_file(bytes)?;
            }
            if let Change::Append { id, .. } = change {
                let offset = self.active.end + batch.len() as u64;
                places.push((*id, Place { sequence: self.active.sequence, offset, bytes: bytes as u32 }));
                self.active.last_index = self.active.last_index.max(Some(id.index));
            }
            record::frame(&mut batch, kind, &payload, self.active.synced);
            note(&mut self.head, change);
        }
        self.put(&mut batch)?;
        Ok(places)
    }

    #[cfg(test)]
    pub(super) fn sync_ms(&self) -> Arc<std::sync::atomic::AtomicU64> {
        self.options.sync_ms.clone()
    }

    #[cfg(test)]
    fn is_forgotten(&self, change: &Change) -> bool {
        match self.options.planted {
            Some(super::Planted::ForgetVotes) => matches!(change, Change::Vote(_)),
            Some(super::Planted::KeepTruncated) => matches!(change, Change::Truncate { .. }),
            Some(super::Planted::AcknowledgeBeforeSync) | None => false,
        }
    }

    fn put(&mut self, batch: &mut Vec<u8>) -> io::Result<()> {
        if !batch.is_empty() {
            self.active.file.write_at(self.active.end, batch)?;
            self.active.end += batch.len() as u64;
            batch.clear();
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.active.synced < self.active.end {
            self.active.file.sync()?;
            self.active.synced = self.active.end;
        }
        Ok(())
    }

    /// The full file is durable before the next one exists, so only the last file can have a torn end.
    fn next_file(&mut self, record_bytes: u64) -> io::Result<()> {
        self.sync()?;
        self.head.sequence = self.active.sequence + 1;
        let capacity = segment::capacity_for(self.options.segment_bytes, record_bytes);
        let next = segment::create(self.disk.as_ref(), &self.options.dir, &self.head, capacity)?;
        let full = std::mem::replace(&mut self.active, next);
        self.full.push_back(Full { sequence: full.sequence, last_index: full.last_index });
        Ok(())
    }

    /// Removes files whose entries are all purged, oldest first, each durably before the next, so that a
    /// crash never leaves a gap. The head of the following file knows what they said. A failure only leaves
    /// a file to be removed later.
    pub(super) fn drop_purged(&mut self) {
        let Some(purged) = self.head.purged else { return };
        while self.full.front().is_some_and(|full| full.last_index <= Some(purged.index)) {
            let path = segment::path(&self.options.dir, self.full[0].sequence);
            let removed = self.disk.remove(&path).and_then(|()| self.disk.sync_dir(&self.options.dir));
            if let Err(error) = removed {
                tracing::warn!(file = %path, %error, "failed to remove an old raft log file");
                return;
            }
            self.full.pop_front();
        }
    }
}
