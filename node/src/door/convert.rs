//! Rows of the ledger as messages of the API, and back.

use crate::members::Members;
use ledger::command::Stamp;
use ledger::query::Blocker;
use ledger::rows::{AgentKind, AgentRow, Event, EventKind, ModelRow, QuotaKey, QuotaRow, TaskRow};
use proto::v1 as pb;
use types::{Class, PauseReason, Spent, TaskState};

pub(crate) fn state(state: TaskState) -> pb::TaskState {
    match state {
        TaskState::Pending => pb::TaskState::Pending,
        TaskState::Running => pb::TaskState::Running,
        TaskState::WaitingTool => pb::TaskState::WaitingTool,
        TaskState::WaitingChild => pb::TaskState::WaitingChild,
        TaskState::WaitingInput => pb::TaskState::WaitingInput,
        TaskState::Paused(_) => pb::TaskState::Paused,
        TaskState::Cancelling => pb::TaskState::Cancelling,
        TaskState::Succeeded => pb::TaskState::Succeeded,
        TaskState::Failed => pb::TaskState::Failed,
        TaskState::Cancelled => pb::TaskState::Cancelled,
        TaskState::Expired => pb::TaskState::Expired,
    }
}

/// `BUDGET: tokens_total`, `USER`, `node-lost`: the kind of pause in front, the ledger's own word behind it.
pub(crate) fn state_reason(state: TaskState, reason: &str) -> String {
    let pause = match state {
        TaskState::Paused(PauseReason::User) => "USER",
        TaskState::Paused(PauseReason::Budget) => "BUDGET",
        TaskState::Paused(PauseReason::Drain) => "DRAIN",
        TaskState::Paused(PauseReason::Error) => "ERROR",
        _ => return reason.to_string(),
    };
    if reason.is_empty() { pause.to_string() } else { format!("{pause}: {reason}") }
}

pub(crate) fn class(class: Class) -> pb::TaskClass {
    match class {
        Class::System => pb::TaskClass::System,
        Class::Interactive => pb::TaskClass::Interactive,
        Class::Batch => pb::TaskClass::Batch,
        Class::BestEffort => pb::TaskClass::BestEffort,
    }
}

pub(crate) fn class_from(class: pb::TaskClass) -> Class {
    match class {
        pb::TaskClass::System => Class::System,
        pb::TaskClass::Unspecified | pb::TaskClass::Interactive => Class::Interactive,
        pb::TaskClass::Batch => Class::Batch,
        pb::TaskClass::BestEffort => Class::BestEffort,
    }
}

pub(crate) fn usage(spent: Spent) -> pb::Usage {
    pb::Usage {
        prompt_tokens: spent.prompt_tokens,
        cached_tokens: spent.cached_tokens,
        generated_tokens: spent.generated_tokens,
        micro_usd: spent.micro_usd,
    }
}

/// A task without the texts of its result and error, which are segments.
pub(crate) fn task(row: &TaskRow, members: &Members) -> pb::Task {
    let uid = row.uid.to_string();
    pb::Task {
        id: row.task_id.clone().unwrap_or_else(|| uid.clone()),
        uid,
        project: row.project.to_string(),
        agent: row.agent.clone(),
        revision: row.revision.to_string(),
        labels: row.labels.iter().cloned().collect(),
        state: state(row.state).into(),
        state_reason: state_reason(row.state, &row.reason),
        node: row.node.map(|id| members.name(id)).unwrap_or_default(),
        epoch: row.epoch.map(|epoch| epoch.to_string()).unwrap_or_default(),
        step: row.step,
        sequence: row.sequence,
        copies: row.home.len() as u32,
        usage: Some(usage(row.spent)),
        result: String::new(),
        result_hash: row.result.map(|hash| hash.to_string()).unwrap_or_default(),
        error: String::new(),
        pending: Vec::new(),
        create_time_ms: row.created_ms,
        end_time_ms: row.ended_ms,
        parent: row.origin.map(|origin| origin.parent.to_string()).unwrap_or_default(),
        class: class(row.class).into(),
        priority: row.priority.into(),
        children: row.children.iter().map(ToString::to_string).collect(),
        head: row.head.map(|hash| hash.to_string()).unwrap_or_default(),
        deadline_ms: row.deadline_ms,
    }
}

pub(crate) fn blocker(blocker: Blocker) -> pb::Blocker {
    pb::Blocker {
        reason: blocker.reason,
        resource: blocker.resource,
        requested: blocker.requested,
        available: blocker.available,
        limit: blocker.limit,
        message: blocker.message,
    }
}

pub(crate) fn event(task: &str, event: &Event, members: &Members) -> pb::TaskEvent {
    let kind = match &event.kind {
        EventKind::State { state: to, reason, node, epoch } => pb::task_event::Kind::State(pb::StateChange {
            state: state(*to).into(),
            reason: state_reason(*to, reason),
            node: node.map(|id| members.name(id)).unwrap_or_default(),
            epoch: epoch.map(|epoch| epoch.to_string()).unwrap_or_default(),
        }),
        EventKind::Step { step, head, spent } => pb::task_event::Kind::Step(pb::StepCommitted {
            step: *step,
            head: head.to_string(),
            usage: Some(usage(*spent)),
        }),
    };
    pb::TaskEvent { task: task.to_string(), sequence: event.sequence, at_ms: event.at_ms, kind: Some(kind) }
}

pub(crate) fn agent(row: &AgentRow, toml: String) -> pb::Agent {
    pb::Agent {
        project: row.project.to_string(),
        name: row.name.clone(),
        kind: match row.kind {
            AgentKind::Agent => "agent".into(),
            AgentKind::Team => "team".into(),
        },
        model: row.model.clone(),
        revision: row.revision.to_string(),
        etag: row.etag.to_string(),
        toml,
        update_time_ms: row.updated_ms,
    }
}

/// The place with every key that is set or used, as it stands at `wall_ms`; the row's buckets are filled already.
pub(crate) fn quota(row: &QuotaRow, wall_ms: u64) -> pb::Quota {
    let clock = Stamp { ledger_ms: 0, wall_ms };
    let limit = |(key, limit, used, reserved): (QuotaKey, Option<u64>, u64, u64)| pb::Limit {
        key: key.to_string(),
        limit,
        used,
        reserved,
    };
    pb::Quota {
        path: row.path.clone(),
        limits: row.facts(clock).into_iter().map(limit).collect(),
        etag: row.etag.to_string(),
        reason: row.reason.clone(),
        author: row.author.clone(),
        update_time_ms: row.updated_ms,
    }
}

pub(crate) fn model(row: &ModelRow, members: &Members) -> pb::Model {
    pb::Model {
        name: row.name.clone(),
        digest: row.digest.to_string(),
        bytes: row.bytes,
        holders: row.holders.iter().map(|id| members.name(*id)).collect(),
    }
}
