//! The world of memories: heads in the ledger, segments here and on other nodes. A trait, so that tests put a small
//! world behind it.

use super::MemoryError;
use crate::keep::{Keep, KeepError};
use bytes::Bytes;
use coordinator::Client;
use ledger::command::{Command, RequestKey};
use ledger::query::{Answer, Query};
use ledger::reply::{Refusal, Reply};
use ledger::rows::HeadRow;
use types::{Hash, NodeId, ProjectName};

/// Segments that are given to a new keeper in one go.
const GROUP: usize = 256;

/// A move of a head.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    pub(crate) path: String,
    pub(crate) after: Option<Hash>,
    pub(crate) head: Hash,
    pub(crate) forget: Vec<Hash>,
    pub(crate) author: String,
}

#[tonic::async_trait]
pub(crate) trait Chains: Send + Sync + 'static {
    /// The head in force.
    async fn head(&self, project: &ProjectName, path: &str) -> Result<Option<HeadRow>, MemoryError>;

    /// False: another head is in force than the one that was seen.
    async fn move_head(
        &self,
        project: &ProjectName,
        to: Move,
        home: Vec<NodeId>,
    ) -> Result<bool, MemoryError>;

    /// Brings segments here, unless they were forgotten.
    async fn fetch(&self, project: &ProjectName, home: &[NodeId], hashes: &[Hash])
    -> Result<(), MemoryError>;

    /// The bytes of a segment that is here.
    async fn get(&self, project: &ProjectName, hash: Hash) -> Result<Option<Bytes>, MemoryError>;

    /// Makes segments durable where the whole chain is, or is brought: answers with those nodes.
    async fn put(
        &self,
        project: &ProjectName,
        segments: Vec<(Hash, Bytes)>,
        home: &[NodeId],
        chain: Vec<Hash>,
    ) -> Result<Vec<NodeId>, MemoryError>;

    /// Erases segments here.
    async fn erase(&self, project: &ProjectName, hashes: &[Hash]) -> Result<(), MemoryError>;

    /// Whether nobody may have a segment any more, as far as this node knows.
    fn is_forgotten(&self, project: &ProjectName, hash: &Hash) -> bool;
}

/// The cluster.
pub(crate) struct Real {
    pub(crate) client: Client,
    pub(crate) keep: Keep,
}

impl Real {
    /// A keeper that is new to the chain gets all of it.
    async fn complete(
        &self,
        keeper: NodeId,
        project: &ProjectName,
        chain: &[Hash],
    ) -> Result<(), MemoryError> {
        for group in chain.chunks(GROUP) {
            let mut segments = Vec::with_capacity(group.len());
            for hash in group {
                segments.extend(self.get(project, *hash).await?.map(|bytes| (*hash, bytes)));
            }
            let pushed = self.keep.peers.push(keeper, project, &segments).await;
            pushed.map_err(|error| MemoryError::NotDurable(error.to_string()))?;
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Chains for Real {
    async fn head(&self, project: &ProjectName, path: &str) -> Result<Option<HeadRow>, MemoryError> {
        let query = Query::Heads { project: project.clone(), prefix: path.to_string() };
        match self.client.read(query).await? {
            Answer::Heads(rows) => Ok(rows.into_iter().find(|row| row.path == path)),
            _ => Err(MemoryError::Lost("the ledger answered another question".into())),
        }
    }

    async fn move_head(
        &self,
        project: &ProjectName,
        to: Move,
        home: Vec<NodeId>,
    ) -> Result<bool, MemoryError> {
        // A head names all that is behind it, so the move is its own request id.
        let request =
            RequestKey { author: to.author, request_id: format!("head-{}", to.head), body: to.head };
        let command = Command::MoveHead {
            project: project.clone(),
            path: to.path,
            after: to.after,
            head: to.head,
            home,
            forget: to.forget,
            request,
        };
        match self.client.propose_one(command).await? {
            Reply::Head(_) => Ok(true),
            Reply::Refused(Refusal::WrongHead { .. }) => Ok(false),
            Reply::Refused(refusal) => Err(MemoryError::Refused(refusal)),
            other => Err(MemoryError::Damaged(format!("the ledger answered {other:?}"))),
        }
    }

    async fn fetch(
        &self,
        project: &ProjectName,
        home: &[NodeId],
        hashes: &[Hash],
    ) -> Result<(), MemoryError> {
        let Keep { own, store, peers, members } = &self.keep;
        let kept = |hash: &&Hash| !store.is_forgotten(project, hash);
        let hashes: Vec<Hash> = hashes.iter().filter(kept).copied().collect();
        let missing = store.missing(project, &hashes).await;
        let missing = missing.map_err(|error| MemoryError::Lost(error.to_string()))?;
        if missing.is_empty() {
            return Ok(());
        }
        members.learn(&self.client, home.iter().copied()).await;
        let nodes = members.keepers(*own, home, missing[0]);
        let fetched = peers.fetch(store, &nodes, project, &missing).await;
        // It may have been forgotten while it was asked for: then there is nothing to wait for.
        match fetched {
            Err(_) if missing.iter().all(|hash| store.is_forgotten(project, hash)) => Ok(()),
            fetched => fetched.map_err(|error| MemoryError::Lost(error.to_string())),
        }
    }

    async fn get(&self, project: &ProjectName, hash: Hash) -> Result<Option<Bytes>, MemoryError> {
        let got = self.keep.store.get(project, hash).await;
        got.map_err(|error| MemoryError::Lost(error.to_string()))
    }

    async fn put(
        &self,
        project: &ProjectName,
        segments: Vec<(Hash, Bytes)>,
        home: &[NodeId],
        chain: Vec<Hash>,
    ) -> Result<Vec<NodeId>, MemoryError> {
        if self.keep.members.copies() < types::limits::COPIES {
            self.keep.members.refresh(&self.client).await;
        }
        let forgotten = segments.iter().any(|(hash, _)| self.is_forgotten(project, hash));
        let holders = self.keep.put(project, segments, home).await.map_err(|error| match error {
            KeepError::Store(_) if forgotten => MemoryError::Forgotten,
            error => MemoryError::NotDurable(error.to_string()),
        })?;
        for keeper in holders.iter().filter(|id| **id != self.keep.own && !home.contains(id)) {
            self.complete(*keeper, project, &chain).await?;
        }
        Ok(holders)
    }

    async fn erase(&self, project: &ProjectName, hashes: &[Hash]) -> Result<(), MemoryError> {
        let erased = self.keep.store.erase(project, hashes).await;
        erased.map_err(|error| MemoryError::NotDurable(error.to_string()))
    }

    fn is_forgotten(&self, project: &ProjectName, hash: &Hash) -> bool {
        self.keep.store.is_forgotten(project, hash)
    }
}
