//! What a chain needs: what its row names, its records, and what these name.

use super::{Homes, Trouble};
use crate::backup::{Is, named_by};
use bytes::Bytes;
use ledger::rows::Kept;
use std::collections::BTreeSet;
use types::{Hash, ProjectName};

/// Segments that something needs.
#[derive(Debug, Default)]
pub(super) struct Closure {
    pub(super) named: BTreeSet<Hash>,
    /// Records that were followed to their beginning.
    walked: BTreeSet<Hash>,
}

/// The records where a row's chains begin.
fn heads(row: &Kept) -> impl Iterator<Item = (Hash, Is)> {
    let step = row.journal.map(|hash| (hash, Is::Step));
    let memory = row.memory.map(|hash| (hash, Is::Memory));
    let board = row.board.map(|hash| (hash, Is::Board));
    step.into_iter().chain(memory).chain(board)
}

impl Homes {
    /// Adds everything that a row needs. A record that is not here is brought.
    ///
    /// # Errors
    /// When a record can't be had: then what is behind it is not known.
    pub(super) async fn add(&self, row: &Kept, closure: &mut Closure) -> Result<(), Trouble> {
        closure.named.extend(&row.segments);
        for (head, is) in heads(row) {
            let mut next = Some(head);
            while let Some(hash) = next {
                closure.named.insert(hash);
                if !closure.walked.insert(hash) {
                    break;
                }
                let Some(bytes) = self.record(row, hash).await? else { break };
                let (names, previous) = named_by(is, &row.project, hash, &bytes)?;
                closure.named.extend(names);
                next = previous;
            }
        }
        Ok(())
    }

    /// A record, from wherever it is. None: it was forgotten.
    async fn record(&self, row: &Kept, hash: Hash) -> Result<Option<Bytes>, Trouble> {
        if let Some(bytes) = self.keep.store.get(&row.project, hash).await? {
            return Ok(Some(bytes));
        }
        self.bring(row, &[hash]).await?;
        Ok(self.keep.store.get(&row.project, hash).await?)
    }

    /// Fetches what is missing here, from the chain's home or whoever has it.
    pub(super) async fn bring(&self, row: &Kept, hashes: &[Hash]) -> Result<(), Trouble> {
        let store = &self.keep.store;
        let wanted = hashes.iter().filter(|hash| !store.is_forgotten(&row.project, hash));
        let missing = store.missing(&row.project, &wanted.copied().collect::<Vec<_>>()).await?;
        if let Some(first) = missing.first() {
            let nodes = self.keep.members.keepers(self.own(), &row.home, *first);
            self.keep.peers.fetch(store, &nodes, &row.project, &missing).await?;
        }
        Ok(())
    }

    /// What a row needs, as far as records that are here lead.
    pub(super) async fn seen_here(&self, row: &Kept) -> Result<BTreeSet<Hash>, Trouble> {
        let mut named: BTreeSet<Hash> = row.segments.iter().copied().collect();
        for (head, is) in heads(row) {
            let mut next = Some(head);
            while let Some(hash) = next.filter(|hash| named.insert(*hash)) {
                let Some(bytes) = self.held(&row.project, hash).await? else { break };
                let (names, previous) = named_by(is, &row.project, hash, &bytes)?;
                named.extend(names);
                next = previous;
            }
        }
        Ok(named)
    }

    async fn held(&self, project: &ProjectName, hash: Hash) -> Result<Option<Bytes>, Trouble> {
        Ok(self.keep.store.peek(project, hash).await?)
    }
}
