//! The context plane between nodes, on the internal port: segments by hash, live tokens, model files.
//!
//! Have/want inside one project: a node asks what the other lacks and sends that, in chunks, and every segment
//! is checked against its name where it arrives. The plane moves bytes and keeps nothing itself.
//!
//! Read: this file (what both sides share), `parcel` (segments as chunks, pure), `server`, `peers` (the
//! client), `cap` (bytes a second on a link), `lanes` (small pushes that share calls), `model_files`, `status` (our errors on the wire).

mod cap;
mod lanes;
mod model_files;
mod parcel;
mod peers;
mod server;
mod status;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod traces_test;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use types::ClusterId;

pub use cap::LinkCap;
pub use peers::{Addresses, Dial, PeerError, Peers, PlainDial};
pub(crate) use peers::{Wire, endpoint};
pub use server::SegmentsPlane;

use crate::telemetry::names;

/// The cluster this node belongs to: empty until it has joined one.
pub type ClusterCell = Arc<OnceLock<ClusterId>>;

/// Hashes in one request: 32 KiB of them, and a bound on what one answer can hold in memory.
const HASHES_PER_REQUEST: usize = 1024;

/// Bytes of segments that this node moved, for `node get` and the metrics. Hashes and framing are not counted.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn count_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        metrics::counter!(names::CONTEXT_BYTES_SENT_TOTAL).increment(bytes as u64);
    }

    fn count_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        metrics::counter!(names::CONTEXT_BYTES_RECEIVED_TOTAL).increment(bytes as u64);
    }
}
