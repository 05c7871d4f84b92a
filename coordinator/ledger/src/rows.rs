//! What the ledger remembers: one row for each node, agent, task, quota, model. Hashes, counts and money; never text.

mod quota;
mod stored;

pub use crate::calls::{CallId, CallRow, Used};
pub use crate::heads::HeadRow;
pub use crate::homes::{Chain, Kept};
pub use crate::keys::QuotaKey;
pub use crate::schedules::ScheduleRow;
pub use crate::slices::SliceRow;
pub use crate::talk::{Ask, AskKind, Signal, SignalKind, Talk};
pub use crate::text::{Common, Labels, Nodes, Text};
pub use quota::{BudgetRow, Crossed, Held, HoldingRow, Price, QuotaRow, RequestsRow, Want};
pub use stored::Rare;

use crate::keys::{Amounts, Holding};
use minicbor::{Decode, Encode};
use types::{Class, Epoch, Hash, NodeId, ProjectName, Spent, TaskState, TaskUid};

/// A member of the cluster. Who is up is soft state of the leader and not here.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeRow {
    #[n(0)]
    pub id: NodeId,
    #[n(1)]
    pub name: String,
    #[n(2)]
    pub roles: Vec<Role>,
    #[n(3)]
    pub client_addr: String,
    #[n(4)]
    pub internal_addr: String,
    /// Made once for the node's disk; an empty disk under a known name is refused.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub disk_id: [u8; 16],
    #[n(6)]
    pub version: String,
    /// Commits, reservations and spawns of this node that came with a stale epoch.
    #[n(7)]
    pub fenced: Fenced,
    /// Set by an operator: it gets nothing new.
    #[n(8)]
    pub closed: Option<Closed>,
}

/// Why a node gets nothing new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Closed {
    /// What runs there goes on.
    #[n(0)]
    Cordoned,
    /// What runs there moves at its next step, or when its grace is over.
    #[n(1)]
    Draining,
}

/// What was refused because its epoch was stale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Fenced {
    #[n(0)]
    pub commits: u64,
    #[n(1)]
    pub reservations: u64,
    #[n(2)]
    pub spawns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Role {
    #[n(0)]
    Coordinator,
    #[n(1)]
    Worker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum AgentKind {
    #[n(0)]
    Agent,
    #[n(1)]
    Team,
}

/// An agent's or team's revision in force. The definition itself is a segment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AgentRow {
    #[n(0)]
    pub project: ProjectName,
    #[n(1)]
    pub name: String,
    #[n(2)]
    pub kind: AgentKind,
    /// Empty for teams: they need no engine of their own.
    #[n(3)]
    pub model: String,
    /// Hash of the definition's text, and the segment's name it is stored under.
    #[n(4)]
    pub revision: Hash,
    #[n(5)]
    pub definition: Hash,
    /// Changes with every applied revision.
    #[n(6)]
    pub etag: u64,
    #[n(7)]
    pub updated_ms: u64,
    /// Nodes that durably hold the definition.
    #[n(8)]
    pub home: Vec<NodeId>,
    /// What a task of this agent holds while it runs, beside a running slot.
    #[n(9)]
    pub needs: Option<Vec<(Holding, u64)>>,
}

/// One input of a task: a segment and a name for people.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct InputRef {
    #[n(0)]
    pub name: Text,
    #[n(1)]
    pub segment: Hash,
    #[n(2)]
    pub bytes: u64,
}

/// Where a child came from: its parent's step, and its place among the children of that step. With the parent's
/// uid this is the operation id, so spawning twice makes one child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Origin {
    #[n(0)]
    pub parent: TaskUid,
    #[n(1)]
    pub step: u64,
    #[n(2)]
    pub index: u32,
}

/// A node and the epoch of the lease it has, or had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Holder {
    #[n(0)]
    pub node: NodeId,
    #[n(1)]
    pub epoch: Epoch,
}

/// A task: fixed size but for its inputs, labels and children, which are bounded. There are many of them, so what few
/// have at a time is in [`Seldom`]. The order in which both are stored is in `rows/stored.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRow {
    pub uid: TaskUid,
    pub project: ProjectName,
    /// The user's own key, unique in the project.
    pub task_id: Option<Box<str>>,
    pub agent: Text,
    pub kind: AgentKind,
    pub model: Text,
    /// The agent's revision, pinned at creation, and its definition's segment.
    pub revision: Common,
    pub definition: Common,
    pub inputs: Box<[InputRef]>,
    pub labels: Labels,
    pub class: Class,
    pub priority: u8,
    /// Who asked; a subject, never a secret.
    pub author: Text,
    pub created_ms: u64,
    pub ended_ms: u64,
    pub deadline_ms: u64,
    pub state: TaskState,
    /// Short stable word for people and programs, such as `node-lost` or `tokens_total`.
    pub reason: Text,
    /// Where to pull from: the lease node first, then the keepers.
    pub home: Nodes,
    /// Committed steps, and the newest step record.
    pub step: u64,
    pub head: Option<Hash>,
    /// Sequence of the newest event.
    pub sequence: u64,
    pub spent: Spent,
    pub result: Option<Hash>,
    pub result_bytes: u64,
    pub request_id: Box<str>,
    pub body: Hash,
    /// When it last entered the queue, on the ledger's clock.
    pub queued_ms: u64,
    /// Epoch of the newest lease ever given, to keep epochs rising even when none is held now.
    pub last_epoch: Option<Epoch>,
    /// Nodes that proved, at creation or with the last commit, that they hold what the task needs. `home` is the
    /// lease node and these; a lease node that never committed is forgotten, a keeper is not.
    pub keepers: Nodes,
    /// Tokens settled against the budget so far.
    pub settled_tokens: u64,
    /// Beside `settled_tokens`: the same of the other budgets.
    pub settled: Option<Box<Amounts>>,
    pub rare: Rare,
}

impl TaskRow {
    /// The model whose price its next call has: that of the last wish, else its own.
    pub fn priced_by(&self) -> &str {
        self.route.as_deref().map_or(self.model.as_str(), |route| route.model.as_str())
    }

    /// A pending task of nobody, to be filled in.
    pub fn empty() -> TaskRow {
        TaskRow {
            uid: TaskUid::default(),
            project: ProjectName::default(),
            task_id: None,
            agent: Text::default(),
            kind: AgentKind::Agent,
            model: Text::default(),
            revision: Common::default(),
            definition: Common::default(),
            inputs: Box::default(),
            labels: Labels::default(),
            class: Class::Interactive,
            priority: 0,
            author: Text::default(),
            created_ms: 0,
            ended_ms: 0,
            deadline_ms: 0,
            state: TaskState::Pending,
            reason: Text::default(),
            home: Nodes::default(),
            step: 0,
            head: None,
            sequence: 0,
            spent: Spent::default(),
            result: None,
            result_bytes: 0,
            request_id: Box::default(),
            body: Hash::default(),
            queued_ms: 0,
            last_epoch: None,
            keepers: Nodes::default(),
            settled_tokens: 0,
            settled: None,
            rare: Rare::default(),
        }
    }
}

/// What few tasks have at a time: those that run, wait for something, failed, or belong to a team. It reads as if it
/// were in the row: `row.epoch`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seldom {
    /// Segments shared by a team, put before everything private.
    pub background: Vec<Hash>,
    /// The lease that is held.
    pub node: Option<NodeId>,
    pub epoch: Option<Epoch>,
    /// Tokens of the budget that this task's current lease has set aside and not settled.
    pub reserved_tokens: u64,
    /// What a paused task asked for when it was refused.
    pub wanted_tokens: u64,
    /// Reason word and segment of the text.
    pub error: Option<TaskError>,
    pub origin: Option<Origin>,
    pub depth: u32,
    pub children: Vec<TaskUid>,
    /// Children that are not final yet.
    pub children_open: u32,
    /// Holders whose lease a pause took away and who have not shown yet that they know. A cancel waits for them:
    /// until then they could start something that was granted before the pause. A handful at most.
    pub unaware: Vec<Holder>,
    /// Beside `reserved_tokens` and `wanted_tokens`: the same of the other budgets.
    pub held: Option<Box<Held>>,
    pub want: Option<Box<Want>>,
    /// What it holds while it runs, beside a running slot. From the agent's revision.
    pub needs: Option<Vec<(Holding, u64)>>,
    /// Cost units that its project was charged for the lease under way beyond what its steps cost so far.
    pub charged: Option<u64>,
    /// Asked to make room: at its next step, or at this time on the ledger's clock.
    pub yield_by_ms: Option<u64>,
    /// Not before this time, Unix milliseconds.
    pub not_before_ms: Option<u64>,
    /// Tasks that have to succeed first.
    pub after: Option<Vec<TaskUid>>,
    /// What the steps of the lease under way cost.
    pub lease_units: Option<u64>,
    /// What it asked of people, and what they said.
    pub talk: Option<Box<Talk>>,
    /// Its lease holds no slot: it waits for its tools.
    pub aside: Option<bool>,
    /// The task whose first steps are this one's, too.
    pub fork: Option<Box<Fork>>,
    /// It starts together with its siblings of the same step, or not at all.
    pub together: Option<bool>,
    /// The model of several that its next step was last set aside for, or refused for.
    pub route: Option<Box<Routed>>,
}

/// The model that a step is for, where the agent names several.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Routed {
    #[n(0)]
    pub model: String,
    #[n(1)]
    pub reason: String,
    /// Who wished so, and for which step.
    #[n(2)]
    pub epoch: Epoch,
    #[n(3)]
    pub step: u64,
    #[n(4)]
    pub turn: u32,
    #[n(5)]
    pub granted: bool,
}

/// Which of several models answered a step, and a word for why.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StepRoute {
    #[n(0)]
    pub model: String,
    #[n(1)]
    pub reason: String,
}

/// Where a task that goes on from another one's step came from.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Fork {
    #[n(0)]
    pub task: TaskUid,
    /// The other task's step that this one goes on from; 0: from the beginning.
    #[n(1)]
    pub step: u64,
    /// That step's record; none at step 0.
    #[n(2)]
    pub head: Option<Hash>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TaskError {
    #[n(0)]
    pub reason: String,
    #[n(1)]
    pub text: Option<Hash>,
}

/// A model's place in the price book.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PriceRow {
    #[n(0)]
    pub model: String,
    #[n(1)]
    pub price: Price,
    /// Counts the changes; 1 is the first.
    #[n(2)]
    pub version: u64,
    #[n(3)]
    pub author: String,
    #[n(4)]
    pub reason: String,
    #[n(5)]
    pub updated_ms: u64,
}

/// Who changed what, or which budget ran up to where. Its key counts from 1.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AuditRow {
    #[n(0)]
    pub number: u64,
    #[n(1)]
    pub at_ms: u64,
    /// Empty: the ledger itself.
    #[n(2)]
    pub author: String,
    /// `quota.set`, `quota.crossed`, `price.set`, …
    #[n(3)]
    pub action: String,
    /// The place of the tree, the model, the node.
    #[n(4)]
    pub subject: String,
    /// In words and numbers: `running 4 -> 8`.
    #[n(5)]
    pub change: String,
    #[n(6)]
    pub reason: String,
}

/// A model by name: the file's digest and size, and who has it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ModelRow {
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub digest: Hash,
    #[n(2)]
    pub bytes: u64,
    #[n(3)]
    pub holders: Vec<NodeId>,
}

/// A committed event of a task. Its sequence is its key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Event {
    #[n(0)]
    pub sequence: u64,
    #[n(1)]
    pub at_ms: u64,
    #[n(2)]
    pub kind: EventKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum EventKind {
    #[n(0)]
    State {
        #[n(0)]
        state: TaskState,
        #[n(1)]
        reason: String,
        #[n(2)]
        node: Option<NodeId>,
        #[n(3)]
        epoch: Option<Epoch>,
    },
    #[n(1)]
    Step {
        #[n(0)]
        step: u64,
        #[n(1)]
        head: Hash,
        #[n(2)]
        spent: Spent,
        #[n(3)]
        route: Option<Box<StepRoute>>,
    },
}
