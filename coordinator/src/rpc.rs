//! The `Ledger` service between nodes: decode, ask the coordinator, encode.

use crate::changes::{NotChanged, Wish};
use crate::coordinator::{Coordinator, NodeFacts, ReadError};
use crate::cost::CostQuestion;
use crate::proposer::ProposeFailed;
use crate::suppose::Supposed;
use crate::wire;
use ledger::command::Command;
use ledger::query::Query;
use ledger::reply::{Refusal, Reply};
use ledger::rows::Role;
use proto::internal::v1 as pb;
use std::pin::Pin;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use types::{ProjectName, TaskUid};

/// Metadata that tells where the leader is.
pub(crate) const LEADER_HEADER: &str = "quorate-leader";
/// Metadata present on errors after which the change may or may not have happened.
pub(crate) const UNKNOWN_HEADER: &str = "quorate-unknown";

pub struct LedgerRpc {
    coordinator: Coordinator,
}

impl LedgerRpc {
    pub(crate) fn new(coordinator: Coordinator) -> Self {
        LedgerRpc { coordinator }
    }

    fn check_cluster(&self, cluster: &[u8]) -> Result<(), Status> {
        match cluster == self.coordinator.cluster().0 {
            true => Ok(()),
            false => Err(Status::failed_precondition("the caller belongs to another cluster")),
        }
    }
}

type EventStream = Pin<Box<dyn Stream<Item = Result<pb::EventsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl pb::ledger_server::Ledger for LedgerRpc {
    async fn propose(
        &self,
        request: Request<pb::ProposeRequest>,
    ) -> Result<Response<pb::ProposeResponse>, Status> {
        let request = request.into_inner();
        self.check_cluster(&request.cluster_id)?;
        let commands = decode_all::<Command>(&request.commands)?;
        let (index, replies) = self.coordinator.propose_at(commands).await.map_err(propose_status)?;
        let replies = replies.iter().map(|reply| types::encode(reply).into()).collect();
        Ok(Response::new(pb::ProposeResponse { replies, index }))
    }

    async fn read(&self, request: Request<pb::ReadRequest>) -> Result<Response<pb::ReadResponse>, Status> {
        let request = request.into_inner();
        self.check_cluster(&request.cluster_id)?;
        let query = types::decode::<Query>(&request.query).map_err(unreadable)?;
        let (answer, applied_index, age_ms) = if request.allow_stale {
            self.coordinator.read_stale(&query)
        } else {
            let (answer, index) = self.coordinator.read(&query).await.map_err(read_status)?;
            (answer, index, 0)
        };
        Ok(Response::new(pb::ReadResponse { answer: types::encode(&answer).into(), applied_index, age_ms }))
    }

    type EventsStream = EventStream;

    async fn events(&self, request: Request<pb::EventsRequest>) -> Result<Response<EventStream>, Status> {
        let request = request.into_inner();
        self.check_cluster(&request.cluster_id)?;
        let task = TaskUid::parse(&request.task).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let events = self.coordinator.follow(task, request.from_sequence);
        let encoded = tokio_stream::StreamExt::map(events, |event| {
            Ok(pb::EventsResponse { event: types::encode(&event).into() })
        });
        Ok(Response::new(Box::pin(encoded)))
    }

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinResponse>, Status> {
        let facts = facts(request.into_inner())?;
        let replies = self.coordinator.propose(vec![facts.admit()]).await.map_err(propose_status)?;
        match replies.into_iter().next() {
            Some(Reply::Node(id)) => Ok(Response::new(pb::JoinResponse {
                node_id: id.0,
                cluster_id: self.coordinator.cluster().0.to_vec().into(),
            })),
            Some(Reply::Refused(refusal @ Refusal::NameTaken { .. })) => {
                Err(Status::already_exists(refusal.to_string()))
            }
            // Two nodes in one log entry: the second asks again.
            Some(Reply::Refused(refusal)) => Err(Status::unavailable(refusal.to_string())),
            other => Err(Status::internal(format!("unexpected answer to a join: {other:?}"))),
        }
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        self.check_cluster(&request.into_inner().cluster_id)?;
        match self.coordinator.raft().is_leader() {
            true => Ok(Response::new(self.coordinator.status())),
            false => Err(not_leader(self.coordinator.leader_address())),
        }
    }

    async fn change(
        &self,
        request: Request<pb::ChangeRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        let request = request.into_inner();
        self.check_cluster(&request.cluster_id)?;
        if !self.coordinator.raft().is_leader() {
            return Err(not_leader(self.coordinator.leader_address()));
        }
        let changed = async { self.coordinator.change(&Wish::of(request)?).await };
        match changed.await {
            Ok(()) => Ok(Response::new(pb::ChangeResponse {})),
            Err(NotChanged::Moved) => Err(not_leader(self.coordinator.leader_address())),
            Err(NotChanged::Because(why)) => Err(Status::aborted(why)),
        }
    }

    async fn suppose(
        &self,
        request: Request<pb::SupposeRequest>,
    ) -> Result<Response<pb::SupposeResponse>, Status> {
        let request = request.into_inner();
        self.check_cluster(&request.cluster_id)?;
        let commands = decode_all::<Command>(&request.commands)?;
        let project = project(&request.project)?;
        let supposed = self.coordinator.suppose(&commands, &project, &request.task).await;
        Ok(Response::new(match supposed.map_err(read_status)? {
            None => pb::SupposeResponse { too_large: true, ..Default::default() },
            Some(Supposed { replies, explanation }) => pb::SupposeResponse {
                replies: replies.iter().map(|reply| types::encode(reply).into()).collect(),
                explanation: explanation.map(|it| types::encode(&it).into()).unwrap_or_default(),
                too_large: false,
            },
        }))
    }

    async fn cost(&self, request: Request<pb::CostRequest>) -> Result<Response<pb::CostResponse>, Status> {
        let request = request.into_inner();
        self.check_cluster(&request.cluster_id)?;
        let question = question(&request)?;
        let (lines, total) = self.coordinator.cost(&question).await.map_err(read_status)?;
        let lines = lines.into_iter().map(wire::cost_line).collect();
        Ok(Response::new(pb::CostResponse { lines, total: Some(wire::cost_line(total)) }))
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        self.check_cluster(&request.into_inner().cluster_id)?;
        let mut bytes = bytes::Bytes::from(self.coordinator.snapshot().await.map_err(read_status)?);
        let total = bytes.len() as u64;
        let chunks = std::iter::from_fn(move || {
            let chunk = bytes.split_to(bytes.len().min(types::limits::CHUNK_BYTES));
            (!chunk.is_empty()).then_some(Ok(pb::SnapshotResponse { total, chunk }))
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }
}

impl Coordinator {
    /// Committed events of a task from a sequence on, as they come, until the task is over. A sequence that jumps
    /// says that events in between are no longer kept.
    pub fn follow(&self, task: TaskUid, from: u64) -> ReceiverStream<ledger::rows::Event> {
        let (sender, receiver) = tokio::sync::mpsc::channel(types::limits::WATCH_BUFFER);
        let coordinator = self.clone();
        tokio::spawn(async move {
            let mut wake = coordinator.watch_task(task);
            let mut next = from.max(1);
            loop {
                let (events, _, ended) = coordinator.events(task, next);
                for event in events {
                    next = event.sequence + 1;
                    if sender.send(event).await.is_err() {
                        return;
                    }
                }
                if ended {
                    return;
                }
                tokio::select! {
                    changed = wake.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        ReceiverStream::new(receiver)
    }
}

fn facts(request: pb::JoinRequest) -> Result<NodeFacts, Status> {
    let role = |name: &String| match name.as_str() {
        "coordinator" => Ok(Role::Coordinator),
        "worker" => Ok(Role::Worker),
        other => Err(Status::invalid_argument(format!("there is no role {other:?}"))),
    };
    let disk_id = request.disk_id.as_ref().try_into();
    Ok(NodeFacts {
        roles: request.roles.iter().map(role).collect::<Result<_, _>>()?,
        name: request.name,
        client_addr: request.client_addr,
        internal_addr: request.internal_addr,
        disk_id: disk_id.map_err(|_| Status::invalid_argument("a disk id has 16 bytes"))?,
        version: request.version,
    })
}

fn decode_all<T: for<'b> minicbor::Decode<'b, ()>>(parts: &[bytes::Bytes]) -> Result<Vec<T>, Status> {
    parts.iter().map(|part| types::decode::<T>(part).map_err(unreadable)).collect()
}

fn unreadable(error: minicbor::decode::Error) -> Status {
    Status::invalid_argument(format!("unreadable message, perhaps from a newer version: {error}"))
}

fn project(text: &str) -> Result<ProjectName, Status> {
    ProjectName::parse(text).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn question(request: &pb::CostRequest) -> Result<CostQuestion, Status> {
    let named = (!request.project.is_empty()).then(|| project(&request.project)).transpose()?;
    Ok(CostQuestion {
        group_by: wire::cost_group(request.group_by()),
        since_ms: request.since_ms,
        until_ms: if request.until_ms == 0 { u64::MAX } else { request.until_ms },
        project: named,
    })
}

fn not_leader(leader: Option<String>) -> Status {
    let mut status = Status::failed_precondition("NOT_LEADER");
    if let Some(address) = leader.and_then(|address| address.parse().ok()) {
        status.metadata_mut().insert(LEADER_HEADER, address);
    }
    status
}

fn propose_status(failed: ProposeFailed) -> Status {
    match failed {
        ProposeFailed::NotLeader { leader } => not_leader(leader),
        ProposeFailed::Unknown => {
            let mut status = Status::unavailable(failed.to_string());
            status.metadata_mut().insert(UNKNOWN_HEADER, "1".parse().expect("ascii"));
            status
        }
        ProposeFailed::TooLarge { .. } | ProposeFailed::Level { .. } => {
            Status::out_of_range(failed.to_string())
        }
        ProposeFailed::Busy | ProposeFailed::Stopped(_) => Status::unavailable(failed.to_string()),
    }
}

fn read_status(error: ReadError) -> Status {
    match error {
        ReadError::NotLeader { leader } => not_leader(leader),
        ReadError::Timeout | ReadError::Stopped(_) => Status::unavailable(error.to_string()),
    }
}
