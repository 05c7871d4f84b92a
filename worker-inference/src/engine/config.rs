//! What an engine is told at start, what it says about itself, and why it may not start.

use std::path::PathBuf;

use types::Hash;

use super::Speculation;
use crate::blocks::BLOCK_TOKENS;
use crate::model::gguf::GgufError;
use crate::model::weights::ModelError;
use crate::scheduler::Limits;
use crate::text::TextError;

/// How to run a model. Nothing here changes any token, except that another `window` refuses other prompts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Bytes of the KV pool; taken from the machine only as far as it is used.
    pub kv_bytes: usize,
    /// Compute threads, the caller's included. 0: all cores that this process may use.
    pub threads: usize,
    /// `scalar`, `avx2`, `avx512` or `amx`; None picks the best of this machine.
    pub isa: Option<String>,
    /// Rows of one step. More is faster for prompts, fewer shortens the wait between two generated tokens.
    pub step_tokens: usize,
    /// Rows of one prompt in one step.
    pub chunk_tokens: usize,
    /// Sequences that run at the same time.
    pub running: usize,
    /// Sequences that may wait.
    pub waiting: usize,
    /// Tokens of one sequence; None takes the model's own window. The pool bounds it too.
    pub window: Option<usize>,
    /// Cores to pin the compute threads to, one each; empty pins nothing.
    pub cores: Vec<usize>,
    /// Whether compute threads give way to all others (SCHED_BATCH, nice 10).
    pub low_priority: bool,
    /// What decides which cached block goes when room is needed: `ours`, or one of [`crate::evict::POLICIES`].
    pub eviction: String,
    /// Memory for blocks that left the pool; 0: none.
    pub host_kv_bytes: u64,
    /// A folder for blocks, found again after a restart.
    pub disk_kv: Option<DiskKv>,
    /// Whether tokens are guessed and run before they are known.
    pub speculation: Speculation,
    /// An output matrix of 8 bits with so many values is sketched in 5, two thirds of its size again, so that the
    /// likeliest token is found without reading all of it. A smaller one stays in the processor's cache for a good part.
    pub sketch_from: usize,
}

/// The disk tier of an engine. KV tells the text that it was made from: the folder is made private.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskKv {
    pub folder: PathBuf,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Bytes a second that may be written.
    pub bytes_s: u64,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            kv_bytes: 256 << 20,
            threads: 0,
            isa: None,
            step_tokens: 256,
            chunk_tokens: 256,
            running: 128,
            waiting: 4096,
            window: None,
            cores: Vec::new(),
            low_priority: true,
            eviction: "ours".into(),
            host_kv_bytes: 0,
            disk_kv: None,
            speculation: Speculation::default(),
            sketch_from: 1 << 26,
        }
    }
}

impl EngineConfig {
    /// Refuses what can't work, with the name of the setting.
    pub(super) fn check(&self) -> Result<(), LoadError> {
        if self.running == 0 || self.step_tokens < self.running + BLOCK_TOKENS {
            return Err(LoadError::Config("engine.step_tokens must be at least engine.running + 16"));
        }
        if self.chunk_tokens < BLOCK_TOKENS {
            return Err(LoadError::Config("engine.chunk_tokens must be at least 16"));
        }
        if crate::evict::policy(&self.eviction, 2).is_none() {
            return Err(LoadError::Config("engine.eviction must be ours, lru, slru, arc, s3-fifo or ttl"));
        }
        if self.threads > 1024 || self.step_tokens > 1 << 16 {
            return Err(LoadError::Config(
                "engine.threads (1024) or engine.step_tokens (65536) is too large",
            ));
        }
        Ok(())
    }

    pub(super) fn threads(&self) -> usize {
        match self.threads {
            0 => sys::allowed_cores().len().max(1),
            threads => threads,
        }
    }

    pub(super) fn limits(&self, window: usize) -> Limits {
        Limits {
            step_tokens: self.step_tokens,
            chunk_tokens: self.chunk_tokens,
            running: self.running,
            waiting: self.waiting,
            window,
        }
    }
}

/// What an engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// BLAKE3 of the model file.
    pub model_digest: Hash,
    /// Engines with the same numerics id give the same bits: model digest, kernel family, KV type.
    pub numerics_id: Hash,
    pub architecture: String,
    /// Tokens that one sequence may have, generated ones included.
    pub window: usize,
    pub vocab: usize,
    pub kv_blocks: usize,
    pub isa: String,
    pub threads: usize,
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Map(#[from] sys::MapError),
    #[error("cannot use {path}: {cause}")]
    File { path: PathBuf, cause: GgufError },
    #[error("cannot use {path}: {cause}")]
    Text { path: PathBuf, cause: TextError },
    #[error("cannot use {path}: {cause}")]
    Model { path: PathBuf, cause: ModelError },
    #[error(transparent)]
    Isa(#[from] kernels::IsaError),
    #[error("engine.kv_bytes is {kv_bytes}, two KV blocks of this model need {needed}; raise it")]
    Kv { kv_bytes: usize, needed: usize },
    #[error("engine settings: {0}")]
    Config(&'static str),
}
