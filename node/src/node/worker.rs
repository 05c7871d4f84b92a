//! The working half of a node: engines and providers, the link to the leader, agents. A coordinator without the role
//! worker attaches as well, with no slots: it keeps segments.

use super::{Parts, random};
use crate::accounts::Accounts;
use crate::agents::counters::Counters;
use crate::agents::real::{NodeVitals, World};
use crate::agents::seams::KvDoor;
use crate::agents::{Agents, AgentsConfig, HeldLeases};
use crate::boards::Boards;
use crate::config::{Provider as Configured, Role};
use crate::engine_thread::real::LoadedModel;
use crate::evaluating::Evaluations;
use crate::evaluating::sampled::Sampler;
use crate::gateway::Gateway;
use crate::gateway::Provider;
use crate::gateway::local::Local;
use crate::gateway::remote::Remote;
use crate::gateway::scripted::Scripted;
use crate::keep::Keep;
use crate::kv_copies::{self, KvHere};
use crate::link::clock::SystemClock;
use crate::link::dial::GrpcDial;
use crate::link::real::ClientLeaders;
use crate::link::{Link, LinkConfig, LinkSeams, LinkTimes};
use crate::memories::Memories;
use crate::store::identity::Member;
use crate::tools::NodeTools;
use crate::traces::Traces;
use anyhow::Context;
use coordinator::Client;
use coordinator::raft::Dialer;
use ledger::command::Command;
use ledger::query::{Answer, Query};
use ledger::reply::Reply;
use prost::Message;
use providers::Destinations;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use types::{Hash, NodeId};
use worker_inference::{DiskKv, EngineConfig};

/// What a disk tier may write: a tenth of a slow disk, so that logs and segments don't wait for caches.
const DISK_KV_BYTES_S: u64 = 32 << 20;
/// How often the device is sampled. Beats between two samples say the older one.
const SAMPLE: Duration = Duration::from_secs(5);

/// Everything this node can call, loaded.
pub(super) struct Engines {
    models: Vec<LoadedModel>,
    scripted: Vec<(String, Arc<dyn Provider>)>,
    destinations: Destinations,
}

impl Engines {
    /// Loads what the config names. A model that is not here is pulled from a node that has it.
    pub(super) async fn load(parts: &Parts, client: &Client, keep: &Keep) -> anyhow::Result<Engines> {
        let destinations = Destinations::random();
        let mut engines =
            Engines { models: Vec::new(), scripted: Vec::new(), destinations: destinations.clone() };
        if !parts.config.roles.contains(&Role::Worker) {
            return Ok(engines);
        }
        for configured in &parts.config.provider {
            engines.scripted.push((configured.name().clone(), provider(configured, &destinations)?));
        }
        for name in &parts.config.engine.models {
            engines.models.push(load_model(parts, client, keep, name).await?);
        }
        Ok(engines)
    }

    fn gateway(&self) -> Gateway {
        let local =
            |model: &LoadedModel| (model.name.clone(), Arc::new(Local::new(model)) as Arc<dyn Provider>);
        Gateway::new(self.models.iter().map(local).chain(self.scripted.iter().cloned()))
    }

    pub(super) fn evaluations(&self, accounts: Accounts) -> Evaluations {
        Evaluations::new(&self.models, accounts)
    }

    pub(super) fn kv_sources(&self) -> kv_copies::Sources {
        kv_copies::sources(&self.models)
    }

    fn held(&self) -> Vec<(String, Hash, u64)> {
        let facts = self.models.iter().map(LoadedModel::facts);
        facts.map(|facts| (facts.model, facts.model_digest, facts.model_bytes)).collect()
    }
}

fn provider(configured: &Configured, destinations: &Destinations) -> anyhow::Result<Arc<dyn Provider>> {
    Ok(match configured {
        Configured::Scripted(script) => Arc::new(Scripted::load(&script.name, &script.file)?),
        Configured::Remote(endpoint) => Arc::new(Remote::open(endpoint.as_ref().clone(), destinations)?),
    })
}

async fn load_model(parts: &Parts, client: &Client, keep: &Keep, name: &str) -> anyhow::Result<LoadedModel> {
    let path = match parts.models.resolve(name) {
        Ok(file) => file.path,
        Err(missing) => match pull_from_peers(parts, client, keep, name).await {
            Some(path) => path,
            None => return Err(missing).with_context(|| format!("[engine] models names {name:?}")),
        },
    };
    let engine = &parts.config.engine;
    let config = EngineConfig {
        kv_bytes: engine.kv_bytes as usize,
        host_kv_bytes: engine.host_kv_bytes,
        disk_kv: (engine.disk_kv_bytes > 0).then(|| DiskKv {
            folder: parts.config.data_dir.join("kv").join(name),
            bytes: engine.disk_kv_bytes,
            bytes_s: DISK_KV_BYTES_S,
        }),
        speculation: engine.speculation.into(),
        threads: engine.threads as usize,
        isa: std::env::var("QUORATE_KERNELS").ok(),
        ..EngineConfig::default()
    };
    let owned = name.to_string();
    let loaded = tokio::task::spawn_blocking(move || LoadedModel::load(&owned, &path, config)).await??;
    tracing::info!(model = name, kernels = %loaded.info.isa, threads = loaded.info.threads, "model loaded");
    Ok(loaded)
}

async fn pull_from_peers(
    parts: &Parts,
    client: &Client,
    keep: &Keep,
    name: &str,
) -> Option<std::path::PathBuf> {
    let Ok(Answer::Models(rows)) = client.read(Query::Models).await else { return None };
    let row = rows.into_iter().find(|row| row.name == name)?;
    tracing::info!(model = name, bytes = row.bytes, "pulling the model from another node");
    match keep.peers.pull_model(&row.holders, name, row.digest, &parts.models).await {
        Ok(path) => Some(path),
        Err(error) => {
            tracing::warn!(%error, model = name, "no node gave the model");
            None
        }
    }
}

/// The running half.
pub(super) struct Running {
    agents: Agents,
    facts: Facts,
    gateway: Gateway,
}

/// What figures are read from.
#[derive(Clone)]
pub(crate) struct Facts {
    pub(crate) vitals: Arc<NodeVitals>,
    pub(crate) link: Link,
}

/// Who hears of what agents do.
pub(super) struct Hearers {
    pub(super) sampler: Sampler,
    pub(super) traces: Traces,
    /// Is told by the leader what others need of its slices.
    pub(super) accounts: Accounts,
}

pub(super) async fn start(
    parts: &Parts,
    member: Member,
    client: &Client,
    keep: &Keep,
    engines: Engines,
    memories: &Arc<Memories>,
    Hearers { sampler, traces, accounts }: Hearers,
) -> anyhow::Result<Running> {
    let (held, counters) = (HeldLeases::default(), Arc::new(Counters::default()));
    let gateway = engines.gateway().with_served(parts.door.served().clone());
    report_models(client.clone(), member.node_id, engines.held(), parts);
    let sources = engines.kv_sources();
    let kv: Arc<dyn KvDoor> = Arc::new(match parts.config.engine.kv_copies {
        0 => KvHere::alone(sources),
        _ => KvHere::copying(member.node_id, client.clone(), keep.peers.clone(), sources),
    });
    let vitals = Arc::new(NodeVitals {
        held: held.clone(),
        counters: counters.clone(),
        scripted: engines.scripted.iter().map(|(name, _)| name.clone()).collect(),
        models: engines.models,
        destinations: engines.destinations,
        accounts,
        served: parts.config.roles.contains(&Role::Worker).then(|| parts.door.served().clone()),
        store: parts.store.clone(),
        traffic: parts.traffic.clone(),
        device: sampled_device(parts),
    });
    let slots = if parts.config.roles.contains(&Role::Worker) { parts.config.worker.slots } else { 0 };
    let config = LinkConfig {
        cluster: member.cluster_id,
        node: member.node_id,
        boot_id: random(),
        version: env!("CARGO_PKG_VERSION").into(),
        slots,
        times: LinkTimes { renew_ms: parts.config.timings.renew_ms, ..LinkTimes::default() },
    };
    let (link, news) = Link::start(config, link_seams(parts, client, vitals.clone()));
    let world = World {
        node: member.node_id,
        link: link.clone(),
        client: client.clone(),
        store: parts.store.clone(),
        peers: keep.peers.clone(),
        members: keep.members.clone(),
        live: parts.live.clone(),
        sampler,
        kv,
        tools: Arc::new(NodeTools::new(
            &parts.config.tools,
            &parts.config.data_dir,
            memories,
            &Boards::new(client.clone(), keep.clone()),
            parts.door.served().clone(),
        )?),
    };
    let agents = Agents::start(
        AgentsConfig { traces, ..AgentsConfig::new(member.node_id, slots as usize) },
        world.seams(),
        gateway.clone(),
        news,
        held,
        counters,
    )
    .await?;
    let facts = Facts { vitals, link };
    Ok(Running { agents, facts, gateway })
}

fn link_seams(parts: &Parts, client: &Client, vitals: Arc<NodeVitals>) -> LinkSeams {
    let dialer = parts.security.dialer();
    LinkSeams {
        leaders: Arc::new(ClientLeaders(client.clone())),
        dial: Arc::new(GrpcDial(move |address: &str| dialer.channel(address))),
        vitals,
        clock: Arc::new(SystemClock::default()),
    }
}

/// A sample of the machine that is never older than a few seconds, taken off the paths that must be quick.
fn sampled_device(parts: &Parts) -> Arc<dyn Fn() -> Vec<u8> + Send + Sync> {
    let newest = Arc::new(Mutex::new(parts.device.sample().encode_to_vec()));
    let (device, kept) = (parts.device.clone(), newest.clone());
    tokio::spawn(parts.stop.clone().run_until_cancelled_owned(async move {
        loop {
            tokio::time::sleep(SAMPLE).await;
            let device = device.clone();
            if let Ok(sample) = tokio::task::spawn_blocking(move || device.sample().encode_to_vec()).await {
                *kept.lock().expect("no panic while held") = sample;
            }
        }
    }));
    Arc::new(move || newest.lock().expect("no panic while held").clone())
}

/// Tells the registry what this node has, until it is told.
fn report_models(client: Client, node: NodeId, models: Vec<(String, Hash, u64)>, parts: &Parts) {
    if models.is_empty() {
        return;
    }
    tokio::spawn(parts.stop.clone().run_until_cancelled_owned(async move {
        let command = Command::HoldModels { node, models };
        loop {
            match client.propose_one(command.clone()).await {
                Ok(Reply::Refused(refusal)) => return tracing::error!(%refusal, "the model registry refuses"),
                Ok(_) => return,
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }));
}

impl Running {
    pub(super) fn facts(&self) -> Facts {
        self.facts.clone()
    }

    /// Every model that can be called here.
    pub(super) fn gateway(&self) -> Gateway {
        self.gateway.clone()
    }

    /// The models that are loaded here.
    pub(super) fn models(&self) -> Vec<LoadedModel> {
        self.facts.vitals.models.clone()
    }

    /// Gives leases back at step boundaries.
    pub(super) async fn drain(&self, patience: Duration) {
        self.agents.drain(patience).await;
        self.agents.stop().await;
    }

    /// Resolves when the supervision tree has ended by itself.
    pub(super) async fn ended(&self) {
        self.agents.ended().await;
    }
}
