//! Clients of a storm: they write, compare and read registers, which are limits of the quota tree, and create tasks.
//! Each keeps what it asked and heard.

use super::fleet::Fleet;
use super::linear::{Answer, Ask, Operation, linearizable};
use crate::raft::sim_test::Rng;
use crate::raft::{ProposeError, RaftNode};
use ledger::command::{Command, RequestKey, Stamp};
use ledger::encode_entry;
use ledger::reply::{Refusal, Reply};
use ledger::rows::{AgentKind, QuotaKey, Role};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use types::{Class, ClusterId, Hash, NodeId, ProjectName, TaskUid};

const CLIENTS: u64 = 4;
const KEYS: u64 = 5;
/// How long a client waits before it calls an outcome unknown.
const PATIENCE: Duration = Duration::from_millis(900);

#[derive(Default)]
struct Book {
    operations: Vec<Operation>,
    /// Calls and answers are numbered in the order in which they happened.
    moments: u64,
    /// Requests that created a task: what was heard.
    tasks: BTreeMap<String, TaskUid>,
    asked: u64,
    waits_ms: Vec<u64>,
    trace: String,
}

#[derive(Default)]
pub(super) struct History {
    book: Mutex<Book>,
}

impl History {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("nobody panics with it")
    }

    pub(super) fn note(&self, line: &str) {
        self.book().trace.push_str(&format!("{line}\n"));
    }

    pub(super) fn trace(&self) -> String {
        self.book().trace.clone()
    }

    /// Operations, and those of them whose outcome is unknown.
    pub(super) fn size(&self) -> (usize, usize) {
        let book = self.book();
        let unknown = book.operations.iter().filter(|operation| operation.answer.is_none()).count();
        (book.operations.len() + book.asked as usize, unknown)
    }

    /// How many answers took so long.
    pub(super) fn waited(&self, ms: u64) -> usize {
        self.book().waits_ms.iter().filter(|waited| **waited >= ms).count()
    }

    fn moment(&self) -> u64 {
        let mut book = self.book();
        book.moments += 1;
        book.moments
    }

    fn heard(&self, key: u64, ask: Ask, called: u64, answer: Option<Answer>) {
        let answered = self.moment();
        self.note(&format!("k{key} {ask:?} -> {answer:?}"));
        self.book().operations.push(Operation {
            key,
            ask,
            called,
            answer: answer.map(|answer| (answered, answer)),
        });
    }

    pub(super) fn check(&self, fleet: &Fleet) -> Result<(), String> {
        let book = self.book();
        for key in 0..KEYS {
            let mine: Vec<Operation> =
                book.operations.iter().filter(|operation| operation.key == key).cloned().collect();
            linearizable(&mine).map_err(|broken| format!("k{key} is not linearizable: {broken}"))?;
        }
        let leader = fleet.likely_leader().ok_or("no leader")?;
        let replica = fleet.replica(leader.id()).ok_or("no replica")?;
        let replica = replica.lock().expect("it does not panic");
        for (request, uid) in &book.tasks {
            let row = replica.ledger.state.task(*uid).ok_or(format!("{uid} of {request} is gone"))?;
            if *row.request_id != **request {
                return Err(format!("{uid} was the answer to {request} and is of {}", row.request_id));
            }
        }
        let there = replica.ledger.state.tasks().count() as u64;
        if there > book.asked || there < book.tasks.len() as u64 {
            return Err(format!("{there} tasks of {} requests, {} heard", book.asked, book.tasks.len()));
        }
        Ok(())
    }
}

/// The clients at work.
pub(super) struct Clients {
    over: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    pub(super) fn start(fleet: &Arc<Fleet>, history: &Arc<History>, seed: u64) -> Clients {
        let over = Arc::new(AtomicBool::new(false));
        let start = |number: u64| {
            let client = Client {
                number,
                fleet: fleet.clone(),
                history: history.clone(),
                rng: Rng(seed ^ (number << 40)),
                etags: BTreeMap::new(),
                began: Instant::now(),
                open: None,
            };
            tokio::spawn(client.run(over.clone()))
        };
        Clients { tasks: (0..CLIENTS).map(start).collect(), over }
    }

    pub(super) async fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a client does not panic");
        }
    }
}

struct Client {
    number: u64,
    fleet: Arc<Fleet>,
    history: Arc<History>,
    rng: Rng,
    /// The newest etag it heard of each register.
    etags: BTreeMap<u64, u64>,
    began: Instant,
    /// A creation whose outcome is unknown: asked again under the same id.
    open: Option<String>,
}

/// What became of a proposal.
enum Outcome {
    Done(Box<Reply>),
    Nothing,
    Unknown,
}

impl Client {
    async fn run(mut self, over: Arc<AtomicBool>) {
        while !over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(1 + self.rng.below(100))).await;
            let Some(node) = self.pick() else { continue };
            match self.rng.below(10) {
                0 | 1 => self.create(&node).await,
                2..=4 => self.read(&node).await,
                n => self.write(&node, n > 7).await,
            }
        }
    }

    /// Mostly who leads, sometimes anybody who believes it.
    fn pick(&mut self) -> Option<RaftNode> {
        let leads: Vec<RaftNode> = self.fleet.running().into_iter().filter(RaftNode::is_leader).collect();
        let any = self.rng.below(5) == 0 && !leads.is_empty();
        let chosen = self.rng.below(leads.len() as u64) as usize;
        if any { leads.into_iter().nth(chosen) } else { self.fleet.likely_leader() }
    }

    async fn propose(&self, node: &RaftNode, command: Command) -> Outcome {
        let ms = self.began.elapsed().as_millis() as u64;
        let entry = encode_entry(Stamp { ledger_ms: ms, wall_ms: ms }, &[command]);
        let asked = Instant::now();
        let answer = tokio::time::timeout(PATIENCE, node.propose(entry)).await;
        self.history.book().waits_ms.push(asked.elapsed().as_millis() as u64);
        match answer {
            Ok(Ok(proposed)) => match types::decode::<Vec<Reply>>(&proposed.reply) {
                Ok(mut replies) if replies.len() == 1 => Outcome::Done(Box::new(replies.remove(0))),
                // The entry is committed, and its answer was lost with a leader.
                _ => Outcome::Unknown,
            },
            Ok(Err(ProposeError::NotLeader { .. } | ProposeError::TooLarge { .. })) => Outcome::Nothing,
            Ok(Err(ProposeError::Unknown | ProposeError::Stopped { .. })) | Err(_) => Outcome::Unknown,
        }
    }

    async fn write(&mut self, node: &RaftNode, compares: bool) {
        let key = self.rng.below(KEYS);
        // No value is written twice.
        let value = (self.history.moment() << 8) | self.number;
        let etag = self.etags.get(&key).copied().filter(|_| compares);
        let ask = Ask::Write { value, etag };
        let called = self.history.moment();
        let command = Command::SetQuota {
            path: path(key),
            changes: vec![(QuotaKey::TokensTotal, Some(value))],
            etag,
            reason: "storm".into(),
            request: RequestKey::default(),
        };
        let answer = match self.propose(node, command).await {
            Outcome::Nothing => return,
            Outcome::Unknown => None,
            Outcome::Done(reply) => Some(match *reply {
                Reply::Quota(row) => Answer::Now { etag: row.etag, value: row.tokens_total },
                Reply::Refused(Refusal::WrongEtag { current, .. }) => Answer::Stale { current },
                other => unreachable!("a limit was answered with {other:?}"),
            }),
        };
        self.learn(key, answer);
        self.history.heard(key, ask, called, answer);
    }

    fn learn(&mut self, key: u64, answer: Option<Answer>) {
        match answer {
            Some(Answer::Now { etag, .. } | Answer::Stale { current: etag }) => {
                self.etags.insert(key, etag);
            }
            None => {}
        }
    }

    /// A linearizable read, answered by the replica of whoever proved that it leads.
    async fn read(&mut self, node: &RaftNode) {
        let key = self.rng.below(KEYS);
        let called = self.history.moment();
        let Ok(Ok(_)) = tokio::time::timeout(PATIENCE, node.read_barrier()).await else { return };
        // Of the same life: a restarted node has another replica.
        let same = |running: &RaftNode| running.status().applied >= node.status().applied;
        if !self.fleet.node(node.id()).is_some_and(|running| same(&running)) {
            return;
        }
        let Some(replica) = self.fleet.replica(node.id()) else { return };
        let row = replica.lock().expect("it does not panic").ledger.state.quota(&path(key));
        let answer = row.map_or(Answer::Now { etag: 0, value: None }, |row| Answer::Now {
            etag: row.etag,
            value: row.tokens_total,
        });
        self.learn(key, Some(answer));
        self.history.heard(key, Ask::Read, called, Some(answer));
    }

    async fn create(&mut self, node: &RaftNode) {
        let request_id = self.open.take().unwrap_or_else(|| {
            self.history.book().asked += 1;
            format!("c{}-{}", self.number, self.history.moment())
        });
        match self.propose(node, create(&request_id)).await {
            Outcome::Done(reply) => {
                let Reply::Task(row) = *reply else { unreachable!("a creation was answered with {reply:?}") };
                self.history.note(&format!("{request_id} -> {}", row.uid));
                let before = self.history.book().tasks.insert(request_id, row.uid);
                assert!(before.is_none(), "a request is asked until it is answered, and then no more");
            }
            Outcome::Nothing | Outcome::Unknown => self.open = Some(request_id),
        }
    }
}

fn path(key: u64) -> String {
    format!("projects/k{key}")
}

fn create(request_id: &str) -> Command {
    Command::CreateTask {
        project: ProjectName::default(),
        agent: "reader".into(),
        inputs: vec![],
        task_id: None,
        labels: vec![],
        class: Class::Batch,
        priority: 0,
        deadline_ms: 0,
        home: vec![NodeId(1)],
        request: RequestKey {
            author: "storm".into(),
            request_id: request_id.into(),
            body: Hash::of(request_id.as_bytes()),
        },
        terms: None,
    }
}

/// What a ledger needs before it takes tasks.
pub(super) fn founding() -> Vec<Command> {
    vec![
        Command::InitCluster { cluster_id: ClusterId([3; 16]) },
        Command::AdmitNode {
            name: "one".into(),
            roles: vec![Role::Coordinator, Role::Worker],
            client_addr: String::new(),
            internal_addr: "one:1".into(),
            disk_id: [1; 16],
            version: "storm".into(),
        },
        Command::ApplyAgent {
            project: ProjectName::default(),
            name: "reader".into(),
            kind: AgentKind::Agent,
            model: "m".into(),
            revision: Hash::of(b"reader"),
            definition: Hash::of(b"reader"),
            etag: None,
            home: vec![NodeId(1)],
            request: RequestKey::default(),
            needs: None,
        },
    ]
}

/// In the end every register is written and read once more: these have to be answered.
pub(super) async fn last_writes(fleet: &Arc<Fleet>, history: &Arc<History>) -> Result<(), String> {
    let mut client = Client {
        number: CLIENTS,
        fleet: fleet.clone(),
        history: history.clone(),
        rng: Rng(1),
        etags: BTreeMap::new(),
        began: Instant::now(),
        open: None,
    };
    let wanted = client.history.book().waits_ms.len() + 20;
    for _ in 0..200 {
        let leader = fleet.leader().await?;
        client.write(&leader, false).await;
        client.read(&leader).await;
        if client.history.book().waits_ms.len() >= wanted {
            return Ok(());
        }
    }
    Err("nothing is answered although everything works again".into())
}
