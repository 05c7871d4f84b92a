//! Reads an archive from its beginning to its end, and believes nothing that it says.

use super::format::{End, FRAME_HEAD, Head, Kind, MAGIC, Stored, parse_head};
use super::write::Summary;
use super::{BackupError, Is, named_by};
use ledger::State;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use types::{Hash, ProjectName};

/// An archive whose every byte was looked at.
#[derive(Debug)]
pub(crate) struct Verified {
    pub summary: Summary,
    /// The ledger as it was, with the hash that the archive promises.
    pub state: State,
}

/// Checks the whole file: every length, every hash, that the ledger's own hash is right, and that the file holds each
/// segment that the ledger or a journal names, except for as many as it says are missing.
pub(crate) fn verify(file: &Path) -> Result<Verified, BackupError> {
    let mut reader = Reader::open(file)?;
    let head = reader.head()?;
    let state = reader.ledger(&head)?;
    let mut names = Names::of(&state);
    let mut segments = 0;
    let end = loop {
        match reader.next_part()? {
            Part::Segment(stored) => {
                names.meet(&stored, reader.at)?;
                segments += 1;
            }
            Part::End(end) => break end,
        }
    };
    reader.nothing_follows()?;
    let (at, tasks) = (reader.at, state.tasks().count() as u64);
    let damaged = |why: String| Err(BackupError::Damaged { at, why });
    if (end.tasks, end.segments) != (tasks, segments) {
        return damaged(format!(
            "it counts {} tasks and {} segments, and holds {tasks} and {segments}",
            end.tasks, end.segments
        ));
    }
    if names.missing() != end.missing {
        return damaged(format!(
            "{} named segments are not in it, it admits {}",
            names.missing(),
            end.missing
        ));
    }
    Ok(Verified { summary: Summary { head, end, bytes: reader.at }, state })
}

/// What the ledger names, and what the file was seen to hold.
struct Names {
    named: BTreeSet<(ProjectName, Hash)>,
    records: BTreeMap<(ProjectName, Hash), Is>,
    /// Forgotten, so in no file.
    gone: BTreeSet<(ProjectName, Hash)>,
    seen: BTreeSet<(ProjectName, Hash)>,
}

impl Names {
    fn of(state: &State) -> Names {
        let (named, records, seen) = Default::default();
        let gone = state.forgotten().map(|(project, hash)| (project.clone(), hash)).collect();
        let mut names = Names { named, records, gone, seen };
        for needed in state.needed() {
            let key = |hash| (needed.project.clone(), hash);
            let records =
                [(needed.journal, Is::Step), (needed.memory, Is::Memory), (needed.board, Is::Board)];
            names.named.extend(needed.segments.iter().copied().map(key));
            for (record, is) in records.into_iter().filter_map(|(record, is)| Some((key(record?), is))) {
                names.named.insert(record.clone());
                names.records.insert(record, is);
            }
        }
        names
    }

    /// A record stands before what it alone names, so each is asked for when it comes.
    fn meet(&mut self, stored: &Stored, at: u64) -> Result<(), BackupError> {
        let Stored { project, hash, bytes } = stored;
        let damaged = |why: String| BackupError::Damaged { at, why };
        context::verify(project, *hash, bytes).map_err(|error| damaged(error.to_string()))?;
        let key = (project.clone(), *hash);
        if !self.named.contains(&key) {
            return Err(damaged(format!("segment {} is named by nothing", hash.short())));
        }
        if let Some(is) = self.records.get(&key).copied() {
            let (names, previous) =
                named_by(is, project, *hash, bytes).map_err(|e| damaged(e.to_string()))?;
            self.named.extend(names.into_iter().chain(previous).map(|hash| (project.clone(), hash)));
            self.records.extend(previous.map(|hash| ((project.clone(), hash), is)));
        }
        match self.seen.insert(key) {
            true => Ok(()),
            false => Err(damaged(format!("segment {} comes twice", hash.short()))),
        }
    }

    fn missing(&self) -> u64 {
        self.named.difference(&self.seen).filter(|key| !self.gone.contains(key)).count() as u64
    }
}

/// What stands behind the ledger.
pub(crate) enum Part {
    Segment(Stored),
    End(End),
}

pub(crate) struct Reader {
    from: BufReader<File>,
    hasher: blake3::Hasher,
    /// Bytes read so far.
    pub(crate) at: u64,
}

impl Reader {
    pub(crate) fn open(file: &Path) -> Result<Reader, BackupError> {
        let unreadable = |error: std::io::Error| BackupError::Unreadable {
            file: file.display().to_string(),
            why: error.to_string(),
        };
        let from = BufReader::with_capacity(1 << 20, File::open(file).map_err(unreadable)?);
        let mut reader = Reader { from, hasher: blake3::Hasher::new(), at: 0 };
        match reader.take(MAGIC.len()) {
            Ok(magic) if magic == MAGIC => Ok(reader),
            _ => Err(BackupError::NoArchive),
        }
    }

    pub(crate) fn head(&mut self) -> Result<Head, BackupError> {
        match self.frame()? {
            (Kind::Head, bytes) => Head::decode(&bytes),
            _ => Err(self.damaged("it does not begin with its head")),
        }
    }

    /// The ledger, made again and compared with what the head says of it.
    pub(crate) fn ledger(&mut self, head: &Head) -> Result<State, BackupError> {
        let mut ledger = Vec::new();
        while (ledger.len() as u64) < head.ledger_bytes {
            match self.frame()? {
                (Kind::Ledger, piece) if !piece.is_empty() => ledger.extend(piece),
                _ => return Err(self.damaged("the ledger is not whole")),
            }
        }
        if Hash::of(&ledger) != head.ledger_hash || ledger.len() as u64 != head.ledger_bytes {
            return Err(self.damaged("the ledger is not the one that the head names"));
        }
        let state = State::restore(&ledger).map_err(|halt| self.damaged(&halt.to_string()))?;
        let found = (state.state_hash(), state.applied_index(), state.cluster_id(), state.incarnation());
        match found == (head.state_hash, head.applied_index, Some(head.cluster), head.incarnation) {
            true => Ok(state),
            false => Err(self.damaged("the ledger's hash, entry or cluster are not those of the head")),
        }
    }

    pub(crate) fn next_part(&mut self) -> Result<Part, BackupError> {
        let (at, before) = (self.at, Hash(*self.hasher.finalize().as_bytes()));
        let unreadable = |error: minicbor::decode::Error| BackupError::Damaged { at, why: error.to_string() };
        match self.frame()? {
            (Kind::Segment, bytes) => Ok(Part::Segment(types::decode(&bytes).map_err(unreadable)?)),
            (Kind::End, bytes) => match types::decode::<End>(&bytes).map_err(unreadable)? {
                end if end.hash == before => Ok(Part::End(end)),
                _ => Err(self.damaged("the hash of the file is not the one at its end")),
            },
            _ => Err(self.damaged("a part stands where none of its kind may be")),
        }
    }

    pub(crate) fn nothing_follows(&mut self) -> Result<(), BackupError> {
        match self.from.read(&mut [0]) {
            Ok(0) => Ok(()),
            _ => Err(self.damaged("something follows its end mark")),
        }
    }

    fn frame(&mut self) -> Result<(Kind, Vec<u8>), BackupError> {
        let head = self.take(FRAME_HEAD)?;
        let head = head.try_into().expect("as many bytes as were asked for");
        let (kind, length) = parse_head(head, self.at)?;
        Ok((kind, self.take(length)?))
    }

    /// Exactly so many bytes; the caller has bounded them.
    fn take(&mut self, length: usize) -> Result<Vec<u8>, BackupError> {
        let mut bytes = vec![0; length];
        self.from.read_exact(&mut bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => BackupError::CutOff { at: self.at },
            _ => BackupError::Unreadable { file: "the archive".into(), why: error.to_string() },
        })?;
        self.hasher.update(&bytes);
        self.at += length as u64;
        Ok(bytes)
    }

    fn damaged(&self, why: &str) -> BackupError {
        BackupError::Damaged { at: self.at, why: why.to_string() }
    }
}
