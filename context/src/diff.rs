//! Have and want: what must travel so that another store, or a longer chain, is complete. Only names are compared.

use crate::Chain;
use std::collections::BTreeSet;
use types::Hash;

/// What is wanted and not there, each once, in the order in which it is wanted.
pub fn missing(want: &[Hash], have: &BTreeSet<Hash>) -> Vec<Hash> {
    let mut seen = BTreeSet::new();
    want.iter().copied().filter(|hash| !have.contains(hash) && seen.insert(*hash)).collect()
}

/// How one chain becomes another: keep so many from the front, then append these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainDiff {
    pub keep: usize,
    pub append: Vec<Hash>,
}

/// The difference that turns `have` into `want`.
pub fn extend(have: &Chain, want: &Chain) -> ChainDiff {
    let keep = have.common_prefix(want);
    ChainDiff { keep, append: want.segments()[keep..].to_vec() }
}

impl ChainDiff {
    /// Applies the difference.
    ///
    /// # Errors
    /// The result would be longer than a chain may be.
    pub fn apply(&self, have: &Chain) -> Result<Chain, crate::ChainFull> {
        let mut chain = have.fork(self.keep);
        for segment in &self.append {
            chain.append(*segment)?;
        }
        Ok(chain)
    }
}

/// Groups segments with their sizes in bytes into messages of at most `limit` bytes, in order.
/// One that is larger than the limit comes alone: whoever sends it must cut it.
pub fn chunks(segments: &[(Hash, u64)], limit: u64) -> Vec<Vec<Hash>> {
    let mut groups: Vec<Vec<Hash>> = Vec::new();
    // Nothing joins a group that is over the limit by itself.
    let mut room: Option<u64> = None;
    for (hash, bytes) in segments {
        let left = room.and_then(|room| room.checked_sub(*bytes));
        match groups.last_mut() {
            Some(group) if left.is_some() => group.push(*hash),
            Some(_) | None => groups.push(vec![*hash]),
        }
        room = left.or(limit.checked_sub(*bytes));
    }
    groups
}
