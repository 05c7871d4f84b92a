//! Who flushes: a thread that gathers what waits, or the caller.

use super::index::Index;
use super::lock;
use super::writer::Writer;
use super::{Change, Done, Flush};
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A batch stops growing here, so that the first in it does not wait for megabytes of others.
const BATCH_BYTES: usize = 4 << 20;

/// Changes that belong together, and whom to tell.
pub(super) struct Job {
    pub(super) changes: Vec<Change>,
    pub(super) done: Option<Done>,
}

/// A job whose outcome is known.
pub(super) struct Finished {
    done: Option<Done>,
    result: io::Result<()>,
}

impl Finished {
    pub(super) fn tell(self) {
        if let Some(done) = self.done {
            done(self.result);
        }
    }
}

impl Job {
    fn bytes(&self) -> usize {
        let size = |change: &Change| if let Change::Append { body, .. } = change { body.len() } else { 32 };
        self.changes.iter().map(size).sum()
    }
}

pub(super) enum Lane {
    Inline(Box<Inline>),
    Thread {
        queue: Sender<Job>,
        thread: JoinHandle<()>,
    },
    #[cfg(test)]
    Late(tokio::sync::mpsc::UnboundedSender<Job>),
    Closed,
}

pub(super) struct Inline {
    writer: Writer,
    index: Arc<Mutex<Index>>,
    /// After an error nothing is tried again: the machine may have dropped the bytes and call it success.
    broken: Option<String>,
}

impl Lane {
    pub(super) fn start(flush: Flush, writer: Writer, index: Arc<Mutex<Index>>) -> io::Result<Lane> {
        #[cfg(test)]
        let sync_ms = writer.sync_ms();
        let lane = Inline { writer, index, broken: None };
        match flush {
            Flush::Inline => Ok(Lane::Inline(Box::new(lane))),
            #[cfg(test)]
            Flush::Late => {
                let (queue, jobs) = tokio::sync::mpsc::unbounded_channel();
                tokio::spawn(gather_late(lane, jobs, sync_ms));
                Ok(Lane::Late(queue))
            }
            Flush::Thread => {
                let (queue, jobs) = channel();
                let thread = std::thread::Builder::new().name("raft-wal".to_string());
                let thread = thread.spawn(move || gather(lane, jobs))?;
                Ok(Lane::Thread { queue, thread })
            }
        }
    }

    /// Takes a job. What it returns is finished and to be told so, after locks are released.
    pub(super) fn commit(&mut self, job: Job) -> Option<Finished> {
        match self {
            Lane::Inline(lane) => lane.flush(vec![job]).pop(),
            Lane::Thread { queue, .. } => queue.send(job).err().map(|refused| closed(refused.0)),
            #[cfg(test)]
            Lane::Late(queue) => queue.send(job).err().map(|refused| closed(refused.0)),
            Lane::Closed => Some(closed(job)),
        }
    }

    /// Flushes what waits.
    pub(super) fn close(self) {
        if let Lane::Thread { queue, thread } = self {
            drop(queue);
            if thread.join().is_err() {
                tracing::error!("the raft log's thread panicked");
            }
        }
    }
}

fn closed(job: Job) -> Finished {
    Finished { done: job.done, result: Err(io::Error::other("the raft log is closed")) }
}

/// Group commit: one sync for everything that has come while the last one ran.
fn gather(mut lane: Inline, jobs: Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let mut bytes = first.bytes();
        let mut batch = vec![first];
        while bytes < BATCH_BYTES {
            let Ok(job) = jobs.try_recv() else { break };
            bytes += job.bytes();
            batch.push(job);
        }
        lane.flush(batch).into_iter().for_each(Finished::tell);
    }
}

/// The same on a disk that is slow: what comes while it works waits for the next turn.
#[cfg(test)]
async fn gather_late(
    mut lane: Inline,
    mut jobs: tokio::sync::mpsc::UnboundedReceiver<Job>,
    sync_ms: Arc<std::sync::atomic::AtomicU64>,
) {
    while let Some(first) = jobs.recv().await {
        let ms = sync_ms.load(std::sync::atomic::Ordering::Relaxed);
        tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
        let mut batch = vec![first];
        while let Ok(job) = jobs.try_recv() {
            batch.push(job);
        }
        lane.flush(batch).into_iter().for_each(Finished::tell);
    }
}

impl Inline {
    fn flush(&mut self, jobs: Vec<Job>) -> Vec<Finished> {
        let mut changes = Vec::new();
        let mut dones = Vec::new();
        for job in jobs {
            changes.extend(job.changes);
            dones.push(job.done);
        }
        let outcome = self.write(&changes);
        let result = || match &outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        dones.into_iter().map(|done| Finished { done, result: result() }).collect()
    }

    fn write(&mut self, changes: &[Change]) -> io::Result<()> {
        if let Some(reason) = &self.broken {
            return Err(io::Error::other(format!("the raft log has stopped: {reason}")));
        }
        match self.writer.commit(changes) {
            Ok(places) => {
                lock(&self.index).placed(&places);
                if changes.iter().any(|change| matches!(change, Change::Purge(_))) {
                    self.writer.drop_purged();
                }
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "the raft log cannot be written; this node must stop");
                lock(&self.index).break_down(&error.to_string());
                self.broken = Some(error.to_string());
                Err(error)
            }
        }
    }
}
