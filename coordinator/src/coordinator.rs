//! One coordinator: the ledger, raft under it, and the three things others ask of it: propose, read, watch.

use crate::clock::{Clock, OfficeClock};
use crate::leader::Office;
use crate::link::LinkServer;
use crate::machine::{LedgerMachine, Seen};
use crate::proposer::{ProposeFailed, Proposer};
use crate::raft::{self, Dialer, Flush, RaftNode, RaftOptions, StartError, Timings, Transport};
use crate::rpc::LedgerRpc;
use ledger::Strategy;
use ledger::command::{Command, Stamp};
use ledger::placement::Soft;
use ledger::query::{Answer, Query};
use ledger::reply::Reply;
use ledger::rows::{Event, NodeRow, Role, TaskRow};
use proto::internal::v1 as pb;
use proto::internal::v1::ledger_server::LedgerServer;
use proto::internal::v1::link_server::LinkServer as LinkService;
use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use sys::disk::Disk;
use tokio::sync::{mpsc, watch};
use types::{ClusterId, NodeId, TaskUid};

/// Patience with another voter that is to take over.
const HAND_OVER: Duration = Duration::from_secs(2);
/// Starts that say how fast tasks start: enough to see through chance, few enough to follow a change of pace.
const STARTS: usize = 64;

pub struct CoordinatorOptions {
    pub id: NodeId,
    pub cluster: ClusterId,
    pub timings: Timings,
    pub disk: Arc<dyn Disk>,
    pub flush: Flush,
    pub transport: Arc<dyn Transport>,
    /// For calls to members that do not attach.
    pub dialer: Arc<dyn Dialer>,
    pub clock: Arc<dyn Clock>,
    pub seed: u64,
    /// True only when this id never ran before; otherwise an empty log means a lost disk and is refused.
    pub first_start: bool,
    /// A node's lease and how long the leader waits beyond it.
    pub lease_ms: u64,
    /// How projects take turns while this node leads.
    pub strategy: Strategy,
}

/// What a node says of itself when it asks to be a member.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    pub name: String,
    pub roles: Vec<Role>,
    pub client_addr: String,
    pub internal_addr: String,
    pub disk_id: [u8; 16],
    pub version: String,
}

impl NodeFacts {
    pub(crate) fn admit(self) -> Command {
        Command::AdmitNode {
            name: self.name,
            roles: self.roles,
            client_addr: self.client_addr,
            internal_addr: self.internal_addr,
            disk_id: self.disk_id,
            version: self.version,
        }
    }
}

/// Why a read has no answer here.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    #[error("this node does not lead")]
    NotLeader { leader: Option<String> },
    #[error("no quorum confirmed the leader in time")]
    Timeout,
    #[error("this node has stopped: {0}")]
    Stopped(String),
}

/// Cheap to clone; all clones are the same coordinator.
#[derive(Clone)]
pub struct Coordinator {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) cluster: ClusterId,
    pub(crate) raft: RaftNode,
    pub(crate) machine: Arc<Mutex<LedgerMachine>>,
    pub(crate) proposer: Proposer,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dialer: Arc<dyn Dialer>,
    pub(crate) link: LinkServer,
    pub(crate) lease_ms: u64,
    pub(crate) strategy: Strategy,
    pub(crate) office_clock: Arc<Mutex<OfficeClock>>,
    /// Wakes the leader's loop: something may start now.
    pub(crate) replan: mpsc::Sender<()>,
    /// When this node last heard that there is a leader, on its monotonic clock.
    pub(crate) leader_heard_ms: Mutex<u64>,
    /// When this leader's last assignments were applied, on the ledger's clock: what explanations estimate by.
    pub(crate) starts_ms: Mutex<VecDeque<u64>>,
    /// Held while the state is copied to try something.
    pub(crate) supposing: tokio::sync::Mutex<()>,
    /// Held while consensus follows the members.
    pub(crate) following: tokio::sync::Mutex<()>,
    /// How often members changed since this node started.
    pub(crate) members_turn: AtomicU64,
}

impl Coordinator {
    pub async fn start(options: CoordinatorOptions) -> Result<Coordinator, StartError> {
        let (machine, effects) = LedgerMachine::new();
        let machine = Arc::new(Mutex::new(machine));
        let shared: raft::SharedMachine = machine.clone();
        let raft = RaftNode::start(RaftOptions {
            id: options.id,
            cluster: options.cluster,
            timings: options.timings,
            disk: options.disk,
            flush: options.flush,
            transport: options.transport,
            machine: shared,
            seed: options.seed,
            first_start: options.first_start,
        })
        .await?;
        let office_clock = Arc::new(Mutex::new(OfficeClock::start(0, 0, options.clock.as_ref())));
        let link = LinkServer::default();
        let proposer = {
            let (office, clock, link) = (office_clock.clone(), options.clock.clone(), link.clone());
            Proposer::start(raft.clone(), move || stamp(&office, clock.as_ref(), &link))
        };
        let (replan, wakes) = mpsc::channel(1);
        let coordinator = Coordinator {
            inner: Arc::new(Inner {
                cluster: options.cluster,
                raft,
                machine,
                proposer,
                clock: options.clock,
                dialer: options.dialer,
                link,
                lease_ms: options.lease_ms,
                strategy: options.strategy,
                office_clock,
                replan,
                leader_heard_ms: Mutex::new(0),
                starts_ms: Mutex::default(),
                supposing: tokio::sync::Mutex::default(),
                following: tokio::sync::Mutex::default(),
                members_turn: AtomicU64::new(0),
            }),
        };
        tokio::spawn(Office::run(coordinator.clone(), effects, wakes));
        Ok(coordinator)
    }

    pub fn raft(&self) -> &RaftNode {
        &self.inner.raft
    }

    pub fn cluster(&self) -> ClusterId {
        self.inner.cluster
    }

    /// Makes this node the only voter of a new cluster, and its first member.
    pub async fn init(&self, facts: NodeFacts) -> Result<NodeId, String> {
        self.raft().initialize(&facts.internal_addr).await.map_err(|e| e.to_string())?;
        let cluster_id = self.inner.cluster;
        let commands =
            vec![Command::InitCluster { cluster_id }, crate::changes::newest_level(), facts.admit()];
        for _ in 0..100 {
            match self.propose_unasked(commands.clone()).await {
                Ok((_, replies)) => match replies.last() {
                    Some(Reply::Node(id)) => return Ok(*id),
                    other => return Err(format!("the first node was not admitted: {other:?}")),
                },
                // The election of the only voter takes a moment.
                Err(ProposeFailed::NotLeader { .. }) => self.wait_leader_change().await,
                Err(error) => return Err(error.to_string()),
            }
        }
        Err("the first node was not elected".into())
    }

    async fn wait_leader_change(&self) {
        let mut leader = self.raft().watch_leader();
        let _ = tokio::time::timeout(Duration::from_millis(100), leader.changed()).await;
    }

    /// Proposes commands as one unit; only a leader can. Replies come in order.
    pub async fn propose(&self, commands: Vec<Command>) -> Result<Vec<Reply>, ProposeFailed> {
        self.propose_at(commands).await.map(|(_, replies)| replies)
    }

    pub(crate) async fn propose_at(
        &self,
        commands: Vec<Command>,
    ) -> Result<(u64, Vec<Reply>), ProposeFailed> {
        self.allowed(&commands)?;
        self.propose_unasked(commands).await
    }

    /// Without asking whether older versions could read it.
    pub(crate) async fn propose_unasked(
        &self,
        commands: Vec<Command>,
    ) -> Result<(u64, Vec<Reply>), ProposeFailed> {
        if !self.raft().is_leader() {
            return Err(ProposeFailed::NotLeader { leader: self.leader_address() });
        }
        self.inner.proposer.propose(commands).await
    }

    pub fn leader_address(&self) -> Option<String> {
        self.raft().leader().leader.map(|leader| leader.address)
    }

    /// Reads what was committed before the call, at the leader.
    pub async fn read(&self, query: &Query) -> Result<(Answer, u64), ReadError> {
        let index = self.barrier().await?;
        let soft = self.soft();
        Ok((self.locked().state.answer(query, Some(&soft)), index))
    }

    /// The whole state with all that was committed before the call, at the leader. The state stands still while it is
    /// written, as it does for the log's own snapshots.
    pub async fn snapshot(&self) -> Result<Vec<u8>, ReadError> {
        self.barrier().await?;
        let coordinator = self.clone();
        let written = tokio::task::spawn_blocking(move || coordinator.locked().state.snapshot()).await;
        written.map_err(|error| ReadError::Stopped(error.to_string()))
    }

    /// What was committed before the call is applied here, and this node still leads.
    pub(crate) async fn barrier(&self) -> Result<u64, ReadError> {
        self.raft().read_barrier().await.map_err(read_error)
    }

    /// Reads this node's own state, with its applied index and the age of what it knows.
    pub fn read_stale(&self, query: &Query) -> (Answer, u64, u64) {
        let status = self.raft().status();
        let age = match self.raft().is_leader() {
            true => 0,
            false => self
                .inner
                .clock
                .monotonic_ms()
                .saturating_sub(*self.inner.leader_heard_ms.lock().expect("no panic while held")),
        };
        (self.locked().state.answer(query, None), status.applied, age)
    }

    /// Wakes when the task gets a committed event here.
    pub fn watch_task(&self, task: TaskUid) -> watch::Receiver<u64> {
        self.locked().watch(task)
    }

    /// From now on every event that is committed is told there, on every replica. A full channel misses some: nothing
    /// waits for it.
    pub fn tell_events(&self, follower: mpsc::Sender<Seen>) {
        self.locked().tell(follower);
    }

    /// Committed events from a sequence on, the oldest that is kept, and whether the task is over.
    pub fn events(&self, task: TaskUid, from: u64) -> (Vec<Event>, u64, bool) {
        match self.locked().state.answer(&Query::Events { uid: task, from }, None) {
            Answer::Events { events, first_kept, ended } => (events, first_kept, ended),
            _ => (Vec::new(), 1, true),
        }
    }

    pub fn task(&self, task: TaskUid) -> Option<TaskRow> {
        match self.locked().state.answer(&Query::TaskByUid { uid: task }, None) {
            Answer::Task(row) => row.map(|row| *row),
            _ => None,
        }
    }

    pub fn nodes(&self) -> Vec<NodeRow> {
        match self.locked().state.answer(&Query::Nodes, None) {
            Answer::Nodes(rows) => rows,
            _ => Vec::new(),
        }
    }

    /// The services of the internal port.
    pub fn services(&self) -> (LedgerServer<LedgerRpc>, LinkService<crate::link::LinkRpc>) {
        let ledger = LedgerServer::new(LedgerRpc::new(self.clone()))
            .max_decoding_message_size(types::limits::REQUEST_BYTES)
            .max_encoding_message_size(usize::MAX);
        let link = LinkService::new(crate::link::LinkRpc::new(self.clone()))
            .max_decoding_message_size(types::limits::REQUEST_BYTES);
        (ledger, link)
    }

    /// Consensus as this node sees it, and what attached nodes last said to it.
    pub fn status(&self) -> pb::StatusResponse {
        let status = self.raft().status();
        pb::StatusResponse {
            term: status.term,
            leader_id: self.raft().leader().leader.map_or(0, |leader| leader.id.0),
            applied_index: status.applied,
            committed_index: status.committed,
            voters: status.voters.keys().map(|id| id.0).collect(),
            learners: status.learners.keys().map(|id| id.0).collect(),
            attached: self.inner.link.attached(),
            wall_ms: self.inner.clock.wall_ms(),
        }
    }

    pub(crate) fn stamp(&self) -> Stamp {
        stamp(&self.inner.office_clock, self.inner.clock.as_ref(), &self.inner.link)
    }

    pub(crate) fn soft(&self) -> Soft {
        let ledger_ms =
            self.inner.office_clock.lock().expect("no panic while held").ledger_ms(self.inner.clock.as_ref());
        let starts_ms = self.starts_ms().iter().copied().collect();
        self.inner.link.soft(ledger_ms, starts_ms, self.inner.strategy)
    }

    fn starts_ms(&self) -> MutexGuard<'_, VecDeque<u64>> {
        self.inner.starts_ms.lock().expect("no panic while held")
    }

    /// A task was given to a node.
    pub(crate) fn note_start(&self) {
        let ledger_ms = self.locked().state.ledger_ms();
        let mut starts_ms = self.starts_ms();
        if starts_ms.len() == STARTS {
            starts_ms.pop_front();
        }
        starts_ms.push_back(ledger_ms);
    }

    /// A new leader saw no starts yet: what it would guess from old ones is wrong.
    pub(crate) fn forget_starts(&self) {
        self.starts_ms().clear();
    }

    pub(crate) fn locked(&self) -> MutexGuard<'_, LedgerMachine> {
        self.inner.machine.lock().expect("the ledger does not panic while it is held")
    }

    /// Stops raft.
    pub async fn shutdown(&self) {
        self.raft().shutdown().await;
    }

    /// Gives leadership to a voter that is attached and has most of the log, so that nobody waits for an election.
    /// Where none takes it in time the others elect one.
    pub async fn hand_over(&self) {
        let status = self.raft().status();
        let attached: Vec<u64> = self.inner.link.attached().iter().map(|node| node.node_id).collect();
        let others = status.voters.keys().filter(|id| **id != self.raft().id() && attached.contains(&id.0));
        let best = others.max_by_key(|id| status.matching.get(id).copied().unwrap_or(0));
        if let Some(other) = best.filter(|_| status.is_leader) {
            let _ = tokio::time::timeout(HAND_OVER, self.raft().transfer_leader(*other)).await;
        }
    }
}

fn read_error(error: raft::ReadError) -> ReadError {
    match error {
        raft::ReadError::NotLeader { leader } => ReadError::NotLeader { leader: leader.map(|l| l.address) },
        raft::ReadError::Timeout => ReadError::Timeout,
        raft::ReadError::Stopped { reason } => ReadError::Stopped(reason),
    }
}

fn stamp(office: &Mutex<OfficeClock>, clock: &dyn Clock, link: &LinkServer) -> Stamp {
    let office = *office.lock().expect("no panic while held");
    let (wall_ms, refused) = office.wall_ms(clock, &mut link.wall_clocks(clock.monotonic_ms()));
    if refused {
        metrics::counter!("quorate_wall_clock_refused_total").increment(1);
    }
    Stamp { ledger_ms: office.ledger_ms(clock), wall_ms }
}
