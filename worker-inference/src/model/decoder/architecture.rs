//! The architectures that we know, and what tells them apart. A new one begins here.

use kernels::{Gate, RopeStyle};

/// A family of models that share their arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    Llama,
    Qwen2,
    Qwen3,
    Gemma3,
}

/// What every model of an architecture has, whatever its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Traits {
    pub rope_style: RopeStyle,
    pub gate: Gate,
    /// Queries and keys are normalised head by head.
    pub has_head_norms: bool,
    /// What attention and feed-forward give is normalised before it is added.
    pub has_post_norms: bool,
    /// Embeddings are multiplied with the root of their width.
    pub scales_embedding: bool,
    /// Some layers see only the latest tokens, where the file says so: one layer in this many sees all.
    pub sliding_pattern: Option<usize>,
}

const LLAMA: Traits = Traits {
    rope_style: RopeStyle::Interleaved,
    gate: Gate::Silu,
    has_head_norms: false,
    has_post_norms: false,
    scales_embedding: false,
    sliding_pattern: None,
};

const QWEN2: Traits = Traits { rope_style: RopeStyle::Halves, ..LLAMA };

const QWEN3: Traits = Traits { has_head_norms: true, ..QWEN2 };

const GEMMA3: Traits = Traits {
    rope_style: RopeStyle::Halves,
    gate: Gate::Gelu,
    has_head_norms: true,
    has_post_norms: true,
    scales_embedding: true,
    sliding_pattern: Some(6),
};

impl Architecture {
    pub const ALL: [Architecture; 4] =
        [Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3, Architecture::Gemma3];

    /// The architecture of that name in `general.architecture`, if it is one of ours.
    pub fn from_name(name: &str) -> Option<Architecture> {
        Architecture::ALL.into_iter().find(|architecture| architecture.name() == name)
    }

    /// Its name in model files, which is also how its metadata keys begin.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Qwen2 => "qwen2",
            Architecture::Qwen3 => "qwen3",
            Architecture::Gemma3 => "gemma3",
        }
    }

    pub(super) fn traits(self) -> Traits {
        match self {
            Architecture::Llama => LLAMA,
            Architecture::Qwen2 => QWEN2,
            Architecture::Qwen3 => QWEN3,
            Architecture::Gemma3 => GEMMA3,
        }
    }
}
