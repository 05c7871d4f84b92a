//! A decision on its way to becoming a step: what `agent` and `team` answer, and how it is written down.

use crate::{ChildPlan, Decision, MIND_VERSION, Mind, NextMove, Route, StepRecord};
use context::{Kind, Reader, Sealed, Segment, Visibility};
use types::{Hash, Spent, limits};

/// What `agent` and `team` decide.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Move {
    Do(Doing),
    Commit(Box<Draft>),
    Trouble(Trouble),
    /// The event came at the wrong time.
    Nothing,
}

/// An effect that is out, and whose answer is awaited.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Doing {
    Load(Vec<Hash>),
    /// Which tools are there?
    ListTools,
    Infer,
    /// The model writes a summary.
    Summarise,
    Spawn(Vec<ChildPlan>),
    Ask,
    /// Does the answer fit?
    Check {
        schema: String,
        text: String,
    },
}

/// A step before it becomes a record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Draft {
    pub(crate) decision: Decision,
    /// Goes to the end of the chain.
    pub(crate) added: Vec<Sealed>,
    /// The same, of segments that others stored: what people said. Behind `added`.
    pub(crate) named: Vec<Hash>,
    /// Stored beside the chain: a result, the text of an error.
    pub(crate) other: Vec<Sealed>,
    /// Texts to keep for the rest of the answer.
    pub(crate) parts: Vec<(Hash, Segment)>,
    pub(crate) spent: Spent,
    pub(crate) billed_tokens: u64,
    pub(crate) chain_tokens: u64,
    pub(crate) numerics: Option<Hash>,
    pub(crate) route: Option<Route>,
    pub(crate) heard: Option<u64>,
    pub(crate) next: NextMove,
}

/// Something that could not be done, as a word for programs and a sentence for people.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trouble {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) retriable: bool,
}

impl Trouble {
    pub(crate) fn last(reason: &str, message: String) -> Trouble {
        Trouble { reason: reason.to_string(), message, retriable: false }
    }
}

impl Doing {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Doing::Load(_) => "loading",
            Doing::ListTools => "listing tools",
            Doing::Infer => "calling",
            Doing::Summarise => "summarising",
            Doing::Spawn(_) => "spawning",
            Doing::Ask => "asking",
            Doing::Check { .. } => "checking",
        }
    }
}

impl Mind {
    pub(crate) fn give_up(&self, trouble: Trouble, calls: u32) -> Draft {
        let reason = shortened(trouble.reason, limits::NAME_BYTES);
        let message = self.seal_error(trouble.message);
        let hash = message.hash;
        let (decision, next) = if trouble.retriable {
            let decision = Decision::Paused { reason: reason.clone(), message: hash, calls };
            (decision, NextMove::PausedError { reason, message: hash })
        } else {
            let decision = Decision::Failed { reason: reason.clone(), message: hash, generated_tokens: 0 };
            (decision, NextMove::Failed { reason, message: hash })
        };
        Draft { other: vec![message], ..self.draft(decision, next) }
    }

    /// A step that called no model.
    pub(crate) fn draft(&self, decision: Decision, next: NextMove) -> Draft {
        Draft {
            decision,
            added: Vec::new(),
            named: Vec::new(),
            other: Vec::new(),
            parts: Vec::new(),
            spent: Spent::default(),
            billed_tokens: 0,
            chain_tokens: self.journal.chain_tokens,
            numerics: None,
            route: None,
            heard: None,
            next,
        }
    }

    /// The record of the next step, and everything to be stored with it: the record itself is the last.
    pub(crate) fn record(&self, draft: &Draft) -> (StepRecord, Vec<Sealed>) {
        let n = self.journal.step + 1;
        let tools = self.tools.as_ref().filter(|_| self.journal.tools.is_none()).map(|(sealed, _)| sealed);
        let opening = self.opening.iter().map(|(sealed, _)| sealed).filter(|_| n == 1);
        let mut segments: Vec<Sealed> = opening.chain(tools).chain(&draft.added).cloned().collect();
        let added = segments.iter().map(|sealed| sealed.hash).chain(draft.named.iter().copied()).collect();
        let (tools, heard) = (tools.map(|sealed| sealed.hash), draft.heard);
        let form = StepRecord::form(&draft.decision, tools, heard, draft.route.as_ref());
        let record = StepRecord {
            format: form,
            min_reader: form,
            mind_version: MIND_VERSION,
            prev: self.journal.head,
            n,
            epoch: self.facts.epoch,
            decision: draft.decision.clone(),
            added,
            spent: draft.spent,
            chain_tokens: draft.chain_tokens,
            numerics: draft.numerics,
            tools,
            heard,
            route: draft.route.clone(),
        };
        segments.extend(draft.other.iter().cloned());
        segments.push(record.seal(&self.facts.project));
        (record, segments)
    }

    pub(crate) fn reader(&self) -> Reader {
        Reader { agent: self.facts.agent.clone(), tree: self.facts.tree.to_string() }
    }

    /// A segment of this task by this agent, bound to the task tree.
    pub(crate) fn segment(&self, kind: Kind, visibility: Visibility, text: String) -> Segment {
        let mut segment = Segment::new(kind, self.facts.agent.clone(), visibility, text);
        segment.tree = self.facts.tree.to_string();
        segment
    }

    pub(crate) fn seal(&self, segment: &Segment) -> Sealed {
        context::seal(&self.facts.project, segment)
    }

    pub(crate) fn seal_error(&self, message: String) -> Sealed {
        let message = shortened(message, limits::INLINE_RESULT_BYTES);
        self.seal(&self.segment(Kind::Artefact, Visibility::Task, message))
    }
}

/// Cuts a text to a number of bytes, between characters.
pub(crate) fn shortened(mut text: String, bytes: usize) -> String {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
    text
}
