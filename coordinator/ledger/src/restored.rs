//! What a backup has to hold, and what changes when a cluster begins again from one.
//!
//! A restored cluster is another one: its machines are new, and the old ones may still run somewhere. So it gets an id
//! of its own, which old nodes do not know, and another incarnation, which makes every epoch of it greater than any
//! that was given before. No lease outlives the old machines. Everything else stays: tasks, budgets, prices, what was
//! spent, who asked for what.

use crate::change::Change;
use crate::nodes;
use crate::rows::{Fenced, NodeRow, Role};
use crate::state::{Place, State};
use types::{ClusterId, Hash, NodeId, ProjectName, TaskUid};

/// A machine that the restored cluster begins with: a coordinator, and a store that holds every segment of the backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founder {
    pub name: String,
    pub internal_addr: String,
    pub disk_id: [u8; 16],
}

/// Segments that a row of the ledger needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    pub project: ProjectName,
    pub segments: Vec<Hash>,
    /// The newest step record. It names further segments and the record before it.
    pub journal: Option<Hash>,
    /// The newest record of a memory. As with steps.
    pub memory: Option<Hash>,
    /// The sheet of a board. It names the texts of its notes.
    pub board: Option<Hash>,
    /// Nodes that are said to hold them.
    pub home: Vec<NodeId>,
}

impl State {
    /// Everything outside of the ledger that its rows name.
    pub fn needed(&self) -> impl Iterator<Item = Needed> {
        self.homes(None, None).map(|row| Needed {
            project: row.project().clone(),
            segments: row.segments(),
            journal: row.journal(),
            memory: row.memory(),
            board: row.board(),
            home: row.home().to_vec(),
        })
    }

    /// Turns the state of a backup into the first state of a new cluster, the same for everybody who is given the same.
    /// The founders get ids in their order. It counts as so many log entries, so that no id and no epoch meets an old one.
    ///
    /// Answers the founders' ids.
    pub fn begin_again(&mut self, cluster: ClusterId, founders: &[Founder]) -> Vec<NodeId> {
        let first = self.applied_index() + 1;
        let ids: Vec<NodeId> = (first..).take(founders.len()).map(NodeId).collect();
        let last = ids.last().map_or(first, |id| id.0);
        self.advance(last, self.clock());
        let before = self.incarnation();
        let mut change = Change::new(self, Place { index: last, position: 0 });
        leave_old_machines(&mut change);
        for (id, founder) in ids.iter().zip(founders) {
            change.state.nodes.insert(*id, row(*id, founder));
        }
        change.state.update_meta(|meta| {
            meta.cluster_id = Some(cluster);
            meta.incarnation = before + 1;
            meta.last_node = last;
        });
        live_at(&mut change, &ids);
        let what = format!("incarnation {before} -> {}", before + 1);
        change.audit("", "cluster.restore", "cluster", &what, "restored from a backup");
        drop(change.into_effects());
        ids
    }
}

/// Ends every lease as if its node had been lost, and forgets the nodes and the models on them.
fn leave_old_machines(change: &mut Change<'_>) {
    let old: Vec<NodeId> = change.state.nodes().map(|row| row.id).collect();
    for node in old {
        // Losing a node refuses nothing.
        let _ = nodes::lost(change, node);
        change.state.nodes.remove(&node);
    }
    let models: Vec<String> = change.state.models.keys().cloned().collect();
    for model in models {
        change.state.models.remove(&model);
    }
}

/// Every founder holds everything.
fn live_at(change: &mut Change<'_>, founders: &[NodeId]) {
    let home = change.members(founders);
    let tasks: Vec<TaskUid> = change.state.tasks().map(|row| row.uid).collect();
    for uid in tasks {
        change.update(uid, |row| {
            row.home = home.clone().into();
            row.keepers = home.clone().into();
        });
    }
    let agents: Vec<_> = change.state.agents.keys().cloned().collect();
    for key in agents {
        change.state.agents.update(&key, |row| row.home.clone_from(&home));
    }
    let schedules: Vec<_> = change.state.schedules.keys().cloned().collect();
    for key in schedules {
        change.state.schedules.update(&key, |row| row.home.clone_from(&home));
    }
    let heads: Vec<_> = change.state.heads.keys().cloned().collect();
    for key in heads {
        change.state.heads.update(&key, |row| row.home.clone_from(&home));
    }
}

/// Its addresses for clients and its version are told when it starts.
fn row(id: NodeId, founder: &Founder) -> NodeRow {
    NodeRow {
        id,
        name: founder.name.clone(),
        roles: vec![Role::Coordinator],
        client_addr: String::new(),
        internal_addr: founder.internal_addr.clone(),
        disk_id: founder.disk_id,
        version: String::new(),
        fenced: Fenced::default(),
        closed: None,
    }
}
