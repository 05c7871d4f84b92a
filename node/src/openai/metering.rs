//! `/metrics`: what was counted, and what the engines say now.

use super::face::Face;
use crate::telemetry::names;
use metrics::{counter, gauge};

/// Everything as Prometheus text.
pub(super) fn render(face: &Face) -> String {
    for model in face.models() {
        let (observed, name) = (model.thread.observe(), model.name.clone());
        counter!(names::TOKENS_COMPUTED_TOTAL, "model" => name.clone()).absolute(observed.tokens_computed);
        counter!(names::TOKENS_CACHED_TOTAL, "model" => name.clone()).absolute(observed.tokens_cached);
        counter!(names::TOKENS_GENERATED_TOTAL, "model" => name.clone()).absolute(observed.tokens_generated);
        counter!(names::TOKENS_DRAFTED_TOTAL, "model" => name.clone()).absolute(observed.tokens_drafted);
        counter!(names::TOKENS_ACCEPTED_TOTAL, "model" => name.clone()).absolute(observed.tokens_accepted);
        counter!(names::STEPS_SKETCHED_TOTAL, "model" => name).absolute(observed.steps_sketched);
        let used = observed.kv_blocks_used * observed.kv_bytes.checked_div(observed.kv_blocks).unwrap_or(0);
        gauge!(names::KV_BYTES, "project" => "all", "class" => "all", "tier" => "memory").set(used as f64);
        for (reason, blocks) in observed.evictions {
            counter!(names::KV_EVICTIONS_TOTAL, "reason" => reason).absolute(blocks);
        }
    }
    gauge!(names::ANSWERS).set(face.answering() as f64);
    if let Some(bytes) = sys::resident_bytes() {
        gauge!(names::RESIDENT_BYTES).set(bytes as f64);
    }
    face.metrics().render()
}
