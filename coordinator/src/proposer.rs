//! Packs commands of many callers into few log entries. While one entry is being made durable the next one fills.

use crate::raft::{ProposeError, RaftNode};
use ledger::command::{Command, Stamp};
use ledger::reply::Reply;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc, oneshot};
use types::limits;

/// Entries on their way at the same time: the next one need not wait for the disk.
const ENTRIES_IN_FLIGHT: usize = 4;
/// Calls that may wait for an entry; more are told to come back.
const CALLS_WAITING: usize = 4096;

/// Why no reply came.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProposeFailed {
    #[error("this node does not lead")]
    NotLeader { leader: Option<String> },
    /// The entry may or may not be committed: repeat with the same request id.
    #[error("the outcome is not known")]
    Unknown,
    #[error("too many calls are waiting")]
    Busy,
    #[error("the request has {bytes} bytes, a log entry at most {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("this node has stopped: {0}")]
    Stopped(String),
    /// Older nodes could not read it, and nobody said yet that there are none any more.
    #[error(
        "this needs feature level {needed}, and the cluster is at level {level}; when every node runs the newer version, \
         `quorate cluster raise-level` begins it"
    )]
    Level { needed: u32, level: u32 },
}

struct Call {
    commands: Vec<Command>,
    answer: oneshot::Sender<Result<(u64, Vec<Reply>), ProposeFailed>>,
}

#[derive(Clone)]
pub(crate) struct Proposer {
    calls: mpsc::Sender<Call>,
}

impl Proposer {
    /// `stamp` reads the office's clocks at the moment an entry is made.
    pub(crate) fn start(raft: RaftNode, stamp: impl Fn() -> Stamp + Send + Sync + 'static) -> Self {
        let (calls, receiver) = mpsc::channel(CALLS_WAITING);
        tokio::spawn(pack(raft, Arc::new(stamp), receiver));
        Proposer { calls }
    }

    /// Proposes the commands together; the replies come in their order, with the index of the entry.
    pub(crate) async fn propose(&self, commands: Vec<Command>) -> Result<(u64, Vec<Reply>), ProposeFailed> {
        let (answer, reply) = oneshot::channel();
        self.calls.try_send(Call { commands, answer }).map_err(|_| ProposeFailed::Busy)?;
        reply.await.unwrap_or(Err(ProposeFailed::Unknown))
    }
}

async fn pack(raft: RaftNode, stamp: Arc<dyn Fn() -> Stamp + Send + Sync>, mut calls: mpsc::Receiver<Call>) {
    let in_flight = Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT));
    let mut held_over: Option<Call> = None;
    loop {
        let first = match held_over.take() {
            Some(call) => call,
            None => match calls.recv().await {
                Some(call) => call,
                None => return,
            },
        };
        let permit = in_flight.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (batch, rest) = fill(first, &mut calls);
        held_over = rest;
        let (raft, stamp) = (raft.clone(), stamp());
        tokio::spawn(async move {
            send(&raft, stamp, batch).await;
            drop(permit);
        });
    }
}

/// Takes what is waiting, as long as it fits one entry.
fn fill(first: Call, calls: &mut mpsc::Receiver<Call>) -> (Vec<Call>, Option<Call>) {
    let mut commands = first.commands.len();
    let mut bytes = bytes_of(&first);
    let mut batch = vec![first];
    while let Ok(call) = calls.try_recv() {
        commands += call.commands.len();
        bytes += bytes_of(&call);
        if commands > limits::BATCH_COMMANDS || bytes > limits::ENTRY_BYTES / 2 {
            return (batch, Some(call));
        }
        batch.push(call);
    }
    (batch, None)
}

fn bytes_of(call: &Call) -> usize {
    call.commands.iter().map(|command| types::encode(command).len()).sum()
}

async fn send(raft: &RaftNode, stamp: Stamp, batch: Vec<Call>) {
    let commands: Vec<Command> = batch.iter().flat_map(|call| call.commands.iter().cloned()).collect();
    let outcome = raft.propose(ledger::encode_entry(stamp, &commands)).await;
    match outcome {
        Ok(proposed) => deliver(batch, proposed.index, &proposed.reply),
        Err(error) => batch.into_iter().for_each(|call| drop(call.answer.send(Err(failed(&error))))),
    }
}

fn deliver(batch: Vec<Call>, index: u64, reply: &[u8]) {
    let Ok(replies) = types::decode::<Vec<Reply>>(reply) else {
        batch.into_iter().for_each(|call| drop(call.answer.send(Err(ProposeFailed::Unknown))));
        return;
    };
    let mut replies = replies.into_iter();
    for call in batch {
        let own: Vec<Reply> = replies.by_ref().take(call.commands.len()).collect();
        drop(call.answer.send(Ok((index, own))));
    }
}

fn failed(error: &ProposeError) -> ProposeFailed {
    match error {
        ProposeError::NotLeader { leader } => {
            ProposeFailed::NotLeader { leader: leader.as_ref().map(|l| l.address.clone()) }
        }
        ProposeError::Unknown => ProposeFailed::Unknown,
        ProposeError::TooLarge { bytes, limit } => ProposeFailed::TooLarge { bytes: *bytes, limit: *limit },
        ProposeError::Stopped { reason } => ProposeFailed::Stopped(reason.clone()),
    }
}
