//! The angles of a model's positions: one table, and another for layers with a sliding window.

use kernels::RopeTable;

use super::layer::Layer;
use super::shape::Shape;
use crate::model::weights::{ModelError, Weights};

/// Angles that grow faster than this many times the position are those of no model, and end in nonsense.
const FACTOR_MIN: f32 = 1.0 / 32.0;

pub(super) struct Ropes {
    whole: RopeTable,
    sliding: Option<RopeTable>,
}

impl Ropes {
    /// Tables for `positions` positions.
    pub(super) fn load(
        weights: &mut Weights<'_, '_>,
        shape: &Shape,
        positions: usize,
    ) -> Result<Ropes, ModelError> {
        let factors = factors(weights, shape)?;
        let table = |base: f64, factors: Option<&[f32]>| {
            RopeTable::new(shape.rope_style, shape.head_dim, positions, base, factors)
        };
        Ok(Ropes {
            whole: table(shape.rope_base, factors.as_deref()),
            sliding: shape.sliding.as_ref().map(|sliding| table(sliding.rope_base, None)),
        })
    }

    /// The table of a layer.
    pub(super) fn of(&self, layer: &Layer) -> &RopeTable {
        match (&self.sliding, layer.sliding) {
            (Some(table), Some(_)) => table,
            _ => &self.whole,
        }
    }
}

/// What each pair's angle is divided by: the file's own factors (Llama 3), times the model's divisor.
fn factors(weights: &mut Weights<'_, '_>, shape: &Shape) -> Result<Option<Vec<f32>>, ModelError> {
    let (name, pairs) = ("rope_freqs.weight", shape.head_dim / 2);
    let own = if weights.has(name) { Some(weights.vector(name, pairs)?) } else { None };
    if own.is_none() && shape.rope_divisor == 1.0 {
        return Ok(None);
    }
    let divisor = shape.rope_divisor as f32;
    let factors: Vec<f32> = own.unwrap_or(vec![1.0; pairs]).iter().map(|own| own * divisor).collect();
    match factors.iter().find(|factor| !(factor.is_finite() && **factor >= FACTOR_MIN)) {
        None => Ok(Some(factors)),
        Some(factor) => Err(ModelError::Shape {
            key: format!("a divisor of rotary angles ({name} or rope.scaling.factor)"),
            found: factor.to_string(),
            expected: format!("{FACTOR_MIN} or more"),
        }),
    }
}
