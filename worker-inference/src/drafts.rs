//! Guesses of what a sequence generates next, without a second model: agents repeat themselves, quote what tools
//! told them, and answer like their siblings. A guess is checked by running it (`engine::speculate`), so it changes
//! how long an answer takes and never a token of it.
//!
//! A sequence's end is looked up in its own tokens and in what its project generated before. Projects never share:
//! a guess that comes true is quicker, and quickness would tell one project what another has written.

mod costs;
mod history;
mod odds;

use std::collections::BTreeMap;

use crate::prefix::Scope;
use crate::sequence::SequenceId;

pub use costs::{Costs, ROWS_MAX, Worth};
pub use history::{Found, History};
pub use odds::Odds;

/// Tokens that a project's past answers may fill before the older half of them is forgotten.
const PROJECT_TOKENS: usize = 1 << 15;
/// Projects whose past answers are known; who was away longest is forgotten first.
const PROJECTS: usize = 64;
/// Sequences whose own tokens are laid out for looking up. Few sequences are guessed for at a time.
const SEQUENCES: usize = 8;
/// Tokens of the prompt's end that are kept before an answer, so that its first tokens can be guessed.
const LEAD_TOKENS: usize = 8;

/// A guess: tokens that may come next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Draft {
    pub tokens: Vec<u32>,
    /// How many tokens before it were the same where it was found.
    pub matched: usize,
}

/// All that guesses are made of.
#[derive(Debug, Default)]
pub struct Drafts {
    projects: BTreeMap<Scope, Past>,
    own: BTreeMap<SequenceId, Own>,
    /// Counts uses: what was used longest ago goes first.
    uses: u64,
}

/// What a project generated: the newer half is added to, the older half goes when the newer one is full.
#[derive(Debug, Default)]
struct Past {
    newer: History,
    older: History,
    used: u64,
}

#[derive(Debug, Default)]
struct Own {
    history: History,
    odds: Odds,
    used: u64,
}

impl Drafts {
    /// Guesses at most `most` tokens after `tokens`, all that the sequence has so far.
    pub fn draft(&mut self, id: SequenceId, scope: &Scope, tokens: &[u32], most: usize) -> Draft {
        self.uses += 1;
        self.make_room_for(id);
        let own = self.own.entry(id).or_default();
        own.used = self.uses;
        own.history.extend(&tokens[own.history.len()..]);
        let here = own.history.longest(tokens);
        let past = self.projects.get_mut(scope);
        let past = past.and_then(|past| {
            past.used = self.uses;
            past.longest(tokens)
        });
        let before = past.filter(|(_, there)| here.is_none_or(|here| there.matched > here.matched));
        let (history, found) = match (before, here) {
            (Some((history, found)), _) => (history, found),
            (None, Some(found)) => (&own.history, found),
            (None, None) => return Draft::default(),
        };
        // Only a sequence's own tokens are followed by the guess itself.
        let tokens = history.after(found.at, most, before.is_none());
        Draft { tokens, matched: found.matched }
    }

    /// How likely the guesses for a sequence come true; None where nothing was guessed for it lately.
    pub fn odds(&mut self, id: SequenceId) -> Option<&mut Odds> {
        self.own.get_mut(&id).map(|own| &mut own.odds)
    }

    /// A sequence has ended: what it generated is known to its project from now on.
    pub fn end(&mut self, id: SequenceId, scope: &Scope, tokens: &[u32], prompt: usize) {
        self.own.remove(&id);
        if tokens.len() == prompt {
            return;
        }
        self.uses += 1;
        let past = self.projects.entry(*scope).or_default();
        past.used = self.uses;
        past.add(&tokens[prompt.saturating_sub(LEAD_TOKENS)..]);
        if self.projects.len() > PROJECTS {
            let oldest = self.projects.iter().min_by_key(|(_, past)| past.used).map(|(scope, _)| *scope);
            oldest.and_then(|oldest| self.projects.remove(&oldest));
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        (self.projects, self.own) = (BTreeMap::new(), BTreeMap::new());
    }

    /// Bytes of all that is kept.
    pub fn bytes(&self) -> usize {
        let projects = self.projects.values().map(|past| past.newer.bytes() + past.older.bytes());
        let own = self.own.values().map(|own| own.history.bytes());
        projects.chain(own).sum()
    }

    fn make_room_for(&mut self, id: SequenceId) {
        if self.own.len() >= SEQUENCES && !self.own.contains_key(&id) {
            let oldest = self.own.iter().min_by_key(|(_, own)| own.used).map(|(id, _)| *id);
            oldest.and_then(|oldest| self.own.remove(&oldest));
        }
    }
}

impl Past {
    fn add(&mut self, tokens: &[u32]) {
        let half = PROJECT_TOKENS / 2;
        let tokens = &tokens[tokens.len().saturating_sub(half)..];
        if self.newer.len() + tokens.len() > half {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.extend(tokens);
    }

    /// The longest match, in the newer half when both have as long a one.
    fn longest(&self, end: &[u32]) -> Option<(&History, Found)> {
        let newer = self.newer.longest(end).map(|found| (&self.newer, found));
        let older = self.older.longest(end).map(|found| (&self.older, found));
        let matched = |found: &Option<(&History, Found)>| found.map_or(0, |(_, found)| found.matched);
        if matched(&older) > matched(&newer) { older } else { newer }
    }
}

#[cfg(test)]
#[path = "drafts/drafts_test.rs"]
mod drafts_test;
