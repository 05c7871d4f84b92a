//! The machine: events go to the decisions of `agent` and `team`, and their moves become effects and phases.

use crate::agent::{self, Generated};
use crate::draft::{Doing, Draft, Move, Trouble};
use crate::journal::Journal;
use crate::opening;
use crate::{
    CALLS_PER_STEP, ChildOutcome, Definition, Effect, Event, NextMove, ReplayError, StepRecord, team,
};
use context::{Sealed, Segment};
use std::collections::BTreeMap;
use types::{Epoch, Hash, ProjectName, Spent, TaskUid};

/// What a mind is told once, from the task's row in the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskFacts {
    pub uid: TaskUid,
    pub project: ProjectName,
    pub agent: String,
    /// The root of the task tree.
    pub tree: TaskUid,
    /// Segments shared by a team, first in the chain after the system prompt.
    pub background: Vec<Hash>,
    /// Name for people, and segment.
    pub inputs: Vec<(String, Hash)>,
    pub definition: Definition,
    /// Seed of all sampling, unless the agent names one.
    pub seed: u64,
    /// The lease under which this mind acts.
    pub epoch: Epoch,
}

/// One task's machine. See the crate's page for how it is driven.
#[derive(Clone, Debug, PartialEq)]
pub struct Mind {
    pub(crate) facts: TaskFacts,
    pub(crate) journal: Journal,
    /// Segments that the definition itself gives: an agent's system prompt, a team's background.
    pub(crate) opening: Vec<(Sealed, Segment)>,
    /// Texts of the parts of an answer that goes on.
    pub(crate) parts: BTreeMap<Hash, Segment>,
    phase: Phase,
}

/// A snapshot for people and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub agent: String,
    /// Committed steps, and the newest record.
    pub step: u64,
    pub head: Option<Hash>,
    /// `ready`, `loading`, `calling`, `spawning`, `asking`, `committing` or `ended`.
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

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    /// Records may be replayed; nothing has begun.
    Ready,
    /// An effect is out and its answer awaited. `call` counts the repetitions.
    Doing {
        doing: Doing,
        call: u32,
    },
    Committing(Pending),
    Ended,
}

#[derive(Clone, Debug, PartialEq)]
struct Pending {
    head: Hash,
    record: Box<StepRecord>,
    parts: Vec<(Hash, Segment)>,
    next: NextMove,
}

impl Mind {
    pub fn new(facts: TaskFacts) -> Mind {
        let opening = opening::segments(&facts);
        let hashes = opening.iter().map(|(sealed, _)| sealed.hash).collect();
        let journal = Journal::new(opening::chain(&facts, &opening), hashes);
        Mind { facts, journal, opening, parts: BTreeMap::new(), phase: Phase::Ready }
    }

    /// Feeds a committed record, the oldest first, before `Begin`. Nothing is decided again.
    ///
    /// # Errors
    /// A record that is not the next one; the mind is unchanged.
    pub fn replay(&mut self, hash: Hash, record: &StepRecord) -> Result<(), ReplayError> {
        if self.phase != Phase::Ready {
            return Err(ReplayError::Started { step: record.n });
        }
        self.journal.check(record)?;
        self.journal.take(hash, record);
        Ok(())
    }

    /// What to do about an event. An event at the wrong time has no effects; after the end there is only `Stop`.
    pub fn on(&mut self, event: Event) -> Vec<Effect> {
        if self.phase == Phase::Ended {
            return vec![Effect::Stop];
        }
        match event {
            Event::Begin => self.begin(),
            Event::Loaded { segments } => self.loaded(segments),
            Event::Generated {
                text,
                token_ids,
                tokenizer,
                finish,
                spent,
                billed_tokens,
                chain_tokens,
                numerics,
            } => {
                let tokens = context::Tokens { tokenizer, ids: token_ids };
                self.generated(Generated {
                    text,
                    tokens,
                    finish,
                    spent,
                    billed_tokens,
                    chain_tokens,
                    numerics,
                })
            }
            Event::ModelFailed { reason, message, retriable } => {
                self.model_failed(Trouble { reason, message, retriable })
            }
            Event::Spawned { children } => self.spawned(children),
            Event::Children(outcomes) => self.children(outcomes),
            Event::Committed { step } => self.committed(step),
            Event::BudgetRefused | Event::Fenced => self.stop(),
        }
    }

    pub fn observe(&self) -> Observed {
        let (doing, call) = match &self.phase {
            Phase::Ready => ("ready", 0),
            Phase::Doing { doing, call } => (doing.name(), *call),
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

    fn begin(&mut self) -> Vec<Effect> {
        if self.phase == Phase::Ready { self.decide() } else { Vec::new() }
    }

    /// What follows from the journal alone: the same after a replay as after a commit.
    fn decide(&mut self) -> Vec<Effect> {
        if self.journal.ended {
            return self.stop();
        }
        let next = match &self.facts.definition {
            Definition::Agent(agent) => agent::next(self, agent),
            Definition::Team(team) => team::next(self, team),
        };
        self.make(next, 0)
    }

    fn loaded(&mut self, segments: Vec<(Hash, Segment)>) -> Vec<Effect> {
        let Phase::Doing { doing: Doing::Load(wanted), .. } = &self.phase else { return Vec::new() };
        let wanted = wanted.clone();
        self.parts.extend(segments.into_iter().filter(|(hash, _)| wanted.contains(hash)));
        match wanted.iter().find(|hash| !self.parts.contains_key(hash)) {
            None => self.decide(),
            Some(hash) => {
                let message = format!(
                    "segment {hash}, a part of the unfinished answer, was not found; resume the task when the node that holds it is back"
                );
                self.trouble(Trouble { reason: "SEGMENT_MISSING".to_string(), message, retriable: true })
            }
        }
    }

    fn generated(&mut self, answer: Generated) -> Vec<Effect> {
        let (Phase::Doing { doing: Doing::Infer, call }, Definition::Agent(agent)) =
            (&self.phase, &self.facts.definition)
        else {
            return Vec::new();
        };
        let next = agent::answered(self, agent, answer, *call);
        self.make(next, 0)
    }

    fn spawned(&mut self, children: Vec<TaskUid>) -> Vec<Effect> {
        let Phase::Doing { doing: Doing::Spawn(plan), .. } = &self.phase else { return Vec::new() };
        let next = team::spawned(self, plan, children);
        self.make(next, 0)
    }

    fn children(&mut self, outcomes: Vec<ChildOutcome>) -> Vec<Effect> {
        let (Phase::Doing { doing: Doing::Ask, .. }, Definition::Team(team)) =
            (&self.phase, &self.facts.definition)
        else {
            return Vec::new();
        };
        let next = team::children(self, team, outcomes);
        self.make(next, 0)
    }

    fn make(&mut self, next: Move, call: u32) -> Vec<Effect> {
        match next {
            Move::Do(doing) => {
                let effect = self.effect(&doing, call);
                self.phase = Phase::Doing { doing, call };
                vec![effect]
            }
            Move::Commit(draft) => self.commit(*draft),
            Move::Trouble(trouble) => self.trouble(trouble),
            Move::Nothing => Vec::new(),
        }
    }

    fn model_failed(&mut self, trouble: Trouble) -> Vec<Effect> {
        if matches!(self.phase, Phase::Doing { .. }) { self.trouble(trouble) } else { Vec::new() }
    }

    /// Tries again a few times, then stands still; what cannot get better by repetition fails at once.
    fn trouble(&mut self, trouble: Trouble) -> Vec<Effect> {
        let call = if let Phase::Doing { call, .. } = self.phase { call } else { 0 };
        if let Phase::Doing { doing, .. } = &self.phase
            && trouble.retriable
            && call + 1 < CALLS_PER_STEP
        {
            let again = Move::Do(doing.clone());
            return self.make(again, call + 1);
        }
        let draft = self.give_up(trouble, call + 1);
        self.commit(draft)
    }

    fn commit(&mut self, draft: Draft) -> Vec<Effect> {
        let (record, segments) = self.record(&draft);
        let (step, record) = (record.n, Box::new(record));
        let head = segments.last().expect("a record is sealed last").hash;
        let segments = segments.into_iter().map(|sealed| (sealed.hash, sealed.bytes)).collect();
        let Draft { parts, spent, billed_tokens, next, .. } = draft;
        self.phase = Phase::Committing(Pending { head, record: record.clone(), parts, next: next.clone() });
        vec![Effect::Commit { step, head, record, segments, spent, billed_tokens, next }]
    }

    fn committed(&mut self, step: u64) -> Vec<Effect> {
        let Phase::Committing(pending) = &self.phase else { return Vec::new() };
        if pending.record.n != step {
            return Vec::new();
        }
        let pending = pending.clone();
        self.journal.take(pending.head, &pending.record);
        self.parts.extend(pending.parts);
        match pending.next {
            NextMove::Continue => self.decide(),
            NextMove::WaitChildren
            | NextMove::Done { .. }
            | NextMove::Failed { .. }
            | NextMove::PausedError { .. } => self.stop(),
        }
    }

    fn stop(&mut self) -> Vec<Effect> {
        self.phase = Phase::Ended;
        vec![Effect::Stop]
    }

    fn effect(&self, doing: &Doing, call: u32) -> Effect {
        match doing {
            Doing::Load(hashes) => Effect::Load { hashes: hashes.clone() },
            Doing::Infer => agent::infer(self, call),
            Doing::Spawn(children) => {
                let new_segments =
                    self.opening.iter().map(|(sealed, _)| (sealed.hash, sealed.bytes.clone())).collect();
                Effect::Spawn { step: self.journal.step + 1, children: children.clone(), new_segments }
            }
            Doing::Ask => Effect::AskChildren,
        }
    }
}
