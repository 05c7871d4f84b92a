//! What a leader does beside writing entries: it hears nodes, gives nodes up, lets time pass, plans.

use crate::cluster::Asker;
use crate::leader::{Attached, Office};
use crate::net::{Message, Peer};
use crate::plan::Plant;
use crate::sim::Sim;
use ledger::command::Command;
use ledger::query::{Answer, Query};
use ledger::{Soft, SoftNode};
use types::{NodeId, limits};

const FULL_SET_MS: u64 = 2_000;
const PLAN_MAX: usize = 8;
/// A node that is silent for so long is taken for lost for good.
const GONE_MS: u64 = 6_000;
/// Homes that move together, of each holder.
const MOVED: u32 = 4;
/// A leader that heard its quorum this lately can't have a successor yet: others campaign after 400 ms at least.
const QUORUM_MS: u64 = 400;
/// After this a lease whose node is silent has outlived every rule: two leases, a failover, the slowest disk.
const OUTLIVED_MS: u64 = 2 * limits::NODE_LEASE_MS + 5_000;

impl Sim {
    /// A message for a coordinator: only the leader has answers.
    pub(crate) fn at_coordinator(&mut self, who: usize, from: Peer, message: Message) {
        if self.office_of(who).is_none() {
            let leader = self.office.as_ref().map(|office| office.who);
            return self.send(Peer::Coordinator(who), from, Message::Moved { leader });
        }
        match message {
            Message::Hello { boot, wall_ms } => self.hello(who, from, boot, wall_ms),
            Message::Beat { boot, office, sent_ms, wall_ms } => {
                self.beat(who, from, boot, office, sent_ms, wall_ms);
            }
            Message::Ask { id, command } if self.leads(who) => {
                let command = self.helpful(*command);
                self.propose(Asker::Peer(from, id), command);
            }
            // A deposed leader writes it, and it is never committed.
            _ => {}
        }
    }

    fn leads(&self, who: usize) -> bool {
        self.office.as_ref().is_some_and(|office| office.who == who)
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

    fn hello(&mut self, who: usize, from: Peer, boot: u64, wall_ms: u64) {
        let (Some(node), now_ms) = (self.node_of(from), self.now_ms) else { return };
        let Some(office) = self.office_of(who).filter(|office| !office.losing.contains(&node)) else {
            return;
        };
        office.attached.insert(node, Attached { boot, wall_ms, heard_ms: now_ms });
        office.last_beat_ms.insert(node, now_ms);
        self.send_full_set(who, node);
    }

    fn send_full_set(&mut self, who: usize, node: NodeId) {
        let Some(office) = self.office_of(who) else { return };
        let Some(boot) = office.attached.get(&node).map(|attached| attached.boot) else { return };
        let (number, belief) = (office.number, office.belief.clone());
        let state = belief.as_deref().unwrap_or(&self.cluster.truth);
        let leases = match self.plant {
            Some(Plant::NoFullSets) => vec![],
            _ => state.leases_of(node).cloned().collect(),
        };
        if let Some(worker) = self.worker_of(node) {
            let message = Message::FullSet { boot, office: number, leases };
            self.send(Peer::Coordinator(who), Peer::Worker(worker), message);
        }
    }

    fn beat(&mut self, who: usize, from: Peer, boot: u64, number: u64, sent_ms: u64, wall_ms: u64) {
        let (Some(node), now_ms, plant) = (self.node_of(from), self.now_ms, self.plant) else { return };
        let Some(office) = self.office_of(who) else { return };
        let known = office.attached.get(&node).is_some_and(|attached| attached.boot == boot);
        if !known || office.number != number || office.losing.contains(&node) {
            return self.send(Peer::Coordinator(who), from, Message::Moved { leader: Some(who) });
        }
        let alone = office.cut_since_ms.is_some_and(|since_ms| now_ms >= since_ms + QUORUM_MS);
        if alone && plant != Some(Plant::AckWhileCut) {
            return;
        }
        office.attached.insert(node, Attached { boot, wall_ms, heard_ms: now_ms });
        office.last_beat_ms.insert(node, now_ms);
        self.send(Peer::Coordinator(who), from, Message::BeatAck { boot, office: number, sent_ms });
    }

    /// What a leader does all the time.
    pub(crate) fn look(&mut self) {
        if let Some(old) = self.deposed.as_ref().map(|old| old.who) {
            self.tell_full_sets(old);
        }
        let Some(who) = self.office.as_ref().map(|office| office.who) else { return };
        self.look_for_lost();
        self.let_time_pass();
        self.move_homes();
        self.plan_work();
        self.tell_full_sets(who);
    }

    fn tell_full_sets(&mut self, who: usize) {
        let (now_ms, plant) = (self.now_ms, self.plant);
        let Some(office) = self.office_of(who) else { return };
        if now_ms - office.full_sets_ms < FULL_SET_MS || plant == Some(Plant::NoFullSets) {
            return;
        }
        office.full_sets_ms = now_ms;
        let nodes: Vec<NodeId> = office.attached.keys().copied().collect();
        nodes.into_iter().for_each(|node| self.send_full_set(who, node));
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
            let silent_ms = self.now_ms - last_ms;
            let holds = self.cluster.truth.leases_of(node).next().is_some();
            let alone = office.cut_since_ms.is_some();
            if silent_ms > patience_ms && holds && office.losing.insert(node) {
                office.attached.remove(&node);
                self.propose(Asker::Leader, Command::NodeLost { node });
            } else if holds && !alone && silent_ms > OUTLIVED_MS {
                self.broken(format!("leases of {node} outlive it: silent for {silent_ms} ms"));
            }
        }
    }

    fn let_time_pass(&mut self) {
        let Some(office) = &self.office else { return };
        let (stamp, _) = self.stamp(office);
        if !office.planning && self.cluster.truth.tick_due(stamp.ledger_ms, stamp.wall_ms) {
            self.propose(Asker::Leader, Command::Tick);
        }
    }

    /// Who kept what a silent node kept brings it to another store; here the bytes are everywhere, and what is tried is that
    /// homes move while everything else goes on.
    fn move_homes(&mut self) {
        let Some(office) = self.office.as_ref().filter(|office| !office.planning) else { return };
        let silent_ms = |node: NodeId| {
            self.now_ms - office.last_beat_ms.get(&node).copied().unwrap_or(0).max(office.began_ms)
        };
        let (gone, here): (Vec<NodeId>, Vec<NodeId>) =
            self.cluster.truth.nodes().map(|row| row.id).partition(|node| silent_ms(*node) > GONE_MS);
        if gone.is_empty() || here.len() < limits::COPIES {
            return;
        }
        let mut moves = Vec::new();
        for holder in here.iter().copied() {
            let (gone, after) = (gone.clone(), None);
            let query = Query::Short { holder, gone, unproved: false, ended: false, after, limit: MOVED };
            let Answer::Short { rows, .. } = self.cluster.truth.answer(&query, None) else { return };
            let other = here.iter().copied().find(|node| *node != holder).unwrap_or(holder);
            moves.extend(rows.into_iter().map(|row| Command::MoveHome {
                chain: row.chain,
                was: row.keepers,
                mark: row.mark,
                home: vec![holder, other],
            }));
        }
        moves.into_iter().for_each(|command| self.propose(Asker::Leader, command));
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
        let node = |id: &NodeId| SoftNode {
            attached: office.attached.contains_key(id) && !office.losing.contains(id),
            draining: self.worker_of(*id).is_some_and(|worker| self.workers[worker].draining),
            slots: 4,
            models: ["m".to_string()].into(),
            ..SoftNode::default()
        };
        let nodes = self.cluster.truth.nodes().map(|row| (row.id, node(&row.id))).collect();
        Soft { nodes, ledger_ms: self.stamp(office).0.ledger_ms, ..Soft::default() }
    }
}
