//! A task's journal as recorded calls: what its agent had read at each model call, what stood last, what it did then.

use context::{Kind, Segment};
use evaluate::Call;
use mind::{Decision, StepRecord};
use std::collections::BTreeMap;
use types::Hash;

/// Bytes of a probe. Each child computes it again, so what is longer becomes a segment that is judged like the others.
const PROBE_BYTES: usize = 600;

/// What a store and the ledger have of one task.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past {
    /// For people.
    pub(crate) task: String,
    pub(crate) agent: String,
    /// Background, then inputs.
    pub(crate) given: Vec<Hash>,
    /// Oldest first.
    pub(crate) records: Vec<StepRecord>,
    /// The texts of all that these name.
    pub(crate) segments: BTreeMap<Hash, Segment>,
}

/// One model call of a task.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) step: u64,
    pub(crate) call: Call,
}

impl Past {
    /// Every model call whose texts are there, oldest first.
    pub(crate) fn calls(&self) -> Vec<Recorded> {
        let mut chain: Vec<Hash> = self.given.clone();
        let mut mark = chain.len();
        let mut calls = Vec::new();
        for record in &self.records {
            if let Decision::Heard { rollback: true, .. } = record.decision {
                chain.truncate(mark);
            }
            mark += self.open(record, &mut chain);
            if called(&record.decision) {
                calls.extend(self.call(record, &chain));
            }
            let new: Vec<Hash> = record.added.iter().copied().filter(|hash| !chain.contains(hash)).collect();
            chain.extend(new);
            if let Decision::Heard { .. } = record.decision {
                mark = chain.len();
            }
        }
        calls
    }

    /// The first step brings in what opens the chain: it was read by that step's call already. Says how many that were.
    fn open(&self, record: &StepRecord, chain: &mut Vec<Hash>) -> usize {
        let opening = |hash: &&Hash| self.kind(hash).is_some_and(|kind| opens(kind, record.n));
        let new: Vec<Hash> = record.added.iter().filter(opening).copied().collect();
        let missing = new.into_iter().chain(record.tools).filter(|hash| !chain.contains(hash));
        let missing: Vec<Hash> = missing.collect();
        let count = missing.len();
        chain.splice(0..0, missing);
        count
    }

    fn kind(&self, hash: &Hash) -> Option<Kind> {
        self.segments.get(hash).map(|segment| segment.kind)
    }

    fn call(&self, record: &StepRecord, chain: &[Hash]) -> Option<Recorded> {
        let read: Vec<(Hash, &Segment)> =
            chain.iter().filter_map(|hash| Some((*hash, self.segments.get(hash)?))).collect();
        let (said, action) = self.done(record);
        let (asked, before) = read.split_last()?;
        if action.is_empty() {
            return None;
        }
        let segments = before.iter().map(|(hash, segment)| as_read(*hash, segment)).collect();
        let mut call = Call {
            name: format!("{}/{}", self.task, record.n),
            segments,
            reader: self.agent.clone(),
            probe: format!("{}{}: {said}", line(asked.1), self.agent),
            action,
            withheld: None,
        };
        evaluate::shorten_probe(&mut call, PROBE_BYTES);
        Some(Recorded { step: record.n, call })
    }

    /// What the step said, and what it did: its tool calls, where it made some, for their arguments say more than the
    /// words around them.
    fn done(&self, record: &StepRecord) -> (String, String) {
        let added = record.added.iter().filter_map(|hash| self.segments.get(hash));
        // An answer may say what was read, in the same words.
        let own: Vec<&Segment> = added.filter(|segment| !opens(segment.kind, record.n)).collect();
        let texts = |call: bool| {
            let those = own.iter().filter(|segment| (segment.kind == Kind::ToolCall) == call);
            those.map(|segment| segment.text.as_str()).collect::<Vec<_>>().join("\n")
        };
        match (texts(false), texts(true)) {
            (said, called) if called.is_empty() => (String::new(), said),
            (said, called) if said.is_empty() => (said, called),
            (said, called) => (format!("{said}\n"), called),
        }
    }
}

fn as_read(hash: Hash, segment: &Segment) -> evaluate::Segment {
    evaluate::Segment::new(hash.short(), owner(segment), segment.kind.name(), line(segment))
}

fn line(segment: &Segment) -> String {
    format!("{}: {}\n", label(segment), segment.text)
}

/// Segments that stand before everything: prompts and tools; in the first step also what a team shares.
fn opens(kind: Kind, step: u64) -> bool {
    matches!(kind, Kind::System | Kind::Tools) || (step == 1 && kind == Kind::Background)
}

/// Whether the step called a model.
fn called(decision: &Decision) -> bool {
    match decision {
        Decision::Called { .. }
        | Decision::Asked { .. }
        | Decision::Answered { .. }
        | Decision::OffSchema { .. } => true,
        Decision::Finished { finish, .. } => finish.is_some(),
        Decision::Failed { generated_tokens, .. } => *generated_tokens > 0,
        Decision::Spawned { .. }
        | Decision::Waited { .. }
        | Decision::Paused { .. }
        | Decision::Moved { .. }
        | Decision::Heard { .. }
        // A summary is made of other segments than the view has.
        | Decision::Condensing { .. }
        | Decision::Condensed { .. }
        | Decision::Rested => false,
    }
}

fn owner(segment: &Segment) -> String {
    if segment.author.is_empty() { "unknown".into() } else { segment.author.clone() }
}

/// Who speaks, as the model is told it.
fn label(segment: &Segment) -> &str {
    match segment.kind {
        Kind::System | Kind::Tools | Kind::Background => "system",
        Kind::ToolResult => "tool",
        _ if segment.author.is_empty() => "user",
        _ => &segment.author,
    }
}

#[cfg(test)]
#[path = "recorded_test.rs"]
mod recorded_test;
