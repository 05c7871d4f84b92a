//! Members of the cluster and the models they hold. Who is up is not known here: the leader says so by commands.

use crate::calls;
use crate::change::{Change, check_name, check_text, invalid, not_found};
use crate::command::{Removal, RequestKey};
use crate::effect::Effect;
use crate::reply::{Refusal, Reply};
use crate::requests::Memory;
use crate::rows::{Closed, Fenced, ModelRow, NodeRow, Role, TaskRow};
use types::{ClusterId, Hash, NodeId, TaskState, TaskUid};

/// Models one node may report: far above what fits a disk.
const MODELS_PER_NODE: usize = 256;
/// Where requests to remove a node are remembered: not with the node, which is gone then.
const REMOVALS: &str = "nodes";

type Outcome = Result<Reply, Refusal>;

pub(crate) fn init_cluster(change: &mut Change<'_>, cluster_id: ClusterId) -> Outcome {
    match change.state.cluster_id() {
        Some(known) if known == cluster_id => Ok(Reply::Done),
        Some(_) => Err(Refusal::AlreadyInitialised),
        None => {
            change.state.update_meta(|meta| {
                meta.cluster_id = Some(cluster_id);
                meta.incarnation = 1;
            });
            Ok(Reply::Done)
        }
    }
}

pub(crate) struct Candidate<'a> {
    pub name: &'a str,
    pub roles: &'a [Role],
    pub client_addr: &'a str,
    pub internal_addr: &'a str,
    pub disk_id: [u8; 16],
    pub version: &'a str,
}

/// A known name on its own disk keeps its id; a known name on another disk is somebody else or has lost its data.
pub(crate) fn admit(change: &mut Change<'_>, new: &Candidate<'_>) -> Outcome {
    check_candidate(new)?;
    let known = change.state.nodes().find(|row| row.name == new.name || row.disk_id == new.disk_id).cloned();
    let (id, fenced, closed) = match known {
        Some(row) if row.name != new.name => {
            return Err(invalid(
                "disk",
                format!("belongs to {} ({}); remove that node first", row.name, row.id),
            ));
        }
        Some(row) if row.disk_id != new.disk_id => {
            return Err(Refusal::NameTaken { name: row.name, node: row.id });
        }
        Some(row) => (row.id, row.fenced, row.closed),
        None => (new_id(change)?, Fenced::default(), None),
    };
    change.state.nodes.insert(id, NodeRow { closed, ..node_row(id, new, fenced) });
    change.effect(Effect::Members);
    change.replan();
    Ok(Reply::Node(id))
}

/// The log index, so that no id is ever given twice. The first member of a cluster is always n1: its consensus has to
/// run, under an id, before there is a log to take one from.
fn new_id(change: &mut Change<'_>) -> Result<NodeId, Refusal> {
    let last = change.state.meta().last_node;
    let id = if last == 0 { 1 } else { change.place.index };
    if id <= last {
        return Err(invalid("node", "another one was admitted by the same log entry; ask again"));
    }
    change.state.update_meta(|meta| meta.last_node = id);
    Ok(NodeId(id))
}

fn check_candidate(new: &Candidate<'_>) -> Result<(), Refusal> {
    check_name("node name", new.name)?;
    check_name("internal address", new.internal_addr)?;
    check_text("client address", new.client_addr)?;
    check_text("version", new.version)?;
    if new.roles.is_empty() || new.roles.len() > 2 {
        return Err(invalid("roles", "a node is a coordinator, a worker, or both; name each role once"));
    }
    Ok(())
}

fn node_row(id: NodeId, new: &Candidate<'_>, fenced: Fenced) -> NodeRow {
    NodeRow {
        id,
        name: new.name.to_string(),
        roles: new.roles.to_vec(),
        client_addr: new.client_addr.to_string(),
        internal_addr: new.internal_addr.to_string(),
        disk_id: new.disk_id,
        version: new.version.to_string(),
        fenced,
        closed: None,
    }
}

/// The node's leases end. Also when it is no member any more: the leader may repeat itself.
pub(crate) fn lost(change: &mut Change<'_>, node: NodeId) -> Outcome {
    // Its lease as a node is over, and with it all that it was granted before: it needs not be waited for. First,
    // so that no old lease of it stands again below.
    let unaware: Vec<TaskUid> =
        change.state.tasks.index().unaware.get(&node).into_iter().flatten().copied().collect();
    for uid in unaware {
        change.update(uid, |row| {
            let stands = row.epoch;
            row.unaware.retain(|holder| holder.node != node || stands == Some(holder.epoch));
        });
    }
    let leases: Vec<TaskUid> = change.state.leases_of(node).map(|row| row.uid).collect();
    for uid in leases {
        lose(change, uid);
    }
    calls::lose_all_of(change, node);
    Ok(Reply::Done)
}

fn lose(change: &mut Change<'_>, uid: TaskUid) {
    if change.row(uid).state == TaskState::Cancelling {
        return change.confirm_stop(uid);
    }
    change.end_lease(uid);
    change.enter(uid, TaskState::Pending, "node-lost");
}

/// Takes a member out for good. Asked again under the same request id it is answered as the first time, also when its
/// name leads nowhere any more.
pub(crate) fn remove(change: &mut Change<'_>, node: NodeId, wish: Option<&Removal>) -> Outcome {
    let Some(wish) = wish else { return take_out(change, node) };
    check_text("reason", &wish.reason)?;
    if let Some(reply) = change.recall(&wish.request, REMOVALS)? {
        return Ok(reply);
    }
    let scope = format!("nodes/{node}");
    let row = change.state.node(node).ok_or_else(|| not_found("node", &node.to_string()))?;
    let what = format!("{} -> removed", row.name);
    take_out(change, node)?;
    change.audit(&wish.request.author, "node.remove", &scope, &what, &wish.reason);
    change.remember(&wish.request, REMOVALS, Memory::Reply(Box::new(Reply::Node(node))));
    Ok(Reply::Node(node))
}

fn take_out(change: &mut Change<'_>, node: NodeId) -> Outcome {
    if change.state.node(node).is_none() {
        return Ok(Reply::Done);
    }
    lost(change, node)?;
    forget_copies(change, node);
    hold(change, node, &[]);
    change.state.nodes.remove(&node);
    change.effect(Effect::Members);
    Ok(Reply::Done)
}

/// What a removed node kept is gone: no task or agent may be sent there for it.
fn forget_copies(change: &mut Change<'_>, node: NodeId) {
    let keeps = |home: &[NodeId], keepers: &[NodeId]| home.contains(&node) || keepers.contains(&node);
    let tasks: Vec<TaskUid> =
        change.state.tasks().filter(|row| keeps(&row.home, &row.keepers)).map(|row| row.uid).collect();
    for uid in tasks {
        change.update(uid, |row| {
            row.home = row.home.iter().copied().filter(|kept| *kept != node).collect();
            row.keepers = row.keepers.iter().copied().filter(|kept| *kept != node).collect();
        });
    }
    let agents: Vec<_> = change
        .state
        .agents
        .iter()
        .filter(|(_, row)| row.home.contains(&node))
        .map(|(key, _)| key.clone())
        .collect();
    for key in agents {
        change.state.agents.update(&key, |row| row.home.retain(|kept| *kept != node));
    }
}

/// The full list of what a node holds replaces its last one. A name means one file in the whole cluster: a node that
/// reports another file under a name that others hold is refused for that name; its other models are taken.
pub(crate) fn hold_models(change: &mut Change<'_>, node: NodeId, models: &[(String, Hash, u64)]) -> Outcome {
    if change.state.node(node).is_none() {
        return Err(not_found("node", &node.to_string()));
    }
    if models.len() > MODELS_PER_NODE {
        return Err(invalid(
            "models",
            format!("{} reported, at most {MODELS_PER_NODE} are kept", models.len()),
        ));
    }
    for (name, _, _) in models {
        check_name("model name", name)?;
    }
    let (good, bad): (Vec<_>, Vec<_>) =
        models.iter().partition(|model| conflict(change, node, model).is_none());
    hold(change, node, &good);
    change.replan();
    match bad.first() {
        None => Ok(Reply::Done),
        Some(model) => Err(invalid("model", conflict(change, node, model).unwrap_or_default())),
    }
}

/// Why the node may not hold this file under this name.
fn conflict(change: &Change<'_>, node: NodeId, (name, digest, _): &(String, Hash, u64)) -> Option<String> {
    let row = change.state.models.get(name)?;
    let holder = row.holders.iter().find(|holder| **holder != node)?;
    (row.digest != *digest).then(|| {
        format!(
            "{name} is file {} on {holder} but {} on {node}; give one of the two another name",
            row.digest.short(),
            digest.short()
        )
    })
}

fn hold(change: &mut Change<'_>, node: NodeId, models: &[&(String, Hash, u64)]) {
    let dropped: Vec<ModelRow> = change
        .state
        .models
        .values()
        .filter(|row| row.holders.contains(&node) && !models.iter().any(|(name, ..)| *name == row.name))
        .cloned()
        .collect();
    for mut row in dropped {
        row.holders.retain(|holder| *holder != node);
        if row.holders.is_empty() {
            change.state.models.remove(&row.name);
        } else {
            change.state.models.insert(row.name.clone(), row);
        }
    }
    for (name, digest, bytes) in models {
        let mut holders = change.state.models.get(name).map_or_else(Vec::new, |row| row.holders.clone());
        if !holders.contains(&node) {
            holders.push(node);
            holders.sort_unstable();
        }
        let row = ModelRow { name: name.clone(), digest: *digest, bytes: *bytes, holders };
        change.state.models.insert(name.clone(), row);
    }
}

pub(crate) struct Closing<'a> {
    pub closed: Option<Closed>,
    pub grace_ms: u64,
    pub reason: &'a str,
    pub request: &'a RequestKey,
}

/// Closes a node to new tasks or opens it again. Draining asks everything that runs there to move.
pub(crate) fn close(change: &mut Change<'_>, node: NodeId, closing: &Closing<'_>) -> Result<Reply, Refusal> {
    check_text("reason", closing.reason)?;
    let scope = format!("nodes/{node}");
    if let Some(reply) = change.recall(closing.request, &scope)? {
        return Ok(reply);
    }
    let before = change.state.node(node).ok_or_else(|| not_found("node", &node.to_string()))?.closed;
    change.state.nodes.update(&node, |row| row.closed = closing.closed);
    if closing.closed == Some(Closed::Draining) {
        let by_ms = change.state.ledger_ms().saturating_add(closing.grace_ms);
        let running = |row: &&TaskRow| matches!(row.state, TaskState::Running | TaskState::WaitingTool);
        let leases: Vec<TaskUid> = change.state.leases_of(node).filter(running).map(|row| row.uid).collect();
        for uid in leases {
            change.update(uid, |row| row.yield_by_ms = Some(by_ms));
        }
    }
    let shown = |closed: Option<Closed>| match closed {
        None => "open",
        Some(Closed::Cordoned) => "cordoned",
        Some(Closed::Draining) => "draining",
    };
    let what = format!("{} -> {}", shown(before), shown(closing.closed));
    change.audit(&closing.request.author, "node.close", &scope, &what, closing.reason);
    change.remember(closing.request, &scope, Memory::Reply(Box::new(Reply::Node(node))));
    change.replan();
    Ok(Reply::Node(node))
}
