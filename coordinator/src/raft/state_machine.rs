//! openraft's view of the machine: applies entries, remembers how far, takes and installs snapshots.

use super::snapshots::Snapshots;
use super::type_config::{Answer, LogId, Payload, Snapshot, SnapshotMeta, StoredMembership, Types};
use super::{Halt, Machine, SharedMachine};
use crate::wal::Flush;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub(super) struct StateMachine {
    machine: SharedMachine,
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshots: Snapshots,
    flush: Flush,
}

impl StateMachine {
    pub(super) fn new(machine: SharedMachine, snapshots: Snapshots, flush: Flush) -> Self {
        StateMachine { machine, applied: None, membership: StoredMembership::default(), snapshots, flush }
    }

    /// Runs the machine's own code. A panic in it must stop this node as a refusal does, not only the task
    /// that happens to run it.
    fn with_machine<T>(&self, act: impl FnOnce(&mut dyn Machine) -> Result<T, Halt>) -> io::Result<T> {
        let mut machine =
            self.machine.lock().map_err(|_| io::Error::other("the machine panicked earlier"))?;
        let outcome = catch_unwind(AssertUnwindSafe(|| act(&mut *machine)));
        match outcome {
            Ok(result) => result.map_err(io::Error::other),
            Err(_) => Err(io::Error::other("the machine panicked")),
        }
    }

    fn apply_payload(&mut self, log_id: LogId, payload: Payload) -> io::Result<Answer> {
        match payload {
            Payload::Blank => Ok(Answer::default()),
            Payload::Normal(command) => self
                .with_machine(|machine| machine.apply(log_id.index, log_id.leader_id.term, &command.0))
                .map(Answer),
            Payload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(log_id), membership);
                Ok(Answer::default())
            }
        }
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let answer = self.apply_payload(entry.log_id, entry.payload)?;
            self.applied = Some(entry.log_id);
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            bytes: self.with_machine(|machine| Ok(machine.snapshot())).map(Bytes::from),
            meta: SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() },
            snapshots: self.snapshots.clone(),
            flush: self.flush,
        }
    }

    /// The machine first: bytes that it refuses must not become the file it would start from.
    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> io::Result<()> {
        self.with_machine(|machine| machine.restore(&snapshot))?;
        if !self.snapshots.has(meta)? {
            let (snapshots, meta) = (self.snapshots.clone(), meta.clone());
            off_the_loop(self.flush, move || snapshots.save(&meta, &snapshot)).await?;
        }
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let snapshots = self.snapshots.clone();
        off_the_loop(self.flush, move || snapshots.newest()).await
    }
}

/// The machine's bytes, taken between two entries, on their way to a file.
pub(super) struct Builder {
    bytes: io::Result<Bytes>,
    meta: SnapshotMeta,
    snapshots: Snapshots,
    flush: Flush,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let bytes = self.bytes.as_ref().map_err(|e| io::Error::new(e.kind(), e.to_string()))?.clone();
        let (snapshots, meta, copy) = (self.snapshots.clone(), self.meta.clone(), bytes.clone());
        off_the_loop(self.flush, move || snapshots.save(&meta, &copy)).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: bytes })
    }
}

/// Disk work away from the async threads; in a simulation in place, where a thread would break its order.
async fn off_the_loop<T: Send + 'static>(
    flush: Flush,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match flush {
        Flush::Inline => work(),
        #[cfg(test)]
        Flush::Late => work(),
        Flush::Thread => tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?,
    }
}
