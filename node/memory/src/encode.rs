//! What the index wants of an encoder. Which one it is, it never knows.

use types::Hash;

/// Turns texts into directions: what means the same points the same way.
pub trait Encode: Send + Sync {
    /// Names weights, arithmetic and windows: two encoders with the same id give the same bits.
    fn id(&self) -> Hash;

    /// Numbers of one vector.
    fn dims(&self) -> usize;

    /// Vectors of a text that is remembered: one for each window, `limits::VECTORS_PER_ITEM` at most. Takes tens of
    /// milliseconds a window: call it on a thread that may compute.
    fn passages(&self, text: &str) -> Vec<Vec<f32>>;

    /// The vector of a question.
    fn question(&self, text: &str) -> Vec<f32>;
}
