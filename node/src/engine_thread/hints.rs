//! What is known of a conversation's future, said to the engine, which keeps the right blocks then. Hints never change an
//! answer; one that finds the engine full is lost.

use super::kv::Chain;
use super::{EngineThread, Order};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// Its task pauses, and comes back within so long with a probability of `permille` in 1000.
    Retain { within_ms: u64, permille: u16 },
    /// What comes after the first `kept` tokens is needed no more: the conversation went on otherwise, or its task has
    /// `ended`.
    Drop { kept: usize, ended: bool },
    /// It is asked for in a moment: what lies in a lower tier is brought near.
    Prefetch,
    /// Others begin like it.
    Pin { for_ms: u64 },
}

impl EngineThread {
    pub fn hint(&self, chain: Chain, hint: Hint) {
        let _ = self.give(Order::Hint(chain, hint));
    }
}
