//! The thread that does the disk's work while the engine computes, and the queue to it. It decides nothing.
//!
//! Reads go before writes, because a sequence waits for them; a read of a block that is still being written is
//! put behind that write.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use super::buffers::Buffer;
use super::check::Sum;
use super::files::Files;
use super::format::Header;
use super::slots::Slot;
use crate::prefix::Key;

/// Work for the disk.
#[derive(Debug)]
pub(super) enum Job {
    Create {
        file: u32,
        slots: u32,
    },
    Remove {
        name: String,
    },
    /// `known_sum` is None when nobody has summed the bytes yet; the header's own sum is then filled in.
    Write {
        slot: Slot,
        header: Header,
        known_sum: Option<Sum>,
        bytes: Buffer,
    },
    Read {
        slot: Slot,
        header: Header,
        bytes: Buffer,
    },
    Erase {
        slot: Slot,
    },
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Done {
    Created { file: u32, result: Result<(), Failure> },
    Removed { result: Result<(), Failure> },
    Written { slot: Slot, key: Key, sum: Sum, bytes: Buffer, result: Result<(), Failure>, spent: Duration },
    Read { slot: Slot, key: Key, bytes: Buffer, result: Result<(), Failure>, spent: Duration },
    Erased { slot: Slot, result: Result<(), Failure> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The slot's file was never made.
    NoFile,
    /// The bytes are not those that were stored.
    Corrupt,
    /// The disk, or its owner's share of it, is full.
    Full(String),
    Io(String),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Failure::Full(error.to_string())
            }
            _ => Failure::Io(error.to_string()),
        }
    }
}

#[derive(Default)]
struct Lines {
    urgent: VecDeque<Job>,
    ordered: VecDeque<Job>,
    stopping: bool,
}

#[derive(Default)]
struct Queue {
    lines: Mutex<Lines>,
    news: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().expect("no code panics with the queue locked")
    }

    /// The next job; None when there is none and none will come.
    fn next(&self) -> Option<Job> {
        let mut lines = self.lock();
        loop {
            let job = lines.urgent.pop_front().or_else(|| lines.ordered.pop_front());
            if job.is_some() || lines.stopping {
                return job;
            }
            lines = self.news.wait(lines).expect("no code panics with the queue locked");
        }
    }
}

/// The owner's end of the queue. Dropping it waits until every job is done.
pub(super) struct Io {
    queue: Arc<Queue>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
}

impl Io {
    pub(super) fn start(files: Files) -> std::io::Result<Io> {
        let queue = Arc::new(Queue::default());
        let (tell, done) = mpsc::channel();
        let jobs = Arc::clone(&queue);
        let work = move || work(files, &jobs, &tell);
        let thread = std::thread::Builder::new().name("kv-tiers".into()).spawn(work)?;
        Ok(Io { queue, done, thread: Some(thread) })
    }

    /// After everything that was put in line before.
    pub(super) fn in_order(&self, job: Job) {
        self.queue.lock().ordered.push_back(job);
        self.queue.news.notify_one();
    }

    /// Before everything that is only `in_order`.
    pub(super) fn urgent(&self, job: Job) {
        self.queue.lock().urgent.push_back(job);
        self.queue.news.notify_one();
    }

    /// Something that is done, without waiting. An error when the thread is gone.
    pub(super) fn done(&self) -> Result<Option<Done>, ()> {
        match self.done.try_recv() {
            Ok(done) => Ok(Some(done)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(()),
        }
    }

    /// As `done`, but waits for something.
    pub(super) fn wait(&self, at_most: Duration) -> Result<Option<Done>, ()> {
        match self.done.recv_timeout(at_most) {
            Ok(done) => Ok(Some(done)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(()),
        }
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        self.queue.lock().stopping = true;
        self.queue.news.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed by it, and everything it could have told is lost either way.
            thread.join().ok();
        }
    }
}

fn work(mut files: Files, queue: &Queue, tell: &Sender<Done>) {
    if let Err(cause) = sys::lower_priority() {
        tracing::debug!(%cause, "the thread of the KV disk tier keeps its priority");
    }
    while let Some(job) = queue.next() {
        // Nobody listens while the owner is being dropped; the writes still count.
        tell.send(files.perform(job)).ok();
    }
}
