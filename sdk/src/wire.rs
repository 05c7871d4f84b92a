//! Generated messages into our own values, and back where a request carries one. Nothing else sees the generated ones.

use crate::data::*;
use proto::v1;
use types::Class;

/// On the wire an empty text means "none".
fn text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

pub(crate) fn class_to_wire(class: Class) -> v1::TaskClass {
    match class {
        Class::System => v1::TaskClass::System,
        Class::Interactive => v1::TaskClass::Interactive,
        Class::Batch => v1::TaskClass::Batch,
        Class::BestEffort => v1::TaskClass::BestEffort,
    }
}

fn class_from_wire(class: v1::TaskClass) -> Class {
    match class {
        v1::TaskClass::System => Class::System,
        v1::TaskClass::Unspecified | v1::TaskClass::Interactive => Class::Interactive,
        v1::TaskClass::Batch => Class::Batch,
        v1::TaskClass::BestEffort => Class::BestEffort,
    }
}

fn state(number: i32) -> TaskState {
    match v1::TaskState::try_from(number) {
        Ok(v1::TaskState::Pending) => TaskState::Pending,
        Ok(v1::TaskState::Running) => TaskState::Running,
        Ok(v1::TaskState::WaitingTool) => TaskState::WaitingTool,
        Ok(v1::TaskState::WaitingChild) => TaskState::WaitingChild,
        Ok(v1::TaskState::WaitingInput) => TaskState::WaitingInput,
        Ok(v1::TaskState::Paused) => TaskState::Paused,
        Ok(v1::TaskState::Cancelling) => TaskState::Cancelling,
        Ok(v1::TaskState::Succeeded) => TaskState::Succeeded,
        Ok(v1::TaskState::Failed) => TaskState::Failed,
        Ok(v1::TaskState::Cancelled) => TaskState::Cancelled,
        Ok(v1::TaskState::Expired) => TaskState::Expired,
        Ok(v1::TaskState::Unspecified) | Err(_) => TaskState::Unknown,
    }
}

impl From<v1::Task> for Task {
    fn from(it: v1::Task) -> Task {
        let state = state(it.state);
        // An empty result without a hash is a real, empty result once the task has succeeded.
        let result = text(it.result)
            .or_else(|| (state == TaskState::Succeeded && it.result_hash.is_empty()).then(String::new));
        Task {
            class: class_from_wire(v1::TaskClass::try_from(it.class).unwrap_or_default()),
            id: it.id,
            project: it.project,
            agent: it.agent,
            revision: it.revision,
            labels: it.labels.into_iter().collect(),
            state,
            state_reason: it.state_reason,
            node: text(it.node),
            epoch: text(it.epoch),
            step: it.step,
            sequence: it.sequence,
            copies: it.copies,
            usage: it.usage.unwrap_or_default().into(),
            result,
            error: text(it.error),
            pending: it.pending.into_iter().map(Blocker::from).collect(),
            create_time: Time(it.create_time_ms),
            end_time: Time::set(it.end_time_ms),
            uid: it.uid,
            result_hash: text(it.result_hash),
            parent: text(it.parent),
            children: it.children,
            priority: it.priority,
            head: text(it.head),
            deadline_time: Time::set(it.deadline_ms),
            asks: it.asks.into_iter().map(Ask::from).collect(),
            forked_from: text(it.forked_from),
            forked_steps: it.forked_steps,
        }
    }
}

impl From<v1::Ask> for Ask {
    fn from(it: v1::Ask) -> Ask {
        let kind = match v1::AskKind::try_from(it.kind).unwrap_or_default() {
            v1::AskKind::Unspecified => AskKind::Other,
            v1::AskKind::Approval => AskKind::Approval,
            v1::AskKind::Question => AskKind::Question,
            v1::AskKind::Unknown => AskKind::Unknown,
            v1::AskKind::UnknownMayRepeat => AskKind::UnknownMayRepeat,
            v1::AskKind::NextMessage => AskKind::NextMessage,
        };
        Ask { id: it.id, kind, tool: it.tool, text: text(it.text) }
    }
}

impl From<v1::Schedule> for Schedule {
    fn from(it: v1::Schedule) -> Schedule {
        Schedule {
            name: it.name,
            cron: it.cron,
            agent: it.agent,
            class: class_from_wire(v1::TaskClass::try_from(it.class).unwrap_or_default()),
            priority: it.priority,
            next_time: Time::set(it.next_ms),
            last_task: text(it.last_task),
            last_error: text(it.last_error),
            fired: it.fired,
        }
    }
}

impl From<v1::MemoryItem> for Memory {
    fn from(it: v1::MemoryItem) -> Memory {
        Memory {
            id: it.id,
            project: it.project,
            scope: it.scope,
            text: it.text,
            tags: it.tags,
            source: text(it.source),
            author: it.author,
            create_time: Time(it.create_time_ms),
            replaces: it.replaces,
            summarised: it.summarised,
        }
    }
}

pub(crate) fn search_kind(kind: SearchKind) -> v1::SearchKind {
    match kind {
        SearchKind::Words => v1::SearchKind::Words,
        SearchKind::Vectors => v1::SearchKind::Vectors,
        SearchKind::Both => v1::SearchKind::Both,
    }
}

impl From<v1::SearchResponse> for Found {
    fn from(it: v1::SearchResponse) -> Found {
        let kind = match it.kind() {
            v1::SearchKind::Words => SearchKind::Words,
            v1::SearchKind::Vectors => SearchKind::Vectors,
            v1::SearchKind::Both | v1::SearchKind::Unspecified => SearchKind::Both,
        };
        let hit = |it: v1::MemoryHit| MemoryHit {
            item: it.item.unwrap_or_default().into(),
            score: it.score,
            words_score: it.words_score,
            cosine: it.cosine,
            words: it.words,
        };
        Found {
            kind,
            hits: it.hits.into_iter().map(hit).collect(),
            items: it.items,
            items_with_vectors: it.items_with_vectors,
        }
    }
}

impl From<v1::Usage> for Usage {
    fn from(it: v1::Usage) -> Usage {
        Usage {
            prompt_tokens: it.prompt_tokens,
            cached_tokens: it.cached_tokens,
            generated_tokens: it.generated_tokens,
            micro_usd: it.micro_usd,
        }
    }
}

impl From<v1::Blocker> for Blocker {
    fn from(it: v1::Blocker) -> Blocker {
        Blocker {
            reason: it.reason,
            resource: it.resource,
            requested: it.requested,
            available: it.available,
            limit: it.limit,
            message: it.message,
            borrowed_by: it.borrowed_by.into_iter().map(borrower).collect(),
        }
    }
}

fn borrower(it: v1::Borrower) -> Borrower {
    Borrower { path: it.path, amount: it.amount }
}

pub(crate) fn what_if(it: WhatIf) -> v1::WhatIf {
    v1::WhatIf { path: it.path, key: it.key, limit: it.limit }
}

impl From<v1::ExplainTaskResponse> for Explanation {
    fn from(it: v1::ExplainTaskResponse) -> Explanation {
        let verdict =
            |v: v1::NodeVerdict| NodeVerdict { node: v.node, eligible: v.eligible, reason: v.reason };
        Explanation {
            task: it.task.unwrap_or_default().into(),
            blockers: it.blockers.into_iter().map(Blocker::from).collect(),
            tasks_ahead: it.tasks_ahead,
            position: (it.position > 0).then_some(it.position),
            eta_ms: it.eta_ms,
            eta_error_ms: it.eta_error_ms,
            nodes: it.nodes.into_iter().map(verdict).collect(),
        }
    }
}

/// None for a kind of event that only a newer cluster knows, when it is a live one; committed events always count.
pub(crate) fn event(it: v1::TaskEvent) -> Option<Event> {
    use v1::task_event::Kind;
    let kind = match it.kind {
        Some(Kind::State(s)) => EventKind::State {
            state: state(s.state),
            reason: s.reason,
            node: text(s.node),
            epoch: text(s.epoch),
        },
        Some(Kind::Step(s)) => EventKind::Step {
            step: s.step,
            head: s.head,
            usage: s.usage.unwrap_or_default().into(),
            route: s.route.map(|route| StepRoute { model: route.model, reason: route.reason }),
        },
        Some(Kind::Token(t)) => EventKind::Token {
            step: t.step,
            attempt: t.attempt,
            offset: t.offset,
            tokens: t.tokens,
            text: t.text,
        },
        Some(Kind::Retract(r)) => EventKind::Retract { step: r.step, attempt: r.attempt },
        Some(Kind::Gap(g)) => EventKind::Gap { first: g.first, last: g.last },
        None if it.sequence == 0 => return None,
        None => {
            EventKind::State { state: TaskState::Unknown, reason: String::new(), node: None, epoch: None }
        }
    };
    Some(Event { task: it.task, sequence: it.sequence, at_ms: it.at_ms, kind })
}

impl From<v1::Agent> for Agent {
    fn from(it: v1::Agent) -> Agent {
        Agent {
            name: it.name,
            project: it.project,
            kind: it.kind,
            model: it.model,
            revision: it.revision,
            etag: it.etag,
            update_time: Time::set(it.update_time_ms),
            toml: it.toml,
        }
    }
}

mod quota;

pub(crate) use quota::cost_group;

fn routed(it: v1::RoutedStep) -> RoutedStep {
    let candidate = |it: v1::RouteCandidate| RouteCandidate {
        model: it.model,
        expected_micro_usd: it.expected_micro_usd,
        expected_ms: it.expected_ms,
        verdict: it.verdict,
    };
    let candidates = it.candidates.into_iter().map(candidate).collect();
    RoutedStep { step: it.step, model: it.model, reason: it.reason, candidates }
}

impl From<v1::Context> for Context {
    fn from(it: v1::Context) -> Context {
        let segment = |s: v1::Segment| Segment {
            hash: s.hash,
            kind: s.kind,
            author: s.author,
            visibility: s.visibility,
            bytes: s.bytes,
            text: s.text,
        };
        let segments = it.segments.into_iter().map(segment).collect();
        let routes = it.routes.into_iter().map(routed).collect();
        Context { task: it.task, head: it.head, segments, routes }
    }
}

impl From<v1::EvaluateContextResponse> for crate::data::Evaluation {
    fn from(it: v1::EvaluateContextResponse) -> Self {
        crate::data::Evaluation {
            report: it.report,
            suggestions: it.suggestions,
            table: it.table,
            suggested: it.suggested,
            page: it.page,
            model: it.model,
            node: it.node,
            tokens_spent: it.tokens_spent,
        }
    }
}

impl From<crate::data::RecordedCall> for v1::RecordedCall {
    fn from(it: crate::data::RecordedCall) -> v1::RecordedCall {
        let segment = |s: crate::data::RecordedSegment| v1::RecordedSegment {
            id: s.id,
            owner: s.owner,
            kind: s.kind,
            text: s.text,
            replaces: s.replaces,
        };
        v1::RecordedCall {
            name: it.name,
            segments: it.segments.into_iter().map(segment).collect(),
            reader: it.reader,
            probe: it.probe,
            action: it.action,
            withheld: it.withheld.into_iter().map(segment).collect(),
        }
    }
}

impl From<v1::SnapshotSummary> for crate::data::Snapshot {
    fn from(it: v1::SnapshotSummary) -> Self {
        crate::data::Snapshot {
            cluster_id: it.cluster_id,
            applied_index: it.applied_index,
            state_hash: it.state_hash,
            tasks: it.tasks,
            segments: it.segments,
            bytes: it.bytes,
            missing: it.missing,
        }
    }
}

impl From<v1::ClusterStatus> for ClusterStatus {
    fn from(it: v1::ClusterStatus) -> ClusterStatus {
        ClusterStatus {
            cluster_id: it.cluster_id,
            leader: text(it.leader),
            term: it.term,
            applied_index: it.applied_index,
            committed_index: it.committed_index,
            voters: it.voters,
            learners: it.learners,
            answered_by: it.answered_by,
            state_hash: it.state_hash,
            state_hash_index: it.state_hash_index,
            copies: it.copies,
            feature_level: it.feature_level,
            tasks_by_state: it.tasks_by_state.into_iter().collect(),
            warnings: it.warnings,
        }
    }
}

/// `copies` is the cluster's, shown with each node.
pub(crate) fn node(it: v1::Node, copies: u32) -> Node {
    let engines: Vec<Engine> = it.engines.into_iter().map(Engine::from).collect();
    Node {
        id: it.id,
        name: it.name,
        roles: it.roles,
        state: it.state,
        client_addr: it.client_addr,
        internal_addr: it.internal_addr,
        running: it.running,
        slots: it.slots,
        fenced_commits: it.fenced_commits,
        kv: kv(&engines),
        engines,
        copies,
        segments: it.segments,
        segment_bytes: it.segment_bytes,
        context_bytes_received: it.context_bytes_received,
        context_bytes_sent: it.context_bytes_sent,
        context_bytes_full: it.context_bytes_full,
        device: it.device.unwrap_or_default().into(),
        version: it.version,
    }
}

fn kv(engines: &[Engine]) -> Kv {
    engines.iter().fold(Kv::default(), |sum, engine| Kv {
        blocks: sum.blocks.saturating_add(engine.kv_blocks),
        blocks_used: sum.blocks_used.saturating_add(engine.kv_blocks_used),
        bytes: sum.bytes.saturating_add(engine.kv_bytes),
    })
}

impl From<v1::Engine> for Engine {
    fn from(it: v1::Engine) -> Engine {
        Engine {
            model: it.model,
            model_digest: it.model_digest,
            numerics_id: it.numerics_id,
            window: it.window,
            kernels: it.kernels,
            kv_blocks: it.kv_blocks,
            kv_blocks_used: it.kv_blocks_used,
            kv_bytes: it.kv_bytes,
            weight_bytes: it.weight_bytes,
            tokens_computed: it.tokens_computed,
            tokens_cached: it.tokens_cached,
            tokens_generated: it.tokens_generated,
            kv_tiers: it.kv_tiers.into_iter().map(|it| (it.tier, it.bytes)).collect(),
        }
    }
}

impl From<v1::Device> for Device {
    fn from(it: v1::Device) -> Device {
        Device {
            cpus: it.cpus,
            memory_bytes: it.memory_bytes,
            memory_free_bytes: it.memory_free_bytes,
            rss_bytes: it.rss_bytes,
            cpu_pressure_milli: it.cpu_pressure_milli,
            memory_pressure_milli: it.memory_pressure_milli,
            gpus: it.gpus.into_iter().map(Gpu::from).collect(),
        }
    }
}

impl From<v1::Gpu> for Gpu {
    fn from(it: v1::Gpu) -> Gpu {
        Gpu {
            uuid: it.uuid,
            name: it.name,
            memory_total_bytes: it.memory_total_bytes,
            memory_used_bytes: it.memory_used_bytes,
            utilization_percent: it.utilization_percent,
            power_milliwatts: it.power_milliwatts,
            temperature_celsius: it.temperature_celsius,
        }
    }
}

impl From<v1::Model> for Model {
    fn from(it: v1::Model) -> Model {
        Model { name: it.name, digest: it.digest, bytes: it.bytes, holders: it.holders }
    }
}
