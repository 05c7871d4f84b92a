//! What a node is made of, and in which order it comes up and goes down.
//!
//! Up: disk and identity → listeners → public door (says "not initialised") → membership (known, founded or joined) →
//! coordinator → internal planes → engines → link and agents → door open.
//! Down: door closed → leadership handed over → agents to a step boundary, leases given back → stores → raft last.

mod membership;
mod worker;

use crate::accounts::Accounts;
use crate::config::{self, Config};
use crate::device::{Machine, Telemetry};
use crate::door::{Access, Door, Membership};
use crate::evaluating::Evaluations;
use crate::evaluating::plane::EvaluatorPlane;
use crate::evaluating::sampled::{self, Sampler};
use crate::figures::Figures;
use crate::forgotten;
use crate::front::{self, Front, FrontService};
use crate::homes::{Homes, Repair, Sweep};
use crate::http;
use crate::keep::Keep;
use crate::kv_copies::{self, KvPlane};
use crate::link::here::Here;
use crate::live::LiveTokens;
use crate::members::Members;
use crate::memories::{self, Memories};
use crate::models::ModelStore;
use crate::security::Security;
use crate::segments::{ClusterCell, LinkCap, Peers, SegmentsPlane, Traffic};
use crate::store::identity::{Identity, Member};
use crate::store::{DataLock, SegmentStore};
use crate::telemetry::Metrics;
use crate::tls::accept::{Port, incoming};
use crate::traces::{self, Traces};
use anyhow::Context;
use coordinator::{Client, Coordinator};
use proto::internal::v1::member_server::MemberServer;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use sys::disk::{Disk, RealDisk};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(crate) use worker::Facts;

/// Agents may take this long to reach a step boundary at shutdown, and as long again to give up what they do.
const DRAIN: Duration = Duration::from_secs(10);

/// How to start beside what the config says.
#[derive(Clone, Copy, Debug, Default)]
pub struct StartOptions {
    /// Found a cluster of one without being asked: `quorate dev`.
    pub found: bool,
    /// Listeners beyond loopback were accepted without TLS.
    pub insecure: bool,
}

/// A running node.
pub struct Node {
    parts: Parts,
    coordinator: Option<Coordinator>,
    worker: worker::Running,
    client: Client,
    traces: Traces,
    stop_internal: CancellationToken,
}

/// What exists before the node belongs to a cluster.
struct Parts {
    config: Config,
    security: Security,
    door: Door,
    disk: Arc<dyn Disk>,
    store: SegmentStore,
    live: LiveTokens,
    traffic: Arc<Traffic>,
    models: ModelStore,
    device: Arc<dyn Telemetry>,
    figures: Figures,
    front: Front,
    /// Of the models that are loaded.
    evaluations: Arc<OnceLock<Evaluations>>,
    kv_sources: Arc<OnceLock<kv_copies::Sources>>,
    internal: Option<TcpListener>,
    stop: CancellationToken,
    /// Another process on the same folder would destroy it.
    _lock: DataLock,
}

impl Node {
    /// Starts the node and returns when it serves as a member. `stop` ends it at any point on the way.
    pub async fn start(
        config: Config,
        options: StartOptions,
        security: Security,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> anyhow::Result<Node> {
        let lock = DataLock::take(&config.data_dir)?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&config.data_dir).with_context(|| {
            format!(
                "data_dir {} cannot be used; make it writable or choose another",
                config.data_dir.display()
            )
        })?);
        let identity = Identity::open(disk.as_ref(), &config.name, random())?;
        let store = SegmentStore::open_in(&config.data_dir, identity.disk_id)?;
        store.hold_back();
        let (door, init_requests) = Door::new();
        let figures = Figures::new(metrics);
        let internal = Some(bind("listen.internal", config.listen.internal).await?);
        let access = security.access(options.insecure);
        serve_public(&config, &door, &security, access.clone(), &stop).await?;
        let front = Front::new(access.clone());
        let face = http::Face { door: door.clone(), figures: figures.clone(), access, front: front.clone() };
        let http = bind("listen.http", config.listen.http).await?;
        tokio::spawn(http::serve(http, security.tls.clone(), face, stop.clone()));
        let parts = Parts {
            models: ModelStore::open(models_dir(&config)?),
            config,
            security,
            door,
            disk,
            store,
            live: LiveTokens::default(),
            traffic: Arc::default(),
            device: Arc::new(Machine::start()),
            figures,
            front,
            evaluations: Arc::default(),
            kv_sources: Arc::default(),
            internal,
            stop,
            _lock: lock,
        };
        let (member, init) = membership::obtain(&parts, identity, options.found, init_requests).await?;
        let started = parts.join(member).await;
        if let Some(init) = init {
            // Whoever asked for the cluster learns how it went.
            let _ = init.send(started.as_ref().map(|_| ()).map_err(|error| format!("{error:#}")));
        }
        started
    }

    /// Works until `stop` fires, or until a part that the node cannot do without fails.
    pub async fn run(self) -> anyhow::Result<()> {
        let raft = async {
            match &self.coordinator {
                Some(coordinator) => coordinator.raft().stopped().await,
                None => std::future::pending().await,
            }
        };
        let failed = tokio::select! {
            () = self.parts.stop.cancelled() => None,
            why = raft => Some(format!("consensus stopped: {why}")),
            why = self.parts.store.failed() => Some(format!("the segment store failed: {why}")),
            () = self.worker.ended() => Some("the supervisor of agents ended".to_string()),
        };
        match failed {
            None => {
                self.shut_down().await;
                Ok(())
            }
            Some(why) => anyhow::bail!("{why}; the node stops rather than go on with less than it promised"),
        }
    }

    async fn shut_down(self) {
        tracing::info!("stopping: no new work is taken");
        if let Some(coordinator) = &self.coordinator {
            coordinator.hand_over().await;
        }
        self.parts.front.drain(DRAIN).await;
        self.worker.drain(DRAIN).await;
        self.parts.store.close().await;
        self.stop_internal.cancel();
        if let Some(coordinator) = &self.coordinator {
            coordinator.shutdown().await;
        }
        self.traces.close().await;
        tracing::info!("stopped");
    }

    /// The ledger, from this node.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl Parts {
    /// Comes up as a member.
    async fn join(mut self, member: Member) -> anyhow::Result<Node> {
        let coordinator = membership::coordinator(&self, member).await?;
        let dialer = Arc::new(self.security.dialer());
        let client = Client::new(member.cluster_id, coordinator.clone(), dialer, self.config.join.clone());
        membership::only_here(&self, member, &client).await?;
        let stop_internal = CancellationToken::new();
        self.serve_internal(member, coordinator.as_ref(), &client, &stop_internal)?;
        membership::announce(&self, member, &client).await?;
        let members = Members::default();
        members.refresh(&client).await;
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(members.clone().follow(client.clone())));
        let keep = self.keep(member, &members);
        let encoder = self.config.memory.encoder.as_deref().map(memories::encoder).transpose()?;
        let memories = Memories::new(client.clone(), keep.clone(), encoder);
        let erasing = forgotten::follow(client.clone(), self.store.clone(), memories.clone());
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(erasing));
        self.look_after(Homes { client: client.clone(), keep: keep.clone() });
        let engines = worker::Engines::load(&self, &client, &keep).await?;
        let accounts = Accounts::start(member.node_id, client.clone(), self.disk.clone());
        let evaluations = engines.evaluations(accounts.clone());
        let _ = self.evaluations.set(evaluations.clone());
        let _ = self.kv_sources.set(engines.kv_sources());
        let traces = self.traces(member, coordinator.as_ref())?;
        let (sampler, chosen) = Sampler::new(self.config.engine.evaluate_percent);
        let hearers = worker::Hearers { sampler, traces: traces.clone(), accounts: accounts.clone() };
        let worker = worker::start(&self, member, &client, &keep, engines, &memories, hearers).await?;
        self.figures.watch(client.clone(), coordinator.clone(), worker.facts());
        self.front.open(front::Member {
            own: member.node_id,
            client: client.clone(),
            accounts,
            members: members.clone(),
            dialer: self.security.dialer(),
            gateway: worker.gateway(),
            models: worker.models(),
            metrics: self.figures.metrics(),
            traces: traces.clone(),
        });
        self.door.open(Membership {
            cluster: member.cluster_id,
            own: member.node_id,
            client: client.clone(),
            members,
            store: self.store.clone(),
            peers: keep.peers,
            live: self.live.clone(),
            memories,
            evaluations: evaluations.clone(),
            traces: traces.clone(),
        });
        let sampling = sampled::follow(self.door.clone(), evaluations, chosen);
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(sampling));
        tracing::info!(node = %member.node_id, cluster = %member.cluster_id, "the node serves");
        Ok(Node { parts: self, coordinator, worker, client, traces, stop_internal })
    }

    fn traces(&self, member: Member, coordinator: Option<&Coordinator>) -> anyhow::Result<Traces> {
        let traces = Traces::start(&self.config.traces, &self.config.name, member.cluster_id)?;
        if let Some(coordinator) = coordinator {
            // To the very end: what agents give back while the node stops belongs into their traces.
            tokio::spawn(traces::follow::follow(traces.clone(), coordinator.clone()));
        }
        Ok(traces)
    }

    /// Copies that have to be made again, and what nothing names.
    fn look_after(&self, homes: Homes) {
        let config::Context { repair_after_ms, sweep_after_ms, .. } = self.config.context;
        let repair = Repair::new(homes.clone(), repair_after_ms).follow();
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(repair));
        if let Some(sweep) = Sweep::new(homes, sweep_after_ms) {
            tokio::spawn(self.stop.clone().run_until_cancelled_owned(sweep.follow()));
        }
    }

    fn keep(&self, member: Member, members: &Members) -> Keep {
        let cluster: ClusterCell = Arc::new(OnceLock::from(member.cluster_id));
        let dialer = Arc::new(self.security.dialer());
        let peers = Peers::new(cluster, Arc::new(members.clone()), dialer, self.traffic.clone());
        let peers = peers.capped(LinkCap::new(self.config.context.link_bytes_second));
        Keep { own: member.node_id, store: self.store.clone(), peers, members: members.clone() }
    }

    /// The planes between nodes.
    fn serve_internal(
        &mut self,
        member: Member,
        coordinator: Option<&Coordinator>,
        client: &Client,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let segments = SegmentsPlane {
            cluster: Arc::new(OnceLock::from(member.cluster_id)),
            store: self.store.clone(),
            live: self.live.clone(),
            models: self.models.clone(),
            traffic: self.traffic.clone(),
        };
        let evaluator = EvaluatorPlane {
            cluster: Arc::new(OnceLock::from(member.cluster_id)),
            evaluations: self.evaluations.clone(),
        };
        let kv = KvPlane::new(Arc::new(OnceLock::from(member.cluster_id)), self.kv_sources.clone());
        let mut router = tonic::transport::Server::builder()
            .initial_stream_window_size(2 << 20)
            .initial_connection_window_size(4 << 20)
            .http2_keepalive_interval(Some(Duration::from_secs(10)))
            .add_service(segments.service())
            .add_service(FrontService::new(self.front.clone(), member.cluster_id))
            .add_service(evaluator.service())
            .add_service(kv.service())
            .add_service(MemberServer::new(Here { node: member.node_id, client: client.clone() }));
        if let Some(coordinator) = coordinator {
            let (ledger, link) = coordinator.services();
            router = router.add_service(coordinator.raft().service()).add_service(ledger).add_service(link);
        }
        let listener = self.internal.take().context("the internal listener is used once")?;
        let incoming = incoming(listener, self.security.tls.clone(), Port::Internal);
        let stop = stop.clone();
        tokio::spawn(async move {
            let served = router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await;
            if let Err(error) = served {
                tracing::error!(%error, "the internal listener ended");
            }
        });
        Ok(())
    }
}

async fn serve_public(
    config: &Config,
    door: &Door,
    security: &Security,
    access: Access,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let routes = door.routes(access)?;
    let listener = bind("listen.clients", config.listen.clients).await?;
    let incoming = incoming(listener, security.tls.clone(), Port::Clients);
    let stop = stop.clone();
    tokio::spawn(async move {
        if let Err(error) = routes.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await {
            tracing::error!(%error, "the public listener ended");
        }
    });
    Ok(())
}

fn models_dir(config: &Config) -> anyhow::Result<std::path::PathBuf> {
    match &config.models_dir {
        Some(folder) => Ok(folder.clone()),
        None => Ok(config::models_dir(&config::home(|name| std::env::var_os(name))?)),
    }
}

async fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "{key} = {address}: cannot listen there; stop what uses the port or set another in the config"
        )
    })
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes
}
