//! Every metric by name, with its help text: the one place where names are written.
//!
//! Labels are bounded by construction: projects, classes, states and reasons, never tasks or texts.

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// A distribution, in the unit of the name.
    Histogram,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

macro_rules! table {
    ($($constant:ident = $name:literal, $kind:ident, [$($label:literal),*], $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: &str = $name;)*
        /// All metrics, in the order of this file.
        pub const ALL: &[Metric] = &[
            $(Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help },)*
        ];
    };
}

table! {
    // The cluster's work.
    TASKS = "quorate_tasks", Gauge, ["project", "state"], "Tasks by state";
    QUEUE_AGE_SECONDS = "quorate_queue_age_seconds", Gauge, ["class"], "Age of the oldest queued task";
    QUOTA_USED = "quorate_quota_used", Gauge, ["path", "key"], "Used and reserved part of a quota";
    QUOTA_LIMIT = "quorate_quota_limit", Gauge, ["path", "key"], "Limit of a quota";
    AGENTS = "quorate_agents", Gauge, [], "Tasks whose agents live on this node, those that wait for their tools included";
    AGENT_EVENT_SECONDS = "quorate_agent_event_seconds", Histogram, [], "From something that an agent hears to what it does about it";
    STEPS_TOTAL = "quorate_steps_total", Counter, ["project"], "Steps committed by agents on this node";
    FENCED_TOTAL = "quorate_fenced_total", Counter, ["kind"], "Writes refused because their lease was no longer the task's";
    AGENT_RESTARTS_TOTAL = "quorate_agent_restarts_total", Counter, [], "Agents started again after a panic";
    AGENT_STUCK_TOTAL = "quorate_agent_stuck_total", Counter, [], "Agents started again because they hung";
    // Consensus.
    LEADER_CHANGES_TOTAL = "quorate_leader_changes_total", Counter, [], "Times this node became the leader";
    IS_LEADER = "quorate_is_leader", Gauge, [], "1 on the leader, else 0";
    APPLIED_INDEX = "quorate_applied_index", Gauge, [], "Last log index applied to the state";
    WALL_CLOCK_REFUSED_TOTAL = "quorate_wall_clock_refused_total", Counter, [], "Times the leader's wall clock was too far from the nodes' to be used";
    CLOCK_AHEAD_SECONDS = "quorate_clock_ahead_seconds", Gauge, [], "This node's wall clock less the leader's";
    FSYNC_SECONDS = "quorate_fsync_seconds", Histogram, ["what"], "Time to make a group of writes durable";
    // Links.
    LINK_ATTACHED = "quorate_link_attached", Gauge, [], "1 while the node is attached to the leader, else 0";
    LINK_ATTACHES_TOTAL = "quorate_link_attaches_total", Counter, [], "Times the node attached to a leader";
    REQUESTS_TOTAL = "quorate_requests_total", Counter, ["method", "code"], "Public calls by outcome";
    REQUESTS_REFUSED_TOTAL = "quorate_requests_refused_total", Counter, ["reason"], "Public calls refused before any handler saw them";
    TLS_CERT_EXPIRY_SECONDS = "quorate_tls_cert_expiry_seconds", Gauge, [], "End of this node's certificate, in seconds since 1970";
    REQUEST_SECONDS = "quorate_request_seconds", Histogram, ["method"], "Duration of public calls, streams left out";
    // Context.
    SEGMENTS = "quorate_segments", Gauge, [], "Segments held on this node";
    SEGMENT_BYTES = "quorate_segment_bytes", Gauge, [], "Bytes of the segments held on this node";
    SEGMENTS_DAMAGED_TOTAL = "quorate_segments_damaged_total", Counter, [], "Stored segments found lost or damaged";
    CONTEXT_BYTES_SENT_TOTAL = "quorate_context_bytes_sent_total", Counter, [], "Bytes of segments sent to other nodes";
    CONTEXT_BYTES_RECEIVED_TOTAL = "quorate_context_bytes_received_total", Counter, [], "Bytes of segments received from other nodes";
    CONTEXT_BYTES_FULL_TOTAL = "quorate_context_bytes_full_total", Counter, [], "Bytes that would have moved if every assignment and model call had carried its whole chain";
    CHAINS_SHORT = "quorate_chains_short", Gauge, [], "Tasks, memories and definitions with too few copies that this node has to bring to another store";
    CHAINS_LOST = "quorate_chains_lost", Gauge, [], "Tasks, memories and definitions that no node keeps any more, as this node counts them";
    CHAINS_REPAIRED_TOTAL = "quorate_chains_repaired_total", Counter, [], "Tasks, memories and definitions that this node brought to another store";
    SEGMENTS_SWEPT_TOTAL = "quorate_segments_swept_total", Counter, [], "Segments deleted here because nothing named them any more";
    SEGMENT_BYTES_SWEPT_TOTAL = "quorate_segment_bytes_swept_total", Counter, [], "Bytes of those";
    SWEEPS_HELD_UP = "quorate_sweeps_held_up", Gauge, [], "Projects that the last sweep left alone because a record of them could not be read";
    EVALUATED_STEPS_TOTAL = "quorate_evaluated_steps_total", Counter, ["outcome"], "Steps that this node chose to evaluate: judged, blind, failed, passed-over";
    EVALUATED_TOKENS_TOTAL = "quorate_evaluated_tokens_total", Counter, ["project", "team", "what"], "Context tokens of evaluated steps: read, repeated, judged, inert, received from others, useful of those";
    // Slices of quotas.
    SLICE_REQUESTS_TOTAL = "quorate_slice_requests_total", Counter, [], "Requests that a slice of a quota served without a log entry";
    SLICE_TURNS_TOTAL = "quorate_slice_turns_total", Counter, [], "Log entries that settle a slice, give back what it needs not and take more";
    SLICE_RECALLS_TOTAL = "quorate_slice_recalls_total", Counter, [], "Times this node heard that what its slices need not is wanted elsewhere";
    SLICE_REFUNDS_TOTAL = "quorate_slice_refunds_total", Counter, [], "Lost slices of which the unused part came back";
    // Models.
    TOKENS_COMPUTED_TOTAL = "quorate_tokens_computed_total", Counter, ["model"], "Prompt tokens computed by the engine";
    TOKENS_CACHED_TOTAL = "quorate_tokens_cached_total", Counter, ["model"], "Prompt tokens taken from cache";
    TOKENS_GENERATED_TOTAL = "quorate_tokens_generated_total", Counter, ["model"], "Tokens generated";
    GATEWAY_ROUTES_TOTAL = "quorate_gateway_routes_total", Counter, ["model", "reason"], "Calls that one of several models got, by why it was this one";
    MODEL_CALLS_TOTAL = "quorate_model_calls_total", Counter, ["model", "outcome"], "Model calls by outcome";
    MODEL_FIRST_TOKEN_SECONDS = "quorate_model_first_token_seconds", Histogram, ["model"], "Time from a model call to its first token";
    KV_BYTES = "quorate_kv_bytes", Gauge, ["project", "class", "tier"], "Bytes of KV cache in use";
    KV_COPIES_TOTAL = "quorate_kv_copies_total", Counter, ["outcome"], "KV blocks copied to a keeper, and chains that were not";
    KV_RESTORED_BYTES_TOTAL = "quorate_kv_restored_bytes_total", Counter, ["tier"], "Bytes of KV brought back from a lower tier";
    KV_VERBS_TOTAL = "quorate_kv_verbs_total", Counter, ["verb", "outcome"], "Calls about sequences and chains: pause, resume, fork, prefetch, pin, retain, drop";
    SEQUENCES_PREEMPTED_TOTAL = "quorate_sequences_preempted_total", Counter, [], "Sequences that gave up their place for more urgent ones";
    TOKENS_DRAFTED_TOTAL = "quorate_tokens_drafted_total", Counter, ["model"], "Guessed tokens that the engine ran before they were known";
    TOKENS_ACCEPTED_TOTAL = "quorate_tokens_accepted_total", Counter, ["model"], "Guessed tokens that came true";
    STEPS_SKETCHED_TOTAL = "quorate_steps_sketched_total", Counter, ["model"], "Steps whose likeliest tokens were found without all logits";
    TOKENS_RECOMPUTED_TOTAL = "quorate_tokens_recomputed_total", Counter, ["model"], "Tokens computed again because their values were lost";
    KV_EVICTIONS_TOTAL = "quorate_kv_evictions_total", Counter, ["reason"], "KV blocks evicted";
    ANSWERS = "quorate_answers", Gauge, [], "Answers of the OpenAI face in the making, waiting ones included";
    // Traces.
    TRACE_SPANS_TOTAL = "quorate_trace_spans_total", Counter, ["outcome"], "Spans of traces: sent to the collector, failed to be, or dropped because too many waited";
    // The process.
    RESIDENT_BYTES = "quorate_resident_bytes", Gauge, [], "Resident memory of this process";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    #[test]
    fn names_follow_the_rules() {
        let mut seen = BTreeSet::new();
        for metric in ALL {
            assert!(seen.insert(metric.name), "{} is declared twice", metric.name);
            assert!(metric.name.starts_with("quorate_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{}", metric.name);
            let unbounded = ["task", "text", "prompt", "agent"];
            assert!(metric.labels.iter().all(|label| !unbounded.contains(label)), "{}", metric.name);
        }
    }

    /// Rooms that do not see this table write a name out; it must be one of these.
    #[test]
    fn names_written_out_elsewhere_are_in_the_table() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut seen = 0;
        for file in ["node/src", "coordinator/src"].iter().flat_map(|dir| sources(&root.join(dir))) {
            for name in written_out(&std::fs::read_to_string(&file).unwrap()) {
                assert!(ALL.iter().any(|metric| metric.name == name), "{name} in {}", file.display());
                seen += 1;
            }
        }
        assert!(seen > 0, "the coordinator writes names out");
    }

    fn sources(dir: &Path) -> Vec<PathBuf> {
        let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let below = |path: PathBuf| if path.is_dir() { sources(&path) } else { vec![path] };
        paths.flat_map(below).filter(|path| path.extension().is_some_and(|end| end == "rs")).collect()
    }

    fn written_out(text: &str) -> Vec<&str> {
        let marks = ["counter!(\"", "gauge!(\"", "histogram!(\""];
        let after = marks.iter().flat_map(|mark| text.split(mark).skip(1));
        after.filter_map(|rest| rest.split('"').next()).filter(|name| name.starts_with("quorate_")).collect()
    }
}
