//! Recorded traffic and growth, in virtual time, against the real ledger: its placement, routing, queue and quotas,
//! without a cluster around them. The same trace and settings give the same figures on every machine; only
//! [`growth`] measures time and memory.
//!
//! - [`mooncake`]: chains of block hashes, routed to workers with caches of their own.
//! - [`azure`]: arrivals and sizes, through the queue with classes, quotas and deadlines.
//! - [`growth`]: what a task costs when there are many.
//!
//! It is not a simulator of faults (that is `sim`), nor of the engine (`quorate engine replay`).

pub mod azure;
pub mod growth;
pub mod mooncake;

mod cache;
mod dice;
mod ledger_box;
mod report;
mod trace;

pub use cache::Cache;
pub use dice::Dice;
pub use report::Report;
pub use trace::{Call, Prompt, read_azure, read_mooncake};
