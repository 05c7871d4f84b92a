//! A backup on its way: the archive's bytes, and what is in it when it is whole.

use crate::client::{Client, failure_of};
use crate::data::Snapshot;
use crate::error::{Code, Error};
use crate::retry::Kind;
use proto::v1;
use std::time::Duration;
use tokio::time::timeout;
use tonic::Streaming;

/// The longest silence within a backup: the ledger is written and read once before the first byte.
const SILENCE: Duration = Duration::from_secs(120);

/// An archive that is being received. A node that dies in the middle ends it: begin again.
#[derive(Debug)]
pub struct SnapshotStream {
    stream: Streaming<v1::SnapshotClusterResponse>,
    whole: Option<Snapshot>,
}

impl SnapshotStream {
    pub(super) async fn open(client: &Client, allow_missing: bool) -> Result<SnapshotStream, Error> {
        let call = client.call(Kind::Repeatable, |via| async move {
            // No deadline: a backup takes as long as its bytes do.
            let message = v1::SnapshotClusterRequest { allow_missing };
            via.cluster().snapshot_cluster(tonic::Request::new(message)).await
        });
        Ok(SnapshotStream { stream: call.await?, whole: None })
    }

    /// The next bytes, or None when the archive is whole.
    ///
    /// # Errors
    /// `SEGMENT_NOT_FOUND` when no node holds what the ledger names; `CUT_OFF` when the node went away.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        while self.whole.is_none() {
            let Ok(answer) = timeout(SILENCE, self.stream.message()).await else {
                return Err(cut_off("the node fell silent"));
            };
            let message = answer.map_err(|status| failure_of(&status).1)?;
            let message = message.ok_or_else(|| cut_off("the stream ended without its summary"))?;
            self.whole = message.summary.map(Into::into);
            if !message.data.is_empty() {
                return Ok(Some(message.data));
            }
        }
        Ok(None)
    }

    /// What the archive holds, once `next` has answered None.
    pub fn summary(&self) -> Option<&Snapshot> {
        self.whole.as_ref()
    }
}

fn cut_off(why: &str) -> Error {
    let next = "what has arrived is no backup: throw it away and begin again";
    Error::local(Code::Unavailable, "CUT_OFF", format!("the backup was cut off: {why}"), next)
}
