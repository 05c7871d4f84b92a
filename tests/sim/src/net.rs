//! Messages and what the network does to them: delay (so order is not kept), loss, doubling, partitions.

use crate::sim::{Event, Sim};
use ledger::command::Command;
use ledger::reply::Reply;
use ledger::rows::TaskRow;
use std::collections::BTreeSet;
use types::{Epoch, TaskUid};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Coordinator(usize),
    Worker(usize),
    Person(usize),
}

#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// A worker's process attaches.
    Hello {
        boot: u64,
    },
    /// Renews the node's lease, which counts from `sent_ms`.
    Beat {
        boot: u64,
        office: u64,
        sent_ms: u64,
    },
    BeatAck {
        boot: u64,
        office: u64,
        sent_ms: u64,
    },
    FullSet {
        boot: u64,
        office: u64,
        leases: Vec<TaskRow>,
    },
    Assigned {
        row: Box<TaskRow>,
    },
    Stop {
        task: TaskUid,
        epoch: Epoch,
    },
    Revoked {
        task: TaskUid,
        epoch: Epoch,
    },
    /// A command for the ledger; asked again under the same id until answered.
    Ask {
        id: u64,
        command: Box<Command>,
    },
    Answer {
        id: u64,
        reply: Box<Reply>,
    },
    /// Not the leader, or not attached: look for the one named.
    Moved {
        leader: Option<usize>,
    },
}

#[derive(Default)]
pub(crate) struct Net {
    /// Peers that can't reach the coordinators, nor be reached.
    pub cut_off: BTreeSet<Peer>,
    /// Chances in percent.
    pub loss: u64,
    pub doubling: u64,
}

impl Sim {
    pub(crate) fn send(&mut self, from: Peer, to: Peer, message: Message) {
        if self.net.cut_off.contains(&from)
            || self.net.cut_off.contains(&to)
            || self.rng.percent(self.net.loss)
        {
            self.faults.messages_lost += 1;
            return;
        }
        if self.rng.percent(self.net.doubling) {
            self.faults.messages_doubled += 1;
            self.deliver_later(from, to, message.clone());
        }
        self.deliver_later(from, to, message);
    }

    fn deliver_later(&mut self, from: Peer, to: Peer, message: Message) {
        // Most are fast; some take long enough to meet a leader change.
        let longest = if self.rng.percent(5) { 400 } else { 25 };
        let delay_ms = self.rng.between(1, longest);
        self.after(delay_ms, Event::Deliver { from, to, message });
    }
}
