//! Tools of MCP servers. `server` decides when a server runs and who may call it, `connection` speaks with a running
//! one, `process` owns what was started; `listing` and `answer` are pure: what a server says of its tools, and of a
//! call, made into our words.

mod answer;
mod connection;
mod listing;
mod measured;
mod process;
mod server;

pub(crate) use server::Server;
pub use server::ServerState;
