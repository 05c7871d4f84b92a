//! The whole ledger, fetched from its leader.

use super::{Client, ClientError, Miss, TRY, read_miss};
use proto::internal::v1 as pb;
use tokio::time::timeout;

/// The most that is set aside on the word of another node before the bytes are there.
const AHEAD_BYTES: u64 = 64 << 20;

impl Client {
    /// The state with all that was committed before the call, as a snapshot of it is stored.
    pub async fn snapshot(&self) -> Result<Vec<u8>, ClientError> {
        self.until_answered(|client| async move { client.snapshot_once().await }).await
    }

    async fn snapshot_once(&self) -> Result<Vec<u8>, Miss> {
        if let Some(local) = self.local().filter(|local| local.raft().is_leader()) {
            return local.snapshot().await.map_err(read_miss);
        }
        let address = self.target()?;
        let request = pb::SnapshotRequest { cluster_id: self.cluster().0.to_vec().into() };
        let mut rpc = self.rpc(&address)?;
        let opened = timeout(TRY * 4, rpc.snapshot(request)).await;
        let mut chunks = self.settle(&address, opened)?.into_inner();
        let mut bytes = Vec::new();
        let mut total = None;
        while let Some(message) = self.settle(&address, timeout(TRY, chunks.message()).await)? {
            let whole = *total.get_or_insert(message.total);
            if bytes.is_empty() {
                bytes.reserve(whole.min(AHEAD_BYTES) as usize);
            }
            bytes.extend_from_slice(&message.chunk);
        }
        match total == Some(bytes.len() as u64) {
            true => Ok(bytes),
            false => Err(Miss::Elsewhere(None, format!("{address} sent a part of the state only"))),
        }
    }
}
