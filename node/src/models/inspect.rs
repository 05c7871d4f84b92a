//! What a model file says about itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sys::Mapped;
use types::Hash;
use worker_inference::model::gguf::Gguf;

use super::{ModelError, ModelFile, as_text};

/// A model as `model inspect` shows it. A field that the file does not have is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    pub name: String,
    pub path: PathBuf,
    pub bytes: u64,
    #[serde(serialize_with = "as_text")]
    pub digest: Hash,
    pub sha256: Option<String>,
    pub gguf_version: u32,
    pub architecture: Option<String>,
    pub title: Option<String>,
    /// Numbers in all tensors.
    pub parameters: u64,
    pub tensors: usize,
    /// Tensors of each stored type.
    pub types: BTreeMap<String, u64>,
    /// The longest context, in tokens, that the model was made for.
    pub window: Option<u64>,
    pub layers: Option<u64>,
    pub width: Option<u64>,
    pub heads: Option<u64>,
    pub kv_heads: Option<u64>,
    pub vocabulary: Option<u64>,
    pub tokenizer: Option<String>,
    pub has_chat_template: bool,
}

/// Checks that a file is a complete GGUF file.
pub(super) fn validate(path: &Path) -> Result<(), ModelError> {
    with_gguf(path, |_| ())
}

pub(super) fn inspect(model: &ModelFile, sha256: Option<String>) -> Result<Inspection, ModelError> {
    with_gguf(&model.path, |gguf| describe(model, sha256, gguf))
}

fn with_gguf<T>(path: &Path, read: impl FnOnce(&Gguf<'_>) -> T) -> Result<T, ModelError> {
    let bad = |why: String| ModelError::NotAModel { path: path.to_path_buf(), why };
    let mapped = Mapped::open(path).map_err(|e| bad(e.to_string()))?;
    let gguf = Gguf::parse(&mapped).map_err(|e| bad(e.to_string()))?;
    Ok(read(&gguf))
}

fn describe(model: &ModelFile, sha256: Option<String>, gguf: &Gguf<'_>) -> Inspection {
    let text = |key: &str| gguf.text(key).ok().map(str::to_string);
    let architecture = text("general.architecture");
    let number = |key: &str| gguf.number(&format!("{}.{key}", architecture.as_deref()?)).ok();
    let mut types = BTreeMap::new();
    for (_, tensor) in gguf.tensors() {
        *types.entry(tensor.type_id.to_string()).or_default() += 1;
    }
    let numbers = |dimensions: &[u64]| dimensions.iter().fold(1u64, |product, n| product.saturating_mul(*n));
    Inspection {
        name: model.name.clone(),
        path: model.path.clone(),
        bytes: model.bytes,
        digest: model.digest,
        sha256,
        gguf_version: gguf.version,
        title: text("general.name"),
        parameters: gguf.tensors().fold(0, |sum, (_, t)| sum.saturating_add(numbers(&t.dimensions))),
        tensors: gguf.tensors().count(),
        types,
        window: number("context_length"),
        layers: number("block_count"),
        width: number("embedding_length"),
        heads: number("attention.head_count"),
        kv_heads: number("attention.head_count_kv"),
        vocabulary: gguf.texts("tokenizer.ggml.tokens").ok().map(|tokens| tokens.len() as u64),
        tokenizer: text("tokenizer.ggml.pre").or_else(|| text("tokenizer.ggml.model")),
        has_chat_template: gguf.get("tokenizer.chat_template").is_some(),
        architecture,
    }
}
