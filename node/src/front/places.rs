//! Which node answers: one that has the beginning of the request in its cache, else this one, else the one with the least
//! to do. What the leader hears from the nodes is asked for now and then, and may be older than this.

use super::prefixes::Prefixes;
use crate::openai::Failure;
use coordinator::Client;
use ledger::query::{Answer, Query};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use types::{Hash, NodeId};

/// What was heard of the nodes is asked for again after this time.
const FRESH: Duration = Duration::from_millis(500);
/// Calls that a node may have more than the least busy one before it loses what speaks for it.
const LENIENCY: u64 = 8;

/// A node that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    node: NodeId,
    models: BTreeSet<String>,
    /// Agents that run there, and requests that this node sent there and that go on.
    load: u64,
}

/// Why a node answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It answered a request that began like this one.
    Cached,
    /// It is the one that was asked.
    Here,
    /// It has the least to do.
    LeastBusy,
}

impl Why {
    pub(super) fn word(self) -> &'static str {
        match self {
            Why::Cached => "cached",
            Why::Here => "here",
            Why::LeastBusy => "least-busy",
        }
    }
}

/// The nodes that have a model, in the order to ask them.
fn order(places: &[Place], own: NodeId, model: &str, cached: Option<NodeId>) -> Vec<(NodeId, Why)> {
    let mut able: Vec<&Place> = places.iter().filter(|place| place.models.contains(model)).collect();
    able.sort_by_key(|place| (place.load, place.node != own, place.node));
    let most = able.first().map_or(0, |place| place.load.saturating_add(LENIENCY));
    let bearable = |node: NodeId| able.iter().any(|place| place.node == node && place.load <= most);
    let favoured = [(cached, Why::Cached), (Some(own), Why::Here)];
    let favoured =
        favoured.into_iter().filter_map(|(node, why)| Some((node.filter(|node| bearable(*node))?, why)));
    let rest = able.iter().map(|place| (place.node, Why::LeastBusy));
    let mut seen = BTreeSet::new();
    favoured.chain(rest).filter(|(node, _)| seen.insert(*node)).collect()
}

/// What the members said last, and when.
type Heard = (Instant, Vec<Place>);

/// What is known of the nodes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Places {
    own: NodeId,
    client: Client,
    heard: Arc<tokio::sync::Mutex<Option<Heard>>>,
    prefixes: Arc<Mutex<Prefixes>>,
    under_way: Arc<Mutex<BTreeMap<NodeId, u64>>>,
}

/// A request that goes on at a node.
pub(super) struct Busy {
    node: NodeId,
    under_way: Arc<Mutex<BTreeMap<NodeId, u64>>>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut under_way = self.under_way.lock().expect("no panic while held");
        under_way.entry(self.node).and_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Places {
    pub(super) fn new(own: NodeId, client: Client) -> Places {
        Places { own, client, heard: Arc::default(), prefixes: Arc::default(), under_way: Arc::default() }
    }

    /// Counts a request at a node as long as the answer lives.
    pub(super) fn busy(&self, node: NodeId) -> Busy {
        *self.under_way.lock().expect("no panic while held").entry(node).or_default() += 1;
        Busy { node, under_way: self.under_way.clone() }
    }

    pub(super) fn remember(&self, node: NodeId, marks: &[Hash]) {
        self.prefixes.lock().expect("no panic while held").remember(node, marks);
    }

    /// The nodes to ask for a model, in order.
    ///
    /// # Errors
    /// 404 where nobody has heard of it, 503 where nobody who has it can be reached.
    pub(super) async fn choose(
        &self,
        own_models: &[String],
        model: &str,
        marks: &[Hash],
    ) -> Result<Vec<(NodeId, Why)>, Failure> {
        let places = self.places(own_models).await;
        let cached = self.prefixes.lock().expect("no panic while held").find(marks);
        let order = order(&places, self.own, model, cached);
        match order.is_empty() {
            false => Ok(order),
            true => Err(self.nobody(&places, model).await),
        }
    }

    async fn nobody(&self, places: &[Place], model: &str) -> Failure {
        let known = match self.client.read_stale(Query::Models).await {
            Ok((Answer::Models(rows), _, _)) => rows.iter().any(|row| row.name == model),
            _ => return Failure::gone("the cluster has no leader now; try again later"),
        };
        match known {
            true => Failure::gone(format!("no node that has {model:?} is up; try again later")),
            false => Failure::no_model(model, &names(places)),
        }
    }

    /// Every model that a reachable node has.
    pub(super) async fn models(&self, own_models: &[String]) -> Vec<String> {
        names(&self.places(own_models).await)
    }

    /// This node, and those that are attached to the leader.
    async fn places(&self, own_models: &[String]) -> Vec<Place> {
        let others = self.heard().await;
        let mut own = Place { node: self.own, models: own_models.iter().cloned().collect(), load: 0 };
        if let Some(heard) = others.iter().find(|place| place.node == self.own) {
            // Programs of users serve models that no configuration names.
            own.models.extend(heard.models.iter().cloned());
            own.load = heard.load;
        }
        let others = others.into_iter().filter(|place| place.node != self.own);
        let under_way = self.under_way.lock().expect("no panic while held");
        let busy = |place: Place| Place {
            load: place.load + under_way.get(&place.node).copied().unwrap_or(0),
            ..place
        };
        std::iter::once(own).chain(others).map(busy).collect()
    }

    /// Who is attached to the leader. While there is none, who was.
    async fn heard(&self) -> Vec<Place> {
        let mut heard = self.heard.lock().await;
        if let Some((_, places)) = heard.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return places.clone();
        }
        match self.client.status().await {
            Ok(status) => {
                let places: Vec<Place> = status.attached.iter().map(place).collect();
                *heard = Some((Instant::now(), places.clone()));
                places
            }
            Err(_) => heard.as_ref().map(|(_, places)| places.clone()).unwrap_or_default(),
        }
    }
}

fn place(node: &proto::internal::v1::AttachedNode) -> Place {
    Place {
        node: NodeId(node.node_id),
        models: node.engines.iter().map(|engine| engine.model.clone()).collect(),
        load: node.beat.as_ref().map_or(0, |beat| beat.running.into()),
    }
}

fn names(places: &[Place]) -> Vec<String> {
    let all: BTreeSet<&String> = places.iter().flat_map(|place| &place.models).collect();
    all.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(node: u64, models: &[&str], load: u64) -> Place {
        Place { node: NodeId(node), models: models.iter().map(|name| name.to_string()).collect(), load }
    }

    #[test]
    fn a_cached_beginning_goes_before_the_own_node_and_that_before_the_least_busy() {
        let places = [place(1, &[], 0), place(2, &["m"], 3), place(3, &["m"], 1), place(4, &["m"], 2)];
        let order = |own, cached| super::order(&places, NodeId(own), "m", cached);
        let (least, here, cached) = (Why::LeastBusy, Why::Here, Why::Cached);
        assert_eq!(order(1, None), [(NodeId(3), least), (NodeId(4), least), (NodeId(2), least)]);
        assert_eq!(order(2, None), [(NodeId(2), here), (NodeId(3), least), (NodeId(4), least)]);
        assert_eq!(order(2, Some(NodeId(4))), [(NodeId(4), cached), (NodeId(2), here), (NodeId(3), least)]);
        assert_eq!(order(1, Some(NodeId(9))), order(1, None), "who is gone is not asked");
        assert_eq!(super::order(&places, NodeId(1), "n", None), []);
    }

    #[test]
    fn whoever_is_much_busier_than_others_is_not_favoured() {
        let places = [place(1, &["m"], LENIENCY + 1), place(2, &["m"], LENIENCY), place(3, &["m"], 0)];
        let order = order(&places, NodeId(1), "m", Some(NodeId(2)));
        let (cached, least) = (Why::Cached, Why::LeastBusy);
        assert_eq!(order, [(NodeId(2), cached), (NodeId(3), least), (NodeId(1), least)]);
    }
}
