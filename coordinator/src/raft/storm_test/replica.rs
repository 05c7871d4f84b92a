//! One node's machine: the ledger as it runs in production, watched. All replicas must have the same entry and the
//! same state at the same index, whatever they went through.

use crate::machine::LedgerMachine;
use crate::raft::{Halt, Machine};
use ledger::Place;
use ledger::command::Entry;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use types::Hash;

/// What all replicas agree on, and the first thing on which they did not.
#[derive(Default)]
pub(crate) struct Agreed {
    /// By index: the term, the entry and the state after it.
    at: BTreeMap<u64, (u64, Hash, Hash)>,
    pub(crate) broken: Option<String>,
    pub(crate) commands: u64,
}

impl Agreed {
    fn see(&mut self, node: u64, index: u64, seen: (u64, Hash, Hash), commands: u64) {
        let known = self.at.get(&index).copied();
        if known.is_none() {
            self.commands += commands;
            self.at.insert(index, seen);
        }
        let problem = match known {
            Some(known) if known != seen => Some(format!(
                "n{node} and another differ at index {index}: {seen:?} and {known:?} (term, entry, state)"
            )),
            _ => self
                .at
                .range(..index)
                .next_back()
                .filter(|(_, before)| before.0 > seen.0)
                .map(|(before, _)| format!("the term went back between {before} and {index}")),
        };
        if let Some(problem) = problem {
            self.broken.get_or_insert(problem);
        }
    }
}

pub(crate) struct Replica {
    node: u64,
    pub(crate) ledger: LedgerMachine,
    agreed: Arc<Mutex<Agreed>>,
    /// The planted mistake, while it waits for its moment.
    apply_twice: bool,
    restored: bool,
}

impl Replica {
    pub(crate) fn new(node: u64, agreed: Arc<Mutex<Agreed>>, apply_twice: bool) -> Self {
        // Nobody performs effects here.
        let (ledger, _) = LedgerMachine::new();
        Replica { node, ledger, agreed, apply_twice, restored: false }
    }
}

impl Machine for Replica {
    fn apply(&mut self, index: u64, term: u64, entry: &[u8]) -> Result<Vec<u8>, Halt> {
        let reply = self.ledger.apply(index, term, entry)?;
        let read: Entry = types::decode(entry).map_err(|error| Halt(error.to_string()))?;
        if self.apply_twice && std::mem::take(&mut self.restored) {
            for (position, command) in (0u32..).zip(&read.commands) {
                self.ledger.state.apply(Place { index, position }, read.stamp, command);
            }
        }
        let seen = (term, Hash::of(entry), self.ledger.state.state_hash());
        let commands = read.commands.len() as u64;
        self.agreed.lock().expect("nobody panics with it").see(self.node, index, seen, commands);
        Ok(reply)
    }

    fn snapshot(&self) -> Vec<u8> {
        self.ledger.snapshot()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), Halt> {
        self.restored = true;
        self.ledger.restore(bytes)
    }
}
