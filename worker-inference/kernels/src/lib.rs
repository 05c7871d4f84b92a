//! The arithmetic of a language model on a CPU: matrix products of quantised weights, attention over paged
//! keys and values, and the small operations between them.
//!
//! **What it is not.** It knows no model, no file, no sequence, no schedule, reads no environment and no clock
//! for anything but how long an idle thread spins and how fast the machine is now (`probe`). It depends on nothing but `std`.
//!
//! **The promise.** Every result is the same, bit for bit, on every instruction set, for any batch, any split
//! among threads, any chunking of a prompt and any cache state. Each operation therefore has one fixed order of
//! float operations, written down as plain scalar code: the *scalar twin*, which is the specification. Vector
//! code is written once over the `simd` traits and runs as AVX2 or AVX-512. The rules:
//!
//! - products of quantised numbers are summed as integers, which is exact; each 32-wide block then enters its
//!   output by fused multiply-adds, blocks ascending;
//! - float sums over a row use 16 virtual lanes, fused multiply-add, and one fixed tree at the end;
//! - the key axis of attention is cut at absolute multiples of 256 tokens; each cut is summed on its own, and
//!   cuts are merged ascending;
//! - `exp`, `sin`, `cos`, `ln` are our own, made of operations that IEEE 754 fixes.
//!
//! What is not promised: *which* NaN comes out where one must. Rounding mode and denormals are the processor's
//! defaults.
//!
//! **Order to read.** `isa` which instructions; `cpu` the handle that everything hangs on; `pool` its
//! threads; `memory` where weights live; `quant` the formats of GGUF blocks; `matrix` weights repacked;
//! `activations` their input; `matmul`; `ops`, `gated` and `rope`; `kv` and `attention`; `sampling`; `sketch` the largest products for less.
//! Below them: `simd` the vector traits, `math` `exp` and friends, `half` 16-bit floats.

mod isa;

mod cpu;
mod memory;
#[cfg(test)]
mod numbers;
mod pool;
mod probe;

mod half;
mod math;
mod simd;

mod activations;
mod matmul;
mod matrix;
mod quant;

mod gated;
mod ops;
mod rope;

mod attention;
mod kv;

mod sampling;
mod sketch;

pub use activations::Activations;
pub use attention::{Sequence, Weight, join_seen};
pub use cpu::Cpu;
pub use gated::Pieces;
pub use isa::{Isa, IsaError};
pub use kv::{BLOCK_TOKENS, BlockRef, CUT_TOKENS, HEAD_DIM_MAX, KvLayout, KvPool, Place};
pub use matrix::{Matrix, ShapeError};
pub use memory::Arena;
pub use ops::Gate;
pub use quant::{Format, dequantize};
pub use rope::{RopeStyle, RopeTable};
pub use sketch::Sketch;
