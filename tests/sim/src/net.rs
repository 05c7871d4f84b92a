//! Messages and what the network does to them: delay (so order is not kept), loss, doubling, partitions.

use crate::counts::Kind;
use crate::sim::{Event, Sim};
use ledger::command::Command;
use ledger::reply::Reply;
use ledger::rows::TaskRow;
use std::collections::{BTreeMap, BTreeSet};
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
        wall_ms: u64,
    },
    /// Renews the node's lease, which counts from `sent_ms`.
    Beat {
        boot: u64,
        office: u64,
        sent_ms: u64,
        wall_ms: u64,
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

impl Message {
    /// Beats come every half second anyway, and lists of leases every other: losing one of these hurts nobody.
    fn matters(&self) -> bool {
        match self {
            Message::Hello { .. }
            | Message::Beat { .. }
            | Message::BeatAck { .. }
            | Message::FullSet { .. }
            | Message::Moved { .. } => false,
            Message::Assigned { .. }
            | Message::Stop { .. }
            | Message::Revoked { .. }
            | Message::Ask { .. }
            | Message::Answer { .. } => true,
        }
    }
}

/// A peer that can't reach the coordinators, nor be reached, and how many messages that mattered it cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cut {
    pub lost: u64,
}

#[derive(Default)]
pub(crate) struct Net {
    pub cut_off: BTreeMap<Peer, Cut>,
    /// Chances in percent.
    pub loss: u64,
    pub doubling: u64,
    /// Questions that the network doubled.
    pub doubled: BTreeSet<u64>,
    /// On each link, the newest message that came.
    pub newest: BTreeMap<(Peer, Peer), u64>,
}

impl Sim {
    pub(crate) fn send(&mut self, from: Peer, to: Peer, message: Message) {
        for peer in [from, to] {
            if let Some(cut) = self.net.cut_off.get_mut(&peer) {
                cut.lost += u64::from(message.matters());
                return;
            }
        }
        if self.rng.percent(self.net.loss) {
            return self.counts.count(Kind::MessageLost, message.matters());
        }
        if self.rng.percent(self.net.doubling) {
            self.counts.fired(Kind::MessageDoubled);
            if let Message::Ask { id, .. } = &message {
                self.net.doubled.insert(*id);
            }
            self.deliver_later(from, to, message.clone());
        }
        self.deliver_later(from, to, message);
    }

    fn deliver_later(&mut self, from: Peer, to: Peer, message: Message) {
        // Most are fast; some take long enough to meet a leader change.
        let slow = self.chaos && self.rng.percent(5);
        let delay_ms = self.rng.between(1, if slow { 400 } else { 25 });
        let number = self.number();
        if slow {
            self.counts.fired(Kind::MessageOvertaken);
        }
        self.after(delay_ms, Event::Deliver { from, to, number, slow, message });
    }

    /// A message came: whether one that was sent later has overtaken it.
    pub(crate) fn came(&mut self, from: Peer, to: Peer, number: u64, slow: bool) {
        let newest = self.net.newest.entry((from, to)).or_default();
        if slow && *newest > number {
            self.counts.effective(Kind::MessageOvertaken);
        }
        *newest = number.max(*newest);
    }
}
