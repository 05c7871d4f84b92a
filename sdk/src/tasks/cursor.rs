//! What a watcher has seen, so that streams from several nodes read as one. Pure.
//!
//! Committed events are taken by sequence: each once, in order. Live tokens are taken by (step, attempt, offset): a node
//! asked anew sends the step's text from its beginning, and only what was not shown yet is let through.

use crate::data::{Event, EventKind};
use std::collections::BTreeMap;
use types::Epoch;

#[derive(Debug)]
pub(super) struct Cursor {
    /// Sequence of the committed event that comes next.
    next: u64,
    ended: bool,
    committed_step: u64,
    live: Option<Live>,
    /// Text of this step and attempt was taken back; stragglers of it are dropped.
    retracted: Option<(u64, String)>,
    /// The sequence for which the stream was opened again after a hole.
    asked_again_for: u64,
}

/// The text shown of a step that may not be committed yet.
#[derive(Debug)]
struct Live {
    step: u64,
    attempt: String,
    /// Tokens up to here were shown.
    end: u64,
    text: String,
    /// Where in `text` the token of an offset begins.
    marks: BTreeMap<u64, usize>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Took {
    /// Show these; none when nothing was new.
    Show(Vec<Event>),
    /// Events are missing without a word: ask again from `next`.
    AskAgain,
}

impl Cursor {
    pub(super) fn new(from: u64) -> Cursor {
        Cursor {
            next: from.max(1),
            ended: false,
            committed_step: 0,
            live: None,
            retracted: None,
            asked_again_for: 0,
        }
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The final state was seen.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// The task ended before the sequence that was asked for.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    pub(super) fn take(&mut self, event: Event) -> Took {
        match event.kind {
            EventKind::Gap { first, last } => Took::Show(self.on_gap(event, first, last)),
            EventKind::Token { .. } => Took::Show(self.on_token(event)),
            EventKind::Retract { .. } => Took::Show(self.on_retract(event)),
            EventKind::State { .. } | EventKind::Step { .. } => self.on_committed(event),
        }
    }

    fn on_committed(&mut self, event: Event) -> Took {
        if event.sequence < self.next {
            return Took::Show(vec![]);
        }
        let mut shown = vec![];
        if event.sequence > self.next {
            if self.asked_again_for != self.next {
                self.asked_again_for = self.next;
                return Took::AskAgain;
            }
            // The second time the same events are missing they are gone: say so rather than wait for ever.
            let kind = EventKind::Gap { first: self.next, last: event.sequence - 1 };
            shown.push(Event { task: event.task.clone(), sequence: 0, at_ms: event.at_ms, kind });
        }
        self.next = event.sequence.saturating_add(1);
        self.ended |= event.final_state().is_some();
        if let EventKind::Step { step, .. } = event.kind {
            self.committed_step = self.committed_step.max(step);
        }
        shown.push(event);
        Took::Show(shown)
    }

    fn on_gap(&mut self, event: Event, first: u64, last: u64) -> Vec<Event> {
        if last < self.next {
            return vec![];
        }
        let kind = EventKind::Gap { first: first.max(self.next), last };
        self.next = last.saturating_add(1);
        vec![Event { kind, ..event }]
    }

    fn on_retract(&mut self, event: Event) -> Vec<Event> {
        let EventKind::Retract { step, attempt } = &event.kind else { return vec![] };
        let shown = self.live.as_ref().is_some_and(|live| live.step == *step && live.attempt == *attempt);
        if !shown {
            return vec![];
        }
        self.retracted = Some((*step, attempt.clone()));
        self.live = None;
        vec![event]
    }

    fn on_token(&mut self, event: Event) -> Vec<Event> {
        let EventKind::Token { step, ref attempt, offset, tokens, ref text } = event.kind else {
            return vec![];
        };
        if self.retracted.as_ref().is_some_and(|(s, a)| *s == step && a == attempt) {
            return vec![];
        }
        let mut shown = vec![];
        match self.live.as_ref().map(|live| live.compare(step, attempt)) {
            Some(Place::Past) => return vec![],
            Some(Place::Same) => {}
            Some(Place::NewAttempt) => {
                shown.extend(self.take_back(&event));
                self.live = Some(Live::new(step, attempt));
            }
            None | Some(Place::NewStep) if step <= self.committed_step => return vec![],
            None | Some(Place::NewStep) => self.live = Some(Live::new(step, attempt)),
        }
        let Some(live) = self.live.as_mut() else { return shown };
        match live.add(offset, tokens, text) {
            Added::Nothing => {}
            Added::Part { offset, tokens, text } => {
                let kind = EventKind::Token { step, attempt: attempt.clone(), offset, tokens, text };
                shown.push(Event { kind, ..event });
            }
            Added::Contradiction => {
                let kind = EventKind::Retract { step, attempt: attempt.clone() };
                shown.push(Event { kind, ..event.clone() });
                *live = Live::new(step, attempt);
                live.add(offset, tokens, text);
                shown.push(event);
            }
        }
        shown
    }

    /// Another attempt begins: what the last one showed is void, whether or not its node could say so.
    fn take_back(&mut self, event: &Event) -> Option<Event> {
        let live = self.live.take()?;
        self.retracted = Some((live.step, live.attempt.clone()));
        let kind = EventKind::Retract { step: live.step, attempt: live.attempt };
        Some(Event { kind, ..event.clone() })
    }
}

enum Place {
    Past,
    Same,
    NewAttempt,
    NewStep,
}

enum Added {
    Nothing,
    Part {
        offset: u64,
        tokens: u32,
        text: String,
    },
    /// The node's text is not the text that was shown.
    Contradiction,
}

impl Live {
    fn new(step: u64, attempt: &str) -> Live {
        Live { step, attempt: attempt.to_string(), end: 0, text: String::new(), marks: BTreeMap::new() }
    }

    fn compare(&self, step: u64, attempt: &str) -> Place {
        match step.cmp(&self.step) {
            std::cmp::Ordering::Less => Place::Past,
            std::cmp::Ordering::Greater => Place::NewStep,
            std::cmp::Ordering::Equal if attempt == self.attempt => Place::Same,
            std::cmp::Ordering::Equal if is_earlier(attempt, &self.attempt) => Place::Past,
            std::cmp::Ordering::Equal => Place::NewAttempt,
        }
    }

    fn add(&mut self, offset: u64, tokens: u32, text: &str) -> Added {
        let end = offset.saturating_add(u64::from(tokens));
        if offset >= self.end {
            self.push(offset, end, text);
            return part(offset, tokens, text);
        }
        let Some(rest) = self.unseen(offset, end, text) else { return Added::Contradiction };
        let begin = self.end;
        if rest.is_empty() || end < begin {
            return Added::Nothing;
        }
        self.push(begin, end, rest);
        part(begin, u32::try_from(end - begin).unwrap_or(u32::MAX), rest)
    }

    fn push(&mut self, offset: u64, end: u64, text: &str) {
        self.marks.insert(offset, self.text.len());
        self.text.push_str(text);
        self.marks.insert(end, self.text.len());
        self.end = end;
    }

    /// The part of a chunk beyond what was shown; None when both disagree.
    fn unseen<'t>(&mut self, offset: u64, end: u64, text: &'t str) -> Option<&'t str> {
        let (begin, shown) = match self.marks.get(&offset) {
            Some(begin) => (*begin, &self.text[*begin..]),
            // The chunk begins inside one of ours: where the texts overlap most is where they meet.
            None => {
                let cuts = text.char_indices().map(|(at, _)| at).chain([text.len()]).rev();
                return cuts
                    .into_iter()
                    .find(|cut| self.text.ends_with(&text[..*cut]))
                    .map(|cut| &text[cut..]);
            }
        };
        match text.strip_prefix(shown) {
            Some(rest) => Some(rest),
            // Its end is where the node's next chunk begins. Where words repeat, the texts alone could not tell that place.
            None if shown.starts_with(text) => {
                self.marks.insert(end, begin + text.len());
                Some("")
            }
            None => None,
        }
    }
}

fn part(offset: u64, tokens: u32, text: &str) -> Added {
    if text.is_empty() { Added::Nothing } else { Added::Part { offset, tokens, text: text.to_string() } }
}

/// Attempts are lease epochs, maybe with the number of the call under that lease: `1.42.0` or `1.42.0/1`. Later ones
/// compare greater; unreadable ones count as later.
fn is_earlier(attempt: &str, than: &str) -> bool {
    matches!((order(attempt), order(than)), (Some(a), Some(b)) if a < b)
}

fn order(attempt: &str) -> Option<(Epoch, u64)> {
    let (epoch, call) = attempt.split_once('/').unwrap_or((attempt, "0"));
    Some((Epoch::parse(epoch).ok()?, call.parse().ok()?))
}

#[cfg(test)]
#[path = "cursor_test.rs"]
mod tests;
