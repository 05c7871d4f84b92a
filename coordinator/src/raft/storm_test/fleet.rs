//! The nodes of a storm: their disks, their starts and ends.

use super::Plant;
use super::replica::{Agreed, Replica};
use crate::raft::sim_test::{CLUSTER, Net, Port, address};
use crate::raft::{RaftNode, RaftOptions, Timings};
use crate::wal::{Flush, Planted, WalOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use sys::disk::CrashDisk;
use types::NodeId;

pub(super) const NODES: u64 = 5;
const VOTERS: u64 = 3;

struct Host {
    disk: CrashDisk,
    node: Option<RaftNode>,
    replica: Arc<Mutex<Replica>>,
    life: u64,
    sync_ms: Arc<AtomicU64>,
}

pub(super) struct Fleet {
    pub(super) net: Arc<Net>,
    hosts: Mutex<BTreeMap<NodeId, Host>>,
    agreed: Arc<Mutex<Agreed>>,
    seed: u64,
    plant: Option<Plant>,
}

impl Fleet {
    pub(super) fn new(seed: u64, plant: Option<Plant>) -> Self {
        let net = Arc::<Net>::default();
        net.seed(seed);
        Fleet { net, hosts: Mutex::default(), agreed: Arc::default(), seed, plant }
    }

    pub(super) fn agreed(&self) -> MutexGuard<'_, Agreed> {
        self.agreed.lock().expect("nobody panics with it")
    }

    fn hosts(&self) -> MutexGuard<'_, BTreeMap<NodeId, Host>> {
        self.hosts.lock().expect("nobody panics with it")
    }

    /// Three voters, and two nodes that may become some.
    pub(super) async fn found(&self) -> Result<(), String> {
        self.start(NodeId(1)).await?;
        let first = self.node(NodeId(1)).ok_or("n1 does not run")?;
        first.initialize(&address(NodeId(1))).await.map_err(|error| error.to_string())?;
        let leader = self.leader().await?;
        for id in (2..=NODES).map(NodeId) {
            self.start(id).await?;
            leader.add_learner(id, &address(id)).await.map_err(|error| error.to_string())?;
        }
        let voters = (1..=VOTERS).map(NodeId).collect();
        leader.change_voters(voters).await.map_err(|error| error.to_string())?;
        let entry = ledger::encode_entry(Default::default(), &super::client::founding());
        self.leader().await?.propose(entry).await.map(drop).map_err(|error| error.to_string())
    }

    /// Starts a node: for the first time with an empty disk, later with what its end left.
    pub(super) async fn start(&self, id: NodeId) -> Result<(), String> {
        let apply_twice = self.plant == Some(Plant::ApplyTwice);
        let replica = Arc::new(Mutex::new(Replica::new(id.0, self.agreed.clone(), apply_twice)));
        let (disk, life, sync_ms, first_start) = {
            let mut hosts = self.hosts();
            let first_start = !hosts.contains_key(&id);
            let host = hosts.entry(id).or_insert_with(|| Host {
                disk: CrashDisk::new(),
                node: None,
                replica: replica.clone(),
                life: 0,
                sync_ms: Arc::new(AtomicU64::new(1)),
            });
            host.life += 1;
            host.replica = replica.clone();
            (host.disk.clone(), host.life, host.sync_ms.clone(), first_start)
        };
        let timings = Timings { snapshot_every: 60, keep_entries: 10, ..Timings::default() };
        let options = RaftOptions {
            id,
            cluster: CLUSTER,
            timings,
            disk: Arc::new(disk),
            flush: Flush::Late,
            transport: Arc::new(Port { net: self.net.clone(), from: id, life }),
            machine: replica,
            seed: self.seed ^ (id.0 << 32) ^ life,
            first_start,
        };
        let wal = WalOptions {
            segment_bytes: 4096,
            cache_bytes: 2048,
            planted: self.planted(),
            sync_ms,
            ..WalOptions::new("raft/wal", CLUSTER, id, Flush::Late)
        };
        self.net.lives(id, life);
        let node = RaftNode::start_with(options, wal).await;
        let node = node.map_err(|error| format!("{id} does not start: {error}"))?;
        self.net.listens(&node);
        if let Some(host) = self.hosts().get_mut(&id) {
            host.node = Some(node);
        }
        Ok(())
    }

    fn planted(&self) -> Option<Planted> {
        match self.plant? {
            Plant::AcknowledgeBeforeSync => Some(Planted::AcknowledgeBeforeSync),
            Plant::ForgetVotes => Some(Planted::ForgetVotes),
            Plant::KeepTruncated => Some(Planted::KeepTruncated),
            Plant::ApplyTwice => None,
        }
    }

    /// Ends a node: its power is cut, or its program killed. Nothing it does from now on has any effect.
    pub(super) async fn end(&self, id: NodeId, power_cut: Option<u64>) {
        self.net.vanishes(id);
        let (disk, node) = {
            let mut hosts = self.hosts();
            let Some(host) = hosts.get_mut(&id) else { return };
            (host.disk.clone(), host.node.take())
        };
        match power_cut {
            Some(seed) => disk.crash(seed),
            None => disk.kill_program(),
        }
        if let Some(node) = node {
            node.shutdown().await;
        }
    }

    pub(super) fn disk(&self, id: NodeId) -> Option<CrashDisk> {
        self.hosts().get(&id).map(|host| host.disk.clone())
    }

    pub(super) fn slow_down(&self, id: NodeId, sync_ms: u64) {
        if let Some(host) = self.hosts().get(&id) {
            host.sync_ms.store(sync_ms, Ordering::Relaxed);
        }
    }

    pub(super) fn node(&self, id: NodeId) -> Option<RaftNode> {
        self.hosts().get(&id)?.node.clone()
    }

    pub(super) fn replica(&self, id: NodeId) -> Option<Arc<Mutex<Replica>>> {
        self.hosts().get(&id).map(|host| host.replica.clone())
    }

    pub(super) fn running(&self) -> Vec<RaftNode> {
        self.hosts().values().filter_map(|host| host.node.clone()).collect()
    }

    /// Somebody who believes to lead, in the newest term of those.
    pub(super) fn likely_leader(&self) -> Option<RaftNode> {
        let leads = self.running().into_iter().filter(RaftNode::is_leader);
        leads.max_by_key(|node| node.status().term)
    }

    /// Waits until some node proves that it leads.
    pub(super) async fn leader(&self) -> Result<RaftNode, String> {
        let wait = async {
            loop {
                if let Some(node) = self.likely_leader()
                    && node.read_barrier().await.is_ok()
                {
                    return node;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(60), wait).await;
        found.map_err(|_| format!("no leader in a minute: {:?}", self.stopped()))
    }

    fn stopped(&self) -> Vec<String> {
        let reason = |node: RaftNode| node.status().stopped.map(|why| format!("{}: {why}", node.id()));
        self.running().into_iter().filter_map(reason).collect()
    }

    pub(super) fn voters(&self) -> BTreeSet<NodeId> {
        let leader = self.likely_leader();
        leader.map(|node| node.status().voters.into_keys().collect()).unwrap_or_default()
    }

    /// Everything works again from here on.
    pub(super) async fn heal(&self) -> Result<(), String> {
        self.net.open_ways();
        self.net.set_weather(Default::default());
        for id in (1..=NODES).map(NodeId) {
            self.slow_down(id, 1);
            if self.node(id).is_none() {
                self.start(id).await?;
            }
        }
        self.leader().await.map(drop)
    }

    /// All members end in the same state.
    pub(super) async fn agree(&self) -> Result<(), String> {
        let leader = self.leader().await?;
        let index = leader.read_barrier().await.map_err(|error| error.to_string())?;
        let status = leader.status();
        let members: Vec<NodeId> = status.voters.into_keys().chain(status.learners.into_keys()).collect();
        let mut hashes = BTreeSet::new();
        for id in members {
            let node = self.node(id).ok_or(format!("{id} does not run"))?;
            let there = node.wait_applied(index, Duration::from_secs(60)).await;
            there.map_err(|error| format!("{id} did not catch up: {error}; {:?}", self.stopped()))?;
            let replica = self.replica(id).ok_or(format!("{id} has no state"))?;
            hashes.insert(replica.lock().expect("it does not panic").ledger.state.state_hash());
        }
        if hashes.len() == 1 { Ok(()) } else { Err(format!("{} states differ in the end", hashes.len())) }
    }

    pub(super) async fn stop(&self) {
        for node in self.running() {
            node.shutdown().await;
        }
    }
}
