//! A llama's sizes, read from the file and checked for sense.

use kernels::KvLayout;

use crate::model::gguf::Gguf;
use crate::model::weights::ModelError;

/// Sizes of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    pub layers: usize,
    pub hidden: usize,
    pub ffn: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocabulary: usize,
    /// Tokens that the model was trained to see.
    pub window: usize,
    pub rope_base: f64,
    pub epsilon: f32,
}

impl LlamaConfig {
    /// Reads `llama.*`. Variants that would need other arithmetic are refused by name.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<LlamaConfig, ModelError> {
        let architecture = gguf.text("general.architecture")?;
        if architecture != "llama" {
            return Err(ModelError::Architecture(architecture.to_owned()));
        }
        refuse_variants(gguf)?;
        let size = |key: &str, most: u64| sized(key, gguf.number(key)?, most);
        let heads = size("llama.attention.head_count", 1024)?;
        let hidden = size("llama.embedding_length", 1 << 16)?;
        let stated = gguf.number_or("llama.attention.key_length", (hidden / heads) as u64)?;
        let kv_heads = gguf.number_or("llama.attention.head_count_kv", heads as u64)?;
        let config = LlamaConfig {
            layers: size("llama.block_count", 1024)?,
            hidden,
            ffn: size("llama.feed_forward_length", 1 << 18)?,
            heads,
            kv_heads: sized("llama.attention.head_count_kv", kv_heads, 1024)?,
            head_dim: sized("llama.attention.key_length", stated, 1024)?,
            vocabulary: sized(
                "the number of tokens",
                gguf.texts("tokenizer.ggml.tokens")?.len() as u64,
                1 << 20,
            )?,
            window: size("llama.context_length", 1 << 24)?,
            rope_base: gguf.float_or("llama.rope.freq_base", 10_000.0)?,
            epsilon: gguf.float("llama.attention.layer_norm_rms_epsilon")? as f32,
        };
        config.check(gguf)?;
        Ok(config)
    }

    /// The shape of this model's KV.
    pub fn kv_layout(&self) -> KvLayout {
        KvLayout { layers: self.layers, kv_heads: self.kv_heads, head_dim: self.head_dim }
    }

    fn check(&self, gguf: &Gguf<'_>) -> Result<(), ModelError> {
        if !self.heads.is_multiple_of(self.kv_heads) {
            let expected = format!("a divisor of {} heads", self.heads);
            return Err(shape("llama.attention.head_count_kv", self.kv_heads, expected));
        }
        if !self.head_dim.is_multiple_of(16) || self.head_dim > kernels::HEAD_DIM_MAX {
            let expected = format!("a multiple of 16 up to {}", kernels::HEAD_DIM_MAX);
            return Err(shape("llama.attention.key_length", self.head_dim, expected));
        }
        let head_dim = self.head_dim as u64;
        for key in ["llama.rope.dimension_count", "llama.attention.value_length"] {
            let found = gguf.number_or(key, head_dim)?;
            if found != head_dim {
                return Err(shape(key, found, format!("{head_dim}, the size of a head")));
            }
        }
        if !(self.rope_base.is_finite() && self.rope_base > 1.0) {
            return Err(shape("llama.rope.freq_base", self.rope_base, "a number above 1".into()));
        }
        if !(self.epsilon.is_finite() && self.epsilon >= 0.0) {
            let key = "llama.attention.layer_norm_rms_epsilon";
            return Err(shape(key, self.epsilon, "a number of 0 or more".into()));
        }
        Ok(())
    }
}

fn refuse_variants(gguf: &Gguf<'_>) -> Result<(), ModelError> {
    if gguf.number_or("llama.expert_count", 0)? > 0 {
        return Err(ModelError::Feature("experts (llama.expert_count)".into()));
    }
    for key in ["llama.rope.scaling.type", "llama.attention.sliding_window"] {
        let value = gguf.get(key);
        if value.is_some_and(|value| value.text() != Some("none")) {
            return Err(ModelError::Feature(key.to_owned()));
        }
    }
    Ok(())
}

fn sized(key: &str, found: u64, most: u64) -> Result<usize, ModelError> {
    match found {
        1.. if found <= most => Ok(found as usize),
        _ => Err(shape(key, found, format!("1 to {most}"))),
    }
}

fn shape(key: &str, found: impl ToString, expected: String) -> ModelError {
    ModelError::Shape { key: key.to_owned(), found: found.to_string(), expected }
}
