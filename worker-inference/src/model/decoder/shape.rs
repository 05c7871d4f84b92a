//! A model's sizes and constants, read from the file and checked for sense.

use kernels::{Gate, KvLayout, RopeStyle};

use super::architecture::Architecture;
use crate::model::gguf::Gguf;
use crate::model::weights::ModelError;

/// Layers of Gemma 3 27B, whose attention is scaled by another width than that of its smaller sisters. The file
/// does not tell.
const GEMMA3_27B_LAYERS: usize = 62;

/// Models with windows of millions of tokens have bases of some 10^7.
const ROPE_BASE_MAX: f64 = 1e12;

/// What the forward pass has to know about one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    pub architecture: Architecture,
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
    /// What angles are divided by: above 1 in models whose window was stretched.
    pub rope_divisor: f64,
    /// Layers that see only the latest tokens, where the model has such.
    pub sliding: Option<Sliding>,
    pub epsilon: f32,
    pub attention_scale: f32,
    pub embedding_scale: f32,
    pub(super) rope_style: RopeStyle,
    pub(super) gate: Gate,
    pub(super) has_head_norms: bool,
    pub(super) has_post_norms: bool,
}

/// Layers with a sliding window.
#[derive(Debug, Clone, PartialEq)]
pub struct Sliding {
    /// Tokens that such a layer sees, the row's own included.
    pub tokens: usize,
    /// Such layers turn by other angles, which are never stretched.
    pub rope_base: f64,
    /// For each layer, whether it is one.
    pub layers: Vec<bool>,
}

/// The metadata of one architecture.
struct Keys<'g, 'a> {
    gguf: &'g Gguf<'a>,
    architecture: Architecture,
}

impl Shape {
    /// Reads the metadata. What would need other arithmetic is refused by name.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Shape, ModelError> {
        let name = gguf.text("general.architecture")?;
        let architecture =
            Architecture::from_name(name).ok_or_else(|| ModelError::Architecture(name.to_owned()))?;
        let keys = Keys { gguf, architecture };
        keys.refuse_variants()?;
        let shape = keys.shape()?;
        keys.check(&shape)?;
        Ok(shape)
    }

    /// The shape of this model's KV.
    pub fn kv_layout(&self) -> KvLayout {
        KvLayout { layers: self.layers, kv_heads: self.kv_heads, head_dim: self.head_dim }
    }

    /// Values of all query heads of a row.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Values of all keys, or all values, of a row.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// The sliding window of a layer, in tokens, if it has one.
    pub fn sliding_of(&self, layer: usize) -> Option<usize> {
        self.sliding.as_ref().filter(|sliding| sliding.layers[layer]).map(|sliding| sliding.tokens)
    }
}

impl Keys<'_, '_> {
    fn key(&self, part: &str) -> String {
        format!("{}.{part}", self.architecture.name())
    }

    fn size(&self, part: &str, most: u64) -> Result<usize, ModelError> {
        let key = self.key(part);
        sized(&key, self.gguf.number(&key)?, most)
    }

    fn size_or(&self, part: &str, default: usize, most: u64) -> Result<usize, ModelError> {
        let key = self.key(part);
        sized(&key, self.gguf.number_or(&key, default as u64)?, most)
    }

    fn float_or(&self, part: &str, default: f64) -> Result<f64, ModelError> {
        Ok(self.gguf.float_or(&self.key(part), default)?)
    }

    fn shape(&self) -> Result<Shape, ModelError> {
        let traits = self.architecture.traits();
        let heads = self.size("attention.head_count", 1024)?;
        let hidden = self.size("embedding_length", 1 << 16)?;
        let layers = self.size("block_count", 1024)?;
        let head_dim = self.size_or("attention.key_length", hidden / heads, 1024)?;
        let tokens = self.gguf.texts("tokenizer.ggml.tokens")?.len() as u64;
        Ok(Shape {
            architecture: self.architecture,
            layers,
            hidden,
            ffn: self.size("feed_forward_length", 1 << 18)?,
            heads,
            kv_heads: self.size_or("attention.head_count_kv", heads, 1024)?,
            head_dim,
            vocabulary: sized("the number of tokens", tokens, 1 << 20)?,
            window: self.size("context_length", 1 << 24)?,
            rope_base: self.float_or("rope.freq_base", 10_000.0)?,
            rope_divisor: self.rope_divisor()?,
            sliding: self.sliding(layers)?,
            epsilon: self.gguf.float(&self.key("attention.layer_norm_rms_epsilon"))? as f32,
            attention_scale: match (self.architecture, layers) {
                (Architecture::Gemma3, GEMMA3_27B_LAYERS) => inverse_root(hidden / heads),
                _ => inverse_root(head_dim),
            },
            embedding_scale: if traits.scales_embedding { (hidden as f32).sqrt() } else { 1.0 },
            rope_style: traits.rope_style,
            gate: traits.gate,
            has_head_norms: traits.has_head_norms,
            has_post_norms: traits.has_post_norms,
        })
    }

    /// Linear scaling, the only kind that is just another angle.
    fn rope_divisor(&self) -> Result<f64, ModelError> {
        let key = self.key("rope.scaling.type");
        match self.gguf.get(&key) {
            None => {}
            Some(value) => match value.text() {
                Some("linear") => {}
                Some("none") => return Ok(1.0),
                Some(other) => return Err(ModelError::Feature(format!("rope scaling {other:?} ({key})"))),
                None => return Err(shape(&key, value.kind(), "text".into())),
            },
        }
        // Absent in models that were never stretched; 0 says the same.
        let factor = self.float_or("rope.scaling.factor", self.float_or("rope.scale_linear", 1.0)?)?;
        Ok(if factor == 0.0 { 1.0 } else { factor })
    }

    fn sliding(&self, layers: usize) -> Result<Option<Sliding>, ModelError> {
        let key = self.key("attention.sliding_window");
        let tokens = self.gguf.number_or(&key, 0)?;
        if tokens == 0 {
            return Ok(None);
        }
        let Some(pattern) = self.architecture.traits().sliding_pattern else {
            return Err(ModelError::Feature(format!("a sliding window ({key})")));
        };
        Ok(Some(Sliding {
            tokens: sized(&key, tokens, 1 << 24)?,
            rope_base: self.float_or("rope.freq_base_swa", 10_000.0)?,
            layers: self.sliding_layers(layers, pattern)?,
        }))
    }

    /// Which layers slide: the file lists them, or says that one in so many does not, or leaves it to us.
    fn sliding_layers(&self, layers: usize, pattern: usize) -> Result<Vec<bool>, ModelError> {
        let key = self.key("attention.sliding_window_pattern");
        let listed = self.gguf.get(&key).and_then(|value| value.flags());
        if let Some(flags) = listed {
            if flags.len() != layers {
                return Err(shape(
                    &key,
                    format!("a list of {}", flags.len()),
                    format!("one for each of {layers} layers"),
                ));
            }
            return Ok(flags);
        }
        let pattern = self.gguf.number_or(&key, pattern as u64)?;
        Ok((0..layers as u64).map(|layer| pattern == 0 || layer % pattern != pattern - 1).collect())
    }

    fn refuse_variants(&self) -> Result<(), ModelError> {
        let counted = [("expert_count", "experts"), ("pooling_type", "pooling of embeddings")];
        for (part, what) in counted {
            let key = self.key(part);
            if self.gguf.number_or(&key, 0)? > 0 {
                return Err(ModelError::Feature(format!("{what} ({key})")));
            }
        }
        for part in ["attn_logit_softcapping", "final_logit_softcapping"] {
            if self.float_or(part, 0.0)? != 0.0 {
                return Err(ModelError::Feature(format!("softcapping of logits ({})", self.key(part))));
            }
        }
        let key = self.key("attention.causal");
        if !self.gguf.flag_or(&key, true)? {
            return Err(ModelError::Feature(format!("attention to later tokens ({key})")));
        }
        Ok(())
    }

    fn check(&self, found: &Shape) -> Result<(), ModelError> {
        if !found.heads.is_multiple_of(found.kv_heads) {
            let expected = format!("a divisor of {} heads", found.heads);
            return Err(shape(&self.key("attention.head_count_kv"), found.kv_heads, expected));
        }
        if !found.head_dim.is_multiple_of(16) || found.head_dim > kernels::HEAD_DIM_MAX {
            let expected = format!("a multiple of 16 up to {}", kernels::HEAD_DIM_MAX);
            return Err(shape(&self.key("attention.key_length"), found.head_dim, expected));
        }
        let head_dim = found.head_dim as u64;
        for part in ["rope.dimension_count", "attention.value_length"] {
            let value = self.gguf.number_or(&self.key(part), head_dim)?;
            if value != head_dim {
                return Err(shape(&self.key(part), value, format!("{head_dim}, the size of a head")));
            }
        }
        let sliding_base = found.sliding.as_ref().map_or(found.rope_base, |sliding| sliding.rope_base);
        for (part, base) in [("rope.freq_base", found.rope_base), ("rope.freq_base_swa", sliding_base)] {
            if !(base > 1.0 && base <= ROPE_BASE_MAX) {
                let expected = format!("a number above 1 and at most {ROPE_BASE_MAX:e}");
                return Err(shape(&self.key(part), base, expected));
            }
        }
        if !(found.epsilon.is_finite() && found.epsilon >= 0.0) {
            let key = self.key("attention.layer_norm_rms_epsilon");
            return Err(shape(&key, found.epsilon, "a number of 0 or more".into()));
        }
        Ok(())
    }
}

fn inverse_root(width: usize) -> f32 {
    1.0 / (width as f32).sqrt()
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
