//! What is watched during a run, and what must be true at its end:
//!
//! - acknowledged is durable: tasks, steps, cancels;
//! - each step is committed once, by the holder of the lease in force, and each model call is billed once;
//! - a task is not run by two workers at the same time, as far as both may know;
//! - after CANCELLED or EXPIRED nothing of the task starts;
//! - the ledger's own invariants, and use never rises above a limit;
//! - replicas agree at every index, and every watcher sees the same events without a gap;
//! - in the end every task is final and the budget holds exactly what was billed.

use crate::agent::Phase;
use crate::plan::Faults;
use crate::sim::Sim;
use ledger::command::{Command, RequestKey};
use ledger::effect::Effect;
use ledger::invariants::Watch;
use ledger::reply::{Refusal, Reply};
use ledger::rows::{Event, TaskRow};
use std::collections::{BTreeMap, BTreeSet};
use types::{Epoch, Hash, NodeId, TaskState, TaskUid};

#[derive(Default)]
pub(crate) struct Oracle {
    watch: Watch,
    tasks: BTreeMap<(String, String), TaskUid>,
    cancelled: BTreeSet<TaskUid>,
    /// Who offered a record, under which lease, and the call behind it.
    offers: BTreeMap<Hash, Offer>,
    committed: BTreeMap<(TaskUid, u64), Hash>,
    acknowledged: BTreeSet<(TaskUid, u64)>,
    billed_calls: BTreeSet<u64>,
    billed_tokens: u64,
    /// Leases that a pause took away: their holders may overlap with the next ones for a moment.
    revoked: BTreeSet<Epoch>,
    seen: BTreeMap<(TaskUid, u64), Event>,
    cursors: BTreeMap<(usize, TaskUid), u64>,
}

struct Offer {
    node: NodeId,
    epoch: Epoch,
    call: Option<u64>,
}

/// A task as it was before a command.
pub(crate) type Before = Option<Box<TaskRow>>;

impl Oracle {
    pub(crate) fn offered(&mut self, head: Hash, node: NodeId, epoch: Epoch, call: Option<u64>) {
        self.offers.entry(head).or_insert(Offer { node, epoch, call });
    }

    pub(crate) fn call_of(&self, command: &Command) -> Option<u64> {
        match command {
            Command::CommitStep { head, .. } => self.offers.get(head)?.call,
            _ => None,
        }
    }

    pub(crate) fn acknowledged(&mut self, uid: TaskUid, step: u64) {
        self.acknowledged.insert((uid, step));
    }

    pub(crate) fn acknowledged_task(&mut self, request: &RequestKey, uid: TaskUid) {
        self.tasks.insert((request.author.clone(), request.request_id.clone()), uid);
    }

    pub(crate) fn acknowledged_cancel(&mut self, uid: TaskUid) {
        self.cancelled.insert(uid);
    }

    pub(crate) fn steps(&self) -> usize {
        self.committed.len()
    }

    fn committed(&mut self, before: &TaskRow, command: &Command) -> Result<(), String> {
        let Command::CommitStep { task, step, head, billed_tokens, .. } = command else { return Ok(()) };
        if before.step >= *step {
            return Ok(());
        }
        if self.committed.insert((*task, *step), *head).is_some() {
            return Err(format!("{task} committed step {step} twice"));
        }
        self.billed_tokens += billed_tokens;
        let Some(offer) = self.offers.get(head) else {
            return Err(format!("nobody offered step {step} of {task}"));
        };
        if before.epoch != Some(offer.epoch) || before.node != Some(offer.node) {
            return Err(format!(
                "{task} took step {step} from {} under the stale lease {}",
                offer.node, offer.epoch
            ));
        }
        match offer.call {
            Some(call) if !self.billed_calls.insert(call) => Err(format!("{task} billed call {call} twice")),
            Some(_) | None => Ok(()),
        }
    }
}

impl Sim {
    pub(crate) fn before(&self, command: &Command) -> Before {
        match command {
            Command::CommitStep { task, .. } => self.cluster.truth.task(*task).cloned().map(Box::new),
            _ => None,
        }
    }

    /// Looks at every command that was applied.
    pub(crate) fn applied(&mut self, command: &Command, before: &Before, reply: &Reply, effects: &[Effect]) {
        if let (Some(before), Reply::Done) = (before, reply)
            && let Err(broken) = self.oracle.committed(before, command)
        {
            self.broken(broken);
        }
        if let Err(broken) = self.oracle.watch.check_use(&self.cluster.truth) {
            self.broken(broken);
        }
        for effect in effects {
            if let Effect::Revoked { epoch, .. } = effect {
                self.oracle.revoked.insert(*epoch);
                self.faults.user_pauses += 1;
            }
        }
        count(&mut self.faults, reply);
    }

    /// A worker starts a model call.
    pub(crate) fn started(&mut self, worker: usize, uid: TaskUid) {
        let state = self.cluster.truth.task(uid).map(|row| row.state);
        if matches!(state, None | Some(TaskState::Cancelled | TaskState::Expired)) {
            self.broken(format!("w{worker} starts something of {uid}, which is {state:?}"));
        }
        let mine = self.workers[worker].agents.get(&uid).map(|agent| agent.epoch);
        for other in (0..self.workers.len()).filter(|other| *other != worker) {
            let awake = self.workers[other].up && !self.workers[other].frozen;
            let Some(agent) = self.workers[other].agents.get(&uid).filter(|_| awake) else { continue };
            let calling = matches!(agent.phase, Phase::Calling(_)) && self.lease_valid(other);
            let revoked = |epoch: &Epoch| self.oracle.revoked.contains(epoch);
            if calling && !revoked(&agent.epoch) && !mine.as_ref().is_some_and(revoked) {
                self.broken(format!("{uid} runs on w{worker} and on w{other} at the same time"));
            }
        }
    }

    /// Followers are where people watch: a cursor for each replica and task, and no event may be missing or differ.
    pub(crate) fn watch_events(&mut self, follower: usize) {
        let mut broken = None;
        let state = &self.cluster.followers[follower].0;
        for row in state.tasks() {
            let cursor = self.oracle.cursors.entry((follower, row.uid)).or_insert(0);
            if row.sequence == *cursor {
                continue;
            }
            for event in state.events_from(row.uid, *cursor + 1) {
                let known =
                    self.oracle.seen.entry((row.uid, event.sequence)).or_insert_with(|| event.clone());
                if event.sequence != *cursor + 1 || known != event {
                    broken =
                        Some(format!("{}: event {} after {cursor}, or another", row.uid, event.sequence));
                }
                *cursor = event.sequence;
            }
        }
        if let Some(broken) = broken {
            self.broken(broken);
        }
    }

    pub(crate) fn check_truth(&mut self) {
        if let Err(broken) = self.oracle.watch.check(&self.cluster.truth) {
            self.broken(broken);
        }
    }

    /// Everything that must be true when all tasks are final.
    pub(crate) fn check_end(&mut self) {
        self.check_truth();
        for follower in 0..self.cluster.followers.len() {
            self.follow(follower, usize::MAX / 2);
        }
        if let Err(broken) = self.end_is_right() {
            self.broken(broken);
        }
    }

    fn end_is_right(&self) -> Result<(), String> {
        let truth = &self.cluster.truth;
        for uid in self.oracle.tasks.values() {
            truth.task(*uid).ok_or(format!("{uid} was acknowledged and is gone"))?;
        }
        let distinct: BTreeSet<TaskUid> = self.oracle.tasks.values().copied().collect();
        if distinct.len() != self.oracle.tasks.len() {
            return Err("two requests were answered with the same task".into());
        }
        let asked = truth.tasks().filter(|row| row.origin.is_none()).count();
        if asked != self.oracle.tasks.len() {
            return Err(format!("{asked} root tasks of {} requests", self.oracle.tasks.len()));
        }
        for (uid, step) in &self.oracle.acknowledged {
            let reached = truth.task(*uid).map_or(0, |row| row.step);
            if reached < *step {
                return Err(format!("step {step} of {uid} was acknowledged and is gone, it is at {reached}"));
            }
        }
        for uid in &self.oracle.cancelled {
            let state = truth.task(*uid).map(|row| row.state);
            if !matches!(state, Some(TaskState::Cancelled | TaskState::Expired)) {
                return Err(format!("{uid} was CANCELLING and is {state:?}"));
            }
        }
        let settled = truth.quota("cluster").map_or(0, |row| row.tokens_settled);
        if settled != self.oracle.billed_tokens {
            return Err(format!("{settled} tokens settled, {} billed", self.oracle.billed_tokens));
        }
        Ok(())
    }
}

fn count(faults: &mut Faults, reply: &Reply) {
    match reply {
        Reply::Refused(Refusal::Fenced { .. }) => faults.fenced += 1,
        Reply::Refused(Refusal::OverQuota { resource, .. }) if resource != "running" => {
            faults.budget_pauses += 1
        }
        _ => {}
    }
}
