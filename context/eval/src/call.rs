//! A recorded call: what an agent read, what it was asked last, and what it then did.

use context::ChainHash;
use types::{Hash, limits};

/// Segments of one call. More than a chain may hold (`limits::CHAIN_SEGMENTS`), because logs of other programs have no
/// such bound; and few enough that twice as many children of a call still fit memory.
pub const SEGMENTS: usize = 10_000;
/// Segments of a team that one call may name as withheld from its reader: each costs a child of its own.
pub const WITHHELD: usize = 256;

/// A piece of what the agent read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Unique in its call. Calls that name the same text with the same id mean the same segment.
    pub id: String,
    /// Who wrote it.
    pub owner: String,
    /// A word of `context::Kind::name`, or any other.
    pub kind: String,
    /// May be empty; such a segment never matters.
    pub text: String,
    /// For a summary: ids of the `withheld` segments that it stands for.
    pub replaces: Vec<String>,
}

impl Segment {
    pub fn new(
        id: impl Into<String>,
        owner: impl Into<String>,
        kind: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        let (id, owner, kind, text) = (id.into(), owner.into(), kind.into(), text.into());
        Segment { id, owner, kind, text, replaces: Vec::new() }
    }

    /// Names the content, whatever its id.
    pub fn hash(&self) -> Hash {
        Hash::of_parts(&[self.owner.as_bytes(), self.kind.as_bytes(), self.text.as_bytes()])
    }
}

/// One call of a model, with what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// For people: a line of a file, or a task and its step.
    pub name: String,
    /// In the order in which they were read.
    pub segments: Vec<Segment>,
    /// The agent that read them.
    pub reader: String,
    /// What it was asked last; not empty.
    pub probe: String,
    /// What it did then; not empty.
    pub action: String,
    /// What others had and the reader did not get. `None`: nobody looked, so nothing can be said about it.
    pub withheld: Option<Vec<Segment>>,
}

impl Call {
    /// The name of its chain, from contents alone: the same in every run and for every model.
    pub fn chain(&self) -> ChainHash {
        self.segments.iter().fold(ChainHash::empty(), |chain, segment| chain.then(segment.hash()))
    }

    /// The withheld segments; empty when nobody looked.
    pub fn withheld(&self) -> &[Segment] {
        self.withheld.as_deref().unwrap_or(&[])
    }

    /// Tells what is wrong with it: the field, and what to do.
    ///
    /// # Errors
    /// The first field that breaks a rule.
    pub fn check(&self) -> Result<(), Flaw> {
        check_count("segments", self.segments.len(), SEGMENTS)?;
        check_count("withheld", self.withheld().len(), WITHHELD)?;
        check_text("reader", &self.reader)?;
        check_text("probe", &self.probe)?;
        check_text("action", &self.action)?;
        self.check_segments()?;
        self.check_summaries()
    }

    fn check_segments(&self) -> Result<(), Flaw> {
        let mut seen = std::collections::BTreeMap::new();
        let parts = [("segments", self.segments.as_slice()), ("withheld", self.withheld())];
        for (part, segments) in parts {
            for (index, segment) in segments.iter().enumerate() {
                let at = format!("{part}[{index}]");
                check_text(&format!("{at}.id"), &segment.id)?;
                check_text(&format!("{at}.owner"), &segment.owner)?;
                if segment.text.len() > limits::SEGMENT_BYTES {
                    return Err(Flaw::new(
                        format!("{at}.text"),
                        format!(
                            "has {} bytes; at most {} are allowed",
                            segment.text.len(),
                            limits::SEGMENT_BYTES
                        ),
                    ));
                }
                if let Some(before) = seen.insert(&segment.id, at.clone()) {
                    return Err(Flaw::new(format!("{at}.id"), format!("repeats the id of {before}")));
                }
            }
        }
        Ok(())
    }

    fn check_summaries(&self) -> Result<(), Flaw> {
        for (index, segment) in self.segments.iter().enumerate() {
            for id in &segment.replaces {
                if !self.withheld().iter().any(|withheld| withheld.id == *id) {
                    let what = format!("names {id:?}, which is not among the withheld segments");
                    return Err(Flaw::new(format!("segments[{index}].replaces"), what));
                }
            }
        }
        Ok(())
    }
}

/// A field of a recorded call that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {what}")]
pub struct Flaw {
    /// As a path: `segments[3].owner`.
    pub field: String,
    pub what: String,
}

impl Flaw {
    pub(crate) fn new(field: impl Into<String>, what: impl Into<String>) -> Self {
        Flaw { field: field.into(), what: what.into() }
    }
}

fn check_count(field: &str, count: usize, limit: usize) -> Result<(), Flaw> {
    let what =
        || format!("has {count} entries, at most {limit} are allowed; evaluate a shorter part of the call");
    if count > limit { Err(Flaw::new(field, what())) } else { Ok(()) }
}

fn check_text(field: &str, text: &str) -> Result<(), Flaw> {
    if text.is_empty() { Err(Flaw::new(field, "is empty; it must say something")) } else { Ok(()) }
}

/// Fills in, for calls of one team in the order in which they happened, what other readers had read before and the
/// reader of a call did not get: the `most` newest of them, at most [`WITHHELD`]. Calls that say so themselves keep it.
pub fn fill_withheld(calls: &mut [Call], most: usize) {
    for at in 0..calls.len() {
        if calls[at].withheld.is_none() {
            calls[at].withheld = Some(not_received(&calls[..at], &calls[at], most.min(WITHHELD)));
        }
    }
}

fn not_received(before: &[Call], call: &Call, most: usize) -> Vec<Segment> {
    let mut known: std::collections::BTreeSet<Hash> = call.segments.iter().map(Segment::hash).collect();
    let mut ids: std::collections::BTreeSet<String> = call.segments.iter().map(|s| s.id.clone()).collect();
    let others = before.iter().rev().filter(|other| other.reader != call.reader);
    let segments = others.flat_map(|other| other.segments.iter().rev());
    let foreign = segments.filter(|segment| segment.owner != call.reader && segment.kind != "system");
    let mut newest: Vec<Segment> = Vec::new();
    for segment in foreign {
        if newest.len() < most && known.insert(segment.hash()) && ids.insert(segment.id.clone()) {
            newest.push(Segment { replaces: Vec::new(), ..segment.clone() });
        }
    }
    newest.reverse();
    newest
}

/// Moves the front of a long probe into a segment of its own, `(probe)`, the last of the chain and owned by its reader:
/// each child computes the probe again, so a tool's long result in it would make every child as long. What stays are the
/// last `bytes` or a little less, from a space or a line's end on where there is one.
pub fn shorten_probe(call: &mut Call, bytes: usize) {
    if call.probe.len() <= bytes || call.segments.len() >= SEGMENTS {
        return;
    }
    let mut cut = call.probe.len() - bytes;
    while !call.probe.is_char_boundary(cut) {
        cut += 1;
    }
    let space = call.probe[cut..].find(char::is_whitespace).filter(|space| *space <= bytes / 4);
    cut += space.unwrap_or(0);
    if cut < call.probe.len() {
        let rest = call.probe.split_off(cut);
        let front = std::mem::replace(&mut call.probe, rest);
        call.segments.push(Segment::new("(probe)", call.reader.clone(), "probe", front));
    }
}
