//! The leader's end of the links: which nodes are attached, what they last said, and the stream to each.
//!
//! Nothing here is the truth. A node that attaches gets the full set of its leases from the ledger, and everything
//! sent later is a wake-up that may be lost.

use crate::coordinator::Coordinator;
use crate::proposer::ProposeFailed;
use crate::shared::{Load, Shared};
use ledger::Strategy;
use ledger::command::Command;
use ledger::placement::{Soft, SoftNode};
use ledger::reply::{Refusal, Reply};
use ledger::routing::{Chain, Routes};
use ledger::rows::TaskRow;
use prost::Message;
use proto::internal::v1 as pb;
use proto::internal::v1::leader_message::Body as ToNode;
use proto::internal::v1::node_message::Body as FromNode;
use proto::v1::Device;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use types::{Epoch, NodeId, ProjectName, TaskUid};

/// Messages that may wait for one node. A node that does not read loses its stream and gets a full set again.
const WAITING_MESSAGES: usize = 1024;
/// Wall clocks older than this say nothing about now.
const WALL_REPORT_AGE_MS: u64 = 5_000;
/// Destinations of one node that are heard: each is an entry of its configuration.
const DESTINATIONS: usize = 256;

type Outbox = mpsc::Sender<Result<pb::LeaderMessage, Status>>;

struct Attached {
    node: pb::AttachedNode,
    outbox: Outbox,
    /// Tells one stream of a node from the next.
    stream: u64,
    wall_ms: u64,
    heard_ms: u64,
}

#[derive(Default)]
struct Table {
    attached: BTreeMap<NodeId, Attached>,
    /// When the leader may declare a node lost, on its monotonic clock.
    lease_ends_ms: BTreeMap<NodeId, u64>,
    streams: u64,
    /// Declared lost, outcome not known: they attach when it is, so that a full set never tells of leases that end.
    losing: BTreeSet<NodeId>,
    /// What the nodes have in their caches, as far as this office knows.
    routes: Arc<Routes>,
    /// Calls that leave the cluster, by where they go.
    destinations: BTreeMap<String, Shared>,
    /// The office has begun: before that a node that attached would be forgotten when it does.
    open: bool,
}

impl Table {
    /// Hears what a node says of its destinations; answers its part of each.
    fn divide(
        &mut self,
        id: NodeId,
        loads: Vec<pb::DestinationLoad>,
        now_ms: u64,
    ) -> Vec<pb::DestinationPart> {
        let Table { destinations, attached, .. } = self;
        let mut part = |said: pb::DestinationLoad| {
            let shared = destinations.entry(said.name.clone()).or_default();
            let pb::DestinationLoad { running, waiting, cuts, start, most, .. } = said;
            shared.keep(|node| attached.contains_key(&node));
            shared.hear(id, Load { running, waiting, cuts, start, most }, now_ms);
            pb::DestinationPart { name: said.name, ceiling: shared.part(id) }
        };
        loads.into_iter().take(DESTINATIONS).map(&mut part).collect()
    }
}

#[derive(Clone, Default)]
pub(crate) struct LinkServer {
    table: Arc<Mutex<Table>>,
}

impl LinkServer {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no panic while held")
    }

    pub(crate) fn attached(&self) -> Vec<pb::AttachedNode> {
        self.table().attached.values().map(|a| a.node.clone()).collect()
    }

    /// What placement may know of the nodes.
    pub(crate) fn soft(&self, ledger_ms: u64, starts_ms: Vec<u64>, strategy: Strategy) -> Soft {
        let table = self.table();
        let nodes = table.attached.iter().map(|(id, a)| (*id, soft_node(&a.node))).collect();
        Soft { nodes, routes: Arc::clone(&table.routes), ledger_ms, starts_ms, strategy }
    }

    /// A task was placed: the node will hold its prompt.
    pub(crate) fn placed(&self, row: &TaskRow, node: NodeId, ledger_ms: u64) {
        let mut table = self.table();
        let kv_tokens = table.attached.get(&node).map_or(0, |a| soft_node(&a.node).kv_tokens);
        let routes = Arc::make_mut(&mut table.routes);
        routes.resize(node, kv_tokens);
        routes.place(row.uid, node, &Chain::of_task(row), ledger_ms);
    }

    /// A step tells how much of the prompt its node really had.
    pub(crate) fn stepped(&self, task: TaskUid, cached_tokens: u64) {
        Arc::make_mut(&mut self.table().routes).hear(task, cached_tokens);
    }

    /// Wall clocks heard lately.
    pub(crate) fn wall_clocks(&self, now_ms: u64) -> Vec<u64> {
        let fresh = |a: &&Attached| now_ms.saturating_sub(a.heard_ms) < WALL_REPORT_AGE_MS;
        let moved = |a: &Attached| a.wall_ms + now_ms.saturating_sub(a.heard_ms);
        self.table().attached.values().filter(fresh).map(moved).collect()
    }

    /// A new office: every node that may hold a lease gets one whole lease from now on.
    pub(crate) fn take_office(
        &self,
        nodes: impl Iterator<Item = NodeId>,
        routes: Routes,
        lease_ends_ms: u64,
    ) {
        let mut table = self.table();
        table.routes = Arc::new(routes);
        table.attached.clear();
        table.destinations.clear();
        table.open = true;
        table.lease_ends_ms = nodes.map(|id| (id, lease_ends_ms)).collect();
    }

    /// Ends every stream: the nodes attach to the next leader.
    pub(crate) fn leave_office(&self, leader_addr: String) {
        let mut table = self.table();
        for attached in table.attached.values() {
            let moved = pb::Moved { leader_addr: leader_addr.clone() };
            let _ = attached.outbox.try_send(Ok(message(ToNode::Moved(moved))));
        }
        table.attached.clear();
        table.lease_ends_ms.clear();
        table.losing.clear();
        table.open = false;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.table().open
    }

    /// Nodes whose lease is over, each told once.
    pub(crate) fn take_lost(&self, now_ms: u64) -> Vec<NodeId> {
        let mut table = self.table();
        let lost: Vec<NodeId> =
            table.lease_ends_ms.iter().filter(|(_, ends)| **ends <= now_ms).map(|(id, _)| *id).collect();
        for id in &lost {
            table.lease_ends_ms.remove(id);
            table.attached.remove(id);
            Arc::make_mut(&mut table.routes).forget(*id);
        }
        table.losing.extend(&lost);
        lost
    }

    /// Declaring the node lost did not go through, or perhaps it did: it is declared again.
    pub(crate) fn still_lost(&self, node: NodeId, now_ms: u64) {
        self.table().lease_ends_ms.insert(node, now_ms);
    }

    /// The ledger knows that the node is lost: it may attach again.
    pub(crate) fn lost_is_known(&self, node: NodeId) {
        self.table().losing.remove(&node);
    }

    /// Says to every attached node again what it holds. Wake-ups may get lost; this finds out.
    pub(crate) fn tell_full_sets(&self, full_set: impl Fn(NodeId) -> pb::FullSet) {
        let ids: Vec<NodeId> = self.table().attached.keys().copied().collect();
        for id in ids {
            self.send(id, ToNode::FullSet(full_set(id)));
        }
    }

    /// Its lease may not be over yet, or that it is lost is not known yet.
    pub(crate) fn may_live(&self, node: NodeId) -> bool {
        let table = self.table();
        table.lease_ends_ms.contains_key(&node) || table.losing.contains(&node)
    }

    /// The outcome of declaring this node lost is not known yet.
    fn is_losing(&self, node: NodeId) -> bool {
        self.table().losing.contains(&node)
    }

    fn attach(
        &self,
        node: pb::AttachedNode,
        outbox: Outbox,
        wall_ms: u64,
        now_ms: u64,
        lease_ends_ms: u64,
    ) -> u64 {
        let mut table = self.table();
        table.streams += 1;
        let stream = table.streams;
        let id = NodeId(node.node_id);
        table.lease_ends_ms.insert(id, lease_ends_ms);
        table.attached.insert(id, Attached { node, outbox, stream, wall_ms, heard_ms: now_ms });
        stream
    }

    /// Renews the node's lease; `None` when this stream is not the node's current one, else what the cluster
    /// leaves to it of the destinations that it calls.
    fn beat(
        &self,
        id: NodeId,
        stream: u64,
        beat: pb::Beat,
        now_ms: u64,
        lease_ends_ms: u64,
    ) -> Option<Vec<pb::DestinationPart>> {
        let mut table = self.table();
        let attached = table.attached.get_mut(&id).filter(|a| a.stream == stream)?;
        attached.wall_ms = beat.wall_ms;
        attached.heard_ms = now_ms;
        attached.node.engines = beat.engines.clone();
        let loads = beat.destinations.clone();
        attached.node.beat = Some(beat);
        table.lease_ends_ms.insert(id, lease_ends_ms);
        Some(table.divide(id, loads, now_ms))
    }

    fn detach(&self, id: NodeId, stream: u64) {
        let mut table = self.table();
        if table.attached.get(&id).is_some_and(|a| a.stream == stream) {
            table.attached.remove(&id);
        }
    }

    /// Sends a wake-up. A node that does not take it loses its stream and learns everything at the next attach.
    pub(crate) fn send(&self, node: NodeId, body: ToNode) {
        let mut table = self.table();
        let full = table.attached.get(&node).is_some_and(|a| a.outbox.try_send(Ok(message(body))).is_err());
        if full {
            table.attached.remove(&node);
        }
    }
}

fn soft_node(node: &pb::AttachedNode) -> SoftNode {
    let free = |e: &pb::LinkEngine| e.kv_blocks.saturating_sub(e.kv_blocks_used) * 16;
    let device = node.beat.as_ref().and_then(|beat| Device::decode(beat.device.as_ref()).ok());
    SoftNode {
        attached: true,
        slots: node.slots,
        running: node.beat.as_ref().map_or(0, |beat| beat.running),
        models: node.engines.iter().map(|e| e.model.clone()).collect(),
        free_kv_tokens: node.engines.iter().map(free).sum(),
        kv_tokens: node.engines.iter().map(|e| e.kv_blocks * 16).sum(),
        memory_pressure_milli: device.as_ref().and_then(|device| device.memory_pressure_milli),
        cpu_pressure_milli: device.as_ref().and_then(|device| device.cpu_pressure_milli),
        ..SoftNode::default()
    }
}

impl Coordinator {
    /// Everything the ledger says that a node holds.
    pub(crate) fn full_set(&self, node: NodeId) -> pb::FullSet {
        let leases = self.locked().state.leases_of(node).map(assignment).collect();
        pb::FullSet { leases, lease_ms: self.inner.lease_ms, term: self.raft().leader().term }
    }
}

pub(crate) fn message(body: ToNode) -> pb::LeaderMessage {
    pb::LeaderMessage { body: Some(body) }
}

pub(crate) fn assignment(task: &TaskRow) -> pb::Assignment {
    pb::Assignment { task: types::encode(task).into() }
}

pub(crate) fn recall(answer: bool) -> ToNode {
    ToNode::Recall(pb::Recall { answer })
}

pub(crate) fn stop(project: &ProjectName, task: TaskUid, epoch: Epoch) -> ToNode {
    ToNode::Cancel(pb::CancelTask {
        project: project.to_string(),
        task: task.to_string(),
        epoch: epoch.to_string(),
    })
}

pub(crate) fn revoke(project: &ProjectName, task: TaskUid, epoch: Epoch) -> ToNode {
    ToNode::Revoke(pb::Revoke {
        project: project.to_string(),
        task: task.to_string(),
        epoch: epoch.to_string(),
    })
}

/// The service on the internal port.
pub struct LinkRpc {
    coordinator: Coordinator,
}

impl LinkRpc {
    pub(crate) fn new(coordinator: Coordinator) -> Self {
        LinkRpc { coordinator }
    }
}

#[tonic::async_trait]
impl pb::link_server::Link for LinkRpc {
    type AttachStream = ReceiverStream<Result<pb::LeaderMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<pb::NodeMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut incoming = request.into_inner();
        let (outbox, outgoing) = mpsc::channel(WAITING_MESSAGES);
        if !self.coordinator.raft().is_leader() || !self.coordinator.inner.link.is_open() {
            let leader_addr = self.coordinator.leader_address().unwrap_or_default();
            let _ = outbox.try_send(Ok(message(ToNode::Moved(pb::Moved { leader_addr }))));
            return Ok(Response::new(ReceiverStream::new(outgoing)));
        }
        let Some(Ok(pb::NodeMessage { body: Some(FromNode::Hello(hello)) })) = incoming.next().await else {
            return Err(Status::invalid_argument("the first message of a link is a hello"));
        };
        let id = self.check(&hello).await?;
        let session = Session { coordinator: self.coordinator.clone(), id, outbox };
        let stream = session.welcome(hello).await?;
        tokio::spawn(session.serve(incoming, stream));
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

impl LinkRpc {
    async fn check(&self, hello: &pb::Hello) -> Result<NodeId, Status> {
        if hello.cluster_id.as_ref() != self.coordinator.cluster().0 {
            return Err(Status::failed_precondition("the node belongs to another cluster"));
        }
        // A leader that has just been elected must have applied what its predecessor admitted.
        self.coordinator.raft().read_barrier().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let id = NodeId(hello.node_id);
        let level = u32::from(self.coordinator.locked().state.form_allowed());
        if level > ledger::BY_USE && hello.reads_form < level {
            return Err(Status::failed_precondition(format!(
                "the cluster is at feature level {level}, which this version does not know; upgrade quorate on this node"
            )));
        }
        if self.coordinator.inner.link.is_losing(id) {
            return Err(Status::unavailable("the node was silent and is being declared lost; attach again"));
        }
        match self.coordinator.nodes().iter().any(|row| row.id == id) {
            true => Ok(id),
            false => Err(Status::permission_denied(format!("{id} is not a member of this cluster"))),
        }
    }
}

struct Session {
    coordinator: Coordinator,
    id: NodeId,
    outbox: Outbox,
}

impl Session {
    /// Registers the node and tells it everything it holds.
    async fn welcome(&self, hello: pb::Hello) -> Result<u64, Status> {
        let inner = &self.coordinator.inner;
        let now_ms = inner.clock.monotonic_ms();
        let node = pb::AttachedNode {
            node_id: self.id.0,
            version: hello.version,
            slots: hello.slots,
            beat: Some(pb::Beat { running: hello.leases.len() as u32, ..Default::default() }),
            engines: hello.engines,
            reads_form: hello.reads_form,
        };
        let stream =
            inner.link.attach(node, self.outbox.clone(), hello.wall_ms, now_ms, self.lease_end(now_ms));
        let full = self.coordinator.full_set(self.id);
        let sent = self.outbox.send(Ok(message(ToNode::FullSet(full)))).await;
        sent.map_err(|_| Status::cancelled("the node went away"))?;
        tracing::info!(node = %self.id, "node attached");
        let _ = inner.replan.try_send(());
        Ok(stream)
    }

    fn lease_end(&self, now_ms: u64) -> u64 {
        now_ms + self.coordinator.inner.lease_ms + self.coordinator.inner.lease_ms / 100 + 50
    }

    async fn serve(self, mut incoming: Streaming<pb::NodeMessage>, stream: u64) {
        while let Some(Ok(received)) = incoming.next().await {
            match received.body {
                Some(FromNode::Beat(beat)) => {
                    if !self.beat(beat, stream) {
                        break;
                    }
                }
                Some(FromNode::Request(request)) => self.request(request),
                Some(FromNode::Hello(_)) | None => {}
            }
        }
        self.coordinator.inner.link.detach(self.id, stream);
        tracing::info!(node = %self.id, "node detached");
    }

    fn beat(&self, beat: pb::Beat, stream: u64) -> bool {
        let inner = &self.coordinator.inner;
        if !self.coordinator.raft().is_leader() {
            return false;
        }
        // A leader that is cut off renews nobody's lease: another may lead soon, and give the same tasks away. The node
        // beats again, and is answered as soon as a quorum answers here.
        if !self.coordinator.raft().is_confirmed() {
            return true;
        }
        let now_ms = inner.clock.monotonic_ms();
        let sequence = beat.sequence;
        let Some(destinations) = inner.link.beat(self.id, stream, beat, now_ms, self.lease_end(now_ms))
        else {
            return false;
        };
        let (lease_ms, wall_ms) = (inner.lease_ms, inner.clock.wall_ms());
        let ack = pb::BeatAck { sequence, lease_ms, wall_ms, destinations };
        self.outbox.try_send(Ok(message(ToNode::BeatAck(ack)))).is_ok()
    }

    /// A node's command: proposed as it is, answered when it is committed.
    fn request(&self, request: pb::Request) {
        let (coordinator, outbox) = (self.coordinator.clone(), self.outbox.clone());
        tokio::spawn(async move {
            let (reply, unknown) = match types::decode::<Command>(&request.command) {
                Err(error) => (Some(never(format!("unreadable: {error}"))), String::new()),
                Ok(command) => match coordinator.propose(vec![coordinator.as_allowed(command)]).await {
                    Ok(replies) => (replies.into_iter().next(), String::new()),
                    // Asking again would not help.
                    Err(error @ (ProposeFailed::TooLarge { .. } | ProposeFailed::Level { .. })) => {
                        (Some(never(error.to_string())), String::new())
                    }
                    Err(error) => (None, error.to_string()),
                },
            };
            let reply = reply.map(|reply| types::encode(&reply)).unwrap_or_default();
            let response = pb::Response { id: request.id, reply: reply.into(), unknown };
            let _ = outbox.send(Ok(message(ToNode::Response(response)))).await;
        });
    }
}

fn never(why: String) -> Reply {
    Reply::Refused(Refusal::Invalid { what: "command".into(), why })
}
