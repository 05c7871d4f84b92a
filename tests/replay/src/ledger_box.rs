//! A ledger of one's own: commands go straight in, with clocks that the caller turns.

use ledger::command::{Command, RequestKey, Stamp};
use ledger::reply::Reply;
use ledger::rows::{AgentKind, InputRef, QuotaKey, Role};
use ledger::{Applied, Place, Soft, SoftNode, State};
use types::{Class, ClusterId, Hash, NodeId, ProjectName, TaskUid};

/// The name of the one model and of the one agent of each project.
pub(crate) const MODEL: &str = "m";
const AGENT: &str = "worker";
/// Some day, so that wall clocks look like wall clocks.
const DAY_MS: u64 = 1_700_000_000_000;

pub(crate) struct LedgerBox {
    pub state: State,
    pub now_ms: u64,
    index: u64,
    members: Vec<NodeId>,
}

/// A task to create.
pub(crate) struct NewTask<'a> {
    pub project: &'a ProjectName,
    pub class: Class,
    /// Names the task's own input.
    pub number: u64,
    pub input_bytes: u64,
    /// From now on; 0 is none.
    pub deadline_ms: u64,
}

impl LedgerBox {
    /// A cluster with so many workers, and an agent in each project.
    pub(crate) fn new(workers: usize, projects: &[ProjectName]) -> LedgerBox {
        let mut ledger = LedgerBox { state: State::new(), now_ms: 1, index: 0, members: Vec::new() };
        ledger.apply(Command::InitCluster { cluster_id: ClusterId([1; 16]) });
        (0..workers as u64).for_each(|number| ledger.admit(number));
        ledger.members = ledger.state.nodes().map(|row| row.id).collect();
        projects.iter().for_each(|project| ledger.add_agent(project));
        ledger
    }

    pub(crate) fn apply(&mut self, command: Command) -> Applied {
        self.index += 1;
        let stamp = Stamp { ledger_ms: self.now_ms, wall_ms: self.wall_ms() };
        self.state.apply(Place { index: self.index, position: 0 }, stamp, &command)
    }

    pub(crate) fn wall_ms(&self) -> u64 {
        DAY_MS + self.now_ms
    }

    pub(crate) fn members(&self) -> &[NodeId] {
        &self.members
    }

    /// Two members that hold a segment: as many as durability asks for.
    pub(crate) fn keepers(&self, first: usize) -> Vec<NodeId> {
        (0..2.min(self.members.len())).map(|at| self.members[(first + at) % self.members.len()]).collect()
    }

    fn admit(&mut self, number: u64) {
        let mut disk_id = [0; 16];
        disk_id[..8].copy_from_slice(&number.to_le_bytes());
        self.apply(Command::AdmitNode {
            name: format!("worker-{number}"),
            roles: vec![Role::Worker],
            client_addr: format!("10.0.0.1:{number}"),
            internal_addr: format!("10.0.0.2:{number}"),
            disk_id,
            version: "0.1.0".to_string(),
        });
    }

    fn add_agent(&mut self, project: &ProjectName) {
        let text = Hash::of(project.as_str().as_bytes());
        self.apply(Command::ApplyAgent {
            project: project.clone(),
            name: AGENT.to_string(),
            kind: AgentKind::Agent,
            model: MODEL.to_string(),
            revision: text,
            definition: text,
            etag: None,
            home: self.keepers(0),
            request: RequestKey::default(),
            needs: None,
        });
    }

    pub(crate) fn limit(&mut self, path: &str, key: QuotaKey, limit: u64) {
        self.apply(Command::SetQuota {
            path: path.to_string(),
            changes: vec![(key, Some(limit))],
            etag: None,
            reason: "replay".to_string(),
            request: RequestKey::default(),
        });
    }

    /// As a door does it, with everything that a client stamps.
    pub(crate) fn create(&mut self, new: &NewTask<'_>) -> anyhow::Result<TaskUid> {
        let segment = Hash::of(&new.number.to_le_bytes());
        let reply = self.apply(Command::CreateTask {
            project: new.project.clone(),
            agent: AGENT.to_string(),
            inputs: vec![InputRef { name: "input".into(), segment, bytes: new.input_bytes }],
            task_id: None,
            labels: vec![("run".to_string(), "replay".to_string())],
            class: new.class,
            priority: 0,
            deadline_ms: if new.deadline_ms == 0 { 0 } else { self.wall_ms() + new.deadline_ms },
            home: self.keepers(new.number as usize),
            request: RequestKey {
                author: "ann".to_string(),
                request_id: format!("{:032x}", u128::from(new.number)),
                body: segment,
            },
            terms: None,
        });
        match reply.reply {
            Reply::Task(row) => Ok(row.uid),
            other => anyhow::bail!("a task was not created: {other:?}"),
        }
    }

    /// Every member with so many slots.
    pub(crate) fn soft(&self, slots: u32) -> Soft {
        let node =
            SoftNode { attached: true, slots, models: [MODEL.to_string()].into(), ..SoftNode::default() };
        let nodes = self.members.iter().map(|id| (*id, node.clone())).collect();
        Soft { nodes, ledger_ms: self.now_ms, ..Soft::default() }
    }
}
