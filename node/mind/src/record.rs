//! A step record: one committed move. The chain of records is the task's only journal.

use crate::Policy;
use context::{Sealed, SegmentError};
use minicbor::{Decode, Encode};
use types::{Epoch, Hash, ProjectName, Spent, TaskUid};

/// Format written by this version, and the newest it can read.
pub(crate) const FORMAT: u16 = 4;
/// The form of records that say nothing of tools, signals and rests: every version reads them.
const PLAIN: u16 = 1;
/// The form of those that do, and say nothing of summaries.
const TALK: u16 = 2;
/// The form of those that do, and don't say which of several models answered.
const SUMMARIES: u16 = 3;
/// Changes when the same events would lead to other decisions. Replay never re-decides, so this is for people.
pub const MIND_VERSION: u16 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StepRecord {
    #[n(0)]
    pub format: u16,
    #[n(1)]
    pub min_reader: u16,
    #[n(2)]
    pub mind_version: u16,
    /// The record before; none for the first step.
    #[n(3)]
    pub prev: Option<Hash>,
    /// Counts from 1.
    #[n(4)]
    pub n: u64,
    /// The lease under which it was decided.
    #[n(5)]
    pub epoch: Epoch,
    #[n(6)]
    pub decision: Decision,
    /// Segments that this step brought into the task, in order. All but the opening ones (system prompt, team
    /// background) follow the chain.
    #[n(7)]
    pub added: Vec<Hash>,
    #[n(8)]
    pub spent: Spent,
    /// Tokens of the chain after this step.
    #[n(9)]
    pub chain_tokens: u64,
    /// Numerics id of the engine, where the step called a model that has one.
    #[n(10)]
    pub numerics: Option<Hash>,
    /// The tools that the task has: a segment, brought in by the first step.
    #[n(11)]
    pub tools: Option<Hash>,
    /// Signals up to this number are in the journal.
    #[n(12)]
    pub heard: Option<u64>,
    /// Which of the agent's models was called, and why; none where it names one.
    #[n(13)]
    pub route: Option<Route>,
}

/// Why a call went to one of several models.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Route {
    #[n(0)]
    pub model: String,
    /// A stable word, such as `CHEAPER`.
    #[n(1)]
    pub reason: String,
    /// All of them, in the order of the agent.
    #[n(2)]
    pub candidates: Vec<RouteCandidate>,
}

/// What a call was expected to cost and take at one model, and what spoke against it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RouteCandidate {
    #[n(0)]
    pub model: String,
    #[n(1)]
    pub micro_usd: u64,
    #[n(2)]
    pub ms: u64,
    /// A stable word: `FITS`, `LATE`, `CLOSED`, …
    #[n(3)]
    pub verdict: String,
}

/// What was decided, with its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Decision {
    /// The model was called and its answer goes on in the next step.
    #[n(0)]
    Called {
        #[n(0)]
        finish: Finish,
        #[n(1)]
        call: u32,
        #[n(2)]
        generated_tokens: u64,
    },
    /// Children were started: stage 0 fans out, stage 1 is what comes then.
    #[n(1)]
    Spawned {
        #[n(0)]
        children: Vec<TaskUid>,
        #[n(1)]
        stage: u8,
    },
    /// The task was woken while children of the stage were still at work.
    #[n(2)]
    Waited {
        #[n(0)]
        stage: u8,
    },
    #[n(3)]
    Finished {
        #[n(0)]
        result: Hash,
        #[n(1)]
        bytes: u64,
        /// How the last model call ended; none for a team.
        #[n(2)]
        finish: Option<Finish>,
        #[n(3)]
        call: u32,
        #[n(4)]
        generated_tokens: u64,
    },
    #[n(4)]
    Failed {
        #[n(0)]
        reason: String,
        /// Segment of the text.
        #[n(1)]
        message: Hash,
        /// Tokens generated in this step, where the failure followed a model call.
        #[n(2)]
        generated_tokens: u64,
    },
    /// Repetition did not help; someone must resume the task.
    #[n(5)]
    Paused {
        #[n(0)]
        reason: String,
        #[n(1)]
        message: Hash,
        #[n(2)]
        calls: u32,
    },
    /// The model asked for tools. Calls that are `begun` may be under way from now on.
    #[n(6)]
    Asked {
        #[n(0)]
        finish: Finish,
        #[n(1)]
        call: u32,
        #[n(2)]
        generated_tokens: u64,
        #[n(3)]
        calls: Vec<ToolCall>,
    },
    /// Something became of the calls.
    #[n(7)]
    Moved {
        /// May be under way from now on, or once more.
        #[n(0)]
        begun: Vec<u32>,
        #[n(1)]
        ended: Vec<CallEnd>,
        /// Children that do the call's work.
        #[n(2)]
        spawned: Vec<(u32, TaskUid)>,
    },
    /// Messages were taken into the chain; with `rollback`, in place of everything since the last ones.
    #[n(8)]
    Heard {
        #[n(0)]
        messages: Vec<Hash>,
        #[n(1)]
        rollback: bool,
    },
    /// The model answered, and the task waits for the next message.
    #[n(9)]
    Answered {
        #[n(0)]
        finish: Finish,
        #[n(1)]
        call: u32,
        #[n(2)]
        generated_tokens: u64,
        /// The whole answer.
        #[n(3)]
        answer: Hash,
    },
    /// The task was woken, and what it waits for is not there yet.
    #[n(10)]
    Rested,
    /// A child writes the summary of a part of the chain.
    #[n(11)]
    Condensing {
        /// Places in the chain as it was then.
        #[n(0)]
        from: u32,
        #[n(1)]
        count: u32,
        #[n(2)]
        tokens: u64,
        #[n(3)]
        child: TaskUid,
    },
    /// A summary, the step's only addition, stands in the chain in place of these; or none could be had.
    #[n(12)]
    Condensed {
        #[n(0)]
        from: u32,
        #[n(1)]
        count: u32,
        #[n(2)]
        summary: Option<Hash>,
        #[n(3)]
        call: u32,
        #[n(4)]
        generated_tokens: u64,
        /// Why there is none; else empty.
        #[n(5)]
        reason: String,
    },
    /// The answer does not fit the form of results; it and what is wrong are in the chain.
    #[n(13)]
    OffSchema {
        #[n(0)]
        finish: Finish,
        #[n(1)]
        call: u32,
        #[n(2)]
        generated_tokens: u64,
    },
}

/// A tool call as the model made it. Its place in the list, with the step, is its id.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ToolCall {
    #[n(0)]
    pub tool: String,
    /// Segment of the call, as `{"name": …, "arguments": …}`.
    #[n(1)]
    pub text: Hash,
    #[n(2)]
    pub policy: Policy,
    /// A person has to approve it first.
    #[n(3)]
    pub approve: bool,
    #[n(4)]
    pub begun: bool,
    /// Why it can't be made at all; empty where it can.
    #[n(5)]
    pub refused: String,
}

/// How a call ended. The text is a segment of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CallEnd {
    #[n(0)]
    pub index: u32,
    #[n(1)]
    pub how: How,
    #[n(2)]
    pub text: Hash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum How {
    /// The tool said something.
    #[n(0)]
    Answered,
    /// It had no effect.
    #[n(1)]
    Refused,
    /// A person said no.
    #[n(2)]
    Rejected,
    /// A person said how it ended.
    #[n(3)]
    Told,
    /// It may have had an effect, and the model was told so.
    #[n(4)]
    Unknown,
}

/// Why the model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Finish {
    /// By itself.
    #[n(0)]
    Stop,
    /// At the agent's own limit.
    #[n(1)]
    Length,
    /// Where the reservation ended.
    #[n(2)]
    Budget,
}

/// The first two fields of every record, readable in any later format.
#[derive(Decode)]
struct Envelope {
    #[n(0)]
    format: u16,
    #[n(1)]
    min_reader: u16,
}

impl Decision {
    /// The oldest form that has it.
    fn form(&self) -> u16 {
        match self {
            Decision::Called { .. }
            | Decision::Spawned { .. }
            | Decision::Waited { .. }
            | Decision::Finished { .. }
            | Decision::Failed { .. }
            | Decision::Paused { .. } => PLAIN,
            Decision::Asked { .. }
            | Decision::Moved { .. }
            | Decision::Heard { .. }
            | Decision::Answered { .. }
            | Decision::Rested => TALK,
            Decision::Condensing { .. } | Decision::Condensed { .. } | Decision::OffSchema { .. } => {
                SUMMARIES
            }
        }
    }
}

impl StepRecord {
    /// The oldest form that can say it.
    pub(crate) fn form(
        decision: &Decision,
        tools: Option<Hash>,
        heard: Option<u64>,
        route: Option<&Route>,
    ) -> u16 {
        let fields = if tools.is_none() && heard.is_none() { PLAIN } else { TALK };
        decision.form().max(if route.is_some() { FORMAT } else { fields })
    }

    /// The stored form, as a segment.
    pub fn seal(&self, project: &ProjectName) -> Sealed {
        context::seal_record(project, self)
    }

    /// Verifies and reads a record.
    ///
    /// # Errors
    /// Wrong bytes for the name, no record, or a record from a version that this one cannot read.
    pub fn open(project: &ProjectName, expected: Hash, bytes: &[u8]) -> Result<StepRecord, SegmentError> {
        let Envelope { format, min_reader } = context::open_record(project, expected, bytes)?;
        if min_reader > FORMAT {
            return Err(SegmentError::TooNew { format, min_reader });
        }
        context::open_record(project, expected, bytes)
    }

    /// Every segment that the record names, without the record before it. These must be durable before the step is.
    pub fn names(&self) -> Vec<Hash> {
        let mut names = self.added.clone();
        let own = match &self.decision {
            Decision::Called { .. }
            | Decision::Spawned { .. }
            | Decision::Waited { .. }
            | Decision::Asked { .. }
            | Decision::Moved { .. }
            | Decision::Heard { .. }
            | Decision::Rested
            | Decision::Condensing { .. }
            | Decision::Condensed { .. }
            | Decision::OffSchema { .. } => None,
            Decision::Answered { answer, .. } => Some(*answer),
            Decision::Finished { result, .. } => Some(*result),
            Decision::Failed { message, .. } | Decision::Paused { message, .. } => Some(*message),
        };
        names.extend(own.filter(|hash| !self.added.contains(hash)));
        names
    }
}
