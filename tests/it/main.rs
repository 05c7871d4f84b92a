//! Tests of whole clusters: real `quorate` processes on loopback, hurt in the ways that machines are hurt.
//!
//! Every test starts its own cluster, waits for conditions with a deadline, and prints the figures it measured as
//! `figure NAME VALUE` lines, which `tests/prove.sh` collects. Read `support` first, then any file.

mod support;

mod a2a;
mod admin;
mod all_killed;
mod backup;
mod bad_input;
mod bad_start;
mod boards;
mod busy;
mod capacity;
mod clocks;
mod crowds;
mod doctor;
mod evaluate;
mod failover;
mod freeze;
mod front;
mod homes;
mod idle;
mod join;
mod leader_kill;
mod living;
mod load;
mod local_cluster;
mod memory;
mod observed;
mod openai;
mod page;
mod python_sdk;
mod quotas;
mod real_model;
mod rolling;
mod rotation;
mod routes;
mod security;
mod slices;
mod stop;
mod submit;
mod team;
mod tools;
mod traces;
mod transfer;
mod tutorial;
mod typescript_sdk;
mod worker_kill;
