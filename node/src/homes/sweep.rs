//! What nothing names is deleted here.
//!
//! A pass goes through the projects that this node holds something of. It marks what the rows homed here need, and what
//! is left over is garbage; what a row homed elsewhere needs stays until enough nodes of its home say that they hold it.
//! What was garbage in every pass of a whole grace, and asked for by nobody meanwhile, goes. So nothing goes because of one
//! look at a ledger that was changing, and whoever stores something again, or asks whether it is here, keeps it.

use super::closure::Closure;
use super::{Homes, Trouble, pause};
use crate::store::StoreStats;
use crate::telemetry::names;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use types::{Hash, NodeId, ProjectName, limits};

/// Entries of the store that are looked at together.
const PAGE: usize = 1024;
/// The longest time between two passes.
const PASS: Duration = Duration::from_secs(1_800);

pub(crate) struct Sweep {
    homes: Homes,
    grace_ms: u64,
    began: Instant,
}

impl Sweep {
    /// None: nothing is ever deleted.
    pub(crate) fn new(homes: Homes, grace_ms: u64) -> Option<Sweep> {
        (grace_ms > 0).then(|| Sweep { homes, grace_ms, began: Instant::now() })
    }

    /// Sweeps for the life of the node.
    pub(crate) async fn follow(self) {
        let pause = pause(self.grace_ms, 4, PASS);
        // With a zero for what never happened: an alarm on a missing figure is silent.
        metrics::gauge!(names::SWEEPS_HELD_UP).set(0.0);
        metrics::counter!(names::SEGMENTS_SWEPT_TOTAL).increment(0);
        metrics::counter!(names::SEGMENT_BYTES_SWEPT_TOTAL).increment(0);
        loop {
            tokio::time::sleep(pause).await;
            if let Err(error) = self.pass().await {
                tracing::debug!(%error, "cannot look for what nothing names now");
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// One look at everything that is held here.
    async fn pass(&self) -> Result<(), Trouble> {
        // Who is no member any more has no rows, and would find nothing but garbage.
        if !self.is_member().await? {
            return Ok(());
        }
        let (mut after, mut swept, mut held_up) = (None, StoreStats::default(), 0);
        while let Some(first) = self.homes.keep.store.page(after, 1).await?.into_iter().next() {
            match self.project(&first.project).await {
                Ok(some) => {
                    swept.segments += some.segments;
                    swept.bytes += some.bytes;
                }
                Err(error) => {
                    held_up += 1;
                    let project = &first.project;
                    tracing::warn!(%project, %error, "nothing of a project is swept: what is needed is not known");
                }
            }
            after = Some((first.project, Hash([u8::MAX; 32])));
        }
        metrics::gauge!(names::SWEEPS_HELD_UP).set(held_up as f64);
        if swept.segments > 0 {
            let StoreStats { segments, bytes } = swept;
            tracing::info!(segments, bytes, "deleted what nothing names any more");
        }
        Ok(())
    }

    async fn is_member(&self) -> Result<bool, Trouble> {
        use ledger::query::{Answer, Query};
        match self.homes.client.read(Query::Nodes).await? {
            Answer::Nodes(rows) => Ok(rows.iter().any(|row| row.id == self.homes.own())),
            _ => Err(Trouble::OtherAnswer),
        }
    }

    async fn project(&self, project: &ProjectName) -> Result<StoreStats, Trouble> {
        let now_ms = self.now_ms();
        let mut garbage = self.unnamed(project).await?;
        if !garbage.is_empty() {
            self.keep_strays(project, &mut garbage).await?;
        }
        let store = &self.homes.keep.store;
        store.doom(project, garbage, now_ms);
        let Some(since_ms) = now_ms.checked_sub(self.grace_ms) else { return Ok(StoreStats::default()) };
        let mut swept = StoreStats::default();
        loop {
            let some = store.sweep(project, since_ms).await?;
            if some.segments == 0 {
                return Ok(swept);
            }
            metrics::counter!(names::SEGMENTS_SWEPT_TOTAL).increment(some.segments);
            metrics::counter!(names::SEGMENT_BYTES_SWEPT_TOTAL).increment(some.bytes);
            swept.segments += some.segments;
            swept.bytes += some.bytes;
        }
    }

    /// What is held of a project and needed by nothing that is homed here.
    async fn unnamed(&self, project: &ProjectName) -> Result<BTreeSet<Hash>, Trouble> {
        let (mut closure, mut after) = (Closure::default(), None);
        loop {
            let (rows, more) = self.homes.rows(project, true, after).await?;
            for row in &rows {
                self.homes.add(row, &mut closure).await?;
            }
            after = rows.last().map(|row| row.chain.clone());
            if !more {
                break;
            }
        }
        self.held_beside(project, &closure.named).await
    }

    async fn held_beside(
        &self,
        project: &ProjectName,
        needed: &BTreeSet<Hash>,
    ) -> Result<BTreeSet<Hash>, Trouble> {
        let (mut beside, mut after) = (BTreeSet::new(), Some((project.clone(), Hash::default())));
        loop {
            let page = self.homes.keep.store.page(after, PAGE).await?;
            let full = page.len() == PAGE;
            let mine = page.into_iter().take_while(|entry| entry.project == *project);
            let mine: Vec<Hash> = mine.map(|entry| entry.hash).collect();
            after = mine.last().map(|last| (project.clone(), *last));
            beside.extend(mine.into_iter().filter(|hash| !needed.contains(hash)));
            if !full || after.is_none() {
                return Ok(beside);
            }
        }
    }

    /// Takes out of the garbage what a chain that is homed elsewhere needs, unless enough nodes of its home hold it: a home
    /// may be known to the ledger before it is whole.
    async fn keep_strays(&self, project: &ProjectName, garbage: &mut BTreeSet<Hash>) -> Result<(), Trouble> {
        let mut after = None;
        loop {
            let (rows, more) = self.homes.rows(project, false, after).await?;
            for row in &rows {
                let named = self.homes.seen_here(row).await?;
                let strays: Vec<Hash> = named.intersection(garbage).copied().collect();
                for hash in self.kept_by_too_few(project, &row.home, &strays).await {
                    garbage.remove(&hash);
                }
            }
            after = rows.last().map(|row| row.chain.clone());
            if !more {
                return Ok(());
            }
        }
    }

    /// Those that fewer nodes of a home hold than there should be copies. Who does not answer holds nothing.
    async fn kept_by_too_few(&self, project: &ProjectName, home: &[NodeId], hashes: &[Hash]) -> Vec<Hash> {
        if hashes.is_empty() {
            return Vec::new();
        }
        let mut lacking = Vec::new();
        for node in home {
            let answer = self.homes.keep.peers.lacks(*node, project, hashes).await;
            lacking.extend(answer.ok());
        }
        too_few(hashes, &lacking)
    }
}

/// Of what some nodes lack these each, what fewer of them hold than there should be copies.
fn too_few(hashes: &[Hash], lacking: &[BTreeSet<Hash>]) -> Vec<Hash> {
    let holders = |hash: &Hash| lacking.iter().filter(|lacking| !lacking.contains(hash)).count();
    hashes.iter().copied().filter(|hash| holders(hash) < limits::COPIES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_home_does_not_hold_twice_stays() {
        let [held, once, never] = [1, 2, 3].map(|n| Hash([n; 32]));
        let all = [held, once, never];
        let lacking = [BTreeSet::from([never]), BTreeSet::from([once, never])];
        assert_eq!(too_few(&all, &lacking), [once, never]);
        assert_eq!(too_few(&all, &lacking[..1]), all, "one answer is no two copies");
        assert_eq!(too_few(&all, &[]), all, "nobody answered");
    }
}
