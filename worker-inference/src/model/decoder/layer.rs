//! The weights of one layer. What only some models have is an option here, so that the forward pass asks the
//! layer and not the architecture.

use kernels::Matrix;

use super::shape::Shape;
use crate::model::weights::{ModelError, Weights};

pub(super) struct Layer {
    pub attention_norm: Vec<f32>,
    pub q: Matrix,
    pub k: Matrix,
    pub v: Matrix,
    /// What is added to queries, keys and values (Qwen 2).
    pub biases: Option<Biases>,
    pub head_norms: Option<HeadNorms>,
    /// Tokens that this layer sees, where it does not see all.
    pub sliding: Option<usize>,
    pub o: Matrix,
    pub post_attention_norm: Option<Vec<f32>>,
    pub ffn_norm: Vec<f32>,
    pub gate: Matrix,
    pub up: Matrix,
    pub down: Matrix,
    pub post_ffn_norm: Option<Vec<f32>>,
}

pub(super) struct Biases {
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
}

/// As long as a head.
pub(super) struct HeadNorms {
    pub q: Vec<f32>,
    pub k: Vec<f32>,
}

impl Layer {
    pub(super) fn load(
        weights: &mut Weights<'_, '_>,
        shape: &Shape,
        index: usize,
    ) -> Result<Layer, ModelError> {
        let (hidden, ffn) = (shape.hidden, shape.ffn);
        let (q_width, kv_width) = (shape.q_width(), shape.kv_width());
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        Ok(Layer {
            attention_norm: weights.vector(&name("attn_norm"), hidden)?,
            q: weights.matrix(&name("attn_q"), q_width, hidden)?,
            k: weights.matrix(&name("attn_k"), kv_width, hidden)?,
            v: weights.matrix(&name("attn_v"), kv_width, hidden)?,
            biases: Biases::load(weights, shape, index)?,
            head_norms: HeadNorms::load(weights, shape, index)?,
            sliding: shape.sliding_of(index),
            o: weights.matrix(&name("attn_output"), hidden, q_width)?,
            post_attention_norm: post_norm(weights, shape, &name("post_attention_norm"))?,
            ffn_norm: weights.vector(&name("ffn_norm"), hidden)?,
            gate: weights.matrix(&name("ffn_gate"), ffn, hidden)?,
            up: weights.matrix(&name("ffn_up"), ffn, hidden)?,
            down: weights.matrix(&name("ffn_down"), hidden, ffn)?,
            post_ffn_norm: post_norm(weights, shape, &name("post_ffw_norm"))?,
        })
    }
}

impl Biases {
    /// All three, or none: the file decides.
    fn load(
        weights: &mut Weights<'_, '_>,
        shape: &Shape,
        index: usize,
    ) -> Result<Option<Biases>, ModelError> {
        let name = |part: &str| format!("blk.{index}.{part}.bias");
        if !weights.has(&name("attn_q")) {
            return Ok(None);
        }
        Ok(Some(Biases {
            q: weights.vector(&name("attn_q"), shape.q_width())?,
            k: weights.vector(&name("attn_k"), shape.kv_width())?,
            v: weights.vector(&name("attn_v"), shape.kv_width())?,
        }))
    }
}

impl HeadNorms {
    fn load(
        weights: &mut Weights<'_, '_>,
        shape: &Shape,
        index: usize,
    ) -> Result<Option<HeadNorms>, ModelError> {
        if !shape.has_head_norms {
            return Ok(None);
        }
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        Ok(Some(HeadNorms {
            q: weights.vector(&name("attn_q_norm"), shape.head_dim)?,
            k: weights.vector(&name("attn_k_norm"), shape.head_dim)?,
        }))
    }
}

fn post_norm(
    weights: &mut Weights<'_, '_>,
    shape: &Shape,
    name: &str,
) -> Result<Option<Vec<f32>>, ModelError> {
    if shape.has_post_norms { weights.vector(name, shape.hidden).map(Some) } else { Ok(None) }
}
