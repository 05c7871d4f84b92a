//! The worker side of the link: one stream from this node to whoever leads now.
//!
//! Every node attaches, whatever its role: workers to be given leases, coordinators with no slots as keepers.
//! What flows is wake-ups and requests; the truth is the ledger. So a lost stream loses nothing: the link attaches
//! again by itself, says what it holds, gets the full set back, and sends every unanswered request once more.
//!
//! This is not a place for decisions about tasks: news go to the supervisor ([`crate::agents`]) as they come.
//!
//! Read: `clock` (what a lease is worth), `outbox` (requests until answered), `session` (one attached stream),
//! `wire` (messages to values), `dial` (tonic).

pub mod clock;
pub mod dial;
pub mod here;
mod outbox;
pub mod real;
mod session;
mod skew;
mod wire;

#[cfg(test)]
mod link_test;

use clock::{Clock, LeaseClock};
use futures::future::BoxFuture;
use ledger::command::Command;
use ledger::reply::Reply;
use ledger::rows::TaskRow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use types::{ClusterId, Epoch, Hash, NodeId, ProjectName, TaskUid, limits};

/// News of one stream that wait for the supervisor. It answers in microseconds, so this is only for bursts.
const NEWS_WAITING: usize = 256;

/// What the leader says, and what becomes of the node's own lease.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// Everything the ledger says this node holds; comes first on every stream.
    FullSet { leases: Vec<TaskRow>, term: u64 },
    /// A new lease.
    Assigned(Box<TaskRow>),
    /// Stop this task and confirm.
    Cancel(LeaseName),
    /// This lease is not in force any more, or so it seems.
    Revoked(LeaseName),
    /// The node's lease ran out: nothing new may start.
    LeaseEnded,
    /// The node's lease is in force again.
    LeaseBack,
}

/// The right to run a task, by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseName {
    pub project: ProjectName,
    pub task: TaskUid,
    pub epoch: Epoch,
}

/// One loaded model, as the leader wants to know it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EngineFacts {
    pub model: String,
    pub model_digest: Hash,
    pub numerics_id: Hash,
    pub window: u64,
    pub kv_blocks: u64,
    pub kv_blocks_used: u64,
    pub kv_bytes: u64,
    pub kernels: String,
    pub tokens_computed: u64,
    pub tokens_cached: u64,
    pub tokens_generated: u64,
    pub model_bytes: u64,
    pub weight_bytes: u64,
    /// Bytes of KV that can be used again, by tier.
    pub kv_tiers: Vec<(&'static str, u64)>,
}

/// What a beat tells beside "I live".
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BeatFacts {
    pub running: u32,
    pub engines: Vec<EngineFacts>,
    /// `proto::v1::Device`, encoded.
    pub device: Vec<u8>,
    pub segments: u64,
    pub segment_bytes: u64,
    pub context_bytes_received: u64,
    pub context_bytes_sent: u64,
    pub context_bytes_full: u64,
    pub destinations: Vec<DestinationFacts>,
}

/// What calls of this node to one address meet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DestinationFacts {
    pub name: String,
    pub running: u32,
    pub waiting: u32,
    pub cuts: u64,
    pub start: u32,
    pub most: u32,
}

/// What the link asks of the node around it. Called on the async runtime: must answer at once.
pub trait Vitals: Send + Sync + 'static {
    /// Leases held at this moment.
    fn leases(&self) -> Vec<LeaseName>;
    fn beat(&self) -> BeatFacts;
    /// What the cluster leaves to this node: an address, and calls at the same time.
    fn leave(&self, _address: &str, _calls: u32) {}
    /// What slices of this node hold and need not is wanted elsewhere; with `answer` somebody waits until they say so.
    fn recall(&self, _answer: bool) {}
}

/// Where the leader is.
pub trait FindLeader: Send + Sync + 'static {
    /// The internal address (`host:port`) of the leader, as far as it can be found out now. May ask around; bounded
    /// by a second.
    fn find(&self) -> BoxFuture<'_, Option<String>>;
    /// Resolves with its address when another leader becomes known. May never resolve where nobody would say.
    fn moved(&self, from: String) -> BoxFuture<'_, String>;
    /// This address led a moment ago.
    fn found(&self, _address: &str) {}
    /// This address does not answer, or not as a leader.
    fn lost(&self, _address: &str) {}
}

/// The address kept up to date by someone who hears of elections.
impl FindLeader for watch::Receiver<Option<String>> {
    fn find(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async move { self.borrow().clone() })
    }

    fn moved(&self, from: String) -> BoxFuture<'_, String> {
        let mut watched = self.clone();
        Box::pin(async move {
            let other = watched.wait_for(|now| now.as_ref().is_some_and(|address| *address != from)).await;
            match other.map(|address| address.clone()) {
                Ok(Some(address)) => address,
                Ok(None) | Err(_) => std::future::pending().await,
            }
        })
    }
}

/// How often and how long, in milliseconds. Tests shrink them.
#[derive(Debug, Clone, Copy)]
pub struct LinkTimes {
    pub renew_ms: u64,
    /// A stream without a word for this long is given up.
    pub silence_ms: u64,
    pub attach_ms: u64,
    /// Wait before another try; doubles up to `retry_max_ms`.
    pub retry_ms: u64,
    pub retry_max_ms: u64,
}

impl Default for LinkTimes {
    fn default() -> Self {
        let renew_ms = limits::NODE_RENEW_MS;
        // 100 ms doubling to 200 ms: a known leader is reached within 200 ms, a missing one costs five tries a second.
        LinkTimes { renew_ms, silence_ms: 3 * renew_ms, attach_ms: 1_000, retry_ms: 50, retry_max_ms: 200 }
    }
}

/// Who attaches.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// Changes at every start of the process.
    pub boot_id: [u8; 16],
    pub version: String,
    /// Tasks at the same time; 0 for a keeper.
    pub slots: u32,
    pub times: LinkTimes,
}

/// What the link needs of the world.
#[derive(Clone)]
pub struct LinkSeams {
    pub leaders: Arc<dyn FindLeader>,
    pub dial: Arc<dyn dial::Dial>,
    pub vitals: Arc<dyn Vitals>,
    pub clock: Arc<dyn Clock>,
}

/// A handle to the link. Clones share one stream; it ends with the last of them.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
    _stop_with_last_handle: Arc<DropGuard>,
}

struct Shared {
    config: LinkConfig,
    seams: LinkSeams,
    outbox: outbox::Outbox,
    lease: LeaseClock,
    attached: watch::Sender<Option<String>>,
    attaches: AtomicU64,
    skew: skew::Skew,
}

/// The link at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkObserved {
    /// The leader this node is attached to.
    pub leader: Option<String>,
    /// Streams opened since the start.
    pub attaches: u64,
    pub requests_waiting: usize,
    pub lease_valid: bool,
}

impl Link {
    /// Attaches and stays attached. News come out of the receiver, which must be drained.
    pub fn start(config: LinkConfig, seams: LinkSeams) -> (Link, mpsc::Receiver<News>) {
        let (news, inbox) = mpsc::channel(NEWS_WAITING);
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            lease: LeaseClock::new(seams.clock.clone()),
            config,
            seams,
            outbox: outbox::Outbox::default(),
            attached: watch::Sender::new(None),
            attaches: AtomicU64::new(0),
            skew: skew::Skew::default(),
        });
        tokio::spawn(
            stop.clone().run_until_cancelled_owned(session::stay_attached(shared.clone(), news.clone())),
        );
        tokio::spawn(stop.clone().run_until_cancelled_owned(clock::watch_lease(shared.lease.clone(), news)));
        (Link { shared, _stop_with_last_handle: Arc::new(stop.drop_guard()) }, inbox)
    }

    /// Asks the ledger, through whichever leader there is, until it answers. Dropping the future gives up, which
    /// says nothing about whether the command was applied: commands may be repeated.
    pub async fn request(&self, command: Command) -> Reply {
        self.shared.outbox.ask(&command).await
    }

    /// The node's own lease, on its own clock.
    pub fn lease(&self) -> &LeaseClock {
        &self.shared.lease
    }

    /// The leader this node is attached to, as it changes.
    pub fn attached(&self) -> watch::Receiver<Option<String>> {
        self.shared.attached.subscribe()
    }

    pub fn observe(&self) -> LinkObserved {
        LinkObserved {
            leader: self.shared.attached.borrow().clone(),
            attaches: self.shared.attaches.load(Ordering::Relaxed),
            requests_waiting: self.shared.outbox.waiting(),
            lease_valid: self.shared.lease.valid(),
        }
    }
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
