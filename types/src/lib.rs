//! The nouns that several rooms share: ids, hashes, units, limits.
//!
//! A type enters here only when two rooms need it. Nothing here does IO or knows a clock.
//! Read: `ids`, `hash`, `task`, `limits`.

mod cbor;
mod hash;
mod ids;
pub mod limits;
mod task;

pub use hash::{Hash, ParseHashError};
pub use ids::{ClusterId, Epoch, NodeId, ParseIdError, ProjectName, TaskUid};
pub use task::{Class, PauseReason, Spent, TaskState};

/// Encodes a value that is written to disk or sent to a peer.
///
/// # Panics
/// Never for our own types: writing to memory cannot fail.
pub fn encode<T: minicbor::Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("encoding to memory cannot fail")
}

/// Decodes what [`encode`] wrote. Trailing bytes are an error, so that a length mistake is found at once.
pub fn decode<'b, T: minicbor::Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, minicbor::decode::Error> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode()?;
    if decoder.position() != bytes.len() {
        return Err(minicbor::decode::Error::message("trailing bytes after the value"));
    }
    Ok(value)
}
