//! Which node should run a task. Among the nodes that could run it: those that keep its segments, then those that run tasks of the
//! same agent revision and so share its prefix, then the least loaded. Comfort has a bound: a node that holds `SPREAD`
//! leases more than the least loaded one is not chosen for comfort.

use crate::rows::{AgentKind, Closed, NodeRow, Role, TaskRow};
use crate::state::State;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use types::{Hash, NodeId};

/// Leases by which a node may be ahead of the least loaded one and still be preferred for what it holds.
const SPREAD: u64 = 2;

/// What the leader knows about the nodes right now. Not part of the replicated state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Soft {
    pub nodes: BTreeMap<NodeId, SoftNode>,
    /// The leader's reading of the ledger's clock: fills buckets for explanations.
    pub ledger_ms: u64,
    /// When tasks started lately, on the ledger's clock, in order: what an estimate of a wait goes by.
    pub starts_ms: Vec<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SoftNode {
    /// Its link is up and its lease is in force.
    pub attached: bool,
    /// Goes away soon: gets nothing new.
    pub draining: bool,
    /// Tasks it runs at the same time; 0 for a node that only keeps segments.
    pub slots: u32,
    /// Tasks it says it runs; leases it has not heard of yet are counted beside.
    pub running: u32,
    /// Names of the models its engines have loaded.
    pub models: BTreeSet<String>,
    pub free_kv_tokens: u64,
}

/// Capacity of the nodes while planning, as it will be after the assignments planned so far.
pub(crate) struct Board<'a> {
    spots: BTreeMap<NodeId, Spot<'a>>,
    /// Nodes whose limits are looked past, for explanations.
    lifted_nodes: BTreeSet<NodeId>,
}

/// A node that takes tasks.
struct Spot<'a> {
    node: &'a SoftNode,
    used: u64,
    revisions: BTreeSet<Hash>,
}

impl Spot<'_> {
    fn free(&self) -> u64 {
        u64::from(self.node.slots).saturating_sub(self.used)
    }
}

impl<'a> Board<'a> {
    pub(crate) fn new(state: &'a State, soft: &'a Soft) -> Self {
        let takes_tasks = |(id, node): &(&NodeId, &SoftNode)| verdict(state, **id, node).is_ok();
        let spots =
            soft.nodes.iter().filter(takes_tasks).map(|(id, node)| (*id, spot(state, *id, node))).collect();
        Board { spots, lifted_nodes: BTreeSet::new() }
    }

    pub(crate) fn lift(&mut self, row: &TaskRow) {
        self.lifted_nodes = self.able(row).collect();
    }

    pub(crate) fn is_full(&self) -> bool {
        self.spots.values().all(|spot| spot.free() == 0)
    }

    /// Nodes that could run the task if they had a free slot.
    pub(crate) fn able(&self, row: &TaskRow) -> impl Iterator<Item = NodeId> {
        self.spots.iter().filter(|(_, spot)| runs(spot.node, row)).map(|(id, _)| *id)
    }

    pub(crate) fn has_workers(&self) -> bool {
        !self.spots.is_empty()
    }

    /// Free slots, and slots at all, of the nodes that could run the task.
    pub(crate) fn slots(&self, row: &TaskRow) -> (u64, u64) {
        let able = self.spots.values().filter(|spot| runs(spot.node, row));
        able.fold((0, 0), |(free, all), spot| (free + spot.free(), all + u64::from(spot.node.slots)))
    }

    pub(crate) fn best_node(&self, row: &TaskRow) -> Option<NodeId> {
        let open = |id: &NodeId, spot: &Spot<'_>| self.lifted_nodes.contains(id) || spot.free() > 0;
        let able: Vec<(NodeId, &Spot<'_>)> = self
            .spots
            .iter()
            .filter(|(id, spot)| open(id, spot) && runs(spot.node, row))
            .map(|(id, spot)| (*id, spot))
            .collect();
        let least_used = able.iter().map(|(_, spot)| spot.used).min()?;
        let calm = able.into_iter().filter(|(_, spot)| spot.used <= least_used + SPREAD);
        calm.min_by_key(|(id, spot)| {
            let keeps = row.keepers.contains(id);
            let shares = spot.revisions.contains(&row.revision);
            (!keeps, !shares, spot.used, Reverse(spot.node.free_kv_tokens), *id)
        })
        .map(|(id, _)| id)
    }

    pub(crate) fn take(&mut self, row: &TaskRow, node: NodeId) {
        if let Some(spot) = self.spots.get_mut(&node) {
            spot.used += 1;
            spot.revisions.insert(row.revision);
        }
    }
}

fn spot<'a>(state: &State, id: NodeId, node: &'a SoftNode) -> Spot<'a> {
    let leases = state.leases_of(id).count() as u64;
    let revisions = state.leases_of(id).map(|row| row.revision).collect();
    Spot { node, used: leases.max(u64::from(node.running)), revisions }
}

/// A team needs no engine of its own.
fn runs(node: &SoftNode, row: &TaskRow) -> bool {
    row.kind == AgentKind::Team || node.models.contains(&row.model)
}

/// Whether a node takes tasks at all, or why not.
fn verdict(state: &State, id: NodeId, node: &SoftNode) -> Result<(), &'static str> {
    match state.node(id) {
        None => Err("is no member"),
        Some(row) if !row.roles.contains(&Role::Worker) => Err("is no worker"),
        Some(_) if !node.attached => Err("is not attached"),
        Some(NodeRow { closed: Some(Closed::Cordoned), .. }) => Err("is cordoned"),
        Some(NodeRow { closed: Some(Closed::Draining), .. }) => Err("is draining"),
        Some(_) if node.draining => Err("is draining"),
        Some(_) if node.slots == 0 => Err("has no slots"),
        Some(_) => Ok(()),
    }
}

/// For each member: whether it could take the task now, and why not.
pub(crate) fn verdicts(state: &State, soft: &Soft, row: &TaskRow) -> Vec<(u64, bool, String)> {
    let absent = SoftNode::default();
    let judge = |id: NodeId| {
        let node = soft.nodes.get(&id).unwrap_or(&absent);
        verdict(state, id, node).map_err(str::to_string)?;
        if !runs(node, row) {
            return Err(format!("has not loaded the model {}", row.model));
        }
        match spot(state, id, node).free() {
            0 => Err(format!("all {} slots are taken", node.slots)),
            _ => Ok(()),
        }
    };
    state
        .nodes()
        .map(|member| {
            let judged = judge(member.id);
            (member.id.0, judged.is_ok(), judged.err().unwrap_or_default())
        })
        .collect()
}
