//! What the rest of the coordinator sees of raft.

use super::errors::{
    InitializeError, MembershipError, ProposeError, ReadError, StartError, Stopped, WaitError,
};
use super::log_store::LogStore;
use super::network::Network;
use super::snapshots::Snapshots;
use super::state_machine::StateMachine;
use super::status::{self, Leader, LeaderView, Status};
use super::transport::{Body, CallError, Envelope, Reply, SnapshotReply};
use super::type_config::{Command, Types};
use super::{RaftOptions, RaftRpc, Timings};
use crate::wal::{self, Wal, WalOptions};
use bytes::Bytes;
use openraft::async_runtime::{Instant, WatchReceiver};
use openraft::errors::{
    ChangeMembershipError, ClientWriteError, Fatal, ForwardReason, ForwardToLeader, LinearizableReadError,
    RaftError,
};
use openraft::raft::ClientWriteResponse;
use openraft::{BasicNode, ChangeMembers, Raft, RaftMetrics, ReadPolicy};
use proto::internal::v1::raft_service_server::RaftServiceServer;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use types::{ClusterId, NodeId, limits};

/// Proposals on their way at the same time; more wait. Bounds the memory they take.
const PROPOSALS_MAX: usize = 256;
/// A new voter this close to the leader's log holds up no commit.
const CATCH_UP_ENTRIES: u64 = 100;

/// One member of the raft cluster. Clones are the same member.
#[derive(Clone)]
pub struct RaftNode {
    inner: Arc<Inner>,
}

struct Inner {
    id: NodeId,
    cluster: ClusterId,
    raft: Raft<Types, StateMachine>,
    wal: Wal,
    timings: Timings,
    leader: watch::Receiver<LeaderView>,
    proposals: Semaphore,
}

/// A committed and applied proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    pub index: u64,
    pub reply: Vec<u8>,
}

impl RaftNode {
    /// Opens log and snapshots, restores the machine and takes part in raft: as a voter or learner if the log
    /// says so, otherwise waiting to be added or for [`RaftNode::initialize`].
    ///
    /// # Errors
    /// When the disk is lost, damaged or another node's, or the timings cannot work. Each says what to do.
    pub async fn start(options: RaftOptions) -> Result<RaftNode, StartError> {
        let wal = WalOptions::new("raft/wal", options.cluster, options.id, options.flush);
        Self::start_with(options, wal).await
    }

    /// Lets tests choose the log's options too.
    pub(super) async fn start_with(options: RaftOptions, wal: WalOptions) -> Result<RaftNode, StartError> {
        let RaftOptions { id, cluster, timings, disk, flush, transport, machine, seed, first_start } =
            options;
        let config = timings.config(cluster, seed).map_err(StartError::Timings)?;
        if !first_start && !wal::exists(disk.as_ref(), &wal.dir)? {
            return Err(StartError::LostDisk { id });
        }
        let wal = Wal::open(disk.clone(), wal)?;
        let snapshots = Snapshots::open(disk, "raft/snap", cluster, id).map_err(StartError::Disk)?;
        check_snapshot(id, &wal, &snapshots)?;
        let append = Duration::from_millis(timings.append_ms);
        let network = Network { cluster, from: id, transport, append };
        let machine = StateMachine::new(machine, snapshots, flush);
        let raft = Raft::new(id.0, Arc::new(config), network, LogStore::new(wal.clone()), machine);
        #[cfg(test)]
        let raft = super::type_config::Runtime::scope(seed, raft);
        let raft = raft.await;
        let raft = raft.map_err(|e| StartError::Raft(e.to_string()))?;
        let leader = follow_leader(&raft);
        let proposals = Semaphore::new(PROPOSALS_MAX);
        Ok(RaftNode { inner: Arc::new(Inner { id, cluster, raft, wal, timings, leader, proposals }) })
    }

    pub fn id(&self) -> NodeId {
        self.inner.id
    }

    /// The service to mount on the internal plane.
    pub fn service(&self) -> RaftServiceServer<RaftRpc> {
        RaftRpc::service(self.clone())
    }

    /// Makes a new cluster with this node as its only voter, reachable at `address`.
    ///
    /// # Errors
    /// When this node is part of a cluster already, whatever became of it.
    pub async fn initialize(&self, address: &str) -> Result<(), InitializeError> {
        let node = BasicNode { addr: address.to_string() };
        match self.raft().initialize(BTreeMap::from([(self.inner.id.0, node)])).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(_)) => Err(InitializeError::Already),
            Err(RaftError::Fatal(fatal)) => Err(stopped(&fatal).into()),
        }
    }

    /// Whether this node is, or was, part of a cluster.
    pub async fn is_initialized(&self) -> Result<bool, Stopped> {
        self.raft().is_initialized().await.map_err(|fatal| stopped(&fatal))
    }

    /// Proposes an entry, and waits until it is committed and applied here.
    ///
    /// # Errors
    /// `NotLeader` and `TooLarge` mean that nothing happened. `Unknown` and `Stopped` mean that the entry may
    /// be committed now, later or never: ask again with the same request id.
    pub async fn propose(&self, entry: Vec<u8>) -> Result<Proposed, ProposeError> {
        let (bytes, limit) = (entry.len(), limits::ENTRY_BYTES);
        if bytes > limit {
            return Err(ProposeError::TooLarge { bytes, limit });
        }
        let write = self.write(Command(Bytes::from(entry)));
        match within(self.inner.timings.propose_ms, write).await {
            Some(Ok(done)) => Ok(Proposed { index: done.log_id.index, reply: done.data.0 }),
            Some(Err(error)) => Err(propose_error(error)),
            None => Err(ProposeError::Unknown),
        }
    }

    /// Waits until this node has applied everything that was committed anywhere before the call, as its leader.
    /// Returns the index that is safe to read at.
    pub async fn read_barrier(&self) -> Result<u64, ReadError> {
        let barrier = self.raft().ensure_linearizable(ReadPolicy::ReadIndex);
        match within(self.inner.timings.propose_ms, barrier).await {
            None => Err(ReadError::Timeout),
            Some(Ok(read)) => Ok(read.log_id().index),
            Some(Err(RaftError::Fatal(fatal))) => Err(ReadError::Stopped { reason: stopped(&fatal).reason }),
            Some(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) => {
                Err(ReadError::Timeout)
            }
            Some(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to)))) => {
                Err(ReadError::NotLeader { leader: forward(to) })
            }
        }
    }

    /// Waits until this node, leader or not, has applied an entry.
    pub async fn wait_applied(&self, index: u64, timeout: Duration) -> Result<(), WaitError> {
        self.wait(timeout, |m| m.last_applied.is_some_and(|applied| applied.index >= index)).await.map(drop)
    }

    /// After a restart: waits until this node has applied everything it could have applied before it.
    /// Reads served earlier could go back in time.
    pub async fn wait_for_recovery(&self, timeout: Duration) -> Result<(), WaitError> {
        let recovered = self.raft().wait_for_recovery(Some(timeout)).await;
        recovered.map(drop).map_err(|_| self.wait_error())
    }

    pub fn leader(&self) -> LeaderView {
        status::leader_view(&self.raft().metrics().borrow_watched())
    }

    /// Changes whenever the term or its leader does.
    pub fn watch_leader(&self) -> watch::Receiver<LeaderView> {
        self.inner.leader.clone()
    }

    /// Whether this node believes to lead. Only [`RaftNode::propose`] and [`RaftNode::read_barrier`] prove it.
    pub fn is_leader(&self) -> bool {
        self.raft().is_leader()
    }

    /// Whether a quorum has answered this leader so lately that no other can lead yet: what it grants now holds. A
    /// leader that is cut off goes on to believe in itself for longer.
    pub fn is_confirmed(&self) -> bool {
        let recent = Duration::from_millis(self.inner.timings.election_min_ms);
        let raft = self.raft().metrics();
        let metrics = raft.borrow_watched();
        let alone = metrics.membership_config.membership().voter_ids().count() <= 1;
        let answered = metrics.last_quorum_acked.is_some_and(|at| at.elapsed() < recent);
        metrics.state.is_leader() && (alone || answered)
    }

    pub fn status(&self) -> Status {
        status::status(&self.raft().metrics().borrow_watched())
    }

    /// Adds a node that receives the log and has no vote. Adding it again is no error.
    /// Returns the index of the entry that did it.
    pub async fn add_learner(&self, id: NodeId, address: &str) -> Result<u64, MembershipError> {
        self.check_address(id, address)?;
        let node = BasicNode { addr: address.to_string() };
        self.changed(self.raft().add_learner(id.0, node, false)).await
    }

    /// Removes a node that has no vote.
    pub async fn remove_learner(&self, id: NodeId) -> Result<u64, MembershipError> {
        let status = self.status();
        if status.voters.contains_key(&id) {
            return Err(MembershipError::StillAVoter { id });
        }
        if !status.learners.contains_key(&id) {
            return Err(MembershipError::NotAMember { id });
        }
        let remove = ChangeMembers::RemoveNodes(BTreeSet::from([id.0]));
        self.changed(self.raft().change_membership(remove, false)).await
    }

    /// Makes exactly these nodes the voters. New ones must be members and catch up first; voters left out leave
    /// the cluster. If the leader leaves out itself, another takes over.
    pub async fn change_voters(&self, voters: BTreeSet<NodeId>) -> Result<u64, MembershipError> {
        self.check_voters(&voters)?;
        for id in &voters {
            self.wait_caught_up(*id).await?;
        }
        let ids: BTreeSet<u64> = voters.iter().map(|id| id.0).collect();
        let replace = ChangeMembers::ReplaceAllVoters(ids);
        self.changed(self.raft().change_membership(replace, false)).await
    }

    /// Hands the leadership to a voter, and returns when this node has seen it lead.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), MembershipError> {
        self.check_leads()?;
        if !self.status().voters.contains_key(&to) {
            return Err(MembershipError::NotAVoter { id: to });
        }
        let asked = self.raft().trigger().transfer_leader(to.0).await;
        asked.map_err(|fatal| MembershipError::Stopped { reason: stopped(&fatal).reason })?;
        let timeout = Duration::from_millis(self.inner.timings.membership_ms);
        let moved = self.wait(timeout, |m| m.current_leader == Some(to.0)).await;
        moved.map(drop).map_err(membership_wait)
    }

    /// Takes a snapshot now. Returns when it was asked for, not when it is done.
    pub async fn trigger_snapshot(&self) -> Result<(), Stopped> {
        self.raft().trigger().snapshot().await.map_err(|fatal| stopped(&fatal))
    }

    /// Resolves when raft stops, with the reason. The process should then end: its part of the cluster is over.
    pub async fn stopped(&self) -> String {
        let mut metrics = self.raft().metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_watched().running_state {
                return fatal.to_string();
            }
            if metrics.changed().await.is_err() {
                return "raft has ended".to_string();
            }
        }
    }

    /// Stops raft and flushes its log. Hand over the leadership first.
    pub async fn shutdown(&self) {
        if let Err(error) = self.raft().shutdown().await {
            tracing::warn!(%error, "raft did not end well");
        }
        self.inner.wal.close();
    }

    /// Answers one call of another node. Everything that comes in, comes through here.
    ///
    /// # Errors
    /// `Refused` when the call is for another cluster or node, `Unreachable` when raft has stopped.
    pub async fn handle(&self, envelope: Envelope) -> Result<Reply, CallError> {
        self.check_envelope(&envelope)?;
        let raft = self.raft();
        match envelope.body {
            Body::Vote(request) => raft.vote(request).await.map(Reply::Vote).map_err(|e| gone(e.fatal())),
            Body::PreVote(request) => {
                raft.pre_vote(request).await.map(Reply::PreVote).map_err(|e| gone(e.fatal()))
            }
            Body::Append(request) => {
                raft.append_entries(request).await.map(Reply::Append).map_err(|e| gone(e.fatal()))
            }
            Body::Snapshot(request) => {
                let installed = raft.install_full_snapshot(request.vote, request.snapshot).await;
                let reply = |r: openraft::raft::SnapshotResponse<Types>| SnapshotReply { vote: r.vote };
                installed.map(|r| Reply::Snapshot(reply(r))).map_err(|fatal| gone(Some(&fatal)))
            }
            Body::TransferLeader(request) => {
                let heard = raft.handle_transfer_leader(request).await;
                heard.map(Reply::TransferLeader).map_err(|fatal| gone(Some(&fatal)))
            }
        }
    }

    fn raft(&self) -> &Raft<Types, StateMachine> {
        &self.inner.raft
    }

    /// Writes an entry. A leader that no quorum has confirmed lately refuses without having done anything;
    /// a new one is confirmed a moment later, so that is worth one wait.
    async fn write(&self, command: Command) -> WriteResult {
        let _permit = self.inner.proposals.acquire().await;
        let first = self.raft().client_write(command.clone()).await;
        if !is_unconfirmed(&first) {
            return first;
        }
        let lease = Duration::from_millis(self.inner.timings.election_max_ms);
        let confirmed =
            |m: &RaftMetrics<Types>| m.last_quorum_acked.is_some_and(|at| at.elapsed() < lease / 2);
        match self.wait(lease, |m| !m.state.is_leader() || confirmed(m)).await {
            Ok(_) => self.raft().client_write(command).await,
            Err(_) => first,
        }
    }

    fn check_envelope(&self, envelope: &Envelope) -> Result<(), CallError> {
        let (id, cluster) = (self.inner.id, self.inner.cluster);
        if envelope.cluster != cluster {
            return Err(CallError::Refused(format!("this is cluster {cluster}, not {}", envelope.cluster)));
        }
        if envelope.to != id {
            return Err(CallError::Refused(format!("this is node {id}, not {}", envelope.to)));
        }
        Ok(())
    }

    fn check_leads(&self) -> Result<(), MembershipError> {
        if self.is_leader() {
            return Ok(());
        }
        Err(MembershipError::NotLeader { leader: self.leader().leader })
    }

    /// One address is one node, and a node keeps its address: calls to the wrong one would be refused anyway.
    fn check_address(&self, id: NodeId, address: &str) -> Result<(), MembershipError> {
        let status = self.status();
        let mut members = status.voters.iter().chain(&status.learners);
        match members.find(|(member, at)| (**member == id) != (at.as_str() == address)) {
            Some((member, at)) => Err(MembershipError::AddressTaken { address: at.clone(), id: *member }),
            None => Ok(()),
        }
    }

    fn check_voters(&self, voters: &BTreeSet<NodeId>) -> Result<(), MembershipError> {
        self.check_leads()?;
        if ![1, 3, 5].contains(&voters.len()) {
            return Err(MembershipError::Count { count: voters.len() });
        }
        let status = self.status();
        let unknown = |id: &&NodeId| !status.voters.contains_key(id) && !status.learners.contains_key(id);
        match voters.iter().find(unknown) {
            Some(id) => Err(MembershipError::NotAMember { id: *id }),
            None => Ok(()),
        }
    }

    async fn wait_caught_up(&self, id: NodeId) -> Result<(), MembershipError> {
        let timeout = Duration::from_millis(self.inner.timings.membership_ms);
        match self.wait(timeout, |m| lag(m, id).is_none_or(|lag| lag <= CATCH_UP_ENTRIES)).await {
            Ok(_) => self.check_leads(),
            Err(WaitError::Timeout) => {
                let entries = lag(&self.raft().metrics().borrow_watched(), id).unwrap_or(0);
                Err(MembershipError::Behind { id, entries })
            }
            Err(error) => Err(membership_wait(error)),
        }
    }

    async fn changed(&self, change: impl Future<Output = WriteResult>) -> Result<u64, MembershipError> {
        match within(self.inner.timings.membership_ms, change).await {
            Some(Ok(done)) => Ok(done.log_id.index),
            Some(Err(error)) => Err(membership_error(error)),
            None => Err(MembershipError::Unknown),
        }
    }

    pub(super) async fn wait(
        &self,
        timeout: Duration,
        until: impl Fn(&RaftMetrics<Types>) -> bool + Send,
    ) -> Result<RaftMetrics<Types>, WaitError> {
        let waited = self.raft().wait(Some(timeout)).metrics(until, "waited for").await;
        waited.map_err(|_| self.wait_error())
    }

    fn wait_error(&self) -> WaitError {
        match self.status().stopped {
            Some(reason) => WaitError::Stopped(Stopped { reason }),
            None => WaitError::Timeout,
        }
    }
}

type WriteResult = Result<ClientWriteResponse<Types>, RaftError<Types, ClientWriteError<Types>>>;

fn is_unconfirmed(result: &WriteResult) -> bool {
    match result {
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
            to.reason == ForwardReason::LeaseExpired
        }
        _ => false,
    }
}

/// Runs a future for at most so long.
async fn within<T>(ms: u64, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_millis(ms), future).await.ok()
}

/// The log must reach back to the newest snapshot that can be read.
fn check_snapshot(id: NodeId, wal: &Wal, snapshots: &Snapshots) -> Result<(), StartError> {
    let Some(purged) = wal.summary().purged.map(|p| p.index) else { return Ok(()) };
    let newest = snapshots.newest().map_err(StartError::Disk)?;
    let snapshot = newest.and_then(|s| s.meta.last_log_id).map(|at| at.index);
    if snapshot < Some(purged) {
        return Err(StartError::LostSnapshot { id, purged, snapshot });
    }
    Ok(())
}

/// Passes on who leads, until raft ends.
fn follow_leader(raft: &Raft<Types, StateMachine>) -> watch::Receiver<LeaderView> {
    let mut metrics = raft.metrics();
    let (views, view) = watch::channel(status::leader_view(&metrics.borrow_watched()));
    tokio::spawn(async move {
        while metrics.changed().await.is_ok() {
            let now = status::leader_view(&metrics.borrow_watched());
            views.send_if_modified(|seen| {
                let new = *seen != now;
                *seen = now;
                new
            });
        }
    });
    view
}

/// How many entries a member is behind; none when this node does not lead.
fn lag(metrics: &RaftMetrics<Types>, id: NodeId) -> Option<u64> {
    let replication = metrics.replication.as_ref()?;
    let last = metrics.last_log_index.map_or(0, |index| index + 1);
    if metrics.id == id.0 {
        return Some(0);
    }
    let matching = replication.get(&id.0).copied().flatten().map_or(0, |at| at.index + 1);
    Some(last.saturating_sub(matching))
}

fn stopped(fatal: &Fatal<Types>) -> Stopped {
    Stopped { reason: fatal.to_string() }
}

fn gone(fatal: Option<&Fatal<Types>>) -> CallError {
    CallError::Unreachable(fatal.map_or("raft has stopped".to_string(), ToString::to_string))
}

fn forward(to: ForwardToLeader<Types>) -> Option<Leader> {
    let (id, node) = (to.leader_id?, to.leader_node?);
    Some(Leader { id: NodeId(id), address: node.addr })
}

fn propose_error(error: RaftError<Types, ClientWriteError<Types>>) -> ProposeError {
    match error {
        RaftError::Fatal(fatal) => ProposeError::Stopped { reason: stopped(&fatal).reason },
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => {
            ProposeError::NotLeader { leader: forward(to) }
        }
        RaftError::APIError(
            ClientWriteError::LogEntryDiscarded(_)
            | ClientWriteError::ChangeMembershipError(_)
            | ClientWriteError::PreconditionFailed(_),
        ) => ProposeError::Unknown,
    }
}

fn membership_error(error: RaftError<Types, ClientWriteError<Types>>) -> MembershipError {
    let change = match error {
        RaftError::Fatal(fatal) => return MembershipError::Stopped { reason: stopped(&fatal).reason },
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => {
            return MembershipError::NotLeader { leader: forward(to) };
        }
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => return MembershipError::Unknown,
        RaftError::APIError(ClientWriteError::PreconditionFailed(e)) => {
            return MembershipError::Refused(e.to_string());
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(change)) => change,
    };
    match change {
        ChangeMembershipError::InProgress(_) => MembershipError::InProgress,
        ChangeMembershipError::LearnerNotFound(e) => MembershipError::NotAMember { id: NodeId(e.node_id) },
        other => MembershipError::Refused(other.to_string()),
    }
}

fn membership_wait(error: WaitError) -> MembershipError {
    match error {
        WaitError::Timeout => MembershipError::Unknown,
        WaitError::Stopped(stopped) => MembershipError::Stopped { reason: stopped.reason },
    }
}
