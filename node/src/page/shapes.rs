//! What the page's script is sent: the API's values with the names of the command line's JSON.

use super::lines::{Leaf, Line};
use crate::door::Door;
use proto::v1 as pb;
use serde::Serialize;
use serde_json::{Value, json};

/// A line of a list. `uid` leads to the task, `id` is its name for people.
#[derive(Serialize)]
pub(crate) struct Row<'a> {
    uid: String,
    id: &'a str,
    agent: &'a str,
    class: &'static str,
    priority: u8,
    state: &'static str,
    reason: String,
    node: Option<String>,
    step: u64,
    tokens: u64,
    cached_tokens: u64,
    micro_usd: u64,
    created_ms: u64,
    ended_ms: u64,
    parent: Option<String>,
    children: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    depth: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a Why>,
}

impl<'a> Row<'a> {
    pub(crate) fn of(line: &'a Line, door: &Door) -> Row<'a> {
        Row {
            uid: line.uid.to_string(),
            id: &line.id,
            agent: &line.agent,
            class: line.class.name(),
            priority: line.priority,
            state: line.state.name(),
            reason: line.reason(),
            node: line.node.map(|id| door.node_name(id)),
            step: line.step,
            tokens: line.tokens,
            cached_tokens: line.cached_tokens,
            micro_usd: line.micro_usd,
            created_ms: line.created_ms,
            ended_ms: line.ended_ms,
            parent: line.parent.map(|uid| uid.to_string()),
            children: line.children,
            depth: None,
            why: None,
        }
    }

    pub(crate) fn in_tree(leaf: Leaf<'a>, door: &Door) -> Row<'a> {
        Row { depth: Some(leaf.depth), ..Row::of(leaf.line, door) }
    }

    pub(crate) fn because(self, why: Option<&'a Why>) -> Row<'a> {
        Row { why, ..self }
    }
}

/// What holds a task, and when it may start.
#[derive(Serialize)]
pub(crate) struct Why {
    blockers: Vec<Value>,
    nodes: Vec<Value>,
    position: u64,
    eta_ms: Option<u64>,
}

impl Why {
    pub(crate) fn of(it: &pb::ExplainTaskResponse) -> Why {
        let node =
            |it: &pb::NodeVerdict| json!({ "node": it.node, "eligible": it.eligible, "reason": it.reason });
        Why {
            blockers: it.blockers.iter().map(blocker).collect(),
            nodes: it.nodes.iter().map(node).collect(),
            position: it.position,
            eta_ms: it.eta_ms,
        }
    }
}

/// Without who borrows: answers are shared by callers who may see different projects.
fn blocker(it: &pb::Blocker) -> Value {
    json!({
        "reason": it.reason, "resource": it.resource, "requested": it.requested, "available": it.available,
        "limit": it.limit, "message": it.message,
    })
}

pub(crate) fn cluster(it: &pb::ClusterStatus) -> Value {
    json!({
        "cluster_id": it.cluster_id, "leader": it.leader, "term": it.term, "applied_index": it.applied_index,
        "committed_index": it.committed_index, "voters": it.voters, "learners": it.learners,
        "answered_by": it.answered_by, "copies": it.copies, "feature_level": it.feature_level,
        "tasks_by_state": it.tasks_by_state.iter().collect::<std::collections::BTreeMap<_, _>>(),
        "warnings": it.warnings,
    })
}

pub(crate) fn node(it: &pb::Node) -> Value {
    let device = it.device.clone().unwrap_or_default();
    json!({
        "id": it.id, "name": it.name, "roles": it.roles, "client_addr": it.client_addr, "state": it.state,
        "running": it.running, "slots": it.slots, "version": it.version, "fenced_commits": it.fenced_commits,
        "segments": it.segments, "segment_bytes": it.segment_bytes,
        "context_bytes_received": it.context_bytes_received, "context_bytes_sent": it.context_bytes_sent,
        "context_bytes_full": it.context_bytes_full,
        "device": {
            "cpus": device.cpus, "memory_bytes": device.memory_bytes,
            "memory_free_bytes": device.memory_free_bytes, "rss_bytes": device.rss_bytes,
            "cpu_pressure_milli": device.cpu_pressure_milli,
            "memory_pressure_milli": device.memory_pressure_milli,
            "gpus": device.gpus.iter().map(gpu).collect::<Vec<_>>(),
        },
        "engines": it.engines.iter().map(engine).collect::<Vec<_>>(),
    })
}

fn gpu(it: &pb::Gpu) -> Value {
    json!({
        "name": it.name, "memory_total_bytes": it.memory_total_bytes, "memory_used_bytes": it.memory_used_bytes,
        "utilization_percent": it.utilization_percent,
    })
}

fn engine(it: &pb::Engine) -> Value {
    let tier = |it: &pb::KvTier| json!({ "tier": it.tier, "bytes": it.bytes });
    json!({
        "model": it.model, "window": it.window, "kernels": it.kernels, "kv_blocks": it.kv_blocks,
        "kv_blocks_used": it.kv_blocks_used, "kv_bytes": it.kv_bytes, "weight_bytes": it.weight_bytes,
        "tokens_computed": it.tokens_computed, "tokens_cached": it.tokens_cached,
        "tokens_generated": it.tokens_generated, "kv_tiers": it.kv_tiers.iter().map(tier).collect::<Vec<_>>(),
    })
}

pub(crate) fn usage(it: Option<pb::Usage>) -> Value {
    let it = it.unwrap_or_default();
    json!({
        "prompt_tokens": it.prompt_tokens, "cached_tokens": it.cached_tokens,
        "generated_tokens": it.generated_tokens, "micro_usd": it.micro_usd,
    })
}

pub(crate) fn task(it: &pb::Task) -> Value {
    let ask = |ask: &pb::Ask| json!({ "id": ask.id, "kind": ask.kind().as_str_name(), "tool": ask.tool, "text": ask.text });
    json!({
        "uid": it.uid, "id": it.id, "project": it.project, "agent": it.agent, "revision": it.revision,
        "labels": it.labels.iter().collect::<std::collections::BTreeMap<_, _>>(),
        "state": it.state().as_str_name(), "reason": it.state_reason, "node": it.node, "epoch": it.epoch,
        "step": it.step, "sequence": it.sequence, "copies": it.copies, "usage": usage(it.usage),
        "result": it.result, "result_hash": it.result_hash, "error": it.error,
        "class": it.class().as_str_name().to_lowercase().replace('_', "-"), "priority": it.priority,
        "created_ms": it.create_time_ms, "ended_ms": it.end_time_ms, "deadline_ms": it.deadline_ms,
        "parent": it.parent, "children": it.children.len(), "head": it.head, "forked_from": it.forked_from,
        "asks": it.asks.iter().map(ask).collect::<Vec<_>>(),
        "blockers": it.pending.iter().map(blocker).collect::<Vec<_>>(),
    })
}

pub(crate) fn quota(it: &pb::Quota) -> Value {
    let limit = |it: &pb::Limit| {
        json!({
            "key": it.key, "limit": it.limit, "used": it.used, "reserved": it.reserved, "overage": it.overage,
            "kind": it.kind().as_str_name().to_lowercase(), "window_end_ms": it.window_end_ms,
        })
    };
    json!({
        "path": it.path, "reason": it.reason, "author": it.author, "updated_ms": it.update_time_ms,
        "limits": it.limits.iter().map(limit).collect::<Vec<_>>(),
    })
}
