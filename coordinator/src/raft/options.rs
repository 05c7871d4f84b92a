//! What a raft node is started with.

use super::{SharedMachine, Transport};
use crate::wal::Flush;
use openraft::{Config, SnapshotPolicy};
use std::sync::Arc;
use sys::disk::Disk;
use types::{ClusterId, NodeId};

/// What a raft node is started with.
pub struct RaftOptions {
    pub id: NodeId,
    pub cluster: ClusterId,
    pub timings: Timings,
    /// Files go below `raft/` in it.
    pub disk: Arc<dyn Disk>,
    pub flush: Flush,
    pub transport: Arc<dyn Transport>,
    pub machine: SharedMachine,
    /// Picks this start's own part of the election range, so that nodes rarely campaign at the same time.
    pub seed: u64,
    /// True only when this id was never started before. Otherwise an empty disk is a lost one, and refused:
    /// a voter that forgot its vote could elect a second leader.
    pub first_start: bool,
}

/// Times in milliseconds, and sizes. All nodes of a cluster should have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timings {
    /// How often a leader speaks when it has nothing to say.
    pub heartbeat_ms: u64,
    /// A follower campaigns after a silence of `election_max_ms` plus something between the two.
    pub election_min_ms: u64,
    pub election_max_ms: u64,
    /// One call that carries entries, with the sync on the other side. Longer than a heartbeat may take,
    /// because giving up early sends the same megabytes again.
    pub append_ms: u64,
    /// Sending and installing one snapshot.
    pub snapshot_ms: u64,
    /// After this a proposal's outcome is called unknown.
    pub propose_ms: u64,
    /// After this a change of members, or a handover, is called unknown.
    pub membership_ms: u64,
    /// How long a proposal waits for company; the sync before it gathers enough by itself.
    pub linger_ms: u64,
    /// A snapshot is taken after so many entries.
    pub snapshot_every: u64,
    /// Entries kept behind a snapshot, so that a follower that was away for a moment needs no snapshot.
    pub keep_entries: u64,
}

impl Default for Timings {
    fn default() -> Self {
        Timings {
            heartbeat_ms: 100,
            election_min_ms: 400,
            election_max_ms: 600,
            append_ms: 400,
            snapshot_ms: 30_000,
            propose_ms: 5_000,
            membership_ms: 20_000,
            linger_ms: 0,
            snapshot_every: 5_000,
            keep_entries: 1_000,
        }
    }
}

impl Timings {
    /// openraft's form of it, checked.
    pub(super) fn config(&self, cluster: ClusterId, seed: u64) -> Result<Config, String> {
        let (election_timeout_min, election_timeout_max) = self.election_window(seed);
        let config = Config {
            cluster_name: cluster.to_string(),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min,
            election_timeout_max,
            enable_pre_vote: Some(true),
            // A leader sends entries before its own sync is done. After a power cut it may lack what the others have
            // committed, so it must not go on in the same term, as openraft would let it: it would write another entry
            // at the same place.
            enable_leader_restore: Some(false),
            install_snapshot_timeout: self.snapshot_ms,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            max_in_snapshot_log_to_keep: self.keep_entries,
            // A follower that is further behind gets a snapshot; it must be more than snapshots leave.
            replication_lag_threshold: self.snapshot_every.saturating_mul(2),
            max_payload_entries: 256,
            api_channel_size: Some(1024),
            api_batch_linger_ms: self.linger_ms,
            ..Config::default()
        };
        config.validate().map_err(|e| e.to_string())
    }

    /// A quarter of the range, where the seed says. openraft draws anew inside it for each campaign.
    fn election_window(&self, seed: u64) -> (u64, u64) {
        let range = self.election_max_ms.saturating_sub(self.election_min_ms);
        let width = (range / 4).max(1);
        let start = self.election_min_ms + scatter(seed) % range.saturating_sub(width).max(1);
        (start, start + width)
    }
}

/// Spreads seeds that are close together.
fn scatter(seed: u64) -> u64 {
    let z = (seed ^ (seed >> 30)).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_campaigns_inside_the_range_and_not_all_at_once() {
        let timings = Timings::default();
        let windows: Vec<_> = (0..100).map(|seed| timings.election_window(seed)).collect();
        assert!(windows.iter().all(|(from, to)| 400 <= *from && from < to && *to <= 600));
        assert!(windows.iter().any(|w| w.0 < 440) && windows.iter().any(|w| w.0 > 510));
        timings.config(ClusterId([0; 16]), 3).unwrap();
    }

    #[test]
    fn timings_that_cannot_work_are_refused() {
        let slow_heart = Timings { heartbeat_ms: 700, ..Timings::default() };
        assert!(slow_heart.config(ClusterId([0; 16]), 0).is_err());
    }
}
