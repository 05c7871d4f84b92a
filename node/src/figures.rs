//! Metrics that are read from the state of the node when someone asks for them.

use crate::node::Facts;
use crate::telemetry::{Metrics, names};
use coordinator::{Client, Coordinator};
use ledger::query::{Answer, Query};
use metrics::{counter, gauge};
use std::sync::{Arc, OnceLock};

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
        let device = proto::v1::Device::decode(beat.device.as_slice()).unwrap_or_default();
        if let Some(rss) = device.rss_bytes {
            gauge!(names::RESIDENT_BYTES).set(rss as f64);
        }
        for (reason, blocks) in
            self.facts.vitals.models.iter().flat_map(|model| model.thread.observe().evictions)
        {
            counter!(names::KV_EVICTIONS_TOTAL, "reason" => reason).absolute(blocks);
        }
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
            // One pool for all projects in this version: the labels say so.
            let used = engine.kv_blocks_used * engine.kv_bytes.checked_div(engine.kv_blocks).unwrap_or(0);
            gauge!(names::KV_BYTES, "project" => "all", "class" => "all", "tier" => "memory")
                .set(used as f64);
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
            rows.iter().for_each(read_quota);
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

fn read_quota(row: &ledger::rows::QuotaRow) {
    let set = |key: &'static str, used: u64, limit: Option<u64>| {
        gauge!(names::QUOTA_USED, "path" => row.path.clone(), "key" => key).set(used as f64);
        if let Some(limit) = limit {
            gauge!(names::QUOTA_LIMIT, "path" => row.path.clone(), "key" => key).set(limit as f64);
        }
    };
    set("running", row.running_used, row.running);
    set("tokens_total", row.tokens_settled + row.tokens_reserved, row.tokens_total);
    let in_minute = row.tokens_minute.map_or(0, |limit| limit.saturating_sub(row.bucket_millitokens / 1000));
    set("tokens_minute", in_minute, row.tokens_minute);
}
