//! Rows of the ledger as messages of the API, and back.

use crate::members::Members;
use coordinator::CostLine;
use ledger::command::Stamp;
use ledger::keys::{Budget, Window};
use ledger::query::Blocker;
use ledger::rows::{
    AgentKind, AgentRow, Ask, AskKind, AuditRow, BudgetRow, Event, EventKind, ModelRow, PriceRow, QuotaKey,
    QuotaRow, ScheduleRow, SignalKind, TaskRow,
};
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
        id: row.task_id.as_deref().unwrap_or(&uid).to_string(),
        uid,
        project: row.project.to_string(),
        agent: row.agent.to_string(),
        revision: row.revision.to_string(),
        labels: row.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
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
        asks: row.talk.iter().flat_map(|talk| &talk.asks).map(ask).collect(),
        forked_from: row.fork.as_ref().map(|fork| fork.task.to_string()).unwrap_or_default(),
        forked_steps: row.fork.as_ref().map_or(0, |fork| fork.step),
    }
}

fn ask(ask: &Ask) -> pb::Ask {
    let kind = match ask.kind {
        AskKind::Approval => pb::AskKind::Approval,
        AskKind::Question => pb::AskKind::Question,
        AskKind::Unknown => pb::AskKind::Unknown,
        AskKind::UnknownMayRepeat => pb::AskKind::UnknownMayRepeat,
        AskKind::Message => pb::AskKind::NextMessage,
    };
    pb::Ask {
        id: ask.id.clone(),
        kind: kind.into(),
        tool: ask.about.clone(),
        text: String::new(),
        text_hash: ask.text.map(|hash| hash.to_string()).unwrap_or_default(),
    }
}

pub(crate) fn signal_kind(kind: pb::SignalKind) -> Option<SignalKind> {
    Some(match kind {
        pb::SignalKind::Unspecified => return None,
        pb::SignalKind::Approve => SignalKind::Approve,
        pb::SignalKind::Reject => SignalKind::Reject,
        pb::SignalKind::Answer => SignalKind::Answer,
        pb::SignalKind::Repeat => SignalKind::Repeat,
        pb::SignalKind::Message => SignalKind::Message,
        pb::SignalKind::Enqueue => SignalKind::Enqueue,
        pb::SignalKind::Interrupt => SignalKind::Interrupt,
        pb::SignalKind::Rollback => SignalKind::Rollback,
    })
}

pub(crate) fn schedule(row: &ScheduleRow) -> pb::Schedule {
    pb::Schedule {
        project: row.project.to_string(),
        name: row.name.clone(),
        cron: row.cron.clone(),
        agent: row.agent.clone(),
        inputs: row.inputs.iter().map(|input| input.name.to_string()).collect(),
        class: class(row.class).into(),
        priority: row.priority.into(),
        next_ms: row.next_ms,
        last_task: row.last_task.map(|uid| uid.to_string()).unwrap_or_default(),
        last_error: row.last_error.clone(),
        fired: row.fired,
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
        borrowed_by: blocker.borrowed_by.into_iter().flatten().map(borrower).collect(),
    }
}

/// As a task carries it: who borrows is for `ExplainTask`, which knows who asks.
pub(crate) fn short_blocker(it: Blocker) -> pb::Blocker {
    blocker(Blocker { borrowed_by: None, ..it })
}

fn borrower((path, amount): (String, u64)) -> pb::Borrower {
    pb::Borrower { path, amount }
}

pub(crate) fn event(task: &str, event: &Event, members: &Members) -> pb::TaskEvent {
    let kind = match &event.kind {
        EventKind::State { state: to, reason, node, epoch } => pb::task_event::Kind::State(pb::StateChange {
            state: state(*to).into(),
            reason: state_reason(*to, reason),
            node: node.map(|id| members.name(id)).unwrap_or_default(),
            epoch: epoch.map(|epoch| epoch.to_string()).unwrap_or_default(),
        }),
        EventKind::Step { step, head, spent, route } => pb::task_event::Kind::Step(pb::StepCommitted {
            step: *step,
            head: head.to_string(),
            usage: Some(usage(*spent)),
            route: route
                .as_ref()
                .map(|route| pb::StepRoute { model: route.model.clone(), reason: route.reason.clone() }),
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
    let budgets = row.budgets_at(wall_ms);
    let facts = row.facts(Stamp { ledger_ms: 0, wall_ms });
    pb::Quota {
        path: row.path.clone(),
        limits: facts.into_iter().map(|fact| limit(fact, &budgets)).collect(),
        etag: row.etag.to_string(),
        reason: row.reason.clone(),
        author: row.author.clone(),
        update_time_ms: row.updated_ms,
        would_wait: Vec::new(),
    }
}

fn limit(
    (key, limit, used, reserved): (QuotaKey, Option<u64>, u64, u64),
    budgets: &[BudgetRow],
) -> pb::Limit {
    let named = match &key {
        QuotaKey::TokensTotal => Some((Budget::Tokens, Window::Total)),
        QuotaKey::Budget(budget, window) => Some((*budget, *window)),
        _ => None,
    };
    let row = named.and_then(|named| budgets.iter().find(|row| (row.budget, row.window) == named));
    let bounds = row.filter(|row| row.window != Window::Total).map(|row| (row.opens_ms, row.closes_ms));
    let (window_start_ms, window_end_ms) = bounds.unwrap_or_default();
    pb::Limit {
        key: key.to_string(),
        limit,
        used,
        reserved,
        kind: limit_kind(&key).into(),
        window_start_ms,
        window_end_ms,
        overage: row.map_or(0, |row| row.overage),
    }
}

fn limit_kind(key: &QuotaKey) -> pb::LimitKind {
    match key {
        QuotaKey::TokensTotal | QuotaKey::Budget(..) => pb::LimitKind::Budget,
        QuotaKey::TokensMinute | QuotaKey::RequestsMinute => pb::LimitKind::Rate,
        QuotaKey::Running | QuotaKey::Holding(..) => pb::LimitKind::Holding,
        QuotaKey::Weight => pb::LimitKind::Weight,
    }
}

pub(crate) fn price(row: &PriceRow) -> pb::Price {
    pb::Price {
        model: row.model.clone(),
        input: row.price.input,
        cached: row.price.cached,
        output: row.price.output,
        etag: row.version.to_string(),
        reason: row.reason.clone(),
        author: row.author.clone(),
        update_time_ms: row.updated_ms,
    }
}

pub(crate) fn cost_line(line: CostLine) -> pb::CostLine {
    pb::CostLine {
        key: line.key,
        tasks: line.tasks,
        steps: line.steps,
        usage: Some(usage(line.spent)),
        new_tokens: line.new_tokens,
        known_tokens: line.known_tokens,
        kv_block_seconds: line.kv_block_seconds,
        tool_calls: line.tool_calls,
    }
}

pub(crate) fn audit(row: &AuditRow) -> pb::AuditEvent {
    pb::AuditEvent {
        number: row.number,
        at_ms: row.at_ms,
        author: row.author.clone(),
        action: row.action.clone(),
        subject: row.subject.clone(),
        change: row.change.clone(),
        reason: row.reason.clone(),
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
