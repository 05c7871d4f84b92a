//! The world as agents see it. Traits, because tests put a small world behind them; `real` puts the large one.

use crate::engine_thread::hints::Hint;
use crate::engine_thread::kv::Chain;
use bytes::Bytes;
use futures::future::BoxFuture;
use ledger::command::Command;
use ledger::keys::Holding;
use ledger::query::{Answer, Query};
use ledger::reply::Reply;
use mind::CallOutcome;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use types::{Hash, NodeId, ProjectName, TaskUid};

/// The ledger, from here.
pub trait LedgerDoor: Send + Sync + 'static {
    /// Asks until it is answered; dropping the future gives up.
    fn request(&self, command: Command) -> BoxFuture<'_, Reply>;
    /// Reads what was committed before the call; an error is worth another try.
    fn read(&self, query: Query) -> BoxFuture<'_, Result<Answer, String>>;
    /// Whether the node's own lease is in force.
    fn lease_valid(&self) -> bool;
}

/// A list of segments: names and stored bytes.
pub type Segments = Vec<(Hash, Bytes)>;

/// Segments, here and on other nodes. Errors are for the log: what happened and why.
pub trait Stores: Send + Sync + 'static {
    /// Durable here when it answers.
    fn put(&self, project: &ProjectName, segments: Segments) -> BoxFuture<'_, Result<(), String>>;
    fn get(&self, project: &ProjectName, hash: Hash) -> BoxFuture<'_, Result<Option<Bytes>, String>>;
    /// Brings what is missing here from the first of `nodes` that has it; durable here when it answers.
    fn fetch(
        &self,
        nodes: Vec<NodeId>,
        project: &ProjectName,
        hashes: Vec<Hash>,
    ) -> BoxFuture<'_, Result<(), String>>;
    /// Gives a node what it lacks of these; durable there when it answers.
    fn push(
        &self,
        node: NodeId,
        project: &ProjectName,
        segments: Segments,
    ) -> BoxFuture<'_, Result<(), String>>;
    /// Durable copies that a commit needs, this node's included.
    fn copies(&self) -> usize;
    /// Other nodes in the order to try them as keepers: those in `first` in front; `what` spreads the rest.
    fn keepers(&self, first: &[NodeId], what: Hash) -> Vec<NodeId>;
    /// Hears again who belongs to the cluster.
    fn refresh_members(&self) -> BoxFuture<'_, ()>;
}

/// Where tokens are shown while they are generated. Must not block.
pub trait Live: Send + Sync + 'static {
    fn begin(&self, project: &ProjectName, task: TaskUid, step: u64, attempt: &str);
    /// `offset`: tokens of this attempt before these; `tokens`: how many these are.
    fn push(&self, task: TaskUid, offset: u64, tokens: u32, text: &str);
    /// The task does not run here any more.
    fn end(&self, task: TaskUid);
}

/// A tool call to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolUse {
    /// Task, step and place: the same over crashes and nodes. Tools that take it can tell a repetition.
    pub operation: String,
    /// Counts the tries of one life; for tracing.
    pub attempt: u32,
    pub project: ProjectName,
    pub task: TaskUid,
    /// The root of the task's tree.
    pub tree: TaskUid,
    pub agent: String,
    pub tool: String,
    /// JSON.
    pub arguments: String,
    pub timeout_ms: Option<u64>,
    pub output_bytes: Option<u64>,
    /// What the task holds of the node while it runs.
    pub needs: Vec<(Holding, u64)>,
}

/// The tools of this node.
pub trait Tools: Send + Sync + 'static {
    /// Descriptions of those that match, as a JSON list of `{name, description, parameters, policy}`.
    fn list(&self, project: &ProjectName, patterns: Vec<String>) -> BoxFuture<'_, Result<String, String>>;
    /// `None` when it was stopped. The future ends when nothing of the call is under way here any more.
    fn call(&self, call: ToolUse, stop: CancellationToken) -> BoxFuture<'_, Option<CallOutcome>>;
}

/// Cached blocks of a task's conversation: in the engines here, and copies on the nodes that keep the task.
pub trait KvDoor: Send + Sync + 'static {
    /// Other nodes that could go on with blocks of this model, to be preferred as keepers: none where blocks aren't
    /// copied.
    fn holders(&self, model: &str) -> Vec<NodeId>;
    /// A step was committed, its segments are on these nodes: the blocks of its chain may follow. Must not block.
    fn follow(&self, model: &str, chain: Chain, keepers: &[NodeId]);
    /// What the engine here should know of a chain. Must not block.
    fn hint(&self, model: &str, chain: Chain, hint: Hint);
}

#[derive(Clone)]
pub struct Seams {
    pub ledger: Arc<dyn LedgerDoor>,
    pub stores: Arc<dyn Stores>,
    pub live: Arc<dyn Live>,
    pub tools: Arc<dyn Tools>,
    pub kv: Arc<dyn KvDoor>,
}
