//! Tools of agents: what there is, whether a call may be made, and the call itself within its bounds.
//!
//! A [`Toolbox`] is made from the `[tools]` table of a node's configuration. It lists tools (of MCP servers, of this
//! crate, and whatever else implements [`Tool`]), checks arguments by JSON schema before anything happens, and bounds
//! every call: time, bytes of output, concurrent calls. What came of a call is one of three: the tool answered,
//! certainly nothing happened, or nobody can know.
//!
//! Not here: which agent may use which tool, approval, journalling, repeating after a crash (the mind and its hands);
//! the shell and its sandbox. Nothing is retried here.
//!
//! Read: `call`, `tool`, `toolbox`; then `mcp` (`server`, `connection`), `http`, `files`; `schema`, `output` and
//! `patterns` are pure.

mod call;
pub mod config;
mod files;
mod http;
mod mcp;
mod output;
mod patterns;
mod schema;
mod spec;
mod tool;
mod toolbox;

pub use call::{Call, Outcome, reason};
pub use config::{Config, ConfigError};
pub use http::{Resolve, SystemResolver};
pub use mcp::ServerState;
pub use output::{clean, cut};
pub use patterns::{matches, matches_any};
pub use schema::Arguments;
pub use spec::{Policy, ToolSpec};
/// What ends a call early; given to every tool.
pub use tokio_util::sync::CancellationToken;
pub use tool::Tool;
pub use toolbox::{LeftOut, SpecsError, Toolbox};
