//! A cluster in one thread under paused time: raft nodes on disks that forget and a network that loses.
//!
//! Everything that happens follows from a seed, as far as openraft's own draws allow.

use super::*;
use crate::wal::{Planted, WalOptions};
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use sys::disk::CrashDisk;
use types::{ClusterId, NodeId};

pub(super) const CLUSTER: ClusterId = ClusterId([3; 16]);

/// The machine of the tests: keeps every number it is given, in order.
#[derive(Default)]
pub(super) struct Numbers {
    pub(super) seen: Vec<u64>,
}

impl Machine for Numbers {
    fn apply(&mut self, _: u64, _: u64, entry: &[u8]) -> Result<Vec<u8>, Halt> {
        let bytes = entry[..entry.len().min(8)].try_into();
        let number = u64::from_le_bytes(bytes.map_err(|_| Halt("an entry that is no number".to_string()))?);
        self.seen.push(number);
        Ok((self.seen.len() as u64).to_le_bytes().to_vec())
    }

    fn snapshot(&self) -> Vec<u8> {
        self.seen.iter().flat_map(|n| n.to_le_bytes()).collect()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), Halt> {
        let number = |b: &[u8]| b.try_into().map(u64::from_le_bytes).map_err(|_| Halt("torn".to_string()));
        self.seen = bytes.chunks(8).map(number).collect::<Result<_, _>>()?;
        Ok(())
    }
}

/// SplitMix64.
#[derive(Clone)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

pub(super) fn address(id: NodeId) -> String {
    format!("node-{}:7401", id.0)
}

/// The wires between nodes.
#[derive(Default)]
pub(super) struct Net {
    state: Mutex<NetState>,
}

/// What wires do to messages, in messages of a thousand; and what they did.
#[derive(Clone, Default)]
pub(super) struct Weather {
    pub(super) lost: u64,
    pub(super) doubled: u64,
    /// Takes up to half a second, or as a second copy two seconds.
    pub(super) late: u64,
}

/// How often something was done to a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Toll {
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) late: u64,
    pub(super) overtaken: u64,
    pub(super) blocked: u64,
}

struct NetState {
    nodes: BTreeMap<String, RaftNode>,
    /// Which start of a node is the living one; calls of earlier ones go nowhere.
    living: BTreeMap<NodeId, u64>,
    isolated: BTreeSet<NodeId>,
    /// Ways that are closed, from and to.
    closed: BTreeSet<(NodeId, NodeId)>,
    weather: Weather,
    toll: Toll,
    delivered: BTreeMap<&'static str, u64>,
    /// Number of the newest call that came, on each way.
    newest: BTreeMap<(NodeId, NodeId), u64>,
    calls: u64,
    rng: Rng,
}

impl Default for NetState {
    fn default() -> Self {
        NetState {
            nodes: BTreeMap::new(),
            living: BTreeMap::new(),
            isolated: BTreeSet::new(),
            closed: BTreeSet::new(),
            weather: Weather::default(),
            toll: Toll::default(),
            delivered: BTreeMap::new(),
            newest: BTreeMap::new(),
            calls: 0,
            rng: Rng(1),
        }
    }
}

impl Net {
    fn lock(&self) -> std::sync::MutexGuard<'_, NetState> {
        self.state.lock().expect("no test panics while it holds the net")
    }

    pub(super) fn isolate(&self, id: NodeId, isolated: bool) {
        let mut state = self.lock();
        if isolated {
            state.isolated.insert(id)
        } else {
            state.isolated.remove(&id)
        };
    }

    /// Closes the way from one node to another; the way back stays as it is.
    pub(super) fn close_way(&self, from: NodeId, to: NodeId) {
        self.lock().closed.insert((from, to));
    }

    /// Opens every way.
    pub(super) fn open_ways(&self) {
        let mut state = self.lock();
        state.closed.clear();
        state.isolated.clear();
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    pub(super) fn toll(&self) -> Toll {
        self.lock().toll
    }

    pub(super) fn seed(&self, seed: u64) {
        self.lock().rng = Rng(seed);
    }

    pub(super) fn lose(&self, per_thousand: u64, seed: u64) {
        let mut state = self.lock();
        state.weather = Weather { lost: per_thousand, ..Weather::default() };
        state.rng = Rng(seed);
    }

    pub(super) fn delivered(&self, kind: &str) -> u64 {
        self.lock().delivered.get(kind).copied().unwrap_or(0)
    }

    /// A node that starts, and the number of this start.
    pub(super) fn lives(&self, id: NodeId, life: u64) {
        self.lock().living.insert(id, life);
    }

    pub(super) fn listens(&self, node: &RaftNode) {
        self.lock().nodes.insert(address(node.id()), node.clone());
    }

    /// A node that ended: nothing reaches it, and nothing of it reaches anybody.
    pub(super) fn vanishes(&self, id: NodeId) {
        let mut state = self.lock();
        state.living.remove(&id);
        state.nodes.remove(&address(id));
    }

    /// How long one way takes; none when the message is lost.
    fn way(&self, from: NodeId, life: u64, to: NodeId) -> Option<Duration> {
        let mut state = self.lock();
        let cut = state.isolated.contains(&from)
            || state.isolated.contains(&to)
            || state.closed.contains(&(from, to));
        let dead = state.living.get(&from) != Some(&life);
        let lost = state.rng.below(1000) < state.weather.lost;
        let late = state.rng.below(1000) < state.weather.late;
        let micros = 200 + state.rng.below(if late { 500_000 } else { 2000 });
        state.toll.blocked += u64::from(cut);
        state.toll.lost += u64::from(lost && !cut && !dead);
        state.toll.late += u64::from(late && !cut && !dead && !lost);
        (!cut && !dead && !lost).then(|| Duration::from_micros(micros))
    }

    /// Whether a second copy of a call comes, and how much later.
    fn second_copy(&self) -> Option<Duration> {
        let mut state = self.lock();
        let doubled = state.rng.below(1000) < state.weather.doubled;
        let soon = state.rng.below(2) == 0;
        let micros = state.rng.below(if soon { 5_000 } else { 2_000_000 });
        doubled.then(|| Duration::from_micros(micros))
    }

    fn receiver(&self, address: &str) -> Option<(RaftNode, u64)> {
        let state = self.lock();
        let node = state.nodes.get(address)?.clone();
        let life = state.living.get(&node.id()).copied()?;
        Some((node, life))
    }

    fn next_call(&self) -> u64 {
        let mut state = self.lock();
        state.calls += 1;
        state.calls
    }

    fn came(&self, from: NodeId, to: NodeId, call: u64, kind: &'static str) {
        let mut state = self.lock();
        *state.delivered.entry(kind).or_default() += 1;
        let newest = state.newest.entry((from, to)).or_default();
        let overtaken = *newest > call;
        *newest = call.max(*newest);
        state.toll.overtaken += u64::from(overtaken);
    }
}

/// One start of one node, at the wires.
pub(super) struct Port {
    pub(super) net: Arc<Net>,
    pub(super) from: NodeId,
    pub(super) life: u64,
}

impl Port {
    async fn deliver(&self, address: &str, envelope: Envelope) -> Result<Reply, CallError> {
        let (to, call) = (envelope.to, self.net.next_call());
        self.double(address, &envelope, call);
        self.travel(self.from, self.life, to).await;
        let refused = || CallError::Unreachable("nobody listens there".to_string());
        let (node, life) = self.net.receiver(address).ok_or_else(refused)?;
        self.net.came(self.from, to, call, envelope.body.name());
        let reply = node.handle(envelope).await?;
        // The reply of a node that died meanwhile never leaves it.
        self.travel(to, life, self.from).await;
        Ok(reply)
    }

    async fn travel(&self, from: NodeId, life: u64, to: NodeId) {
        match self.net.way(from, life, to) {
            Some(way) => tokio::time::sleep(way).await,
            None => std::future::pending().await,
        }
    }

    /// Perhaps the call comes once more, perhaps long after the first time. Nobody hears the second reply.
    fn double(&self, address: &str, envelope: &Envelope, call: u64) {
        let Some(later) = self.net.second_copy() else { return };
        let (net, from, address, envelope) =
            (self.net.clone(), self.from, address.to_string(), envelope.clone());
        tokio::spawn(async move {
            tokio::time::sleep(later).await;
            if let Some((node, _)) = net.receiver(&address) {
                net.came(from, envelope.to, call, envelope.body.name());
                net.lock().toll.doubled += 1;
                // Whatever it answers, nobody listens.
                let _ = node.handle(envelope).await;
            }
        });
    }
}

impl Transport for Port {
    fn call<'a>(
        &'a self,
        address: &'a str,
        _: Plane,
        envelope: Envelope,
        _: Duration,
    ) -> BoxFuture<'a, Result<Reply, CallError>> {
        Box::pin(self.deliver(address, envelope))
    }
}

struct Host {
    disk: CrashDisk,
    node: Option<RaftNode>,
    machine: Arc<Mutex<Numbers>>,
    life: u64,
}

/// The whole cluster.
pub(super) struct Sim {
    pub(super) net: Arc<Net>,
    pub(super) timings: Timings,
    /// Plants the bug of the log: acknowledging before syncing.
    pub(super) acknowledge_before_sync: bool,
    hosts: BTreeMap<NodeId, Host>,
    seed: u64,
}

impl Sim {
    pub(super) fn new(seed: u64) -> Sim {
        let timings = Timings { snapshot_every: 60, keep_entries: 10, ..Timings::default() };
        let net = Arc::<Net>::default();
        net.seed(seed);
        Sim { net, timings, acknowledge_before_sync: false, hosts: BTreeMap::new(), seed }
    }

    /// A cluster of so many voters, numbered from 1.
    pub(super) async fn with_voters(seed: u64, voters: u64, acknowledge_before_sync: bool) -> Sim {
        let mut sim = Sim::new(seed);
        sim.acknowledge_before_sync = acknowledge_before_sync;
        sim.start(NodeId(1)).await.unwrap();
        sim.node(NodeId(1)).initialize(&address(NodeId(1))).await.unwrap();
        let leader = sim.leader().await.unwrap();
        for id in (2..=voters).map(NodeId) {
            sim.start(id).await.unwrap();
            leader.add_learner(id, &address(id)).await.unwrap();
        }
        leader.change_voters((1..=voters).map(NodeId).collect()).await.unwrap();
        sim
    }

    /// Starts a node: for the first time with an empty disk, later with what the crash left.
    pub(super) async fn start(&mut self, id: NodeId) -> Result<(), StartError> {
        self.prepare(id);
        let host = self.hosts.get_mut(&id).expect("it was prepared");
        let first_start = host.life == 0;
        host.life += 1;
        host.machine = Arc::default();
        let options = RaftOptions {
            id,
            cluster: CLUSTER,
            timings: self.timings.clone(),
            disk: Arc::new(host.disk.clone()),
            flush: Flush::Inline,
            transport: Arc::new(Port { net: self.net.clone(), from: id, life: host.life }),
            machine: host.machine.clone(),
            seed: self.seed ^ (id.0 << 32) ^ host.life,
            first_start,
        };
        let wal = WalOptions {
            segment_bytes: 4096,
            cache_bytes: 2048,
            planted: self.acknowledge_before_sync.then_some(Planted::AcknowledgeBeforeSync),
            ..WalOptions::new("raft/wal", CLUSTER, id, Flush::Inline)
        };
        self.net.lives(id, host.life);
        let node = RaftNode::start_with(options, wal).await?;
        self.net.listens(&node);
        host.node = Some(node);
        Ok(())
    }

    /// The disk of a node that need not have been started.
    pub(super) fn prepare(&mut self, id: NodeId) -> Arc<CrashDisk> {
        let host = self.hosts.entry(id).or_insert_with(|| Host {
            disk: CrashDisk::new(),
            node: None,
            machine: Arc::default(),
            life: 0,
        });
        Arc::new(host.disk.clone())
    }

    /// Cuts a node's power: nothing it does from now on has any effect. Its disk keeps what a crash keeps.
    pub(super) async fn crash(&mut self, id: NodeId, seed: u64) {
        self.vanish(id);
        self.disk(id).crash(seed);
        self.bury(id).await;
    }

    /// Kills a node's program: its disk keeps everything, but not durably.
    pub(super) async fn kill(&mut self, id: NodeId) {
        self.vanish(id);
        self.disk(id).kill_program();
        self.bury(id).await;
    }

    fn vanish(&mut self, id: NodeId) {
        self.net.vanishes(id);
    }

    async fn bury(&mut self, id: NodeId) {
        if let Some(node) = self.hosts.get_mut(&id).and_then(|host| host.node.take()) {
            node.shutdown().await;
        }
    }

    /// Ends all nodes, so that they do not run beside the next cluster of the same test.
    pub(super) async fn stop(self) {
        for node in self.running() {
            node.shutdown().await;
        }
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.hosts.keys().copied().collect()
    }

    pub(super) fn disk(&self, id: NodeId) -> CrashDisk {
        self.hosts[&id].disk.clone()
    }

    pub(super) fn node(&self, id: NodeId) -> RaftNode {
        self.hosts[&id].node.clone().expect("the node runs")
    }

    pub(super) fn running(&self) -> Vec<RaftNode> {
        self.hosts.values().filter_map(|host| host.node.clone()).collect()
    }

    pub(super) fn seen(&self, id: NodeId) -> Vec<u64> {
        self.hosts[&id].machine.lock().expect("the machine does not panic").seen.clone()
    }

    /// Waits until some node proves that it leads.
    pub(super) async fn leader(&self) -> Result<RaftNode, String> {
        let wait = async {
            loop {
                for node in self.running() {
                    if node.is_leader() && node.read_barrier().await.is_ok() {
                        return node;
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(60), wait).await;
        found.map_err(|_| format!("no leader in a minute: {:#?}", self.status()))
    }

    /// Waits until a condition holds.
    pub(super) async fn until(&self, what: &str, mut holds: impl FnMut(&Sim) -> bool) -> Result<(), String> {
        for _ in 0..1200 {
            if holds(self) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(format!("not in a minute: {what}: {:#?}", self.status()))
    }

    pub(super) fn status(&self) -> Vec<Status> {
        self.running().iter().map(RaftNode::status).collect()
    }

    /// Proposes at whoever leads, until the number is acknowledged.
    pub(super) async fn propose(&self, number: u64) -> Result<Proposed, String> {
        for _ in 0..50 {
            match self.leader().await?.propose(number.to_le_bytes().to_vec()).await {
                Ok(proposed) => return Ok(proposed),
                Err(ProposeError::NotLeader { .. }) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Err("the leader changes all the time".to_string())
    }
}
