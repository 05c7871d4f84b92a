//! The ledger from any node: finds the leader, follows it, and repeats until it answers or patience ends.
//!
//! Every command that travels here may be repeated without a second effect: creations carry a request id, and the
//! rest say what should be, not what to add.

mod snapshot;

use crate::changes::Wish;
use crate::coordinator::{Coordinator, NodeFacts, ReadError};
use crate::cost::{CostLine, CostQuestion};
use crate::proposer::ProposeFailed;
use crate::raft::Dialer;
use crate::rpc::LEADER_HEADER;
use crate::suppose::Supposed;
use crate::wire;
use futures::future::BoxFuture;
use ledger::command::Command;
use ledger::query::{Answer, Query};
use ledger::reply::Reply;
use ledger::rows::Event;
use proto::internal::v1 as pb;
use proto::internal::v1::ledger_client::LedgerClient;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use types::{ClusterId, NodeId, ProjectName, TaskUid, limits};

/// Pause between tries; elections take about a second.
const PAUSE: Duration = Duration::from_millis(50);
/// One try at one node.
const TRY: Duration = Duration::from_millis(2_500);

#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody led for as long as a door waits.
    #[error("no leader answered within {waited_ms} ms: {last}")]
    Unavailable { waited_ms: u64, last: String },
    #[error("the request has {bytes} bytes, a log entry at most {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("{0}")]
    Refused(String),
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: ClusterId,
    local: Option<Coordinator>,
    dialer: Arc<dyn Dialer>,
    routes: Mutex<Routes>,
}

#[derive(Default)]
struct Routes {
    /// Internal addresses of coordinators, configured and learnt.
    seeds: Vec<String>,
    leader: Option<String>,
    channels: BTreeMap<String, Channel>,
    turn: usize,
}

/// How one try ended when it did not answer.
enum Miss {
    /// Try there, or anywhere.
    Elsewhere(Option<String>, String),
    Final(ClientError),
}

impl Client {
    pub fn new(
        cluster: ClusterId,
        local: Option<Coordinator>,
        dialer: Arc<dyn Dialer>,
        seeds: Vec<String>,
    ) -> Self {
        let routes = Mutex::new(Routes { seeds, ..Default::default() });
        Client { inner: Arc::new(Inner { cluster, local, dialer, routes }) }
    }

    pub fn cluster(&self) -> ClusterId {
        self.inner.cluster
    }

    pub fn local(&self) -> Option<&Coordinator> {
        self.inner.local.as_ref()
    }

    /// Internal addresses of coordinators that were learnt from the ledger.
    pub fn learn_seeds(&self, seeds: Vec<String>) {
        if !seeds.is_empty() {
            self.routes().seeds = seeds;
        }
    }

    /// Proposes commands as one unit; replies in order.
    pub async fn propose(&self, commands: Vec<Command>) -> Result<Vec<Reply>, ClientError> {
        let encoded: Vec<bytes::Bytes> = commands.iter().map(|c| types::encode(c).into()).collect();
        let bytes = encoded.iter().map(|c| c.len()).sum();
        if bytes > limits::ENTRY_BYTES / 2 {
            return Err(ClientError::TooLarge { bytes, limit: limits::ENTRY_BYTES / 2 });
        }
        let order = Arc::new((commands, encoded));
        self.until_answered(|client| {
            let order = order.clone();
            async move { client.propose_once(&order.0, &order.1).await }
        })
        .await
    }

    pub async fn propose_one(&self, command: Command) -> Result<Reply, ClientError> {
        let replies = self.propose(vec![command]).await?;
        replies.into_iter().next().ok_or_else(|| ClientError::Refused("a command had no reply".into()))
    }

    /// Reads what was committed before the call.
    pub async fn read(&self, query: Query) -> Result<Answer, ClientError> {
        self.read_until(query, false).await.map(|(answer, _, _)| answer)
    }

    /// Reads some node's own state: the answer, its applied index, and its age in milliseconds.
    pub async fn read_stale(&self, query: Query) -> Result<(Answer, u64, u64), ClientError> {
        if let Some(local) = &self.inner.local {
            return Ok(local.read_stale(&query));
        }
        self.read_until(query, true).await
    }

    async fn read_until(&self, query: Query, allow_stale: bool) -> Result<(Answer, u64, u64), ClientError> {
        let query = Arc::new(query);
        self.until_answered(|client| {
            let query = query.clone();
            async move { client.read_once(&query, allow_stale).await }
        })
        .await
    }

    /// Says again who and where this node is.
    pub async fn admit(&self, facts: NodeFacts) -> Result<Reply, ClientError> {
        self.propose_one(facts.admit()).await
    }

    /// Asks for membership at the configured addresses.
    pub async fn join(
        dialer: &dyn Dialer,
        seeds: &[String],
        facts: NodeFacts,
    ) -> Result<(NodeId, ClusterId), ClientError> {
        let mut last = "no address answered".to_string();
        let mut targets: Vec<String> = seeds.to_vec();
        let mut index = 0;
        while index < targets.len() && index < seeds.len() + 8 {
            let address = targets[index].clone();
            index += 1;
            match join_at(dialer, &address, &facts).await {
                Ok(joined) => return Ok(joined),
                Err(status) if status.code() == Code::AlreadyExists => {
                    return Err(ClientError::Refused(status.message().to_string()));
                }
                Err(status) => {
                    last = format!("{address}: {}", words(&status));
                    targets.extend(leader_of(&status));
                }
            }
        }
        Err(ClientError::Unavailable { waited_ms: 0, last })
    }

    /// Consensus and attached nodes, as the leader sees them.
    pub async fn status(&self) -> Result<pb::StatusResponse, ClientError> {
        self.until_answered(|client| async move {
            if let Some(local) = client.inner.local.as_ref().filter(|local| local.raft().is_leader()) {
                return Ok(local.status());
            }
            let address = client.target()?;
            let request = pb::StatusRequest { cluster_id: client.inner.cluster.0.to_vec().into() };
            let mut rpc = client.rpc(&address)?;
            let answer = tokio::time::timeout(TRY, rpc.status(request)).await;
            client.settle(&address, answer).map(tonic::Response::into_inner)
        })
        .await
    }

    /// Changes who votes or leads, at the leader.
    pub async fn change(&self, wish: Wish) -> Result<(), ClientError> {
        self.until_answered(|client| {
            let wish = wish.clone();
            async move {
                let address = client.target()?;
                let mut rpc = client.rpc(&address)?;
                match rpc.change(wish.to_wire(client.inner.cluster)).await {
                    Err(status) if status.code() == Code::Aborted => {
                        Err(Miss::Final(ClientError::Refused(status.message().to_string())))
                    }
                    answer => client.settle(&address, Ok(answer)).map(|_| ()),
                }
            }
        })
        .await
    }

    /// What commands would do, and one task explained as it would be then; an empty `task` is the one they make. None:
    /// the state is too large for that.
    pub async fn suppose(
        &self,
        commands: &[Command],
        project: &ProjectName,
        task: &str,
    ) -> Result<Option<Supposed>, ClientError> {
        let request = pb::SupposeRequest {
            cluster_id: self.inner.cluster.0.to_vec().into(),
            commands: commands.iter().map(|command| types::encode(command).into()).collect(),
            project: project.to_string(),
            task: task.to_string(),
        };
        let answer = self.until_answered(|client| {
            let request = request.clone();
            async move {
                let address = client.target()?;
                let mut rpc = client.rpc(&address)?;
                let answer = tokio::time::timeout(TRY, rpc.suppose(request)).await;
                client.settle(&address, answer).map(tonic::Response::into_inner)
            }
        });
        supposed(answer.await?)
    }

    /// What tasks used, in sums: the lines, and everything.
    pub async fn cost(&self, question: &CostQuestion) -> Result<(Vec<CostLine>, CostLine), ClientError> {
        let request = pb::CostRequest {
            cluster_id: self.inner.cluster.0.to_vec().into(),
            group_by: wire::group_to_wire(question.group_by).into(),
            since_ms: question.since_ms,
            until_ms: question.until_ms,
            project: question.project.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        let answer = self.until_answered(|client| {
            let request = request.clone();
            async move {
                let address = client.target()?;
                let mut rpc = client.rpc(&address)?;
                let answer = tokio::time::timeout(TRY, rpc.cost(request)).await;
                client.settle(&address, answer).map(tonic::Response::into_inner)
            }
        });
        let answer = answer.await?;
        let lines = answer.lines.into_iter().map(wire::line_from_wire).collect();
        Ok((lines, wire::line_from_wire(answer.total.unwrap_or_default())))
    }

    /// Committed events of a task from a sequence on, as they come, until the task is over or the source is lost.
    pub async fn events(
        &self,
        project: &str,
        task: TaskUid,
        from: u64,
    ) -> Result<ReceiverStream<Event>, ClientError> {
        if let Some(local) = &self.inner.local {
            return Ok(local.follow(task, from));
        }
        let request = pb::EventsRequest {
            cluster_id: self.inner.cluster.0.to_vec().into(),
            project: project.to_string(),
            task: task.to_string(),
            from_sequence: from,
        };
        let opened = self.until_answered(|client| {
            let request = request.clone();
            async move {
                let address = client.any_address();
                let mut rpc = client.rpc(&address)?;
                let answer = tokio::time::timeout(TRY, rpc.events(request)).await;
                client.settle(&address, answer).map(tonic::Response::into_inner)
            }
        });
        Ok(relay(opened.await?))
    }

    /// The leader's internal address, where one is known.
    pub fn leader(&self) -> Option<String> {
        let local = self.inner.local.as_ref().and_then(Coordinator::leader_address);
        local.or_else(|| self.routes().leader.clone())
    }

    /// An address to attach to: the leader where known, else the next of the seeds.
    pub fn leader_or_seed(&self) -> Option<String> {
        self.leader().or_else(|| {
            let address = self.any_address();
            (!address.is_empty()).then_some(address)
        })
    }

    /// What a node learnt elsewhere, such as from its link. An empty address forgets the leader.
    pub fn note_leader(&self, address: &str) {
        self.routes().leader = (!address.is_empty()).then(|| address.to_string());
    }

    async fn until_answered<T, F>(&self, attempt: impl Fn(Client) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, Miss>> + Send,
    {
        let patience = Duration::from_millis(limits::FORWARD_MS);
        let start = tokio::time::Instant::now();
        loop {
            // Boxed, so that the types of callers do not grow with what one try is made of.
            let tried: BoxFuture<'_, Result<T, Miss>> = Box::pin(attempt(self.clone()));
            let last = match tried.await {
                Ok(answer) => return Ok(answer),
                Err(Miss::Final(error)) => return Err(error),
                Err(Miss::Elsewhere(leader, why)) => {
                    self.routes().leader = leader;
                    why
                }
            };
            if start.elapsed() + PAUSE >= patience {
                return Err(ClientError::Unavailable { waited_ms: start.elapsed().as_millis() as u64, last });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn propose_once(&self, commands: &[Command], encoded: &[bytes::Bytes]) -> Result<Vec<Reply>, Miss> {
        if let Some(local) = self.inner.local.as_ref().filter(|local| local.raft().is_leader()) {
            return local.propose(commands.to_vec()).await.map_err(propose_miss);
        }
        let address = self.target()?;
        let request = pb::ProposeRequest {
            cluster_id: self.inner.cluster.0.to_vec().into(),
            commands: encoded.to_vec(),
        };
        let mut rpc = self.rpc(&address)?;
        let answer = tokio::time::timeout(TRY, rpc.propose(request)).await;
        let response = self.settle(&address, answer)?.into_inner();
        response.replies.iter().map(|reply| types::decode(reply).map_err(unreadable)).collect()
    }

    async fn read_once(&self, query: &Query, allow_stale: bool) -> Result<(Answer, u64, u64), Miss> {
        if let Some(local) = self.inner.local.as_ref().filter(|local| local.raft().is_leader()) {
            return local.read(query).await.map(|(answer, index)| (answer, index, 0)).map_err(read_miss);
        }
        let address = if allow_stale { self.any_address() } else { self.target()? };
        let request = pb::ReadRequest {
            cluster_id: self.inner.cluster.0.to_vec().into(),
            query: types::encode(query).into(),
            allow_stale,
        };
        let mut rpc = self.rpc(&address)?;
        let answer = tokio::time::timeout(TRY, rpc.read(request)).await;
        let response = self.settle(&address, answer)?.into_inner();
        let answer = types::decode(&response.answer).map_err(unreadable)?;
        Ok((answer, response.applied_index, response.age_ms))
    }

    /// Where to send what only a leader can do.
    fn target(&self) -> Result<String, Miss> {
        match self.leader_or_seed() {
            Some(address) => Ok(address),
            None => Err(Miss::Elsewhere(None, "no coordinator is known".into())),
        }
    }

    /// The seeds and the leader in turn, so that one that is down costs one try: all seeds may be gone by now.
    fn any_address(&self) -> String {
        let mut routes = self.routes();
        routes.turn = routes.turn.wrapping_add(1);
        let others = routes.leader.iter().filter(|leader| !routes.seeds.contains(leader));
        let known: Vec<&String> = routes.seeds.iter().chain(others).collect();
        known.get(routes.turn % known.len().max(1)).map(|address| (*address).clone()).unwrap_or_default()
    }

    /// The leader, unless it is the one that just failed.
    fn leader_besides(&self, failed: &str) -> Option<String> {
        self.leader().filter(|leader| leader != failed)
    }

    fn rpc(&self, address: &str) -> Result<LedgerClient<Channel>, Miss> {
        let mut routes = self.routes();
        if !routes.channels.contains_key(address) {
            let channel = self.inner.dialer.channel(address).map_err(|why| Miss::Elsewhere(None, why))?;
            routes.channels.insert(address.to_string(), channel);
        }
        Ok(LedgerClient::new(routes.channels[address].clone())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX))
    }

    fn settle<T>(
        &self,
        address: &str,
        answer: Result<Result<T, Status>, tokio::time::error::Elapsed>,
    ) -> Result<T, Miss> {
        match answer {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(status)) if status.message() == "NOT_LEADER" => {
                Err(Miss::Elsewhere(leader_of(&status), format!("{address} does not lead")))
            }
            Ok(Err(status)) if matches!(status.code(), Code::InvalidArgument | Code::OutOfRange) => {
                Err(Miss::Final(ClientError::Refused(status.message().to_string())))
            }
            Ok(Err(status)) => {
                Err(Miss::Elsewhere(self.leader_besides(address), format!("{address}: {}", words(&status))))
            }
            Err(_) => Err(Miss::Elsewhere(self.leader_besides(address), format!("{address} did not answer"))),
        }
    }

    fn routes(&self) -> std::sync::MutexGuard<'_, Routes> {
        self.inner.routes.lock().expect("no panic while held")
    }
}

async fn join_at(
    dialer: &dyn Dialer,
    address: &str,
    facts: &NodeFacts,
) -> Result<(NodeId, ClusterId), Status> {
    let role = |role: &ledger::rows::Role| match role {
        ledger::rows::Role::Coordinator => "coordinator".to_string(),
        ledger::rows::Role::Worker => "worker".to_string(),
    };
    let request = pb::JoinRequest {
        name: facts.name.clone(),
        roles: facts.roles.iter().map(role).collect(),
        client_addr: facts.client_addr.clone(),
        internal_addr: facts.internal_addr.clone(),
        disk_id: facts.disk_id.to_vec().into(),
        version: facts.version.clone(),
    };
    let channel = dialer.channel(address).map_err(Status::unavailable)?;
    let answer = tokio::time::timeout(TRY, LedgerClient::new(channel).join(request)).await;
    let joined = answer.map_err(|_| Status::unavailable("no answer"))??.into_inner();
    let cluster = joined.cluster_id.as_ref().try_into().map_err(|_| Status::internal("a bad cluster id"))?;
    Ok((NodeId(joined.node_id), ClusterId(cluster)))
}

fn relay(mut stream: tonic::Streaming<pb::EventsResponse>) -> ReceiverStream<Event> {
    let (sender, receiver) = tokio::sync::mpsc::channel(limits::WATCH_BUFFER);
    tokio::spawn(async move {
        while let Ok(Some(message)) = stream.message().await {
            let Ok(event) = types::decode::<Event>(&message.event) else { return };
            if sender.send(event).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

fn supposed(answer: pb::SupposeResponse) -> Result<Option<Supposed>, ClientError> {
    if answer.too_large {
        return Ok(None);
    }
    let replies = answer.replies.iter().map(|reply| types::decode(reply)).collect::<Result<_, _>>();
    let explanation = Some(&answer.explanation).filter(|bytes| !bytes.is_empty());
    let explanation = explanation.map(|bytes| types::decode(bytes)).transpose();
    Ok(Some(Supposed {
        replies: replies.map_err(not_understood)?,
        explanation: explanation.map_err(not_understood)?,
    }))
}

/// Of a call that did not get through, the deepest cause: "transport error" helps nobody.
fn words(status: &Status) -> String {
    let mut words = status.message().to_string();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        words = error.to_string();
        source = error.source();
    }
    words
}

fn leader_of(status: &Status) -> Option<String> {
    status.metadata().get(LEADER_HEADER)?.to_str().ok().map(str::to_string)
}

fn unreadable(error: minicbor::decode::Error) -> Miss {
    Miss::Final(not_understood(error))
}

fn not_understood(error: minicbor::decode::Error) -> ClientError {
    ClientError::Refused(format!("unreadable answer, perhaps from a newer version: {error}"))
}

fn propose_miss(failed: ProposeFailed) -> Miss {
    match failed {
        ProposeFailed::NotLeader { leader } => Miss::Elsewhere(leader, failed_text("moved")),
        ProposeFailed::TooLarge { bytes, limit } => Miss::Final(ClientError::TooLarge { bytes, limit }),
        other @ ProposeFailed::Level { .. } => Miss::Final(ClientError::Refused(other.to_string())),
        other => Miss::Elsewhere(None, other.to_string()),
    }
}

fn failed_text(text: &str) -> String {
    format!("the leader {text}")
}

fn read_miss(error: ReadError) -> Miss {
    match error {
        ReadError::NotLeader { leader } => Miss::Elsewhere(leader, failed_text("moved")),
        other => Miss::Elsewhere(None, other.to_string()),
    }
}
