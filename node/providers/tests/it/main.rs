//! The clients against a server that breaks in every way we know, against tapes, and against real servers.

mod canary;
mod cassettes;
mod encryption;
mod faults;
mod money;
mod peers;
mod server;
mod support;
