//! Model files and forward passes. Read: `gguf` (the file format), `weights` (from file to matrices),
//! `llama` (the forward pass).

pub mod gguf;
pub mod llama;
pub mod weights;
