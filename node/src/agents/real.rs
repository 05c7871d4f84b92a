//! The real world behind the seams: the link, the cluster's client, the store and its peers, the live hub.

use super::HeldLeases;
use super::counters::Counters;
use super::seams::{KvDoor, LedgerDoor, Live, Seams, Segments, Stores, Tools};
use crate::accounts::Accounts;
use crate::engine_thread::real::LoadedModel;
use crate::evaluating::sampled::{Sampler, Step};
use crate::gateway::external::PREFIX;
use crate::link::{BeatFacts, DestinationFacts, LeaseName, Link, Vitals};
use crate::live::LiveTokens;
use crate::members::Members;
use crate::segments::{Peers, Traffic};
use crate::served::Served;
use crate::store::SegmentStore;
use bytes::Bytes;
use coordinator::Client;
use futures::future::BoxFuture;
use ledger::command::Command;
use ledger::query::{Answer, Query};
use ledger::reply::Reply;
use providers::{DestinationState, Destinations};
use std::sync::Arc;
use types::{Hash, NodeId, ProjectName, TaskUid};

/// What the seams are made of.
#[derive(Clone)]
pub struct World {
    pub node: NodeId,
    pub link: Link,
    pub client: Client,
    pub store: SegmentStore,
    pub peers: Peers,
    pub members: Members,
    pub live: LiveTokens,
    pub tools: Arc<dyn Tools>,
    pub kv: Arc<dyn KvDoor>,
    /// Hears of steps that were committed.
    pub(crate) sampler: Sampler,
}

impl World {
    pub fn seams(self) -> Seams {
        let (live, tools, kv) = (Arc::new(self.live.clone()), self.tools.clone(), self.kv.clone());
        let world = Arc::new(self);
        Seams { ledger: world.clone(), stores: world, live, tools, kv }
    }
}

impl LedgerDoor for World {
    fn request(&self, command: Command) -> BoxFuture<'_, Reply> {
        let step = match &command {
            Command::CommitStep { task, step, .. } => Some(Step { task: *task, step: *step }),
            _ => None,
        };
        Box::pin(async move {
            let reply = self.link.request(command).await;
            if let Some(step) = step.filter(|_| !matches!(reply, Reply::Refused(_))) {
                self.sampler.committed(step);
            }
            reply
        })
    }

    fn read(&self, query: Query) -> BoxFuture<'_, Result<Answer, String>> {
        Box::pin(async move { self.client.read(query).await.map_err(|error| error.to_string()) })
    }

    fn lease_valid(&self) -> bool {
        self.link.lease().valid()
    }
}

impl Stores for World {
    fn put(&self, project: &ProjectName, segments: Segments) -> BoxFuture<'_, Result<(), String>> {
        let project = project.clone();
        Box::pin(
            async move { self.store.put_all(&project, segments).await.map_err(|error| error.to_string()) },
        )
    }

    fn get(&self, project: &ProjectName, hash: Hash) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        let project = project.clone();
        Box::pin(async move { self.store.get(&project, hash).await.map_err(|error| error.to_string()) })
    }

    fn fetch(
        &self,
        nodes: Vec<NodeId>,
        project: &ProjectName,
        hashes: Vec<Hash>,
    ) -> BoxFuture<'_, Result<(), String>> {
        let project = project.clone();
        Box::pin(async move {
            let fetched = self.peers.fetch(&self.store, &nodes, &project, &hashes).await;
            fetched.map_err(|error| error.to_string())
        })
    }

    fn push(
        &self,
        node: NodeId,
        project: &ProjectName,
        segments: Segments,
    ) -> BoxFuture<'_, Result<(), String>> {
        let project = project.clone();
        Box::pin(async move {
            let pushed = self.peers.push(node, &project, &segments).await;
            pushed.map(|_| ()).map_err(|error| error.to_string())
        })
    }

    fn copies(&self) -> usize {
        self.members.copies()
    }

    fn keepers(&self, first: &[NodeId], what: Hash) -> Vec<NodeId> {
        self.members.keepers(self.node, first, what)
    }

    fn refresh_members(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.members.refresh(&self.client).await;
        })
    }
}

impl Live for LiveTokens {
    fn begin(&self, project: &ProjectName, task: TaskUid, step: u64, attempt: &str) {
        LiveTokens::begin(self, project, task, step, attempt);
    }

    fn push(&self, task: TaskUid, offset: u64, tokens: u32, text: &str) {
        LiveTokens::push(self, task, offset, tokens, text);
    }

    fn end(&self, task: TaskUid) {
        LiveTokens::end(self, task);
    }
}

/// What beats and attaches say of this node.
pub struct NodeVitals {
    pub held: HeldLeases,
    pub counters: Arc<Counters>,
    pub models: Vec<LoadedModel>,
    /// Scripted models, which have no engine but can be called here.
    pub scripted: Vec<String>,
    /// Where calls go that leave the cluster.
    pub destinations: Destinations,
    /// Programs that serve models here; none on a node that runs no agents.
    pub(crate) served: Option<Served>,
    pub(crate) accounts: Accounts,
    pub store: SegmentStore,
    pub traffic: Arc<Traffic>,
    /// The newest sample of the device, encoded; kept fresh by its own thread.
    pub device: Arc<dyn Fn() -> Vec<u8> + Send + Sync>,
}

impl Vitals for NodeVitals {
    fn leases(&self) -> Vec<LeaseName> {
        self.held.get()
    }

    fn beat(&self) -> BeatFacts {
        let stored = self.store.stats();
        let alive = self.models.iter().filter(|model| model.thread.is_alive());
        let scripted = self.scripted.iter().map(|model| named(model, "scripted"));
        let served = self.served.as_ref().map(Served::models).unwrap_or_default();
        let external = served.iter().map(|model| named(&format!("{PREFIX}{model}"), "external"));
        BeatFacts {
            running: (self.held.count() as u64).saturating_sub(self.counters.aside()) as u32,
            engines: alive.map(LoadedModel::facts).chain(scripted).chain(external).collect(),
            device: (self.device)(),
            segments: stored.segments,
            segment_bytes: stored.bytes,
            context_bytes_received: self.traffic.received(),
            context_bytes_sent: self.traffic.sent(),
            context_bytes_full: self.counters.observe().context_bytes_full,
            destinations: self.destinations.states().into_iter().map(destination).collect(),
        }
    }

    fn leave(&self, address: &str, calls: u32) {
        self.destinations.set_ceiling(address, Some(calls));
    }

    fn recall(&self, answer: bool) {
        self.accounts.recall(answer);
    }
}

fn destination(state: DestinationState) -> DestinationFacts {
    DestinationFacts {
        name: state.name,
        running: state.running,
        waiting: u32::try_from(state.waiting).unwrap_or(u32::MAX),
        cuts: state.cuts,
        start: state.start,
        most: state.most,
    }
}

/// A model without an engine; `kernels` says who answers.
fn named(model: &str, kernels: &str) -> crate::link::EngineFacts {
    crate::link::EngineFacts { model: model.into(), kernels: kernels.into(), ..Default::default() }
}
