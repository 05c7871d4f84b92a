//! With `engine.kv_copies = 1` the cached blocks of a task follow its segments: after each step they go to a keeper that
//! runs the same model, so that a task whose node is lost goes on there without computing its prompt again.
//!
//! A cache in the background: a step never waits for it, and what fails or finds no room is computed again. Blocks go to
//! the keeper's host tier, where they make way for what is used there.
//!
//! Read: this file (who gets what), `sender` (one chain to one node), `plane` (the receiving side).

mod plane;
mod sender;

use crate::agents::seams::KvDoor;
use crate::engine_thread::EngineThread;
use crate::engine_thread::hints::Hint;
use crate::engine_thread::kv::Chain;
use crate::engine_thread::real::LoadedModel;
use crate::segments::Peers;
use crate::telemetry::names;
use coordinator::Client;
use ledger::query::{Answer, Query};
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::sync::mpsc;
use types::{Hash, NodeId};

pub(crate) use plane::KvPlane;

/// Chains that wait to be copied; more are dropped, because newer steps bring the same blocks again.
const WAITING: usize = 64;
/// How often it is asked who has which model.
const REFRESH: Duration = Duration::from_secs(5);

/// An engine whose blocks can be copied.
#[derive(Clone)]
pub(crate) struct Source {
    thread: EngineThread,
    numerics: Hash,
}

/// The engines of this node by the names of their models.
pub(crate) type Sources = Arc<BTreeMap<String, Source>>;

pub(crate) fn sources(models: &[LoadedModel]) -> Sources {
    let source =
        |model: &LoadedModel| Source { thread: model.thread.clone(), numerics: model.info.numerics_id };
    Arc::new(models.iter().map(|model| (model.name.clone(), source(model))).collect())
}

/// A chain, and the nodes that keep its segments.
struct Order {
    model: String,
    chain: Chain,
    keepers: Vec<NodeId>,
}

/// Other nodes with each model, as the registry says.
type Holders = Arc<RwLock<BTreeMap<String, Vec<NodeId>>>>;

/// What agents see of it, and of the engines here.
pub(crate) struct KvHere {
    sources: Sources,
    copies: Option<KvCopies>,
}

struct KvCopies {
    holders: Holders,
    orders: mpsc::Sender<Order>,
}

impl KvHere {
    /// Blocks stay where they are.
    pub(crate) fn alone(sources: Sources) -> KvHere {
        KvHere { sources, copies: None }
    }

    /// Copies until it is dropped.
    pub(crate) fn copying(own: NodeId, client: Client, peers: Peers, sources: Sources) -> KvHere {
        let copies = Some(KvCopies::start(own, client, peers, sources.clone()));
        KvHere { sources, copies }
    }
}

impl KvCopies {
    fn start(own: NodeId, client: Client, peers: Peers, sources: Sources) -> KvCopies {
        let (orders, inbox) = mpsc::channel(WAITING);
        let holders = Holders::default();
        let following = follow(own, client, holders.clone());
        let copying = copy(peers, sources, holders.clone(), inbox);
        tokio::spawn(async move {
            // Ends with the last sender.
            tokio::select! { () = following => (), () = copying => () }
        });
        KvCopies { holders, orders }
    }
}

impl KvDoor for KvHere {
    fn holders(&self, model: &str) -> Vec<NodeId> {
        self.copies.as_ref().map_or_else(Vec::new, |copies| others_with(&copies.holders, model))
    }

    fn follow(&self, model: &str, chain: Chain, keepers: &[NodeId]) {
        let Some(copies) = &self.copies else { return };
        let order = Order { model: model.into(), chain, keepers: keepers.to_vec() };
        if copies.orders.try_send(order).is_err() {
            count("dropped", 1);
        }
    }

    fn hint(&self, model: &str, chain: Chain, hint: Hint) {
        if let Some(source) = self.sources.get(model) {
            source.thread.hint(chain, hint);
        }
    }
}

fn others_with(holders: &Holders, model: &str) -> Vec<NodeId> {
    holders.read().expect("no panic while held").get(model).cloned().unwrap_or_default()
}

async fn follow(own: NodeId, client: Client, holders: Holders) {
    loop {
        if let Ok((Answer::Models(rows), _, _)) = client.read_stale(Query::Models).await {
            let others = |nodes: Vec<NodeId>| nodes.into_iter().filter(|node| *node != own).collect();
            let newest = rows.into_iter().map(|row| (row.name, others(row.holders))).collect();
            *holders.write().expect("no panic while held") = newest;
        }
        tokio::time::sleep(REFRESH).await;
    }
}

async fn copy(peers: Peers, sources: Sources, holders: Holders, mut inbox: mpsc::Receiver<Order>) {
    while let Some(order) = inbox.recv().await {
        let (Some(source), others) = (sources.get(&order.model), others_with(&holders, &order.model)) else {
            continue;
        };
        let Some(keeper) = order.keepers.iter().find(|node| others.contains(node)) else {
            count("no_keeper", 1);
            continue;
        };
        match sender::send(&peers, *keeper, &order.model, source, &order.chain).await {
            Ok(blocks) => count("copied", blocks),
            Err(error) => {
                tracing::debug!(%error, %keeper, model = order.model, "blocks were not copied");
                count("failed", 1);
            }
        }
    }
}

/// Blocks that were copied; chains that were not.
fn count(outcome: &'static str, many: u64) {
    metrics::counter!(names::KV_COPIES_TOTAL, "outcome" => outcome).increment(many);
}
