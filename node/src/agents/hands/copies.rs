//! Where a task's segments are durable beside this node.
//!
//! A keeper holds everything the task needs. The first time this agent chooses one it is given the whole closure (it
//! takes only what it lacks); after that each step sends its new segments alone, so a step costs the same at turn
//! 500 as at turn 5.

use super::{Hands, Trouble};
use crate::agents::seams::Segments;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::timeout;
use types::{Hash, NodeId, limits};

/// A keeper that is up takes a step in milliseconds, a whole task in less than this.
const QUICK: Duration = Duration::from_millis(1_500);
/// What a keeper gets when there is no quick one.
const PATIENT: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct Copies(Mutex<State>);

#[derive(Default)]
struct State {
    /// Everything the task needs, oldest first.
    closure: Vec<Hash>,
    known: BTreeSet<Hash>,
    /// Nodes that hold all of the closure.
    complete: Vec<NodeId>,
}

impl Copies {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds the copies")
    }

    /// What the task needs so far. Nobody but this node is known to have it.
    pub(super) fn loaded(&self, closure: Vec<Hash>) {
        let mut state = self.state();
        *state = State::default();
        state.add(closure.into_iter());
    }
}

impl State {
    fn add(&mut self, hashes: impl Iterator<Item = Hash>) {
        for hash in hashes {
            if self.known.insert(hash) {
                self.closure.push(hash);
            }
        }
    }
}

impl Hands {
    /// Makes segments durable here and on as many keepers as a commit needs: `new` are given as bytes, `named` are
    /// here already or are fetched first. Answers the nodes that hold everything, this one in front.
    ///
    /// # Errors
    /// [`Trouble::Missing`] when something named is not to be had; with too few keepers it answers fewer nodes.
    pub(super) async fn keep(&self, new: Segments, named: &[Hash]) -> Result<Vec<NodeId>, Trouble> {
        let fresh: Vec<Hash> = new.iter().map(|(hash, _)| *hash).collect();
        let old: Vec<Hash> = named.iter().copied().filter(|hash| !fresh.contains(hash)).collect();
        self.shared.seams.stores.put(self.project(), new.clone()).await.map_err(Trouble::Missing)?;
        self.fetch(&old).await?;
        self.known().bytes.extend(new.iter().map(|(hash, bytes)| (*hash, bytes.len() as u64)));
        let late: Vec<Hash> = {
            let mut state = self.copies.state();
            let late = old.into_iter().filter(|hash| !state.known.contains(hash)).collect::<Vec<_>>();
            state.add(late.iter().copied().chain(fresh));
            late
        };
        let mut step = self.read_all(&late).await?;
        step.extend(new);
        self.spread(step).await
    }

    /// Gives a step to keepers until there are enough. One that hangs is passed over at first, because a frozen node
    /// must not hold up a step that another could keep; when nobody was quick all are given their time.
    async fn spread(&self, step: Segments) -> Result<Vec<NodeId>, Trouble> {
        let mut home = vec![self.node()];
        for patience in [QUICK, PATIENT] {
            self.spread_within(patience, &step, &mut home).await?;
        }
        // A complete keeper that was passed over lacks this step now.
        self.copies.state().complete.retain(|node| home.contains(node));
        Ok(home)
    }

    async fn spread_within(
        &self,
        patience: Duration,
        step: &Segments,
        home: &mut Vec<NodeId>,
    ) -> Result<(), Trouble> {
        for keeper in self.keepers() {
            if home.len() >= self.shared.seams.stores.copies() {
                break;
            }
            if home.contains(&keeper) {
                continue;
            }
            match timeout(patience, self.give(keeper, step)).await {
                Ok(Ok(())) => home.push(keeper),
                Ok(Err(Trouble::Missing(why))) => {
                    tracing::debug!(%keeper, why, "a keeper did not take the step");
                    self.copies.state().complete.retain(|node| *node != keeper);
                }
                Ok(Err(corrupt)) => return Err(corrupt),
                Err(_) => tracing::debug!(%keeper, ?patience, "a keeper is slow"),
            }
        }
        Ok(())
    }

    /// Those that have everything already, then those that could go on with the task's blocks, then its home, then the
    /// others.
    fn keepers(&self) -> Vec<NodeId> {
        let complete = self.copies.state().complete.clone();
        let able = self.shared.seams.kv.holders(self.lease.row.model.as_str());
        let spread = Hash::of(self.lease.task.to_string().as_bytes());
        let first: Vec<NodeId> = complete.iter().chain(&able).chain(&self.lease.row.home).copied().collect();
        let others = self.shared.seams.stores.keepers(&first, spread);
        let (able, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|node| able.contains(node));
        let mut keepers = complete;
        for node in able.into_iter().chain(others) {
            if node != self.node() && !keepers.contains(&node) {
                keepers.push(node);
            }
        }
        keepers
    }

    async fn give(&self, keeper: NodeId, step: &Segments) -> Result<(), Trouble> {
        let stores = &self.shared.seams.stores;
        if self.copies.state().complete.contains(&keeper) {
            return stores.push(keeper, self.project(), step.clone()).await.map_err(Trouble::Missing);
        }
        let closure = self.copies.state().closure.clone();
        let mut rest = closure.as_slice();
        while !rest.is_empty() {
            let (part, behind) = self.some_of(rest).await?;
            stores.push(keeper, self.project(), part).await.map_err(Trouble::Missing)?;
            rest = behind;
        }
        self.copies.state().complete.push(keeper);
        Ok(())
    }

    /// The first segments of a list, a few messages' worth, and the rest of the list.
    async fn some_of<'a>(&self, hashes: &'a [Hash]) -> Result<(Segments, &'a [Hash]), Trouble> {
        let (mut part, mut bytes) = (Segments::new(), 0);
        for (index, hash) in hashes.iter().enumerate() {
            let segment = self.bytes(*hash).await?;
            bytes += segment.len();
            part.push((*hash, segment));
            if bytes >= 4 * limits::CHUNK_BYTES {
                return Ok((part, &hashes[index + 1..]));
            }
        }
        Ok((part, &[]))
    }

    async fn read_all(&self, hashes: &[Hash]) -> Result<Vec<(Hash, Bytes)>, Trouble> {
        let mut read = Vec::with_capacity(hashes.len());
        for hash in hashes {
            read.push((*hash, self.bytes(*hash).await?));
        }
        Ok(read)
    }
}
