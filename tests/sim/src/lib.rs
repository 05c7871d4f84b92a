//! A seeded simulator of a cluster over the real ledger and the real minds of agents: one seed gives everything, in
//! virtual time, in milliseconds.
//!
//! It is not a test of raft, of disks and of the network stack: that is the second tier, in `coordinator/src/raft`.
//! Here the ledger's decisions meet what a cluster does to them: leaders that fail at every point in the life of an
//! entry or lose their quorum, clocks that jump, frozen and crashed workers whose leases run out, lost, doubled and
//! late messages, unknown outcomes that are asked again, people who cancel and pause at bad moments, budgets that
//! move. The shells of leader and worker are the simulator's own short copies of the real ones, so that a known
//! mistake can be planted in them and must be found.
//!
//! A run has a chaos phase and a heal phase in which every task must finish. [`oracle`] says what is watched.
//!
//! Read: [`plan`] (sizes, plants), [`counts`] (kinds of faults), [`moves`] (how tasks may move), `rng`, `net`
//! (messages), `cluster` (log and replicas), `clock`, `leader` and `duties`, `worker`, `agent`, `model` and `library`,
//! `people`, `faults`, [`oracle`], `rates` and `tally`, `sim` (the loop), [`suite`] (many seeds).

mod agent;
mod clock;
mod cluster;
pub mod counts;
mod duties;
mod faults;
mod leader;
mod library;
mod model;
pub mod moves;
mod net;
pub mod oracle;
mod people;
pub mod plan;
mod rates;
mod rng;
mod sim;
pub mod suite;
mod tally;
mod worker;

pub use counts::{Counts, Kind};
pub use plan::{Plant, Report, Size};
pub use sim::run;
