//! A small world: the real ledger, stores in memory, scripted models, and as many nodes as a test wants.

use super::bench::Bench;
use super::fakes::{Heard, Hinted};
use crate::agents::counters::Counters;
use crate::agents::seams::{LedgerDoor, Seams, Segments, Stores};
use crate::agents::{Agents, AgentsConfig, HeldLeases, Silence};
use crate::gateway::{Gateway, Provider};
use crate::link::{LeaseName, News};
use bytes::Bytes;
use context::{Kind, Segment, Visibility};
use futures::future::BoxFuture;
use ledger::command::{Command, RequestKey, Stamp, Terms};
use ledger::effect::Effect;
use ledger::keys::{Budget, Window};
use ledger::query::{Answer, Query};
use ledger::reply::Reply;
use ledger::rows::{AgentKind, Fork, InputRef, Price, QuotaKey, Role, SignalKind, TaskRow};
use ledger::{Place, Soft, SoftNode, State};
use mind::{Definition, StepRecord};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use types::{Class, ClusterId, Hash, NodeId, ProjectName, TaskState, TaskUid, limits};

pub(super) const SCRIPTED: &str = "script";
/// The same model by another name, which nobody asks a worker for.
pub(super) const OTHER: &str = "other";

/// Tests that wait longer than this have failed.
const DEADLINE: Duration = Duration::from_secs(10);

pub(super) struct World {
    inner: Mutex<Inner>,
    changed: Notify,
    ms: AtomicU64,
    pub(super) tools: Arc<Bench>,
}

struct Inner {
    state: State,
    index: u64,
    stores: BTreeMap<NodeId, BTreeMap<Hash, Bytes>>,
    /// Nodes that take work and hear news.
    attached: BTreeMap<NodeId, mpsc::Sender<News>>,
    /// Nodes whose store does not answer.
    silent: BTreeSet<NodeId>,
    /// Every command that a node sent, in order.
    log: Vec<Command>,
}

pub(super) fn project() -> ProjectName {
    ProjectName::default()
}

impl World {
    /// A cluster with these stores; none of them runs agents yet.
    pub(super) fn new(nodes: usize) -> Arc<World> {
        let state = State::new();
        let inner = Inner {
            state,
            index: 0,
            stores: BTreeMap::new(),
            attached: BTreeMap::new(),
            silent: BTreeSet::new(),
            log: Vec::new(),
        };
        let world = Arc::new(World {
            inner: Mutex::new(inner),
            changed: Notify::new(),
            ms: AtomicU64::new(1),
            tools: Arc::default(),
        });
        world.ok(Command::InitCluster { cluster_id: ClusterId([7; 16]) });
        for number in 0..nodes {
            let reply = world.propose(Command::AdmitNode {
                name: format!("node-{number}"),
                roles: vec![Role::Coordinator, Role::Worker],
                client_addr: format!("127.0.0.1:{}", 1000 + number),
                internal_addr: format!("127.0.0.1:{}", 2000 + number),
                disk_id: [number as u8 + 1; 16],
                version: "test".into(),
            });
            let Reply::Node(id) = reply else { panic!("{reply:?}") };
            world.lock().stores.insert(id, BTreeMap::new());
        }
        world
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.lock().stores.keys().copied().collect()
    }

    /// Applies a command as the leader would, and performs its effects.
    pub(super) fn propose(&self, command: Command) -> Reply {
        let mut inner = self.lock();
        let reply = inner.apply(&command, self.ms.fetch_add(1, Ordering::SeqCst));
        drop(inner);
        self.changed.notify_waiters();
        reply
    }

    fn ok(&self, command: Command) -> Reply {
        let reply = self.propose(command);
        assert!(!matches!(reply, Reply::Refused(_)), "{reply:?}");
        reply
    }

    /// The first nodes, as many as hold what a door takes in.
    fn home(&self) -> Vec<NodeId> {
        self.nodes().into_iter().take(limits::COPIES).collect()
    }

    /// Puts a segment on the home nodes, as a door would.
    fn store(&self, segment: &Segment) -> (Hash, u64) {
        let sealed = context::seal(&project(), segment);
        let bytes = Bytes::from(sealed.bytes);
        let length = bytes.len() as u64;
        for node in self.home() {
            self.lock().stores.get_mut(&node).unwrap().insert(sealed.hash, bytes.clone());
        }
        (sealed.hash, length)
    }

    pub(super) fn apply_agent(&self, toml: &str) {
        let definition = Definition::parse(toml).unwrap();
        let (hash, _) = self.store(&definition.segment());
        self.ok(Command::ApplyAgent {
            project: project(),
            name: definition.name().into(),
            kind: if definition.model().is_some() { AgentKind::Agent } else { AgentKind::Team },
            model: definition.model().unwrap_or_default().into(),
            revision: definition.revision(),
            definition: hash,
            etag: None,
            home: self.home(),
            request: RequestKey::default(),
            needs: None,
        });
    }

    pub(super) fn create(&self, agent: &str, inputs: &[(&str, &str)]) -> TaskUid {
        self.create_within(agent, inputs, &[])
    }

    /// A task with limits of its own.
    pub(super) fn create_within(
        &self,
        agent: &str,
        inputs: &[(&str, &str)],
        limits: &[(QuotaKey, u64)],
    ) -> TaskUid {
        let inputs = inputs.iter().map(|(name, text)| {
            let (segment, bytes) =
                self.store(&Segment::new(Kind::Message, "tester", Visibility::Project, *text));
            InputRef { name: (*name).into(), segment, bytes }
        });
        let inputs = inputs.collect();
        let terms = (!limits.is_empty()).then(|| Terms { limits: limits.to_vec(), ..Terms::default() });
        self.create_on(agent, inputs, terms)
    }

    /// A task that goes on from another one's step.
    pub(super) fn fork(&self, task: TaskUid, step: u64, head: Option<Hash>) -> TaskUid {
        let row = self.row(task);
        let terms = Terms { fork: Some(Fork { task, step, head }), ..Terms::default() };
        self.create_on(&row.agent, row.inputs.to_vec(), Some(terms))
    }

    fn create_on(&self, agent: &str, inputs: Vec<InputRef>, terms: Option<Terms>) -> TaskUid {
        let reply = self.ok(Command::CreateTask {
            project: project(),
            agent: agent.into(),
            inputs,
            task_id: None,
            labels: Vec::new(),
            class: Class::Batch,
            priority: 5,
            deadline_ms: 0,
            home: self.home(),
            request: RequestKey::default(),
            terms,
        });
        let Reply::Task(row) = reply else { panic!("{reply:?}") };
        row.uid
    }

    /// Time passes, and the ledger notices.
    pub(super) fn pass(&self, ms: u64) {
        self.ms.fetch_add(ms, Ordering::SeqCst);
        self.ok(Command::Tick);
    }

    pub(super) fn cancel(&self, task: TaskUid) {
        self.ok(Command::CancelTask { project: project(), task, request: RequestKey::default() });
    }

    pub(super) fn pause(&self, task: TaskUid) {
        self.ok(Command::PauseTask { project: project(), task, request: RequestKey::default() });
    }

    /// Says something to a task, as a door would.
    pub(super) fn signal(&self, task: TaskUid, kind: SignalKind, ask: &str, text: Option<&str>) -> Reply {
        let sealed =
            text.map(|text| self.store(&Segment::new(Kind::Message, "ann", Visibility::Project, text)));
        self.propose(Command::Signal {
            project: project(),
            task,
            kind,
            ask: ask.into(),
            text: sealed.map(|(hash, _)| hash),
            home: self.home(),
            request: RequestKey { author: "ann".into(), ..RequestKey::default() },
        })
    }

    pub(super) fn resume(&self, task: TaskUid) {
        self.ok(Command::ResumeTask { project: project(), task, request: RequestKey::default() });
    }

    pub(super) fn limit_tokens(&self, tokens: u64) {
        self.limit("tokens_total", tokens);
    }

    pub(super) fn limit(&self, key: &str, amount: u64) {
        let key = QuotaKey::parse(key).expect("a key of quotas");
        self.limit_at("projects/default", key, amount);
    }

    pub(super) fn limit_at(&self, path: &str, key: QuotaKey, amount: u64) {
        self.ok(Command::SetQuota {
            path: path.into(),
            changes: vec![(key, Some(amount))],
            etag: None,
            reason: String::new(),
            request: RequestKey::default(),
        });
    }

    /// Micro-dollars for a million tokens, whatever they are.
    pub(super) fn price(&self, model: &str, each: u64) {
        self.ok(Command::SetPrice {
            model: model.into(),
            price: Price { input: each, cached: each, output: each },
            etag: None,
            reason: String::new(),
            request: RequestKey::default(),
        });
    }

    pub(super) fn row(&self, task: TaskUid) -> TaskRow {
        self.lock().state.task(task).expect("the task exists").clone()
    }

    pub(super) fn knows(&self, task: TaskUid) -> bool {
        self.lock().state.task(task).is_some()
    }

    pub(super) fn settled_calls(&self) -> u64 {
        let world = self.lock();
        let budgets = world.state.quota("projects/default").unwrap().budgets_at(0);
        let calls = budgets.iter().find(|row| (row.budget, row.window) == (Budget::ToolCalls, Window::Total));
        calls.map_or(0, |row| row.used())
    }

    pub(super) fn settled_tokens(&self) -> u64 {
        self.lock().state.quota("projects/default").map_or(0, |row| row.tokens_settled)
    }

    pub(super) fn fenced_commits(&self, node: NodeId) -> u64 {
        self.lock().state.node(node).unwrap().fenced.commits
    }

    pub(super) fn log(&self) -> Vec<Command> {
        self.lock().log.clone()
    }

    /// Text of a stored segment; every node but `without` is asked.
    pub(super) fn text(&self, hash: Hash, node: NodeId) -> Option<String> {
        let bytes = self.lock().stores[&node].get(&hash).cloned()?;
        Some(context::open(&project(), hash, &bytes).unwrap().text)
    }

    pub(super) fn segment(&self, hash: Hash, node: NodeId) -> Segment {
        context::open(&project(), hash, &self.lock().stores[&node][&hash]).unwrap()
    }

    /// A task's records, the oldest first.
    pub(super) fn journal(&self, task: TaskUid) -> Vec<StepRecord> {
        let (row, world) = (self.row(task), self.lock());
        let store = &world.stores[&row.home[0]];
        let mut records = Vec::new();
        let mut next = row.head;
        while let Some(hash) = next {
            let record = StepRecord::open(&project(), hash, &store[&hash]).expect("a record");
            next = record.prev;
            records.push(record);
        }
        records.reverse();
        records
    }

    /// Everything that a node's store has.
    pub(super) fn holds(&self, node: NodeId, hash: Hash) -> bool {
        self.lock().stores[&node].contains_key(&hash)
    }

    pub(super) fn silence(&self, node: NodeId) {
        self.lock().silent.insert(node);
    }

    pub(super) fn speak(&self, node: NodeId) {
        self.lock().silent.remove(&node);
    }

    /// Sends news to a node, as its link would.
    pub(super) async fn tell(&self, node: NodeId, news: News) {
        let sender = self.lock().attached[&node].clone();
        sender.send(news).await.unwrap();
    }

    /// The node hears nothing any more, and the leader gives its tasks to others.
    pub(super) fn lose(&self, node: NodeId) -> mpsc::Sender<News> {
        let sender = self.lock().attached.remove(&node).expect("it was attached");
        self.ok(Command::NodeLost { node });
        sender
    }

    /// The leader gives this node nothing new, and it hears nothing.
    pub(super) fn detach(&self, node: NodeId) {
        self.lock().attached.remove(&node).expect("it was attached");
    }

    /// Waits until something is true of the world; every committed command is a moment to look.
    pub(super) async fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if let Some(found) = look() {
                    return found;
                }
                // Not everything that a test waits for is a command, so it also looks at short intervals.
                let _ = tokio::time::timeout(Duration::from_millis(5), changed).await;
            }
        };
        tokio::time::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("never happened: {what}"))
    }

    pub(super) async fn until_state(&self, task: TaskUid, state: TaskState) -> TaskRow {
        self.until(&format!("{task} {state:?}, log {:?}", self.row(task)), || {
            Some(self.row(task)).filter(|row| row.state == state)
        })
        .await
    }
}

impl Inner {
    fn apply(&mut self, command: &Command, now_ms: u64) -> Reply {
        self.index += 1;
        let stamp = Stamp { ledger_ms: now_ms, wall_ms: 1_700_000_000_000 + now_ms };
        let applied = self.state.apply(Place { index: self.index, position: 0 }, stamp, command);
        let mut replan = false;
        for effect in applied.effects {
            replan |= effect == Effect::Replan;
            self.perform(effect);
        }
        if replan {
            self.plan(now_ms);
        }
        applied.reply
    }

    fn perform(&mut self, effect: Effect) {
        let (node, news) = match effect {
            Effect::Assigned { task, node, .. } => {
                let row = self.state.task(task).expect("assigned").clone();
                (node, News::Assigned(Box::new(row)))
            }
            Effect::Stop { project, task, node, epoch } => {
                (node, News::Cancel(LeaseName { project, task, epoch }))
            }
            Effect::Revoked { project, task, node, epoch } => {
                (node, News::Revoked(LeaseName { project, task, epoch }))
            }
            Effect::Signalled { task, node, .. } => {
                let row = self.state.task(task).expect("signalled").clone();
                (node, News::Assigned(Box::new(row)))
            }
            Effect::Event { .. } | Effect::Recall { .. } | Effect::Replan | Effect::Members => return,
        };
        if let Some(sender) = self.attached.get(&node) {
            sender.try_send(news).expect("room for news");
        }
    }

    fn plan(&mut self, now_ms: u64) {
        let node = |running| SoftNode {
            attached: true,
            slots: 8,
            running,
            models: [SCRIPTED.to_string()].into(),
            free_kv_tokens: 1 << 20,
            ..SoftNode::default()
        };
        let nodes = self.attached.keys().map(|id| (*id, node(self.state.leases_of(*id).count() as u32)));
        let soft = Soft { nodes: nodes.collect(), ledger_ms: now_ms, ..Soft::default() };
        for command in ledger::plan::plan(&self.state, &soft, 64) {
            self.apply(&command, now_ms);
        }
    }
}

/// One node of the world.
pub(super) struct NodeInWorld {
    pub(super) id: NodeId,
    pub(super) agents: Agents,
    pub(super) lease_valid: Arc<AtomicBool>,
    pub(super) live: Arc<Heard>,
    pub(super) hinted: Arc<Hinted>,
    frozen: Frozen,
}

/// Who looks at the lease next waits here, with its whole thread, until the sender is gone.
type Frozen = Arc<Mutex<Option<std::sync::mpsc::Receiver<()>>>>;

impl NodeInWorld {
    /// The next handler of an agent that looks at the lease hangs until what this answers is dropped.
    pub(super) fn freeze_one(&self) -> std::sync::mpsc::Sender<()> {
        let (thaw, frozen) = std::sync::mpsc::channel();
        *self.frozen.lock().unwrap() = Some(frozen);
        thaw
    }
}

/// The world as one node reaches it.
struct Reach {
    world: Arc<World>,
    node: NodeId,
    lease_valid: Arc<AtomicBool>,
    frozen: Frozen,
}

/// Starts a node's agents on models by name.
pub(super) async fn start(world: &Arc<World>, node: NodeId, provider: Arc<dyn Provider>) -> NodeInWorld {
    start_with(world, node, provider, Silence::default()).await
}

/// The same with less patience.
pub(super) async fn start_with(
    world: &Arc<World>,
    node: NodeId,
    provider: Arc<dyn Provider>,
    silence: Silence,
) -> NodeInWorld {
    let (sender, news) = mpsc::channel(1024);
    let lease_valid = Arc::new(AtomicBool::new(true));
    let frozen: Frozen = Arc::default();
    let reach = Arc::new(Reach {
        world: world.clone(),
        node,
        lease_valid: lease_valid.clone(),
        frozen: frozen.clone(),
    });
    let live = Arc::new(Heard::default());
    let tools = world.tools.clone();
    let hinted = Arc::new(Hinted::default());
    let seams = Seams { ledger: reach.clone(), stores: reach, live: live.clone(), tools, kv: hinted.clone() };
    let gateway = Gateway::new([SCRIPTED, OTHER].map(|model| (model.to_string(), provider.clone())));
    let config = AgentsConfig { slots: 8, restart_ms: 1, silence, ..AgentsConfig::new(node, 8) };
    let (held, counters) = (HeldLeases::default(), Arc::new(Counters::default()));
    let agents = Agents::start(config, seams, gateway, news, held, counters).await.unwrap();
    let leases = {
        let mut inner = world.lock();
        inner.attached.insert(node, sender);
        inner.state.leases_of(node).cloned().collect()
    };
    world.tell(node, News::FullSet { leases, term: 1 }).await;
    world.lock().plan(world.ms.load(Ordering::SeqCst));
    NodeInWorld { id: node, agents, lease_valid, live, hinted, frozen }
}

impl LedgerDoor for Reach {
    fn request(&self, command: Command) -> BoxFuture<'_, Reply> {
        Box::pin(async move {
            self.world.lock().log.push(command.clone());
            // A round trip is never instant: other tasks run in between.
            tokio::task::yield_now().await;
            self.world.propose(command)
        })
    }

    fn read(&self, query: Query) -> BoxFuture<'_, Result<Answer, String>> {
        Box::pin(async move { Ok(self.world.lock().state.answer(&query, None)) })
    }

    fn lease_valid(&self) -> bool {
        let frozen = self.frozen.lock().unwrap().take();
        if let Some(frozen) = frozen {
            // It ends with the sender.
            let _ = frozen.recv();
        }
        self.lease_valid.load(Ordering::SeqCst)
    }
}

impl Stores for Reach {
    fn put(&self, project: &ProjectName, segments: Segments) -> BoxFuture<'_, Result<(), String>> {
        self.push(self.node, project, segments)
    }

    fn get(&self, _project: &ProjectName, hash: Hash) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        Box::pin(async move { Ok(self.world.lock().stores[&self.node].get(&hash).cloned()) })
    }

    fn fetch(
        &self,
        nodes: Vec<NodeId>,
        _project: &ProjectName,
        hashes: Vec<Hash>,
    ) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let mut inner = self.world.lock();
            for hash in hashes {
                if inner.stores[&self.node].contains_key(&hash) {
                    continue;
                }
                let answering = nodes.iter().filter(|node| !inner.silent.contains(node));
                let found = answering.filter_map(|node| inner.stores.get(node)?.get(&hash).cloned()).next();
                let bytes = found.ok_or(format!("nobody of {nodes:?} has {}", hash.short()))?;
                inner.stores.get_mut(&self.node).unwrap().insert(hash, bytes);
            }
            Ok(())
        })
    }

    fn push(
        &self,
        node: NodeId,
        project: &ProjectName,
        segments: Segments,
    ) -> BoxFuture<'_, Result<(), String>> {
        let project = project.clone();
        Box::pin(async move {
            let mut inner = self.world.lock();
            if inner.silent.contains(&node) {
                return Err(format!("{node} does not answer"));
            }
            for (hash, bytes) in segments {
                context::verify(&project, hash, &bytes).map_err(|error| error.to_string())?;
                inner.stores.get_mut(&node).unwrap().insert(hash, bytes);
            }
            Ok(())
        })
    }

    fn copies(&self) -> usize {
        self.world.lock().state.copies() as usize
    }

    fn keepers(&self, first: &[NodeId], _what: Hash) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> =
            self.world.nodes().into_iter().filter(|node| *node != self.node).collect();
        nodes.sort_by_key(|node| !first.contains(node));
        nodes
    }

    fn refresh_members(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
