//! Tokens in which the earlier places of an end are found quickly: chains of equal grams, as compressors have them.

/// Tokens that must be the same before a place is looked at.
const GRAM: usize = 3;
/// Places that are looked at for the longest match, the newest first.
const TRIES: usize = 32;
/// A match this long is long enough.
const MATCH_MAX: usize = 32;
const HEADS_MIN: usize = 1 << 6;

/// Tokens, and for each gram where it stood before.
#[derive(Debug, Clone, Default)]
pub struct History {
    tokens: Vec<u32>,
    /// By hash of a gram: the position behind its newest place, 0 for none.
    heads: Vec<u32>,
    /// For the gram that ends with each token: the position behind its place before, 0 for none.
    before: Vec<u32>,
}

/// A place whose tokens before it match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The position behind the match: what followed there.
    pub at: usize,
    pub matched: usize,
}

impl History {
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    pub fn bytes(&self) -> usize {
        (self.tokens.capacity() + self.heads.capacity() + self.before.capacity()) * size_of::<u32>()
    }

    /// Adds tokens at the end.
    pub fn extend(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
        if self.tokens.len() > self.heads.len() {
            self.heads = vec![0; self.tokens.len().next_power_of_two().max(HEADS_MIN)];
            self.before.clear();
        }
        (self.before.len()..self.tokens.len()).for_each(|index| self.link(index));
    }

    /// The place that matches the end of `end` longest, the newest of equally long ones. `end` may be this history
    /// itself: a place with nothing behind it is none.
    pub fn longest(&self, end: &[u32]) -> Option<Found> {
        let gram = end.len().checked_sub(GRAM).map(|from| &end[from..])?;
        let mut place = *self.heads.get(self.slot(gram)?)? as usize;
        let mut best: Option<Found> = None;
        for _ in 0..TRIES {
            if place == 0 {
                break;
            }
            let matched = if place < self.tokens.len() { common_end(&self.tokens[..place], end) } else { 0 };
            if matched >= GRAM && best.is_none_or(|best| matched > best.matched) {
                best = Some(Found { at: place, matched });
            }
            if matched == MATCH_MAX {
                break;
            }
            place = self.before[place - 1] as usize;
        }
        best
    }

    /// At most `most` tokens from a position on; `goes_on`: behind the last one come those from that position again, as
    /// in a text that repeats itself.
    pub fn after(&self, at: usize, most: usize, goes_on: bool) -> Vec<u32> {
        let known = &self.tokens[at..];
        match goes_on {
            true => known.iter().cycle().take(most).copied().collect(),
            false => known.iter().take(most).copied().collect(),
        }
    }

    fn link(&mut self, index: usize) {
        let slot = (index + 1).checked_sub(GRAM).and_then(|from| self.slot(&self.tokens[from..=index]));
        self.before.push(match slot {
            Some(slot) => std::mem::replace(&mut self.heads[slot], index as u32 + 1),
            None => 0,
        });
    }

    /// Where the places of a gram begin; None before there are any.
    fn slot(&self, gram: &[u32]) -> Option<usize> {
        let mixed = gram.iter().fold(0_u64, |sum, &token| {
            (sum ^ u64::from(token)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
        });
        (!self.heads.is_empty()).then(|| mixed as usize & (self.heads.len() - 1))
    }
}

/// How many tokens at the end are the same, as far as it matters.
fn common_end(one: &[u32], other: &[u32]) -> usize {
    let pairs = one.iter().rev().zip(other.iter().rev()).take(MATCH_MAX);
    pairs.take_while(|(one, other)| one == other).count()
}
