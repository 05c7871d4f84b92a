//! The course of one agent: what it does next, between its mind and its lease. Pure.
//!
//! The mind decides the task's moves. The course decides around it: nothing new starts without the node's lease, a
//! cancel stops the work and then confirms, a revoked agent offers what it has under its old epoch and lets the
//! ledger say whether the news was stale, a draining one stops at a step boundary.

use super::roster::Tell;
use ledger::command::Release;
use mind::{Effect, Event, Mind, Signal};
use std::collections::BTreeMap;

/// Number of a piece of work, never used twice by one agent.
pub(crate) type WorkId = u64;

/// What the actor does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Act {
    /// Find everything the task needs.
    Load(WorkId),
    Perform(WorkId, Box<Effect>),
    /// Cut it short: a model call keeps what was said, a commit offers what it can without waiting for keepers.
    Interrupt(WorkId),
    /// Drop this work; it still says that it ended.
    Abandon(WorkId),
    Release(WorkId, Release),
    /// Start this agent anew from its journal.
    Fail(String),
    End,
}

/// How a piece of work ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Everything was found and replayed.
    Loaded(Box<Mind>),
    /// Something is missing and nobody who may have it answers.
    Unloadable,
    /// The journal or the definition is not right, and never will be.
    Corrupt(String),
    Happened(Event),
    /// It was abandoned, or interrupted before there was anything to keep.
    Nothing,
    Released,
    /// The ledger refused it, because the task is being cancelled. The news of it may come too late to find the agent.
    Cancelled,
    /// A reply that cannot be: a fault of ours.
    Broke(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Load,
    Call,
    Tool,
    Commit,
    /// Another question to the ledger or the stores.
    Ask,
    Release,
}

/// Why the agent is about to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Cancelled,
    Revoked,
    Yielding,
}

pub(crate) struct Course {
    mind: Option<Box<Mind>>,
    lease_valid: bool,
    /// Effects that may not start before the node's lease is back.
    held: Vec<Effect>,
    working: BTreeMap<WorkId, Work>,
    last_work: WorkId,
    ending: Option<Ending>,
    draining: bool,
}

impl Course {
    pub(crate) fn new(lease_valid: bool) -> Self {
        Course {
            mind: None,
            lease_valid,
            held: Vec::new(),
            working: BTreeMap::new(),
            last_work: 0,
            ending: None,
            draining: false,
        }
    }

    pub(crate) fn begin(&mut self) -> Vec<Act> {
        vec![Act::Load(self.work(Work::Load))]
    }

    /// Whether anything waits for the node's lease.
    pub(crate) fn waits_for_lease(&self) -> bool {
        !self.held.is_empty()
    }

    /// Looks at the node's lease: to be called before anything that may start work.
    pub(crate) fn look_at_lease(&mut self, valid: bool) {
        self.lease_valid = valid;
    }

    /// What the node says about the lease.
    pub(crate) fn told(&mut self, tell: Tell) -> Vec<Act> {
        match tell {
            Tell::Lease { valid } => self.lease(valid),
            Tell::Cancel => self.end_with(Ending::Cancelled),
            Tell::Said(signals) => self.said(signals),
            Tell::Revoke if self.ending.is_none() => self.end_with(Ending::Revoked),
            Tell::Drain => self.drain(),
            Tell::DrainNow if self.ending.is_none() => self.end_with(Ending::Yielding),
            Tell::Revoke | Tell::DrainNow => Vec::new(),
        }
    }

    /// A piece of work ended.
    pub(crate) fn ended(&mut self, id: WorkId, outcome: Outcome) -> Vec<Act> {
        let Some(work) = self.working.remove(&id) else { return Vec::new() };
        match outcome {
            Outcome::Released => vec![Act::End],
            Outcome::Cancelled => self.end_with(Ending::Cancelled),
            Outcome::Broke(why) => vec![Act::Fail(why)],
            Outcome::Corrupt(_) if self.ending.is_none() => self.release(Release::Broken),
            Outcome::Unloadable if self.ending.is_none() => self.release(Release::Yielded),
            // Cut short for a message, before there was anything to keep.
            Outcome::Nothing if work == Work::Call && self.ending.is_none() && self.mind.is_some() => {
                self.live(cut_short())
            }
            Outcome::Corrupt(_) | Outcome::Unloadable | Outcome::Nothing => self.after_nothing(),
            Outcome::Loaded(mind) => {
                self.mind = Some(mind);
                self.live(Event::Begin)
            }
            Outcome::Happened(event) => self.happened(work, event),
        }
    }

    fn happened(&mut self, work: Work, event: Event) -> Vec<Act> {
        let fenced = event == Event::Fenced;
        match self.ending {
            Some(Ending::Cancelled) if !fenced => self.after_nothing(),
            // It was committed: the lease is in force after all, the news of its end was stale.
            Some(Ending::Revoked) if work == Work::Commit && !fenced => {
                self.ending = None;
                self.live(event)
            }
            Some(_) | None => self.live(event),
        }
    }

    /// Lets the mind decide, and does it as far as it may.
    fn live(&mut self, event: Event) -> Vec<Act> {
        let Some(mind) = &mut self.mind else { return Vec::new() };
        let effects = mind.on(event);
        let mut acts = Vec::new();
        for effect in effects {
            acts.extend(self.start(effect));
        }
        if acts.is_empty() && self.working.is_empty() && self.held.is_empty() {
            return self.after_nothing();
        }
        acts
    }

    /// Starts an effect, or keeps it, or drops it for good.
    fn start(&mut self, effect: Effect) -> Vec<Act> {
        let work = match &effect {
            Effect::Stop => return vec![Act::End],
            Effect::Commit { .. } => Work::Commit,
            Effect::CutShort => return self.cut_short(),
            Effect::Infer { .. } => Work::Call,
            Effect::CallTool { .. } => Work::Tool,
            Effect::ListTools { .. }
            | Effect::Spawn { .. }
            | Effect::AskChildren
            | Effect::CheckResult { .. }
            | Effect::Load { .. } => Work::Ask,
        };
        if work == Work::Commit {
            let id = self.work(work);
            let commit = Act::Perform(id, Box::new(effect));
            // Who is about to end offers the step once, and does not wait for keepers.
            return if self.ending.is_some() { vec![commit, Act::Interrupt(id)] } else { vec![commit] };
        }
        match (self.ending, self.draining) {
            (Some(Ending::Cancelled), _) => self.release(Release::Stopped),
            (Some(Ending::Revoked | Ending::Yielding), _) | (None, true) => self.release(Release::Yielded),
            (None, false) if !self.lease_valid => {
                self.held.push(effect);
                Vec::new()
            }
            (None, false) => vec![Act::Perform(self.work(work), Box::new(effect))],
        }
    }

    fn lease(&mut self, valid: bool) -> Vec<Act> {
        self.lease_valid = valid;
        if !valid {
            // Its own lease is all that lets a node's tools work.
            let tools = self.working.values().any(|work| *work == Work::Tool);
            return if tools && self.ending.is_none() { self.end_with(Ending::Yielding) } else { Vec::new() };
        }
        let held = std::mem::take(&mut self.held);
        held.into_iter().flat_map(|effect| self.start(effect)).collect()
    }

    fn drain(&mut self) -> Vec<Act> {
        self.draining = true;
        let boundary = self.working.is_empty() || self.working.values().all(|work| *work == Work::Load);
        if boundary && self.ending.is_none() { self.end_with(Ending::Yielding) } else { Vec::new() }
    }

    fn end_with(&mut self, ending: Ending) -> Vec<Act> {
        if self.working.values().any(|work| *work == Work::Release) {
            return Vec::new();
        }
        self.ending = Some(ending);
        self.held.clear();
        if self.working.is_empty() {
            return self.after_nothing();
        }
        let stop = |(id, work): (&WorkId, &Work)| match (ending, work) {
            (_, Work::Release) => None,
            // The confirmation waits until the engine, or the tool, has stopped.
            (_, Work::Call | Work::Tool) => Some(Act::Interrupt(*id)),
            (Ending::Cancelled, Work::Load | Work::Commit | Work::Ask) => Some(Act::Abandon(*id)),
            (Ending::Revoked | Ending::Yielding, Work::Load) => Some(Act::Abandon(*id)),
            // On its way to the ledger, which knows best: refused if the lease is over.
            (Ending::Revoked | Ending::Yielding, Work::Commit | Work::Ask) => Some(Act::Interrupt(*id)),
        };
        self.working.iter().filter_map(stop).collect()
    }

    /// No work is left and nothing came of it: confirm, or give the lease back.
    fn after_nothing(&mut self) -> Vec<Act> {
        if !self.working.is_empty() {
            return Vec::new();
        }
        match self.ending {
            Some(Ending::Cancelled) => self.release(Release::Stopped),
            Some(Ending::Revoked | Ending::Yielding) => self.release(Release::Yielded),
            None => vec![Act::Fail("the agent stands still without a reason".into())],
        }
    }

    /// People said something; what it changes is the mind's business.
    fn said(&mut self, signals: Vec<Signal>) -> Vec<Act> {
        let Some(mind) = self.mind.as_mut().filter(|_| self.ending.is_none()) else { return Vec::new() };
        let effects = mind.on(Event::Signals(signals));
        effects.into_iter().flat_map(|effect| self.start(effect)).collect()
    }

    /// Ends the model call that is out; it says what there was.
    fn cut_short(&self) -> Vec<Act> {
        let calls = self.working.iter().filter(|(_, work)| **work == Work::Call);
        calls.map(|(id, _)| Act::Interrupt(*id)).collect()
    }

    /// Whether the task's slot is for others while its tools work.
    pub(crate) fn is_aside(&self) -> bool {
        self.mind.as_ref().is_some_and(|mind| mind.is_aside())
    }

    fn release(&mut self, why: Release) -> Vec<Act> {
        vec![Act::Release(self.work(Work::Release), why)]
    }

    fn work(&mut self, work: Work) -> WorkId {
        self.last_work += 1;
        self.working.insert(self.last_work, work);
        self.last_work
    }
}

fn cut_short() -> Event {
    let message = "the call was cut short before the model said anything".to_string();
    Event::ModelFailed { reason: "CUT_SHORT".to_string(), message, retriable: true }
}

#[cfg(test)]
#[path = "course_test.rs"]
mod course_test;
