//! What the agent runtime says about chains that nobody runs at the moment: keep this for a tool's return, pin that
//! for a while, bring it near, let it go. Advice changes what is kept and when it is ready, never a token.

use std::collections::BTreeMap;

use super::{Below, Bytes, Scheduler};
use crate::blocks::{BLOCK_TOKENS, BlockId};
use crate::evict::Hint;
use crate::prefix::{BlockTokens, Key, Scope};

/// Pinned blocks are at most this part of the pool, and a project's at most half of that: pins without a bound
/// starve everybody else.
const PINNED_SHARE: usize = 4;

/// A call of the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Pause,
    Resume,
    Fork,
    Prefetch,
    Pin,
    Retain,
    /// Superseded by a newer state of the session, or its task has ended.
    Drop,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum VerbOutcome {
    Done,
    /// It was so already.
    Already,
    /// There was room, or content, for a part only.
    Partly,
    /// The sequence is unknown or has ended, or nothing of the chain is here.
    Unknown,
    /// It can't be: a score that is half told can't begin anew, or the bound is reached.
    Refused,
}

impl Verb {
    /// The word for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Pause => "pause",
            Verb::Resume => "resume",
            Verb::Fork => "fork",
            Verb::Prefetch => "prefetch",
            Verb::Pin => "pin",
            Verb::Retain => "retain",
            Verb::Drop => "drop",
        }
    }
}

impl VerbOutcome {
    /// The word for metrics.
    pub fn name(self) -> &'static str {
        match self {
            VerbOutcome::Done => "done",
            VerbOutcome::Already => "already",
            VerbOutcome::Partly => "partly",
            VerbOutcome::Unknown => "unknown",
            VerbOutcome::Refused => "refused",
        }
    }
}

/// Counts and pins.
#[derive(Debug, Clone, Default)]
pub(super) struct Verbs {
    counts: BTreeMap<(Verb, VerbOutcome), u64>,
    /// Pinned contents, until when, and whose.
    pins: BTreeMap<Key, (u64, Scope)>,
}

impl Verbs {
    pub(super) fn count(&mut self, verb: Verb, outcome: VerbOutcome) -> VerbOutcome {
        *self.counts.entry((verb, outcome)).or_default() += 1;
        outcome
    }
}

impl Scheduler {
    /// How often each verb had each outcome.
    pub fn verbs(&self) -> &BTreeMap<(Verb, VerbOutcome), u64> {
        &self.verbs.counts
    }

    /// The chain's session pauses, and comes back before `until_ms` with a probability of `permille` in 1000.
    pub fn retain(&mut self, scope: &Scope, tokens: &[u32], until_ms: u64, permille: u16) -> VerbOutcome {
        let outcome = self.advise(scope, tokens, Hint::Retain { until_ms, permille });
        self.verbs.count(Verb::Retain, outcome)
    }

    /// A newer state of the session has replaced what comes after the first `kept` tokens, or with `ended` its
    /// task is over for good. Blocks that others hold or continue stay as they are.
    pub fn drop_chain(&mut self, scope: &Scope, tokens: &[u32], kept: usize, ended: bool) -> VerbOutcome {
        let hint = if ended { Hint::Dead } else { Hint::Superseded };
        let chain = self.chain(scope, tokens);
        let from = kept.div_ceil(BLOCK_TOKENS).min(chain.len());
        let found =
            chain[from..].iter().filter_map(|(key, _)| self.contents.block_of(key)).collect::<Vec<_>>();
        found.iter().for_each(|&block| self.blocks.hint(block, hint));
        let outcome = if found.is_empty() { VerbOutcome::Unknown } else { VerbOutcome::Done };
        self.verbs.count(Verb::Drop, outcome)
    }

    /// Keeps a chain until `until_ms`, unless running work needs its room. Bounded: see [`VerbOutcome::Partly`].
    pub fn pin(&mut self, scope: &Scope, tokens: &[u32], now_ms: u64, until_ms: u64) -> VerbOutcome {
        self.verbs.pins.retain(|_, (until, _)| *until > now_ms);
        let chain = self.chain(scope, tokens);
        let (mut pinned, mut found) = (0, 0);
        for (key, block) in chain.iter().filter_map(|(key, _)| Some((*key, self.contents.block_of(key)?))) {
            found += 1;
            if self.may_pin(&key, scope) {
                self.verbs.pins.insert(key, (until_ms, *scope));
                self.blocks.hint(block, Hint::Pin { until_ms });
                pinned += 1;
            }
        }
        let outcome = match pinned {
            0 if found == 0 => VerbOutcome::Unknown,
            0 => VerbOutcome::Refused,
            _ if pinned < chain.len() => VerbOutcome::Partly,
            _ => VerbOutcome::Done,
        };
        self.verbs.count(Verb::Pin, outcome)
    }

    /// Brings the blocks of a chain near that are not in the pool.
    pub fn prefetch(&mut self, scope: &Scope, tokens: &[u32], bytes: &mut dyn Bytes) -> VerbOutcome {
        let missing: Vec<Key> = self
            .chain(scope, tokens)
            .into_iter()
            .filter(|(key, tokens)| self.contents.find(key, tokens).is_none())
            .map(|(key, _)| key)
            .collect();
        let near = missing.iter().take_while(|key| bytes.find(key) != Below::Absent).count();
        let outcome = match near {
            _ if missing.is_empty() => VerbOutcome::Already,
            0 => VerbOutcome::Unknown,
            near if near < missing.len() => VerbOutcome::Partly,
            _ => VerbOutcome::Done,
        };
        self.verbs.count(Verb::Prefetch, outcome)
    }

    fn may_pin(&self, key: &Key, scope: &Scope) -> bool {
        let most = self.blocks.total() / PINNED_SHARE;
        let own = self.verbs.pins.values().filter(|(_, whose)| whose == scope).count();
        self.verbs.pins.contains_key(key) || (self.verbs.pins.len() < most && own < most.div_ceil(2))
    }

    fn advise(&mut self, scope: &Scope, tokens: &[u32], hint: Hint) -> VerbOutcome {
        let chain = self.chain(scope, tokens);
        let found: Vec<BlockId> = chain.iter().filter_map(|(key, _)| self.contents.block_of(key)).collect();
        found.iter().for_each(|&block| self.blocks.hint(block, hint));
        match found.len() {
            0 => VerbOutcome::Unknown,
            found if found < chain.len() => VerbOutcome::Partly,
            _ => VerbOutcome::Done,
        }
    }

    /// The keys of a chain's whole blocks.
    pub(crate) fn chain(&self, scope: &Scope, tokens: &[u32]) -> Vec<(Key, BlockTokens)> {
        let mut chain: Vec<(Key, BlockTokens)> = Vec::new();
        for tokens in tokens.as_chunks::<BLOCK_TOKENS>().0 {
            let key = self.naming.key(scope, chain.last().map(|(key, _)| key), tokens);
            chain.push((key, *tokens));
        }
        chain
    }
}
