//! What is committed of a task: the records so far, summed up. Replay and a live commit both go through `take`.

use crate::record::FORMAT;
use crate::{Decision, Finish, StepRecord};
use context::{ChainItem, Part};
use types::{Hash, Spent, TaskUid};

/// A record that is not the next of this journal. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    #[error("the journal is at step {at}, so the next record is {}, not {found}; load the records again", .at + 1)]
    OutOfOrder { at: u64, found: u64 },
    #[error("step {step} follows another record than the one before it; load the records again")]
    OtherPast { step: u64, expected: Option<Hash>, found: Option<Hash> },
    #[error(
        "step {step} has format {format} and needs a reader of {min_reader}, this one reads {FORMAT}; upgrade this node"
    )]
    TooNew { step: u64, format: u16, min_reader: u16 },
    #[error("step {step} comes after the end of the task")]
    AfterTheEnd { step: u64 },
    #[error("step {step} comes after the mind began to act")]
    Started { step: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Journal {
    /// The newest record, and how many there are.
    pub(crate) head: Option<Hash>,
    pub(crate) step: u64,
    /// The opening segments, then everything added.
    pub(crate) chain: Vec<ChainItem>,
    /// Hashes that steps bring in, but which open the chain: not to be added behind it.
    opening: Vec<Hash>,
    /// Steps that called the model.
    pub(crate) turns: u32,
    pub(crate) generated_tokens: u64,
    pub(crate) chain_tokens: u64,
    pub(crate) spent: Spent,
    /// The answer that a budget cut, if one is waiting to be continued.
    pub(crate) answer: Option<Answer>,
    /// Children of each stage, in the order of the plan.
    pub(crate) stages: Vec<Vec<TaskUid>>,
    pub(crate) ended: bool,
}

/// The parts of an unfinished answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The step in which it began: its sampling seed comes from there.
    pub(crate) began: u64,
    pub(crate) parts: Vec<Hash>,
    pub(crate) generated_tokens: u64,
}

impl Journal {
    /// `opening_added` are those of the opening's segments (or of what opens the children's chains) that the first
    /// step brings in.
    pub(crate) fn new(opening: Vec<ChainItem>, opening_added: Vec<Hash>) -> Self {
        Journal {
            head: None,
            step: 0,
            chain: opening,
            opening: opening_added,
            turns: 0,
            generated_tokens: 0,
            chain_tokens: 0,
            spent: Spent::default(),
            answer: None,
            stages: Vec::new(),
            ended: false,
        }
    }

    /// Whether a record is the next one.
    pub(crate) fn check(&self, record: &StepRecord) -> Result<(), ReplayError> {
        let (step, format, min_reader) = (record.n, record.format, record.min_reader);
        if min_reader > FORMAT {
            return Err(ReplayError::TooNew { step, format, min_reader });
        }
        if self.ended {
            return Err(ReplayError::AfterTheEnd { step });
        }
        if self.step.checked_add(1) != Some(step) {
            return Err(ReplayError::OutOfOrder { at: self.step, found: step });
        }
        if record.prev != self.head {
            return Err(ReplayError::OtherPast { step, expected: self.head, found: record.prev });
        }
        Ok(())
    }

    /// Takes in the next record.
    pub(crate) fn take(&mut self, hash: Hash, record: &StepRecord) {
        self.head = Some(hash);
        self.step = record.n;
        self.chain_tokens = record.chain_tokens;
        self.spent = self.spent.plus(record.spent);
        let added: Vec<Hash> =
            record.added.iter().copied().filter(|hash| !self.opening.contains(hash)).collect();
        self.chain.extend(added.iter().map(|hash| item(*hash, Part::Private)));
        self.take_decision(record, added);
    }

    fn take_decision(&mut self, record: &StepRecord, added: Vec<Hash>) {
        match &record.decision {
            Decision::Called { finish, generated_tokens, .. } => {
                self.take_call(*finish, *generated_tokens, added)
            }
            Decision::Spawned { children, .. } => self.stages.push(children.clone()),
            Decision::Waited { .. } | Decision::Paused { .. } => {}
            Decision::Finished { finish, generated_tokens, .. } => {
                self.turns = self.turns.saturating_add(u32::from(finish.is_some()));
                self.generated_tokens = self.generated_tokens.saturating_add(*generated_tokens);
                self.ended = true;
            }
            Decision::Failed { generated_tokens, .. } => {
                self.generated_tokens = self.generated_tokens.saturating_add(*generated_tokens);
                self.ended = true;
            }
        }
    }

    fn take_call(&mut self, finish: Finish, generated_tokens: u64, added: Vec<Hash>) {
        self.turns = self.turns.saturating_add(1);
        self.generated_tokens = self.generated_tokens.saturating_add(generated_tokens);
        match finish {
            Finish::Budget => {
                let began = self.step;
                let fresh = || Answer { began, parts: Vec::new(), generated_tokens: 0 };
                let answer = self.answer.get_or_insert_with(fresh);
                answer.parts.extend(added);
                answer.generated_tokens = answer.generated_tokens.saturating_add(generated_tokens);
            }
            Finish::Stop | Finish::Length => self.answer = None,
        }
    }
}

pub(crate) fn item(hash: Hash, part: Part) -> ChainItem {
    ChainItem { hash, part, name: String::new() }
}
