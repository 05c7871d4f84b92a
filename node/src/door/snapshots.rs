//! A backup as a stream of the archive's bytes; what was in it comes last.

use super::{Membership, status};
use crate::backup::BackupError;
use crate::backup::write::{Sources, Summary, archive};
use futures::{Stream, StreamExt};
use proto::v1 as pb;
use std::pin::Pin;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

pub(super) type Archive = Pin<Box<dyn Stream<Item = Result<pb::SnapshotClusterResponse, Status>> + Send>>;

/// Messages between the archive and a slow reader.
const MESSAGES_AHEAD: usize = 8;

pub(super) fn stream(inside: &Membership, allow_missing: bool) -> Archive {
    let sources = Sources {
        own: inside.own,
        client: inside.client.clone(),
        members: inside.members.clone(),
        store: inside.store.clone(),
        peers: inside.peers.clone(),
    };
    let (out, data) = mpsc::channel(MESSAGES_AHEAD);
    let (told, outcome) = oneshot::channel();
    tokio::spawn(async move {
        let done = archive(sources, allow_missing, out).await;
        // A caller that has gone needs no outcome.
        let _ = told.send(done);
    });
    let data = ReceiverStream::new(data)
        .map(|data| Ok(pb::SnapshotClusterResponse { data: data.into(), summary: None }));
    Box::pin(data.chain(futures::stream::once(last(outcome))))
}

async fn last(
    outcome: oneshot::Receiver<Result<Summary, BackupError>>,
) -> Result<pb::SnapshotClusterResponse, Status> {
    match outcome.await {
        Ok(Ok(summary)) => {
            Ok(pb::SnapshotClusterResponse { data: Vec::new(), summary: Some(message(&summary)) })
        }
        Ok(Err(error)) => Err(refused(&error)),
        Err(_) => Err(Status::unavailable("the node stopped while it made the backup")),
    }
}

fn message(summary: &Summary) -> pb::SnapshotSummary {
    let Summary { head, end, bytes } = summary;
    pb::SnapshotSummary {
        cluster_id: head.cluster.to_string(),
        applied_index: head.applied_index,
        state_hash: head.state_hash.to_string(),
        tasks: end.tasks,
        segments: end.segments,
        bytes: *bytes,
        missing: end.missing,
    }
}

fn refused(error: &BackupError) -> Status {
    let (code, reason, next) = match error {
        BackupError::Segment(_) => (
            Code::FailedPrecondition,
            "SEGMENT_NOT_FOUND",
            "check `quorate node list` for nodes that are down",
        ),
        BackupError::Ledger(_) => {
            (Code::Unavailable, "NO_LEADER", "try again; check `quorate cluster status`")
        }
        _ => (Code::Internal, "BACKUP_FAILED", "look at this node's log, or ask another node"),
    };
    status::error(code, reason, &error.to_string(), next)
}
