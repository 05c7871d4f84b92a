//! The harness: a cluster of real `quorate` processes on loopback, with the means to hurt them.
//!
//! Used by the tests in `it/` and by the demo. It ends only processes it started, and waits for conditions with a
//! deadline instead of sleeping. Read: `cluster`, `process`, `ports`, `wait`, `clocks`.

pub mod clocks;
pub mod cluster;
pub mod ports;
pub mod process;
pub mod secured;
pub mod wait;

pub use clocks::Clocks;
pub use cluster::{Cluster, Spec};
pub use process::Process;
pub use secured::Secured;
pub use wait::until;
