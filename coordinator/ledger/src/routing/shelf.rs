//! One node's cache, as the leader believes it to be: what was used last stays, within what the node can keep.

use std::collections::BTreeMap;

/// How often recent work fades by an eighth: it halves in a little under a minute.
const FADE_MS: u64 = 10_000;
/// So many fadings leave nothing of any number.
const FADES_MAX: u64 = 400;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shelf {
    /// What the node says it can keep; 0 is not known.
    pub capacity_tokens: u64,
    /// Eighths of that which it seems not to keep.
    doubt_eighths: u64,
    pub work: Work,
    tokens: u64,
    parts: BTreeMap<u64, Held>,
    /// Keys by when they were used last.
    by_use: BTreeMap<u64, u64>,
    uses: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    used: u64,
    tokens: u64,
}

impl Shelf {
    pub(super) fn holds(&self, key: u64) -> bool {
        self.parts.contains_key(&key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = u64> {
        self.parts.keys().copied()
    }

    /// Puts the part in front; true when it was not there.
    pub(super) fn touch(&mut self, key: u64, tokens: u64) -> bool {
        self.uses += 1;
        let old = self.parts.insert(key, Held { used: self.uses, tokens });
        self.by_use.insert(self.uses, key);
        self.tokens += tokens;
        if let Some(old) = old {
            self.by_use.remove(&old.used);
            self.tokens -= old.tokens;
        }
        old.is_none()
    }

    /// Takes out the part that was not used for longest, if there is too much.
    pub(super) fn evict(&mut self, parts_max: usize) -> Option<u64> {
        let fits = self.capacity_tokens == 0 || self.tokens <= self.believed_tokens();
        if fits && self.parts.len() <= parts_max {
            return None;
        }
        let (_, key) = self.by_use.pop_first()?;
        self.tokens -= self.parts.remove(&key).map_or(0, |held| held.tokens);
        Some(key)
    }

    fn believed_tokens(&self) -> u64 {
        self.capacity_tokens - self.capacity_tokens / 8 * self.doubt_eighths
    }

    pub(super) fn correct(&mut self, thought_tokens: u64, had_tokens: u64) {
        // A block at the edge is no reason for doubt.
        if had_tokens < thought_tokens / 2 {
            self.doubt_eighths = (self.doubt_eighths + 1).min(6);
        } else {
            self.doubt_eighths = self.doubt_eighths.saturating_sub(1);
        }
    }
}

/// Tokens given to a node, the older the fewer. All nodes fade at the same moments, so that comparing them is fair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    tokens: u64,
    at_ms: u64,
}

impl Work {
    pub(super) fn at(self, now_ms: u64) -> u64 {
        let fades = (now_ms / FADE_MS).saturating_sub(self.at_ms / FADE_MS).min(FADES_MAX);
        (0..fades).fold(self.tokens, |left, _| left - left.div_ceil(8))
    }

    pub(super) fn add(&mut self, tokens: u64, now_ms: u64) {
        let now_ms = now_ms.max(self.at_ms);
        *self = Work { tokens: self.at(now_ms).saturating_add(tokens), at_ms: now_ms };
    }
}
