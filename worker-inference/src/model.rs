//! Model files and the forward pass. Read: `gguf` (the file format), `weights` (from file to matrices),
//! `decoder` (the forward pass of every architecture).

pub mod decoder;
pub mod gguf;
pub mod weights;
