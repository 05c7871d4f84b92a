//! Everything that can be asked of the ledger, and the log entry that carries it.

mod parts;

pub use parts::{ChildSpec, Next, Release, Removal, Route, SliceTurn, Spare, Terms, Wanted};

use crate::homes::Chain;
use crate::keys::{Amounts, Holding, QuotaKey};
use crate::rows::{AgentKind, CallId, Closed, InputRef, Price, Role, ScheduleRow, SignalKind, Want};
use minicbor::{Decode, Encode};
use types::{Class, ClusterId, Epoch, Hash, NodeId, ProjectName, Spent, TaskUid};

/// One log entry: many commands under one stamp.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    #[n(0)]
    pub format: u16,
    /// A node that reads only below this must stop instead of guessing.
    #[n(1)]
    pub min_reader: u16,
    #[n(2)]
    pub stamp: Stamp,
    #[n(3)]
    pub commands: Vec<Command>,
}

/// The leader's two clocks. Replicas have none of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Stamp {
    /// Monotonic over leaders: leases, rates, ageing.
    #[n(0)]
    pub ledger_ms: u64,
    /// Unix milliseconds: what people read, deadlines.
    #[n(1)]
    pub wall_ms: u64,
}

/// A change by a person or program, so that repeating it has no second effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct RequestKey {
    /// Subject of the caller.
    #[n(0)]
    pub author: String,
    /// Empty: no protection against repetition.
    #[n(1)]
    pub request_id: String,
    /// Hash of the request's body; the same id with another body is refused.
    #[n(2)]
    pub body: Hash,
}

/// The form that knows of levels raised by command, and of who removed a node.
const LEVELS: u16 = 5;
/// The form that knows of calls that one of several models answers.
const ROUTES: u16 = 6;
/// The form that knows of slices.
const SLICES: u16 = 7;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// The first command of a cluster.
    #[n(0)]
    InitCluster {
        #[n(0)]
        cluster_id: ClusterId,
    },
    /// A node asks to become a member. The reply is its id, made from the place in the log.
    /// A known name with the same disk gets its old id (and new addresses); with another disk it is refused.
    #[n(1)]
    AdmitNode {
        #[n(0)]
        name: String,
        #[n(1)]
        roles: Vec<Role>,
        #[n(2)]
        client_addr: String,
        #[n(3)]
        internal_addr: String,
        #[n(4)]
        #[cbor(with = "minicbor::bytes")]
        disk_id: [u8; 16],
        #[n(5)]
        version: String,
    },
    /// The member is gone for good. Its tasks go back to the queue.
    #[n(2)]
    RemoveNode {
        #[n(0)]
        node: NodeId,
        /// Who wants it and why; without it, as before form 5, nothing is audited and nothing remembered.
        #[n(1)]
        wish: Option<Removal>,
    },
    /// The leader saw the node's lease end: its tasks go back to the queue, cancelling ones become CANCELLED.
    #[n(3)]
    NodeLost {
        #[n(0)]
        node: NodeId,
    },
    #[n(4)]
    ApplyAgent {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        name: String,
        #[n(2)]
        kind: AgentKind,
        #[n(3)]
        model: String,
        #[n(4)]
        revision: Hash,
        #[n(5)]
        definition: Hash,
        /// `Some`: refused unless it is the etag in force (0 = must not exist).
        #[n(6)]
        etag: Option<u64>,
        #[n(7)]
        home: Vec<NodeId>,
        #[n(8)]
        request: RequestKey,
        /// What a task holds while it runs, beside a running slot.
        #[n(9)]
        needs: Option<Vec<(Holding, u64)>>,
    },
    #[n(5)]
    CreateTask {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        agent: String,
        #[n(2)]
        inputs: Vec<InputRef>,
        #[n(3)]
        task_id: Option<String>,
        #[n(4)]
        labels: Vec<(String, String)>,
        #[n(5)]
        class: Class,
        #[n(6)]
        priority: u8,
        #[n(7)]
        deadline_ms: u64,
        /// Where the inputs are durable.
        #[n(8)]
        home: Vec<NodeId>,
        #[n(9)]
        request: RequestKey,
        #[n(10)]
        terms: Option<Terms>,
    },
    /// A running task starts children. Repeating it returns the same children.
    #[n(6)]
    Spawn {
        #[n(0)]
        parent: TaskUid,
        #[n(1)]
        epoch: Epoch,
        #[n(2)]
        node: NodeId,
        /// The parent's step that spawns.
        #[n(3)]
        step: u64,
        #[n(4)]
        children: Vec<ChildSpec>,
    },
    /// Gives a pending task to a node. Refused when it may not start there now.
    #[n(7)]
    Assign {
        #[n(0)]
        task: TaskUid,
        #[n(1)]
        node: NodeId,
    },
    /// Sets tokens aside for the next model call: at least `min`, at most `max`.
    /// Refused for lack of budget, the task becomes PAUSED(BUDGET) and its lease ends.
    #[n(8)]
    Reserve {
        #[n(0)]
        task: TaskUid,
        #[n(1)]
        epoch: Epoch,
        #[n(2)]
        node: NodeId,
        #[n(3)]
        step: u64,
        #[n(4)]
        min_tokens: u64,
        #[n(5)]
        max_tokens: u64,
        /// What of the minimum is prompt, and what else the call uses.
        #[n(6)]
        want: Option<Want>,
        /// The model of several that is to be called; without it the task's own.
        #[n(7)]
        route: Option<Route>,
    },
    /// One committed move. `step` must be the task's step + 1; the same record again is answered as done.
    #[n(9)]
    CommitStep {
        #[n(0)]
        task: TaskUid,
        #[n(1)]
        epoch: Epoch,
        #[n(2)]
        node: NodeId,
        #[n(3)]
        step: u64,
        #[n(4)]
        head: Hash,
        /// Nodes that durably hold the record and everything it names; the committing node is one of them.
        #[n(5)]
        home: Vec<NodeId>,
        #[n(6)]
        spent: Spent,
        /// New tokens to settle: not in the chain before, plus generated.
        #[n(7)]
        billed_tokens: u64,
        #[n(8)]
        next: Next,
        /// What the step used beside tokens.
        #[n(9)]
        extra: Option<Amounts>,
    },
    /// The lease holder has stopped everything of a CANCELLING task, or gives a lease back at a step boundary.
    #[n(10)]
    Release {
        #[n(0)]
        task: TaskUid,
        #[n(1)]
        epoch: Epoch,
        #[n(2)]
        node: NodeId,
        #[n(3)]
        why: Release,
    },
    #[n(11)]
    CancelTask {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        task: TaskUid,
        #[n(2)]
        request: RequestKey,
    },
    #[n(12)]
    PauseTask {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        task: TaskUid,
        #[n(2)]
        request: RequestKey,
    },
    #[n(13)]
    ResumeTask {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        task: TaskUid,
        #[n(2)]
        request: RequestKey,
    },
    #[n(14)]
    SetQuota {
        #[n(0)]
        path: String,
        /// Only the keys named change; `None` removes a limit.
        #[n(1)]
        changes: Vec<(QuotaKey, Option<u64>)>,
        #[n(2)]
        etag: Option<u64>,
        #[n(3)]
        reason: String,
        #[n(4)]
        request: RequestKey,
    },
    /// A node reports the models it holds.
    #[n(15)]
    HoldModels {
        #[n(0)]
        node: NodeId,
        /// Name, digest, bytes.
        #[n(1)]
        models: Vec<(String, Hash, u64)>,
    },
    /// Time passes: deadlines, refilled buckets that wake paused tasks, forgotten request ids.
    #[n(16)]
    Tick,
    /// Puts a model's price into the book.
    #[n(17)]
    SetPrice {
        #[n(0)]
        model: String,
        #[n(1)]
        price: Price,
        /// `Some`: refused unless it is the version in force (0 = has no price yet).
        #[n(2)]
        etag: Option<u64>,
        #[n(3)]
        reason: String,
        #[n(4)]
        request: RequestKey,
    },
    /// Asks a running task to make room: at its next step, or when the grace is over.
    #[n(18)]
    Preempt {
        #[n(0)]
        task: TaskUid,
        /// The lease that is meant; another one is left alone.
        #[n(1)]
        epoch: Epoch,
        #[n(2)]
        grace_ms: u64,
    },
    /// Closes a node to new tasks, or opens it again with `None`.
    #[n(19)]
    CloseNode {
        #[n(0)]
        node: NodeId,
        #[n(1)]
        closed: Option<Closed>,
        /// What tasks of a draining node have until they are taken away in the middle of a step.
        #[n(2)]
        grace_ms: u64,
        #[n(3)]
        reason: String,
        #[n(4)]
        request: RequestKey,
    },
    /// Somebody tells a task something: a verdict, an answer, a message.
    #[n(20)]
    Signal {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        task: TaskUid,
        #[n(2)]
        kind: SignalKind,
        /// The open question that is answered; empty for a message.
        #[n(3)]
        ask: String,
        #[n(4)]
        text: Option<Hash>,
        /// Where the text is durable.
        #[n(5)]
        home: Vec<NodeId>,
        #[n(6)]
        request: RequestKey,
    },
    /// A named chain of segments gets a new head: the memory of a scope, the notes of a task tree.
    #[n(21)]
    MoveHead {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        path: String,
        /// The head that the new one follows; another one in force refuses the move.
        #[n(2)]
        after: Option<Hash>,
        #[n(3)]
        head: Hash,
        #[n(4)]
        home: Vec<NodeId>,
        /// Segments that nobody may have any more.
        #[n(5)]
        forget: Vec<Hash>,
        #[n(6)]
        request: RequestKey,
    },
    /// A task to be created again and again.
    #[n(22)]
    SetSchedule {
        #[n(0)]
        row: Box<ScheduleRow>,
        #[n(1)]
        request: RequestKey,
    },
    #[n(23)]
    DropSchedule {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        name: String,
        #[n(2)]
        request: RequestKey,
    },
    /// The leader saw that a schedule is due. Refused unless `due_ms` is what the row says: so each time fires once.
    #[n(24)]
    FireSchedule {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        name: String,
        #[n(2)]
        due_ms: u64,
        /// When it is due next, Unix milliseconds; 0: never again.
        #[n(3)]
        next_ms: u64,
    },
    /// A model call that belongs to no task begins: it gets a running slot and at least `min_tokens`, at most
    /// `max_tokens`. The same call again is answered as the first time.
    #[n(25)]
    BeginCall {
        #[n(0)]
        call: CallId,
        #[n(1)]
        project: ProjectName,
        #[n(2)]
        model: String,
        #[n(3)]
        author: String,
        /// Where it runs.
        #[n(4)]
        node: NodeId,
        #[n(5)]
        min_tokens: u64,
        #[n(6)]
        max_tokens: u64,
        #[n(7)]
        want: Want,
        /// It is over after this time, and everything it set aside is used, unless it ends or is renewed.
        #[n(8)]
        lives_ms: u64,
        /// What it holds beside a running slot.
        #[n(9)]
        needs: Vec<(Holding, u64)>,
    },
    /// A node still makes these calls.
    #[n(26)]
    RenewCalls {
        #[n(0)]
        node: NodeId,
        #[n(1)]
        calls: Vec<(ProjectName, CallId)>,
        #[n(2)]
        lives_ms: u64,
    },
    /// A call is over; what it used is settled, the rest goes back.
    #[n(27)]
    EndCall {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        call: CallId,
        /// New tokens of the prompt.
        #[n(2)]
        fresh_tokens: u64,
        /// Tokens of the prompt that needed no computing.
        #[n(3)]
        known_tokens: u64,
        #[n(4)]
        generated_tokens: u64,
        #[n(5)]
        extra: Amounts,
    },
    /// Gives children that start together to nodes: all of them, or none where one may not start.
    #[n(28)]
    AssignTogether {
        #[n(0)]
        leases: Vec<(TaskUid, NodeId)>,
    },
    /// A node's slice takes its turn: what its requests used is settled, what is not needed goes back, more is taken, and
    /// all that in one entry. The same turn again is answered as the first time.
    #[n(29)]
    TurnSlice {
        #[n(0)]
        turn: Box<SliceTurn>,
    },
    /// A slice is lost, and its node knows that not all of it was used: the rest goes back, once.
    #[n(30)]
    RefundSlice {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        slice: CallId,
        #[n(2)]
        node: NodeId,
        /// Everything that its requests used since it was opened, at most.
        #[n(3)]
        spent: Amounts,
    },
    /// Other nodes keep what a chain needs from now on, because one that did is gone. Refused unless the chain's keepers
    /// and everything it names are as they were when it was copied.
    #[n(40)]
    MoveHome {
        #[n(0)]
        chain: Chain,
        /// The keepers that were seen.
        #[n(1)]
        was: Vec<NodeId>,
        #[n(2)]
        mark: Hash,
        /// Nodes that durably hold all of it.
        #[n(3)]
        home: Vec<NodeId>,
    },
    /// The leader saw that the task of a memory or a board has no record any more: the chain ends with it.
    #[n(41)]
    DropHead {
        #[n(0)]
        project: ProjectName,
        #[n(1)]
        path: String,
        /// The head that was seen.
        #[n(2)]
        head: Hash,
    },
    /// From here on entries may be of this form: every member reads it, and no older version may come back.
    #[n(50)]
    RaiseLevel {
        #[n(0)]
        level: u32,
        #[n(1)]
        reason: String,
        #[n(2)]
        request: RequestKey,
    },
}

impl Command {
    /// The oldest form of an entry whose readers understand the command.
    pub fn form(&self) -> u16 {
        match self {
            Command::Reserve { route: Some(_), .. } => ROUTES,
            Command::TurnSlice { .. } | Command::RefundSlice { .. } => SLICES,
            Command::MoveHome { .. } | Command::DropHead { .. } => 5,
            Command::RaiseLevel { level, .. } => LEVELS.max(u16::try_from(*level).unwrap_or(u16::MAX)),
            Command::RemoveNode { wish: Some(_), .. } => LEVELS,
            Command::BeginCall { .. } | Command::RenewCalls { .. } | Command::EndCall { .. } => 4,
            Command::Signal { .. }
            | Command::MoveHead { .. }
            | Command::SetSchedule { .. }
            | Command::DropSchedule { .. }
            | Command::FireSchedule { .. } => 3,
            Command::CommitStep { next, .. } => next.form(),
            Command::Release { why: Release::Stuck, .. } => 4,
            Command::CreateTask { terms: Some(terms), .. } if terms.fork.is_some() => 3,
            Command::AssignTogether { .. } => 4,
            Command::Spawn { children, .. } => children.iter().map(ChildSpec::form).max().unwrap_or(2),
            _ => 2,
        }
    }
}
