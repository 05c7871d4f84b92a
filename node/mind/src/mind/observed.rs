//! A mind as people and tests see it.

use super::{Mind, Phase};
use types::{Hash, Spent, TaskUid};

/// A snapshot for people and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub agent: String,
    /// Committed steps, and the newest record.
    pub step: u64,
    pub head: Option<Hash>,
    /// `ready`, `loading`, `listing tools`, `calling`, `summarising`, `using tools`, `spawning`, `asking`, `checking`, `committing` or `ended`.
    pub doing: &'static str,
    pub call: u32,
    pub turns: u32,
    pub chain_segments: usize,
    pub chain_tokens: u64,
    pub generated_tokens: u64,
    pub spent: Spent,
    /// Children of the newest stage.
    pub children: Vec<TaskUid>,
}

impl Mind {
    pub fn observe(&self) -> Observed {
        let (doing, call) = match &self.phase {
            Phase::Ready => ("ready", 0),
            Phase::Doing { doing, call } => (doing.name(), *call),
            Phase::UsingTools => ("using tools", 0),
            Phase::Committing(_) => ("committing", 0),
            Phase::Ended => ("ended", 0),
        };
        let journal = &self.journal;
        Observed {
            agent: self.facts.agent.clone(),
            step: journal.step,
            head: journal.head,
            doing,
            call,
            turns: journal.turns,
            chain_segments: journal.chain.len(),
            chain_tokens: journal.chain_tokens,
            generated_tokens: journal.generated_tokens,
            spent: journal.spent,
            children: journal.stages.last().cloned().unwrap_or_default(),
        }
    }
}
