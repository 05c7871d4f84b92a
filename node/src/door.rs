//! The door: the public services, the same on every node. It translates and checks; the ledger decides.
//!
//! A door that is no coordinator sends what it is asked to one. Read: `access` (who may call what), `tasks`, `watch`.

pub mod access;
mod again;
mod agents;
mod cluster;
mod context;
mod convert;
mod evaluate;
mod explain;
mod memory;
mod nodes;
mod prices;
mod quota_watch;
mod quotas;
mod rows;
mod serve;
mod snapshots;
pub(crate) mod status;
mod tasks;
mod watch;

use crate::evaluating::Evaluations;
use crate::keep::Keep;
use crate::live::LiveTokens;
use crate::members::Members;
use crate::memories::Memories;
use crate::segments::Peers;
use crate::served::Served;
use crate::store::SegmentStore;
use crate::traces::Traces;
use coordinator::Client;
use proto::v1 as pb;
use std::sync::{Arc, OnceLock};
use tokio::sync::{Mutex, mpsc, oneshot};
use tonic::{Code, Request, Status};
use types::{ClusterId, Hash, NodeId, ProjectName, limits};

pub use crate::identity::{Identity, Role};
pub use access::Access;
pub(crate) use convert::state_reason;
pub(crate) use rows::Piece;

/// What a door needs once its node belongs to a cluster.
pub struct Membership {
    pub cluster: ClusterId,
    pub own: NodeId,
    pub client: Client,
    pub members: Members,
    pub store: SegmentStore,
    pub peers: Peers,
    pub live: LiveTokens,
    pub(crate) memories: Arc<Memories>,
    pub(crate) evaluations: Evaluations,
    pub(crate) traces: Traces,
}

/// As long as a caller waits for a node that has just started.
const CATCHING_UP: std::time::Duration = std::time::Duration::from_secs(2);

/// Someone asks this node to found a cluster; the answer goes back when it is done.
pub type InitRequest = oneshot::Sender<Result<(), String>>;

/// Cheap to clone; serves before the node belongs to a cluster, and says so.
#[derive(Clone)]
pub struct Door {
    membership: Arc<OnceLock<Membership>>,
    init: mpsc::Sender<InitRequest>,
    init_turn: Arc<Mutex<()>>,
    served: Served,
}

impl Door {
    /// The receiver gets requests to found a cluster, while the node belongs to none.
    pub fn new() -> (Door, mpsc::Receiver<InitRequest>) {
        let (init, requests) = mpsc::channel(1);
        (
            Door {
                membership: Arc::new(OnceLock::new()),
                init,
                init_turn: Arc::default(),
                served: Served::default(),
            },
            requests,
        )
    }

    /// From now on the node belongs to a cluster.
    pub fn open(&self, membership: Membership) {
        assert!(self.membership.set(membership).is_ok(), "a node joins one cluster, once");
    }

    /// The node belongs to a cluster and knows who leads it.
    pub fn leader_known(&self) -> bool {
        self.membership.get().is_some_and(|inside| inside.client.leader().is_some())
    }

    /// Programs that serve tools and models over this door.
    pub(crate) fn served(&self) -> &Served {
        &self.served
    }

    pub fn is_open(&self) -> bool {
        self.membership.get().is_some()
    }

    fn inside(&self) -> Result<&Membership, Status> {
        self.membership.get().ok_or_else(|| {
            status::error(
                tonic::Code::Unavailable,
                "NOT_INITIALISED",
                "this node belongs to no cluster yet",
                "run `quorate cluster init` on the first node, or set `join` in this node's config",
            )
        })
    }

    /// All public services behind the access table, with health and reflection.
    ///
    /// # Errors
    /// A method that the table doesn't have, or a row without a method: such a door is not opened.
    pub(crate) fn routes(
        &self,
        access: Access,
    ) -> Result<tonic::transport::server::Router<access::Layer>, access::Unlisted> {
        let health = health_service();
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .build_v1()
            .expect("our own descriptors are well formed");
        let size = limits::REQUEST_BYTES;
        let out = usize::MAX;
        let services = access::Services::new()
            .add(health)?
            .add(reflection)?
            .add(
                pb::task_service_server::TaskServiceServer::new(self.clone())
                    .max_decoding_message_size(size)
                    .max_encoding_message_size(out),
            )?
            .add(
                pb::agent_service_server::AgentServiceServer::new(self.clone())
                    .max_decoding_message_size(size),
            )?
            .add(
                pb::quota_service_server::QuotaServiceServer::new(self.clone())
                    .max_decoding_message_size(size),
            )?
            .add(
                pb::price_book_service_server::PriceBookServiceServer::new(self.clone())
                    .max_decoding_message_size(size)
                    .max_encoding_message_size(out),
            )?
            .add(
                pb::cluster_service_server::ClusterServiceServer::new(self.clone())
                    .max_decoding_message_size(size),
            )?
            .add(
                pb::context_service_server::ContextServiceServer::new(self.clone())
                    .max_decoding_message_size(size)
                    .max_encoding_message_size(out),
            )?
            .add(
                pb::memory_service_server::MemoryServiceServer::new(self.clone())
                    .max_decoding_message_size(size)
                    .max_encoding_message_size(out),
            )?
            .add(
                pb::tool_service_server::ToolServiceServer::new(self.clone())
                    .max_decoding_message_size(size)
                    .max_encoding_message_size(out),
            )?;
        Ok(tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(std::time::Duration::from_secs(20)))
            .layer(access::layer(access))
            .add_routes(services.routes()?))
    }
}

fn health_service()
-> tonic_health::pb::health_server::HealthServer<impl tonic_health::pb::health_server::Health> {
    let reporter = tonic_health::server::HealthReporter::new();
    let service = tonic_health::server::HealthService::from_health_reporter(reporter);
    tonic_health::pb::health_server::HealthServer::new(service)
}

impl Membership {
    /// Stores segments here and on keepers.
    async fn keep(&self) -> Keep {
        // A list from before the other stores joined would promise one copy only.
        if self.members.copies() < limits::COPIES {
            self.members.refresh(&self.client).await;
        }
        Keep {
            own: self.own,
            store: self.store.clone(),
            peers: self.peers.clone(),
            members: self.members.clone(),
        }
    }

    /// Waits until this node has heard what was forgotten while it was away.
    async fn knows_what_is_gone(&self) -> Result<(), Status> {
        tokio::time::timeout(CATCHING_UP, self.store.serving()).await.map_err(|_| {
            status::error(
                Code::Unavailable,
                "CATCHING_UP",
                "this node has just started and does not know yet what was forgotten while it was away",
                "try again, or ask another node; it needs a leader to know (`quorate cluster status`)",
            )
        })
    }

    /// A segment's stored bytes, from here or from the nodes that are said to hold it.
    async fn segment(
        &self,
        project: &ProjectName,
        hash: Hash,
        home: &[NodeId],
    ) -> Result<bytes::Bytes, Status> {
        self.knows_what_is_gone().await?;
        if self.store.is_forgotten(project, &hash) {
            return Err(status::error(
                Code::NotFound,
                "REDACTED",
                &format!("segment {} was forgotten, on every node and for good", hash.short()),
                "nothing brings it back",
            ));
        }
        if let Some(bytes) =
            self.store.get(project, hash).await.map_err(|e| Status::internal(e.to_string()))?
        {
            return Ok(bytes);
        }
        self.members.learn(&self.client, home.iter().copied()).await;
        let mut holders: Vec<NodeId> = home.iter().copied().filter(|id| *id != self.own).collect();
        if holders.is_empty() {
            holders = self.members.keepers(self.own, &[], hash);
        }
        let pulled = self.peers.pull(&holders, project, &[hash]).await;
        pulled.ok().and_then(|segments| segments.into_iter().next()).map(|(_, bytes)| bytes).ok_or_else(
            || {
                status::error(
                    tonic::Code::NotFound,
                    "SEGMENT_NOT_FOUND",
                    &format!("no reachable node of this project holds segment {}", hash.short()),
                    "check the hash, and `quorate node list` for nodes that are down",
                )
            },
        )
    }
}

/// The caller, as the access layer found it.
fn identity<T>(request: &Request<T>) -> Identity {
    request
        .extensions()
        .get::<Identity>()
        .cloned()
        .expect("the access layer lets nobody in without an identity")
}

/// Unix milliseconds by this machine's clock: for showing which windows of budgets are open. The ledger decides by its
/// own.
pub(crate) fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The project that a request names, or else the caller's own. The only way for a handler to a project: no request
/// gets past it to another's. It is asked before anything is looked up, so a refusal tells nothing of what is there.
pub(crate) fn project(caller: &Identity, text: &str) -> Result<ProjectName, Status> {
    let project = match (text, &caller.project) {
        ("", Some(own)) => own.clone(),
        ("", None) => ProjectName::default(),
        (text, _) => {
            ProjectName::parse(text).map_err(|error| status::invalid("project", &error.to_string()))?
        }
    };
    if caller.may(&project) { Ok(project) } else { Err(not_yours(caller, &format!("project {project}"))) }
}

/// A quota's path, under the same rule.
fn quota_path(caller: &Identity, path: &str) -> Result<(), Status> {
    if caller.may_quota(path) { Ok(()) } else { Err(not_yours(caller, &format!("the quota {path:?}"))) }
}

fn not_yours(caller: &Identity, what: &str) -> Status {
    let bound = caller.project_text();
    let message =
        format!("{what} is not for {}, a {} of project {bound}", caller.subject, caller.role.name());
    status::error(
        Code::PermissionDenied,
        "PROJECT_DENIED",
        &message,
        "use a key of that project, or name your own",
    )
}
