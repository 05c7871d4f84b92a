//! The note beside a model: its digests, and the size and time of the file that they were computed from.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use types::Hash;

use super::{ModelError, Watch, io_error};

const FORMAT: u32 = 1;
/// A note is a few hundred bytes; more is not ours.
const NOTE_BYTES: u64 = 64 << 10;
const READ_BYTES: usize = 1 << 20;

/// What is known of a model file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) bytes: u64,
    pub(super) modified_ns: u64,
    pub(super) digest: Hash,
    pub(super) sha256: String,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    min_reader: u32,
    bytes: u64,
    modified_ns: u64,
    digest: String,
    sha256: String,
}

/// Both digests of a file, in one pass.
pub(super) struct Digests {
    pub(super) digest: Hash,
    pub(super) sha256: String,
}

pub(super) fn path_of(model: &Path) -> PathBuf {
    model.with_extension("json")
}

/// The note of a model: the one that is there if it fits the file, else a new one.
pub(super) fn read_or_make(model: &Path, dir: &Path, name: &str) -> Result<Note, ModelError> {
    let (bytes, modified_ns) = match size_and_time(model) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            return Err(ModelError::Absent { name: name.to_string(), dir: dir.to_path_buf() });
        }
        other => other.map_err(io_error("read", model))?,
    };
    match read(model) {
        Some(note) if note.bytes == bytes && note.modified_ns == modified_ns => Ok(note),
        _absent_or_stale => make(model, &super::Silent),
    }
}

/// Hashes the model and leaves a note, where the folder can be written to.
pub(super) fn make(model: &Path, watch: &dyn Watch) -> Result<Note, ModelError> {
    let (bytes, modified_ns) = size_and_time(model).map_err(io_error("read", model))?;
    let digests = hash(model, watch)?;
    let note = Note { bytes, modified_ns, digest: digests.digest, sha256: digests.sha256 };
    write(model, &note);
    Ok(note)
}

/// Writes the note. Failing is no harm: the next start hashes again.
pub(super) fn write(model: &Path, note: &Note) {
    let stored = Stored {
        format: FORMAT,
        min_reader: FORMAT,
        bytes: note.bytes,
        modified_ns: note.modified_ns,
        digest: note.digest.to_string(),
        sha256: note.sha256.clone(),
    };
    let path = path_of(model);
    let temporary = path.with_extension(format!("json.{}", std::process::id()));
    let text = serde_json::to_string_pretty(&stored).expect("plain fields become JSON");
    let written = fs::write(&temporary, text + "\n").and_then(|()| fs::rename(&temporary, &path));
    if let Err(error) = written {
        tracing::debug!(%error, path = %path.display(), "no note was left beside the model");
    }
}

fn read(model: &Path) -> Option<Note> {
    let mut text = String::new();
    File::open(path_of(model)).ok()?.take(NOTE_BYTES).read_to_string(&mut text).ok()?;
    let stored: Stored = serde_json::from_str(&text).ok()?;
    (stored.min_reader <= FORMAT).then_some(())?;
    let digest = Hash::parse(&stored.digest).ok()?;
    Some(Note { bytes: stored.bytes, modified_ns: stored.modified_ns, digest, sha256: stored.sha256 })
}

/// The digest in the note of a model.
pub(super) fn noted(model: &Path) -> Option<Hash> {
    read(model).map(|note| note.digest)
}

/// The SHA-256 in the note of a model.
pub(super) fn sha256(model: &Path) -> Option<String> {
    read(model).map(|note| note.sha256)
}

pub(super) fn size_and_time(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    let since = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((metadata.len(), u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)))
}

pub(super) fn hash(path: &Path, watch: &dyn Watch) -> Result<Digests, ModelError> {
    let mut file = File::open(path).map_err(io_error("read", path))?;
    let (mut blake, mut sha) = (blake3::Hasher::new(), Sha256::new());
    let (mut buffer, mut done) = (vec![0; READ_BYTES], 0);
    loop {
        let read = file.read(&mut buffer).map_err(io_error("read", path))?;
        if read == 0 {
            break;
        }
        blake.update(&buffer[..read]);
        sha.update(&buffer[..read]);
        done += read as u64;
        watch.at(done);
    }
    let sha256 = sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Digests { digest: Hash(*blake.finalize().as_bytes()), sha256 })
}
