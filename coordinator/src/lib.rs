//! The coordinator: the ledger made durable and shared by raft, and what only its leader does.
//!
//! Not here: decisions (they are in `ledger`), agents, text. Read: `machine` (the ledger behind raft), `coordinator`
//! (propose, read, watch; `suppose` and `cost` read at length), `leader` (what an office does), `changes` (what operators ask of it), `link` (nodes attach; `shared`: calls that leave the cluster), `client` (the same from any node).

mod changes;
pub mod client;
pub mod clock;
pub mod coordinator;
mod cost;
mod leader;
mod link;
mod machine;
mod proposer;
pub mod raft;
mod rpc;
mod schedule;
mod shared;
mod suppose;
pub mod wal;
#[cfg(test)]
mod what_if_test;
mod wire;

pub use changes::{Change, Wish};
pub use client::{Client, ClientError};
pub use clock::{Clock, SystemClock};
pub use coordinator::{Coordinator, CoordinatorOptions, NodeFacts, ReadError};
pub use cost::{CostGroup, CostLine, CostQuestion};
pub use machine::Seen;
pub use proposer::ProposeFailed;
pub use schedule::next_time;
pub use suppose::Supposed;
