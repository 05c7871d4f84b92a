//! The hands of one agent: they do what its mind wants, and say what came of it.
//!
//! Each piece of work is a future that ends with one [`Outcome`]. It may be dropped at any point: everything it asks
//! of the ledger can be asked again. Read: `load` (a task from its journal), `infer` (model calls), `commit`
//! (segments before step), `copies` (keepers), `foresight` (what the engine should know), `family` (children), `tools`,
//! `told` (traces).

mod commit;
mod copies;
mod family;
mod foresight;
mod infer;
mod load;
mod route;
mod told;
mod tools;

use super::Shared;
use super::course::Outcome;
use super::vigil::Pulse;
use crate::gateway::Lost;
use context::Segment;
use copies::Copies;
use ledger::command::{Command, Release};
use ledger::keys::Amounts;
use ledger::reply::{Refusal, Reply};
use ledger::rows::TaskRow;
use mind::{Effect, Event};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use types::{Epoch, Hash, NodeId, ProjectName, TaskState, TaskUid};

/// First pause before something is tried again, and the longest one.
const RETRY_MS: u64 = 50;
const RETRY_MAX_MS: u64 = 1_000;

/// A lease as the ledger gave it.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub(crate) task: TaskUid,
    pub(crate) epoch: Epoch,
    pub(crate) row: TaskRow,
}

impl Lease {
    /// None for a row that holds no lease.
    pub(crate) fn of(row: TaskRow) -> Option<Lease> {
        Some(Lease { task: row.uid, epoch: row.epoch?, row })
    }
}

pub(crate) struct Hands {
    pub(crate) lease: Lease,
    shared: Arc<Shared>,
    known: Mutex<Known>,
    copies: Copies,
    /// Where work shows that it lives.
    pulse: Arc<Pulse>,
}

/// What this agent has had in its hands.
#[derive(Default)]
struct Known {
    /// Opened segments of the chain.
    segments: BTreeMap<Hash, Arc<Segment>>,
    /// Stored size of every segment seen.
    bytes: BTreeMap<Hash, u64>,
    /// Nodes where something was found, beside the task's home: children's homes.
    hints: Vec<NodeId>,
    /// The root of the task's tree, since the task was loaded.
    tree: Option<TaskUid>,
    /// What the model call of a step used beside tokens, until the step is committed.
    used: (u64, Amounts),
    /// A step's call of a model, for the blocks that the engine has of it.
    spoken: Option<Spoken>,
    /// The model and the tokens of the last committed one.
    last_chain: Option<(String, Arc<[u32]>)>,
    /// The model of several that a step was last to be asked of, and how often one was.
    routed: (u64, String),
    turn: u32,
    /// What calls of a step used whose outcome nobody knows: it is paid for with the step.
    lost: (u64, Lost),
}

/// A call of a model that was answered by an engine here.
struct Spoken {
    step: u64,
    model: String,
    /// Prompt and answer.
    tokens: Arc<[u32]>,
    /// How many of them are the agent's own words: other tasks of it begin with them, too.
    head: usize,
}

/// Something that cannot be had now.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    /// Nobody who answers has it.
    Missing(String),
    /// It is there and wrong.
    Corrupt(String),
}

impl Hands {
    pub(crate) fn new(shared: Arc<Shared>, lease: Lease, pulse: Arc<Pulse>) -> Self {
        Hands { lease, shared, known: Mutex::default(), copies: Copies::default(), pulse }
    }

    pub(crate) async fn perform(&self, effect: Effect, stop: CancellationToken) -> Outcome {
        match effect {
            Effect::Infer { .. } => self.infer(effect, stop).await,
            Effect::Commit { .. } => self.commit(effect, stop).await,
            Effect::Spawn { children, step, new_segments } => {
                self.spawn(step, children, new_segments, stop).await
            }
            Effect::AskChildren => self.ask_children(stop).await,
            Effect::Load { hashes } => self.open_all(hashes, stop).await,
            Effect::CheckResult { schema, text } => Outcome::Happened(checked(&schema, &text)),
            Effect::ListTools { patterns } => self.list_tools(patterns).await,
            Effect::CallTool { .. } => self.call_tool(effect, stop).await,
            // The course ends the actor, or the call, instead.
            Effect::Stop | Effect::CutShort => Outcome::Nothing,
        }
    }

    /// Gives the lease back.
    pub(crate) async fn release(&self, why: Release) -> Outcome {
        release(&self.shared, self.lease.task, self.lease.epoch, why).await;
        Outcome::Released
    }

    fn project(&self) -> &ProjectName {
        &self.lease.row.project
    }

    fn node(&self) -> NodeId {
        self.shared.config.node
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it holds what is known")
    }

    /// A command that was refused because of the lease: counted, and the agent ends. Unless the lease is still its own,
    /// and the task is cancelled: then the agent says that it has stopped.
    fn fenced(&self, kind: &'static str, refusal: &Refusal) -> Outcome {
        if matches!(refusal, Refusal::WrongState { state } if state == TaskState::Cancelling.name()) {
            return Outcome::Cancelled;
        }
        self.shared.counters.fenced();
        tracing::info!(task = %self.lease.task, epoch = %self.lease.epoch, kind, %refusal, "fenced");
        Outcome::Happened(Event::Fenced)
    }

    /// Nodes that may have what is missing here.
    fn sources(&self) -> Vec<NodeId> {
        let hints = self.known().hints.clone();
        let near: Vec<NodeId> = self.lease.row.home.iter().copied().chain(hints).collect();
        let mut nodes = self.shared.seams.stores.keepers(&near, Hash::default());
        // A home that is not in the list of members yet.
        for node in near {
            if node != self.node() && !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        nodes
    }

    /// Makes sure that these are in the store here.
    async fn fetch(&self, hashes: &[Hash]) -> Result<(), Trouble> {
        if hashes.is_empty() {
            return Ok(());
        }
        let stores = &self.shared.seams.stores;
        stores.fetch(self.sources(), self.project(), hashes.to_vec()).await.map_err(Trouble::Missing)
    }

    /// The stored bytes of a segment that is here.
    async fn bytes(&self, hash: Hash) -> Result<bytes::Bytes, Trouble> {
        let found = self.shared.seams.stores.get(self.project(), hash).await.map_err(Trouble::Missing)?;
        let bytes = found.ok_or_else(|| Trouble::Missing(format!("segment {} is not here", hash.short())))?;
        self.known().bytes.insert(hash, bytes.len() as u64);
        Ok(bytes)
    }

    /// An opened segment; from memory, from the store, or from another node.
    async fn segment(&self, hash: Hash) -> Result<Arc<Segment>, Trouble> {
        let remembered = self.known().segments.get(&hash).cloned();
        if let Some(segment) = remembered {
            return Ok(segment);
        }
        self.fetch(&[hash]).await?;
        let bytes = self.bytes(hash).await?;
        let opened = context::open(self.project(), hash, &bytes);
        let segment = Arc::new(opened.map_err(|error| Trouble::Corrupt(error.to_string()))?);
        self.known().segments.insert(hash, segment.clone());
        Ok(segment)
    }

    /// What was lost in this step so far.
    fn lost(&self, step: u64) -> Lost {
        let (of_step, lost) = self.known().lost;
        if of_step == step { lost } else { Lost::default() }
    }

    fn lose(&self, step: u64, lost: Lost) {
        let lost = self.lost(step).plus(lost);
        self.known().lost = (step, lost);
    }

    /// How many bytes these are as stored; what was never seen counts nothing.
    fn stored_bytes(&self, hashes: impl Iterator<Item = Hash>) -> u64 {
        let known = self.known();
        hashes.filter_map(|hash| known.bytes.get(&hash)).sum()
    }
}

/// Whether a result is JSON that fits.
fn checked(schema: &str, text: &str) -> Event {
    let schema = serde_json::from_str(schema).map_err(|error| error.to_string());
    match schema.and_then(|schema| ::tools::Arguments::new(&schema)) {
        Ok(form) => {
            let value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"));
            Event::Checked { wrong: value.and_then(|value| form.check(&value)).err().unwrap_or_default() }
        }
        Err(why) => Event::ModelFailed {
            reason: "BAD_SCHEMA".into(),
            message: format!(
                "the agent's result_schema is no JSON schema: {why}; correct it and apply the agent"
            ),
            retriable: false,
        },
    }
}

/// Asks the ledger to take a lease back. A refusal means that the lease was over anyway.
pub(crate) async fn release(shared: &Shared, task: TaskUid, epoch: Epoch, why: Release) {
    let command = Command::Release { task, epoch, node: shared.config.node, why };
    match shared.seams.ledger.request(command).await {
        Reply::Refused(refusal) => {
            tracing::debug!(%task, %epoch, ?why, %refusal, "the lease was over already")
        }
        _ => tracing::info!(%task, %epoch, ?why, "gave a lease back"),
    }
}

/// Waits before another try, longer each time.
struct Patience {
    next_ms: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { next_ms: RETRY_MS }
    }
}

impl Patience {
    /// False when the work was interrupted meanwhile.
    async fn wait(&mut self, stop: &CancellationToken) -> bool {
        let pause = Duration::from_millis(self.next_ms);
        self.next_ms = (self.next_ms * 2).min(RETRY_MAX_MS);
        stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some()
    }
}
