//! The node: one daemon, whatever its roles. Doors for clients, agents as actors, the engine beside them, stores.
//!
//! Read: `config`, then `node` (what a node is made of), `door` (public services), `link` (to the leader),
//! `agents` (the supervision tree), `gateway` (model calls), `store` and `segments` (context that moves).

mod a2a;
pub mod agents;
mod backup;
mod boards;
mod call_schema;
pub mod config;
pub mod device;
pub mod doctor;
pub mod door;
pub mod engine_thread;
mod evaluating;
mod figures;
mod forgotten;
mod front;
pub mod gateway;
mod homes;
mod http;
mod identity;
pub mod keep;
mod keys;
mod kv_copies;
pub mod link;
pub mod live;
pub mod local;
mod measured;
pub mod members;
mod memories;
pub mod models;
mod node;
pub mod openai;
mod page;
#[cfg(test)]
mod reference_test;
mod security;
pub mod segments;
mod served;
pub mod store;
pub mod telemetry;
mod tls;
mod tools;
pub mod traces;

pub use node::{Node, StartOptions};
pub use security::{Security, SecurityError};
