//! Reads of the state, as values, so that any node can send them to the leader.

use crate::keys::QuotaKey;
use crate::reply::Refusal;
use crate::rows::{
    AgentRow, AuditRow, Chain, Event, HeadRow, Kept, ModelRow, NodeRow, PriceRow, QuotaRow, ScheduleRow,
    TaskRow,
};
use minicbor::{Decode, Encode};
use types::{ClusterId, Hash, NodeId, ProjectName, TaskUid};

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Query {
    /// By uid (`t_…`) or by the user's task id.
    #[n(0)]
    Task {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        id: String,
    },
    /// Rows after `after` in uid order, at most `limit`, matching the filter text of the API.
    #[n(1)]
    Tasks {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        filter: String,
        #[n(2)]
        after: Option<TaskUid>,
        #[n(3)]
        limit: u32,
    },
    #[n(2)]
    TaskByUid {
        #[n(0)]
        uid: TaskUid,
    },
    #[n(3)]
    Agent {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        name: String,
    },
    #[n(4)]
    Agents {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        after: Option<String>,
        #[n(2)]
        limit: u32,
    },
    #[n(5)]
    Quota {
        #[n(0)]
        path: String,
    },
    #[n(6)]
    Quotas,
    #[n(7)]
    Nodes,
    #[n(8)]
    Models,
    #[n(9)]
    Events {
        #[n(0)]
        uid: TaskUid,
        #[n(1)]
        from: u64,
    },
    /// Children of a task, with state and result.
    #[n(10)]
    Children {
        #[n(0)]
        parent: TaskUid,
    },
    #[n(11)]
    Cluster,
    /// Why a task waits; the leader answers with what it knows of the nodes.
    #[n(12)]
    Explain {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        id: String,
    },
    #[n(13)]
    Prices,
    /// Audit rows after a number, about one subject or what is below it; an empty subject is all.
    #[n(14)]
    Audit {
        #[n(0)]
        after: u64,
        #[n(1)]
        subject: String,
        #[n(2)]
        limit: u32,
    },
    /// What a change of limits would do.
    #[n(15)]
    PreviewQuota {
        #[n(0)]
        path: String,
        #[n(1)]
        changes: Vec<(QuotaKey, Option<u64>)>,
        #[n(2)]
        etag: Option<u64>,
        #[n(3)]
        reason: String,
    },
    /// Named chains whose paths begin so.
    #[n(16)]
    Heads {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        prefix: String,
    },
    #[n(17)]
    Schedules {
        #[n(0)]
        project: ProjectName,
    },
    /// Segments that nobody may have any more, forgotten at `since_ms` or later, behind `after` in the order of their names.
    #[n(18)]
    Forgotten {
        #[n(0)]
        since_ms: u64,
        #[n(1)]
        after: Option<(ProjectName, Hash)>,
        #[n(2)]
        limit: u32,
    },
    /// What the rows of a project name, behind a chain: of those with a node in their home, or of all others.
    #[n(40)]
    Kept {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        node: NodeId,
        #[n(2)]
        homed: bool,
        #[n(3)]
        after: Option<Chain>,
        #[n(4)]
        limit: u32,
    },
    /// Chains that too few nodes keep while these are gone, and that this holder has to bring to another store.
    #[n(41)]
    Short {
        #[n(0)]
        holder: NodeId,
        #[n(1)]
        gone: Vec<NodeId>,
        /// Also those whose keepers may each hold a part only.
        #[n(2)]
        unproved: bool,
        /// Of ended tasks, or all others.
        #[n(3)]
        ended: bool,
        #[n(4)]
        after: Option<Chain>,
        #[n(5)]
        limit: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    #[n(0)]
    Task(#[n(0)] Option<Box<TaskRow>>),
    #[n(1)]
    Tasks {
        #[n(0)]
        rows: Vec<TaskRow>,
        #[n(1)]
        more: bool,
    },
    #[n(2)]
    Agent(#[n(0)] Option<AgentRow>),
    #[n(3)]
    Agents {
        #[n(0)]
        rows: Vec<AgentRow>,
        #[n(1)]
        more: bool,
    },
    #[n(4)]
    Quota(#[n(0)] Option<QuotaRow>),
    #[n(5)]
    Quotas(#[n(0)] Vec<QuotaRow>),
    #[n(6)]
    Nodes(#[n(0)] Vec<NodeRow>),
    #[n(7)]
    Models(#[n(0)] Vec<ModelRow>),
    /// `first_kept` is the oldest sequence that is still there.
    #[n(8)]
    Events {
        #[n(0)]
        events: Vec<Event>,
        #[n(1)]
        first_kept: u64,
        #[n(2)]
        ended: bool,
    },
    #[n(9)]
    Cluster(#[n(0)] ClusterFacts),
    #[n(10)]
    Explain(#[n(0)] Option<Explanation>),
    /// The query could not be understood, such as a bad filter; says what to write instead.
    #[n(11)]
    BadQuery(#[n(0)] String),
    #[n(12)]
    Prices(#[n(0)] Vec<PriceRow>),
    #[n(13)]
    Audit {
        #[n(0)]
        rows: Vec<AuditRow>,
        #[n(1)]
        more: bool,
    },
    #[n(14)]
    Preview {
        #[n(0)]
        row: Box<QuotaRow>,
        /// Running tasks that would have to wait.
        #[n(1)]
        paused: Vec<TaskUid>,
    },
    #[n(15)]
    Refused(#[n(0)] Refusal),
    #[n(16)]
    Heads(#[n(0)] Vec<HeadRow>),
    #[n(17)]
    Schedules(#[n(0)] Vec<ScheduleRow>),
    #[n(18)]
    Forgotten {
        #[n(0)]
        rows: Vec<ForgottenRow>,
        #[n(1)]
        more: bool,
    },
    #[n(40)]
    Kept {
        #[n(0)]
        rows: Vec<Kept>,
        #[n(1)]
        more: bool,
    },
    #[n(41)]
    Short {
        #[n(0)]
        rows: Vec<Kept>,
        #[n(1)]
        more: bool,
        /// All that the holder has to bring, and all that no node keeps any more; only with the first page.
        #[n(2)]
        short: u64,
        #[n(3)]
        lost: u64,
    },
}

/// A segment that is gone for good.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ForgottenRow {
    #[n(0)]
    pub project: ProjectName,
    #[n(1)]
    pub hash: Hash,
    #[n(2)]
    pub at_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ClusterFacts {
    #[n(0)]
    pub cluster_id: Option<ClusterId>,
    #[n(1)]
    pub state_hash: Hash,
    #[n(2)]
    pub applied_index: u64,
    #[n(3)]
    pub feature_level: u32,
    /// State name and how many tasks are in it.
    #[n(4)]
    pub tasks_by_state: Vec<(String, u64)>,
    #[n(5)]
    pub incarnation: u32,
    /// Copies a commit needs: min(2, members).
    #[n(6)]
    pub copies: u32,
    /// Age of the oldest pending task on the ledger's clock.
    #[n(7)]
    pub queue_age_ms: u64,
}

/// One reason why a task does not run; all of them together keep it waiting.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Blocker {
    #[n(0)]
    pub reason: String,
    #[n(1)]
    pub resource: String,
    #[n(2)]
    pub requested: u64,
    #[n(3)]
    pub available: u64,
    #[n(4)]
    pub limit: u64,
    #[n(5)]
    pub message: String,
    /// Who holds more than they are guaranteed of it, and how much more; the greediest first.
    #[n(6)]
    pub borrowed_by: Option<Vec<(String, u64)>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Explanation {
    #[n(0)]
    pub task: Box<TaskRow>,
    #[n(1)]
    pub blockers: Vec<Blocker>,
    #[n(2)]
    pub tasks_ahead: u64,
    /// Node id, eligible, and why not; of an eligible one what it holds of the prompt and runs.
    #[n(3)]
    pub nodes: Vec<(u64, bool, String)>,
    /// When it will start, in milliseconds from now, if tasks go on starting as they did; and how far off that may be.
    #[n(4)]
    pub eta: Option<(u64, u64)>,
}
