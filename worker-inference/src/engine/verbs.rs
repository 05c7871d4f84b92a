//! What the agent runtime may say about sequences and chains; see `scheduler::verbs`.

use std::collections::BTreeMap;

use super::{Engine, Lower};
use crate::prefix::Scope;
use crate::scheduler::{Verb, VerbOutcome};
use crate::sequence::SequenceId;

impl Engine {
    /// Puts a generating sequence aside until [`Engine::resume`]; it holds no blocks and no place meanwhile.
    pub fn pause(&mut self, id: SequenceId) -> VerbOutcome {
        self.scheduler.pause(id)
    }

    /// Puts a paused sequence back in line; it finds its values where they were kept, or computes them again.
    pub fn resume(&mut self, id: SequenceId) -> VerbOutcome {
        self.scheduler.resume(id)
    }

    /// A project's share of the computing beside other projects, 1 when nobody says otherwise.
    pub fn set_weight(&mut self, scope: Scope, weight: u32) {
        self.scheduler.set_weight(scope, weight);
    }

    /// The chain's session pauses (a tool, a child, a person) and comes back within `within_ms` with a probability
    /// of `permille` in 1000.
    pub fn retain(&mut self, scope: &Scope, tokens: &[u32], within_ms: u64, permille: u16) -> VerbOutcome {
        let now_ms = self.now_ms();
        self.scheduler.set_time(now_ms);
        self.scheduler.retain(scope, tokens, now_ms.saturating_add(within_ms), permille)
    }

    /// Keeps a chain for so long, unless running work needs its room. A quarter of the pool at most is pinned.
    pub fn pin(&mut self, scope: &Scope, tokens: &[u32], for_ms: u64) -> VerbOutcome {
        let now_ms = self.now_ms();
        self.scheduler.set_time(now_ms);
        self.scheduler.pin(scope, tokens, now_ms, now_ms.saturating_add(for_ms))
    }

    /// Brings the blocks of a chain near that lie in a lower tier.
    pub fn prefetch(&mut self, scope: &Scope, tokens: &[u32]) -> VerbOutcome {
        self.scheduler.prefetch(scope, tokens, &mut Lower { kv: &mut self.kv, below: self.below.as_mut() })
    }

    /// What comes after the first `kept` tokens of a chain is superseded, or its task has `ended`: it goes first.
    pub fn drop_chain(&mut self, scope: &Scope, tokens: &[u32], kept: usize, ended: bool) -> VerbOutcome {
        self.scheduler.drop_chain(scope, tokens, kept, ended)
    }

    /// How often each verb had each outcome.
    pub fn verbs(&self) -> &BTreeMap<(Verb, VerbOutcome), u64> {
        self.scheduler.verbs()
    }
}
