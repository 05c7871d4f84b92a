//! Copies that are made again. Of a chain's keepers the first that is left brings everything to another store, and then
//! says in the ledger who keeps it now.
//!
//! Nothing is remembered: whoever starts anew asks again what is short. A node that comes back finds that others keep what
//! it kept; what it still has is swept.

use super::absent::Absent;
use super::closure::Closure;
use super::{Homes, Trouble, pause};
use crate::telemetry::names;
use futures::StreamExt;
use ledger::command::Command;
use ledger::query::{Answer, Query};
use ledger::reply::Reply;
use ledger::rows::{Chain, Kept};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use types::{Hash, NodeId, limits};

/// Chains that are on their way at the same time.
const TOGETHER: usize = 4;
/// Chains of one question, and of one command to the ledger.
const CHAINS: u32 = 64;
/// Bytes that are read before they are sent.
const GROUP_BYTES: usize = 4 * limits::CHUNK_BYTES;
/// Who is away is looked at this often at the least.
const LOOK: Duration = Duration::from_secs(5);
/// And the ledger is asked again after so long, where nothing has changed.
const AGAIN_MS: u64 = 60_000;
/// Or after so long, and longer each time, where something could not be done.
const RETRY_MS: u64 = 1_000;

/// Who is a member, and who of them is gone.
type Situation = (BTreeSet<NodeId>, Vec<NodeId>);

pub(crate) struct Repair {
    homes: Homes,
    after_ms: u64,
    began: Instant,
    absent: Absent,
    /// A member was removed, and not everything was looked at since.
    unproved: bool,
    /// Looks in a row that left something undone.
    failures: u32,
    /// What was looked at, and when it is looked at again.
    looked: Option<(Situation, u64)>,
}

/// What one look at everything came to.
#[derive(Debug, Default)]
struct Look {
    short: u64,
    lost: u64,
    repaired: u64,
}

impl Repair {
    pub(crate) fn new(homes: Homes, after_ms: u64) -> Repair {
        let (began, absent) = (Instant::now(), Absent::default());
        Repair { homes, after_ms, began, absent, unproved: false, failures: 0, looked: None }
    }

    /// Repairs for the life of the node.
    pub(crate) async fn follow(mut self) {
        let pause = pause(self.after_ms, 4, LOOK);
        // With a zero for what never happened: an alarm on a missing figure is silent.
        self.tell(&Look::default());
        metrics::counter!(names::CHAINS_REPAIRED_TOTAL).increment(0);
        loop {
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "cannot look for chains with too few copies now");
                self.absent.forget();
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    async fn look(&mut self) -> Result<(), Trouble> {
        let Answer::Nodes(rows) = self.homes.client.read(Query::Nodes).await? else {
            return Err(Trouble::OtherAnswer);
        };
        let attached = self.homes.client.status().await?.attached;
        let attached = attached.iter().map(|node| NodeId(node.node_id)).collect();
        let members: BTreeSet<NodeId> = rows.iter().map(|row| row.id).collect();
        let now_ms = self.now_ms();
        self.unproved |= self.absent.see(&members, &attached, now_ms);
        let gone = self.absent.gone(self.after_ms, now_ms);
        let situation = (members, gone.clone());
        let nothing_new = |(seen, until_ms): &(Situation, u64)| *seen == situation && now_ms < *until_ms;
        let alone = situation.0.len() < limits::COPIES || !situation.0.contains(&self.homes.own());
        if alone || self.looked.as_ref().is_some_and(nothing_new) || !self.may_move().await? {
            return Ok(());
        }
        let look = self.repair(&gone).await?;
        let whole = look.short == look.repaired;
        self.unproved &= !whole;
        self.failures = if whole { 0 } else { self.failures + 1 };
        let again_ms = if whole { AGAIN_MS } else { (RETRY_MS << self.failures.min(8)).min(AGAIN_MS) };
        self.looked = Some((situation, self.now_ms() + again_ms));
        Ok(())
    }

    /// An older coordinator would not know the command, and halt: so nothing moves before the level that has it.
    async fn may_move(&self) -> Result<bool, Trouble> {
        match self.homes.client.read_stale(Query::Cluster).await?.0 {
            Answer::Cluster(facts) => Ok(facts.feature_level >= ledger::HOMES),
            _ => Err(Trouble::OtherAnswer),
        }
    }

    /// Brings everything that is short: what goes on first, then what has ended.
    async fn repair(&self, gone: &[NodeId]) -> Result<Look, Trouble> {
        let mut look = Look::default();
        for ended in [false, true] {
            let mut after = None;
            loop {
                let page = self.page(gone, ended, after.clone()).await?;
                if after.is_none() {
                    look.short += page.short;
                    look.lost += page.lost;
                }
                after = page.rows.last().map(|row| row.chain.clone());
                look.repaired += self.bring_all(page.rows, gone).await?;
                self.tell(&look);
                if !page.more {
                    break;
                }
            }
        }
        if look.short > 0 {
            let Look { short, repaired, lost } = look;
            tracing::info!(
                short,
                repaired,
                lost,
                ?gone,
                "chains with too few copies were brought to other stores"
            );
        }
        Ok(look)
    }

    fn tell(&self, look: &Look) {
        metrics::gauge!(names::CHAINS_SHORT).set(look.short.saturating_sub(look.repaired) as f64);
        metrics::gauge!(names::CHAINS_LOST).set(look.lost as f64);
    }

    async fn page(&self, gone: &[NodeId], ended: bool, after: Option<Chain>) -> Result<Page, Trouble> {
        let (holder, gone, unproved) = (self.homes.own(), gone.to_vec(), self.unproved);
        let query = Query::Short { holder, gone, unproved, ended, after, limit: CHAINS };
        match self.homes.client.read_stale(query).await?.0 {
            Answer::Short { rows, more, short, lost } => Ok(Page { rows, more, short, lost }),
            _ => Err(Trouble::OtherAnswer),
        }
    }

    /// Answers how many of the chains have their copies now.
    async fn bring_all(&self, rows: Vec<Kept>, gone: &[NodeId]) -> Result<u64, Trouble> {
        let brought = futures::stream::iter(rows).map(|row| self.bring(row, gone)).buffer_unordered(TOGETHER);
        let (mut commands, mut failed) = (Vec::new(), Vec::new());
        for outcome in brought.collect::<Vec<_>>().await {
            match outcome {
                Ok(command) => commands.push(command),
                Err(why) => failed.push(why),
            }
        }
        if let Some((chain, error)) = failed.first() {
            let failed = failed.len();
            tracing::warn!(failed, ?chain, %error, "too few copies, and no other yet; trying again");
        }
        if commands.is_empty() {
            return Ok(0);
        }
        let replies = self.homes.client.propose(commands).await?;
        let done = replies.iter().filter(|reply| **reply == Reply::Done).count() as u64;
        metrics::counter!(names::CHAINS_REPAIRED_TOTAL).increment(done);
        Ok(done)
    }

    async fn bring(&self, row: Kept, gone: &[NodeId]) -> Result<Command, (Chain, Trouble)> {
        match self.copy(&row, gone).await {
            Ok(home) => Ok(Command::MoveHome { chain: row.chain, was: row.keepers, mark: row.mark, home }),
            Err(error) => Err((row.chain, error)),
        }
    }

    /// Brings a chain to as many stores as it needs, and answers with those that have all of it.
    async fn copy(&self, row: &Kept, gone: &[NodeId]) -> Result<Vec<NodeId>, Trouble> {
        let mut closure = Closure::default();
        self.homes.add(row, &mut closure).await?;
        let hashes: Vec<Hash> = closure.named.into_iter().collect();
        self.homes.bring(row, &hashes).await?;
        let (own, need) = (self.homes.own(), limits::COPIES);
        let mut home = vec![own];
        let mut last = "there is none".to_string();
        for node in self.stores(row, gone) {
            if home.len() >= need {
                break;
            }
            match self.give(node, row, &hashes).await {
                Ok(()) => home.push(node),
                Err(error) => last = error.to_string(),
            }
        }
        match home.len() {
            have if have >= need => Ok(home),
            have => Err(Trouble::Copies { have, need, last }),
        }
    }

    /// Stores that are there: those that keep some of it already in front.
    fn stores(&self, row: &Kept, gone: &[NodeId]) -> Vec<NodeId> {
        let spread = Hash::of(&types::encode(&row.chain));
        let mut nodes = self.homes.keep.members.keepers(self.homes.own(), &row.keepers, spread);
        nodes.retain(|node| self.absent.is_here(*node) && !gone.contains(node));
        nodes
    }

    async fn give(&self, node: NodeId, row: &Kept, hashes: &[Hash]) -> Result<(), Trouble> {
        let (store, peers) = (&self.homes.keep.store, &self.homes.keep.peers);
        let lacking = peers.lacks(node, &row.project, hashes).await?;
        let (mut group, mut bytes) = (Vec::new(), 0);
        for hash in lacking {
            // None: it was forgotten meanwhile.
            if let Some(segment) = store.get(&row.project, hash).await? {
                bytes += segment.len();
                group.push((hash, segment));
            }
            if bytes >= GROUP_BYTES {
                peers.push(node, &row.project, &std::mem::take(&mut group)).await?;
                bytes = 0;
            }
        }
        peers.push(node, &row.project, &group).await?;
        Ok(())
    }
}

struct Page {
    rows: Vec<Kept>,
    more: bool,
    short: u64,
    lost: u64,
}
