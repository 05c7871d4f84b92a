//! Makes segments durable here and on as many keepers as the cluster asks for, before anything names them.

use crate::members::Members;
use crate::segments::Peers;
use crate::store::SegmentStore;
use bytes::Bytes;
use types::{Hash, NodeId, ProjectName};

/// Why the segments are not durable.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error("this node's store refuses: {0}")]
    Store(String),
    #[error("{have} of {need} copies are durable: no other store took the segments ({last})")]
    Copies { have: usize, need: usize, last: String },
}

#[derive(Clone)]
pub struct Keep {
    pub own: NodeId,
    pub store: SegmentStore,
    pub peers: Peers,
    pub members: Members,
}

impl Keep {
    /// Stores the segments here and on keepers, `first` tried first. Returns the nodes that hold them durably, this
    /// one in front.
    pub async fn put(
        &self,
        project: &ProjectName,
        segments: Vec<(Hash, Bytes)>,
        first: &[NodeId],
    ) -> Result<Vec<NodeId>, KeepError> {
        let need = self.members.copies();
        let stored = self.store.put_all(project, segments.clone());
        // Both disks work at the same time: neither's answer is needed for the other's.
        let (stored, (keepers, last)) = tokio::join!(stored, self.push(project, &segments, first, need - 1));
        stored.map_err(|error| KeepError::Store(error.to_string()))?;
        let holders: Vec<NodeId> = std::iter::once(self.own).chain(keepers).collect();
        match holders.len() >= need {
            true => Ok(holders),
            false => Err(KeepError::Copies { have: holders.len(), need, last }),
        }
    }

    /// As many keepers as are needed beside this node, one after the other until they are found; and what the last one
    /// that refused said.
    async fn push(
        &self,
        project: &ProjectName,
        segments: &[(Hash, Bytes)],
        first: &[NodeId],
        need: usize,
    ) -> (Vec<NodeId>, String) {
        let spread = segments.first().map_or(Hash::default(), |(hash, _)| *hash);
        let (mut holders, mut last) = (Vec::new(), "there is none".to_string());
        for keeper in self.members.keepers(self.own, first, spread) {
            if holders.len() >= need {
                break;
            }
            match self.peers.push(keeper, project, segments).await {
                Ok(_) => holders.push(keeper),
                Err(error) => last = error.to_string(),
            }
        }
        (holders, last)
    }
}
