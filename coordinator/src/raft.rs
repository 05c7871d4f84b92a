//! Consensus: one ordered log of opaque entries, agreed between 1, 3 or 5 coordinators, applied by a [`Machine`].
//!
//! openraft is used here and nowhere else; what other files see is [`RaftNode`]. It knows nothing of what an
//! entry means. Disk, transport and machine are arguments, so that a simulation can own all three.
//!
//! Read: `node` (what callers see), `state_machine` and `log_store` (openraft's view of the machine and the
//! log), `snapshots` (files), `network` and `transport` (calls), `wire` and `grpc` (the same as bytes).

mod errors;
mod grpc;
mod log_store;
mod network;
mod node;
mod options;
mod seed;
mod snapshots;
mod state_machine;
mod status;
mod transport;
mod type_config;
mod wire;

#[cfg(test)]
mod membership_test;
#[cfg(test)]
mod sim_test;
#[cfg(test)]
mod storm_test;
#[cfg(test)]
mod suite_test;
#[cfg(test)]
mod unsynced_test;

pub use crate::wal::Flush;
pub use errors::{InitializeError, MembershipError, ProposeError, ReadError, StartError, Stopped, WaitError};
pub use grpc::{Dialer, GrpcTransport, PlainDialer, RaftRpc, endpoint};
pub use node::{Proposed, RaftNode};
pub use options::{RaftOptions, Timings};
pub use seed::Seed;
pub use status::{Leader, LeaderView, Status};
pub use transport::{Body, CallError, Envelope, Plane, Reply, Transport};

use std::sync::{Arc, Mutex};

/// What committed entries are applied to. The same entries in the same order must give the same state and the
/// same replies on every node: no clock, no randomness, no configuration.
pub trait Machine: Send + 'static {
    /// Applies one committed entry and answers it. Only the node that proposed it sees the reply.
    ///
    /// # Errors
    /// [`Halt`] when the entry is not understood, or the state is broken: the node stops rather than skip it.
    fn apply(&mut self, index: u64, term: u64, entry: &[u8]) -> Result<Vec<u8>, Halt>;

    /// The whole state as bytes. Called between two entries.
    fn snapshot(&self) -> Vec<u8>;

    /// Replaces the whole state by one from [`Machine::snapshot`], perhaps of another node.
    ///
    /// # Errors
    /// [`Halt`] when the bytes are not understood; the state is unchanged then.
    fn restore(&mut self, bytes: &[u8]) -> Result<(), Halt>;
}

/// Why a node cannot apply what the others have agreed on. It must stop: going on would be another history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Halt(pub String);

/// A machine that readers can look at between two entries. Keep a typed clone of the `Arc` to read from it.
pub type SharedMachine = Arc<Mutex<dyn Machine>>;
