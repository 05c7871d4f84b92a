//! A memory from outside: its records, what they lead to, and what forgetting leaves.

mod forgetting;
mod harness;
mod properties;
mod records;
mod searching;
