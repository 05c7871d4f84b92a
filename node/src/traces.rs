//! Traces of tasks, after OpenTelemetry's conventions: one for each tree of tasks, whatever nodes had a hand in it.
//!
//! Every id is computed from names that the ledger gave, so that nodes agree on parents without a message and one span
//! sent twice is one span. What the ledger records (the task, its leases, its steps) is told by the leader, from the
//! record: a killed worker takes nothing of it along. What only a worker sees (model calls, tool calls) is told by the
//! worker, below a lease that the record has. Never text: no prompt, answer, argument, result or key.
//!
//! Nothing waits for a trace: spans go into a bounded queue, and what doesn't fit is dropped and counted.
//!
//! Read: `span`, `ids`, `genai` (every name), `record` (the ledger's events as spans), `work` (calls as spans), `requests`
//! (those of OpenAI's API), `follow` (who tells), `otlp` (to a collector; only with the feature of that name).

// Without the feature nobody sends.
#![cfg_attr(not(feature = "otlp"), allow(dead_code))]

pub(crate) mod follow;
pub(crate) mod genai;
pub(crate) mod ids;
#[cfg(feature = "otlp")]
mod otlp;
pub(crate) mod record;
pub(crate) mod requests;
pub(crate) mod span;
pub(crate) mod work;

#[cfg(test)]
mod traces_test;

use crate::telemetry::names;
use ids::{Ids, Place};
use ledger::rows::TaskRow;
use span::Span;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};
use types::{ClusterId, TaskUid};

/// What became of spans, as the metric says it.
const OUTCOMES: [&str; 3] = ["sent", "failed", "dropped"];
/// A node that ends waits so long for its last spans.
const LAST: Duration = Duration::from_secs(2);

/// For whoever sends spans.
enum Order {
    Spans(Vec<Span>),
    /// Answer when all that came before is gone.
    Flush(oneshot::Sender<()>),
}

/// Where spans go; nowhere by default. Cheap to clone.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Inner>>);

struct Inner {
    ids: Ids,
    /// Requests so far.
    requests: AtomicU64,
    orders: mpsc::Sender<Order>,
}

impl std::fmt::Debug for Traces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Traces(on)" } else { "Traces(off)" })
    }
}

impl Traces {
    /// To a collector, where the build can and one is named. Connects when there is something to say.
    ///
    /// # Errors
    /// An address or certificates that are of no use.
    pub(crate) fn start(
        config: &crate::config::Traces,
        node: &str,
        cluster: ClusterId,
    ) -> Result<Traces, crate::config::ConfigError> {
        for outcome in OUTCOMES {
            count(outcome, 0);
        }
        #[cfg(feature = "otlp")]
        if let Some(channel) = crate::config::collector(config)? {
            tracing::info!(endpoint = %channel.uri(), "traces go to a collector");
            let orders = otlp::start(channel, otlp::Resource { node: node.into(), cluster });
            return Ok(Traces(Some(Arc::new(Inner {
                ids: Ids::of(cluster),
                requests: AtomicU64::new(0),
                orders,
            }))));
        }
        let _ = (config, node, cluster);
        Ok(Traces::default())
    }

    /// The names of spans; none where nobody listens.
    pub(crate) fn ids(&self) -> Option<Ids> {
        self.0.as_ref().map(|inner| inner.ids)
    }

    /// Where spans of a task belong; none where nobody wants them. `root` is the oldest ancestor.
    pub(crate) fn place(&self, row: &TaskRow, root: TaskUid) -> Option<Place> {
        self.ids()?.place(row, root)
    }

    /// A number that no other request of this process has.
    fn number(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.requests.fetch_add(1, Ordering::Relaxed))
    }

    /// Never waits.
    pub(crate) fn send(&self, spans: Vec<Span>) {
        let Some(inner) = &self.0 else { return };
        let number = spans.len() as u64;
        if number > 0 && inner.orders.try_send(Order::Spans(spans)).is_err() {
            count("dropped", number);
        }
    }

    /// Waits until what was said is sent, or not for long.
    pub(crate) async fn close(&self) {
        let Some(inner) = &self.0 else { return };
        let (done, gone) = oneshot::channel();
        let flushed = async {
            let _ = inner.orders.send(Order::Flush(done)).await;
            let _ = gone.await;
        };
        let _ = tokio::time::timeout(LAST, flushed).await;
    }
}

pub(crate) fn count(outcome: &'static str, spans: u64) {
    metrics::counter!(names::TRACE_SPANS_TOTAL, "outcome" => outcome).increment(spans);
}

/// Unix nanoseconds.
pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
