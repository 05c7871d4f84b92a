//! The machines, and the consensus between them.

use super::Time;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClusterStatus {
    pub cluster_id: String,
    /// None while there is no leader.
    pub leader: Option<String>,
    pub term: u64,
    pub applied_index: u64,
    pub committed_index: u64,
    pub voters: Vec<String>,
    pub learners: Vec<String>,
    /// The node that answered, the hash of its applied state, and up to which entry.
    pub answered_by: String,
    pub state_hash: String,
    pub state_hash_index: u64,
    /// Copies kept of every acknowledged segment, given the stores that are members.
    pub copies: u32,
    pub feature_level: u32,
    pub tasks_by_state: BTreeMap<String, u64>,
    pub warnings: Vec<String>,
}

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    pub cluster_id: String,
    /// The last entry that is in its ledger, and the hash of the state then.
    pub applied_index: u64,
    pub state_hash: String,
    pub tasks: u64,
    pub segments: u64,
    /// Of the whole archive.
    pub bytes: u64,
    /// Segments that are named and that no reachable node holds.
    pub missing: u64,
}

/// One node, whatever its roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    pub id: String,
    pub name: String,
    pub roles: Vec<String>,
    /// `ready`: attached to the leader; `cordoned`, `draining`: attached, and gets nothing new; `lost`: not attached.
    pub state: String,
    pub client_addr: String,
    pub internal_addr: String,
    pub running: u32,
    pub slots: u32,
    /// Commits refused because this node's lease was no longer in force.
    pub fenced_commits: u64,
    pub engines: Vec<Engine>,
    /// Copies that the cluster keeps of every acknowledged segment.
    pub copies: u32,
    pub kv: Kv,
    pub segments: u64,
    pub segment_bytes: u64,
    pub context_bytes_received: u64,
    pub context_bytes_sent: u64,
    /// What would have moved if every assignment and model call had carried its whole chain.
    pub context_bytes_full: u64,
    pub device: Device,
    pub version: String,
}

/// The KV cache of all engines of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
pub struct Kv {
    pub blocks: u64,
    pub blocks_used: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Engine {
    pub model: String,
    pub model_digest: String,
    pub numerics_id: String,
    /// Tokens that fit one sequence.
    pub window: u64,
    pub kernels: String,
    pub kv_blocks: u64,
    pub kv_blocks_used: u64,
    pub kv_bytes: u64,
    pub weight_bytes: u64,
    pub tokens_computed: u64,
    pub tokens_cached: u64,
    pub tokens_generated: u64,
    /// Bytes of KV that can be used again: in the engine's pool (`memory`), beside it (`host`), on `disk`.
    pub kv_tiers: BTreeMap<String, u64>,
}

/// What the machine has. A figure that could not be read is None.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize)]
pub struct Device {
    pub cpus: Option<u32>,
    pub memory_bytes: Option<u64>,
    pub memory_free_bytes: Option<u64>,
    pub rss_bytes: Option<u64>,
    /// Thousandths of the last 10 s in which some task waited.
    pub cpu_pressure_milli: Option<u32>,
    pub memory_pressure_milli: Option<u32>,
    pub gpus: Vec<Gpu>,
}

#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize)]
pub struct Gpu {
    pub uuid: Option<String>,
    pub name: Option<String>,
    pub memory_total_bytes: Option<u64>,
    pub memory_used_bytes: Option<u64>,
    pub utilization_percent: Option<u32>,
    pub power_milliwatts: Option<u32>,
    pub temperature_celsius: Option<u32>,
}

/// A model that the cluster knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Model {
    pub name: String,
    pub digest: String,
    pub bytes: u64,
    pub holders: Vec<String>,
}

/// Who changed a limit, a price or a node, when and why; or which budget ran up to where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditEvent {
    /// Counts from 1 without a gap.
    pub number: u64,
    pub time: Time,
    /// Empty: the cluster itself.
    pub author: String,
    /// `quota.set`, `quota.crossed`, `price.set`, `node.close`.
    pub action: String,
    /// A quota path, `nodes/n4`, a model.
    pub subject: String,
    pub change: String,
    pub reason: String,
}
