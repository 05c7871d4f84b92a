//! A model on its way into the folder: written under a temporary name, checked, and only then given its own.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use types::Hash;

use super::note::{self, Digests, Note};
use super::work::WorkDir;
use super::{ModelError, ModelFile, ModelStore, inspect, io_error, sync_dir};

/// A temporary file that becomes a model, or disappears.
pub struct Incoming {
    store: ModelStore,
    name: String,
    path: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    /// Holds the file, and goes with it.
    _work: WorkDir,
}

impl Incoming {
    pub(super) fn create(store: ModelStore, name: &str) -> Result<Incoming, ModelError> {
        let work = WorkDir::make(&store.dir)?;
        let path = work.path.join(name);
        let file = File::create(&path).map_err(io_error("create", &path))?;
        Ok(Incoming { store, name: name.to_string(), path, file, hasher: blake3::Hasher::new(), _work: work })
    }

    /// Adds the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(io_error("write", &self.path))
    }

    /// Checks that the bytes are the model that was asked for, and puts it in its place.
    pub fn finish(mut self, digest: Hash) -> Result<ModelFile, ModelError> {
        let found = Hash(*self.hasher.finalize().as_bytes());
        if found != digest {
            return Err(ModelError::WrongDigest { name: self.name.clone(), expected: digest, found });
        }
        self.file.flush().map_err(io_error("write", &self.path))?;
        let digests = note::hash(&self.path, &super::Silent)?;
        place(&self.store, &self.name, &self.path, digests)
    }
}

/// Gives a file of known digests its name in the folder: durable when Ok. The same model again is no change.
pub(super) fn place(
    store: &ModelStore,
    name: &str,
    from: &Path,
    digests: Digests,
) -> Result<ModelFile, ModelError> {
    inspect::validate(from)?;
    File::open(from).and_then(|file| file.sync_all()).map_err(io_error("sync", from))?;
    let path = store.path_of(name);
    match store.resolve(name) {
        Ok(model) if model.digest == digests.digest => return Ok(model),
        Ok(model) => return Err(ModelError::Taken { name: name.to_string(), have: model.digest, path }),
        Err(ModelError::Absent { .. }) => {}
        Err(other) => return Err(other),
    }
    fs::rename(from, &path).map_err(io_error("rename", from))?;
    sync_dir(&store.dir)?;
    let (bytes, modified_ns) = note::size_and_time(&path).map_err(io_error("read", &path))?;
    note::write(&path, &Note { bytes, modified_ns, digest: digests.digest, sha256: digests.sha256 });
    Ok(ModelFile { name: name.to_string(), path, bytes, digest: digests.digest })
}
