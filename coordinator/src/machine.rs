//! The ledger behind raft: applies entries, hands effects to whoever performs them, wakes watchers.

use crate::raft::{Halt, Machine};
use ledger::State;
use ledger::effect::Effect;
use std::collections::BTreeMap;
use tokio::sync::{mpsc, watch};
use types::TaskUid;

/// Effects of one committed entry.
pub(crate) struct Committed {
    pub(crate) index: u64,
    pub(crate) effects: Vec<Effect>,
}

pub(crate) struct LedgerMachine {
    pub(crate) state: State,
    /// Every replica sends; only a leader performs, others drop.
    effects: mpsc::UnboundedSender<Committed>,
    watchers: BTreeMap<TaskUid, watch::Sender<u64>>,
}

impl LedgerMachine {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Committed>) {
        let (effects, receiver) = mpsc::unbounded_channel();
        (LedgerMachine { state: State::new(), effects, watchers: BTreeMap::new() }, receiver)
    }

    /// Wakes whenever the task gets an event. The value is its newest sequence.
    pub(crate) fn watch(&mut self, task: TaskUid) -> watch::Receiver<u64> {
        self.watchers.retain(|_, sender| sender.receiver_count() > 0);
        self.watchers.entry(task).or_insert_with(|| watch::channel(0).0).subscribe()
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
