//! Metrics that are read from the state of the node when someone asks for them.

use crate::engine_thread::EngineObserved;
use crate::gateway::local::scope_of;
use crate::node::Facts;
use crate::telemetry::{Metrics, names};
use coordinator::{Client, Coordinator};
use ledger::query::{Answer, Query};
use metrics::{counter, gauge};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use types::ProjectName;

/// Cheap to clone; empty until the node is a member.
#[derive(Clone)]
pub(crate) struct Figures {
    metrics: Metrics,
    sources: Arc<OnceLock<Sources>>,
}

struct Sources {
    client: Client,
    coordinator: Option<Coordinator>,
    facts: Facts,
}

impl Figures {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Figures { metrics, sources: Arc::default() }
    }

    pub(crate) fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    pub(crate) fn watch(&self, client: Client, coordinator: Option<Coordinator>, facts: Facts) {
        let _ = self.sources.set(Sources { client, coordinator, facts });
    }

    /// Everything as Prometheus text.
    pub(crate) async fn render(&self) -> String {
        if let Some(sources) = self.sources.get() {
            sources.read_node();
            sources.read_ledger().await;
        }
        self.metrics.render()
    }
}

impl Sources {
    fn read_node(&self) {
        use crate::link::Vitals;
        use prost::Message;
        let beat = self.facts.vitals.beat();
        gauge!(names::AGENTS).set(self.facts.vitals.leases().len() as f64);
        let device = proto::v1::Device::decode(beat.device.as_slice()).unwrap_or_default();
        if let Some(rss) = device.rss_bytes {
            gauge!(names::RESIDENT_BYTES).set(rss as f64);
        }
        self.facts.vitals.models.iter().for_each(|model| read_engine(&model.name, &model.thread.observe()));
        gauge!(names::SEGMENTS).set(beat.segments as f64);
        gauge!(names::SEGMENT_BYTES).set(beat.segment_bytes as f64);
        counter!(names::CONTEXT_BYTES_FULL_TOTAL).absolute(beat.context_bytes_full);
        let link = self.facts.link.observe();
        gauge!(names::LINK_ATTACHED).set(if link.leader.is_some() { 1.0 } else { 0.0 });
        counter!(names::LINK_ATTACHES_TOTAL).absolute(link.attaches);
        for engine in beat.engines {
            let model = engine.model;
            counter!(names::TOKENS_COMPUTED_TOTAL, "model" => model.clone()).absolute(engine.tokens_computed);
            counter!(names::TOKENS_CACHED_TOTAL, "model" => model.clone()).absolute(engine.tokens_cached);
            counter!(names::TOKENS_GENERATED_TOTAL, "model" => model).absolute(engine.tokens_generated);
        }
    }

    /// KV by project: engines know projects by their salts only, so that the names of those with a quota are tried.
    fn read_kv(&self, rows: &[ledger::rows::QuotaRow]) {
        let named = rows.iter().filter_map(|row| row.path.strip_prefix("projects/"));
        let names = named.filter_map(|name| ProjectName::parse(name).ok());
        let names = names.chain(ProjectName::parse(ProjectName::DEFAULT).ok());
        let projects: BTreeMap<[u8; 32], String> =
            names.map(|name| (scope_of(&name), name.as_str().to_owned())).collect();
        let mut sums: BTreeMap<(String, u8, &'static str), u64> = BTreeMap::new();
        for held in self.facts.vitals.models.iter().flat_map(|model| model.thread.observe().kv) {
            let project = projects.get(&held.scope).cloned().unwrap_or_else(|| "other".into());
            *sums.entry((project, held.class, held.tier)).or_default() += held.bytes;
        }
        for ((project, class, tier), bytes) in sums {
            gauge!(names::KV_BYTES, "project" => project, "class" => class_name(class), "tier" => tier)
                .set(bytes as f64);
        }
    }

    async fn read_ledger(&self) {
        if let Some(coordinator) = &self.coordinator {
            let status = coordinator.raft().status();
            gauge!(names::IS_LEADER).set(if status.is_leader { 1.0 } else { 0.0 });
            gauge!(names::APPLIED_INDEX).set(status.applied as f64);
        }
        if let Ok((Answer::Cluster(facts), _, _)) = self.client.read_stale(Query::Cluster).await {
            for (state, tasks) in facts.tasks_by_state {
                gauge!(names::TASKS, "project" => "all", "state" => state).set(tasks as f64);
            }
            gauge!(names::QUEUE_AGE_SECONDS, "class" => "all").set(facts.queue_age_ms as f64 / 1000.0);
        }
        if let Ok((Answer::Quotas(rows), _, _)) = self.client.read_stale(Query::Quotas).await {
            let wall_ms = crate::door::now_ms();
            rows.iter().for_each(|row| read_quota(row, wall_ms));
            self.read_kv(&rows);
        }
        if let Ok((Answer::Nodes(rows), _, _)) = self.client.read_stale(Query::Nodes).await {
            let sum = |kind: fn(&ledger::rows::Fenced) -> u64| {
                rows.iter().map(|row| kind(&row.fenced)).sum::<u64>()
            };
            counter!(names::FENCED_TOTAL, "kind" => "commit").absolute(sum(|fenced| fenced.commits));
            counter!(names::FENCED_TOTAL, "kind" => "reservation")
                .absolute(sum(|fenced| fenced.reservations));
            counter!(names::FENCED_TOTAL, "kind" => "spawn").absolute(sum(|fenced| fenced.spawns));
        }
    }
}

fn read_engine(model: &str, observed: &EngineObserved) {
    for (reason, blocks) in &observed.evictions {
        counter!(names::KV_EVICTIONS_TOTAL, "reason" => *reason).absolute(*blocks);
    }
    for (tier, bytes) in &observed.kv_restored {
        counter!(names::KV_RESTORED_BYTES_TOTAL, "tier" => *tier).absolute(*bytes);
    }
    for (verb, outcome, count) in &observed.verbs {
        counter!(names::KV_VERBS_TOTAL, "verb" => *verb, "outcome" => *outcome).absolute(*count);
    }
    counter!(names::SEQUENCES_PREEMPTED_TOTAL).absolute(observed.preempted);
    counter!(names::TOKENS_DRAFTED_TOTAL, "model" => model.to_owned()).absolute(observed.tokens_drafted);
    counter!(names::TOKENS_ACCEPTED_TOTAL, "model" => model.to_owned()).absolute(observed.tokens_accepted);
    counter!(names::STEPS_SKETCHED_TOTAL, "model" => model.to_owned()).absolute(observed.steps_sketched);
    counter!(names::TOKENS_RECOMPUTED_TOTAL, "model" => model.to_owned())
        .absolute(observed.tokens_recomputed);
}

fn class_name(class: u8) -> &'static str {
    match class {
        0 => "system",
        1 => "interactive",
        2 => "batch",
        _ => "best-effort",
    }
}

/// Paths are places with limits or use: bounded by the projects and agents that people made. Places of single tasks are
/// left out, and so are destinations, which would have no bound.
fn read_quota(row: &ledger::rows::QuotaRow, wall_ms: u64) {
    if row.path.starts_with("tasks/") {
        return;
    }
    let clock = ledger::command::Stamp { ledger_ms: 0, wall_ms };
    for (key, limit, used, reserved) in row.facts(clock) {
        let key = key.to_string();
        if key.contains(':') {
            continue;
        }
        let labels = [("path", row.path.clone()), ("key", key)];
        gauge!(names::QUOTA_USED, &labels).set(used.saturating_add(reserved) as f64);
        if let Some(limit) = limit {
            gauge!(names::QUOTA_LIMIT, &labels).set(limit as f64);
        }
    }
}
