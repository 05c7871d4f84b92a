//! Who tells what the ledger records: the leader. Every coordinator makes the same spans of the same events; those that
//! do not lead hold theirs for a while, and whoever becomes leader tells what it held, because the one before may not
//! have got so far. So the record's spans are told once while a leader stays, and perhaps twice, under the same names
//! and with the same content, when it changes.

use super::ids::above;
use super::record;
use super::span::Span;
use super::{Traces, count};
use coordinator::{Coordinator, Seen};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use types::{TaskUid, limits};

/// Events between the ledger and this.
const WAITING: usize = 8192;
/// Longer than an election takes, and a leader to send what it has.
const HOLD: Duration = Duration::from_secs(10);
/// Held at the most.
const HELD: usize = 16_384;
/// How often is looked who leads.
const LOOK: Duration = Duration::from_millis(100);

/// Runs for the life of the node.
pub(crate) async fn follow(traces: Traces, coordinator: Coordinator) {
    if traces.ids().is_none() {
        return;
    }
    let (seen, mut events) = tokio::sync::mpsc::channel(WAITING);
    coordinator.tell_events(seen);
    let mut held = Held::default();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let since_ms = super::now_ns() / 1_000_000;
    loop {
        let seen = tokio::select! {
            seen = events.recv() => match seen {
                Some(seen) => Some(seen),
                None => return,
            },
            _ = look.tick() => None,
        };
        let leads = coordinator.raft().is_leader();
        // Told before this process began, and now read again from the log.
        let again = |seen: &Seen| !leads && seen.event.at_ms < since_ms;
        if let Some(seen) = seen.filter(|seen| !again(seen)) {
            held.push(spans(&traces, &coordinator, &seen), Instant::now());
        }
        if leads {
            held.take().into_iter().for_each(|spans| traces.send(spans));
        } else {
            held.forget(Instant::now());
        }
    }
}

fn spans(traces: &Traces, coordinator: &Coordinator, seen: &Seen) -> Vec<Span> {
    let root = root(coordinator, seen);
    let Some(place) = traces.place(&seen.row, root) else { return Vec::new() };
    let (mut events, ..) = coordinator.events(seen.row.uid, 1);
    events.retain(|event| event.sequence < seen.event.sequence);
    events.push(seen.event.clone());
    record::spans(&place, &seen.row, &events)
}

fn root(coordinator: &Coordinator, seen: &Seen) -> TaskUid {
    let (mut root, mut parent) = (seen.row.uid, above(&seen.row));
    for _ in 0..=limits::TASK_DEPTH {
        let Some(row) = parent.and_then(|uid| coordinator.task(uid)) else { return root };
        (root, parent) = (row.uid, above(&row));
    }
    root
}

/// Spans of those that do not lead, with the time at which they were made.
#[derive(Default)]
pub(crate) struct Held(VecDeque<(Instant, Vec<Span>)>);

impl Held {
    pub(crate) fn push(&mut self, spans: Vec<Span>, now: Instant) {
        if spans.is_empty() {
            return;
        }
        self.0.push_back((now, spans));
        if self.0.len() > HELD {
            let dropped = self.0.pop_front().map_or(0, |(_, spans)| spans.len());
            count("dropped", dropped as u64);
        }
    }

    pub(crate) fn take(&mut self) -> Vec<Vec<Span>> {
        self.0.drain(..).map(|(_, spans)| spans).collect()
    }

    pub(crate) fn forget(&mut self, now: Instant) {
        while self.0.front().is_some_and(|(made, _)| now.saturating_duration_since(*made) > HOLD) {
            self.0.pop_front();
        }
    }
}
