//! What a mind wants done. Nothing here is true before it is performed and answered.

use crate::{StepRecord, ToolChoice};
use context::{ChainItem, Reader, Segment};
use types::{Hash, Spent};

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Open these segments and answer `Loaded`: an answer cut by a budget is continued in a new life.
    Load { hashes: Vec<Hash> },
    /// Say which tools there are that match these names; answer `Tools`, or `ModelFailed`.
    ListTools { patterns: Vec<String> },
    /// Call a tool; answer `CallEnded`. Several calls may be out at the same time.
    CallTool {
        /// The step in which the model asked, and the call's place: with the task's uid the operation's id.
        step: u64,
        index: u32,
        tool: String,
        /// JSON.
        arguments: String,
        /// 0 for the first try of this life.
        attempt: u32,
        timeout_ms: Option<u64>,
        output_bytes: Option<u64>,
    },
    /// Cut the model call that is out short: what it said so far counts.
    CutShort,
    /// Call the model; answer `Generated`, `NearlyFull`, `ModelFailed` or `BudgetRefused`.
    Infer {
        step: u64,
        /// With the task's uid and the step, the operation's id.
        call: u32,
        model: String,
        /// The models among which the call chooses, where the agent names several.
        routes: Option<Routes>,
        chain: Vec<ChainItem>,
        /// Segments of the chain that may be in no store yet.
        fresh: Vec<(Hash, Segment)>,
        reader: Reader,
        /// Tokens of the chain at the last committed step: these are billed already.
        known_tokens: u64,
        max_tokens: u32,
        /// The model may not end before so many.
        min_tokens: u32,
        temperature_milli: u32,
        seed: u64,
        /// How long to wait before the call: 0 but for a repetition.
        wait_ms: u64,
        choice: ToolChoice,
        /// When the prompt takes more thousandths of the window than this: don't call, answer `NearlyFull`.
        full_at_milli: Option<u32>,
        /// It writes a summary for the task itself.
        summary: bool,
    },
    /// Make the new segments durable, then start the children; answer `Spawned`, or `ModelFailed` when refused.
    Spawn { step: u64, children: Vec<ChildPlan>, new_segments: Vec<(Hash, Vec<u8>)> },
    /// Say whether a text is JSON that fits a schema; answer `Checked`.
    CheckResult { schema: String, text: String },
    /// Say how all children of this task stand; answer `Children`.
    AskChildren,
    /// Make the segments durable, then propose the step; answer `Committed` or `Fenced`.
    Commit {
        step: u64,
        /// The record's name: the task's new head.
        head: Hash,
        record: Box<StepRecord>,
        /// Sealed and new, in the order of the chain; the record itself is the last.
        segments: Vec<(Hash, Vec<u8>)>,
        spent: Spent,
        billed_tokens: u64,
        next: NextMove,
    },
    /// Nothing more will come: the actor may end.
    Stop,
}

/// Models that may answer a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    /// In the order of the agent.
    pub models: Vec<String>,
    /// The one that has read the chain so far; the others would read all of it anew.
    pub read_by: Option<String>,
}

/// A child to start: an agent of the same project on some inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildPlan {
    pub agent: String,
    pub inputs: Vec<(String, Hash)>,
    pub background: Vec<Hash>,
    /// New tokens that it may use, with everything below it; none: as its parent.
    pub tokens: Option<u64>,
    /// It starts together with the others of the step that say so, or not at all.
    pub together: bool,
    /// 0 to 9 within its class; none: as its parent.
    pub priority: Option<u8>,
}

/// What the task does after the step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextMove {
    /// Keeps its lease and goes on.
    Continue,
    /// Gives its lease back until every child is final.
    WaitChildren,
    Done {
        result: Hash,
        bytes: u64,
    },
    /// `message` names the segment of the text.
    Failed {
        reason: String,
        message: Hash,
    },
    /// Stands still until someone resumes it.
    PausedError {
        reason: String,
        message: Hash,
    },
    /// Keeps its lease and goes on; signals up to this number were heard.
    GoOn {
        heard: u64,
    },
    /// Keeps its lease and gives its slot to others while tools work.
    WaitTool {
        heard: u64,
        asks: Vec<Ask>,
        /// So many calls begin with this step.
        begun: u64,
    },
    /// Gives its lease back until somebody answers.
    WaitInput {
        heard: u64,
        asks: Vec<Ask>,
    },
    /// Gives its lease back for so long.
    WaitFor {
        heard: u64,
        ms: u64,
    },
    /// Gives its lease back until the budgets have room for so many calls of tools.
    WaitBudget {
        heard: u64,
        calls: u64,
    },
}

impl NextMove {
    pub(crate) fn begun(&self) -> u64 {
        match self {
            NextMove::WaitTool { begun, .. } => *begun,
            _ => 0,
        }
    }
}

/// A question to people. The id is the step and the place of the call that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub id: String,
    pub kind: AskKind,
    pub tool: String,
    /// The exact call, or the question.
    pub text: Option<Hash>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskKind {
    Approval,
    Question,
    /// How did the call end? It is never made again.
    Unknown,
    /// The same, of a call that may be made again if a person says so.
    UnknownMayRepeat,
    /// What next?
    Message,
}
