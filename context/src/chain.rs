//! A chain: segments in order. Each prefix has a hash of its own, so two chains find what they share in a few looks.

use std::fmt;
use types::{Hash, limits};

/// The name of a prefix: of all its segments, in their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ChainHash(pub Hash);

impl ChainHash {
    /// The name of the chain without segments.
    pub fn empty() -> Self {
        ChainHash(Hash::of_parts(&[b"quorate chain v1"]))
    }

    /// The name after one more segment.
    pub fn then(self, segment: Hash) -> Self {
        ChainHash(Hash::of_parts(&[b"quorate chain v1", &self.0.0, &segment.0]))
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The chain has `limits::CHAIN_SEGMENTS` already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a chain holds at most {} segments; condense it, or start a new task", limits::CHAIN_SEGMENTS)]
pub struct ChainFull;

/// Segments in order, by name.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Chain {
    segments: Vec<Hash>,
    /// `prefixes[i]` names the first `i + 1` segments.
    prefixes: Vec<ChainHash>,
}

impl Chain {
    pub fn new() -> Self {
        Chain::default()
    }

    /// # Errors
    /// More segments than a chain may hold.
    pub fn from_segments(segments: impl IntoIterator<Item = Hash>) -> Result<Self, ChainFull> {
        let mut chain = Chain::new();
        for segment in segments {
            chain.append(segment)?;
        }
        Ok(chain)
    }

    /// Adds a segment at the end and answers the chain's new name.
    pub fn append(&mut self, segment: Hash) -> Result<ChainHash, ChainFull> {
        if self.segments.len() >= limits::CHAIN_SEGMENTS {
            return Err(ChainFull);
        }
        let prefix = self.head().then(segment);
        self.segments.push(segment);
        self.prefixes.push(prefix);
        Ok(prefix)
    }

    pub fn len(&self) -> usize {
        self.segments.len()
    }

    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    pub fn segments(&self) -> &[Hash] {
        &self.segments
    }

    /// The name of the whole chain.
    pub fn head(&self) -> ChainHash {
        self.prefixes.last().copied().unwrap_or_else(ChainHash::empty)
    }

    /// The name of the first `length` segments; none when the chain is shorter.
    pub fn prefix(&self, length: usize) -> Option<ChainHash> {
        if length == 0 { Some(ChainHash::empty()) } else { self.prefixes.get(length - 1).copied() }
    }

    /// A new chain that starts with the first `length` segments of this one (all of them, when it is shorter).
    pub fn fork(&self, length: usize) -> Chain {
        let length = length.min(self.len());
        Chain { segments: self.segments[..length].to_vec(), prefixes: self.prefixes[..length].to_vec() }
    }

    /// How many segments both chains begin with. Prefix names make this a binary search.
    pub fn common_prefix(&self, other: &Chain) -> usize {
        let (mut same, mut differ) = (0, self.len().min(other.len()) + 1);
        // Prefixes of `same` segments are equal, those of `differ` are not (or there are none).
        while differ - same > 1 {
            let middle = same + (differ - same) / 2;
            if self.prefix(middle) == other.prefix(middle) { same = middle } else { differ = middle }
        }
        same
    }
}
