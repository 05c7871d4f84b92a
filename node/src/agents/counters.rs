//! What the agents of this node did since it started. The same figures go to `/metrics`.

use crate::telemetry::names;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use types::ProjectName;

/// Relaxed counters: figures for people, not for decisions.
#[derive(Debug, Default)]
pub struct Counters {
    steps: AtomicU64,
    restarts: AtomicU64,
    fenced: AtomicU64,
    context_bytes_full: AtomicU64,
    /// Agents whose tools are at work: their slots are for others.
    aside: Arc<AtomicU64>,
}

/// One agent whose slot is for others, as long as this lives.
#[derive(Debug)]
pub(crate) struct Aside(Arc<AtomicU64>);

impl Drop for Aside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CountersObserved {
    /// Steps committed from here.
    pub steps: u64,
    /// Agents started again after a failure.
    pub restarts: u64,
    /// Commands of this node that were refused because their lease was not in force.
    pub fenced: u64,
    /// Bytes that would have moved if every assignment and every model call had carried its whole chain.
    pub context_bytes_full: u64,
}

impl Counters {
    pub fn observe(&self) -> CountersObserved {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CountersObserved {
            steps: read(&self.steps),
            restarts: read(&self.restarts),
            fenced: read(&self.fenced),
            context_bytes_full: read(&self.context_bytes_full),
        }
    }

    pub(crate) fn step(&self, project: &ProjectName) {
        self.steps.fetch_add(1, Ordering::Relaxed);
        metrics::counter!(names::STEPS_TOTAL, "project" => project.to_string()).increment(1);
    }

    pub(crate) fn one_aside(&self) -> Aside {
        self.aside.fetch_add(1, Ordering::Relaxed);
        Aside(self.aside.clone())
    }

    /// Agents whose tools are at work now.
    pub fn aside(&self) -> u64 {
        self.aside.load(Ordering::Relaxed)
    }

    pub(crate) fn restart(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
        metrics::counter!(names::AGENT_RESTARTS_TOTAL).increment(1);
    }

    pub(crate) fn stuck(&self) {
        metrics::counter!(names::AGENT_STUCK_TOTAL).increment(1);
    }

    /// Counted for the cluster by the ledger, by kind; here for this process.
    pub(crate) fn fenced(&self) {
        self.fenced.fetch_add(1, Ordering::Relaxed);
    }

    /// Shown in `/metrics` by whoever reads `observe`.
    pub(crate) fn full_context(&self, bytes: u64) {
        self.context_bytes_full.fetch_add(bytes, Ordering::Relaxed);
    }
}
