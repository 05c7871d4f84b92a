//! A seeded simulator of a cluster over the real ledger: one seed gives everything, in virtual time, in milliseconds.
//!
//! It is not a test of the network stack, of raft or of disks: those have their own. Here the ledger's decisions meet
//! what a cluster does to them: leaders that fail with entries half way, frozen and crashed workers whose leases
//! run out, lost, doubled and reordered messages, unknown outcomes that are asked again, people who cancel and
//! pause at bad moments, budgets that move. The shells of leader and worker are the simulator's own short copies
//! of the real ones, so that a known mistake can be planted in them and must be found.
//!
//! A run has a chaos phase and a heal phase in which every task must finish. [`oracle`] says what is watched.
//!
//! Read: [`plan`] (seeds, plants), `rng`, `net` (messages), `cluster` (log and replicas), `leader`, `worker`, `agent`,
//! `people`, `faults`, [`oracle`], `sim` (the loop).

mod agent;
mod cluster;
mod faults;
mod leader;
mod net;
pub mod oracle;
mod people;
pub mod plan;
mod rng;
mod sim;
mod worker;

pub use plan::{Faults, Plant, Report};
pub use sim::run;
