//! Definitions of agents and teams.

use super::Time;
use serde::Serialize;

/// The revision of an agent or a team that new tasks get. Running tasks keep theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Agent {
    pub name: String,
    pub project: String,
    /// `agent` or `team`.
    pub kind: String,
    pub model: String,
    /// Hash of the definition.
    pub revision: String,
    pub etag: String,
    pub update_time: Option<Time>,
    /// The definition as it was applied.
    pub toml: String,
}
