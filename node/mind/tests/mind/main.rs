//! The mind from outside: events in, effects out.

mod definitions;
mod handoffs;
mod harness;
mod properties;
mod records;
mod routes;
mod transcripts;
