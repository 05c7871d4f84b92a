//! The ledger behind raft: applies entries, hands effects to whoever performs them, wakes watchers.

use crate::raft::{Halt, Machine};
use ledger::State;
use ledger::effect::Effect;
use ledger::rows::{Event, TaskRow};
use std::collections::BTreeMap;
use tokio::sync::{mpsc, watch};
use types::TaskUid;

/// Effects of one committed entry.
pub(crate) struct Committed {
    pub(crate) index: u64,
    pub(crate) effects: Vec<Effect>,
}

/// A committed event, and its task as it was right after.
#[derive(Clone, Debug)]
pub struct Seen {
    pub row: TaskRow,
    pub event: Event,
}

pub(crate) struct LedgerMachine {
    pub(crate) state: State,
    /// Every replica sends; only a leader performs, others drop.
    effects: mpsc::UnboundedSender<Committed>,
    watchers: BTreeMap<TaskUid, watch::Sender<u64>>,
    /// Hears of every event, where somebody asked.
    follower: Option<mpsc::Sender<Seen>>,
}

impl LedgerMachine {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Committed>) {
        let (effects, receiver) = mpsc::unbounded_channel();
        let state = State::new();
        (LedgerMachine { state, effects, watchers: BTreeMap::new(), follower: None }, receiver)
    }

    /// Wakes whenever the task gets an event. The value is its newest sequence.
    pub(crate) fn watch(&mut self, task: TaskUid) -> watch::Receiver<u64> {
        self.watchers.retain(|_, sender| sender.receiver_count() > 0);
        self.watchers.entry(task).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    pub(crate) fn tell(&mut self, follower: mpsc::Sender<Seen>) {
        self.follower = Some(follower);
    }

    /// Never waits: what the follower has no room for is counted as not told.
    fn tell_follower(&self, effects: &[Effect]) {
        let Some(follower) = &self.follower else { return };
        for effect in effects {
            if let Effect::Event { task, event } = effect
                && let Some(row) = self.state.task(*task)
                && follower.try_send(Seen { row: row.clone(), event: event.clone() }).is_err()
            {
                metrics::counter!("quorate_trace_spans_total", "outcome" => "dropped").increment(1);
            }
        }
    }

    fn wake_watchers(&self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Event { task, event } = effect
                && let Some(sender) = self.watchers.get(task)
            {
                sender.send_replace(event.sequence);
            }
        }
    }
}

impl Machine for LedgerMachine {
    fn apply(&mut self, index: u64, _term: u64, entry: &[u8]) -> Result<Vec<u8>, Halt> {
        let applied = self.state.apply_entry(index, entry).map_err(|halt| Halt(halt.to_string()))?;
        self.wake_watchers(&applied.effects);
        self.tell_follower(&applied.effects);
        // The receiver lives as long as the coordinator; after it nobody performs anything.
        let _ = self.effects.send(Committed { index, effects: applied.effects });
        Ok(types::encode(&applied.replies))
    }

    fn snapshot(&self) -> Vec<u8> {
        self.state.snapshot()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), Halt> {
        self.state = State::restore(bytes).map_err(|halt| Halt(halt.to_string()))?;
        // A snapshot may have jumped over any event: every watcher looks again.
        self.watchers.values().for_each(|sender| sender.send_modify(|sequence| *sequence += 1));
        Ok(())
    }
}
