//! The leader's shell, short: it takes questions, writes entries, performs effects, sees nodes come and go, plans.
//!
//! Rules that the proofs need: a node counts as alive for one lease and a margin after its last beat, and after the
//! office began; once its loss is proposed, none of its beats is acknowledged before it attached anew and got the
//! full set; effects are performed by the leader whose entry it was, and by nobody later.

use crate::cluster::{Asker, COORDINATORS, Pending};
use crate::net::{Message, Peer};
use crate::plan::Plant;
use crate::sim::{Event, Sim};
use ledger::command::{Command, Stamp};
use ledger::effect::Effect;
use ledger::{Soft, SoftNode};
use std::collections::{BTreeMap, BTreeSet};
use types::{NodeId, limits};

/// One term of one leader.
pub(crate) struct Office {
    pub number: u64,
    pub who: usize,
    began_ms: u64,
    began_ledger_ms: u64,
    /// Not written yet.
    queue: Vec<(Asker, Command)>,
    /// Written, in order, not committed.
    pub written: Vec<Pending>,
    /// Attached nodes: the process, and when its last beat came.
    attached: BTreeMap<NodeId, (u64, u64)>,
    last_beat_ms: BTreeMap<NodeId, u64>,
    /// Nodes whose loss is proposed.
    losing: BTreeSet<NodeId>,
    full_sets_ms: u64,
    planning: bool,
}

const FULL_SET_MS: u64 = 2_000;
const PLAN_MAX: usize = 8;

impl Sim {
    pub(crate) fn elect(&mut self) {
        if self.office.is_some() {
            return;
        }
        self.office_number += 1;
        let who = self.rng.below(COORDINATORS);
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
            queue: vec![],
            written: vec![],
            attached: BTreeMap::new(),
            last_beat_ms: BTreeMap::new(),
            losing: BTreeSet::new(),
            full_sets_ms: self.now_ms,
            planning: false,
        });
    }

    pub(crate) fn fail_leader(&mut self) {
        let Some(office) = self.office.take() else { return };
        self.faults.leader_failures += 1;
        self.trace(&format!("office {} ends", office.number));
        self.cut_pending(office.written);
        let silence_ms = self.rng.between(1_000, 1_300);
        self.after(silence_ms, Event::Elect);
    }

    fn stamp(&self, office: &Office) -> Stamp {
        let since_ms = self.now_ms - office.began_ms;
        // Wall clocks differ between coordinators.
        let wall_ms = 1_000_000 + self.now_ms + 70 * office.who as u64;
        Stamp { ledger_ms: office.began_ledger_ms + since_ms, wall_ms }
    }

    pub(crate) fn propose(&mut self, asker: Asker, command: Command) {
        if let Some(office) = &mut self.office {
            office.queue.push((asker, command));
        }
    }

    /// Writes what is queued as one entry; it is committed a little later, in order.
    pub(crate) fn flush(&mut self) {
        let Some(office) = &mut self.office else { return };
        if office.queue.is_empty() {
            return;
        }
        let most = office.queue.len().min(limits::BATCH_COMMANDS);
        let commands = office.queue.drain(..most).collect();
        let number = office.number;
        let stamp = self.office.as_ref().map(|office| self.stamp(office)).unwrap_or_default();
        if let Some(office) = &mut self.office {
            office.written.push(Pending { stamp, commands });
        }
        // A quorum is slow now and then, so that leaders fail with entries half way.
        let longest_ms = if self.chaos && self.rng.percent(10) { 400 } else { 15 };
        let delay_ms = self.rng.between(2, longest_ms);
        self.after(delay_ms, Event::Commit { office: number });
    }

    /// A quorum has the oldest written entry.
    pub(crate) fn commit_written(&mut self, number: u64) {
        let current =
            self.office.as_mut().filter(|office| office.number == number && !office.written.is_empty());
        let Some(office) = current else { return };
        let who = Peer::Coordinator(office.who);
        let pending = office.written.remove(0);
        let (replies, effects) = self.commit(&pending);
        for ((asker, command), reply) in pending.commands.iter().zip(replies) {
            match asker {
                Asker::Peer(peer, id) => {
                    self.send(who, *peer, Message::Answer { id: *id, reply: Box::new(reply) });
                }
                Asker::Leader => self.done_for_leader(command),
            }
        }
        if self.chaos && self.rng.percent(4) {
            self.faults.effects_dropped += effects.len() as u64;
            return;
        }
        effects.into_iter().for_each(|effect| self.perform(who, effect));
    }

    fn done_for_leader(&mut self, command: &Command) {
        let Some(office) = &mut self.office else { return };
        if let Command::NodeLost { node } = command {
            office.losing.remove(node);
            office.attached.remove(node);
            self.faults.nodes_lost += 1;
        } else {
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
            Effect::Event { .. } | Effect::Replan | Effect::Members => return,
        };
        if let Some(worker) = self.worker_of(node) {
            self.send(who, Peer::Worker(worker), message);
        }
    }

    /// A message for a coordinator: only the leader has answers.
    pub(crate) fn at_coordinator(&mut self, who: usize, from: Peer, message: Message) {
        let leader = self.office.as_ref().map(|office| office.who);
        if leader != Some(who) {
            return self.send(Peer::Coordinator(who), from, Message::Moved { leader });
        }
        match message {
            Message::Hello { boot } => self.hello(from, boot),
            Message::Beat { boot, office, sent_ms } => self.beat(from, boot, office, sent_ms),
            Message::Ask { id, command } => {
                let command = self.helpful(*command);
                self.propose(Asker::Peer(from, id), command);
            }
            _ => {}
        }
    }

    /// The planted mistake: a stale commit is put right.
    fn helpful(&self, mut command: Command) -> Command {
        if self.plant == Some(Plant::AcceptStale)
            && let Command::CommitStep { task, epoch, node, home, step, billed_tokens, .. } = &mut command
            && let Some(row) = self.cluster.truth.task(*task)
            && let (Some(current), Some(holder)) = (row.epoch, row.node)
            && *epoch != current
        {
            (*epoch, *node, *step) = (current, holder, row.step + 1);
            *billed_tokens = row.reserved_tokens.min(*billed_tokens);
            home.push(holder);
        }
        command
    }

    fn hello(&mut self, from: Peer, boot: u64) {
        let (Some(node), now_ms) = (self.node_of(from), self.now_ms) else { return };
        let Some(office) = self.office.as_mut().filter(|office| !office.losing.contains(&node)) else {
            return;
        };
        office.attached.insert(node, (boot, now_ms));
        office.last_beat_ms.insert(node, now_ms);
        self.send_full_set(node);
    }

    fn send_full_set(&mut self, node: NodeId) {
        let Some(office) = &self.office else { return };
        let Some((boot, _)) = office.attached.get(&node).copied() else { return };
        let leases = match self.plant {
            Some(Plant::NoFullSets) => vec![],
            _ => self.cluster.truth.leases_of(node).cloned().collect(),
        };
        let (from, number) = (Peer::Coordinator(office.who), office.number);
        if let Some(worker) = self.worker_of(node) {
            self.send(from, Peer::Worker(worker), Message::FullSet { boot, office: number, leases });
        }
    }

    fn beat(&mut self, from: Peer, boot: u64, number: u64, sent_ms: u64) {
        let (Some(node), now_ms) = (self.node_of(from), self.now_ms) else { return };
        let Some(office) = &mut self.office else { return };
        let who = Peer::Coordinator(office.who);
        let known = office.attached.get(&node).is_some_and(|(attached, _)| *attached == boot);
        if !known || office.number != number || office.losing.contains(&node) {
            let leader = Some(office.who);
            return self.send(who, from, Message::Moved { leader });
        }
        office.last_beat_ms.insert(node, now_ms);
        self.send(who, from, Message::BeatAck { boot, office: number, sent_ms });
    }

    /// What a leader does all the time.
    pub(crate) fn look(&mut self) {
        if self.office.is_none() {
            return;
        }
        self.look_for_lost();
        self.let_time_pass();
        self.plan_work();
        let Some(office) = &mut self.office else { return };
        if self.now_ms - office.full_sets_ms >= FULL_SET_MS {
            office.full_sets_ms = self.now_ms;
            let nodes: Vec<NodeId> = office.attached.keys().copied().collect();
            if self.plant != Some(Plant::NoFullSets) {
                nodes.into_iter().for_each(|node| self.send_full_set(node));
            }
        }
    }

    fn look_for_lost(&mut self) {
        let patience_ms = match self.plant {
            Some(Plant::EarlyLost) => limits::NODE_RENEW_MS,
            _ => limits::NODE_LEASE_MS + limits::LEASE_MARGIN_MS,
        };
        let nodes: Vec<NodeId> = self.cluster.truth.nodes().map(|row| row.id).collect();
        for node in nodes {
            let Some(office) = &mut self.office else { return };
            let last_ms = office.last_beat_ms.get(&node).copied().unwrap_or(0).max(office.began_ms);
            let over = self.now_ms > last_ms + patience_ms;
            let holds = self.cluster.truth.leases_of(node).next().is_some();
            if over && holds && office.losing.insert(node) {
                office.attached.remove(&node);
                self.propose(Asker::Leader, Command::NodeLost { node });
            }
        }
    }

    fn let_time_pass(&mut self) {
        let Some(office) = &self.office else { return };
        let stamp = self.stamp(office);
        if !office.planning && self.cluster.truth.tick_due(stamp.ledger_ms, stamp.wall_ms) {
            self.propose(Asker::Leader, Command::Tick);
        }
    }

    fn plan_work(&mut self) {
        let Some(office) = self.office.as_ref().filter(|office| !office.planning) else { return };
        let soft = self.soft(office);
        let planned = ledger::plan::plan(&self.cluster.truth, &soft, PLAN_MAX);
        if planned.is_empty() {
            return;
        }
        planned.into_iter().for_each(|command| self.propose(Asker::Leader, command));
        if let Some(office) = &mut self.office {
            office.planning = true;
        }
    }

    fn soft(&self, office: &Office) -> Soft {
        let node = |id: &NodeId| {
            let alive = |(_, _): &(u64, u64)| !office.losing.contains(id);
            SoftNode {
                attached: office.attached.get(id).is_some_and(alive),
                slots: 3,
                models: ["m".to_string()].into(),
                ..SoftNode::default()
            }
        };
        let nodes = self.cluster.truth.nodes().map(|row| (row.id, node(&row.id))).collect();
        Soft { nodes, ledger_ms: self.stamp(office).ledger_ms, ..Soft::default() }
    }
}
