//! Which nodes could run a task, and which of them gets it: [`crate::routing`] decides, by what it would have to compute
//! there, against the load. Who is looked at when is the plan's business ([`crate::plan`]).

use crate::routing::{Chain, Fleet, Lot, Routes, View, Wish};
use crate::rows::{AgentKind, Closed, NodeRow, Role, TaskRow};
use crate::state::State;
use crate::strategy::Strategy;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use types::{NodeId, TaskUid};

/// Pressure from which on a node is chosen last: the share of time in which some task waited, in thousandths. Engines
/// keep processors busy by design; waiting for memory is a sign of thrashing much earlier.
const PRESSED_MEMORY_MILLI: u32 = 200;
const PRESSED_CPU_MILLI: u32 = 900;

/// Tasks that a new leader looks at to learn who has what: some 10 ms.
const REMEMBERED: usize = 4096;

/// What the leader knows about the nodes right now. Not part of the replicated state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Soft {
    pub nodes: BTreeMap<NodeId, SoftNode>,
    /// What they have in their caches, as far as the leader remembers. Empty is right, and costs tokens.
    pub routes: Arc<Routes>,
    /// The leader's reading of the ledger's clock: fills buckets for explanations.
    pub ledger_ms: u64,
    /// When tasks started lately, on the ledger's clock, in order: what an estimate of a wait goes by.
    pub starts_ms: Vec<u64>,
    /// How projects take turns, as the leader was told.
    pub strategy: Strategy,
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
    /// Room in its KV caches that nothing is kept in, and room at all; 0 and 0 where it did not say.
    pub free_kv_tokens: u64,
    pub kv_tokens: u64,
    /// The share of time in which some task of the node waited for memory, or for a processor, in thousandths; `None`
    /// where it did not say.
    pub memory_pressure_milli: Option<u32>,
    pub cpu_pressure_milli: Option<u32>,
}

impl SoftNode {
    fn is_pressed(&self) -> bool {
        let memory = self.memory_pressure_milli.is_some_and(|milli| milli >= PRESSED_MEMORY_MILLI);
        memory || self.cpu_pressure_milli.is_some_and(|milli| milli >= PRESSED_CPU_MILLI)
    }
}

/// Capacity of the nodes while planning, as it will be after the assignments planned so far.
#[derive(Clone)]
pub(crate) struct Board<'a> {
    state: &'a State,
    /// Nodes that take tasks.
    spots: BTreeMap<NodeId, &'a SoftNode>,
    fleet: Fleet<'a>,
}

impl<'a> Board<'a> {
    pub(crate) fn new(state: &'a State, soft: &'a Soft) -> Self {
        let takes_tasks = |(id, node): &(&NodeId, &SoftNode)| verdict(state, **id, node).is_ok();
        let spots: BTreeMap<NodeId, &SoftNode> =
            soft.nodes.iter().filter(takes_tasks).map(|(id, node)| (*id, node)).collect();
        let mut fleet = Fleet::new(&soft.routes, soft.ledger_ms);
        for (id, node) in &spots {
            fleet.add(*id, lot(state, *id, node), node.models.iter().map(String::as_str));
        }
        let mut board = Board { state, spots, fleet };
        let open: Vec<NodeId> = board.spots.keys().copied().filter(|id| board.free(*id) > 0).collect();
        open.into_iter().for_each(|id| board.learn(id));
        board
    }

    /// What runs on a node says what is in its cache. Of a node without a free slot nobody asks.
    fn learn(&mut self, id: NodeId) {
        for row in self.state.leases_of(id) {
            self.fleet.learn(id, &Chain::of_task(row), team(row));
        }
    }

    pub(crate) fn lift(&mut self, row: &TaskRow) {
        let able: Vec<NodeId> = self.able(row).collect();
        for id in able {
            if self.free(id) == 0 {
                self.learn(id);
            }
            self.fleet.lift(id);
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.fleet.is_full()
    }

    /// Nodes that could run the task if they had a free slot.
    pub(crate) fn able(&self, row: &TaskRow) -> impl Iterator<Item = NodeId> {
        self.spots.iter().filter(|(_, node)| runs(node, row)).map(|(id, _)| *id)
    }

    pub(crate) fn has_workers(&self) -> bool {
        !self.spots.is_empty()
    }

    /// Free slots, and slots at all, of the nodes that could run the task.
    pub(crate) fn slots(&self, row: &TaskRow) -> (u64, u64) {
        let able = self.able(row).filter_map(|id| self.fleet.lot(id));
        able.fold((0, 0), |(free, all), lot| (free + lot.slots.saturating_sub(lot.used), all + lot.slots))
    }

    fn free(&self, id: NodeId) -> u64 {
        self.fleet.lot(id).map_or(0, |lot| lot.slots.saturating_sub(lot.used))
    }

    /// The node that gets the task: the best one, or the first that can run it and has a free slot.
    pub(crate) fn node_for(&self, row: &TaskRow, first_fit: bool) -> Option<NodeId> {
        if first_fit {
            return self.able(row).find(|id| self.free(*id) > 0);
        }
        self.fleet.best(&wish(row, &Chain::of_task(row)))
    }

    pub(crate) fn take(&mut self, row: &TaskRow, node: NodeId) {
        self.fleet.take(node, &wish(row, &Chain::of_task(row)));
    }
}

fn wish<'w>(row: &'w TaskRow, chain: &'w Chain) -> Wish<'w> {
    let model = (row.kind != AgentKind::Team).then_some(row.model.as_str());
    Wish { chain, model, keepers: &row.keepers, team: team(row) }
}

fn team(row: &TaskRow) -> Option<TaskUid> {
    row.origin.map(|origin| origin.parent)
}

fn lot(state: &State, id: NodeId, node: &SoftNode) -> Lot {
    let index = state.tasks.index();
    let aside = index.aside.get(&id).copied().unwrap_or(0);
    let leases = index.leases.get(&id).map_or(0, |uids| uids.len() as u64).saturating_sub(aside);
    Lot {
        slots: u64::from(node.slots),
        used: leases.max(u64::from(node.running)),
        pressed: node.is_pressed(),
        free_kv_tokens: node.free_kv_tokens,
        kv_tokens: node.kv_tokens,
    }
}

/// A team needs no engine of its own.
fn runs(node: &SoftNode, row: &TaskRow) -> bool {
    row.kind == AgentKind::Team || node.models.contains(row.model.as_str())
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
        let lot = lot(state, id, node);
        match lot.slots.saturating_sub(lot.used) {
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

/// What a new leader can know of the caches: who ran which task last, of the newest `REMEMBERED` that ran.
pub fn remembered(state: &State) -> Routes {
    let ran = |row: &&TaskRow| row.last_epoch.is_some();
    let newest: Vec<&TaskRow> = state.tasks().rev().filter(ran).take(REMEMBERED).collect();
    let mut routes = Routes::default();
    for row in newest.into_iter().rev() {
        if let Some(node) = row.node.or(row.home.first().copied()) {
            routes.learn(node, &Chain::of_task(row));
        }
    }
    routes
}

/// The same in numbers, for the nodes that take tasks: what each holds of the prompt, how busy it is, what choosing
/// it would cost, and why another one would be chosen if the task were next.
pub fn views(state: &State, soft: &Soft, uid: TaskUid) -> Vec<View> {
    let Some(row) = state.task(uid) else { return Vec::new() };
    let mut board = Board::new(state, soft);
    let full: Vec<NodeId> = board.spots.keys().copied().filter(|id| board.free(*id) == 0).collect();
    full.into_iter().for_each(|id| board.learn(id));
    board.fleet.views(&wish(row, &Chain::of_task(row)))
}
