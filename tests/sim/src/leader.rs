//! One term of one leader: it takes questions, writes entries, sees them committed and performs their effects.
//!
//! Rules that the proofs need: a node counts as alive for one lease and a margin after its last beat, and after the
//! office began; once its loss is proposed, none of its beats is acknowledged before it attached anew and got the
//! full set; effects are performed by the leader whose entry it was, and by nobody later; a leader that has not heard
//! from a quorum within `QUORUM_MS` renews nobody's lease, because another may lead soon after.

use crate::cluster::{Asker, COORDINATORS, Done, Pending};
use crate::counts::Kind;
use crate::net::{Message, Peer};
use crate::sim::{Event, Sim};
use ledger::State;
use ledger::command::Command;
use ledger::effect::Effect;
use std::collections::{BTreeMap, BTreeSet};
use types::{NodeId, limits};

/// What the leader knows of an attached node.
#[derive(Clone, Copy)]
pub(crate) struct Attached {
    pub boot: u64,
    /// Its wall clock, and when it said so.
    pub wall_ms: u64,
    pub heard_ms: u64,
}

/// Where in the life of an entry the leader fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doom {
    BeforePropose,
    AfterPropose,
    BeforeReply,
    BeforeEffects,
}

pub(crate) struct Office {
    pub number: u64,
    pub who: usize,
    pub began_ms: u64,
    pub began_ledger_ms: u64,
    pub wall_base_ms: u64,
    /// Not written yet.
    queue: Vec<(Asker, Command)>,
    /// Written, in order, not committed.
    pub written: Vec<Pending>,
    /// When the disk is done with what is written.
    busy_until_ms: u64,
    pub attached: BTreeMap<NodeId, Attached>,
    pub last_beat_ms: BTreeMap<NodeId, u64>,
    /// Nodes whose loss is proposed.
    pub losing: BTreeSet<NodeId>,
    pub full_sets_ms: u64,
    pub planning: bool,
    pub doom: Option<Doom>,
    /// Since when its quorum does not hear it.
    pub cut_since_ms: Option<u64>,
    /// What a deposed leader believes: the state in which it was left alone.
    pub belief: Option<Box<State>>,
    clock_refused: bool,
}

/// Nobody campaigns before it has heard nothing for so long.
pub(crate) const SILENCE_MS: u64 = 1_000;

impl Office {
    /// The median of the attached nodes' wall clocks.
    pub(crate) fn median_wall_ms(&self, now_ms: u64) -> Option<u64> {
        let moved = |node: &Attached| node.wall_ms + (now_ms - node.heard_ms);
        let mut walls: Vec<u64> = self.attached.values().map(moved).collect();
        walls.sort_unstable();
        walls.get(walls.len() / 2).copied()
    }
}

impl Sim {
    /// The office a coordinator believes to hold.
    pub(crate) fn office_of(&mut self, who: usize) -> Option<&mut Office> {
        let offices = self.office.iter_mut().chain(self.deposed.iter_mut());
        offices.into_iter().find(|office| office.who == who)
    }

    /// A leader that its quorum has left is followed by another, and does not know.
    pub(crate) fn elect(&mut self) {
        // An election that was due for an earlier failure must not follow at once on a later cut.
        let silent = |since_ms: u64| self.now_ms >= since_ms + SILENCE_MS;
        if self.office.as_ref().is_some_and(|office| !office.cut_since_ms.is_some_and(silent)) {
            return;
        }
        if let Some(mut old) = self.office.take() {
            let since_ms = old.cut_since_ms.unwrap_or(self.now_ms);
            let reached = old.written.iter().take_while(|entry| entry.written_ms < since_ms).count();
            self.cut_pending(std::mem::take(&mut old.written), reached);
            self.counts.effective(Kind::QuorumCut);
            old.belief = Some(Box::new(self.cluster.truth.clone()));
            self.deposed = Some(old);
        }
        let deposed = self.deposed.as_ref().map(|old| old.who);
        let able: Vec<usize> = (0..COORDINATORS).filter(|who| Some(*who) != deposed).collect();
        let who = able[self.rng.below(able.len())];
        self.take_office(who);
    }

    pub(crate) fn take_office(&mut self, who: usize) {
        self.office_number += 1;
        for pending in std::mem::take(&mut self.survivors) {
            // Its effects belong to a leader that is gone.
            self.commit(&pending);
        }
        // The blank entry of a new term takes an index.
        self.cluster.last_index += 1;
        self.trace(&format!("office {} of c{who}", self.office_number));
        self.office = Some(Office {
            number: self.office_number,
            who,
            began_ms: self.now_ms,
            began_ledger_ms: self.cluster.truth.ledger_ms(),
            wall_base_ms: self.wall_base(who),
            queue: vec![],
            written: vec![],
            busy_until_ms: 0,
            attached: BTreeMap::new(),
            last_beat_ms: BTreeMap::new(),
            losing: BTreeSet::new(),
            full_sets_ms: self.now_ms,
            planning: false,
            doom: None,
            cut_since_ms: None,
            belief: None,
            clock_refused: false,
        });
    }

    pub(crate) fn fail_leader(&mut self) {
        let Some(office) = self.office.take() else { return };
        self.trace(&format!("office {} ends", office.number));
        let most = office.written.len();
        self.cut_pending(office.written, most);
        let silence_ms = self.rng.between(SILENCE_MS, 1_300);
        self.after(silence_ms, Event::Elect);
    }

    fn doomed(&self, doom: Doom) -> bool {
        self.office.as_ref().is_some_and(|office| office.doom == Some(doom))
    }

    pub(crate) fn propose(&mut self, asker: Asker, command: Command) {
        if let Asker::Peer(_, id) = asker {
            *self.asked.entry(id).or_default() += 1;
            if self.asked[&id] == 2 && self.net.doubled.contains(&id) {
                self.counts.effective(Kind::MessageDoubled);
            }
        }
        if let Some(office) = &mut self.office {
            office.queue.push((asker, command));
        }
        if self.doomed(Doom::BeforePropose) && matches!(asker, Asker::Peer(..)) {
            self.counts.count(Kind::CrashBeforePropose, true);
            self.fail_leader();
        }
    }

    /// Writes what is queued as one entry; it is committed a little later, in order.
    pub(crate) fn flush(&mut self) {
        let Some(office) = self.office.as_ref().filter(|office| !office.queue.is_empty()) else { return };
        let (number, who, (stamp, refused)) = (office.number, office.who, self.stamp(office));
        // A quorum is slow now and then, so that leaders fail with entries half way; and some disks stand still.
        let slow = self.chaos && self.rng.below(200) == 0;
        let longest_ms = if self.chaos && self.rng.percent(10) { 400 } else { 15 };
        let (from_ms, to_ms) = if slow { (300, 2_500) } else { (2, longest_ms) };
        let delay_ms = self.rng.between(from_ms, to_ms);
        let now_ms = self.now_ms;
        let Some(office) = &mut self.office else { return };
        let first = refused && !std::mem::replace(&mut office.clock_refused, refused);
        let most = office.queue.len().min(limits::BATCH_COMMANDS);
        let commands = office.queue.drain(..most).collect();
        office.written.push(Pending { stamp, commands, written_ms: now_ms, slow });
        office.busy_until_ms = office.busy_until_ms.max(now_ms + delay_ms);
        let wait_ms = office.busy_until_ms - now_ms;
        if slow {
            self.counts.fired(Kind::SlowDisk);
        }
        if first {
            self.clock_was_refused(who);
        }
        self.after(wait_ms, Event::Commit { office: number });
        if self.doomed(Doom::AfterPropose) {
            let awaited = self.office.iter().flat_map(|office| &office.written).any(Pending::is_awaited);
            self.counts.count(Kind::CrashAfterPropose, awaited);
            self.fail_leader();
        }
    }

    /// A quorum has the oldest written entry.
    pub(crate) fn commit_written(&mut self, number: u64) {
        let current =
            self.office.as_mut().filter(|office| office.number == number && !office.written.is_empty());
        let Some(office) = current else { return };
        let who = Peer::Coordinator(office.who);
        if let Some(since_ms) = office.cut_since_ms
            && office.written[0].written_ms >= since_ms
        {
            return self.after(100, Event::Commit { office: number });
        }
        let pending = office.written.remove(0);
        if pending.slow && pending.commands.iter().any(|(asker, _)| self.was_asked_again(asker)) {
            self.counts.effective(Kind::SlowDisk);
        }
        let done = self.commit(&pending);
        if self.doomed(Doom::BeforeReply) && pending.is_awaited() {
            self.counts.count(Kind::CrashBeforeReply, done.changed);
            return self.fail_leader();
        }
        self.answer(who, &pending, &done);
        let wakes = done.effects.iter().any(wakes_a_worker);
        if self.doomed(Doom::BeforeEffects) && wakes {
            self.counts.count(Kind::CrashBeforeEffects, true);
            return self.fail_leader();
        }
        if self.chaos && self.rng.percent(4) {
            return self.counts.count(Kind::EffectsDropped, wakes);
        }
        done.effects.into_iter().for_each(|effect| self.perform(who, effect));
    }

    fn was_asked_again(&self, asker: &Asker) -> bool {
        matches!(asker, Asker::Peer(_, id) if self.asked.get(id).is_some_and(|times| *times > 1))
    }

    fn answer(&mut self, who: Peer, pending: &Pending, done: &Done) {
        for ((asker, command), reply) in pending.commands.iter().zip(&done.replies) {
            match asker {
                Asker::Peer(peer, id) => {
                    let reply = Box::new(reply.clone());
                    self.send(who, *peer, Message::Answer { id: *id, reply });
                }
                Asker::Leader => self.done_for_leader(command),
            }
        }
    }

    fn done_for_leader(&mut self, command: &Command) {
        let Some(office) = &mut self.office else { return };
        if let Command::NodeLost { node } = command {
            office.losing.remove(node);
            office.attached.remove(node);
        } else if !matches!(command, Command::MoveHome { .. }) {
            office.planning = false;
        }
    }

    fn perform(&mut self, who: Peer, effect: Effect) {
        let (node, message) = match effect {
            Effect::Assigned { task, node, .. } => match self.cluster.truth.task(task) {
                Some(row) => (node, Message::Assigned { row: Box::new(row.clone()) }),
                None => return,
            },
            Effect::Stop { task, node, epoch, .. } => (node, Message::Stop { task, epoch }),
            Effect::Revoked { task, node, epoch, .. } => (node, Message::Revoked { task, epoch }),
            // Watchers and planning ask by themselves.
            Effect::Signalled { .. }
            | Effect::Recall { .. }
            | Effect::Event { .. }
            | Effect::Replan
            | Effect::Members => return,
        };
        if let Some(worker) = self.worker_of(node) {
            self.send(who, Peer::Worker(worker), message);
        }
    }
}

fn wakes_a_worker(effect: &Effect) -> bool {
    match effect {
        Effect::Assigned { .. } | Effect::Stop { .. } | Effect::Revoked { .. } => true,
        Effect::Signalled { .. }
        | Effect::Recall { .. }
        | Effect::Event { .. }
        | Effect::Replan
        | Effect::Members => false,
    }
}
