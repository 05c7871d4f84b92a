//! Limits, prices, costs and the audit log.

use crate::data::*;
use proto::v1;

impl From<v1::Quota> for Quota {
    fn from(it: v1::Quota) -> Quota {
        Quota {
            path: it.path,
            limits: it.limits.into_iter().map(|limit| (limit.key.clone(), limit.into())).collect(),
            etag: it.etag,
            reason: it.reason,
            author: it.author,
            update_time: Time::set(it.update_time_ms),
            would_wait: it.would_wait,
        }
    }
}

impl From<v1::Limit> for Limit {
    fn from(it: v1::Limit) -> Limit {
        Limit {
            kind: kind(it.kind()),
            limit: it.limit,
            used: it.used,
            reserved: it.reserved,
            overage: it.overage,
            window_start: Time::set(it.window_start_ms),
            window_end: Time::set(it.window_end_ms),
        }
    }
}

fn kind(kind: v1::LimitKind) -> LimitKind {
    match kind {
        v1::LimitKind::Unspecified => LimitKind::Unknown,
        v1::LimitKind::Budget => LimitKind::Budget,
        v1::LimitKind::Rate => LimitKind::Rate,
        v1::LimitKind::Holding => LimitKind::Holding,
        v1::LimitKind::Weight => LimitKind::Weight,
    }
}

impl From<v1::AuditEvent> for AuditEvent {
    fn from(it: v1::AuditEvent) -> AuditEvent {
        AuditEvent {
            number: it.number,
            time: Time(it.at_ms),
            author: it.author,
            action: it.action,
            subject: it.subject,
            change: it.change,
            reason: it.reason,
        }
    }
}

impl From<v1::Price> for Price {
    fn from(it: v1::Price) -> Price {
        Price {
            model: it.model,
            input: it.input,
            cached: it.cached,
            output: it.output,
            etag: it.etag,
            reason: it.reason,
            author: it.author,
            update_time: Time::set(it.update_time_ms),
        }
    }
}

pub(crate) fn cost_group(group: CostGroup) -> v1::CostGroup {
    match group {
        CostGroup::Project => v1::CostGroup::ByProject,
        CostGroup::Agent => v1::CostGroup::ByAgent,
        CostGroup::Model => v1::CostGroup::ByModel,
        CostGroup::Task => v1::CostGroup::ByTask,
        CostGroup::Day => v1::CostGroup::ByDay,
    }
}

impl From<v1::CostLine> for CostLine {
    fn from(it: v1::CostLine) -> CostLine {
        CostLine {
            key: it.key,
            tasks: it.tasks,
            steps: it.steps,
            usage: it.usage.unwrap_or_default().into(),
            new_tokens: it.new_tokens,
            known_tokens: it.known_tokens,
            kv_block_seconds: it.kv_block_seconds,
            tool_calls: it.tool_calls,
        }
    }
}

impl From<v1::QueryCostResponse> for CostReport {
    fn from(it: v1::QueryCostResponse) -> CostReport {
        let lines = it.lines.into_iter().map(CostLine::from).collect();
        CostReport { lines, total: it.total.unwrap_or_default().into() }
    }
}
