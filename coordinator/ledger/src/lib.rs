//! The ledger: who may run what, where, at whose expense. The replicated truth of a cluster.
//!
//! It is a plain state machine: a committed [`Command`](command::Command) goes in, a [`Reply`](reply::Reply) and
//! [`Effect`](effect::Effect)s come out, and the same log gives the same state on every replica. It is not a
//! service: it knows no clock, no network, no disk, no randomness and no text, only hashes, counts and money.
//! Time is the stamp of the log entry. Effects are wake-ups: dropping all of them loses nothing but time.
//!
//! Read in this order: [`rows`] (what is remembered), [`command`], [`reply`], [`effect`]; then [`State`] and the
//! verbs behind it: `create` (tasks and children), `steps` (assign, reserve, commit, release), `gang` (children that start
//! together), `stop` (cancel, pause, deadlines), `calls` (of models, without a task) and `slices` (many of them at once), `quota`, `nodes`, `agents`, `homes`,
//! `requests`, `tick`. Proposals that change nothing: [`placement`]
//! (who should get which task) with [`routing`] (on which node), [`explain`] (why a task waits), [`query`] and `read`
//! (answers). [`invariants`] says what must hold after every command.
#![deny(clippy::disallowed_types, clippy::float_arithmetic)]

pub mod command;
pub mod effect;
pub mod keys;
pub mod query;
pub mod reply;
pub mod rows;

mod table;
mod text;

mod entry;
mod events;
mod snapshot;
mod state;

mod change;
mod queue;
mod tasks;

mod agents;
mod audit;
mod calls;
mod create;
mod fair;
mod gang;
mod heads;
mod homes;
mod level;
mod nodes;
mod quota;
mod requests;
mod restored;
mod schedules;
mod slices;
mod steps;
mod stop;
mod talk;
mod tick;

pub mod explain;
#[cfg(test)]
mod explain_test;
mod filter;
pub mod invariants;
pub mod placement;
#[cfg(test)]
mod placement_test;
pub mod plan;
mod read;
pub mod routing;
mod strategy;
#[cfg(test)]
mod strategy_test;

pub use entry::{FORMAT, Halt, READER, encode_entry};
pub use level::{BY_USE, HOMES, SLICES};
pub use placement::{Soft, SoftNode};
pub use queue::QueueKey;
pub use restored::{Founder, Needed};
pub use state::{Applied, AppliedEntry, Place, State};
pub use strategy::Strategy;
